"""The host loop: it only looks and saves, goes on bit for bit, and stops well, early or not."""

import os
import signal
from collections import Counter
from dataclasses import replace
from itertools import count

import numpy as np
import pytest
from tiny import SUMS, begin, row, same, stack_of

from s2sjax.config import Optimiser, Training
from s2sjax.errors import Interrupted, UserError, stopped_by
from s2sjax.study.group import Group
from s2sjax.train import checkpoint, evaluate, loop
from s2sjax.train.loop import fit, resume, stopped_early
from s2sjax.train.replicas import spread
from s2sjax.train.step import Trainer
from s2sjax.train.stopping import Stop, stop_requests

pytestmark = pytest.mark.usefixtures("compiled_quickly")

KINDS = ["sums", "sentences"]
UPDATES = {"sums": 4, "sentences": 10}

# Few questions and a large step: the dev loss soon rises, and sooner in the second arm.
PATIENT = Training(epochs=40, batch_size=4, eval_every=1, checkpoint_every=1, patience=3)
FEW = replace(SUMS, task=replace(SUMS.task, train=12), train=PATIENT)
RATES = {"slow": 0.02, "fast": 0.2}
STOPPING = Group({n: replace(FEW, optim=Optimiser(rate)) for n, rate in RATES.items()}, 1, 0)


def start(kind):
    if kind == "stopping":
        return STOPPING.stack(), STOPPING.begin(STOPPING.stack())
    return stack_of(kind), begin(kind)


def nothing(*_):
    pass


def train(kind, folder, stop=None, on_epoch=nothing, on_updates=nothing, **change):
    """Go on in a folder; some settings of the loop may be changed."""
    runs, loop_state = start(kind)
    runs = runs._replace(training=replace(runs.training, **change))
    loop_state, _ = resume(runs, loop_state, folder)
    return fit(
        runs, loop_state, checkpoints=folder, on_epoch=on_epoch, on_updates=on_updates, stop=stop
    )


def same_epochs(found, wanted):
    assert [e.epoch for e in found] == [e.epoch for e in wanted]
    for a, b in zip(found, wanted, strict=True):
        same(a, b)


@pytest.fixture(scope="module", autouse=True)
def batch_by_batch():
    """Batches are scored one by one, so that there are many looks while scoring."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluate, "POSITIONS", 1)
        yield


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Runs that nothing interrupts: end, epochs, folder and traces by kind, each run once."""
    done = {}

    def get(kind):
        if kind not in done:
            epochs, folder, traces = [], tmp_path_factory.mktemp(kind), Counter()
            with pytest.MonkeyPatch.context() as patch:
                for name in ("init", "order", "train_step", "evaluate", "close_epoch"):
                    patch.setattr(Trainer, name, counting(getattr(Trainer, name), traces))
                patch.setattr(checkpoint, "KEPT", 1_000)
                patch.setattr(loop, "LOOK", 60.0)
                done[kind] = (train(kind, folder, on_epoch=epochs.append), epochs, folder, traces)
        return done[kind]

    return get


def counting(function, traces):
    def traced(self, *arguments, **settings):
        traces[function.__name__] += 1
        return function(self, *arguments, **settings)

    return traced


# --- what the loop does not decide ---------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_every_epoch_is_reported_and_dev_is_scored_when_asked_and_at_the_end(whole, kind):
    _, epochs, folder, _ = whole(kind)
    assert [e.epoch for e in epochs] == [1, 2, 3]
    assert [e.epoch for e in epochs if e.evaluation] == [2, 3]
    assert epochs[0].losses.shape == (2, UPDATES[kind])
    assert epochs[2].losses.mean() < epochs[0].losses.mean()
    assert checkpoint.latest(folder) == 3 * UPDATES[kind] + 3


@pytest.mark.parametrize("kind", KINDS)
def test_each_function_is_traced_once_a_shape(whole, kind):
    buckets = len(start(kind)[0].buckets)
    once = {"init": 1, "order": 1, "close_epoch": 1}
    assert whole(kind)[-1] == {**once, "train_step": buckets, "evaluate": buckets}


class Impatient(Stop):
    """A request at some look of the loop: between chunks, while scoring, after saving."""

    def __init__(self, looks):
        super().__init__()
        self.looks = looks

    def __bool__(self):
        self.looks -= 1
        if self.looks < 0:
            self.signal = signal.SIGTERM
        return self.signal is not None


