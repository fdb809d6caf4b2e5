"""Checkpoints: the only module that knows Orbax.

Each save is complete before the call returns, and atomic: a process killed while saving leaves the
checkpoint before it as the latest.
"""

from pathlib import Path
from typing import Any, TypeVar

import jax
from orbax.checkpoint import v1 as ocp

from s2sjax.errors import UserError

T = TypeVar("T")

KEPT = 2
"""Checkpoints kept: the last, and the one before it in case the last is damaged."""


def _open(directory: Path) -> ocp.training.Checkpointer:
    keep: Any = ocp.training.preservation_policies.LatestN(KEPT)
    return ocp.training.Checkpointer(str(directory.absolute()), preservation_policy=keep)


def save(directory: Path, epoch: int, state: object) -> None:
    """Save `state` as it is after `epoch`, and drop all but the last `KEPT` checkpoints."""
    with _open(directory) as checkpointer:
        checkpointer.save(epoch, state, force=True)


def latest(directory: Path) -> int | None:
    """The epoch of the last complete checkpoint, or None."""
    if not directory.is_dir():
        return None
    with _open(directory) as checkpointer:
        found = checkpointer.latest
    return None if found is None else found.step


def restore(directory: Path, epoch: int, like: T) -> T:
    """Load the checkpoint of `epoch`, laid out over devices as `like` is.

    Raises UserError for a checkpoint that is damaged or of another shape.
    """
    abstract = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), like
    )
    try:
        with _open(directory) as checkpointer:
            return checkpointer.load(epoch, abstract)
    except Exception as error:  # Orbax and TensorStore raise many kinds; each means the same here
        raise UserError(
            f"checkpoint {directory / str(epoch)} cannot be read ({type(error).__name__}): delete "
            "that folder to go on from the checkpoint before it, or choose another --workdir"
        ) from error
