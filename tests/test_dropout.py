"""Dropout: off without a key, unbiased, and where the model says it is."""

import functools
from collections import Counter
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from s2sjax.config import Model, Optimiser, Training
from s2sjax.data import Batch, Examples
from s2sjax.dropout import Drawn, Rates, dropout, fold, kept
from s2sjax.models import Seq2Seq
from s2sjax.rnn import Weights, rnn_scan, rnn_step
from s2sjax.train import Trainer, TrainState

KEY = jax.random.key(3)
SOURCE = jnp.array([[1, 2, 3, 4], [4, 3, 0, 0]], jnp.int32)
TARGET = jnp.array([[1, 2, 3, 4, 2], [1, 3, 2, 0, 0]], jnp.int32)


def noise_of(config: Model, key=KEY) -> Drawn:
    """Noise of a model's own rates."""
    return Drawn(key, Rates.of(config))


def test_without_a_key_or_a_rate_nothing_is_dropped():
    x = jnp.ones((2, 3))
    assert dropout(x, "dropout", None) is x
    assert dropout(x, "dropout", Drawn(KEY, Rates(recurrent_dropout=0.5))) is x
    assert fold(None, 3) is None
    assert kept(None, "dropout", (2,)) is None
    assert Rates.of(Model()) == Rates()


def test_a_share_is_dropped_and_the_mean_stays():
    """Whether the rate is known while compiling or not."""
    drop = jax.jit(lambda rate: dropout(jnp.ones(20_000), "dropout", Drawn(KEY, Rates(rate))))
    x = drop(jnp.float32(0.3))
    np.testing.assert_array_equal(x, dropout(x**0, "dropout", noise_of(Model(dropout=0.3))))
    np.testing.assert_allclose(jnp.unique(x), [0, 1 / 0.7], rtol=1e-6)
    assert abs(x.mean() - 1) < 0.02


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
def test_the_recurrent_mask_is_the_same_at_every_step_and_its_gradient_is_exact(cell):
    gates = {"lstm": 4, "gru": 3, "rnn": 1}[cell] * 3
    draw = np.random.default_rng(0)
    z, wh = (jnp.array(0.5 * draw.normal(size=s), jnp.float32) for s in ((2, 4, gates), (3, gates)))
    bn = jnp.array(draw.normal(size=3), jnp.float32) if cell == "gru" else None
    mask = jnp.array([[True] * 4, [True, True, False, False]])
    keep = kept(Drawn(KEY, Rates(recurrent_dropout=0.5)), "recurrent_dropout", (2, 3))
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


def make(**settings):
    """A trainer of a tiny model, and parameters, drawn without compiling anything."""
    model = Seq2Seq(5, 0, Model(**{"cell": "rnn", "hidden_size": 4, **settings}))
    trainer = Trainer(model, Optimiser(), Training(batch_size=2), 10, 2)
    shapes = jax.eval_shape(trainer.init, KEY, jnp.float32(0.1), Rates()).params
    draw = np.random.default_rng(0)
    return trainer, jax.tree.map(lambda x: jnp.array(draw.normal(size=x.shape), x.dtype), shapes)


EVERYWHERE = {"dropout": 0.5, "context_dropout": 0.5, "recurrent_dropout": 0.5}
DEEP = {"embed_dim": 3, "encoder_layers": 2, "decoder_layers": 2, **EVERYWHERE}
ROWS, READ, WRITTEN = 2, 4, 4  # sequences, and symbols that are read and written


def test_noise_changes_the_loss_while_training_only(monkeypatch):
    trainer, params = make(embed_dim=3, dropout=0.5)
    batch = Batch(Examples(SOURCE, TARGET), jnp.ones(ROWS))
    loss = jax.jit(trainer.loss)
    rates = Rates.of(trainer.model.config)
    one, again, other = (loss(params, batch, jax.random.key(i), 1.0, rates) for i in (0, 0, 1))
    assert one == again != other
    monkeypatch.setattr(jax.random, "bernoulli", lambda *_: pytest.fail("something is dropped"))
    jax.eval_shape(trainer.evaluate, params, batch.examples)


