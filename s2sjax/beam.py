"""Beam search, over any step function and carry.

A row keeps `size` hypotheses that go on and the `size` best that have ended. At every step the
first are continued by every symbol, and the continuations are ranked by their log probability: the
best `size` that do not end go on, and those that end are kept if they are among the best `size` of
all. (So a beam of one without length penalty is greedy decoding.) What has not ended after
`max_decode_len` symbols is ranked with what has, by the same score. Of equals the one that ended
first comes first, then the one whose parent ranked higher, then the one with the smallest id.

Only pointers are moved while the search runs: every step leaves behind which symbol continued
which hypothesis, and the hypotheses kept are read off backwards in the end.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from s2sjax.decode import Step, Watch, zero_where
from s2sjax.errors import at_least


@dataclass(frozen=True)
class Beam:
    """Search for the sequences with the best scores.

    Attributes:
        size: hypotheses of a row that go on, and that come out.
        length_penalty: alpha of `penalty`; 0 compares log probabilities as they are, 1 nearly the
            log probabilities per symbol.
    """

    size: int
    length_penalty: float

    def __post_init__(self) -> None:
        at_least(1, self, "size")
        at_least(0, self, "length_penalty", most=10)

    def penalty(self, length: int) -> float:
        """What the log probability of so many symbols, the end symbol included, is divided by.

        ``((5 + length) / 6) ** alpha``: Wu et al. (2016), "Google's neural machine translation
        system", equation 14.
        """
        return ((5 + length) / 6) ** self.length_penalty


class Beams(NamedTuple):
    """The best hypotheses of every row, best first.

    Where fewer than `size` sequences are possible the last places have score minus infinity.

    Attributes:
        tokens: the symbols, the end symbol included; after it the end symbol is repeated.
        log_probs: the model's log probability of each, in nats; 0 after the end.
        scores: their sum, divided by the length penalty.
        watched: what was watched of the step that gave each symbol, ``[batch, size, time, ...]``;
            zero after the end. None where nothing was.
    """

    tokens: Int[Array, "batch size time"]
    log_probs: Float[Array, "batch size time"]
    scores: Float[Array, "batch size"]
    watched: Any


def tile(tree: Any, size: int) -> Any:
    """Every row `size` times over: leaves ``[batch, ...]`` to ``[batch * size, ...]``.

    The copies of a row stand side by side, as `beam_search` has its hypotheses.
    """
    return jax.tree.map(lambda x: jnp.repeat(x, size, axis=0), tree)


class _Ends(NamedTuple):
    """Where hypotheses end: score, last step, and place among its continuations; all [batch, size].

    A place that is not filled has score minus infinity and last step -1.
    """

    score: Any
    time: Any
    place: Any


class _Step(NamedTuple):
    """Continuations of a step: first the best `size` that go on, then the best `size` of all.

    The place of one that goes on is thus its place in the beam at the next step. Of every step, the
    leaves are [time, batch, 2 * size].
    """

    parent: Any
    token: Any
    log_prob: Any


class _Loop(NamedTuple):
    time: Any
    carry: Any
    token: Any
    total: Any
    kept: _Ends
    steps: _Step
    watched: Any


def beam_search(
    step: Step,
    carry: Any,
    start: Int[Array, " batch"],
    *,
    beam: Beam,
    eos_id: int,
    max_decode_len: int,
    watch: Watch | None = None,
) -> Beams:
    """Search until no row can find anything better, or `max_decode_len` symbols are out.

    The step is called with the hypotheses of all rows at once, ``batch * size``. What it reads
    beside its carry must be as long: ``encoding = tile(encoding, beam.size)``.

    Args:
        step: reads a symbol, gives the logits of the next; on ``batch * size`` rows.
        carry: its state before the first symbol; leaves are batched in front, ``[batch, ...]``.
        start: the first symbol each row reads.
        beam: size and length penalty.
        eos_id: ends a hypothesis.
        max_decode_len: most symbols a hypothesis gets, the end symbol included.
        watch: what to keep of the carry after every step.
    """
    batch, size, see = start.shape[0], beam.size, watch or (lambda carry: None)
    # Products with one table of reciprocals round alike everywhere, so that a score never exceeds
    # the bound below by a rounding.
    share = jnp.array([1 / beam.penalty(n) for n in range(max_decode_len + 1)], jnp.float32)

    def beams(x):
        return x.reshape(batch, size, *x.shape[1:])

    def running(loop: _Loop):
        # Log probabilities only fall, and no penalty is larger than that of the greatest length:
        # this is the best that a hypothesis can still come to. Where it is no better than the
        # worst of those kept, the row's search is over, and whatever is done on changes nothing.
        hope = loop.total[:, 0] * share[max_decode_len]
        return (loop.time < max_decode_len) & (hope > loop.kept.score[:, -1]).any()

    def advance(loop: _Loop):
        carry, logits = step(loop.carry, loop.token.reshape(-1))
        log_probs = beams(jax.nn.log_softmax(logits.astype(jnp.float32)))
        totals = (loop.total[..., None] + log_probs).reshape(batch, -1)
        total, best = jax.lax.top_k(totals, 2 * size)
        ends = best % logits.shape[-1] == eos_id
        # A hypothesis ends in one way only: of twice as many, `size` are left that go on.
        going, order = jax.lax.top_k(jnp.where(ends, -jnp.inf, total), size)
        index = jnp.concatenate([_pick(best, order), best[:, :size]], axis=1)
        now = _Step(
            index // logits.shape[-1],
            index % logits.shape[-1],
            _pick(log_probs.reshape(batch, -1), index),
        )
        score = jnp.where(ends, total * share[loop.time + 1], -jnp.inf)[:, :size]
        rows = jnp.arange(batch, dtype=jnp.int32)[:, None] * size + now.parent[:, :size]
        return _Loop(
            loop.time + 1,
            jax.tree.map(lambda x: x[rows.reshape(-1)], carry),
            now.token[:, :size],
            going,
            _merge(loop.kept, score, loop.time, size),
            jax.tree.map(lambda x, new: x.at[loop.time].set(new), loop.steps, now),
            jax.tree.map(lambda x, new: x.at[loop.time].set(beams(new)), loop.watched, see(carry)),
        )

    nothing = jnp.full((batch, size), -jnp.inf, jnp.float32)
    number = jnp.zeros((max_decode_len, batch, 2 * size), jnp.int32)
    carry, token = tile((carry, start), size)
    loop = _Loop(
        time=jnp.int32(0),
        carry=carry,
        token=beams(token),
        total=nothing.at[:, 0].set(0),  # all places are alike as yet, and one is enough
        kept=_Ends(nothing, *jnp.full((2, batch, size), -1, jnp.int32)),
        steps=_Step(number, number, number.astype(jnp.float32)),
        watched=jax.tree.map(
            lambda x: jnp.zeros((max_decode_len, *beams(x).shape), x.dtype), see(carry)
        ),
    )
    loop = jax.lax.while_loop(running, advance, loop)
    # A row whose search is over early is unmoved by this, too.
    score, last = loop.total * share[max_decode_len], jnp.int32(max_decode_len - 1)
    kept = _merge(loop.kept, score, last, 0)
    return _read_off(kept, loop.steps, loop.watched, eos_id)


def _pick(x: Any, index: Any) -> Any:
    """Along the second axis; the first is shared."""
    return jnp.take_along_axis(x, index, axis=1)


def _merge(kept: _Ends, score: Any, time: Any, first: int) -> _Ends:
    """The best of those kept and of others that end at a step, at places from `first` on."""
    place = jnp.broadcast_to(first + jnp.arange(score.shape[1], dtype=jnp.int32), score.shape)
    new = _Ends(score, jnp.broadcast_to(time, score.shape), place)
    both = jax.tree.map(lambda *x: jnp.concatenate(x, axis=1), kept, new)
    best, order = jax.lax.top_k(both.score, score.shape[1])
    return _Ends(best, _pick(both.time, order), _pick(both.place, order))


def _read_off(kept: _Ends, steps: _Step, watched: Any, eos_id: int) -> Beams:
    """Follow every hypothesis from its end to its start."""

    def back(place, at):
        time, step = at
        parent, token, log_prob = (_pick(x, place) for x in step)
        silent = time > kept.time
        place = jnp.where(silent, place, parent)
        return place, (silent, jnp.where(silent, eos_id, token), log_prob, place)

    at = (jnp.arange(steps.token.shape[0]), steps)
    _, (silent, token, log_prob, parent) = jax.lax.scan(back, kept.place, at, reverse=True)
    seen = jax.tree.map(
        lambda x: jnp.take_along_axis(x, jnp.expand_dims(parent, range(3, x.ndim)), axis=2), watched
    )
    time_last = (token, *zero_where(silent, (log_prob, seen)))
    token, log_prob, seen = jax.tree.map(lambda x: jnp.moveaxis(x, 0, 2), time_last)
    return Beams(token, log_prob, kept.score, seen)
