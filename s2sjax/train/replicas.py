"""Replicas: the functions of a single run, lifted over a stack of runs and over devices.

A stack of R runs is the single run's pytree with a leading axis of R. The stack is split over the
devices of a one-dimensional mesh; no device ever talks to another. A stack that the devices do not
share evenly is filled up with copies of its first run. On an accelerator the replicas of a device
are one `jax.vmap`. On a CPU they take turns inside the same program: the working set of one replica
fits in the cache, that of ten does not (``experiments/speed.py`` times both).
"""

import os
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

T = TypeVar("T")

AXIS = "replicas"

CPU_OPTIONS = {"xla_cpu_prefer_vector_width": "512"}
"""XLA's own choice is 256 bits; where a CPU has wider registers an update takes 6 % less time (two
cores of Zen 5). Last digits may be others than without it: under jax 0.10 none was, in a whole run
of ``peeky.py``; under 0.12 some are."""


def use_all_cores() -> None:
    """Make a CPU show as many devices as it has cores; call before the first use of a device.

    The environment's ``JAX_NUM_CPU_DEVICES`` is left as it is. Accelerators are not affected.
    Numbers are float32 whatever the environment says.
    """
    jax.config.update("jax_enable_x64", False)
    if "JAX_NUM_CPU_DEVICES" not in os.environ:
        try:
            cores = len(os.sched_getaffinity(0))  # those this process may use
        except AttributeError:  # macOS does not have it
            cores = os.cpu_count() or 1
        jax.config.update("jax_num_cpu_devices", cores)


def make_mesh(replicas: int) -> Mesh:
    """A mesh of the devices that `replicas` runs need, at most one a device."""
    turns = -(-replicas // len(jax.devices()))
    devices = -(-replicas // turns)
    return jax.make_mesh(
        (devices,), (AXIS,), axis_types=(AxisType.Auto,), devices=jax.devices()[:devices]
    )


def stack(trees: Sequence[T], mesh: Mesh) -> T:
    """Equal pytrees of host arrays, a run each, as one stack over the mesh."""
    return spread(jax.tree.map(lambda *leaves: np.stack(leaves), *trees), mesh)


def spread(tree: T, mesh: Mesh) -> T:
    """A stack on the host over the mesh, filled up so that every device has as many runs."""

    def fill(leaf: Any) -> Any:
        missing = -len(leaf) % mesh.devices.size
        return np.concatenate([leaf, np.repeat(leaf[:1], missing, axis=0)]) if missing else leaf

    return jax.device_put(jax.tree.map(fill, tree), NamedSharding(mesh, P(AXIS)))


def fetch(tree: T, replicas: int) -> T:
    """A stack on the host, without the copies that fill it up."""
    return jax.tree.map(lambda leaf: leaf[:replicas], jax.device_get(tree))


def lift(
    function: Callable[..., Any],
    mesh: Mesh,
    donate: Sequence[int] = (),
    shared: int = 0,
    in_turns: bool | None = None,
) -> Any:
    """A single run's function to one on stacks: compiled, split over the mesh.

    Args:
        function: takes and gives pytrees of arrays.
        mesh: from `make_mesh`.
        donate: positions of arguments whose memory the result may take over.
        shared: so many last arguments are the same for all runs, and not stacked.
        in_turns: a device's replicas run one after another, else vmapped; None: on a CPU in turns.
    """
    cpu = mesh.devices.flat[0].platform == "cpu"
    if in_turns is None:
        in_turns = cpu

    def local(*arguments):
        own = arguments[: len(arguments) - shared]
        common = arguments[len(own) :]
        if in_turns:
            return jax.lax.map(lambda run: function(*run, *common), own)
        return jax.vmap(lambda *run: function(*run, *common))(*own)

    def mapped(*arguments):
        specs = (P(AXIS),) * (len(arguments) - shared) + (P(),) * shared
        return jax.shard_map(local, mesh=mesh, in_specs=specs, out_specs=P(AXIS), check_vma=False)(
            *arguments
        )

    options = CPU_OPTIONS if cpu else None
    return jax.jit(mapped, donate_argnums=donate, compiler_options=options)
