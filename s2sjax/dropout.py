"""Dropout: noise on activations while training (Srivastava et al., 2014).

It is on exactly where a random key is given, so that no flag can disagree with the key.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

Noise = Key[Array, ""] | None
"""What decides a dropout mask; None drops nothing."""


def kept(noise: Noise, rate: float, shape: tuple[int, ...]) -> Float[Array, "*shape"] | None:
    """A mask: 0 with chance `rate`, else ``1 / (1 - rate)``; None where nothing is dropped."""
    if noise is None or rate == 0:
        return None
    return jax.random.bernoulli(noise, 1 - rate, shape) / jnp.float32(1 - rate)


def dropout(x: Float[Array, "*n"], rate: float, noise: Noise) -> Float[Array, "*n"]:
    """Drop each entry with chance `rate`; the mean stays."""
    mask = kept(noise, rate, x.shape)
    return x if mask is None else x * mask


def fold(noise: Noise, data: int | Array) -> Noise:
    """A noise of its own for each place or step `data`."""
    return None if noise is None else jax.random.fold_in(noise, data)
