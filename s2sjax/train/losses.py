"""Masked cross-entropy."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


def token_losses(
    logits: Float[Array, "*n vocab"], targets: Int[Array, "*n"], smoothing: float = 0.0
) -> Float[Array, "*n"]:
    """Cross-entropy of each symbol, in nats.

    Written with a one-hot product: its gradient is then elementwise, where that of picking one
    entry out of each row is a scatter, slow on a CPU.

    Args:
        logits: scores of every symbol.
        targets: the gold symbols.
        smoothing: share of the target's probability that is spread evenly over the vocabulary.
    """
    wanted = jax.nn.one_hot(targets, logits.shape[-1], dtype=logits.dtype)
    if smoothing:
        wanted = (1 - smoothing) * wanted + smoothing / logits.shape[-1]
    return -(jax.nn.log_softmax(logits) * wanted).sum(-1)


def weighted_mean(values: Float[Array, "*n"], weights: Float[Array, "*n"]) -> Float[Array, ""]:
    """Mean of values; padding and filling rows weigh zero. The mean of nothing is 0."""
    total = weights.sum()
    return (values * weights).sum() / jnp.where(total > 0, total, 1)
