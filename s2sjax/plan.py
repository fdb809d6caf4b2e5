"""What is about to run: the parameter table, the plan, and which arms share a program."""

import math

import jax
import jax.numpy as jnp

from s2sjax.ablation import Ablation
from s2sjax.config import Run
from s2sjax.dropout import Rates
from s2sjax.group import make_trainer, updates_per_epoch
from s2sjax.report import Table


def _parameters(run: Run) -> list[tuple[str, tuple[int, ...]]]:
    """Name and shape of every parameter of one replica."""
    init = make_trainer(run).init
    state = jax.eval_shape(init, jax.random.key(0), jnp.float32(0), Rates.of(run.model))
    leaves = jax.tree_util.tree_leaves_with_path(state.params)
    return [("/".join(str(step.key) for step in path), leaf.shape) for path, leaf in leaves]


def parameter_count(run: Run) -> int:
    """Parameters of one replica."""
    return sum(math.prod(shape) for _, shape in _parameters(run))


def parameter_table(ablation: Ablation) -> Table:
    """Name, shape and size of every parameter of one replica of the first arm."""
    rows = [
        (name, " x ".join(map(str, shape)), f"{math.prod(shape):,}")
        for name, shape in _parameters(ablation.run)
    ]
    return Table(
        title=f"Parameters of one replica of {next(iter(ablation.arms))}",
        headers=("name", "shape", "count"),
        rows=(*rows, ("all", "", f"{parameter_count(ablation.run):,}")),
    )


def plan_table(ablation: Ablation) -> Table:
    """Arms, seeds, updates and devices."""
    train, seeds = ablation.run.train, ablation.seeds
    updates = {arm: r.train.epochs * updates_per_epoch(r) for arm, r in ablation.arms.items()}
    every = sorted(set(updates.values()))
    how = f"{train.epochs} epochs x {updates_per_epoch(ablation.run)} = " if len(every) == 1 else ""
    devices = ablation.groups[0].mesh.devices.flatten()
    last = ablation.first_seed + seeds - 1
    return Table(
        title="Plan",
        headers=("what", "how"),
        rows=(
            ("arms", ", ".join(ablation.arms)),
            ("seeds", f"{seeds} ({ablation.first_seed} to {last}), the same for every arm"),
            ("replicas", f"{len(ablation.arms) * seeds} = arms x seeds"),
            ("updates", f"{how}{' or '.join(f'{n:,}' for n in every)} each"),
            ("devices", f"{len(devices)} x {devices[0].device_kind}, of {jax.device_count()}"),
        ),
    )


def program_table(ablation: Ablation) -> Table:
    """The programs to compile, the arms of each, and why they are not one."""
    rows = [
        (str(number), ", ".join(group.arms), f"{parameter_count(group.run):,}", why)
        for number, (group, why) in enumerate(
            zip(ablation.groups, ablation.reasons(), strict=True), start=1
        )
    ]
    n = len(rows)
    return Table(
        title=f"{n} program{'' if n == 1 else 's'} to train",
        headers=("program", "arms", "parameters", "what it has that the first has not"),
        rows=tuple(rows),
        note="Arms that differ in data, learning rate or how much is dropped share a program.",
    )
