"""The host loop: it only looks and saves, goes on bit for bit, and stops well."""

import os
import signal
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from s2sjax import checkpoint
from s2sjax.ablation import Ablation
from s2sjax.config import Model, Run, Text, Toy, Training
from s2sjax.errors import Interrupted, UserError
from s2sjax.fit import fit, make_programs

TRAINING = Training(epochs=5, batch_size=16, eval_every=2, checkpoint_every=2)
RUN = Run(
    Toy(symbols=4, max_length=4, train=50, dev=20, test=20),
    model=Model(hidden_size=8),
    train=TRAINING,
)
ABLATION = Ablation(
    {o: replace(RUN, text=Text(source_order=o)) for o in ("forward", "reversed")}, 1, 0
)
PROGRAMS = make_programs(ABLATION.trainer, ABLATION.mesh)
SPLITS = {split: ABLATION.examples(split) for split in ("train", "dev")}


def run(folder, training=TRAINING, state=None, on_epoch=lambda told: None, programs=PROGRAMS):
    return fit(
        programs,
        ABLATION.init(PROGRAMS) if state is None else state,
        SPLITS,
        training,
        labels=ABLATION.labels,
        checkpoints=folder,
        on_epoch=on_epoch,
    )


def assert_equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a.params, b.params)
    jax.tree.map(np.testing.assert_array_equal, a.opt_state, b.opt_state)
    np.testing.assert_array_equal(a.epoch, b.epoch)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    told = []
    state = run(tmp_path_factory.mktemp("uninterrupted"), on_epoch=told.append)
    return state, told


def test_every_epoch_is_told_and_dev_is_looked_at_when_asked_and_at_the_end(uninterrupted):
    told = uninterrupted[1]
    assert [t.epoch for t in told] == [1, 2, 3, 4, 5]
    assert [t.epoch for t in told if t.evaluation] == [2, 4, 5]
    assert told[0].losses.shape == (2, 4)
    assert told[4].losses.mean() < told[0].losses.mean()


def test_how_often_one_looks_and_saves_does_not_change_what_is_learned(uninterrupted, tmp_path):
    often = replace(TRAINING, eval_every=1, checkpoint_every=1)
    assert_equal(run(tmp_path, often), uninterrupted[0])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_goes_on_bit_for_bit(uninterrupted, tmp_path, number):
    def stop_in_epoch_three(told):
        if told.epoch == 3:
            os.kill(os.getpid(), number)

    handler = signal.getsignal(number)
    with pytest.raises(Interrupted, match="stopped after epoch 3 of 5 and saved") as caught:
        run(tmp_path, on_epoch=stop_in_epoch_three)
    assert caught.value.signal == number
    assert signal.getsignal(number) is handler
    assert checkpoint.latest(tmp_path) == 3

    told = []
    state = checkpoint.restore(tmp_path, 3, ABLATION.init(PROGRAMS))
    assert_equal(run(tmp_path, state=state, on_epoch=told.append), uninterrupted[0])
    assert [t.epoch for t in told] == [4, 5]
    for a, b in zip(told, uninterrupted[1][3:], strict=True):
        np.testing.assert_array_equal(a.losses, b.losses)
        jax.tree.map(np.testing.assert_array_equal, a.evaluation, b.evaluation)


def test_a_second_request_stops_at_once(tmp_path):
    def insist(told):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, on_epoch=insist)
    assert checkpoint.latest(tmp_path) is None


def test_a_loss_that_is_no_number_stops_the_run_and_keeps_the_last_good_checkpoint(tmp_path):
    def break_in_epoch_three(state, train):
        broken = int(state.epoch[0]) == 2
        state, losses = PROGRAMS.train_epoch(state, train)
        return state, losses.at[1, 2].set(jnp.nan) if broken else losses

    programs = PROGRAMS._replace(train_epoch=break_in_epoch_three)
    match = r"loss of reversed seed 0 is nan at update 11 \(epoch 3\); epoch 2 is kept in"
    with pytest.raises(UserError, match=match):
        run(tmp_path, programs=programs)
    assert checkpoint.latest(tmp_path) == 2


def test_parameters_that_are_no_numbers_are_never_saved(tmp_path):
    def break_weights(state, train):
        state, losses = PROGRAMS.train_epoch(state, train)
        if int(state.epoch[0]) == 2:
            state = state.replace(params=jax.tree.map(lambda x: x.at[0].set(jnp.inf), state.params))
        return state, losses

    programs = PROGRAMS._replace(train_epoch=break_weights)
    match = "parameter of forward seed 0 is no finite number after epoch 2; nothing was saved yet"
    with pytest.raises(UserError, match=match):
        run(tmp_path, programs=programs)
    assert checkpoint.latest(tmp_path) is None
