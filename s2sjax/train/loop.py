"""The host loop: chunks of updates, evaluation, checkpoints, and stopping well.

All numbers come from pure functions of the state. The loop decides how many updates to make before
it looks again, and when to evaluate and to save; none of that changes what is learned.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Float

from s2sjax.config import Training
from s2sjax.data.batches import Bucket, Schedule
from s2sjax.data.dataset import Split
from s2sjax.data.rows import Examples
from s2sjax.errors import Interrupted, UserError
from s2sjax.train import checkpoint
from s2sjax.train.evaluate import Evaluation, evaluate
from s2sjax.train.processes import anywhere, from_first
from s2sjax.train.replicas import Programs, fetch, spread, stack
from s2sjax.train.step import TrainState
from s2sjax.train.stopping import Stop

LOOK = 1.0  # seconds of updates from one look of the host to the next, about

ON_DEVICE = 2**30
"""Bytes of training rows, of all replicas, that are laid on the devices; more stay on the host."""

REMEDY = "a smaller Optimiser.learning_rate or .clip, or a larger Optimiser.epsilon,"

HOST_BATCHES = 16  # batches that are gathered on the host at once, where the rows stay there


class DivergedError(UserError):
    """A loss or a parameter of every replica is not finite; `diverged` is that of `Epoch`."""

    def __init__(self, message: str, epoch: int, diverged: Mapping[int, int]):
        super().__init__(message)
        self.epoch, self.diverged = epoch, diverged


class Stack(NamedTuple):
    """Replicas of one program, and their rows."""

    programs: Programs
    training: Training
    labels: Sequence[str]  # names of the replicas, for messages
    schedule: Schedule
    train: Sequence[Split]  # of each replica
    dev: Sequence[Split]  # of each replica
    buckets: Sequence[Bucket]  # widths of rows that are scored

    def score(
        self, params: Any, splits: Sequence[Split], stop: Callable[[], bool] = lambda: False
    ) -> Evaluation | None:
        """Score every replica's parameters on rows of its own; None if asked to stop."""
        size = self.training.batch_size
        return evaluate(self.programs, params, splits, self.buckets, size, stop)


class LoopState(NamedTuple):
    """Where a training stands: what a checkpoint holds."""

    state: TrainState  # of every replica
    losses: Any  # of every update of the epoch so far, [replicas, updates]


class Epoch(NamedTuple):
    """A finished epoch."""

    epoch: int  # its number, from 1
    losses: Float[np.ndarray, "replicas updates"]
    evaluation: Evaluation | None  # on dev, in epochs that have one
    diverged: Mapping[int, int]  # {replica: update from which a loss or parameter is not finite}


def begin(runs: Stack, state: TrainState) -> LoopState:
    """Before the first update."""
    blank = np.zeros(runs.schedule.updates, np.float32)
    return LoopState(state, stack([blank] * len(runs.labels), runs.programs.mesh))


def resume(runs: Stack, loop_state: LoopState, checkpoints: Path) -> tuple[LoopState, bool]:
    """The last checkpoint in place of `loop_state`, if there is one, and whether there is."""
    n = len(runs.labels)
    like = jax.tree.map(lambda x: jax.ShapeDtypeStruct((n, *x.shape[1:]), x.dtype), loop_state)
    last = checkpoint.restore_last(checkpoints, like, set_aside=True)
    if anywhere(last is not None) and last is None:
        raise UserError(f"{checkpoints} is not the same in all processes: use a shared folder")
    return (loop_state, False) if last is None else (spread(last, runs.programs.mesh), True)


def position(state: TrainState) -> tuple[int, int]:
    """Epochs and updates done, the same for all replicas."""
    epoch, update = fetch((state.epoch, state.update), 1)
    return int(epoch[0]), int(update[0])


