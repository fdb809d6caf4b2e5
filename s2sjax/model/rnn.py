"""A recurrent layer: the scan over time with its own gradient, and the Linen module.

The gradient is written by hand for speed: it saves the gate activations (in one array each: one for
all was slower), and the gradient of ``wh`` is one matrix product after the loop. JAX derives it for
a cell that does not bring one. Arrays are time-major inside this file.
"""

from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from s2sjax.config import Model
from s2sjax.model.cells import Carry, Cell, Hidden, find_cell
from s2sjax.model.initialisers import initialisers
from s2sjax.model.linear import affine, matmul

Projected = Float[Array, "batch time gates"]
ProjectedStep = Float[Array, "batch gates"]
Outputs = Float[Array, "batch time hidden"]
Mask = Bool[Array, "batch time"]


class Weights(NamedTuple):
    """Weights of the recurrent product; a cell's second bias, and its further weights."""

    wh: Float[Array, "hidden gates"]
    bn: Float[Array, " hidden"] | None = None
    further: tuple[Float[Array, "rows hidden"], ...] = ()


def _add_bias(u, bn):
    """Add a second bias to the last gate of `u`."""
    if bn is None:
        return u
    return u + jnp.broadcast_to(jnp.pad(bn, (u.shape[-1] - bn.size, 0)), u.shape)


def _advance(config, weights, z, before, dropout_mask):
    """One step: the carry after it, and the saved activations."""
    h = before.h if dropout_mask is None else before.h * dropout_mask
    u = _add_bias(matmul(h, weights.wh, config.precision), weights.bn)
    return find_cell(config.cell).step(z, u, before, *weights.further)


def _where(mask, new: Carry, old: Carry) -> Carry:
    """The new carry where `mask` is true or None, else the old one."""
    if mask is None:
        return new
    return jax.tree.map(lambda n, o: jnp.where(mask[:, None], n, o), new, old)


def zero_carry(cell: Cell, z: ProjectedStep) -> Carry:
    """The carry before the first step, shaped for the projected input `z`."""
    zero = jnp.zeros((z.shape[0], z.shape[1] // cell.gates), z.dtype)
    return Carry(zero if cell.has_c else None, zero)


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
    (wh, bn, _), saved, dropout_mask = residuals
    d_last, d_hidden = gradients
    gradient: Any = find_cell(config.cell).gradient

    def step(d_after, inputs):
        d_hidden, (activations, before, mask) = inputs
        d_after = Carry(d_after.c, d_after.h + d_hidden)
        d_new = _where(mask, d_after, jax.tree.map(jnp.zeros_like, d_after))
        dz, du, d_before = gradient(activations, before, d_new)
        d_h = matmul(du, wh.T, config.precision)
        d_h = d_h if dropout_mask is None else d_h * dropout_mask
        d_before = Carry(d_before.c, d_before.h + d_h)
        # a masked step passes its gradient on; one array where z and u have the same gradient
        return _where(mask, d_before, d_after), (dz, None if du is dz else du)

    steps = (d_hidden, saved)
    d_carry, (dz, du) = jax.lax.scan(step, d_last, steps, reverse=True, unroll=config.unroll)
    _, before, _ = saved
    hidden, gates = wh.shape
    du = (dz if du is None else du).reshape(-1, gates)
    h = before.h if dropout_mask is None else before.h * dropout_mask[None]
    dwh = matmul(h.reshape(-1, hidden).T, du, config.precision)
    d_weights = Weights(dwh, None if bn is None else du[:, -hidden:].sum(0))
    return d_weights, dz, d_carry, None, None


_scan_by_hand = jax.custom_vjp(_scan, nondiff_argnums=(0,))
_scan_by_hand.defvjp(_scan_forward, _scan_backward)


class Recurrent(nn.Module):
    """A layer of H units, G gates: ``wx [inputs, G H]``, ``wh``, ``b [G H]``; see `Cell`."""

    input_size: int
    hidden_size: int
    config: Model

    def setup(self) -> None:  # parameters declared inside a scan would leak tracers
        size, cell = self.hidden_size, find_cell(self.config.cell)
        init = initialisers(self.config.init, size, cell)
        gates = cell.gates * size
        self.wx = self.param("wx", init.kernel, (self.input_size, gates))
        wh = self.param("wh", init.recurrent, (size, gates))
        self.b = self.param("b", init.gate_bias, (gates,))
        bn = self.param("bn", init.bias, (size,)) if cell.second_bias else None
        further = [self.param(n, init.kernel, (rows, size)) for n, rows in cell.weights.items()]
        self.weights = Weights(wh, bn, tuple(further))

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
        cell = find_cell(self.config.cell)
        scan = partial(_scan_by_hand if cell.gradient else _scan, self.config, self.weights)
        z, mask = jnp.swapaxes(z, 0, 1), None if mask is None else mask.T
        if carry is not None:
            last, hidden = scan(z, carry, mask, dropout_mask)
            return last, jnp.swapaxes(hidden, 0, 1)
        zero = zero_carry(cell, z[0])
        first_mask, rest_mask = (None, None) if mask is None else (mask[0], mask[1:])
        u = _add_bias(jnp.zeros_like(z[0]), self.weights.bn)
        first = _where(first_mask, cell.step(z[0], u, zero, *self.weights.further)[0], zero)
        last, hidden = scan(z[1:], first, rest_mask, dropout_mask)
        return last, jnp.swapaxes(jnp.concatenate([first.h[None], hidden]), 0, 1)

    def step(self, z: ProjectedStep, carry: Carry, dropout_mask: Hidden | None = None) -> Carry:
        return _advance(self.config, self.weights, z, carry, dropout_mask)[0]
