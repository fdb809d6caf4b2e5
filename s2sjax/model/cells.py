"""Recurrent cells: the equations of each, and the shapes of its parameters.

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
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from s2sjax.errors import UserError, imported

Hidden = Float[Array, "batch hidden"]


class Carry(NamedTuple):
    """State of a layer: cell state ``c``, where the cell has one, and hidden state ``h``."""

    c: Hidden | None
    h: Hidden


@dataclass(frozen=True, eq=False)
class Cell:
    """A cell; one of your own, used by ``Model(cell="my_module.MY_CELL")``, needs the first two.

    Attributes:
        gates: z and u have ``gates x hidden`` columns.
        step: ``step(z, u, carry, *weights)`` gives the carry after a step, and what `gradient`
            needs (None where there is no `gradient`).
        gradient: ``gradient(saved, carry, d_after)`` gives the gradients of z, of u, and of the
            carry except the part through u. None: JAX derives it.
        has_c: whether the carry has a cell state c.
        forget_gate: the gate whose bias starts at 1 with the initial weights of Keras.
        second_bias: whether a bias ``bn [hidden]`` is added to the last gate of u.
        weights: further parameters: ``{"peephole": 3}`` is one of shape ``[3, hidden]``.
    """

    gates: int
    step: Callable[..., tuple[Carry, Any]]
    gradient: Callable[[Any, Carry, Carry], tuple[Array, Array, Carry]] | None = None
    has_c: bool = False
    forget_gate: int | None = None
    second_bias: bool = False
    weights: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.weights and self.gradient:
            raise UserError("Cell.gradient knows wx, wh, b and bn only: leave it out with weights")


def _lstm(z, u, before):
    i, f, g, o = jnp.split(z + u, 4, axis=-1)
    i, f, g, o = jax.nn.sigmoid(i), jax.nn.sigmoid(f), jnp.tanh(g), jax.nn.sigmoid(o)
    c = f * before.c + i * g
    tanh_c = jnp.tanh(c)
    return Carry(c, o * tanh_c), (i, f, g, o, tanh_c)


def _lstm_gradient(saved, before, d):
    i, f, g, o, tanh_c = saved
    dc = d.c + d.h * o * (1 - tanh_c**2)
    dz = [dc * g * i * (1 - i), dc * before.c * f * (1 - f), dc * i * (1 - g**2)]
    dz = jnp.concatenate([*dz, d.h * tanh_c * o * (1 - o)], axis=-1)
    return dz, dz, Carry(dc * f, jnp.zeros_like(d.h))


def _gru(z, u, before):
    (r, k, n), (u_r, u_k, u_n) = jnp.split(z, 3, axis=-1), jnp.split(u, 3, axis=-1)
    r, k = jax.nn.sigmoid(r + u_r), jax.nn.sigmoid(k + u_k)
    n = jnp.tanh(n + r * u_n)
    return Carry(None, (1 - k) * n + k * before.h), (r, k, n, u_n)


def _gru_gradient(saved, before, d):
    r, k, n, u_n = saved
    dz_n = d.h * (1 - k) * (1 - n**2)
    dz = [dz_n * u_n * r * (1 - r), d.h * (before.h - n) * k * (1 - k)]
    du = jnp.concatenate([*dz, dz_n * r], axis=-1)
    return jnp.concatenate([*dz, dz_n], axis=-1), du, Carry(None, d.h * k)


def _rnn(z, u, before):
    h = jnp.tanh(z + u)
    return Carry(None, h), h


def _rnn_gradient(h, before, d):
    dz = d.h * (1 - h**2)
    return dz, dz, Carry(None, jnp.zeros_like(h))


CELLS = {
    "lstm": Cell(4, _lstm, _lstm_gradient, has_c=True, forget_gate=1),
    "gru": Cell(3, _gru, _gru_gradient, second_bias=True),
    "rnn": Cell(1, _rnn, _rnn_gradient),
}


def find_cell(name: str) -> Cell:
    """A cell by its name here, or by its dotted name elsewhere; raises UserError without one."""
    if name in CELLS:
        return CELLS[name]
    cell = imported(name)
    if not isinstance(cell, Cell):
        known = ", ".join(CELLS)
        raise UserError(f"Model.cell must be {known}, or such as my_module.MY_CELL, not {name!r}")
    return cell
