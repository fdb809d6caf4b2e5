"""The host loop: chunks of updates, evaluation, checkpoints, and stopping well.

All numbers come from pure functions of the state. This loop only decides how many updates to make
before it looks again, and when to evaluate and to save; none of that changes what is learned.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float

from s2sjax.config import Training
from s2sjax.data.batches import Bucket, Schedule
from s2sjax.data.dataset import Split
from s2sjax.data.rows import Examples
from s2sjax.errors import Interrupted, UserError
from s2sjax.train import checkpoint
from s2sjax.train.evaluate import Evaluation, evaluate
from s2sjax.train.replicas import fetch, lift, spread, stack
from s2sjax.train.step import Trainer, TrainState
from s2sjax.train.stopping import Stop

LOOK = 1.0
"""Seconds of updates from one look of the host to the next, about."""

ON_DEVICE = 2**30
"""Bytes of training rows, of all replicas, that are laid on the devices; more stay on the host."""

HOST_BATCHES = 16
"""Batches that are gathered on the host at once, where the rows stay there."""


@dataclass(frozen=True)
class Programs:
    """The compiled programs of a stack of runs; equal ones are compiled once.

    Attributes:
        trainer: the single run.
        mesh: the devices.
    """

    trainer: Trainer
    mesh: Mesh

    @property
    def init(self) -> Any:
        """(keys, learning rates, chances to drop) -> state."""
        return _lifted(self, "init")

    @property
    def close_epoch(self) -> Any:
        """(state, dev losses) -> state."""
        return _lifted(self, "close_epoch", donate=(0,))

    def order(self, rows: int) -> Any:
        """State -> order of all rows, ``[replicas, rows]``."""
        return _lifted(self, "order", settings=(("n", rows),))

    def train_chunk(self, bucket: Bucket) -> Any:
        """(state, losses, examples, indices, weights, first, count) -> state, losses, finite."""
        widths = (("widths", bucket[:2]),)
        return _lifted(self, "train_chunk", donate=(0, 1), shared=2, settings=widths)

    def evaluate(self, max_decode_len: int) -> Any:
        """(params, batches, weights) -> counts, answers, right."""
        return _lifted(self, "evaluate", settings=(("max_decode_len", max_decode_len),))


@lru_cache(maxsize=256)
def _lifted(
    programs: Programs,
    name: str,
    donate: tuple[int, ...] = (),
    shared: int = 0,
    settings: tuple[tuple[str, Any], ...] = (),
) -> Any:
    function = partial(getattr(programs.trainer, name), **dict(settings))
    return lift(function, programs.mesh, donate, shared)


class Stack(NamedTuple):
    """Replicas of one program, and their rows.

    Attributes:
        programs: compiled once for all of them.
        training: epochs, and how often to look.
        labels: names of the replicas, for messages.
        schedule: which rows form which batch.
        train: training rows of each replica.
        dev: rows of each replica that are scored while training.
        buckets: widths of rows that are scored.
    """

    programs: Programs
    training: Training
    labels: Sequence[str]
    schedule: Schedule
    train: Sequence[Split]
    dev: Sequence[Split]
    buckets: Sequence[Bucket]

    def score(
        self, params: Any, splits: Sequence[Split], stop: Callable[[], bool] = lambda: False
    ) -> Evaluation | None:
        """Score every replica's parameters on rows of its own; None if asked to stop."""
        size = self.training.batch_size
        return evaluate(self.programs, params, splits, self.buckets, size, stop)


class LoopState(NamedTuple):
    """Where a training stands: what a checkpoint holds.

    Attributes:
        state: of every replica.
        losses: of every update of the epoch so far, ``[replicas, updates]``.
    """

    state: TrainState
    losses: Any

    @property
    def number(self) -> int:
        """Grows with every update and every closed epoch, so that no two moments share it."""
        return int(self.state.update[0]) + int(self.state.epoch[0])


class Epoch(NamedTuple):
    """A finished epoch.

    Attributes:
        epoch: its number, from 1.
        losses: of every update, ``[replicas, updates]``.
        evaluation: on dev, in epochs that have one.
    """

    epoch: int
    losses: Float[np.ndarray, "replicas updates"]
    evaluation: Evaluation | None


def begin(stack_: Stack, state: TrainState) -> LoopState:
    """Before the first update."""
    blank = np.zeros(stack_.schedule.updates, np.float32)
    return LoopState(state, stack([blank] * len(stack_.labels), stack_.programs.mesh))


