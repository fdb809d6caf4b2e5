"""A run as pure functions: updates, epochs, evaluation, and that it learns."""

from dataclasses import replace
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from s2sjax.ablation import Ablation
from s2sjax.config import Addition, Model, Run, Text, Toy, Training
from s2sjax.data import Batch, Examples, epoch_order, in_batches, take
from s2sjax.fit import evaluate, make_programs

TEXTS = (Text(), Text(justify="right", start="first_target"))
TOY = Run(
    Toy(symbols=4, max_length=4, train=50, dev=20, test=20),
    model=Model(hidden_size=8),
    train=Training(epochs=2, batch_size=16),
)


@cache
def one(run: Run):
    """A single run without replicas: its trainer, state and examples."""
    ablation = Ablation({"only": run}, 1, 0)
    pairs = ablation.pairs[0]
    examples = {
        split: jax.tree.map(jnp.asarray, ablation.formatter("only").examples(pairs[split]))
        for split in pairs
    }
    return ablation.trainer, jax.jit(ablation.trainer.init)(jax.random.key(0)), examples


@pytest.mark.parametrize("text", TEXTS)
def test_an_epoch_is_the_plain_loop_of_its_updates(text):
    trainer, state, examples = one(replace(TOY, text=text))
    scanned, losses = jax.jit(trainer.train_epoch)(state, examples["train"])

    step = jax.jit(trainer.train_step)
    order = epoch_order(state.key, state.epoch, 50)
    looped, each = state, []
    for indices, weight in zip(*in_batches(order, 16), strict=True):
        looped, loss = step(looped, take(examples["train"], indices, weight))
        each.append(loss)
    np.testing.assert_array_equal(losses, jnp.stack(each))
    jax.tree.map(np.testing.assert_array_equal, scanned.params, looped.params)
    assert int(scanned.epoch) == 1
    assert len(losses) == 4  # 50 examples: the last batch has two


def test_filling_rows_and_padding_do_not_enter_the_loss():
    trainer, state, examples = one(TOY)
    three = Examples(*(x[:3] for x in examples["train"]))
    filled = take(three, jnp.array([0, 1, 2, 0]), jnp.array([1.0, 1.0, 1.0, 0.0]))
    wider = Batch(Examples(*(jnp.pad(x, ((0, 0), (0, 2))) for x in three)), jnp.ones(3))
    loss = jax.jit(trainer.loss)
    alone = float(loss(state.params, take(three, jnp.arange(3), jnp.ones(3))))
    assert float(loss(state.params, filled)) == pytest.approx(alone, rel=1e-6)
    assert float(loss(state.params, wider)) == pytest.approx(alone, rel=1e-6)


def test_the_update_is_adam_with_the_epsilon_asked_for():
    trainer, state, examples = one(TOY)
    batch = take(examples["train"], jnp.arange(16), jnp.ones(16))
    stepped, _ = jax.jit(trainer.train_step)(state, batch)
    tx = optax.adam(1e-3, eps=1e-7)
    gradient = jax.jit(jax.grad(trainer.loss))(state.params, batch)
    updates, _ = tx.update(gradient, tx.init(state.params), state.params)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-9),
        stepped.params,
        optax.apply_updates(state.params, updates),
    )


def test_scores_do_not_depend_on_the_evaluation_batch():
    trainer, state, examples = one(TOY)
    counts, answers = jax.jit(trainer.evaluate)(state.params, examples["dev"])
    for batch_size in (7, 20):
        other = replace(trainer, batch_size=batch_size)
        again, same = jax.jit(other.evaluate)(state.params, examples["dev"])
        np.testing.assert_array_equal(answers, same)
        for metric, count in counts.items():
            np.testing.assert_allclose(count, again[metric], rtol=1e-6, err_msg=metric)


def learn(run: Run, seed: int, metric: str = "free_running/exact_match") -> float:
    """Test score after training."""
    ablation = Ablation({"only": run}, 1, seed)
    programs = make_programs(ablation.trainer, ablation.mesh)
    state, train = ablation.init(programs), ablation.examples("train")
    for _ in range(run.train.epochs):
        state, _ = programs.train_epoch(state, train)
    count = evaluate(programs, state, ablation.examples("test")).counts[metric]
    return float(count.right[0] / count.of[0])


FRESH = int(np.random.SeedSequence().generate_state(1)[0]) % 2**30  # another seed at every run


def test_it_learns_to_copy_from_a_seed_never_seen():
    run = Run(
        Toy(symbols=6, max_length=4, train=1_300, dev=20, test=100),
        model=Model(hidden_size=64),
        train=Training(epochs=60, batch_size=32),
    )
    run = replace(run, optim=replace(run.optim, learning_rate=5e-3))
    assert learn(run, FRESH) >= 0.9, f"seed {FRESH}"


def test_it_learns_two_digit_addition_from_a_seed_never_seen():
    run = Run(
        Addition(digits=2, train=4_000, dev=50, test=500),
        Text(source_order="reversed"),
        Model(hidden_size=96),
        train=Training(epochs=50, batch_size=32),
    )
    run = replace(run, optim=replace(run.optim, learning_rate=5e-3))
    assert learn(run, FRESH) >= 0.9, f"seed {FRESH}"