def test_the_chances_are_those_given_whatever_the_settings_say():
    """So that arms that differ in them can share a program."""
    params = make(embed_dim=3, dropout=0.5)[1]
    batch, key = Batch(Examples(SOURCE, TARGET), jnp.ones(ROWS)), jax.random.key(1)
    trainers = [make(embed_dim=3, dropout=d)[0] for d in (0.5, 0.2)]
    half, fifth = (
        [float(t.loss(params, batch, key, 1.0, Rates(jnp.float32(r)))) for r in (0.5, 0.2)]
        for t in trainers
    )
    assert half == fifth
    assert half[0] != half[1]


# --- where ------------------------------------------------------------------------------------

ENCODER, DECODER, LOGITS = "encoder", "decoder", "logits"
PLACES = [
    ({"dropout": 0.5}, {LOGITS}),
    ({"dropout": 0.5, "embed_dim": 3}, {ENCODER, DECODER, LOGITS}),
    ({"dropout": 0.5, "encoder_layers": 2}, {ENCODER, LOGITS}),
    ({"dropout": 0.5, "decoder_layers": 2}, {DECODER, LOGITS}),
    ({"context_dropout": 0.5}, {LOGITS}),
    ({"context_dropout": 0.5, "attend": "feeding"}, {DECODER, LOGITS}),
    ({"context_dropout": 0.5, "attend": "before"}, {DECODER, LOGITS}),
    ({"recurrent_dropout": 0.5}, {ENCODER, DECODER, LOGITS}),
    ({"recurrent_dropout": 0.5, "directions": 2}, {ENCODER, DECODER, LOGITS}),
]


@pytest.mark.parametrize(
    ("settings", "noisy"), PLACES, ids=lambda x: str(sorted(x) if isinstance(x, set) else x)
)
def test_noise_is_where_the_settings_say_and_nowhere_else(settings, noisy):
    """An encoder's outputs and the alignments of a decoder tell nothing of its readout's noise."""
    trainer, params = make(attention="dot", **settings)

    @jax.jit
    def shown(key):
        """Without noise, with it, and with it symbol by symbol; the decoder reads the same."""
        noise = noise_of(trainer.model.config, key)
        ways = (None, noise)
        quiet, loud = (trainer.apply(params, SOURCE, n, method=Seq2Seq.encode) for n in ways)
        noisy_at_last = quiet._replace(noises=loud.noises)
        target_in = TARGET[:, :2]
        found = []
        for encoding, n in ((quiet, None), (noisy_at_last, noise)):
            found.append(
                trainer.apply(params, encoding, target_in, n, method=Seq2Seq.write_aligned)
            )
        state, steps = quiet.carry, []
        for time, token in enumerate(target_in.T):
            state, logits = trainer.apply(
                params, state, token, noisy_at_last, fold(noise, time), method=Seq2Seq.step
            )
            steps.append((logits, state.alignment))
        stepped = tuple(jnp.stack(parts, 1) for parts in zip(*steps, strict=True))
        return (quiet.outputs, loud.outputs), (*found, stepped)

    (quiet, loud), (silent, *ways) = shown(KEY)
    assert np.allclose(quiet, loud, atol=1e-6) == (ENCODER not in noisy)
    for way in ways:
        for place, without, given in zip((LOGITS, DECODER), silent, way, strict=True):
            assert np.allclose(without, given, atol=1e-6) == (place not in noisy), place


# --- which keys -------------------------------------------------------------------------------


@pytest.fixture
def spent(monkeypatch):
    """What keys are used for, while nothing is compiled: `{use: [(key, shape), ...]}`.

    Nothing is dropped: what matters is the keys.
    """
    uses = {use: [] for use in ("bernoulli", "categorical", "fold_in", "split")}

    def spy(use, real, key, *arguments):
        shape = arguments[-1] if use == "bernoulli" else None
        if not isinstance(key, jax.core.Tracer):
            with jax.ensure_compile_time_eval():  # also where a scan is being traced
                data = np.array(jax.random.key_data(key)).reshape(-1, 2)
            uses[use] += [(row.tobytes(), shape) for row in data]
        return jnp.ones(shape, bool) if use == "bernoulli" else real(key, *arguments)

    for use in uses:
        monkeypatch.setattr(jax.random, use, functools.partial(spy, use, getattr(jax.random, use)))
    return uses


