"""Recurrent layers: three cells, the scan over time, its gradient, and the module of parameters.

``z = x wx + b`` is a step's projected input and ``u = h wh`` its recurrent product; both hold all
gates side by side. The carry is (c, h), where only an LSTM has a cell c. With s for sigmoid::

    lstm    i, f, g, o = s(z + u), s(z + u), tanh(z + u), s(z + u)      each of its own quarter
            c' = f c + i g
            h' = o tanh(c')

    gru     r, k = s(z + u), s(z + u)                                   reset and update gate
            n = tanh(z + r (u + bn))                                    candidate
            h' = (1 - k) n + k h

    rnn     h' = tanh(z + u)

The LSTM is that of Hochreiter & Schmidhuber (1997) with the forget gate of Gers, Schmidhuber &
Cummins (2000). The GRU is that of Cho et al. (2014) with the reset gate after the product, as in
cuDNN, PyTorch, Flax and today's Keras: so one product serves all gates, and the candidate's has a
bias ``bn`` of its own. (Such a bias would be redundant elsewhere, where it is added to ``b``.)

What makes it fast, all of it here:

* the input projection of the whole sequence is one matrix product outside the loop; for tokens it
  is a row look-up in the projected table; an input that is the same at every step is projected
  once;
* a zero initial carry (``carry=None``) costs no recurrent product at the first step, in either
  direction;
* the gradient is ours (`jax.custom_vjp`): activated gates are saved, each by itself (side by side
  costs a seventh of an update on a CPU), the backward loop holds only what is sequential, and the
  gradient of ``wh`` is one matrix product after it.

Arrays are batch-major at every public boundary and time-major inside.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from s2sjax.config import Cell, Initialiser, Precision
from s2sjax.initialisers import GATES, initialisers
from s2sjax.linear import affine, matmul


class Carry(NamedTuple):
    """State of a layer: hidden state ``h``, and what an LSTM keeps behind it, its cell ``c``."""

    c: Float[Array, "batch hidden"] | None
    h: Float[Array, "batch hidden"]


class Weights(NamedTuple):
    """Of the recurrent product: ``wh``, and a GRU's bias ``bn`` of the candidate's part of it."""

    wh: Float[Array, "hidden gates"]
    bn: Float[Array, " hidden"] | None = None


# --- the cells -------------------------------------------------------------------------------


class _Equations(NamedTuple):
    """One step as pure functions, ``[batch, gates]`` and ``[batch, hidden]`` in and out.

    Attributes:
        forward: (z, u, carry before) to (carry after, what the gradient needs of the step).
        backward: (saved, carry before, gradient of the carry after) to (gradient of z, gradient of
            the carry before but for its way through u).
        recurrent: (saved, gradient of z) to the gradient of u.
    """

    forward: Callable[[Any, Any, Carry], tuple[Carry, Any]]
    backward: Callable[[Any, Carry, Carry], tuple[Any, Carry]]
    recurrent: Callable[[Any, Any], Any] = lambda saved, dz: dz  # where only z + u is used


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


def _gru_recurrent(saved, dz):
    dz_r, dz_k, dz_n = jnp.split(dz, 3, axis=-1)
    return jnp.concatenate([dz_r, dz_k, dz_n * saved[0]], axis=-1)


def _rnn_forward(z, u, before):
    h = jnp.tanh(z + u)
    return Carry(None, h), h


def _rnn_backward(h, before, d):
    return d.h * (1 - h**2), Carry(None, jnp.zeros_like(h))


_CELLS: dict[Cell, _Equations] = {
    "lstm": _Equations(_lstm_forward, _lstm_backward),
    "gru": _Equations(_gru_forward, _gru_backward, _gru_recurrent),
    "rnn": _Equations(_rnn_forward, _rnn_backward),
}


# --- one step --------------------------------------------------------------------------------


def _bias(u, bn):
    """Add the bias of the recurrent product, if there is one, to the last gate of `u`."""
    if bn is None:
        return u
    everywhere = jnp.pad(bn, (u.shape[-1] - bn.size, 0))
    return u + jnp.broadcast_to(everywhere, u.shape)


def _product(h, kept, wh, precision):
    """The recurrent product; of the hidden state only what dropout has `kept`, if it is on."""
    return matmul(h if kept is None else h * kept, wh, precision)


def _keep(mask, new: Carry, old: Carry) -> Carry:
    """The new carry where `mask` is true, else the old one; no mask keeps all of the new."""
    if mask is None:
        return new
    return jax.tree.map(lambda n, o: jnp.where(mask[:, None], n, o), new, old)


def zero_carry(cell: Cell, z: Float[Array, "batch gates"]) -> Carry:
    """The carry before the first step, shaped for the projected input `z`."""
    zero = jnp.zeros((z.shape[0], z.shape[1] // GATES[cell]), z.dtype)
    return Carry(zero if cell == "lstm" else None, zero)


def rnn_step(
    cell: Cell,
    weights: Weights,
    z: Float[Array, "batch gates"],
    carry: Carry,
    precision: Precision = "float32",
    kept: Float[Array, "batch hidden"] | None = None,
) -> Carry:
    """One step from the projected input ``z = x wx + b``; `kept` as in `rnn_scan`."""
    u = _bias(_product(carry.h, kept, weights.wh, precision), weights.bn)
    return _CELLS[cell].forward(z, u, carry)[0]


# --- the scan and its gradient ---------------------------------------------------------------


class _Saved(NamedTuple):
    """What the backward loop needs of the forward one, over the steps that have a recurrence."""

    step: Any  # as the cell saves it, before the mask puts the old carry back
    before: Carry  # [time, batch, hidden]
    mask: Any  # [time, batch] or None


def _forward(cell, precision, unroll, weights, z, carry, mask, kept):
    """Run the loop over time-major `z`: the last carry, hidden states, and what to save."""

    def step(before, now):
        z, mask = now
        u = _bias(_product(before.h, kept, weights.wh, precision), weights.bn)
        new, saved = _CELLS[cell].forward(z, u, before)
        after = _keep(mask, new, before)
        return after, (after.h, _Saved(saved, before, mask))

    return jax.lax.scan(step, carry, (z, mask), unroll=unroll)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _scan(cell, precision, unroll, weights, z, carry, mask, kept):
    """Time-major layer from a given carry: (last carry, hidden states)."""
    last, (hidden, _) = _forward(cell, precision, unroll, weights, z, carry, mask, kept)
    return last, hidden


def _scan_forward(cell, precision, unroll, weights, z, carry, mask, kept):
    last, (hidden, saved) = _forward(cell, precision, unroll, weights, z, carry, mask, kept)
    return (last, hidden), (weights, saved, kept)


def _scan_backward(cell, precision, unroll, residuals, gradients):
    (wh, bn), saved, kept = residuals
    d_last, d_hidden = gradients
    equations = _CELLS[cell]

    def step(d_after, now):
        d_hidden, s = now
        d_after = Carry(d_after.c, d_after.h + d_hidden)
        d_new = _keep(s.mask, d_after, jax.tree.map(jnp.zeros_like, d_after))
        dz, d_before = equations.backward(s.step, s.before, d_new)
        d_h = matmul(equations.recurrent(s.step, dz), wh.T, precision)
        d_h = d_h if kept is None else d_h * kept
        d_before = Carry(d_before.c, d_before.h + d_h)
        if s.mask is not None:  # a masked step passed its carry on, and so its gradient
            d_before = _keep(s.mask, d_before, d_after)
        return d_before, dz

    d_carry, dz = jax.lax.scan(step, d_last, (d_hidden, saved), reverse=True, unroll=unroll)
    hidden, gates = wh.shape
    du = equations.recurrent(saved.step, dz).reshape(-1, gates)
    h = saved.before.h if kept is None else saved.before.h * kept[None]
    dwh = matmul(h.reshape(-1, hidden).T, du, precision)
    d_weights = Weights(dwh, None if bn is None else du[:, -hidden:].sum(0))
    return d_weights, dz, d_carry, None, None


_scan.defvjp(_scan_forward, _scan_backward)


def rnn_scan(
    cell: Cell,
    weights: Weights,
    z: Float[Array, "batch time gates"],
    carry: Carry | None = None,
    mask: Bool[Array, "batch time"] | None = None,
    kept: Float[Array, "batch hidden"] | None = None,
    *,
    precision: Precision = "float32",
    unroll: int = 1,
) -> tuple[Carry, Float[Array, "batch time hidden"]]:
    """Run a layer over a projected sequence.

    Args:
        cell: whose equations.
        weights: of the recurrent product.
        z: projected inputs ``x wx + b``.
        carry: the state to start from; None is zero, without the first step's matrix product.
        mask: false where a step is to leave the carry as it is; None keeps every step.
        kept: what the hidden state is multiplied with where it enters the recurrent product, the
            same at every step (dropout); it has no gradient.
        precision: of the recurrent matrix products.
        unroll: steps an iteration of the compiled loop does.

    Returns:
        The carry after the last step, and the hidden state after every step.
    """
    z, mask = jnp.swapaxes(z, 0, 1), None if mask is None else mask.T
    if carry is not None:
        last, hidden = _scan(cell, precision, unroll, weights, z, carry, mask, kept)
        return last, jnp.swapaxes(hidden, 0, 1)
    zero = zero_carry(cell, z[0])
    first_mask, rest_mask = (None, None) if mask is None else (mask[0], mask[1:])
    u = _bias(jnp.zeros_like(z[0]), weights.bn)
    first = _keep(first_mask, _CELLS[cell].forward(z[0], u, zero)[0], zero)
    last, hidden = _scan(cell, precision, unroll, weights, z[1:], first, rest_mask, kept)
    return last, jnp.swapaxes(jnp.concatenate([first.h[None], hidden]), 0, 1)


# --- the module ------------------------------------------------------------------------------


class Recurrent(nn.Module):
    """Parameters of a layer of H units with G gates, and the functions above on them.

    They are ``wx [inputs, G H]``, ``wh [H, G H]``, ``b [G H]``, and a GRU's ``bn [H]``.

    Attributes:
        input_size: width of an input, or the number of classes of a one-hot one.
        hidden_size: units.
        cell: lstm (gates i, f, g, o), gru (r, k, n) or rnn (one).
        preset: how parameters are drawn.
        precision: of matrix products.
        unroll: steps an iteration of the compiled loop does.
    """

    input_size: int
    hidden_size: int
    cell: Cell = "lstm"
    preset: Initialiser = "keras"  # not `init`, which would hide `nn.Module.init`
    precision: Precision = "float32"
    unroll: int = 1

    def setup(self) -> None:
        """Declare the parameters: inside a scan they would leak."""
        draw = initialisers(self.preset, self.hidden_size, self.cell)
        gates = GATES[self.cell] * self.hidden_size
        self.wx = self.param("wx", draw.kernel, (self.input_size, gates))
        self.wh = self.param("wh", draw.recurrent, (self.hidden_size, gates))
        self.b = self.param("b", draw.gate_bias, (gates,))
        bn = self.param("bn", draw.bias, (self.hidden_size,)) if self.cell == "gru" else None
        self.weights = Weights(self.wh, bn)

    def project(
        self, inputs: Float[Array, "*n inputs"], first: int = 0
    ) -> Float[Array, "*n gates"]:
        """Inputs to ``z = x wx + b``: of a step, of a sequence, or of one repeated input.

        Of an input in parts, side by side, each part's share of ``z``: `first` is where the part
        begins; the bias is in the share of the part at 0.
        """
        wx = self.wx[first : first + inputs.shape[-1]]
        if first:
            return matmul(inputs, wx, self.precision)
        return affine(inputs, wx, self.b, self.precision)

    def one_hot_table(self, classes: int | None = None) -> Float[Array, "classes gates"]:
        """`project` of every one-hot input, or of the first `classes`, without the product."""
        return self.wx[:classes] + self.b[None]

    def __call__(
        self,
        z: Float[Array, "batch time gates"],
        carry: Carry | None = None,
        mask: Bool[Array, "batch time"] | None = None,
        kept: Float[Array, "batch hidden"] | None = None,
    ) -> tuple[Carry, Float[Array, "batch time hidden"]]:
        """`rnn_scan` with these parameters."""
        settings = {"precision": self.precision, "unroll": self.unroll}
        return rnn_scan(self.cell, self.weights, z, carry, mask, kept, **settings)

    def step(
        self,
        z: Float[Array, "batch gates"],
        carry: Carry,
        kept: Float[Array, "batch hidden"] | None = None,
    ) -> Carry:
        """`rnn_step` with these parameters."""
        return rnn_step(self.cell, self.weights, z, carry, self.precision, kept)
