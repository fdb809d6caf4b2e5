"""The host loop: chunks of updates, evaluation, checkpoints, and stopping well.

All numbers come from pure functions of the state. The loop decides how many updates to make before
it looks again, and when to evaluate and to save; none of that changes what is learned.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float

from s2sjax.config import Training
from s2sjax.data.batches import Bucket, Schedule
from s2sjax.data.dataset import Split
from s2sjax.data.rows import Examples
from s2sjax.errors import Interrupted, UserError
from s2sjax.train import checkpoint
from s2sjax.train.evaluate import Evaluation, evaluate
from s2sjax.train.replicas import Programs, fetch, spread, stack
from s2sjax.train.step import TrainState
from s2sjax.train.stopping import Stop

LOOK = 1.0  # seconds of updates from one look of the host to the next, about

ON_DEVICE = 2**30
"""Bytes of training rows, of all replicas, that are laid on the devices; more stay on the host."""

HOST_BATCHES = 16  # batches that are gathered on the host at once, where the rows stay there


class DivergedError(UserError):
    """A loss or a parameter of a replica is not finite."""


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


def begin(runs: Stack, state: TrainState) -> LoopState:
    """Before the first update."""
    blank = np.zeros(runs.schedule.updates, np.float32)
    return LoopState(state, stack([blank] * len(runs.labels), runs.programs.mesh))


def resume(runs: Stack, loop_state: LoopState, checkpoints: Path) -> tuple[LoopState, bool]:
    """The last checkpoint in place of `loop_state`, if there is one, and whether there is."""
    n = len(runs.labels)
    like = jax.tree.map(lambda x: jax.ShapeDtypeStruct((n, *x.shape[1:]), x.dtype), loop_state)
    last = checkpoint.restore_last(checkpoints, like, set_aside=True)
    return (loop_state, False) if last is None else (spread(last, runs.programs.mesh), True)


def fit(
    runs: Stack,
    loop_state: LoopState,
    *,
    checkpoints: Path,
    on_epoch: Callable[[Epoch], None],
    on_updates: Callable[[float, bool], None] = lambda epochs, compiled: None,
    on_save: Callable[[], None] = lambda: None,
    stop: Stop | None = None,
) -> TrainState:
    """Train to the last epoch, or until every replica has stopped early.

    Args:
        runs: the stack.
        loop_state: where to go on from; its memory is used again.
        checkpoints: folder to save in.
        on_epoch: called after every epoch, before its checkpoint is saved.
        on_updates: called between chunks with the epochs done, a fraction, and whether the chunk
            was the first of its bucket, which is compiled.
        on_save: called before a checkpoint is saved; an error that it raises ends the training.
        stop: asked between chunks.

    Raises:
        DivergedError: a loss or a parameter is not finite; nothing of that epoch is saved.
        Interrupted: a signal asked to stop; the state is saved.
    """
    stop = Stop() if stop is None else stop  # one that nobody asked is false
    programs, training, schedule = runs.programs, runs.training, runs.schedule
    state, losses = loop_state
    replicas, on_device = len(runs.labels), _rows_on_devices(runs)
    seconds: dict[int, float] = {}

    def save() -> None:
        stop.saving()
        on_save()
        number = int(state.update[0]) + int(state.epoch[0])  # closing an epoch changes it, too
        if checkpoint.latest(checkpoints) != number:  # else nothing was done since
            checkpoint.save(checkpoints, number, fetch(LoopState(state, losses), replicas))

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

    def refuse(what: str) -> None:
        kept = "nothing was saved yet"
        if checkpoint.latest(checkpoints) is not None:
            kept = f"the last checkpoint is kept in {checkpoints}"
        helps = "a smaller Optimiser.learning_rate or .clip, or a larger Optimiser.epsilon,"
        raise DivergedError(f"{what}; {kept}; {helps} may help")

    with stop.training():
        while int(state.epoch[0]) < training.epochs and not stopped(state, training):
            epoch, updates = int(state.epoch[0]), int(state.update[0])
            done = updates - epoch * schedule.updates
            for step, arguments, compiled in _chunks(runs, state, epoch, done, seconds, on_device):
                stop_if_asked()
                state, losses, finite = step(state, losses, *arguments)
                done += arguments[-1]
                made = fetch(losses, replicas)[:, :done]
                if what := _divergence(runs, epoch, made, fetch(finite, replicas)):
                    refuse(what)
                on_updates(epoch + done / schedule.updates, compiled)
            stop_if_asked()
            evaluation, dev_loss = None, np.full(replicas, np.nan, np.float32)
            if (epoch + 1) % training.eval_every == 0 or epoch + 1 == training.epochs:
                evaluation = runs.score(state.params, runs.dev, lambda: bool(stop))
                stop_if_asked()
                assert evaluation is not None  # nobody asked to stop
                loss = evaluation.counts["loss"]
                dev_loss = (loss.right / loss.of).astype(np.float32)
                for label, value in zip(runs.labels, dev_loss, strict=True):
                    if not np.isfinite(value):
                        refuse(f"the dev loss of {label} is {value} after epoch {epoch + 1}")
            state = programs("close_epoch")(state, stack([*dev_loss], programs.mesh))
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
                indices, weights = (stack([*x], programs.mesh) for x in (indices, weights))
            batches[number] = indices, weights
        step = programs("train_chunk", widths=bucket[:2])
        while first < end:
            pace = seconds.get(number, 0.0)
            updates = min(max(1, int(LOOK / pace)) if pace else 1, end - first, most)
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
    parts = (rows, [places] * len(rows), [*weights[:, some]])
    return tuple(stack(part, runs.programs.mesh) for part in parts)


def _divergence(runs: Stack, epoch: int, losses: np.ndarray, finite: np.ndarray) -> str | None:
    """The first replica and update with a loss or parameter that is not finite, in words."""
    bad, before = ~np.isfinite(losses), epoch * runs.schedule.updates
    if bad.any():
        step = int(bad.any(axis=0).argmax())
        replica = int(bad[:, step].argmax())
        return (
            f"the loss of {runs.labels[replica]} is {losses[replica, step]} at update "
            f"{before + step + 1} (epoch {epoch + 1})"
        )
    if not finite.all():  # the last update broke it: no loss has seen it yet
        label, update = runs.labels[int(finite.argmin())], before + losses.shape[1]
        return f"a parameter of {label} is no finite number after update {update}"
    return None