@pytest.mark.parametrize(("kind", "step"), [("sums", 1), ("sentences", 5), ("stopping", 97)])
def test_a_run_interrupted_anywhere_ends_as_if_it_never_had_been(
    whole, tmp_path, monkeypatch, kind, step
):
    state, epochs, *_ = whole(kind)
    monkeypatch.setattr(loop, "LOOK", 0.0)  # a chunk is one update
    saved = set()
    for looks in count(0, step):
        found, folder = [], tmp_path / str(looks)
        try:
            train(kind, folder, Impatient(looks), found.append)
            break
        except Interrupted:
            saved.add(checkpoint.latest(folder))
            same(train(kind, folder, on_epoch=found.append), state)
        same_epochs(found, epochs)
    if step == 1:
        assert saved == {*range(3 * UPDATES[kind] + 4)}  # every update, and every epoch closed


@pytest.mark.parametrize("kind", KINDS)
def test_how_often_one_looks_scores_and_saves_changes_nothing(whole, tmp_path, monkeypatch, kind):
    monkeypatch.setattr(loop, "LOOK", 0.01)
    same(train(kind, tmp_path, eval_every=1, checkpoint_every=1), whole(kind)[0])


@pytest.mark.parametrize("kind", [*KINDS, "streamed"])
def test_rows_that_stay_on_the_host_are_learnt_as_those_on_the_device(
    whole, tmp_path, monkeypatch, kind
):
    monkeypatch.setattr(loop, "ON_DEVICE", 0)
    monkeypatch.setattr(loop, "HOST_BATCHES", 3)
    assert loop._rows_on_devices(start(kind)[0]) is None
    memory = [isinstance(side, np.memmap) for side in start(kind)[0].train[0].examples]
    assert memory == [kind == "streamed"] * 2
    same(train(kind, tmp_path), whole("sums" if kind == "sums" else "sentences")[0])


def test_more_epochs_in_a_finished_folder_are_a_longer_run_from_the_start(whole, tmp_path):
    train("sums", tmp_path, epochs=1)
    train("sums", tmp_path, epochs=2)
    same(train("sums", tmp_path), whole("sums")[0])
    assert train("sums", tmp_path).update.tolist() == [12, 12]  # nothing is left to do


# --- requests and divergence ---------------------------------------------------------------


def test_nothing_is_saved_again_where_nothing_was_trained_since(tmp_path, monkeypatch):
    saved, real = [], checkpoint.save

    def save(folder, number, state):
        saved.append(number)
        real(folder, number, state)

    monkeypatch.setattr(checkpoint, "save", save)
    train("sums", tmp_path, epochs=2)
    for _ in range(2):
        train("sums", tmp_path, epochs=2)  # finished
        with pytest.raises(Interrupted, match=r"stopped after update 8 of 12 .* and saved"):
            train("sums", tmp_path, Impatient(0))
    assert saved == [9, 10]  # 8 updates, 1 or 2 epochs closed: before and after scoring


def test_an_error_before_saving_ends_the_training_with_nothing_written(tmp_path):
    def gone():
        raise UserError("the folder is gone")

    for stop in (None, Impatient(2)):
        runs, loop_state = start("sums")
        with pytest.raises(UserError, match="gone"):
            fit(runs, loop_state, checkpoints=tmp_path, on_epoch=nothing, on_save=gone, stop=stop)
        assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_saves_and_ends_the_training(tmp_path, monkeypatch, number):
    monkeypatch.setattr(loop, "LOOK", 0.0)
    send = lambda epochs, compiled: epochs == 1.5 and os.kill(os.getpid(), number)
    match = r"^stopped after update 6 of 12 \(epoch 2\) and saved; the same command goes on"
    with stop_requests() as stop, pytest.raises(Interrupted, match=match) as caught:
        train("sums", tmp_path, stop, on_updates=send)
    assert caught.value.code == stopped_by(number)
    assert checkpoint.latest(tmp_path) == 7


def test_a_request_in_the_last_epoch_is_kept_too(whole, tmp_path):
    def send(epoch):
        if epoch.epoch == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    with stop_requests() as stop, pytest.raises(Interrupted, match=r"update 12 of 12 \(epoch 3\)"):
        train("sums", tmp_path, stop, send)
    same(train("sums", tmp_path), whole("sums")[0])


def diverging(*rates):
    """The runs of sums, the replicas with these learning rates; None: their own."""
    runs, loop_state = start("sums")
    own = [Optimiser().learning_rate if rate is None else rate for rate in rates]
    rates = spread(np.array(own, np.float32), runs.programs.mesh)
    return runs, loop_state._replace(state=loop_state.state.replace(learning_rate=rates))


