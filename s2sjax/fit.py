"""The host loop: epochs, evaluation, checkpoints, and stopping well.

All numbers come from pure functions of the state; this loop only decides when to look and when to
save, so that neither changes what is learned.
"""

import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from s2sjax import checkpoint
from s2sjax.config import Training
from s2sjax.data import Examples
from s2sjax.errors import Interrupted, UserError
from s2sjax.metrics import Count
from s2sjax.replicas import lift
from s2sjax.train import Params, Trainer, TrainState


class Programs(NamedTuple):
    """The compiled programs of a stack of runs; each serves every replica.

    Attributes:
        init: (keys, learning rates, chances to drop) -> state.
        train_epoch: (state, examples) -> (state, losses ``[replicas, updates]``).
        evaluate: (params, examples) -> (counts by metric, answers ``[replicas, n, time]``).
        watch: (state, dev losses) -> state, for early stopping.
    """

    init: Any
    train_epoch: Any
    evaluate: Any
    watch: Any


def make_programs(trainer: Trainer, mesh: Mesh) -> Programs:
    """Lift a trainer's functions over the replicas of a mesh; an epoch takes over its state."""
    return Programs(
        lift(trainer.init, mesh),
        lift(trainer.train_epoch, mesh, donate=(0,)),
        lift(trainer.evaluate, mesh),
        lift(trainer.watch, mesh, donate=(0,)),
    )


class Evaluation(NamedTuple):
    """Scores of every replica on one split, on the host.

    Attributes:
        counts: by metric, arrays of one number a replica.
        answers: the free-running answers as ids, ``[replicas, n, time]``.
    """

    counts: Mapping[str, Count]
    answers: np.ndarray


class Epoch(NamedTuple):
    """What the loop tells of an epoch.

    Attributes:
        epoch: its number, from 1.
        losses: of every update, ``[replicas, updates]``.
        evaluation: on dev, in epochs that have one.
    """

    epoch: int
    losses: np.ndarray
    evaluation: Evaluation | None


def evaluate(programs: Programs, params: Params, examples: Examples) -> Evaluation:
    """Score every replica's parameters and bring the scores to the host."""
    return Evaluation(*jax.device_get(programs.evaluate(params, examples)))


@contextmanager
def stop_requests(after: str = "this epoch") -> Iterator[list[int]]:
    """A list that gets the number of a signal that asks to stop; a second Ctrl-C stops at once.

    `after` says what is finished before.
    """
    received: list[int] = []

    def note(number: int, frame: Any) -> None:
        del frame
        if received:
            raise KeyboardInterrupt
        received.append(number)
        if sys.stderr.isatty():
            print(f"stopping after {after} (Ctrl-C again: at once)", file=sys.stderr)

    if threading.current_thread() is not threading.main_thread():
        yield received  # only the main thread may handle signals
        return
    before = {s: signal.signal(s, note) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def fit(
    programs: Programs,
    state: TrainState,
    splits: Mapping[str, Examples],
    training: Training,
    *,
    labels: Sequence[str],
    checkpoints: Path,
    on_epoch: Callable[[Epoch], None],
) -> TrainState:
    """Train from `state` to the last epoch, or until every replica has stopped early.

    `state` is used up.

    Args:
        programs: from `make_programs`.
        state: the stacked state to go on from.
        splits: stacked examples of ``train`` and ``dev``.
        training: epochs and how often to look.
        labels: names of the replicas, for messages.
        checkpoints: folder to save in.
        on_epoch: called after every epoch, before its checkpoint is saved.

    Raises:
        UserError: a loss is not finite; nothing of that epoch is saved.
        Interrupted: a signal asked to stop; the state is saved.
    """
    first = int(state.epoch[0]) + 1
    with stop_requests() as stop:
        for epoch in range(first, training.epochs + 1):
            if stopped(state, training):
                break
            state, device_losses = programs.train_epoch(state, splits["train"])
            losses = np.asarray(device_losses)
            _refuse_divergence(losses, epoch, labels, checkpoints)
            _refuse_broken_parameters(state, epoch, labels, checkpoints)
            last = epoch == training.epochs
            evaluation = None
            if last or epoch % training.eval_every == 0:
                evaluation = evaluate(programs, state.params, splits["dev"])
                if training.patience is not None:
                    loss = evaluation.counts["loss"]
                    state = programs.watch(state, loss.right / loss.of)
                    last = last or stopped(state, training)
            on_epoch(Epoch(epoch, losses, evaluation))
            if last or stop or epoch % training.checkpoint_every == 0:
                checkpoint.save(checkpoints, epoch, state)
            if stop:
                raise Interrupted(
                    f"stopped after epoch {epoch} of {training.epochs} and saved; "
                    "the same command goes on from there",
                    stop[0],
                )
    return state


def stopped(state: TrainState, training: Training) -> bool:
    """Whether early stopping has stopped every replica."""
    if state.best is None or training.patience is None:
        return False
    return bool((np.asarray(state.best.stale) >= training.patience).all())


def _refuse_divergence(
    losses: np.ndarray, epoch: int, labels: Sequence[str], checkpoints: Path
) -> None:
    """Raise UserError where a loss is not finite, naming the first update and replica."""
    bad = ~np.isfinite(losses)
    if bad.any():
        step = int(bad.any(axis=0).argmax())
        replica = int(bad[:, step].argmax())
        update = (epoch - 1) * losses.shape[1] + step + 1
        raise diverged(
            f"the loss of {labels[replica]} is {losses[replica, step]} at update {update} "
            f"(epoch {epoch})",
            checkpoints,
        )


def _refuse_broken_parameters(
    state: TrainState, epoch: int, labels: Sequence[str], checkpoints: Path
) -> None:
    """Raise UserError where an epoch's last update broke a parameter: no loss has seen it yet."""
    for leaf in jax.tree.leaves(jax.device_get(state.params)):
        broken = ~np.isfinite(leaf).reshape(len(labels), -1).all(axis=1)
        if broken.any():
            name = labels[int(broken.argmax())]
            raise diverged(
                f"a parameter of {name} is no finite number after epoch {epoch}", checkpoints
            )


def diverged(what: str, checkpoints: Path, unit: str = "epoch") -> UserError:
    """The error that says what is no number any more, and which epoch, or other unit, is kept."""
    saved = checkpoint.latest(checkpoints)
    kept = "nothing was saved yet" if saved is None else f"{unit} {saved} is kept in {checkpoints}"
    return UserError(f"{what}; {kept}; a smaller --optim.learning-rate may help")
