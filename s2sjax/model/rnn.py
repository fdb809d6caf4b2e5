"""A recurrent layer: three cells, the scan over time with its own gradient, and the Linen module.

``z = x wx + b`` is a step's projected input and ``u = h wh`` its recurrent product, all gates side
by side. The carry is (c, h); only an LSTM has a cell state c. With s for sigmoid::

    lstm    i, f, g, o = s(z + u), s(z + u), tanh(z + u), s(z + u)      each of its own quarter
            c' = f c + i g
            h' = o tanh(c')

    gru     r, k = s(z + u), s(z + u)                                   reset and update gate
            n = tanh(z + r (u + bn))                                    candidate
            h' = (1 - k) n + k h

    rnn     h' = tanh(z + u)

LSTM: Hochreiter & Schmidhuber (1997), with the forget gate of Gers, Schmidhuber & Cummins (2000).
GRU: Cho et al. (2014), with the reset gate after the product, as in cuDNN, PyTorch, Flax and Keras:
one product serves all gates, and the candidate has a second bias ``bn``.

The gradient is written by hand for speed: it saves the gate activations (in one array each: one for
all was slower), and the gradient of ``wh`` is one matrix product after the loop. Arrays are
time-major inside this file.
"""

from functools import partial
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from s2sjax.config import Cell, Model
from s2sjax.model.initialisers import GATES, initialisers
from s2sjax.model.linear import affine, matmul

Projected = Float[Array, "batch time gates"]
ProjectedStep = Float[Array, "batch gates"]
Outputs = Float[Array, "batch time hidden"]
Mask = Bool[Array, "batch time"]
Hidden = Float[Array, "batch hidden"]


class Carry(NamedTuple):
    """State of a layer: cell state ``c`` of an LSTM, and hidden state ``h``."""

    c: Hidden | None
    h: Hidden


class Weights(NamedTuple):
    """Weights of the recurrent product; only a GRU has ``bn``."""

    wh: Float[Array, "hidden gates"]
    bn: Float[Array, " hidden"] | None = None


# Forward: (z, u, carry before) to (carry after, activations saved for the gradient).
# Backward: (saved, carry before, gradient of the carry after) to (gradient of z, gradient of the
# carry before, except the part through u).


def _lstm_forward(z, u, before):
    i, f, g, o = jnp.split(z + u, 4, axis=-1)
    i, f, g, o = jax.nn.sigmoid(i), jax.nn.sigmoid(f), jnp.tanh(g), jax.nn.sigmoid(o)
    c = f * before.c + i * g
    tanh_c = jnp.tanh(c)
    return Carry(c, o * tanh_c), (i, f, g, o, tanh_c)


def _lstm_backward(saved, before, d):
    i, f, g, o, tanh_c = saved
    dc = d.c + d.h * o * (1 - tanh_c**2)
    dz = [dc * g * i * (1 - i), dc * before.c * f * (1 - f), dc * i * (1 - g**2)]
    dz = jnp.concatenate([*dz, d.h * tanh_c * o * (1 - o)], axis=-1)
    return dz, Carry(dc * f, jnp.zeros_like(d.h))


def _gru_forward(z, u, before):
    (r, k, n), (u_r, u_k, u_n) = jnp.split(z, 3, axis=-1), jnp.split(u, 3, axis=-1)
    r, k = jax.nn.sigmoid(r + u_r), jax.nn.sigmoid(k + u_k)
    n = jnp.tanh(n + r * u_n)
    return Carry(None, (1 - k) * n + k * before.h), (r, k, n, u_n)


def _gru_backward(saved, before, d):
    r, k, n, u_n = saved
    dz_n = d.h * (1 - k) * (1 - n**2)
    dz = [dz_n * u_n * r * (1 - r), d.h * (before.h - n) * k * (1 - k), dz_n]
    return jnp.concatenate(dz, axis=-1), Carry(None, d.h * k)


def _rnn_forward(z, u, before):
    h = jnp.tanh(z + u)
    return Carry(None, h), h


def _rnn_backward(h, before, d):
    return d.h * (1 - h**2), Carry(None, jnp.zeros_like(h))


_FORWARD = {"lstm": _lstm_forward, "gru": _gru_forward, "rnn": _rnn_forward}
_BACKWARD = {"lstm": _lstm_backward, "gru": _gru_backward, "rnn": _rnn_backward}


def _gradient_of_u(cell, saved, dz):
    """The gradient of z; of a GRU's candidate times r."""
    if cell != "gru":
        return dz
    dz_r, dz_k, dz_n = jnp.split(dz, 3, axis=-1)
    return jnp.concatenate([dz_r, dz_k, dz_n * saved[0]], axis=-1)


def _add_bias(u, bn):
    """Add a GRU's second bias to the last gate of `u`."""
    if bn is None:
        return u
    return u + jnp.broadcast_to(jnp.pad(bn, (u.shape[-1] - bn.size, 0)), u.shape)


def _advance(config, weights, z, before, dropout_mask):
    """One step: the carry after it, and the saved activations."""
    h = before.h if dropout_mask is None else before.h * dropout_mask
    u = _add_bias(matmul(h, weights.wh, config.precision), weights.bn)
    return _FORWARD[config.cell](z, u, before)


