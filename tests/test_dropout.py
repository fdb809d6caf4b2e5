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
from s2sjax.data.rows import Batch, Examples
from s2sjax.model.dropout import DropoutNoise, Rates, dropout, dropout_mask, fold_in
from s2sjax.model.rnn import Recurrent
from s2sjax.model.seq2seq import DECODING, Seq2Seq
from s2sjax.train.step import Trainer

KEY = jax.random.key(3)
SOURCE = jnp.array([[1, 2, 3, 4], [4, 3, 0, 0]], jnp.int32)
TARGET = jnp.array([[1, 2, 3, 4, 2], [1, 3, 2, 0, 0]], jnp.int32)


def noise_of(config: Model, key=KEY) -> DropoutNoise:
    """Noise of a model's own rates."""
    return DropoutNoise(key, Rates.of(config))


def test_without_a_key_or_a_rate_nothing_is_dropped():
    x = jnp.ones((2, 3))
    assert dropout(x, None) is x
    assert dropout(x, DropoutNoise(KEY, Rates(recurrent_dropout=0.5))) is x
    assert fold_in(None, 3) is None
    assert dropout_mask(None, "dropout", (2,)) is None
    assert Rates.of(Model()) == Rates()


def test_a_share_is_dropped_and_the_mean_stays():
    """Whether the rate is known while compiling or not."""
    drop = jax.jit(lambda rate: dropout(jnp.ones(20_000), DropoutNoise(KEY, Rates(rate))))
    x = drop(jnp.float32(0.3))
    np.testing.assert_array_equal(x, dropout(x**0, noise_of(Model(dropout=0.3))))
    np.testing.assert_allclose(jnp.unique(x), [0, 1 / 0.7], rtol=1e-6)
    assert abs(x.mean() - 1) < 0.02


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
def test_the_recurrent_mask_is_the_same_at_every_step_and_its_gradient_is_exact(cell):
    draw = np.random.default_rng(0)
    layer = Recurrent(1, 3, Model(cell=cell))
    shapes = layer.init(KEY, jnp.ones((1, 1)), method="project")["params"]
    params = {name: draw.normal(size=x.shape).astype("float32") for name, x in shapes.items()}
    z = jnp.array(0.5 * draw.normal(size=(2, 4, params["b"].size)), jnp.float32)
    mask = jnp.array([[True] * 4, [True, True, False, False]])
    noise = DropoutNoise(KEY, Rates(recurrent_dropout=0.5))
    drop = dropout_mask(noise, "recurrent_dropout", (2, 3))
    assert 0 < (drop == 0).sum() < 6

    def bound(wh):
        return layer.bind({"params": params | {"wh": jnp.asarray(wh)}})

    @jax.jit
    def whole(z, wh):
        return bound(wh)(jnp.asarray(z), None, mask, drop)[1]

    @jax.jit
    def steps(z, wh):
        carry, hidden = bound(wh)(z[:, :1], None, mask[:, :1], drop)
        out = [hidden[:, 0]]
        for t in range(1, 4):
            new = bound(wh).step(z[:, t], carry, drop)
            real = mask[:, t, None]
            carry = jax.tree.map(lambda n, o, real=real: jnp.where(real, n, o), new, carry)
            out.append(carry.h)
        return jnp.stack(out, axis=1)

    wh = jnp.asarray(params["wh"])
    np.testing.assert_allclose(whole(z, wh), steps(z, wh), rtol=1e-6, atol=1e-6)
    check_grads(whole, (z, wh), order=1, modes=["rev"], rtol=2e-2, atol=2e-2)
    for ours, autodiff in zip(
        jax.grad(lambda *a: (whole(*a) ** 2).sum(), (0, 1))(z, wh),
        jax.grad(lambda *a: (steps(*a) ** 2).sum(), (0, 1))(z, wh),
        strict=True,
    ):
        np.testing.assert_allclose(ours, autodiff, rtol=1e-4, atol=1e-5)


def make(**settings):
    """A tiny model, and parameters, drawn without compiling anything."""
    model = Seq2Seq(5, 5, 0, Model(**{"cell": "rnn", "hidden_size": 4, **settings}))
    shapes = jax.eval_shape(model.init, KEY, SOURCE, TARGET)
    draw = np.random.default_rng(0)
    return model, jax.tree.map(lambda x: jnp.array(draw.normal(size=x.shape), x.dtype), shapes)


EVERYWHERE = {"dropout": 0.5, "recurrent_dropout": 0.5}
DEEP = {"embed_dim": 3, "encoder_layers": 2, "decoder_layers": 2, **EVERYWHERE}
ROWS, READ, WRITTEN = 2, 4, 4  # sequences, and symbols that are read and written


@functools.partial(jax.jit, static_argnums=0)
def forced(model, params, noise):
    """All logits at once."""
    return model.apply(params, SOURCE, TARGET[:, :-1], noise)


@functools.partial(jax.jit, static_argnums=0)
def stepped(model, params, noise):
    """The same logits, symbol by symbol."""
    encoding = model.apply(params, SOURCE, noise, method="encode")
    state, steps = encoding.initial_state, []
    for time, token in enumerate(TARGET[:, :-1].T):
        step_noise = fold_in(fold_in(noise, DECODING), time)
        state, logits = model.apply(params, state, token, encoding, step_noise, method="step")
        steps.append(logits)
    return jnp.stack(steps, axis=1)


# --- where ------------------------------------------------------------------------------------

