"""Attention: its equations, what it must never look at, and that all at once is step by step."""

import functools

import attention
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_models import by_hand

from s2sjax.attention import additive, align, context, inner
from s2sjax.config import Model, Run, Training
from s2sjax.dropout import Rates
from s2sjax.errors import UserError
from s2sjax.group import Group
from s2sjax.models import Seq2Seq
from s2sjax.replicas import spread, stack
from s2sjax.taskconfig import Toy
from s2sjax.trained import Trained

BATCH, SOURCE, TARGET, VOCAB, HIDDEN, EMBED = 3, 5, 4, 7, 6, 2
PAD = 0
rng = np.random.default_rng(0)
SOURCES = jnp.array(rng.integers(1, VOCAB, (BATCH, SOURCE)), jnp.int32)
SOURCES = SOURCES.at[1, 2:].set(PAD).at[2, 4:].set(PAD)
TARGETS = jnp.array(rng.integers(1, VOCAB, (BATCH, TARGET)), jnp.int32)

every_way = pytest.mark.parametrize(
    ("score", "attend"),
    [("dot", "after"), ("general", "feeding"), ("additive", "before"), ("additive", "after")],
)


def make(score, attend, **settings):
    config = Model(
        hidden_size=HIDDEN, embed_dim=EMBED, attention=score, attend=attend, cell="gru", **settings
    )
    return Seq2Seq(VOCAB, PAD, config)


@functools.cache
def parameters(model):
    leaves, tree = jax.tree.flatten(
        jax.eval_shape(model.init, jax.random.key(0), SOURCES, TARGETS)["params"]
    )
    draw = np.random.default_rng(1)
    values = [jnp.array(draw.normal(0, 1, leaf.shape), jnp.float32) for leaf in leaves]
    return tree.unflatten(values)


@functools.partial(jax.jit, static_argnums=0)
def written(model, params, source, target_in):
    encoding = model.apply({"params": params}, source, method="encode")
    return model.apply({"params": params}, encoding, target_in, method="write_aligned")


@functools.partial(jax.jit, static_argnums=0)
def stepped(model, params, source, target_in):
    encoding = model.apply({"params": params}, source, method="encode")

    def step(state, token):
        state, logits = model.apply({"params": params}, state, token, encoding, method="step")
        return state, (logits, state.alignment)

    _, told = jax.lax.scan(step, encoding.carry, target_in.T)
    return jax.tree.map(lambda x: x.swapaxes(0, 1), told)


def close(a, b):
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=2e-6)


def test_energies_and_contexts_are_those_of_the_papers():
    q, m = (jnp.array(rng.normal(size=(2, n, 3)), jnp.float32) for n in (4, 5))
    v = jnp.array(rng.normal(size=3), jnp.float32)
    for b in range(2):
        for t in range(4):
            close(inner(q, m)[b, t], [q[b, t] @ m[b, s] for s in range(5)])
            close(additive(q, m, v)[b, t], [v @ jnp.tanh(q[b, t] + m[b, s]) for s in range(5)])
    a = align(inner(q, m), None)
    close(a, jnp.exp(inner(q, m)) / jnp.exp(inner(q, m)).sum(-1, keepdims=True))
    close(context(a, m)[1, 2], sum(a[1, 2, s] * m[1, s] for s in range(5)))


def test_one_query_is_one_of_many():
    q, m, v = (jnp.array(rng.normal(size=s), jnp.float32) for s in ((2, 4, 3), (2, 5, 3), (3,)))
    for energies in (inner, functools.partial(additive, v=v)):
        close(energies(q, m)[:, 1], energies(q[:, 1], m))
    close(align(inner(q, m), m[..., 0] > 0)[:, 1], align(inner(q[:, 1], m), m[..., 0] > 0))


@every_way
def test_alignments_are_those_of_the_textbook(score, attend):
    model = make(score, attend)
    p = parameters(model)
    _, alignment = written(model, p, SOURCES, TARGETS)
    for row, source, target in zip(alignment, SOURCES.tolist(), TARGETS.tolist(), strict=True):
        real = [symbol for symbol in source if symbol != PAD]
        close(row[:, : len(real)], by_hand(model.config, {"params": p}, real, target)[1])