def _where(mask, new: Carry, old: Carry) -> Carry:
    """The new carry where `mask` is true or None, else the old one."""
    if mask is None:
        return new
    return jax.tree.map(lambda n, o: jnp.where(mask[:, None], n, o), new, old)


def zero_carry(cell: Cell, z: ProjectedStep) -> Carry:
    """The carry before the first step, shaped for the projected input `z`."""
    zero = jnp.zeros((z.shape[0], z.shape[1] // GATES[cell]), z.dtype)
    return Carry(zero if cell == "lstm" else None, zero)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _scan(config, weights, z, carry, mask, dropout_mask):
    """A time-major layer from a given carry: (last carry, hidden states)."""
    return _scan_forward(config, weights, z, carry, mask, dropout_mask)[0]


def _scan_forward(config, weights, z, carry, mask, dropout_mask):
    def step(before, inputs):
        z, mask = inputs
        new, activations = _advance(config, weights, z, before, dropout_mask)
        after = _where(mask, new, before)
        return after, (after.h, (activations, before, mask))

    last, (hidden, saved) = jax.lax.scan(step, carry, (z, mask), unroll=config.unroll)
    return (last, hidden), (weights, saved, dropout_mask)


def _scan_backward(config, residuals, gradients):
    (wh, bn), saved, dropout_mask = residuals
    d_last, d_hidden = gradients

    def step(d_after, inputs):
        d_hidden, (activations, before, mask) = inputs
        d_after = Carry(d_after.c, d_after.h + d_hidden)
        d_new = _where(mask, d_after, jax.tree.map(jnp.zeros_like, d_after))
        dz, d_before = _BACKWARD[config.cell](activations, before, d_new)
        d_h = matmul(_gradient_of_u(config.cell, activations, dz), wh.T, config.precision)
        d_h = d_h if dropout_mask is None else d_h * dropout_mask
        d_before = Carry(d_before.c, d_before.h + d_h)
        return _where(mask, d_before, d_after), dz  # a masked step passes its gradient on

    steps = (d_hidden, saved)
    d_carry, dz = jax.lax.scan(step, d_last, steps, reverse=True, unroll=config.unroll)
    activations, before, _ = saved
    hidden, gates = wh.shape
    du = _gradient_of_u(config.cell, activations, dz).reshape(-1, gates)
    h = before.h if dropout_mask is None else before.h * dropout_mask[None]
    dwh = matmul(h.reshape(-1, hidden).T, du, config.precision)
    d_weights = Weights(dwh, None if bn is None else du[:, -hidden:].sum(0))
    return d_weights, dz, d_carry, None, None


_scan.defvjp(_scan_forward, _scan_backward)


class Recurrent(nn.Module):
    """A layer of H units, G gates: ``wx [inputs, G H]``, ``wh``, ``b [G H]``, a GRU's ``bn``."""

    input_size: int
    hidden_size: int
    config: Model

    def setup(self) -> None:  # parameters declared inside a scan would leak tracers
        size, cell = self.hidden_size, self.config.cell
        init = initialisers(self.config.init, size, cell)
        gates = GATES[cell] * size
        self.wx = self.param("wx", init.kernel, (self.input_size, gates))
        wh = self.param("wh", init.recurrent, (size, gates))
        self.b = self.param("b", init.gate_bias, (gates,))
        bn = self.param("bn", init.bias, (size,)) if cell == "gru" else None
        self.weights = Weights(wh, bn)

    def project(self, inputs: Float[Array, "*n part"], first_row: int = 0) -> Float[Array, "*n g"]:
        """``z = x wx + b``; inputs may be a part, as in `affine`."""
        return affine(inputs, self.wx, self.b, self.config.precision, first_row)

    def __call__(
        self,
        z: Projected,
        carry: Carry | None = None,
        mask: Mask | None = None,
        dropout_mask: Hidden | None = None,
    ) -> tuple[Carry, Outputs]:
        """The last carry, and the hidden state after every step.

        None for the carry is zero and saves the first recurrent product. Where `mask` is false a
        step keeps the carry. The dropout mask multiplies the hidden state in every recurrent
        product; it has no gradient.
        """
        cell, scan = self.config.cell, partial(_scan, self.config, self.weights)
        z, mask = jnp.swapaxes(z, 0, 1), None if mask is None else mask.T
        if carry is not None:
            last, hidden = scan(z, carry, mask, dropout_mask)
            return last, jnp.swapaxes(hidden, 0, 1)
        zero = zero_carry(cell, z[0])
        first_mask, rest_mask = (None, None) if mask is None else (mask[0], mask[1:])
        u = _add_bias(jnp.zeros_like(z[0]), self.weights.bn)
        first = _where(first_mask, _FORWARD[cell](z[0], u, zero)[0], zero)
        last, hidden = scan(z[1:], first, rest_mask, dropout_mask)
        return last, jnp.swapaxes(jnp.concatenate([first.h[None], hidden]), 0, 1)

    def step(self, z: ProjectedStep, carry: Carry, dropout_mask: Hidden | None = None) -> Carry:
        return _advance(self.config, self.weights, z, carry, dropout_mask)[0]
