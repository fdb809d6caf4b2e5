"""Beam search, over any step function and carry.

A row has `size` open hypotheses and the best `size` that have ended. Every step ranks all
continuations by one symbol by log probability. The best `size` that do not end stay open; those
that end are kept if they are among the best `size` of all. (A beam of one without length penalty is
greedy decoding.) After `max_decode_len` symbols open and ended hypotheses are ranked together. Of
equals the one that ended first comes first, then the one whose parent ranked higher, then the one
with the smallest id.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from s2sjax.errors import UserError, check_range
from s2sjax.model.decode import Collect, Step, without


@dataclass(frozen=True)
class Beam:
    """Search for the sequences with the best scores."""

    size: int  # Hypotheses per row
    length_penalty: float = 1.0  # 0 compares log probabilities, 1 about those per symbol

    def __post_init__(self) -> None:
        if not isinstance(self.size, int):
            raise UserError(f"Beam.size must be a whole number, not {self.size}")
        check_range(1, self, "size")
        check_range(0, self, "length_penalty", most=10)

    def penalty(self, length: int) -> float:
        """The divisor of the log probability of `length` symbols (Wu et al., 2016)."""
        return ((5 + length) / 6) ** self.length_penalty


class Beams(NamedTuple):
    """The hypotheses of every row, best first; fields as in `Decoded`.

    A score is the sum of log probabilities, divided by the length penalty; minus infinity where
    fewer than `size` sequences are possible.
    """

    tokens: Int[Array, "batch size time"]
    log_probs: Float[Array, "batch size time"]
    scores: Float[Array, "batch size"]
    collected: Any


def tile(tree: Any, size: int) -> Any:
    """Repeat every row: leaves ``[batch, ...]`` to ``[batch * size, ...]``, copies adjacent."""
    return jax.tree.map(lambda x: jnp.repeat(x, size, axis=0), tree)


def beam_search(
    step: Step,
    carry: Any,
    start: Int[Array, " batch"],
    *,
    beam: Beam,
    eos_id: int,
    max_decode_len: int,
    never: tuple[int, ...] = (),
    collect: Collect = lambda carry: None,
) -> Beams:
    """Search until no row can find a better sequence; arguments as in `decode`.

    The step gets ``batch * size`` rows. Whatever it reads besides its carry must have as many:
    ``encoding = tile(encoding, beam.size)``.
    """
    batch, size = len(start), beam.size
    # One table of reciprocals, so that no score exceeds the bound below by rounding.
    inverse = jnp.array([1 / beam.penalty(n) for n in range(max_decode_len + 1)], jnp.float32)

    def split_rows(x):
        return x.reshape(batch, size, *x.shape[1:])

    def running(loop):
        # Log probabilities only fall, and the greatest length has the largest penalty: the bound is
        # the best score still possible. A row is finished if its worst ended one is as good.
        time, _, going, ended = loop
        bound = going.scores[:, 0] * inverse[max_decode_len]
        return (time < max_decode_len) & (bound > ended.scores[:, -1]).any()

    def advance(loop):
        time, carry, going, ended = loop
        last = jnp.where(time == 0, first, going.tokens[:, :, time - 1])
        carry, logits = step(carry, last.reshape(-1))
        log_probs = without(jax.nn.log_softmax(logits.astype(jnp.float32)), never)
        log_probs = split_rows(log_probs)
        totals = (going.scores[..., None] + log_probs).reshape(batch, -1)
        total, best = jax.lax.top_k(totals, 2 * size)
        parent, token = best // logits.shape[-1], best % logits.shape[-1]
        log_prob = _take(log_probs.reshape(batch, -1), best)
        new = (token, log_prob, _take(jax.tree.map(split_rows, collect(carry)), parent))
        tokens, log_probs, _, collected = _take(going, parent)
        tokens, log_probs, collected = jax.tree.map(
            lambda x, new: x.at[:, :, time].set(new), (tokens, log_probs, collected), new
        )
        grown = Beams(tokens, log_probs, total, collected)
        ends = token == eos_id
        # A hypothesis has one continuation that ends, so at least `size` of these go on.
        going, order = _best(grown._replace(scores=jnp.where(ends, -jnp.inf, total)), size)
        scores = jnp.where(ends, total * inverse[time + 1], -jnp.inf)
        ended = _merge(ended, jax.tree.map(lambda x: x[:, :size], grown._replace(scores=scores)))
        rows = jnp.arange(batch, dtype=jnp.int32)[:, None] * size + _take(parent, order)
        return time + 1, jax.tree.map(lambda x: x[rows.reshape(-1)], carry), going, ended

    carry, first = tile((carry, start), size)
    first, shape = split_rows(first), (batch, size, max_decode_len)
    ended = Beams(
        jnp.full(shape, eos_id, jnp.int32),
        jnp.zeros(shape, jnp.float32),
        jnp.full((batch, size), -jnp.inf, jnp.float32),
        jax.tree.map(lambda x: jnp.zeros((*shape, *x.shape[1:]), x.dtype), collect(carry)),
    )
    going = ended._replace(scores=ended.scores.at[:, 0].set(0))  # all places are equal: use one
    loop = (jnp.int32(0), carry, going, ended)
    _, _, going, ended = jax.lax.while_loop(running, advance, loop)
    return _merge(ended, going._replace(scores=going.scores * inverse[max_decode_len]))


def _take(tree: Any, index: Any) -> Any:
    """Leaves ``[batch, n, ...]`` at indices ``[batch, m]``."""
    return jax.tree.map(lambda x: jax.vmap(lambda row, at: row[at])(x, index), tree)


def _best(beams: Beams, size: int) -> tuple[Beams, Any]:
    """The `size` hypotheses with the best scores, and their indices; of equals the first."""
    scores, order = jax.lax.top_k(beams.scores, size)
    return _take(beams, order)._replace(scores=scores), order


def _merge(one: Beams, other: Beams) -> Beams:
    """The best of both, as many as each has."""
    both = jax.tree.map(lambda *x: jnp.concatenate(x, axis=1), one, other)
    return _best(both, one.scores.shape[1])[0]
