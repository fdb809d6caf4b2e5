"""Cross-entropy and its mean: values, gradients, and the edges."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from s2sjax.train.losses import token_losses, weighted_mean

BATCH, TIME, VOCAB = 3, 4, 7
rng = np.random.default_rng(0)
LOGITS = jnp.array(rng.normal(0, 2, (BATCH, TIME, VOCAB)), jnp.float32)
TARGETS = jnp.array(rng.integers(0, VOCAB, (BATCH, TIME)), jnp.int32)
WEIGHTS = jnp.array([[1, 1, 1, 1], [1, 1, 0, 0], [0, 0, 0, 0]], jnp.float32)
REAL = np.asarray(WEIGHTS, bool)


@jax.jit
@jax.value_and_grad
def mean_loss(logits, targets, weights):
    return weighted_mean(token_losses(logits, targets), weights)


def softmax(logits):
    e = np.exp(np.float64(logits) - np.max(logits, -1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def picked(values, ids):
    return np.take_along_axis(values, np.asarray(ids)[..., None], -1)[..., 0]


def test_a_symbols_loss_is_minus_the_log_of_its_probability():
    losses = token_losses(LOGITS, TARGETS)
    assert losses.shape == TARGETS.shape
    np.testing.assert_allclose(losses, -np.log(picked(softmax(LOGITS), TARGETS)), rtol=1e-5)


def test_know_nothing_costs_log_of_the_vocabulary():
    losses = token_losses(jnp.full_like(LOGITS, 3), TARGETS)
    np.testing.assert_allclose(losses, np.log(VOCAB), rtol=1e-6)


def test_mean_is_over_positive_weights():
    mean, _ = mean_loss(LOGITS, TARGETS, WEIGHTS)
    assert mean == pytest.approx(np.asarray(token_losses(LOGITS, TARGETS))[REAL].mean(), rel=1e-6)


def test_gradient_is_softmax_minus_one_hot_over_the_number_of_scored_symbols():
    _, gradient = mean_loss(LOGITS, TARGETS, WEIGHTS)
    truth = (softmax(LOGITS) - np.eye(VOCAB)[TARGETS]) * REAL[..., None] / REAL.sum()
    np.testing.assert_allclose(gradient, truth, atol=1e-7)


def test_symbols_of_weight_zero_change_neither_the_loss_nor_its_gradient():
    other_logits = jnp.where(REAL[..., None], LOGITS, 1e6)
    other_targets = jnp.where(REAL, TARGETS, 0)
    loss, gradient = mean_loss(LOGITS, TARGETS, WEIGHTS)
    other_loss, other_gradient = mean_loss(other_logits, other_targets, WEIGHTS)
    assert loss == other_loss
    np.testing.assert_array_equal(gradient, other_gradient)
    assert (np.asarray(gradient)[~REAL] == 0).all()


@pytest.mark.parametrize("size", [1e4, 1e30])
@pytest.mark.parametrize("sign", [1, -1])
def test_huge_logits_stay_exact(size, sign):
    logits = jnp.zeros_like(LOGITS).at[..., 0].set(sign * size)
    loss, gradient = mean_loss(logits, jnp.zeros_like(TARGETS), jnp.ones_like(WEIGHTS))
    np.testing.assert_allclose(loss, 0 if sign > 0 else size + np.log(VOCAB - 1), rtol=1e-6)
    assert np.isfinite(gradient).all()


def test_nothing_scored_is_a_loss_and_a_gradient_of_zero():
    loss, gradient = mean_loss(LOGITS, TARGETS, jnp.zeros_like(WEIGHTS))
    assert loss == 0
    assert (gradient == 0).all()


@pytest.mark.parametrize("smoothing", [0.1, 0.5, 1.0])
def test_smoothing_spreads_a_share_of_the_target_evenly_over_the_vocabulary(smoothing):
    wanted = (1 - smoothing) * np.eye(VOCAB)[TARGETS] + smoothing / VOCAB
    truth = -(wanted * np.log(softmax(LOGITS))).sum(-1)
    losses = token_losses(LOGITS, TARGETS, smoothing)
    np.testing.assert_allclose(losses, truth, rtol=1e-5)
    of_every_symbol = jnp.stack([token_losses(LOGITS, jnp.full_like(TARGETS, i)) for i in range(7)])
    mixed = (1 - smoothing) * token_losses(LOGITS, TARGETS) + smoothing * of_every_symbol.mean(0)
    np.testing.assert_allclose(losses, mixed, rtol=1e-5)


def test_a_smoothed_loss_is_least_at_its_smoothed_target():
    best = jnp.log(0.7 * jax.nn.one_hot(TARGETS, VOCAB) + 0.3 / VOCAB)
    gradient = jax.grad(lambda logits: token_losses(logits, TARGETS, 0.3).sum())
    np.testing.assert_allclose(gradient(best), 0, atol=1e-6)
    assert (abs(gradient(LOGITS)).max(-1) > 1e-3).all()


def test_no_smoothing_is_the_plain_loss_bit_for_bit():
    np.testing.assert_array_equal(token_losses(LOGITS, TARGETS, 0.0), token_losses(LOGITS, TARGETS))


@pytest.mark.parametrize("scale", [1 / 64, 4.0])
def test_only_the_ratio_of_weights_matters(scale):
    values, weights = token_losses(LOGITS, TARGETS), WEIGHTS * jnp.array([[1.0], [0.5], [1.0]])
    truth = np.average(np.asarray(values), weights=np.asarray(weights))
    assert weighted_mean(values, scale * weights) == pytest.approx(truth, rel=1e-6)
