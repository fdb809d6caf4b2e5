"""Initial weights as other libraries draw them: presets, because they are a confound.

========= ======================== ======================= ================== ======================
preset    input, output kernels    recurrent kernel        biases             embeddings
========= ======================== ======================= ================== ======================
keras     Glorot uniform           orthogonal, over gates  0, LSTM's forget 1 uniform +-0.05
flax      LeCun normal             orthogonal, each gate   0                  normal/sqrt(embed_dim)
torch     uniform +-1/sqrt(hidden) the same                the same           normal
sutskever uniform +-0.08           the same                the same           the same
saitoh    normal/sqrt(rows)        the same                0                  normal/100
========= ======================== ======================= ================== ======================

An embedding's size is what a word weighs before anything is learned. On sentence pairs attention
was learned with torch's weights and nothing was with Keras' (``experiments/README.md``).

torch has a second bias vector, trained and redundant but in a GRU's candidate; here only that part
of it is. Sources: keras ``layers/rnn/lstm.py``, ``gru.py``, ``simple_rnn.py`` and
``layers/core/embedding.py``; flax ``linen/recurrent.py`` and ``linen/linear.py``; torch
``nn/modules/rnn.py`` and ``sparse.py``; Sutskever, Vinyals & Le (2014), section 3.4; K. Saitoh,
*Deep Learning from Scratch 2* (2018), chapter 7.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from s2sjax.config import Cell, Initialiser

Init = Callable[[Key[Array, ""], tuple[int, ...]], Float[Array, "..."]]

GATES: dict[Cell, int] = {"lstm": 4, "gru": 3, "rnn": 1}
"""Gates of a cell: i, f, g, o of an LSTM; reset, update, candidate of a GRU."""


class Initialisers(NamedTuple):
    """How each kind of parameter of embeddings, recurrent layers and output layers is drawn."""

    kernel: Init
    recurrent: Init
    gate_bias: Init
    bias: Init
    embedding: Init


def _zeros(key, shape):
    return jnp.zeros(shape)


def _uniform(bound: float) -> Init:
    def init(key, shape):
        return jax.random.uniform(key, shape, minval=-bound, maxval=bound)

    return init


def _normal_by_rows(key, shape):
    return jax.random.normal(key, shape) / shape[0] ** 0.5


def _normal_by_columns(key, shape):
    return jax.random.normal(key, shape) / shape[1] ** 0.5


def _normal_hundredth(key, shape):
    return jax.random.normal(key, shape) / 100


def _forget_one(key, shape):
    """Zero but for an LSTM's forget gate (Jozefowicz, Zaremba & Sutskever, 2015)."""
    return jnp.zeros(shape).reshape(GATES["lstm"], -1).at[1].set(1.0).reshape(shape)


def _per_gate(init: Init, gates: int) -> Init:
    def init_gates(key, shape):
        keys = jax.random.split(key, gates)
        gate = (*shape[:-1], shape[-1] // gates)
        return jnp.concatenate([init(k, gate) for k in keys], axis=-1)

    return init_gates


def initialisers(preset: Initialiser, hidden_size: int, cell: Cell = "lstm") -> Initialisers:
    """The initialisers of a preset for layers of `hidden_size` units with such a cell."""
    orthogonal = jax.nn.initializers.orthogonal()
    lecun = jax.nn.initializers.lecun_normal()
    match preset:
        case "keras":
            glorot = jax.nn.initializers.glorot_uniform()
            gate_bias = _forget_one if cell == "lstm" else _zeros
            return Initialisers(glorot, orthogonal, gate_bias, _zeros, _uniform(0.05))
        case "flax":
            # One fan-in for all gates: drawing them together or each on its own is the same.
            per_gate = _per_gate(orthogonal, GATES[cell])
            return Initialisers(lecun, per_gate, _zeros, _zeros, _normal_by_columns)
        case "torch":
            drawn = Initialisers(*[_uniform(hidden_size**-0.5)] * 5)
            return drawn._replace(embedding=jax.nn.initializers.normal(1.0))
        case "sutskever":
            return Initialisers(*[_uniform(0.08)] * 5)
        case "saitoh":
            normal = _normal_by_rows
            return Initialisers(normal, normal, _zeros, _zeros, _normal_hundredth)
