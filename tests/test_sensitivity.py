"""The gradient probe: what autodiff and small differences say, zero where nothing is read."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from s2sjax.config import Model, Run, Text, Training
from s2sjax.data import Examples
from s2sjax.dropout import Rates
from s2sjax.group import Group, formatter, make_trainer
from s2sjax.models import Seq2Seq
from s2sjax.sensitivity import (
    Look,
    alike,
    can_look,
    deviation,
    input_weights,
    lag_table,
    look,
    sensitivity,
    snapshots,
    source_steps,
    target_steps,
)
from s2sjax.taskconfig import Addition, Toy
from s2sjax.vocab import padding_mask

RUN = Run(
    Addition(digits=2, train=40, dev=60, test=10),
    model=Model(hidden_size=5),
    train=Training(epochs=2, batch_size=16, eval_every=1),
)
MASKED = Text(justify="left", justify_when="after", mask_spaces=True)
VARIANTS = {
    "one-hot": RUN,
    "embedding, peeky": replace(RUN, model=Model(hidden_size=5, embed_dim=3, peeky=True)),
    "two layers of GRU": replace(
        RUN, model=Model(hidden_size=5, cell="gru", encoder_layers=2, decoder_layers=2)
    ),
    "nothing read": replace(
        RUN, text=Text(start="nothing"), model=Model(hidden_size=5, decoder="repeat")
    ),
    "spaces skipped": replace(RUN, text=MASKED),
}
PAIRS = [("12+34", "46"), ("99+1", "100"), ("7+5", "12")]


def trained(run: Run):
    """A trainer, parameters far enough from their start to be any, and rows of ids."""
    trainer = make_trainer(run)

    @jax.jit
    def noisy():
        params = trainer.init(jax.random.key(3), jnp.float32(1), Rates()).params
        leaves, tree = jax.tree.flatten(params)
        keys = jax.random.split(jax.random.key(4), len(leaves))
        pairs = zip(leaves, keys, strict=True)
        return jax.tree.unflatten(tree, [x + 0.3 * jax.random.normal(k, x.shape) for x, k in pairs])

    return trainer, noisy(), Examples(*map(jnp.asarray, formatter(run).examples(PAIRS)))


def probe(trainer, params, examples) -> np.ndarray:
    """`sensitivity`, compiled."""
    return np.asarray(jax.jit(lambda p, e: sensitivity(trainer, p, e))(params, examples))


def right_logits(trainer, params, one_hot, examples):
    """Logits of the right symbols, from one-hot vectors and the parameters as they are named."""
    cell = params["encoder"]["cell"]
    embedding = params["encoder"].get("embedding", jnp.eye(one_hot.shape[-1]))
    z = one_hot @ (embedding @ cell["wx"]) + jnp.broadcast_to(
        cell["b"], (*one_hot.shape[:-1], cell["b"].size)
    )
    mask = padding_mask(examples.source, trainer.model.pad_id)
    encoding = trainer.apply(params, z, mask, method=Seq2Seq.read)
    logits = trainer.apply(params, encoding, examples.target[:, :-1], method=Seq2Seq.write)
    wanted = jax.nn.one_hot(examples.target[:, 1:], logits.shape[-1])
    return (logits * wanted).sum(-1)


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] * (i > 1)) for i, n in enumerate(VARIANTS)]
)
def test_it_is_the_norm_of_the_gradient_with_respect_to_one_hot_inputs(name):
    trainer, params, examples = trained(VARIANTS[name])
    one_hot = jax.nn.one_hot(examples.source, trainer.model.vocab_size)

    @jax.jit
    @jax.vmap
    def norms(vectors, row):
        row = jax.tree.map(lambda x: x[None], row)
        jacobian = jax.jacrev(lambda x: right_logits(trainer, params, x[None], row)[0])(vectors)
        return jnp.linalg.norm(jacobian, axis=-1)

    found = probe(trainer, params, examples)
    wanted = np.asarray(norms(one_hot, examples)).mean(0)
    # What is padding in a target has no right symbol that counts, but the same gradient.
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-6)
    assert (wanted > 0).any()


def test_it_is_what_small_differences_of_the_input_make():
    trainer, params, examples = trained(RUN)
    one_hot = jax.nn.one_hot(examples.source, trainer.model.vocab_size)
    at = jax.jit(lambda x: right_logits(trainer, params, x, examples))
    step, squares = 1e-2, np.zeros((len(PAIRS), examples.target.shape[1] - 1, one_hot.shape[1]))
    for s in range(one_hot.shape[1]):
        for v in range(one_hot.shape[2]):
            nudge = jnp.zeros_like(one_hot).at[:, s, v].set(step)
            slope = (at(one_hot + nudge) - at(one_hot - nudge)) / (2 * step)
            squares[:, :, s] += np.asarray(slope) ** 2
    found = probe(trainer, params, examples)
    np.testing.assert_allclose(found, np.sqrt(squares).mean(0), rtol=2e-2, atol=1e-4)


@pytest.mark.parametrize("run", [RUN, VARIANTS["spaces skipped"]], ids=["padding", "spaces"])
def test_it_is_zero_where_nothing_is_read(run):
    trainer, params, _ = trained(run)
    rows = formatter(run).examples([("7+5", "12"), ("1+1", "2")])
    found = probe(trainer, params, Examples(*map(jnp.asarray, rows)))
    read = rows.source != trainer.model.pad_id
    assert not read.all()
    assert (read == read[0]).all()
    np.testing.assert_array_equal(found[:, ~read[0]], 0)
    assert (found[:, read[0]] > 0).all()


def test_the_bias_is_no_input_weight():
    trainer, params, _ = trained(RUN)
    weights = trainer.apply(params, method=input_weights)
    np.testing.assert_allclose(weights, params["encoder"]["cell"]["wx"], atol=1e-6)


# --- questions that line up, and their steps ----------------------------------------------------


def test_questions_have_full_length_and_answers_of_the_commonest_shape():
    pairs = [("10+10", "20"), ("1+10", "11"), ("50+50", "100"), ("20+20", "40"), ("60+60", "120")]
    assert alike(pairs, 5) == [("50+50", "100"), ("60+60", "120")]  # of equals, the longer
    assert alike(pairs[:4], 5) == [("10+10", "20"), ("20+20", "40")]
    assert alike(pairs, 5, most=1) == [("50+50", "100")]
    assert alike(pairs[1:2], 5) == []
    assert (
        alike([("10-30", "-20"), ("99-1", "98"), ("500-1", "499")], 5)
        == [("10-30", "-20"), ("500-1", "499")][:1]
    )


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        (Text(), "htu+htu⏎"),
        (Text(source_order="reversed"), "uth+uth⏎"),
        (Text(source_order="digits_reversed"), "uth+uth⏎"),
        (Text(source_order="operands_swapped"), "htu+htu⏎"),
        (Text(source_order="doubled"), "htu+htuhtu+htu⏎"),
        (Text(lag=2), "htu+htu  ⏎"),
        (Text(justify="right", source_eos=False), "htu+htu"),
    ],
)
def test_source_steps_are_named_by_place(text, steps):
    run = Run(Addition(digits=3), text)
    assert "".join(source_steps(formatter(run), "123+456")) == steps


def test_the_steps_of_operands_of_different_lengths_tell_them_apart():
    task = Addition(digits=3, operands="short_first", train=10, dev=10, test=10)
    forward = formatter(Run(task))
    swapped = formatter(Run(task, Text(source_order="operands_swapped")))
    reverse = formatter(Run(task, Text(source_order="reversed")))
    assert "".join(source_steps(forward, "12+345")) == "tu+htu⏎"
    assert "".join(source_steps(swapped, "12+345")) == "htu+tu⏎"
    assert "".join(source_steps(reverse, "12+345")) == "uth+ut⏎"


def test_long_numbers_have_all_their_steps_named():
    task = Addition(digits=12, terms=3, train=10, dev=10, test=10)
    question = "+".join(["9" * 12] * 3)
    steps = source_steps(formatter(Run(task, Text(source_order="reversed"))), question)
    number = ["u", "t", "h", "k", *(f"10^{k}" for k in range(4, 12))]
    assert steps == [*number, "+", *number, "+", *number, "⏎"]


@pytest.mark.parametrize(
    ("text", "gold", "steps"),
    [
        (Text(), "579", "htu⏎"),
        (Text(target_order="reversed"), "579", "uth⏎"),
        (Text(justify="right"), "579", " htu⏎"),
        (Text(justify="right", start="first_target"), "579", "htu⏎"),
        (Text(justify="left", target_eos=False), "1579", "khtu"),
        (Text(), "-579", "-htu⏎"),
    ],
)
def test_target_steps_are_those_that_are_predicted(text, gold, steps):
    operator = "-" if gold[0] == "-" else "+"
    run = Run(Addition(digits=3, operator=operator), text)
    assert "".join(target_steps(formatter(run), gold)) == steps


# --- through training -------------------------------------------------------------------------


@pytest.mark.parametrize("last", [1, 2, 3, 5, 25, 200, 5_000])
def test_snapshots_go_from_before_the_first_epoch_to_the_last(last):
    epochs = snapshots(last)
    assert epochs[0] == 0
    assert epochs[-1] == last
    assert epochs == sorted(set(epochs))
    assert min(last + 1, 5) <= len(epochs) <= 6


def test_a_look_is_a_run_seen_from_inside():
    reversed_run = replace(RUN, text=Text(source_order="reversed"))
    group = Group({"forward": RUN, "reversed": reversed_run}, seeds=1, first_seed=4)
    assert can_look(group, "forward")
    epochs = []
    looks = look(group, [0, 2], epochs.append)
    assert epochs == [1, 2]
    assert list(looks) == ["forward", "reversed"]
    found = looks["reversed"]
    assert "".join(found.inputs) == "ut+ut⏎"
    assert list(found.norms) == [0, 2]
    assert found.norms[2].shape == (len(found.outputs), len(found.inputs))
    assert 0 < found.questions <= 60
    assert found.seed == 4
    assert not np.allclose(found.norms[0], found.norms[2])
    alone = look(replace(group, arms={"reversed": reversed_run}), [0, 2], lambda _: None)
    np.testing.assert_allclose(alone["reversed"].norms[2], found.norms[2], rtol=1e-5)
    assert deviation(found, alone["reversed"].losses) < 1e-6


def test_only_what_adds_or_subtracts_full_length_numbers_can_be_looked_into():
    task = Addition(digits=9, operands="any_length", train=10, dev=2, test=2)
    group = Group({"copy": replace(RUN, task=Toy()), "few": replace(RUN, task=task)}, 1, 0)
    assert not can_look(group, "copy")
    assert not can_look(group, "few")


def a_look(losses: dict[int, float]) -> Look:
    norms = {0: np.arange(12.0).reshape(2, 6), 5: np.ones((2, 6))}
    return Look(norms, ["u", "⏎"], [*"tu+tu⏎"], 7, 0, losses)


def test_deviation_is_relative_and_over_the_epochs_recorded():
    assert deviation(a_look({1: 2.0, 2: 1.0, 3: 9.0}), {1: 2.0, 2: 1.1}) == pytest.approx(0.1 / 1.1)
    with pytest.raises(ValueError, match="No epoch"):
        deviation(a_look({1: 2.0}), {5: 1.0})


def test_lags_count_the_steps_from_reading_to_predicting():
    table = lag_table({"forward": a_look({})})
    assert table.headers == ("arm", "place", "lags", "epoch 0", "epoch 5")
    assert table.rows == (("forward", "u", "2, 5", "2.5", "1"),)  # the u read last: ⏎, then ours
