"""The host loop: it only looks and saves, goes on bit for bit, and stops well, early or not."""

import os
import signal
from dataclasses import replace
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from s2sjax import checkpoint
from s2sjax.config import Model, Optimiser, Run, Text, Training
from s2sjax.errors import Interrupted, UserError
from s2sjax.fit import Programs, fit, make_programs, stopped
from s2sjax.group import Group
from s2sjax.taskconfig import Toy

TRAINING = Training(epochs=5, batch_size=16, eval_every=2, checkpoint_every=2)
RUN = Run(
    Toy(symbols=4, max_length=4, train=50, dev=20, test=20),
    model=Model(hidden_size=8),
    train=TRAINING,
)
GROUP = Group({o: replace(RUN, text=Text(source_order=o)) for o in ("forward", "reversed")}, 1, 0)

# Few questions and a large step: the dev loss soon rises, and sooner in the second arm.
PATIENT = Training(epochs=60, batch_size=4, eval_every=1, checkpoint_every=100, patience=3)
FEW = replace(RUN, task=replace(RUN.task, train=12), train=PATIENT)
STOPPING = Group(
    {name: replace(FEW, optim=Optimiser(rate)) for name, rate in (("slow", 0.02), ("fast", 0.2))},
    seeds=1,
    first_seed=0,
)
FAST = Group({"fast": STOPPING.arms["fast"]}, 1, 0)


@cache
def programs_of(stops: bool, replicas: int = 2) -> Programs:
    group = {(False, 2): GROUP, (True, 2): STOPPING, (True, 1): FAST}[stops, replicas]
    return make_programs(group.trainer, group.mesh)


def run(folder, group=GROUP, training=None, state=None, on_epoch=lambda told: None, **changed):
    """Fit a group; some of its programs may be changed."""
    programs = programs_of(group.run.train.patience is not None, len(group.replicas))
    return fit(
        programs._replace(**changed),
        group.init(programs) if state is None else state,
        {split: group.examples(split) for split in ("train", "dev")},
        training or group.run.train,
        labels=group.labels,
        checkpoints=folder,
        on_epoch=on_epoch,
    )


def same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def assert_equal(a, b):
    for part in ("params", "opt_state", "learning_rate", "update", "epoch", "best"):
        same(getattr(a, part), getattr(b, part))


def assert_told_the_same(told, wanted):
    assert [t.epoch for t in told] == [t.epoch for t in wanted]
    for a, b in zip(told, wanted, strict=True):
        np.testing.assert_array_equal(a.losses, b.losses)
        same(a.evaluation, b.evaluation)


def stop_in(epoch, number=signal.SIGTERM):
    def stop(told):
        if told.epoch == epoch:
            os.kill(os.getpid(), number)

    return stop


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
    assert_equal(run(tmp_path, training=often), uninterrupted[0])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_goes_on_bit_for_bit(uninterrupted, tmp_path, number):
    handler = signal.getsignal(number)
    with pytest.raises(Interrupted, match="stopped after epoch 3 of 5 and saved") as caught:
        run(tmp_path, on_epoch=stop_in(3, number))
    assert caught.value.signal == number
    assert signal.getsignal(number) is handler
    assert checkpoint.latest(tmp_path) == 3

    told = []
    state = checkpoint.restore(tmp_path, 3, GROUP.init(programs_of(False)))
    assert_equal(run(tmp_path, state=state, on_epoch=told.append), uninterrupted[0])
    assert_told_the_same(told, uninterrupted[1][3:])


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
        state, losses = programs_of(False).train_epoch(state, train)
        return state, losses.at[1, 2].set(jnp.nan) if broken else losses

    match = r"loss of reversed seed 0 is nan at update 11 \(epoch 3\); epoch 2 is kept in"
    with pytest.raises(UserError, match=match):
        run(tmp_path, train_epoch=break_in_epoch_three)
    assert checkpoint.latest(tmp_path) == 2


