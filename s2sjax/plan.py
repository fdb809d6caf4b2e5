"""What is about to run: the parameter table and the plan."""

import math

import jax

from s2sjax.ablation import Ablation
from s2sjax.report import Table


def parameter_table(ablation: Ablation) -> Table:
    """Name, shape and size of every parameter of one replica."""
    state = jax.eval_shape(ablation.trainer.init, jax.random.key(0))
    leaves = jax.tree_util.tree_leaves_with_path(state.params)
    rows = [
        (
            "/".join(str(step.key) for step in path),
            " x ".join(map(str, leaf.shape)),
            f"{math.prod(leaf.shape):,}",
        )
        for path, leaf in leaves
    ]
    total = sum(math.prod(leaf.shape) for _, leaf in leaves)
    return Table(
        title="Parameters of one replica",
        headers=("name", "shape", "count"),
        rows=(*rows, ("all", "", f"{total:,}")),
    )


def plan_table(ablation: Ablation) -> Table:
    """Arms, seeds, updates, programs and devices."""
    train, seeds = ablation.run.train, ablation.seeds
    per_epoch = ablation.updates_per_epoch()
    devices = ablation.mesh.devices.flatten()
    last = ablation.first_seed + seeds - 1
    replicas = len(ablation.replicas)
    task = ablation.run.task
    sizes = len({task.train, task.dev, task.test})  # one for each size of a split
    return Table(
        title="Plan",
        headers=("what", "how"),
        rows=(
            ("arms", ", ".join(ablation.arms)),
            ("seeds", f"{seeds} ({ablation.first_seed} to {last}), the same for every arm"),
            ("replicas", f"{replicas} = arms x seeds"),
            ("updates", f"{train.epochs} epochs x {per_epoch} = {train.epochs * per_epoch:,} each"),
            ("programs", f"1 to train, {sizes} to evaluate, for all arms and seeds"),
            ("devices", f"{len(devices)} x {devices[0].device_kind}, of {jax.device_count()}"),
        ),
    )
