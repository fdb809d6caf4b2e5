"""Masked cross-entropy."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


def token_losses(logits: Float[Array, "*n vocab"], targets: Int[Array, "*n"]) -> Float[Array, "*n"]:
    """Cross-entropy of each symbol, in nats.

    Written with a one-hot product: its gradient is then elementwise, where that of picking one
    entry out of each row is a scatter, slow on a CPU.
    """
    one_hot = jax.nn.one_hot(targets, logits.shape[-1], dtype=logits.dtype)
    return -(jax.nn.log_softmax(logits) * one_hot).sum(-1)


def weighted_mean(values: Float[Array, "*n"], weights: Float[Array, "*n"]) -> Float[Array, ""]:
    """Mean of values; padding and filling rows weigh zero. The mean of nothing is 0."""
    total = weights.sum()
    return (values * weights).sum() / jnp.where(total > 0, total, 1)
