"""The LSTM: one step, the scan over time, its gradient, and the module that holds its parameters.

Equations of Hochreiter & Schmidhuber (1997) with the forget gate of Gers, Schmidhuber & Cummins
(2000); gate order i, f, g, o; carry (c, h)::

    z = x wx + b
    i, f, g, o = sigmoid, sigmoid, tanh, sigmoid of the quarters of z + h wh
    c' = f c + i g
    h' = o tanh(c')

What makes it fast, all of it here:

* the input projection of the whole sequence is one matrix product outside the loop; for tokens it
  is a row look-up in the projected table; an input that is the same at every step is projected
  once;
* a zero initial carry (``carry=None``) costs no recurrent product at the first step, in either
  direction;
* the gradient is ours (`jax.custom_vjp`): activated gates are saved, the backward loop holds only
  what is sequential, and the gradient of ``wh`` is one matrix product after it.

Arrays are batch-major at every public boundary and time-major inside.
"""

from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from s2sjax.config import Initialiser, Precision
from s2sjax.initialisers import GATES, initialisers


class Carry(NamedTuple):
    """State of a layer: cell ``c``, which leaves through the output gate as hidden state ``h``."""

    c: Float[Array, "batch hidden"]
    h: Float[Array, "batch hidden"]


def matmul(
    a: Float[Array, "*m k"], b: Float[Array, "k n"], precision: Precision
) -> Float[Array, "*m n"]:
    """``a @ b`` in float32; ``bfloat16`` rounds the two factors, never the sum.

    Left to themselves, GPUs and TPUs would round float32 factors too.
    """
    if precision == "float32":
        return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)
    return _rounded_matmul(a, b)


@jax.custom_vjp
def _rounded_matmul(a, b):
    """`matmul` in bfloat16; autodiff would round the sums in its gradients."""
    return jnp.matmul(
        a.astype(jnp.bfloat16), b.astype(jnp.bfloat16), preferred_element_type=a.dtype
    )


def _rounded_matmul_forward(a, b):
    return _rounded_matmul(a, b), (a, b)


def _rounded_matmul_backward(factors, gradient):
    a, b = factors
    rows, gradients = a.reshape(-1, a.shape[-1]), gradient.reshape(-1, gradient.shape[-1])
    return _rounded_matmul(gradient, b.T), _rounded_matmul(rows.T, gradients)


_rounded_matmul.defvjp(_rounded_matmul_forward, _rounded_matmul_backward)


def affine(
    x: Float[Array, "*n inputs"],
    w: Float[Array, "inputs outputs"],
    b: Float[Array, " outputs"],
    precision: Precision,
) -> Float[Array, "*n outputs"]:
    """``x w + b``."""
    product = matmul(x, w, precision)
    return product + jnp.broadcast_to(b, product.shape)


@jax.custom_vjp
def look_up(table: Float[Array, "rows width"], ids: Int[Array, "*n"]) -> Float[Array, "*n width"]:
    """``one_hot(ids) @ table`` without the product.

    The gradient *is* that product, transposed: with the few rows of a character vocabulary it is
    far cheaper than the scatter-add that autodiff makes of a look-up.
    """
    return table[ids]


def _look_up_forward(table, ids):
    return table[ids], (ids, table.shape[0])


def _look_up_backward(residuals, gradient):
    ids, rows = residuals
    one_hot = jax.nn.one_hot(ids.reshape(-1), rows, dtype=gradient.dtype)
    return matmul(one_hot.T, gradient.reshape(-1, gradient.shape[-1]), "float32"), None


look_up.defvjp(_look_up_forward, _look_up_backward)


# --- one step --------------------------------------------------------------------------------


def _activate(z):
    """Pre-activations ``[..., 4 hidden]`` to gates, in place."""
    i, f, g, o = jnp.split(z, GATES, axis=-1)
    return jnp.concatenate(
        [jax.nn.sigmoid(i), jax.nn.sigmoid(f), jnp.tanh(g), jax.nn.sigmoid(o)], -1
    )


