"""Dropout: noise on activations while training (Srivastava et al., 2014).

It is on exactly where a noise is given that has a rate, so that no flag can disagree with it.
"""

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from s2sjax.config import Model

Which = Literal["dropout", "context_dropout", "recurrent_dropout"]
"""The settings of `Model` that are rates."""


class Rates(NamedTuple):
    """Chances to drop, by setting: numbers, traced or not; None where nothing is dropped."""

    dropout: Any = None
    context_dropout: Any = None
    recurrent_dropout: Any = None

    @classmethod
    def of(cls, config: Model) -> "Rates":
        """The rates of a model's settings, float32."""
        return cls(**{name: jnp.float32(rate) for name, rate in config.rates.items() if rate})


class Drawn(NamedTuple):
    """What decides dropout masks: a typed key, and the rates."""

    key: Any
    rates: Rates


Noise = Drawn | None
"""None drops nothing."""


def kept(noise: Noise, which: Which, shape: tuple[int, ...]) -> Float[Array, "*shape"] | None:
    """A mask: 0 with the chance of a rate, else ``1 / (1 - rate)``; None where none is dropped."""
    if noise is None or (rate := getattr(noise.rates, which)) is None:
        return None
    return jax.random.bernoulli(noise.key, 1 - rate, shape) / (1 - rate)


def dropout(x: Float[Array, "*n"], which: Which, noise: Noise) -> Float[Array, "*n"]:
    """Drop each entry with the chance of a rate; the mean stays."""
    mask = kept(noise, which, x.shape)
    return x if mask is None else x * mask


def fold(noise: Noise, data: int | Array) -> Noise:
    """A noise of its own for each place or step `data`."""
    return None if noise is None else noise._replace(key=jax.random.fold_in(noise.key, data))