ENCODER, DECODER, LOGITS = "encoder", "decoder", "logits"
PLACES = [
    ({"dropout": 0.5}, {LOGITS}),
    ({"dropout": 0.5, "embed_dim": 3}, {ENCODER, DECODER, LOGITS}),
    ({"dropout": 0.5, "encoder_layers": 2}, {ENCODER, LOGITS}),
    ({"dropout": 0.5, "decoder_layers": 2}, {DECODER, LOGITS}),
    ({"recurrent_dropout": 0.5}, {ENCODER, DECODER, LOGITS}),
    ({"recurrent_dropout": 0.5, "directions": 2}, {ENCODER, DECODER, LOGITS}),
]


@pytest.mark.parametrize(
    ("settings", "noisy"), PLACES, ids=lambda x: str(sorted(x) if isinstance(x, set) else x)
)
def test_noise_is_where_the_settings_say_and_nowhere_else(settings, noisy):
    """An encoder's outputs and a decoder's attention weights are free of the readout's noise."""
    model, params = make(attention="dot", **settings)
    apply = functools.partial(model.apply, params)

    @jax.jit
    def logits_and_alignments(key):
        """Without noise, with it, and with it symbol by symbol; the decoder reads the same."""
        noise, target_in = noise_of(model.config, key), TARGET[:, :2]
        quiet, loud = (apply(SOURCE, n, method="encode") for n in (None, noise))
        noisy_at_last = quiet._replace(recurrent_masks=loud.recurrent_masks)
        found = [
            apply(encoding, target_in, n, method="decode_forced")
            for encoding, n in ((quiet, None), (noisy_at_last, noise))
        ]
        state, steps = quiet.initial_state, []
        for time, token in enumerate(target_in.T):
            state, logits = apply(state, token, noisy_at_last, fold_in(noise, time), method="step")
            steps.append((logits, state.alignment))
        step_by_step = tuple(jnp.stack(parts, 1) for parts in zip(*steps, strict=True))
        return (quiet.memory.values, loud.memory.values), (*found, step_by_step)

    (quiet, loud), (silent, *ways) = logits_and_alignments(KEY)
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
    ("after", 1.0): [(*WHOLE, 3), *[(*WHOLE, 4)] * 2],
    ("feeding", 1.0): [(*WHOLE, 3), (*WHOLE, 4), *[(*STEP, 4)] * WRITTEN],
    ("feeding", 0.5): [*[(*STEP, 3), *[(*STEP, 4)] * 2, STEP] * WRITTEN],
}
"""Shapes of the decoder's draws: embedding, between layers, output, forcing."""


def trainer_of(model, **training):
    return Trainer(model, Optimiser(), Training(batch_size=ROWS, **training), 10, 2, -1, 0)


@pytest.mark.parametrize(("attend", "forcing"), MASKS)
def test_no_key_is_used_twice_in_two_updates(attend, forcing, spent, monkeypatch):
    monkeypatch.setattr(jax, "value_and_grad", lambda loss: lambda p, *rest: (loss(p, *rest), p))
    model, params = make(attention="dot", attend=attend, **DEEP)
    trainer = trainer_of(model, teacher_forcing=forcing)
    batch = Batch(Examples(SOURCE, TARGET), jnp.ones(ROWS))
    rates = Rates.of(model.config)
    state = trainer.init(jax.random.key_data(KEY), jnp.float32(0), rates)
    state = state.replace(params=params["params"])
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


def test_noise_is_on_while_training_only_with_the_rates_given_whatever_the_settings_say(
    monkeypatch,
):
    """So that arms that differ in the rates can share a program."""
    model, params = make(embed_dim=3, dropout=0.5)
    other_settings = replace(model, config=replace(model.config, dropout=0.2))
    batch = Batch(Examples(SOURCE, TARGET), jnp.ones(ROWS))

    def loss(model, key, rate):
        rates = Rates(jnp.float32(rate))
        key = jax.random.key(key)
        return float(trainer_of(model).loss(params["params"], batch, key, 1.0, rates))

    one = loss(model, 0, 0.5)
    assert one == loss(model, 0, 0.5) == loss(other_settings, 0, 0.5)
    assert len({one, loss(model, 1, 0.5), loss(model, 0, 0.2)}) == 3
    monkeypatch.setattr(jax.random, "bernoulli", lambda *_: pytest.fail("something is dropped"))
    jax.eval_shape(model.apply, params, SOURCE, TARGET)


def test_recurrent_noise_is_the_same_forced_and_symbol_by_symbol():
    model, params = make(recurrent_dropout=0.5, decoder_layers=2)
    noise = noise_of(model.config)
    np.testing.assert_allclose(
        forced(model, params, noise), stepped(model, params, noise), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("write", [forced, stepped])
def test_other_noise_is_drawn_for_every_row_and_symbol(write):
    """Every state is 1/2 in every unit, and the output layer shows it as it is: so the mask."""
    model = Seq2Seq(5, 32, 0, Model(cell="rnn", hidden_size=32, dropout=0.25))
    shapes = jax.eval_shape(model.init, KEY, SOURCE, TARGET)
    params = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    params["params"]["output"]["w"] = jnp.eye(32)
    params["params"]["decoder"]["cell"]["b"] = jnp.full(32, np.arctanh(0.5), jnp.float32)
    masks = 2 * np.array(write(model, params, noise_of(model.config)))
    assert masks.shape == (ROWS, WRITTEN, 32)
    np.testing.assert_allclose(np.unique(masks.round(5)), [0, 1 / 0.75], rtol=1e-5)
    assert 0.15 < (masks == 0).mean() < 0.35
    assert len({row.tobytes() for row in masks.reshape(-1, 32)}) == ROWS * WRITTEN