def _cell(gates, c):
    """Gates and the old cell to the new carry."""
    i, f, g, o = jnp.split(gates, GATES, axis=-1)
    c = f * c + i * g
    return Carry(c, o * jnp.tanh(c))


def _cell_gradient(gates, c_before, c, d):
    """Gradients of the new carry (`d`) to those of the pre-activations and of the old cell."""
    i, f, g, o = jnp.split(gates, GATES, axis=-1)
    tanh_c = jnp.tanh(c)
    dc = d.c + d.h * o * (1 - tanh_c**2)
    dz = [dc * g * i * (1 - i), dc * c_before * f * (1 - f), dc * i * (1 - g**2)]
    return jnp.concatenate([*dz, d.h * tanh_c * o * (1 - o)], axis=-1), dc * f


def _keep(mask, new: Carry, old: Carry) -> Carry:
    """The new carry where `mask` is true, else the old one; no mask keeps all of the new."""
    if mask is None:
        return new
    return jax.tree.map(lambda n, o: jnp.where(mask[:, None], n, o), new, old)


def zero_carry(z: Float[Array, "batch gates"]) -> Carry:
    """The carry before the first step, shaped for the projected input `z`."""
    zero = jnp.zeros((z.shape[0], z.shape[1] // GATES), z.dtype)
    return Carry(zero, zero)


def lstm_step(
    wh: Float[Array, "hidden gates"],
    z: Float[Array, "batch gates"],
    carry: Carry,
    precision: Precision = "float32",
) -> Carry:
    """One step from the projected input ``z = x wx + b``."""
    return _cell(_activate(z + matmul(carry.h, wh, precision)), carry.c)


# --- the scan and its gradient ---------------------------------------------------------------


class _Saved(NamedTuple):
    """What the backward loop needs of the forward one, over the steps that have a recurrence."""

    gates: Any  # [time, batch, 4 hidden]
    c_new: Any  # [time, batch, hidden]: the cell before the mask puts the old one back
    c_before: Any  # [time, batch, hidden]
    h_before: Any  # [time, batch, hidden]
    mask: Any  # [time, batch] or None


def _forward(precision, unroll, wh, z, carry, mask):
    """Run the loop over time-major `z`: the last carry, hidden states, and what to save."""

    def step(before, now):
        z, mask = now
        gates = _activate(z + matmul(before.h, wh, precision))
        new = _cell(gates, before.c)
        after = _keep(mask, new, before)
        return after, (after.h, _Saved(gates, new.c, before.c, before.h, mask))

    return jax.lax.scan(step, carry, (z, mask), unroll=unroll)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _scan(precision, unroll, wh, z, carry, mask):
    """Time-major LSTM from a given carry: (last carry, hidden states)."""
    last, (hidden, _) = _forward(precision, unroll, wh, z, carry, mask)
    return last, hidden


def _scan_forward(precision, unroll, wh, z, carry, mask):
    last, (hidden, saved) = _forward(precision, unroll, wh, z, carry, mask)
    return (last, hidden), (wh, saved)


def _scan_backward(precision, unroll, residuals, gradients):
    wh, saved = residuals
    d_last, d_hidden = gradients

    def step(d_after, now):
        d_hidden, s = now
        d_after = Carry(d_after.c, d_after.h + d_hidden)
        d_new = _keep(s.mask, d_after, jax.tree.map(jnp.zeros_like, d_after))
        dz, dc = _cell_gradient(s.gates, s.c_before, s.c_new, d_new)
        d_before = Carry(dc, matmul(dz, wh.T, precision))
        if s.mask is not None:  # a masked step passed its carry on, and so its gradient
            d_before = _keep(s.mask, d_before, d_after)
        return d_before, dz

    d_carry, dz = jax.lax.scan(step, d_last, (d_hidden, saved), reverse=True, unroll=unroll)
    hidden, gates = wh.shape
    dwh = matmul(saved.h_before.reshape(-1, hidden).T, dz.reshape(-1, gates), precision)
    return dwh, dz, d_carry, None


_scan.defvjp(_scan_forward, _scan_backward)


def lstm_scan(
    wh: Float[Array, "hidden gates"],
    z: Float[Array, "batch time gates"],
    carry: Carry | None = None,
    mask: Bool[Array, "batch time"] | None = None,
    *,
    precision: Precision = "float32",
    unroll: int = 1,
) -> tuple[Carry, Float[Array, "batch time hidden"]]:
    """Run an LSTM over a projected sequence.

    Args:
        wh: recurrent weights.
        z: projected inputs ``x wx + b``.
        carry: the state to start from; None is zero, without the first step's matrix product.
        mask: false where a step is to leave the carry as it is; None keeps every step.
        precision: of the recurrent matrix products.
        unroll: steps an iteration of the compiled loop does.

    Returns:
        The carry after the last step, and the hidden state after every step.
    """
    z, mask = jnp.swapaxes(z, 0, 1), None if mask is None else mask.T
    if carry is not None:
        last, hidden = _scan(precision, unroll, wh, z, carry, mask)
        return last, jnp.swapaxes(hidden, 0, 1)
    zero = zero_carry(z[0])
    first_mask, rest_mask = (None, None) if mask is None else (mask[0], mask[1:])
    first = _keep(first_mask, _cell(_activate(z[0]), zero.c), zero)
    last, hidden = _scan(precision, unroll, wh, z[1:], first, rest_mask)
    return last, jnp.swapaxes(jnp.concatenate([first.h[None], hidden]), 0, 1)


# --- the module ------------------------------------------------------------------------------


class LSTM(nn.Module):
    """Parameters ``wx [inputs, 4H]``, ``wh [H, 4H]``, ``b [4H]`` and the functions above on them.

    Attributes:
        input_size: width of an input, or the number of classes of a one-hot one.
        hidden_size: units.
        preset: how parameters are drawn.
        precision: of matrix products.
        unroll: steps an iteration of the compiled loop does.
    """

    input_size: int
    hidden_size: int
    preset: Initialiser = "keras"  # not `init`, which would hide `nn.Module.init`
    precision: Precision = "float32"
    unroll: int = 1

    def setup(self) -> None:
        """Declare the parameters: inside a scan they would leak."""
        draw, gates = initialisers(self.preset, self.hidden_size), GATES * self.hidden_size
        self.wx = self.param("wx", draw.kernel, (self.input_size, gates))
        self.wh = self.param("wh", draw.recurrent, (self.hidden_size, gates))
        self.b = self.param("b", draw.gate_bias, (gates,))

    def project(self, inputs: Float[Array, "*n inputs"]) -> Float[Array, "*n gates"]:
        """Inputs to ``z = x wx + b``: of a step, of a sequence, or of one repeated input."""
        return affine(inputs, self.wx, self.b, self.precision)

    def one_hot_table(self) -> Float[Array, "inputs gates"]:
        """`project` of every one-hot input, without the product."""
        return self.wx + self.b[None]

    def __call__(
        self,
        z: Float[Array, "batch time gates"],
        carry: Carry | None = None,
        mask: Bool[Array, "batch time"] | None = None,
    ) -> tuple[Carry, Float[Array, "batch time hidden"]]:
        """`lstm_scan` with these parameters."""
        return lstm_scan(self.wh, z, carry, mask, precision=self.precision, unroll=self.unroll)

    def repeat(
        self, inputs: Float[Array, "batch inputs"], time: int, carry: Carry | None = None
    ) -> tuple[Carry, Float[Array, "batch time hidden"]]:
        """Run over one input repeated at every step, projected once (Keras' RepeatVector)."""
        z = self.project(inputs)
        return self(jnp.broadcast_to(z[:, None], (z.shape[0], time, z.shape[1])), carry)

    def step(self, z: Float[Array, "batch gates"], carry: Carry) -> Carry:
        """`lstm_step` with these parameters."""
        return lstm_step(self.wh, z, carry, self.precision)
