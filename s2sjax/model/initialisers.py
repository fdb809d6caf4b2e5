"""Initial weights as other libraries and authors draw them.

========= ======================== ======================= ================== ======================
preset    input, output kernels    recurrent kernel        biases             embeddings
========= ======================== ======================= ================== ======================
keras     Glorot uniform           orthogonal, over gates  0, LSTM's forget 1 uniform +-0.05
flax      LeCun normal             orthogonal, each gate   0                  normal/sqrt(embed_dim)
torch     uniform +-1/sqrt(hidden) the same                the same           normal
sutskever uniform +-0.08           the same                the same           the same
saitoh    normal/sqrt(rows)        the same                0                  normal/100
========= ======================== ======================= ================== ======================

They are a confound: on sentence pairs attention was learned with torch's weights and not with
Keras'. torch trains a second bias vector, redundant except in a GRU's candidate; only that part
exists here. Sources: keras ``layers/rnn`` and ``layers/core/embedding.py``; flax ``linen``; torch
``nn/modules/rnn.py`` and ``sparse.py``; Sutskever, Vinyals & Le (2014), section 3.4; K. Saitoh,
*Deep Learning from Scratch 2* (2018), chapter 7.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from s2sjax.config import Initialiser
from s2sjax.model.cells import CELLS, Cell

Init = Callable[[Key[Array, ""], tuple[int, ...]], Float[Array, "..."]]


class Initialisers(NamedTuple):
    """The initialiser of each kind of parameter."""

    kernel: Init
    recurrent: Init
    gate_bias: Init
    bias: Init
    embedding: Init


def _uniform(bound: float) -> Init:
    return lambda key, shape: jax.random.uniform(key, shape, minval=-bound, maxval=bound)


def _normal(divisor: Callable[[tuple[int, ...]], float]) -> Init:
    return lambda key, shape: jax.random.normal(key, shape) / divisor(shape)


def _forget_one(cell: Cell) -> Init:  # Jozefowicz, Zaremba & Sutskever (2015)
    ones = jnp.array([float(gate == cell.forget_gate) for gate in range(cell.gates)])
    return lambda key, shape: jnp.repeat(ones, shape[0] // cell.gates)


def _per_gate(init: Init, gates: int) -> Init:
    def init_gates(key, shape):
        gate = (*shape[:-1], shape[-1] // gates)
        keys = jax.random.split(key, gates)
        return jnp.concatenate([init(k, gate) for k in keys], axis=-1)

    return init_gates


def initialisers(preset: Initialiser, hidden_size: int, cell: Cell = CELLS["lstm"]) -> Initialisers:
    """The initialisers of a preset."""
    zeros, orthogonal = jax.nn.initializers.zeros, jax.nn.initializers.orthogonal()
    match preset:
        case "keras":
            glorot = jax.nn.initializers.glorot_uniform()
            return Initialisers(glorot, orthogonal, _forget_one(cell), zeros, _uniform(0.05))
        case "flax":
            # All gates have one fan-in, so their input kernels can be drawn together.
            lecun, per_gate = jax.nn.initializers.lecun_normal(), _per_gate(orthogonal, cell.gates)
            by_columns = _normal(lambda shape: shape[1] ** 0.5)
            return Initialisers(lecun, per_gate, zeros, zeros, by_columns)
        case "torch":
            drawn = Initialisers(*[_uniform(hidden_size**-0.5)] * 5)
            return drawn._replace(embedding=jax.nn.initializers.normal(1.0))
        case "sutskever":
            return Initialisers(*[_uniform(0.08)] * 5)
        case "saitoh":
            by_rows = _normal(lambda shape: shape[0] ** 0.5)
            return Initialisers(by_rows, by_rows, zeros, zeros, _normal(lambda shape: 100))