def resume(runs: Stack, loop_state: LoopState, checkpoints: Path) -> tuple[LoopState, bool]:
    """The last checkpoint in place of `standing`, if there is one, and whether there is."""
    last = checkpoint.latest(checkpoints)
    if last is None:
        return loop_state, False
    n = len(runs.labels)
    like = jax.tree.map(lambda x: jax.ShapeDtypeStruct((n, *x.shape[1:]), x.dtype), loop_state)
    return spread(checkpoint.restore(checkpoints, last, like), runs.programs.mesh), True


def fit(
    runs: Stack,
    loop_state: LoopState,
    *,
    checkpoints: Path,
    on_epoch: Callable[[Epoch], None],
    on_updates: Callable[[float], None] = lambda epochs: None,
    stop: Stop | None = None,
) -> TrainState:
    """Train to the last epoch, or until every replica has stopped early.

    Args:
        runs: the stack.
        loop_state: where to go on from; it is used up.
        checkpoints: folder to save in.
        on_epoch: called after every epoch, before its checkpoint is saved.
        on_updates: called between chunks with the epochs done, a fraction.
        stop: asked between chunks.

    Raises:
        UserError: a loss or a parameter is not finite; nothing of that epoch is saved.
        Interrupted: a signal asked to stop; the state is saved.
    """
    stop = Stop() if stop is None else stop  # one that nobody asked is false
    training, schedule = runs.training, runs.schedule
    state, losses = loop_state
    replicas, pace, on_device = len(runs.labels), _Pace(), _rows_on_devices(runs)

    def save() -> None:
        stop.saving()
        now = LoopState(state, losses)
        if checkpoint.latest(checkpoints) != now.number:  # else nothing was done since
            checkpoint.save(checkpoints, now.number, fetch(now, replicas))

    def stop_if_asked(saved: bool = False) -> None:
        if not stop:
            return
        if not saved:
            save()
        update, last = int(state.update[0]), training.epochs * schedule.updates
        epoch = min(int(state.epoch[0]) + 1, training.epochs)
        raise Interrupted(
            f"stopped after update {update:,} of {last:,} (epoch {epoch}) and saved; "
            "the same command goes on from there",
            stop.signal or 0,
        )

    with stop.training():
        while int(state.epoch[0]) < training.epochs and not stopped(state, training):
            epoch, updates = int(state.epoch[0]), int(state.update[0])
            done = updates - epoch * schedule.updates
            for step, arguments in _chunks(runs, state, epoch, done, pace, on_device):
                stop_if_asked()
                state, losses, finite = step(state, losses, *arguments)
                done += arguments[-1]
                _refuse_divergence(
                    fetch(losses, replicas)[:, :done], fetch(finite, replicas), epoch, runs,
                    checkpoints,
                )  # fmt: skip
                on_updates(epoch + done / schedule.updates)
            stop_if_asked()
            evaluation, dev_loss = None, np.full(replicas, np.nan, np.float32)
            if (epoch + 1) % training.eval_every == 0 or epoch + 1 == training.epochs:
                evaluation = runs.score(state.params, runs.dev, lambda: bool(stop))
                stop_if_asked()
                assert evaluation is not None  # nobody asked to stop
                loss = evaluation.counts["loss"]
                dev_loss = (loss.right / loss.of).astype(np.float32)
                if not (finite := np.isfinite(dev_loss)).all():
                    label = runs.labels[int(finite.argmin())]
                    what = f"the dev loss of {label} is no finite number after epoch {epoch + 1}"
                    raise _diverged(what, checkpoints)
            state = runs.programs.close_epoch(state, stack([*dev_loss], runs.programs.mesh))
            last = epoch + 1 == training.epochs or stopped(state, training)
            on_epoch(Epoch(epoch + 1, fetch(losses, replicas), evaluation))
            if saved := last or (epoch + 1) % training.checkpoint_every == 0:
                save()
            stop_if_asked(saved)
    stop_if_asked(saved=True)  # a request that came after the last look
    return state


def stopped(state: TrainState, training: Training) -> bool:
    """Whether early stopping has stopped every replica."""
    if state.best is None or training.patience is None:
        return False
    return bool((np.asarray(state.best.stale) >= training.patience).all())


