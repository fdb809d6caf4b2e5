"""Greedy decoding and sampling, over any step function and carry.

Every row has its own random key: its result does not depend on the rest of the batch.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from s2sjax.errors import UserError

Step = Callable[[Any, Int[Array, " batch"]], tuple[Any, Float[Array, "batch vocab"]]]
"""(carry, symbol) -> (carry, logits of the next symbol)."""

Collect = Callable[[Any], Any]
"""What to keep of the carry after a step, such as its alignment: a pytree, batch axis first."""

_TINY = float(jnp.finfo(jnp.float32).tiny)  # smaller settings would be zero on the device


def argmax(logits: Float[Array, "*n vocab"]) -> Int[Array, "*n"]:
    """The likeliest symbol; of equals the smallest id."""
    return jnp.argmax(logits, axis=-1).astype(jnp.int32)


def without(logits: Float[Array, "*n vocab"], never: tuple[int, ...]) -> Float[Array, "*n vocab"]:
    """Minus infinity for symbols that are never written."""
    return logits.at[..., jnp.array(never)].set(-jnp.inf) if never else logits


@dataclass(frozen=True)
class Greedy:
    """Always the likeliest symbol."""

    def choose(self, logits: Float[Array, " vocab"], key: Key[Array, ""]) -> Int[Array, ""]:
        return argmax(logits)


@dataclass(frozen=True)
class Sampling:
    """Draw from the softmax with a temperature, truncated."""

    temperature: float = 1.0  # Divides the logits; towards 0 sampling becomes greedy
    top_k: int | None = None  # Keep the k likeliest (Fan, Lewis & Dauphin, 2018); None: all
    top_p: float = 1.0  # Keep the fewest whose probabilities reach p (Holtzman et al., 2020)

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise UserError(f"temperature must be above 0, not {self.temperature}")
        if self.top_k is not None and self.top_k < 1:
            raise UserError(f"top_k must be at least 1, not {self.top_k}")
        if not 0 < self.top_p <= 1:
            raise UserError(f"top_p must be above 0 and at most 1, not {self.top_p}")

    def truncate(self, logits: Float[Array, " vocab"]) -> Float[Array, " vocab"]:
        """Set the logits of symbols that are not drawn to minus infinity.

        `top_k` applies first, then `top_p` to the rest; of equals the smallest ids stay.
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
        return jax.random.categorical(key, self.truncate(logits)).astype(jnp.int32)


class Decoded(NamedTuple):
    """Decoded sequences; after its end symbol a row repeats it with log probability 0."""

    tokens: Int[Array, "batch time"]
    log_probs: Float[Array, "batch time"]  # the model's, in nats, whatever the policy
    collected: Any = None  # of every step, [batch, time, ...]; zero after the end


def decode(
    step: Step,
    carry: Any,
    start: Int[Array, " batch"],
    *,
    policy: Greedy | Sampling,
    eos_id: int,
    max_decode_len: int,
    never: tuple[int, ...] = (),
    keys: Key[Array, " batch"],
    collect: Collect = lambda carry: None,
) -> Decoded:
    """Decode until every row has ended or has `max_decode_len` symbols, the end symbol included.

    `carry` has the batch axis first; `start` is the first symbol that each row reads. Symbols that
    are `never` written keep their share of the probability.
    """
    shape = (start.shape[0], max_decode_len)
    blank = Decoded(
        jnp.full(shape, eos_id, jnp.int32),
        jnp.zeros(shape, jnp.float32),
        jax.tree.map(lambda x: jnp.zeros(shape + x.shape[1:], x.dtype), collect(carry)),
    )

    def running(loop):
        time, _, _, done, _ = loop
        return (time < max_decode_len) & ~done.all()

    def advance(loop):
        time, carry, token, done, decoded = loop
        carry, logits = step(carry, token)
        step_keys = jax.vmap(jax.random.fold_in, (0, None))(keys, time)
        token = jnp.where(done, eos_id, jax.vmap(policy.choose)(without(logits, never), step_keys))
        log_probs = jax.nn.log_softmax(logits.astype(jnp.float32))
        log_prob = jnp.take_along_axis(log_probs, token[:, None], axis=1)[:, 0]

        def write(rows, new):
            keep = jnp.expand_dims(done, range(1, new.ndim))
            return rows.at[:, time].set(jnp.where(keep, rows[:, time], new))

        decoded = jax.tree.map(write, decoded, Decoded(token, log_prob, collect(carry)))
        return time + 1, carry, token, done | (token == eos_id), decoded

    loop = (jnp.int32(0), carry, start, jnp.zeros(start.shape, bool), blank)
    return jax.lax.while_loop(running, advance, loop)[-1]
