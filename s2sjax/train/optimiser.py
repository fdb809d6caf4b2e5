"""Adam, what is done to gradients before it, and what the step size does over a training."""

import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from s2sjax.config import Optimiser


def transformation(config: Optimiser) -> optax.GradientTransformation:
    """Clipping, if any, and Adam with a step size of one: the step size is the state's."""
    adam = optax.scale_by_adam(eps=config.epsilon)
    if config.clip is None:
        return adam
    return optax.chain(optax.clip_by_global_norm(config.clip), adam)


def step_size(config: Optimiser, update: Int[Array, ""], updates: int) -> Float[Array, ""] | float:
    """The share of the learning rate that an update takes: see `Optimiser.schedule`.

    Args:
        config: schedule and warm-up.
        update: updates done before this one.
        updates: of the whole training.
    """
    done = update / updates
    match config.schedule:
        case "constant":
            share = 1.0
        case "cosine":
            share = 0.5 * (1 + jnp.cos(jnp.pi * done))
        case "inverse_sqrt":
            share = jnp.sqrt(config.warmup / jnp.maximum(update + 1, config.warmup))
        case "halving":
            tenths = 10 * update // updates  # in integers: a rounded share would fall too late
            share = 0.5 ** jnp.maximum(tenths - 4, 0)
    if config.warmup:
        share = share * jnp.minimum((update + 1) / config.warmup, 1)
    return share
