"""Replicas: the functions of a single run, lifted over a stack of runs and over devices.

A stack of R runs is the single run's pytree with a leading axis of R. The stack is split over the
devices of a one-dimensional mesh; no device ever talks to another. On an accelerator a device's
replicas are one `jax.vmap`. On a CPU they take turns inside the same program: the working set of
one replica fits in the cache, that of ten does not (``experiments/speed.py`` times both).
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
        except AttributeError:  # macOS does not tell
            cores = os.cpu_count() or 1
        jax.config.update("jax_num_cpu_devices", cores)


def make_mesh(replicas: int) -> Mesh:
    """A mesh of the most devices that share `replicas` evenly."""
    devices = max(d for d in range(1, len(jax.devices()) + 1) if replicas % d == 0)
    return jax.make_mesh(
        (devices,), (AXIS,), axis_types=(AxisType.Auto,), devices=jax.devices()[:devices]
    )


def stack(trees: Sequence[T]) -> T:
    """Equal pytrees of host arrays to one, stacked in front."""
    return jax.tree.map(lambda *leaves: np.stack(leaves), *trees)


def spread(tree: T, mesh: Mesh) -> T:
    """Lay a stack out over the mesh."""
    return jax.device_put(tree, NamedSharding(mesh, P(AXIS)))


def lift(
    function: Callable[..., Any],
    mesh: Mesh,
    donate: Sequence[int] = (),
    in_turns: bool | None = None,
) -> Any:
    """A single run's function to one on stacks: compiled, split over the mesh.

    Args:
        function: takes and gives pytrees of arrays.
        mesh: from `make_mesh`.
        donate: positions of arguments whose memory the result may take over.
        in_turns: a device's replicas run one after another, else vmapped; None: on a CPU in turns.
    """
    cpu = mesh.devices.flat[0].platform == "cpu"
    if in_turns is None:
        in_turns = cpu

    def local(*stacks):
        if in_turns:
            return jax.lax.map(lambda run: function(*run), stacks)
        return jax.vmap(function)(*stacks)

    spec = P(AXIS)
    mapped = jax.shard_map(local, mesh=mesh, in_specs=spec, out_specs=spec, check_vma=False)
    options = CPU_OPTIONS if cpu else None
    return jax.jit(mapped, donate_argnums=donate, compiler_options=options)
