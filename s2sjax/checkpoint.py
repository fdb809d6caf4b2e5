"""Checkpoints: the only module that knows Orbax.

Each save is complete before the call returns, and atomic: a process killed while saving leaves the
checkpoint before it as the latest.
"""

import gc
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import jax
from orbax.checkpoint import v1 as ocp

from s2sjax.errors import UserError

T = TypeVar("T")

KEPT = 2
"""Checkpoints kept: the last, and the one before it in case the last is damaged."""


def save(directory: Path, number: int, state: object) -> None:
    """Save `state` as it is after so many epochs, or updates; drop all but the last `KEPT`.

    Raises UserError where it cannot be written: no room, no right.
    """
    _attempt(
        directory,
        lambda checkpointer: checkpointer.save(number, state, force=True),
        f"checkpoint {number} cannot be written to {directory}",
        "make room or give rights; the same command then goes on from the checkpoint before it",
    )


def latest(directory: Path) -> int | None:
    """Number of the last complete checkpoint, or None; raises UserError where none can tell."""
    if not directory.is_dir():
        return None
    found = _attempt(
        directory,
        lambda checkpointer: checkpointer.latest,
        f"the checkpoints in {directory} cannot be listed",
        "give rights, or choose another --workdir",
    )
    return None if found is None else found.step


def restore(directory: Path, number: int, like: T) -> T:
    """Load a checkpoint, laid out over devices as `like` is.

    Raises UserError for a checkpoint that is damaged or of another shape.
    """
    abstract = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), like
    )
    return _attempt(
        directory,
        lambda checkpointer: checkpointer.load(number, abstract),
        f"checkpoint {directory / str(number)} is damaged or of another run or version",
        "choose another --workdir; where a crash damaged it, deleting that folder goes on from the "
        "checkpoint before it",
    )


def _attempt(directory: Path, action: Callable[[Any], Any], what: str, remedy: str) -> Any:
    """Do something with the checkpoints of a folder; a failure becomes a UserError of one line."""
    keep: Any = ocp.training.preservation_policies.LatestN(KEPT)
    threads = set(threading.enumerate())
    with _quiet():
        try:
            with ocp.training.Checkpointer(
                str(directory.absolute()), preservation_policy=keep
            ) as checkpointer:
                return action(checkpointer)
        except (MemoryError, PermissionError):
            raise  # says nothing about the checkpoint
        except Exception as error:  # Orbax and TensorStore raise many kinds
            reason = _reason(error)
        # What Orbax left unfinished, threads and coroutines, complains while it ends.
        for thread in set(threading.enumerate()) - threads:
            with suppress(Exception):  # Orbax' threads raise their errors again
                thread.join(timeout=2)
        time.sleep(0.5)
        gc.collect()
    raise UserError(f"{what} ({reason}): {remedy}")


def _reason(error: Exception) -> str:
    """An error in a few words."""
    if "No space left" in str(error) or "RESOURCE_EXHAUSTED" in str(error):
        return "no space left on the device"
    return type(error).__name__  # Orbax' texts are pages long


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep what Orbax says besides raising an error off the terminal: logs, thread tracebacks."""
    before = logging.root.manager.disable, threading.excepthook, sys.unraisablehook
    logging.disable(logging.CRITICAL)
    threading.excepthook = sys.unraisablehook = lambda _: None
    try:
        yield
    finally:
        logging.disable(before[0])
        threading.excepthook, sys.unraisablehook = before[1:]
