"""Dropout (Srivastava et al., 2014): on where a noise with a rate is given, else off."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from s2sjax.config import Model


class Rates(NamedTuple):
    """Drop probabilities by setting, traced or not; None drops nothing."""

    dropout: Any = None
    recurrent_dropout: Any = None

    @classmethod
    def of(cls, config: Model) -> "Rates":
        """The rates of a model's settings, float32."""
        return cls(**{name: jnp.float32(rate) for name, rate in config.rates.items() if rate})


class DropoutNoise(NamedTuple):
    """A typed key and the rates, which together decide all masks."""

    key: Any
    rates: Rates


Noise = DropoutNoise | None  # None drops nothing


def dropout_mask(noise: Noise, rate_name: str, shape: tuple[int, ...]) -> Array | None:
    """Draw 0 with the probability of a rate, else ``1 / (1 - rate)``; None without that rate."""
    if noise is None or (rate := getattr(noise.rates, rate_name)) is None:
        return None
    return jax.random.bernoulli(noise.key, 1 - rate, shape) / (1 - rate)


def dropout(x: Float[Array, "*n"], noise: Noise) -> Float[Array, "*n"]:
    """Multiply by a drawn mask."""
    mask = dropout_mask(noise, "dropout", x.shape)
    return x if mask is None else x * mask


def fold_in(noise: Noise, data: int | Array) -> Noise:
    """Another noise for `data`, a part of the model or a time step."""
    return None if noise is None else noise._replace(key=jax.random.fold_in(noise.key, data))
