"""Checkpoints: the only module that knows Orbax.

A save is complete when the call returns, and atomic: a process killed while saving leaves the
checkpoint before it as the latest. Each holds its number and a checksum, which show a renamed
checkpoint and a flipped bit. Several processes call these functions together, on a shared folder.
"""

import gc
import logging
import sys
import threading
import time
import traceback
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np

from s2sjax.errors import MachineError, UserError
from s2sjax.train.processes import leads

T = TypeVar("T")

KEPT = 2  # checkpoints kept: the last, and the one before it in case the last is damaged


def save(directory: Path, number: int, state: object) -> None:
    """Save a tree of host arrays under a number that grows; drop all but the last `KEPT`.

    Raises UserError where it cannot be written: no room, no right.
    """
    state = jax.tree.map(np.asarray, state)
    sealed = {"state": state, "seal": _seal(number, state)}
    _attempt(
        directory,
        lambda checkpointer: checkpointer.save(number, sealed, force=True),
        f"checkpoint {number} cannot be written to {directory}",
        ": make room or give rights; the same command then goes on from the checkpoint before it",
        MachineError,
    )


def latest(directory: Path) -> int | None:
    """Number of the last complete checkpoint, or None."""
    return next(iter(_numbers(directory)), None)


def _numbers(directory: Path) -> list[int]:
    """Numbers of the complete checkpoints, the last first; others have longer names."""
    names = [path.name for path in directory.iterdir()] if directory.is_dir() else []
    return sorted((int(name) for name in names if name.isdecimal()), reverse=True)


def restore_last(directory: Path, like: T, *, set_aside: bool = False) -> T | None:
    """Load the last checkpoint that can be loaded; None where there is no checkpoint.

    A line on stderr names each one after it, which is damaged; `set_aside` renames it, so that
    training can go on. Raises UserError where there are checkpoints and none can be loaded.
    """
    damaged: dict[int, UserError] = {}
    for number in _numbers(directory):
        try:
            state = restore(directory, number, like)
        except UserError as error:
            damaged[number] = error
            continue
        for other, error in damaged.items():
            if not leads():
                continue
            print(f"warning: {error}; the one before it is used", file=sys.stderr)
            if set_aside:
                name = f"{other}.damaged-{time.time():.0f}"
                (directory / str(other)).rename(directory / name)
        return state
    if damaged:
        remedy = f"choose another --workdir, or delete {directory} to train its arms anew"
        raise UserError(f"{next(iter(damaged.values()))}: {remedy}")
    return None


def restore(directory: Path, number: int, like: T) -> T:
    """Load a checkpoint as host arrays; `like` is a tree of its structure, shapes and dtypes.

    Raises UserError for a checkpoint that is damaged, or of another shape or number.
    """
    place = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    abstract = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place),
        {"state": like, "seal": _seal(0, ())},
    )
    what = f"checkpoint {directory / str(number)} is damaged or of another run or version"
    loaded = _attempt(directory, lambda saved: saved.load(number, abstract), what)
    loaded = jax.device_get(loaded)
    if not np.array_equal(loaded["seal"], _seal(number, loaded["state"])):
        raise UserError(f"{what} (it is not what was saved as {number})")
    return loaded["state"]


def _seal(number: int, state: object) -> np.ndarray:
    """The number of a checkpoint, and the checksum of its arrays."""
    checksum = 0
    for leaf in jax.tree.leaves(state):
        checksum = zlib.crc32(np.ascontiguousarray(leaf).tobytes(), checksum)
    return np.array([number, checksum], np.uint32)


def _attempt(
    directory: Path,
    action: Callable[[Any], Any],
    what: str,
    remedy: str = "",
    kind: type[UserError] = UserError,
) -> Any:
    """Do something with the checkpoints of a folder; a failure becomes an error of one line.

    Its traceback is written beside the folder.
    """
    from orbax.checkpoint import v1 as ocp  # here, because the import takes long

    keep: Any = {"preservation_policy": ocp.training.preservation_policies.LatestN(KEPT)}
    threads = set(threading.enumerate())
    with _quiet():
        try:
            with ocp.training.Checkpointer(str(directory.absolute()), **keep) as checkpointer:
                return action(checkpointer)
        except (MemoryError, PermissionError):
            raise  # says nothing about the checkpoint
        except Exception as error:  # Orbax and TensorStore raise many kinds
            reason = _reason(error)
            log = directory.with_name(f"{directory.name}.error.txt")
            with suppress(OSError):  # no room or no rights, which is the reason then
                log.write_text(traceback.format_exc(), encoding="utf-8")
                reason += f"; all of it: {log}"
        # What Orbax left unfinished, threads and coroutines, complains while it ends.
        for thread in set(threading.enumerate()) - threads:
            with suppress(Exception):  # Orbax' threads raise their errors again
                thread.join(timeout=2)
        time.sleep(0.5)
        gc.collect()
    raise kind(f"{what} ({reason}){remedy}")


def _reason(error: Exception) -> str:
    """An error in a few words: Orbax' texts are pages long, and their last line is the cause."""
    if "No space left" in str(error) or "RESOURCE_EXHAUSTED" in str(error):
        return "no space left on the device"
    last = " ".join(str(error).strip().splitlines()[-1:])
    return f"{type(error).__name__}: {last[:100]}" if last else type(error).__name__


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
