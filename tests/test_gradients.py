"""The gradient probe: what autodiff and small differences say, zero where nothing is read."""

from dataclasses import replace
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from s2sjax.analysis.gradients import (
    Gradients,
    deviation,
    gradient_norms,
    lag_table,
    named_steps,
    of_one_shape,
    probe,
    questions_of,
    snapshots,
)
from s2sjax.config import Model, Text, Training
from s2sjax.data.dataset import make_formatter
from s2sjax.data.rows import Examples
from s2sjax.data.tasks import Addition, Toy
from s2sjax.model.dropout import Rates
from s2sjax.model.seq2seq import Seq2Seq, padding_mask
from s2sjax.study.group import Group
from s2sjax.train.loop import fit
from s2sjax.train.run import Run, make_trainer

RUN = Run(
    Addition(digits=2, train=40, dev=60, test=10),
    model=Model(hidden_size=5),
    train=Training(epochs=2, batch_size=16, eval_every=2),
)
MASKED = Text(source_justify="left", justify_when="after", mask_spaces=True)
VARIANTS = {
    "one-hot": RUN,
    "embedding, peeky": replace(RUN, model=Model(hidden_size=5, embed_dim=3, peeky=True)),
    "two layers, GRU": replace(
        RUN, model=Model("gru", hidden_size=5, encoder_layers=2, decoder_layers=2)
    ),
    "nothing read": replace(
        RUN, text=Text(start="nothing"), model=Model("lstm", 5, 1, 1, "repeat")
    ),
    "spaces skipped": replace(RUN, text=MASKED),
}
PAIRS = [("12+34", "46"), ("99+1", "100"), ("7+5", "12")]


@cache
def trained(run: Run):
    """A trainer, parameters far enough from their start to be any, and rows of ids."""
    trainer = make_trainer(run)

    @jax.jit
    def noisy():
        params = trainer.init(jnp.array([0, 3], jnp.uint32), jnp.float32(1), Rates()).params
        leaves, tree = jax.tree.flatten(params)
        keys = jax.random.split(jax.random.key(4), len(leaves))
        pairs = zip(leaves, keys, strict=True)
        return jax.tree.unflatten(tree, [x + 0.3 * jax.random.normal(k, x.shape) for x, k in pairs])

    return trainer, noisy(), Examples(*map(jnp.asarray, run.formatter.examples(PAIRS)))


def norms_of(trainer, params, examples) -> np.ndarray:
    """`gradient_norms`, compiled."""
    return np.asarray(jax.jit(lambda p, e: gradient_norms(trainer, p, e))(params, examples))


def right_logits(trainer, params, one_hot, examples):
    """Logits of the right symbols, from one-hot vectors and the parameters as they are named."""
    cell = params["encoder"]["cell"]
    embedding = params["encoder"].get("embedding", jnp.eye(one_hot.shape[-1]))
    z = one_hot @ (embedding @ cell["wx"]) + cell["b"][None, None]
    mask = padding_mask(examples.source, trainer.model.pad_id)
    encoding = trainer.apply(params, z, mask, method=Seq2Seq.encode_projected)
    target_in = examples.target[:, :-1]
    logits, _ = trainer.apply(params, encoding, target_in, method=Seq2Seq.decode_forced)
    wanted = jax.nn.one_hot(examples.target[:, 1:], logits.shape[-1])
    return (logits * wanted).sum(-1)


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] * (i > 1)) for i, n in enumerate(VARIANTS)]
)
def test_it_is_the_norm_of_the_gradient_with_respect_to_one_hot_inputs(name):
    trainer, params, examples = trained(VARIANTS[name])
    one_hot = jax.nn.one_hot(examples.source, trainer.model.source_vocab_size)

    @jax.jit
    @jax.vmap
    def norms(vectors, row):
        row = jax.tree.map(lambda x: x[None], row)
        jacobian = jax.jacrev(lambda x: right_logits(trainer, params, x[None], row)[0])(vectors)
        return jnp.linalg.norm(jacobian, axis=-1)

    found = norms_of(trainer, params, examples)
    wanted = np.asarray(norms(one_hot, examples)).mean(0)
    # What is padding in a target has no right symbol that counts, but the same gradient.
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-6)
    assert (wanted > 0).any()


@pytest.mark.parametrize(
    "run", [RUN, pytest.param(VARIANTS["spaces skipped"], marks=pytest.mark.slow)]
)
def test_it_is_zero_where_nothing_is_read(run):
    trainer, params, _ = trained(run)
    rows = run.formatter.examples([("7+5", "12"), ("1+1", "2"), ("2+2", "4")])
    found = norms_of(trainer, params, Examples(*map(jnp.asarray, rows)))
    read = rows.source != trainer.model.pad_id
    assert not read.all()
    assert (read == read[0]).all()
    np.testing.assert_array_equal(found[:, ~read[0]], 0)
    assert (found[:, read[0]] > 0).all()


# --- questions that line up, and their steps ----------------------------------------------------


