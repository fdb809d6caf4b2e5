"""Initial weights as other libraries draw them: presets, because they are a confound.

========== ============================ ================================ ==========================
preset     input and output kernels     recurrent kernel                 biases
========== ============================ ================================ ==========================
keras      Glorot uniform               orthogonal over all gates        0, forget gate 1
flax       LeCun normal                 orthogonal, each gate on its own 0
torch      uniform +-1/sqrt(hidden)     the same                         the same
sutskever  uniform +-0.08               the same                         the same
========== ============================ ================================ ==========================

Embeddings are drawn as input kernels are. torch has a second bias vector, redundant but trained;
here there is one. Sources: keras ``layers/rnn/lstm.py``; flax ``linen/recurrent.py``; torch
``nn/modules/rnn.py``; Sutskever, Vinyals & Le (2014), section 3.4.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from s2sjax.config import Initialiser

Init = Callable[[Key[Array, ""], tuple[int, ...]], Float[Array, "..."]]

GATES = 4
"""Gates of an LSTM, in the order i, f, g, o."""


class Initialisers(NamedTuple):
    """How each kind of parameter of a recurrent layer and of an output layer is drawn."""

    kernel: Init
    recurrent: Init
    gate_bias: Init
    bias: Init


def _zeros(key, shape):
    return jnp.zeros(shape)


def _uniform(bound: float) -> Init:
    def init(key, shape):
        return jax.random.uniform(key, shape, minval=-bound, maxval=bound)

    return init


def _forget_one(key, shape):
    """Zero but for the forget gate's quarter (Jozefowicz, Zaremba & Sutskever, 2015)."""
    return jnp.zeros(shape).reshape(GATES, -1).at[1].set(1.0).reshape(shape)


def _per_gate(init: Init) -> Init:
    def init_gates(key, shape):
        keys = jax.random.split(key, GATES)
        gate = (*shape[:-1], shape[-1] // GATES)
        return jnp.concatenate([init(k, gate) for k in keys], axis=-1)

    return init_gates


def initialisers(preset: Initialiser, hidden_size: int) -> Initialisers:
    """The initialisers of a preset for layers of `hidden_size` units."""
    orthogonal = jax.nn.initializers.orthogonal()
    lecun = jax.nn.initializers.lecun_normal()
    match preset:
        case "keras":
            glorot = jax.nn.initializers.glorot_uniform()
            return Initialisers(glorot, orthogonal, _forget_one, _zeros)
        case "flax":
            # One fan-in for all gates: drawing them together or each on its own is the same.
            return Initialisers(lecun, _per_gate(orthogonal), _zeros, _zeros)
        case "torch":
            return Initialisers(*[_uniform(hidden_size**-0.5)] * 4)
        case "sutskever":
            return Initialisers(*[_uniform(0.08)] * 4)