@every_way
def test_alignments_are_distributions_over_real_symbols(score, attend):
    model = make(score, attend, directions=2)
    _, alignment = written(model, parameters(model), SOURCES, TARGETS)
    close(alignment.sum(-1), np.ones((BATCH, TARGET)))
    assert (
        np.array(alignment)[np.broadcast_to((SOURCES == PAD)[:, None], alignment.shape)] == 0
    ).all()
    assert (alignment[0] > 0).all()


@every_way
def test_stepwise_alignments_are_those_of_the_whole(score, attend):
    model = make(score, attend, directions=2, hand_over="learned")
    p = parameters(model)
    for whole, steps in zip(
        written(model, p, SOURCES, TARGETS), stepped(model, p, SOURCES, TARGETS), strict=True
    ):
        close(whole, steps)


@every_way
def test_what_stands_behind_the_end_changes_nothing(score, attend):
    model = make(score, attend, directions=2, encoder_layers=2)
    p = parameters(model)
    longer = jnp.pad(SOURCES, ((0, 0), (0, 2)))
    logits, alignment = written(model, p, SOURCES, TARGETS)
    more_logits, more_alignment = written(model, p, longer, TARGETS)
    close(logits, more_logits)
    close(jnp.pad(alignment, ((0, 0), (0, 0), (0, 2))), more_alignment)


def test_rows_of_padding_alone_give_numbers():
    model = make("dot", "after")
    logits, alignment = written(model, parameters(model), jnp.zeros_like(SOURCES), TARGETS)
    assert np.isfinite(logits).all()
    assert np.isfinite(alignment).all()


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"attend": "feeding"}, "Model.attend feeding needs Model.attention"),
        ({"context_dropout": 0.1}, "Model.context_dropout needs Model.attention"),
        ({"attention": "dot", "peeky": True}, "another view"),
        ({"attention": "dot", "decoder": "repeat"}, "another view"),
        ({"hand_over": "zero"}, "no source"),
        ({"directions": 2, "hidden_size": 5}, "5 is odd"),
        ({"residual": True}, "more than one layer"),
        ({"tied_output": True}, "None is not 128"),
        ({"tied_output": True, "embed_dim": 128, "peeky": True}, "another output layer"),
        ({"dropout": 1.0}, "at most 0.99"),
        ({"recurrent_dropout": -0.1}, "at least 0"),
    ],
)
def test_what_cannot_be_is_refused(settings, says):
    with pytest.raises(UserError, match=says):
        Model(**settings)


def test_alignments_of_trained_models_are_those_of_each_seed():
    run = Run(
        Toy(symbols=3, max_length=3, train=8, dev=4, test=4),
        model=Model(hidden_size=4, attention="dot"),
        train=Training(batch_size=4),
    )
    group = Group({"dot": run}, seeds=2, first_seed=5)
    trainer = group.trainer
    states = [trainer.init(jax.random.key(seed), jnp.float32(0.1), Rates()) for seed in (0, 1)]
    params = spread(stack([jax.device_get(state.params) for state in states]), group.mesh)
    pairs = [("ab", "ab"), ("cba", "cba"), ("a", "a")]
    aligned = Trained(group, params).align({"dot": [pairs, pairs]})["dot"]
    source, target = group.formatters["dot"].examples(pairs)
    for seed, state in enumerate(states):
        _, alone = written(trainer.model, state.params, source, target[:, :-1])
        close(aligned[seed], alone)


def test_the_grid_of_the_experiment_is_every_combination():
    study = attention.PRESETS["addition"][1]
    runs = attention.arms("addition", study)
    models = {(r.model.attention, r.model.directions, r.text.source_order) for r in runs.values()}
    assert len(runs) == len(models) == 16
    assert {r.model.encoder_layers for r in attention.arms("depth", study).values()} == {2, 4}
    for preset in attention.PRESETS:
        names = attention.arms(preset, study)
        assert {arm for pair in attention.pairs(preset) for arm in pair} <= {*names}