def test_questions_have_full_length_and_answers_of_the_commonest_shape():
    pairs = [("10+10", "20"), ("1+10", "11"), ("50+50", "100"), ("20+20", "40"), ("60+60", "120")]
    assert of_one_shape(pairs, 5) == [("50+50", "100"), ("60+60", "120")]  # of equals, the longer
    assert of_one_shape(pairs[:4], 5) == [("10+10", "20"), ("20+20", "40")]
    assert of_one_shape(pairs, 5, most=1) == [("50+50", "100")]
    assert of_one_shape(pairs[1:2], 5) == []
    minus = [("10-30", "-20"), ("99-1", "98"), ("500-1", "499")]
    assert of_one_shape(minus, 5) == [("10-30", "-20")]


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        (Text(), "htu+htu⏎"),
        (Text(source_order="reversed"), "uth+uth⏎"),
        (Text(source_order="digits_reversed"), "uth+uth⏎"),
        (Text(source_order="operands_swapped"), "htu+htu⏎"),
        (Text(source_order="doubled"), "htu+htuhtu+htu⏎"),
        (Text(lag=2), "htu+htu  ⏎"),
        (Text(source_justify="right", source_eos=False), "htu+htu"),
    ],
)
def test_source_steps_are_named_by_place(text, steps):
    formatter = make_formatter(Addition(digits=3), text)
    assert "".join(named_steps(formatter, "123+456", predicted=False)) == steps


def test_long_numbers_and_those_of_different_lengths_have_all_their_steps_named():
    task = Addition(digits=9, operands="short_first", train=10, dev=10, test=10)
    steps = {"forward": "tu+htu⏎", "operands_swapped": "htu+tu⏎", "reversed": "uth+ut⏎"}
    for order, expected in steps.items():
        formatter = make_formatter(task, Text(source_order=order))
        assert "".join(named_steps(formatter, "12+345", predicted=False)) == expected
    number = ["u", "t", "h", "k", *(f"10^{k}" for k in range(4, 9))]
    assert named_steps(formatter, "12+123456789", predicted=False) == [*number, "+", "u", "t", "⏎"]


@pytest.mark.parametrize(
    ("text", "gold", "steps"),
    [
        (Text(), "579", "htu⏎"),
        (Text(target_order="reversed"), "579", "uth⏎"),
        (Text(target_justify="right"), "579", " htu⏎"),
        (Text(target_justify="right", start="first_target"), "579", "htu⏎"),
        (Text(target_justify="left", target_eos=False), "1579", "khtu"),
        (Text(), "-579", "-htu⏎"),
    ],
)
def test_target_steps_are_those_that_are_predicted(text, gold, steps):
    formatter = make_formatter(Addition(digits=3, operator="-" if gold[0] == "-" else "+"), text)
    assert "".join(named_steps(formatter, gold, predicted=True)) == steps


# --- through training -------------------------------------------------------------------------


@given(st.integers(1, 10_000))
def test_snapshots_go_from_before_the_first_epoch_to_the_last(last):
    epochs = snapshots(last)
    assert (epochs[0], epochs[-1]) == (0, last)
    assert epochs == sorted(set(epochs))
    assert min(last + 1, 5) <= len(epochs) <= 6


def test_what_is_probed_is_the_run_bit_for_bit(tmp_path):
    reversed_run = replace(RUN, text=Text(source_order="reversed"))
    group = Group({"forward": RUN, "reversed": reversed_run}, seeds=1, first_seed=4)
    called, recorded = [], {}
    probed = probe(group, [0, 2], called.append)
    assert called == [1, 2]
    assert list(probed) == ["forward", "reversed"]
    found = probed["reversed"]
    assert "".join(found.inputs) == "ut+ut⏎"
    assert list(found.norms) == [0, 2]
    assert found.norms[2].shape == (len(found.outputs), len(found.inputs))
    assert 0 < found.questions <= 60
    assert found.seed == 4
    assert not np.allclose(found.norms[0], found.norms[2])

    def record(epoch):
        recorded[epoch.epoch] = float(epoch.losses[1].mean())

    runs = group.stack()
    state = fit(runs, group.begin(runs), checkpoints=tmp_path, on_epoch=record)
    assert deviation(found.losses, recorded) == 0
    rows = group.formatter("reversed").examples(
        of_one_shape(group.pairs("reversed")[0]["dev"], 5)[: found.questions]
    )
    params = jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf)[1]), state.params)
    norms = norms_of(group.programs.trainer, params, Examples(*map(jnp.asarray, rows)))
    np.testing.assert_allclose(found.norms[2], norms[: len(found.outputs)], rtol=1e-5)


def test_only_what_adds_or_subtracts_full_length_numbers_can_be_probed():
    task = Addition(digits=9, operands="any_length", train=10, dev=2, test=2)
    long = replace(task, digits=10, operands="uniform")
    runs = {name: replace(RUN, task=t) for name, t in zip("cfl", (Toy(), task, long), strict=True)}
    assert not any(questions_of(Group(runs, 1, 0), arm) for arm in runs)
    assert questions_of(Group({"sums": RUN}, 1, 0), "sums")


def some_gradients() -> Gradients:
    norms = {0: np.arange(12.0).reshape(2, 6), 5: np.ones((2, 6))}
    return Gradients(norms, ["u", "⏎"], [*"tu+tu⏎"], 7, 0, {})


def test_deviation_is_relative_and_over_the_epochs_recorded():
    losses = {1: 2.0, 2: 1.0, 3: 9.0}
    assert deviation(losses, {1: 2.0, 2: 1.1}) == pytest.approx(0.1 / 1.1)


def test_lags_count_the_steps_from_reading_to_predicting():
    table = lag_table({"forward": some_gradients()})
    assert table.headers == ("arm", "place", "lags", "epoch 0", "epoch 5")
    assert table.rows == (("forward", "u", "2, 5", "2.5", "1"),)  # the u read last: ⏎, then ours
