"""Decoding: greedy and sampling, over any step function and carry.

A policy says how the next symbol is chosen from logits; `decode` runs it until every sequence has
ended. Every example has a random stream of its own, so that what it gets does not depend on the
batch it rides in.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from s2sjax.errors import UserError
from s2sjax.metrics import argmax

Step = Callable[[Any, Int[Array, " batch"]], tuple[Any, Float[Array, "batch vocab"]]]
"""(carry, symbol) -> (carry, logits of the next symbol)."""

Watch = Callable[[Any], Any]
"""What to keep of the carry after a step, alignments say: a pytree, batched in front as it is."""

_TINY = float(jnp.finfo(jnp.float32).tiny)  # a setting below it would be zero on the device


@dataclass(frozen=True)
class Greedy:
    """Always the likeliest symbol."""

    def choose(self, logits: Float[Array, " vocab"], key: Key[Array, ""]) -> Int[Array, ""]:
        """The likeliest symbol; of equals, the one with the smallest id."""
        del key
        return argmax(logits)


@dataclass(frozen=True)
class Sampling:
    """Draw from the softmax, sharpened and cut.

    Attributes:
        temperature: divides the logits; towards 0 the draw becomes greedy.
        top_k: keep the k likeliest symbols (Fan, Lewis & Dauphin, 2018); None keeps all.
        top_p: keep the fewest symbols whose probabilities reach p (Holtzman et al., 2020).
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float = 1.0

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise UserError(f"temperature must be above 0, not {self.temperature}")
        if self.top_k is not None and self.top_k < 1:
            raise UserError(f"top_k must be at least 1, not {self.top_k}")
        if not 0 < self.top_p <= 1:
            raise UserError(f"top_p must be above 0 and at most 1, not {self.top_p}")

    def keep(self, logits: Float[Array, " vocab"]) -> Float[Array, " vocab"]:
        """The logits to draw from: those cut are minus infinity.

        The cut at `top_k` comes first, `top_p` counts what is left; of equals the smallest ids
        stay.
        """
        logits = (logits - logits.max()) / max(self.temperature, _TINY)
        order = jnp.argsort(-logits, stable=True)
        rank = jnp.argsort(order)
        if self.top_k is not None:
            logits = jnp.where(rank < self.top_k, logits, -jnp.inf)
        if self.top_p < 1:
            probabilities = jax.nn.softmax(logits)[order]
            before = jnp.cumsum(probabilities) - probabilities
            logits = jnp.where((before < max(self.top_p, _TINY))[rank], logits, -jnp.inf)
        return logits

    def choose(self, logits: Float[Array, " vocab"], key: Key[Array, ""]) -> Int[Array, ""]:
        """A draw from what `keep` leaves."""
        return jax.random.categorical(key, self.keep(logits)).astype(jnp.int32)


Policy = Greedy | Sampling


class Decoded(NamedTuple):
    """Decoded sequences; after its end symbol a row repeats the end symbol, at log probability 0.

    Attributes:
        tokens: the chosen symbols, the end symbol included.
        log_probs: the model's log probability of each, before any sharpening or cutting, in nats.
        watched: what was watched of the step that gave each, ``[batch, time, ...]``; zero after
            the end. None where nothing was.
    """

    tokens: Int[Array, "batch time"]
    log_probs: Float[Array, "batch time"]
    watched: Any = None


def zero_where(done: Bool[Array, "*n"], tree: Any) -> Any:
    """The tree's leaves ``[*n, ...]`` with zeros where `done`."""
    return jax.tree.map(
        lambda x: jnp.where(jnp.expand_dims(done, range(done.ndim, x.ndim)), 0, x), tree
    )


class _Loop(NamedTuple):
    time: Any
    carry: Any
    token: Any
    done: Any
    decoded: Decoded


def decode(
    step: Step,
    carry: Any,
    start: Int[Array, " batch"],
    *,
    policy: Policy,
    eos_id: int,
    max_decode_len: int,
    keys: Key[Array, " batch"],
    watch: Watch | None = None,
) -> Decoded:
    """Decode a batch until every row has ended or `max_decode_len` symbols are out.

    Args:
        step: reads a symbol, gives the logits of the next.
        carry: its state before the first symbol; leaves are batched in front.
        start: the first symbol each row reads (begin symbol, or a given first target).
        policy: how a symbol is chosen.
        eos_id: ends a row.
        max_decode_len: most symbols a row gets, the end symbol included.
        keys: a random key per row; `Greedy` leaves them unused.
        watch: what to keep of the carry after every step.
    """
    shape, see = (start.shape[0], max_decode_len), watch or (lambda carry: None)
    blank = Decoded(
        jnp.full(shape, eos_id, jnp.int32),
        jnp.zeros(shape, jnp.float32),
        jax.tree.map(lambda x: jnp.zeros(shape + x.shape[1:], x.dtype), see(carry)),
    )

    def running(loop: _Loop):
        return (loop.time < max_decode_len) & ~loop.done.all()

    def advance(loop: _Loop):
        carry, logits = step(loop.carry, loop.token)
        now = jax.vmap(jax.random.fold_in, (0, None))(keys, loop.time)
        chosen = jax.vmap(policy.choose)(logits, now)
        token = jnp.where(loop.done, eos_id, chosen)
        log_probs = jax.nn.log_softmax(logits.astype(jnp.float32))
        log_prob = jnp.take_along_axis(log_probs, token[:, None], axis=1)[:, 0]

        decoded = Decoded(token, *zero_where(loop.done, (log_prob, see(carry))))
        decoded = jax.tree.map(
            lambda rows, now: rows.at[:, loop.time].set(now), loop.decoded, decoded
        )
        return _Loop(loop.time + 1, carry, token, loop.done | (token == eos_id), decoded)

    nobody = jnp.zeros(start.shape, bool)
    return jax.lax.while_loop(
        running, advance, _Loop(jnp.int32(0), carry, start, nobody, blank)
    ).decoded
