"""Replicas: the functions of a single run, lifted over a stack of runs and over devices.

A stack of R runs is the single run's pytree with a leading axis of R. The mesh of devices is
replicas x data. The stack is split along its first axis, which exchanges nothing; copies of the
first run fill it up so that each device has as many. Along its second axis, the rows of each batch
are split: XLA adds up the gradients, so the last digits depend on how many devices share a batch.

On an accelerator the replicas of a device are one `jax.vmap`. On a CPU they run one after another
inside the same program: the arrays of one replica fit in the cache, those of ten do not
(``experiments/speed.py`` times both).
"""

import math
import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, TypeVar

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from s2sjax.errors import UserError
from s2sjax.train.processes import everything, laid_out
from s2sjax.train.step import Trainer

T = TypeVar("T")

REPLICAS, DATA = "replicas", "data"
"""The axes of the mesh."""
STACKED = P(REPLICAS)

CPU_OPTIONS = {"xla_cpu_prefer_vector_width": "512"}
"""Instead of XLA's 256 bits: an update took 6 % less time on Zen 5. Last digits may differ."""


NUMERICS = {
    "jax_default_matmul_precision": None,
    "jax_enable_x64": False,
    "jax_numpy_dtype_promotion": "standard",
    "jax_random_seed_offset": 0,
    "jax_threefry_partitionable": True,
}
"""Settings of JAX that decide numbers, with the values that results are made with."""


def use_all_cores() -> None:
    """Start JAX: a device of every CPU core, unless ``JAX_NUM_CPU_DEVICES`` is set; `NUMERICS`.

    Devices that JAX has started before stay as they are. Raises UserError where it finds none.
    """
    for name, value in NUMERICS.items():
        jax.config.update(name, value)
    usable = getattr(os, "sched_getaffinity", lambda _: range(os.cpu_count() or 1))  # no macOS
    cores, asked = len(usable(0)), os.environ.get("JAX_NUM_CPU_DEVICES")
    if asked is not None and int(asked) < 1:
        raise UserError(f"JAX_NUM_CPU_DEVICES must be at least 1, not {asked}: unset it")
    try:
        if asked is None:
            jax.config.update("jax_num_cpu_devices", cores)
    except RuntimeError:  # JAX has started
        if jax.default_backend() == "cpu" and jax.device_count() < cores:
            few = f"JAX started before with {jax.device_count()} of {cores} CPU cores"
            warnings.warn(f"{few}: call s2sjax.use_all_cores() first", stacklevel=3)
    try:
        jax.devices()
    except (AssertionError, RuntimeError) as error:
        why = str(error) or "it is not installed"  # an AssertionError says nothing
        asked = jax.config.values["jax_platforms"] or "that it chose"
        remedy = "unset JAX_PLATFORMS, or set it to cpu"
        raise UserError(f"JAX cannot start the platform {asked} ({why}): {remedy}") from error


def make_mesh(replicas: int, devices_per_replica: int | None = None) -> Mesh:
    """A mesh of the devices that `replicas` runs need: first one a run, then several.

    None: as many a run as there are, but one on a CPU, where a replica is then the single run bit
    for bit. Raises UserError where there are fewer devices than a run is to have.
    """
    devices = jax.devices()
    share = 1 if devices_per_replica is None else devices_per_replica
    if not 1 <= share <= len(devices):
        raise UserError(f"--devices-per-replica {share}: there are {len(devices)} devices")
    turns = math.ceil(replicas / (len(devices) // share))
    rows = math.ceil(replicas / turns)
    if devices_per_replica is None and devices[0].platform != "cpu":
        share = len(devices) // rows
    return jax.make_mesh(
        (rows, share),
        (REPLICAS, DATA),
        axis_types=(AxisType.Auto, AxisType.Auto),
        devices=devices[: rows * share],
    )


def stack(trees: Sequence[T], mesh: Mesh, *, batches: bool = False) -> T:
    """Equal pytrees of host arrays, a run each, as one stack over the mesh: see `spread`."""
    return spread(jax.tree.map(lambda *leaves: np.stack(leaves), *trees), mesh, batches=batches)


def spread(tree: T, mesh: Mesh, *, batches: bool = False) -> T:
    """A stack on the host over the mesh, filled up so that every device has as many runs.

    Arrays of `batches`, [replicas, batches, rows, ...], are split by rows, too, where the devices
    divide them; what is computed of them then is as well.
    """

    def fill(leaf: Any) -> Any:
        missing = -len(leaf) % mesh.shape[REPLICAS]
        full = np.concatenate([leaf, np.repeat(leaf[:1], missing, axis=0)]) if missing else leaf
        shared = batches and full.shape[2] % mesh.shape[DATA] == 0
        return laid_out(full, NamedSharding(mesh, P(REPLICAS, None, DATA) if shared else STACKED))

    return jax.tree.map(fill, tree)


def fetch(tree: T, replicas: int) -> T:
    """A stack on the host, without the copies that fill it up."""
    return jax.tree.map(lambda leaf: leaf[:replicas], everything(tree))


def lift(
    function: Callable[..., Any],
    mesh: Mesh,
    donate: Sequence[int] = (),
    shared: int = 0,
    in_turns: bool | None = None,
) -> Any:
    """A single run's function, of pytrees of arrays, to a compiled one on stacks.

    The result may use the memory of the arguments `donate`; the last `shared` arguments are the
    same for all runs, and not stacked. Replicas of a device run `in_turns`, one after another, or
    are vmapped; None: in turns on a CPU.
    """
    cpu = mesh.devices.flat[0].platform == "cpu"
    if in_turns is None:
        in_turns = cpu
    split = mesh.shape[DATA] > 1

    def local(*arguments):
        own = arguments[: len(arguments) - shared]
        common = arguments[len(own) :]
        if in_turns:
            return jax.lax.map(lambda run: function(*run, *common), own)
        return jax.vmap(lambda *run: function(*run, *common))(*own)

    def mapped(*arguments):
        return jax.shard_map(
            local,
            mesh=mesh,
            in_specs=(STACKED,) * (len(arguments) - shared) + (P(),) * shared,
            out_specs=STACKED,
            axis_names={REPLICAS} if split else {REPLICAS, DATA},  # XLA splits the rows
            check_vma=False,
        )(*arguments)

    settings: Any = {"out_shardings": NamedSharding(mesh, STACKED)} if split else {}
    options = CPU_OPTIONS if cpu else None
    return jax.jit(mapped, donate_argnums=donate, compiler_options=options, **settings)


@dataclass(frozen=True)
class Programs:
    """The methods of a trainer as programs of a stack; equal ones are compiled once."""

    trainer: Trainer
    mesh: Mesh

    def __call__(self, method: str, **settings: Any) -> Any:
        """A method of the trainer, lifted; `settings` are its keyword arguments, all static."""
        return _program(self, method, **settings)


DONATED = {"close_epoch": (0,), "train_chunk": (0, 1)}
"""By method: arguments whose memory the result takes over."""
SHARED = {"train_chunk": 2, "decode": 1}
"""By method: how many last arguments are the same for all runs."""


@lru_cache(maxsize=256)
def _program(programs: Programs, method: str, **settings: Any) -> Any:
    function = partial(getattr(programs.trainer, method), **settings)
    return lift(function, programs.mesh, DONATED.get(method, ()), SHARED.get(method, 0))