class _Pace:
    """How many updates of a bucket take about `LOOK` seconds."""

    def __init__(self) -> None:
        self._seconds: dict[int, float] = {}
        self._run: set[int] = set()

    def count(self, bucket: int) -> int:
        """Updates to make before the host looks again."""
        return max(1, int(LOOK / self._seconds[bucket])) if bucket in self._seconds else 1

    def note(self, bucket: int, seconds: float) -> None:
        """What an update took; the first time it was compiled too, which does not count."""
        if bucket in self._run:
            self._seconds[bucket] = seconds
        self._run.add(bucket)


def _chunks(
    runs: Stack, state: TrainState, epoch: int, done: int, pace: _Pace, on_device: Examples | None
) -> Iterator[tuple[Any, tuple[Any, ...]]]:
    """What is left of an epoch: each a compiled function, and its arguments behind the losses.

    The last argument is the number of updates.
    """
    programs, schedule = runs.programs, runs.schedule
    order = fetch(programs.order(len(runs.train[0].lengths))(state), len(runs.labels))
    most = HOST_BATCHES if on_device is None else schedule.updates
    of_bucket: dict[int, tuple[Any, ...]] = {}
    for number, first, count in schedule.blocks(epoch, done):
        if number not in of_bucket:
            batches = schedule.batches(order, number)
            if on_device is not None:
                batches = tuple(stack([*x], programs.mesh) for x in batches)
            of_bucket[number] = batches
        step = programs.train_chunk(schedule.buckets[number])
        end = first + count
        while first < end:
            updates = min(pace.count(number), end - first, most)
            started = time.monotonic()
            if on_device is None:
                indices, weights = of_bucket[number]
                rows = _gather(runs, number, indices, weights, first)
                yield step, (*rows, 0, updates)
            else:
                yield step, (on_device, *of_bucket[number], first, updates)
            pace.note(number, (time.monotonic() - started) / updates)
            first += updates


def _rows_on_devices(runs: Stack) -> Examples | None:
    """Training rows on the devices, where they fit and are not memory-mapped."""
    rows = [split.examples for split in runs.train]
    if any(isinstance(side, np.memmap) for side in rows[0]):
        return None
    if sum(side.nbytes for examples in rows for side in examples) > ON_DEVICE:
        return None
    return stack(rows, runs.programs.mesh)


def _gather(
    runs: Stack, bucket: int, indices: np.ndarray, weights: np.ndarray, first: int
) -> tuple[Any, ...]:
    """The rows of some batches of a bucket, from the host, and where among them each batch is."""
    some = np.minimum(first + np.arange(HOST_BATCHES), indices.shape[1] - 1)
    picked, mesh = indices[:, some], runs.programs.mesh
    source, target, _ = runs.schedule.buckets[bucket]
    rows = [
        Examples(rows.source[own.reshape(-1), :source], rows.target[own.reshape(-1), :target])
        for own, (_, rows, *_) in zip(picked, runs.train, strict=True)
    ]
    places = np.arange(picked[0].size, dtype=np.int32).reshape(picked[0].shape)
    return (
        stack(rows, mesh),
        stack([places] * len(rows), mesh),
        stack([*weights[:, some]], mesh),
    )


def _refuse_divergence(
    losses: np.ndarray, finite: np.ndarray, epoch: int, runs: Stack, checkpoints: Path
) -> None:
    """Raise UserError where a loss or a parameter is not finite, naming the update and replica."""
    bad = ~np.isfinite(losses)
    if bad.any():
        step = int(bad.any(axis=0).argmax())
        replica = int(bad[:, step].argmax())
        update = epoch * runs.schedule.updates + step + 1
        what = (
            f"the loss of {runs.labels[replica]} is {losses[replica, step]} at update {update} "
            f"(epoch {epoch + 1})"
        )
    elif not finite.all():  # the last update broke it: no loss has seen it yet
        replica, update = int(finite.argmin()), epoch * runs.schedule.updates + losses.shape[1]
        what = f"a parameter of {runs.labels[replica]} is no finite number after update {update}"
    else:
        return
    raise _diverged(what, checkpoints)


def _diverged(what: str, checkpoints: Path) -> UserError:
    kept = "nothing was saved yet"
    if checkpoint.latest(checkpoints) is not None:
        kept = f"the last checkpoint is kept in {checkpoints}"
    return UserError(f"{what}; {kept}; a smaller --optim.learning-rate may help")