@pytest.mark.parametrize(("rate", "update"), [(np.nan, 1), (3e38, 2)])
def test_a_replica_that_diverges_leaves_the_others_as_they_are(whole, tmp_path, rate, update):
    wanted, epochs, *_ = whole("sums")
    for one in range(2):
        found, folder = [], tmp_path / str(one)
        runs, loop_state = diverging(*(rate if i == one else None for i in range(2)))
        state = fit(runs, loop_state, checkpoints=folder, on_epoch=found.append)
        assert [epoch.diverged for epoch in found] == [{one: update}] * 3
        same(row(state.params, 1 - one), row(wanted.params, 1 - one))
        for epoch, other in zip(found, epochs, strict=True):
            same(epoch.losses[1 - one], other.losses[1 - one])


def test_divergence_is_refused_where_no_replica_is_left(tmp_path):
    runs, loop_state = diverging(3e38, np.nan)
    match = "^a loss or parameter of reversed seed 0 is not finite from update 1 on; all others"
    with pytest.raises(loop.DivergedError, match=match) as caught:
        fit(runs, loop_state, checkpoints=tmp_path, on_epoch=nothing)
    assert "\n" not in str(caught.value)
    assert checkpoint.latest(tmp_path) is None


def test_a_dev_loss_that_is_no_number_is_divergence(tmp_path, monkeypatch):
    true, epochs = loop.Stack.score, []

    def broken(self, *arguments):
        found = true(self, *arguments)
        found.counts["loss"].right[1] = np.nan
        return found

    monkeypatch.setattr(loop.Stack, "score", broken)
    train("sums", tmp_path, on_epoch=epochs.append)
    assert [epoch.diverged for epoch in epochs] == [{}, {1: 8}, {1: 8}]


# --- early stopping ------------------------------------------------------------------------


def ends(epochs):
    """(epoch with the best dev loss, epoch it stopped after) of every replica, by hand."""
    found = []
    for i in range(2):
        best, lowest = 0, np.inf
        for e in epochs:
            right, of = row(e.evaluation.counts["loss"], i)
            if np.float32(right / of) < lowest:
                best, lowest = e.epoch, np.float32(right / of)
            if e.epoch - best == PATIENT.patience:
                break
        found.append((best, e.epoch, lowest))
    return found


def test_training_ends_when_every_replica_has_stopped_and_keeps_the_best_of_each(whole):
    state, epochs, folder, _ = whole("stopping")
    (_, slow, _), (_, fast, _) = found = ends(epochs)
    assert fast + 3 < slow == epochs[-1].epoch < PATIENT.epochs
    assert stopped_early(state, PATIENT, 2).all()
    assert state.best.stale.tolist() == [3, 3]
    assert state.epoch.tolist() == [slow] * 2
    for i, (best, _, lowest) in enumerate(found):
        number = 3 * best + best  # three updates an epoch
        then = resume_at(folder, number)
        same(row(state.scored, i), row(then.params, i))
        assert float(state.best.loss[i]) == lowest


def resume_at(folder, number):
    return checkpoint.restore(folder, number, start("stopping")[1]).state


def test_a_replica_that_diverges_after_it_stopped_keeps_its_best(whole, tmp_path, monkeypatch):
    (_, slow, _), (_, fast, _) = ends(whole("stopping")[1])
    true, epochs = loop.Stack.score, []

    def broken(self, *arguments):
        found = true(self, *arguments)
        if len(epochs) > fast:
            found.counts["loss"].right[1] = np.nan
        return found

    monkeypatch.setattr(loop.Stack, "score", broken)
    state = train("stopping", tmp_path, on_epoch=epochs.append)
    assert {*epochs[-1].diverged} == {1}
    assert epochs[-1].epoch == slow
    same(state.scored, whole("stopping")[0].scored)


def test_a_budget_that_ends_before_patience_does_keeps_the_best_so_far(whole, tmp_path):
    _, epochs, folder, _ = whole("stopping")
    (best, *_), _ = ends(epochs)
    state = train("stopping", tmp_path, epochs=best + 1)
    assert not stopped_early(state, PATIENT, 2).all()
    same(row(state.scored, 0), row(resume_at(folder, 4 * best).params, 0))
    assert checkpoint.latest(tmp_path) == 4 * (best + 1)