STATES, ENCODED = [(ROWS, 4)] * 2, [(ROWS, READ, 3), (ROWS, READ, 4)]
WHOLE, STEP = (ROWS, WRITTEN), (ROWS,)
MASKS = {
    ("after", 1.0): [(*WHOLE, 3), *[(*WHOLE, 4)] * 3],
    ("feeding", 1.0): [(*WHOLE, 3), (*WHOLE, 4), *[(*STEP, 4)] * 2 * WRITTEN],
    ("feeding", 0.5): [*[(*STEP, 3), *[(*STEP, 4)] * 3, STEP] * WRITTEN],
}
"""Shapes of the decoder's draws: embedding, between layers, context, output, forcing."""


@pytest.mark.parametrize(("attend", "forcing"), MASKS)
def test_no_key_is_used_twice_in_two_updates(attend, forcing, spent, monkeypatch):
    monkeypatch.setattr(jax, "value_and_grad", lambda loss: lambda p, *rest: (loss(p, *rest), p))
    trainer, params = make(attention="dot", attend=attend, **DEEP)
    trainer = replace(trainer, training=replace(trainer.training, teacher_forcing=forcing))
    batch = Batch(Examples(SOURCE, TARGET), jnp.ones(ROWS))
    start = jnp.int32(0)
    rates = Rates.of(trainer.model.config)
    moments = trainer.tx.init(params)
    state = TrainState(params, moments, jnp.float32(0), rates, KEY, start, start, None)
    for found in spent.values():
        found.clear()
    with jax.disable_jit():
        for _ in range(2):
            state, _ = trainer.train_step(state, batch)
    drawn = [*spent["bernoulli"], *spent["categorical"]]
    keys = {key for key, _ in drawn}
    assert len(keys) == len(drawn)
    assert not keys & {key for use in ("fold_in", "split") for key, _ in spent[use]}
    shapes = Counter(shape for _, shape in spent["bernoulli"])
    assert shapes == Counter([*STATES, *STATES, *ENCODED, *MASKS[attend, forcing]] * 2)
    assert len(spent["categorical"]) == (0 if forcing == 1 else WRITTEN * 2)


@functools.partial(jax.jit, static_argnums=0)
def forced(trainer, params):
    return trainer.apply(params, SOURCE, TARGET[:, :-1], noise_of(trainer.model.config))


@functools.partial(jax.jit, static_argnums=0)
def sampled(trainer, params):
    noise = noise_of(trainer.model.config)
    return trainer.partly_forced(params, SOURCE, TARGET[:, :-1], KEY, 1.0, noise)


def test_recurrent_noise_is_the_same_forced_and_symbol_by_symbol():
    trainer, params = make(recurrent_dropout=0.5, decoder_layers=2)
    np.testing.assert_allclose(
        forced(trainer, params), sampled(trainer, params), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("write", [forced, sampled])
def test_other_noise_is_drawn_for_every_row_and_symbol(write):
    """Every state is 1/2 in every unit, and the output layer shows it as it is: so the mask."""
    model = Seq2Seq(32, 0, Model(cell="rnn", hidden_size=32, dropout=0.25))
    trainer = Trainer(model, Optimiser(), Training(batch_size=2), 10, 2)
    shapes = jax.eval_shape(trainer.init, KEY, jnp.float32(0.1), Rates()).params
    params = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    params["output"]["w"] = jnp.eye(32)
    params["decoder"]["cell"]["b"] = jnp.full(32, np.arctanh(0.5), jnp.float32)
    masks = 2 * np.array(write(trainer, params))
    assert masks.shape == (ROWS, WRITTEN, 32)
    np.testing.assert_allclose(np.unique(masks.round(5)), [0, 1 / 0.75], rtol=1e-5)
    assert 0.15 < (masks == 0).mean() < 0.35
    assert len({row.tobytes() for row in masks.reshape(-1, 32)}) == ROWS * WRITTEN
