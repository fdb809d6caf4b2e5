"""Attention over the encoder's outputs (Bahdanau, Cho & Bengio, 2015).

With a query q, which is a decoder state, and the encoder's output m_s at source step s::

    dot        e_s = q . m_s                    Luong, Pham & Manning (2015), equation 8
    general    e_s = q . W m_s                  the same
    additive   e_s = v . tanh(Wq q + Wk m_s)    Bahdanau et al. (2015), appendix A.1.2

    weights    a = softmax(e) over the source's real symbols
    context    c = sum of a_s m_s
    readout    r = tanh(Wc [c; h])              Luong et al., equation 5; input of the output layer

Energies and contexts are computed in float32 at every precision setting.
"""

from functools import partial
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from s2sjax.config import Model
from s2sjax.model.initialisers import initialisers
from s2sjax.model.linear import matmul
from s2sjax.model.rnn import Mask, Outputs

Steps = Float[Array, "batch *time hidden"]  # of one step, or of all steps at once

_einsum = partial(jnp.einsum, precision=jax.lax.Precision.HIGHEST)
_MASKED = -1e30  # minus infinity would give NaN in a row of padding alone


class Memory(NamedTuple):
    """The encoder's outputs and their keys; the mask is true at real symbols."""

    values: Outputs
    keys: Outputs
    mask: Mask | None


class Attention(nn.Module):
    """The parameters of a score and of the readout."""

    config: Model

    def setup(self) -> None:
        c, size = self.config, self.config.hidden_size
        init = initialisers(c.init, size)
        if c.attention in ("general", "additive"):
            self.wk = self.param("wk", init.kernel, (size, size))
        if c.attention == "additive":
            self.wq = self.param("wq", init.kernel, (size, size))
            self.v = self.param("v", init.kernel, (size, 1))
        self.wc = self.param("wc", init.kernel, (2 * size, size))

    def memory(self, values: Outputs, mask: Mask | None) -> Memory:
        """Compute the keys, once for all queries."""
        if self.config.attention == "dot":
            return Memory(values, values, mask)
        return Memory(values, matmul(values, self.wk, self.config.precision), mask)

    def attend(self, query: Steps, memory: Memory) -> tuple[Steps, Float[Array, "batch *time n"]]:
        """Contexts and weights of queries."""
        steps = (1,) * (query.ndim - 2)  # so that masks and keys broadcast over the queries
        if self.config.attention == "additive":
            query = matmul(query, self.wq, self.config.precision)[..., None, :]
            keys = memory.keys.reshape(len(query), *steps, *memory.keys.shape[1:])
            energies = _einsum("...h,h->...", jnp.tanh(query + keys), self.v[:, 0])
        else:
            energies = _einsum("b...h,bsh->b...s", query, memory.keys)
        if memory.mask is not None:
            mask = memory.mask.reshape(len(query), *steps, -1)
            energies = jnp.where(mask, energies, _MASKED)
        weights = jax.nn.softmax(energies, axis=-1)
        return _einsum("b...s,bsh->b...h", weights, memory.values), weights

    def readout(self, context: Steps, top: Steps) -> Steps:
        """Readouts of contexts and the decoder's top outputs."""
        joined = jnp.concatenate([context, top], axis=-1)
        return jnp.tanh(matmul(joined, self.wc, self.config.precision))
