"""Adam, clipping, and what the step size does: closed forms, and optax' own where it has them."""

from functools import partial
from math import cos, pi, sqrt

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from s2sjax.config import Optimiser
from s2sjax.train.optimiser import step_size, transformation

UPDATES, WARMUP = 200, 30
PARAMS = {"w": jnp.array([[0.3, -1.2, 2.0]]), "b": jnp.zeros(2)}
rng = np.random.default_rng(0)


def gradients(size):
    return jax.tree.map(lambda p: jnp.array(size * rng.normal(size=p.shape), jnp.float32), PARAMS)


def norm(tree):
    return float(np.sqrt(sum((np.float64(x) ** 2).sum() for x in jax.tree.leaves(tree))))


def close(a, b, rtol=1e-6, atol=1e-9):
    jax.tree.map(partial(np.testing.assert_allclose, rtol=rtol, atol=atol), a, b)


def shares(updates=UPDATES, **settings):
    """The step size of every update of a training."""
    config = Optimiser(**settings)
    share = jax.jit(lambda update: jnp.float32(step_size(config, update, updates)))
    return np.array([share(update) for update in jnp.arange(updates)])


# --- gradients to updates ------------------------------------------------------------------


@pytest.mark.parametrize("clip", [None, 1.5])
def test_updates_are_those_of_optax_adam_behind_its_clipping(clip):
    ours = transformation(Optimiser(epsilon=1e-4, clip=clip))
    theirs = optax.adam(1.0, eps=1e-4)
    if clip is not None:
        theirs = optax.chain(optax.clip_by_global_norm(clip), theirs)
    a, b = ours.init(PARAMS), theirs.init(PARAMS)
    for size in (1.0, 1e-3, 100.0, 0.0):  # some shorter than the clip, some longer
        gradient = gradients(size)
        (up, a), (down, b) = ours.update(gradient, a, PARAMS), theirs.update(gradient, b, PARAMS)
        close(up, jax.tree.map(jnp.negative, down))


@pytest.mark.parametrize(("size", "clipped"), [(0.01, False), (50.0, True)])
def test_a_long_gradient_is_scaled_as_a_whole_and_a_short_one_is_left(size, clipped):
    tx, gradient = transformation(Optimiser(clip=1.5, epsilon=1.0)), gradients(size)
    assert (norm(gradient) > 1.5) == clipped
    moments = tx.update(gradient, tx.init(PARAMS), PARAMS)[1]
    (adam,) = (s for s in jax.tree.leaves(moments, is_leaf=is_adam) if is_adam(s))
    share = 1.5 / norm(gradient) if clipped else 1.0
    close(adam.mu, jax.tree.map(lambda g: 0.1 * share * g, gradient), rtol=1e-5)


def is_adam(state):
    return isinstance(state, optax.ScaleByAdamState)


def test_without_clipping_nothing_is_kept_but_adams_moments():
    state = transformation(Optimiser()).init(PARAMS)
    assert is_adam(state)


# --- what the step size does ---------------------------------------------------------------

CLOSED_FORMS = {
    "constant": lambda n: 1.0,
    "cosine": lambda n: (1 + cos(pi * n / UPDATES)) / 2,
    "inverse_sqrt": lambda n: sqrt(WARMUP / max(n + 1, WARMUP)),
    "halving": lambda n: 0.5 ** max(10 * n // UPDATES - 4, 0),
}


@pytest.mark.parametrize(
    ("schedule", "warmup"),
    [(name, n) for name in CLOSED_FORMS for n in (0, WARMUP) if (name, n) != ("inverse_sqrt", 0)],
)
def test_every_schedule_is_its_closed_form(schedule, warmup):
    rising = [min((n + 1) / warmup, 1) if warmup else 1 for n in range(UPDATES)]
    wanted = [CLOSED_FORMS[schedule](n) * rise for n, rise in enumerate(rising)]
    np.testing.assert_allclose(
        shares(schedule=schedule, warmup=warmup), wanted, rtol=1e-5, atol=1e-7
    )


OPTAX = {
    "constant": ({}, optax.constant_schedule(1.0)),
    "warmed up": ({"warmup": WARMUP}, optax.linear_schedule(1 / WARMUP, 1.0, WARMUP - 1)),
    "cosine": ({"schedule": "cosine"}, optax.cosine_decay_schedule(1.0, UPDATES)),
    "halving": (
        {"schedule": "halving"},
        optax.piecewise_constant_schedule(
            1.0, {UPDATES * tenth // 10: 0.5 for tenth in range(5, 10)}
        ),
    ),
}


@pytest.mark.parametrize(("settings", "theirs"), OPTAX.values(), ids=OPTAX.keys())
def test_schedules_that_optax_has_are_the_same(settings, theirs):
    wanted = [float(theirs(update)) for update in range(UPDATES)]
    np.testing.assert_allclose(shares(**settings), wanted, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("updates", [10, 70, 700, 1_000, 7_770])
def test_halving_halves_five_times_each_at_its_tenth_whatever_the_length(updates):
    config = Optimiser(schedule="halving")
    share = jax.jit(lambda update: step_size(config, update, updates))
    for tenth in range(1, 10):
        at = updates * tenth // 10
        before, after = (float(share(jnp.int32(update))) for update in (at - 1, at))
        assert before / after == (2 if tenth >= 5 else 1), (updates, tenth)
    assert float(share(jnp.int32(updates - 1))) == 1 / 32


def test_the_great_transformer_schedule():
    """Vaswani et al. (2017), equation 3, in units of its peak."""
    step = np.arange(1, UPDATES + 1)
    theirs = np.minimum(step**-0.5, step * WARMUP**-1.5)
    ours = shares(schedule="inverse_sqrt", warmup=WARMUP)
    np.testing.assert_allclose(ours, theirs / theirs.max(), rtol=1e-5)
    assert ours.argmax() == WARMUP - 1


def test_a_warm_up_longer_than_the_training_and_a_training_of_one_update():
    np.testing.assert_allclose(shares(4, warmup=8), [1 / 8, 2 / 8, 3 / 8, 4 / 8])
    for schedule in ("constant", "cosine", "halving"):
        assert shares(1, schedule=schedule).tolist() == [1.0]