def fit(
    runs: Stack,
    loop_state: LoopState,
    *,
    checkpoints: Path,
    on_epoch: Callable[[Epoch], None],
    on_updates: Callable[[float, bool], None] = lambda epochs, compiled: None,
    on_save: Callable[[], None] = lambda: None,
    diverged: Mapping[int, int] | None = None,
    stop: Stop | None = None,
) -> TrainState:
    """Train to the last epoch, or until every replica has stopped early or diverged.

    A replica that diverges leaves the others as they are; its numbers mean nothing any more.

    Args:
        runs: the stack.
        loop_state: where to go on from; its memory is used again.
        checkpoints: folder to save in.
        on_epoch: called after every epoch, before its checkpoint is saved.
        on_updates: called between chunks with the epochs done, a fraction, and whether the chunk
            was the first of its bucket, which is compiled.
        on_save: called before a checkpoint is saved; an error that it raises ends the training.
        diverged: those of `Epoch` so far.
        stop: asked between chunks.

    Raises:
        DivergedError: every replica has diverged; nothing of that epoch is saved.
        Interrupted: a signal asked to stop; the state is saved.
    """
    stop = Stop() if stop is None else stop  # one that nobody asked is false
    programs, training, schedule = runs.programs, runs.training, runs.schedule
    state, losses = loop_state
    replicas, on_device = len(runs.labels), _rows_on_devices(runs)
    seconds: dict[int, float] = {}
    diverged, scored = {**(diverged or {})}, False

    def asked() -> bool:
        return anywhere(bool(stop))

    def save() -> None:
        stop.saving()
        on_save()
        number = sum(position(state))  # closing an epoch changes it, too
        if from_first(np.bool_(checkpoint.latest(checkpoints) != number)):  # else nothing is new
            checkpoint.save(checkpoints, number, fetch(LoopState(state, losses), replicas))

    def stop_if_asked(saved: bool = False) -> None:
        if not asked():
            return
        if not saved:
            save()
        epoch, update = position(state)
        epoch, last = min(epoch + 1, training.epochs), training.epochs * schedule.updates
        raise Interrupted(
            f"stopped after update {update:,} of {last:,} (epoch {epoch}) and saved; "
            "the same command goes on from there",
            stop.signal or 0,
        )

    def save_before_compiling() -> None:  # meanwhile a request cannot wait
        save()
        stop_if_asked(saved=True)

    def note(broken: Mapping[int, int]) -> None:
        for replica, update in broken.items():
            diverged.setdefault(replica, update)
        if not diverged:
            return
        early = stopped_early(state, training, replicas)
        lost = [replica for replica in diverged if not early[replica]]
        if len(lost) == replicas:
            first = min(lost, key=lambda replica: diverged[replica])
            what = divergence(runs.labels[first], diverged[first])
            others = "; all others diverged, too" if replicas > 1 else ""
            message = f"{what}{others}; {REMEDY} may help"
            raise DivergedError(message, position(state)[0] + 1, diverged)

    def all_stopped() -> bool:
        early = stopped_early(state, training, replicas)
        return bool(early.any()) and all(early[r] or r in diverged for r in range(replicas))

    with stop.training():
        while (epoch := position(state)[0]) < training.epochs and not all_stopped():
            done = position(state)[1] - epoch * schedule.updates
            for step, arguments, compiled in _chunks(runs, state, epoch, done, seconds, on_device):
                stop_if_asked()
                if compiled and done:
                    save_before_compiling()
                state, losses, finite = step(state, losses, *arguments)
                done += arguments[-1]
                made = fetch(losses, replicas)[:, :done]
                note(_broken(epoch * schedule.updates, made, fetch(finite, replicas)))
                on_updates(epoch + done / schedule.updates, compiled)
            stop_if_asked()
            evaluation, dev_loss = None, np.full(replicas, np.nan, np.float32)
            if (epoch + 1) % training.eval_every == 0 or epoch + 1 == training.epochs:
                if not scored:
                    save_before_compiling()
                evaluation = runs.score(state.params, runs.dev, asked)
                scored = True
                stop_if_asked()
                assert evaluation is not None  # nobody asked to stop
                loss = evaluation.counts["loss"]
                dev_loss = (loss.right / loss.of).astype(np.float32)
                broken = np.flatnonzero(~np.isfinite(dev_loss)).tolist()
                note(dict.fromkeys(broken, (epoch + 1) * schedule.updates))
            state = programs("close_epoch")(state, stack([*dev_loss], programs.mesh))
            last = epoch + 1 == training.epochs or all_stopped()
            on_epoch(Epoch(epoch + 1, fetch(losses, replicas), evaluation, {**diverged}))
            if saved := last or (epoch + 1) % training.checkpoint_every == 0:
                save()
            stop_if_asked(saved)
    stop_if_asked(saved=True)  # a request that came after the last look
    return state


