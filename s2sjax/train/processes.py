"""One run in several processes: the same script on every host, joined by JAX's runtime.

Every process draws the same data and makes the same calls in the same order, on its part of the
devices. What depends on a clock, a signal or a file is decided once, for all, by a function of this
module. The first process alone writes files and prints.
"""

import os
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from s2sjax.errors import UserError, check_range

T = TypeVar("T")

TASKS = ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE")
"""Variables that hold how many processes a launcher has started for one job."""


@dataclass(frozen=True)
class Distributed:
    """The processes of one run, one a host; with GPUs under Slurm, one a GPU."""

    distributed: Literal["auto", "on", "off"] = "auto"
    """on: join the other processes; where and who they are is found out under Slurm, Open MPI, on
    TPU pods and in Kubernetes, else it is given by the next three. auto: on where it is given, and
    where Slurm or Open MPI started several tasks."""
    coordinator: str | None = None
    """HOST:PORT of the first process."""
    processes: int | None = None
    """How many there are."""
    process_id: int | None = None
    """The number of this one, from 0."""

    def __post_init__(self) -> None:
        """Refuse what does not go together."""
        given = [self.coordinator, self.processes, self.process_id]
        if None in given and given != [None] * 3:
            raise UserError("give all of --coordinator, --processes and --process-id, or none")
        check_range(1, self, "processes")
        check_range(0, self, "process_id", most=(self.processes or 1) - 1)

    @property
    def joins(self) -> bool:
        """Whether there are other processes to join."""
        several = any(int(os.environ.get(name) or 1) > 1 for name in TASKS)
        return self.distributed == "on" or (
            self.distributed == "auto" and (self.processes is not None or several)
        )

    def join(self, seconds: int = 300) -> None:
        """Wait so long for the others; UserError where nothing says who they are. Call it first.

        Where they do not come, or one dies later, JAX aborts the process: exit code 134.
        """
        if not self.joins:
            return
        try:
            jax.distributed.initialize(
                self.coordinator, self.processes, self.process_id, initialization_timeout=seconds
            )
        except (ValueError, RuntimeError) as error:
            why = " ".join(str(error).split())[:200]
            remedy = "give --coordinator, --processes and --process-id, or --distributed off"
            raise UserError(f"the processes cannot be joined ({why}): {remedy}") from error


def leads() -> bool:
    """Whether this is the first process, which writes and prints."""
    return jax.process_index() == 0


def from_first(tree: T) -> T:
    """The first process's numbers, in every process; shapes and dtypes must be equal."""
    if jax.process_count() == 1:
        return tree
    return multihost_utils.broadcast_one_to_all(tree)


def anywhere(flag: bool) -> bool:
    """Whether the flag is set in any process."""
    if jax.process_count() == 1:
        return flag
    return bool(np.any(multihost_utils.process_allgather(np.array(flag))))


def everything(tree: Any) -> Any:
    """Arrays of all processes' devices on every host."""
    if jax.process_count() == 1:
        return jax.device_get(tree)
    return multihost_utils.process_allgather(tree, tiled=True)


def laid_out(leaf: np.ndarray, sharding: jax.sharding.Sharding) -> jax.Array:
    """An array that every process holds, of which each device takes its part."""
    if jax.process_count() == 1:
        return jax.device_put(leaf, sharding)
    return jax.make_array_from_callback(leaf.shape, sharding, lambda index: leaf[index])