def test_parameters_that_are_no_numbers_are_never_saved(tmp_path):
    def break_weights(state, train):
        state, losses = programs_of(False).train_epoch(state, train)
        if int(state.epoch[0]) == 2:
            state = state.replace(params=jax.tree.map(lambda x: x.at[0].set(jnp.inf), state.params))
        return state, losses

    match = "parameter of forward seed 0 is no finite number after epoch 2; nothing was saved yet"
    with pytest.raises(UserError, match=match):
        run(tmp_path, train_epoch=break_weights)
    assert checkpoint.latest(tmp_path) is None


# --- early stopping ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def stopped_early(tmp_path_factory):
    """The end, what was told, the parameters after every epoch, and the folder."""
    told, params, folder = [], [], tmp_path_factory.mktemp("stopped early")

    def train_epoch(state, train):
        state, losses = programs_of(True).train_epoch(state, train)
        params.append(jax.device_get(state.params))
        return state, losses

    state = run(folder, STOPPING, on_epoch=told.append, train_epoch=train_epoch)
    return state, told, params, folder


def ends(told):
    """(epoch with the best dev loss, epoch it stopped after) of every replica, by hand."""
    losses = np.array([t.evaluation.counts["loss"] for t in told])
    found = []
    for right, of in losses.transpose(2, 1, 0):
        best, lowest = 0, np.inf
        for epoch, loss in enumerate(right / of, start=1):
            if loss < lowest:
                best, lowest = epoch, loss
            if epoch - best == PATIENT.patience:
                break
        found.append((best, epoch))
    return found


def test_training_ends_when_every_replica_has_stopped_and_is_saved_then(stopped_early):
    state, told, _, folder = stopped_early
    (_, slow_ends), (_, fast_ends) = ends(told)
    assert fast_ends + 3 < slow_ends == told[-1].epoch < PATIENT.epochs
    assert checkpoint.latest(folder) == slow_ends
    assert stopped(state, PATIENT)
    assert state.best.stale.tolist() == [3, 3]
    assert state.epoch.tolist() == [slow_ends] * 2


def test_the_parameters_kept_are_those_of_the_best_dev_loss(stopped_early):
    state, told, params, _ = stopped_early
    for replica, (best, _) in enumerate(ends(told)):
        row = lambda tree, i=replica: jax.tree.map(lambda x: x[i], tree)
        same(row(state.scored), row(params[best - 1]))
        dev = told[best - 1].evaluation.counts["loss"]
        assert float(state.best.loss[replica]) == float(dev.right[replica] / dev.of[replica])


def test_a_replica_that_has_stopped_does_not_depend_on_those_that_have_not(stopped_early, tmp_path):
    told = []
    alone = run(tmp_path, FAST, on_epoch=told.append)
    assert len(told) == ends(stopped_early[1])[1][1]
    row = lambda tree: jax.tree.map(lambda x: x[1:], tree)
    same(row(stopped_early[0].best), alone.best)


@pytest.mark.parametrize("when", ["before any stops", "between", "with the last"])
def test_a_run_that_stops_early_goes_on_bit_for_bit(stopped_early, tmp_path, when):
    state, told, _, _ = stopped_early
    (_, last), (_, first) = ends(told)
    epoch = {"before any stops": first - 1, "between": first + 1, "with the last": last}[when]
    with pytest.raises(Interrupted, match=f"stopped after epoch {epoch} of 60"):
        run(tmp_path, STOPPING, on_epoch=stop_in(epoch))
    again = []
    restored = checkpoint.restore(tmp_path, epoch, STOPPING.init(programs_of(True)))
    assert_equal(run(tmp_path, STOPPING, state=restored, on_epoch=again.append), state)
    assert_told_the_same(again, told[epoch:])


def test_a_budget_that_ends_before_patience_does_keeps_the_best_so_far(stopped_early, tmp_path):
    told = []
    _, (best, _) = ends(stopped_early[1])
    short = replace(PATIENT, epochs=best + 1, eval_every=2)
    state = run(tmp_path, STOPPING, short, on_epoch=told.append)
    assert not stopped(state, short)
    looked = [t.epoch for t in told if t.evaluation]
    assert looked == [*range(2, best + 1, 2), *([best + 1] if (best + 1) % 2 else [])] or (
        looked[-1] == best + 1
    )
    assert checkpoint.latest(tmp_path) == best + 1
