"""Attention: the decoder looks back at every source step (Bahdanau, Cho & Bengio, 2015).

With the query q, a decoder state, and the memory m_s, the encoder's output at source step s::

    dot        e_s = q . m_s                    Luong, Pham & Manning (2015), equation 8
    general    e_s = q . W m_s                  the same
    additive   e_s = v . tanh(Wq q + Wk m_s)    Bahdanau et al. (2015), appendix A.1.2

    alignment  a = softmax(e) over the source's real symbols
    context    c = sum of a_s m_s
    readout    r = tanh(Wc [c; h])              Luong et al., equation 5; read by the output layer

All is written for queries of one step or of many, so that a decoder that feeds nothing back attends
for a whole target at once, in batched products. These products stay float32.
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from s2sjax.config import Model
from s2sjax.dropout import Noise, dropout
from s2sjax.initialisers import initialisers
from s2sjax.linear import matmul

_NEVER = -1e30  # below any real energy; minus infinity would make 0/0 of a row of padding


class Memory(NamedTuple):
    """What can be attended to.

    Attributes:
        values: the encoder's outputs.
        keys: what queries are held against: the values, or their projection.
        mask: true at real symbols, or None where every symbol is real.
    """

    values: Float[Array, "batch source_time hidden"]
    keys: Float[Array, "batch source_time hidden"]
    mask: Bool[Array, "batch source_time"] | None


def inner(
    query: Float[Array, "batch *time hidden"], keys: Float[Array, "batch source_time hidden"]
) -> Float[Array, "batch *time source_time"]:
    """Inner products of queries with keys."""
    return jnp.einsum("b...h,bsh->b...s", query, keys, precision=jax.lax.Precision.HIGHEST)


def additive(
    query: Float[Array, "batch *time hidden"],
    keys: Float[Array, "batch source_time hidden"],
    v: Float[Array, " hidden"],
) -> Float[Array, "batch *time source_time"]:
    """``v . tanh(query + key)``, both projected before."""
    steps = (1,) * (query.ndim - 2)
    keys = keys.reshape(keys.shape[0], *steps, *keys.shape[1:])
    together = jnp.tanh(query[..., None, :] + keys)
    return jnp.einsum("...h,h->...", together, v, precision=jax.lax.Precision.HIGHEST)


def align(
    energies: Float[Array, "batch *time source_time"],
    mask: Bool[Array, "batch source_time"] | None,
) -> Float[Array, "batch *time source_time"]:
    """Softmax over the source; what is masked gets exactly nothing."""
    if mask is not None:
        steps = (1,) * (energies.ndim - 2)
        mask = mask.reshape(mask.shape[0], *steps, mask.shape[1])
        energies = jnp.where(mask, energies, _NEVER)
    return jax.nn.softmax(energies, axis=-1)


def context(
    alignment: Float[Array, "batch *time source_time"],
    values: Float[Array, "batch source_time hidden"],
) -> Float[Array, "batch *time hidden"]:
    """Weighted sums of the values."""
    return jnp.einsum("b...s,bsh->b...h", alignment, values, precision=jax.lax.Precision.HIGHEST)


class Attention(nn.Module):
    """The parameters of a score and of the readout, and the functions above on them.

    Attributes:
        config: the score, sizes and initial weights.
    """

    config: Model

    def setup(self) -> None:
        """Declare what the score needs."""
        c = self.config
        size = c.hidden_size
        draw = initialisers(c.init, size, c.cell)
        if c.attention in ("general", "additive"):
            self.wk = self.param("wk", draw.kernel, (size, size))
        if c.attention == "additive":
            self.wq = self.param("wq", draw.kernel, (size, size))
            self.v = self.param("v", draw.kernel, (size, 1))
        self.wc = self.param("wc", draw.kernel, (2 * size, size))

    def memory(
        self,
        values: Float[Array, "batch source_time hidden"],
        mask: Bool[Array, "batch source_time"] | None,
    ) -> Memory:
        """Project the encoder's outputs, once for all queries."""
        if self.config.attention == "dot":
            return Memory(values, values, mask)
        return Memory(values, matmul(values, self.wk, self.config.precision), mask)

    def look(
        self, query: Float[Array, "batch *time hidden"], memory: Memory, noise: Noise = None
    ) -> tuple[Float[Array, "batch *time hidden"], Float[Array, "batch *time source_time"]]:
        """Queries to their contexts and alignments; `noise` drops parts of the context."""
        if self.config.attention == "additive":
            query = matmul(query, self.wq, self.config.precision)
            energies = additive(query, memory.keys, self.v[:, 0])
        else:
            energies = inner(query, memory.keys)
        alignment = align(energies, memory.mask)
        seen = context(alignment, memory.values)
        return dropout(seen, "context_dropout", noise), alignment

    def read_out(
        self, seen: Float[Array, "batch *time hidden"], hidden: Float[Array, "batch *time hidden"]
    ) -> Float[Array, "batch *time hidden"]:
        """Context and decoder state to what the output layer reads."""
        joined = jnp.concatenate([seen, hidden], axis=-1)
        return jnp.tanh(matmul(joined, self.wc, self.config.precision))