def divergence(label: str, update: int) -> str:
    """What is said of a replica that has diverged."""
    return f"a loss or parameter of {label} is not finite from update {update:,} on"


def stopped_early(
    state: TrainState, training: Training, replicas: int
) -> Bool[np.ndarray, " replicas"]:
    """Whether early stopping has stopped each replica: its best parameters are fixed."""
    if state.best is None or training.patience is None:
        return np.zeros(replicas, bool)
    return fetch(state.best.stale, replicas) >= training.patience


def _chunks(
    runs: Stack,
    state: TrainState,
    epoch: int,
    done: int,
    seconds: dict[int, float],
    on_device: Examples | None,
) -> Iterator[tuple[Any, tuple[Any, ...], bool]]:
    """What is left of an epoch: programs, their arguments after state and losses, and if compiled.

    The last argument is the number of updates. `seconds` keeps what an update of each bucket takes;
    the first chunk of a bucket is compiled, and does not count.
    """
    programs, schedule = runs.programs, runs.schedule
    order = fetch(programs("order", n=len(runs.train[0].lengths))(state), len(runs.labels))
    most = HOST_BATCHES if on_device is None else schedule.updates
    batches: dict[int, tuple[Any, Any]] = {}
    for number, first, count in schedule.blocks(epoch, done):
        bucket, end = schedule.buckets[number], first + count
        if number not in batches:
            indices, weights = schedule.batches(order, number)
            if on_device is not None:
                parts = (indices, weights)
                indices, weights = (stack([*x], programs.mesh, batches=True) for x in parts)
            batches[number] = indices, weights
        step = programs("train_chunk", widths=bucket[:2])
        while first < end:
            pace = seconds.get(number, 0.0)
            updates = min(max(1, int(LOOK / pace)) if pace else 1, end - first, most)
            updates = int(from_first(np.int32(updates)))
            started, compiles = time.monotonic(), number not in seconds
            rows: Any = (on_device, *batches[number], first)
            if on_device is None:
                rows = (*_gathered(runs, bucket, *batches[number], first), 0)
            yield step, (*rows, updates), compiles
            seconds[number] = 0.0 if compiles else (time.monotonic() - started) / updates
            first += updates


def _rows_on_devices(runs: Stack) -> Examples | None:
    """Training rows on the devices, where they fit and are not memory-mapped."""
    rows = [split.examples for split in runs.train]
    if any(isinstance(side, np.memmap) for side in rows[0]):
        return None
    if sum(side.nbytes for examples in rows for side in examples) > ON_DEVICE:
        return None
    return stack(rows, runs.programs.mesh)


def _gathered(
    runs: Stack, bucket: Bucket, indices: np.ndarray, weights: np.ndarray, first: int
) -> tuple[Any, ...]:
    """Rows of `HOST_BATCHES` batches from the host, each batch's places in them, its weights."""
    some = np.minimum(first + np.arange(HOST_BATCHES), indices.shape[1] - 1)
    picked = indices[:, some]
    rows = [
        Examples(
            split.examples.source[own.reshape(-1), : bucket.source],
            split.examples.target[own.reshape(-1), : bucket.target],
        )
        for own, split in zip(picked, runs.train, strict=True)
    ]
    places = np.arange(picked[0].size, dtype=np.int32).reshape(picked[0].shape)
    batches = ([places] * len(rows), [*weights[:, some]])
    mesh = runs.programs.mesh
    return stack(rows, mesh), *(stack(part, mesh, batches=True) for part in batches)


def _broken(
    before: int,
    losses: Float[np.ndarray, "replicas updates"],
    finite: Bool[np.ndarray, " replicas"],
) -> dict[int, int]:
    """The first update with a loss or parameter that is not finite, of replicas that have one.

    `losses` are those of an epoch so far, after `before` updates; `finite` is of the parameters.
    """
    bad = np.column_stack([~np.isfinite(losses), ~finite])  # no loss has seen the last update yet
    first = np.minimum(bad.argmax(axis=1) + 1, losses.shape[1])
    return {r: before + int(first[r]) for r in np.flatnonzero(bad.any(axis=1)).tolist()}
