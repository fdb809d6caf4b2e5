"""Dropout: off without a key, unbiased, and where the model says it is."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from s2sjax.config import Model, Optimiser, Training
from s2sjax.data import Batch, Examples
from s2sjax.dropout import dropout, fold, kept
from s2sjax.models import Seq2Seq
from s2sjax.rnn import Weights, rnn_scan, rnn_step
from s2sjax.train import Trainer

KEY = jax.random.key(3)
SOURCE = jnp.array([[1, 2, 3, 4], [4, 3, 0, 0]], jnp.int32)
TARGET = jnp.array([[1, 2, 3, 4, 2], [1, 3, 2, 0, 0]], jnp.int32)


def test_without_a_key_or_a_rate_nothing_is_dropped():
    x = jnp.ones((2, 3))
    assert dropout(x, 0.5, None) is x
    assert dropout(x, 0.0, KEY) is x
    assert fold(None, 3) is None
    assert kept(None, 0.5, (2,)) is None


def test_a_share_is_dropped_and_the_mean_stays():
    x = dropout(jnp.ones(20_000), 0.3, KEY)
    np.testing.assert_allclose(jnp.unique(x), [0, 1 / 0.7], rtol=1e-6)
    assert abs(x.mean() - 1) < 0.02


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
def test_the_recurrent_mask_is_the_same_at_every_step_and_its_gradient_is_exact(cell):
    gates = {"lstm": 4, "gru": 3, "rnn": 1}[cell] * 3
    draw = np.random.default_rng(0)
    z, wh = (jnp.array(0.5 * draw.normal(size=s), jnp.float32) for s in ((2, 4, gates), (3, gates)))
    bn = jnp.array(draw.normal(size=3), jnp.float32) if cell == "gru" else None
    mask = jnp.array([[True] * 4, [True, True, False, False]])
    keep = kept(KEY, 0.5, (2, 3))
    assert 0 < (keep == 0).sum() < 6

    def whole(z, wh):
        z, wh = jnp.asarray(z), jnp.asarray(wh)
        return rnn_scan(cell, Weights(wh, bn), z, None, mask, keep)[1]

    def steps(z, wh):
        carry, hidden = rnn_scan(cell, Weights(wh, bn), z[:, :1], None, mask[:, :1], keep)
        out = [hidden[:, 0]]
        for t in range(1, 4):
            new = rnn_step(cell, Weights(wh, bn), z[:, t], carry, kept=keep)
            keep_new = mask[:, t, None]
            carry = jax.tree.map(lambda n, o, k=keep_new: jnp.where(k, n, o), new, carry)
            out.append(carry.h)
        return jnp.stack(out, axis=1)

    np.testing.assert_allclose(whole(z, wh), steps(z, wh), rtol=1e-6, atol=1e-6)
    check_grads(whole, (z, wh), order=1, modes=["rev"], rtol=2e-2, atol=2e-2)
    for ours, autodiff in zip(
        jax.grad(lambda *a: (whole(*a) ** 2).sum(), (0, 1))(z, wh),
        jax.grad(lambda *a: (steps(*a) ** 2).sum(), (0, 1))(z, wh),
        strict=True,
    ):
        np.testing.assert_allclose(ours, autodiff, rtol=1e-4, atol=1e-5)


PLACES = [
    {"dropout": 0.5, "embed_dim": 4},
    {"dropout": 0.5, "encoder_layers": 2, "decoder_layers": 2},
    {"recurrent_dropout": 0.5},
    {"recurrent_dropout": 0.5, "directions": 2},
    {"context_dropout": 0.5, "attention": "dot"},
    {"context_dropout": 0.5, "attention": "additive", "attend": "before"},
]


@pytest.mark.parametrize("settings", PLACES, ids=str)
def test_noise_changes_the_loss_while_training_only(settings):
    model = Seq2Seq(5, 0, Model(hidden_size=6, **settings))
    trainer = Trainer(model, Optimiser(), Training(batch_size=2), 10, 2)
    params = trainer.init(KEY, jnp.float32(0.1)).params
    batch = Batch(Examples(SOURCE, TARGET), jnp.ones(2))
    loss = jax.jit(trainer.loss)
    one, other = (loss(params, batch, jax.random.key(i), 1.0) for i in (0, 1))
    assert one == loss(params, batch, jax.random.key(0), 1.0)
    assert one != other
    counts, _ = jax.jit(trainer.evaluate)(params, batch.examples)
    again, _ = jax.jit(trainer.evaluate)(params, batch.examples)
    assert counts["loss"].right == again["loss"].right
    quiet = Seq2Seq(5, 0, Model(hidden_size=6, **{**settings, **dict.fromkeys(
        ("dropout", "recurrent_dropout", "context_dropout"), 0.0)}))  # fmt: skip
    calm = trainer.__class__(quiet, Optimiser(), Training(batch_size=2), 10, 2)
    silent, _ = jax.jit(calm.evaluate)(params, batch.examples)
    assert counts["loss"].right == silent["loss"].right


@functools.partial(jax.jit, static_argnums=0)
def forced(trainer, params, noise):
    return trainer.apply(params, SOURCE, TARGET[:, :-1], noise)


@functools.partial(jax.jit, static_argnums=0)
def sampled(trainer, params, noise):
    return trainer.partly_forced(params, SOURCE, TARGET[:, :-1], KEY, 1.0, noise)


def test_recurrent_noise_is_the_same_forced_and_symbol_by_symbol():
    model = Seq2Seq(5, 0, Model(hidden_size=6, recurrent_dropout=0.5, decoder_layers=2))
    trainer = Trainer(model, Optimiser(), Training(batch_size=2), 10, 2)
    params = trainer.init(KEY, jnp.float32(0.1)).params
    np.testing.assert_allclose(
        forced(trainer, params, KEY), sampled(trainer, params, KEY), rtol=1e-5, atol=1e-6
    )


def test_other_noise_is_drawn_for_every_symbol():
    model = Seq2Seq(5, 0, Model(hidden_size=6, dropout=0.5))
    trainer = Trainer(model, Optimiser(), Training(batch_size=2), 10, 2)
    params = jax.tree.map(jnp.zeros_like, trainer.init(KEY, jnp.float32(0.1)).params)
    params["output"]["w"] = jnp.ones_like(params["output"]["w"])
    params["decoder"]["cell"]["b"] = jnp.ones_like(params["decoder"]["cell"]["b"])
    logits = forced(trainer, params, KEY)[..., 0]
    assert len(set(np.round(np.array(logits).ravel() / np.array(logits).max(), 3).tolist())) > 2
