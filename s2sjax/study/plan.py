"""What is about to run: the parameter table, the plan, and which arms share a program."""

import math

import jax
import numpy as np

from s2sjax.data.dataset import rows_of
from s2sjax.data.sentences import Sentences
from s2sjax.model.dropout import Rates
from s2sjax.report.tables import Table
from s2sjax.serial import differences
from s2sjax.study.ablation import Ablation
from s2sjax.train.run import Run, make_schedule, make_trainer, rows_sizes


def _parameters(run: Run) -> list[tuple[str, tuple[int, ...]]]:
    """Name and shape of every parameter of one replica."""
    key, rate = np.zeros(2, np.uint32), np.float32(0)
    state = jax.eval_shape(make_trainer(run).init, key, rate, Rates.of(run.model))
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
    rows.append(("all", "", f"{parameter_count(ablation.run):,}"))
    title = f"Parameters of one replica of {next(iter(ablation.arms))}"
    return Table(title, ("name", "shape", "count"), tuple(rows))


def plan_table(ablation: Ablation) -> Table:
    """Arms, seeds, updates and devices."""
    each = {(run.train.epochs, make_schedule(run).updates) for run in ablation.arms.values()}
    updates = sorted({epochs * of_epoch for epochs, of_epoch in each})
    hows = [f"{epochs} epochs x {of_epoch} = " for epochs, of_epoch in each]
    how = hows[0] if len(hows) == 1 else ""
    devices = next(iter(ablation.groups.values())).programs.mesh.devices.flatten()
    n, first = ablation.seeds, ablation.first_seed
    rows = (
        ("arms", ", ".join(ablation.arms)),
        ("seeds", f"{n} ({first} to {first + n - 1}), the same for every arm"),
        ("replicas", f"{len(ablation.arms) * n} = arms x seeds"),
        ("updates", f"{how}{' or '.join(f'{n:,}' for n in updates)} each"),
        ("devices", f"{len(devices)} x {devices[0].device_kind}, of {jax.device_count()}"),
    )
    return Table("Plan", ("what", "how"), rows)


def program_table(ablation: Ablation) -> Table:
    """The programs to compile, the arms of each, and why they are not one."""
    rows, (first, _) = [], ablation.programs[0]
    for key, arms in ablation.programs:
        count = f"{parameter_count(next(iter(arms.values()))):,}"
        why = "; ".join(differences(first, key)) or "the first"
        rows.append((str(len(rows) + 1), ", ".join(arms), count, why))
    return Table(
        f"{len(rows)} program{'s' * (len(rows) > 1)} to train",
        ("program", "arms", "parameters", "how it differs from the first"),
        tuple(rows),
        "Arms that differ in data, learning rate or how much is dropped share a program.",
    )


def pairs_table(ablation: Ablation) -> Table | None:
    """What was read from files: of the first arm; None where the pairs are generated."""
    run = ablation.run
    if not isinstance(run.task, Sentences):
        return None
    formatter, schedule = run.formatter, make_schedule(run)
    splits = [rows_of(run.task, run.text, 0, split) for split in ("train", "dev", "test")]
    train, dev, _ = splits
    mean, padding_fraction = train.lengths.mean(axis=0), schedule.padding_fraction
    sides = zip(dev.examples, (formatter.source, formatter.target), dev.lengths.T, strict=True)
    unknown = [(ids == of.unk_id).sum() / max(int(lengths.sum()), 1) for ids, of, lengths in sides]
    units = f"{run.text.source_unit} and {run.text.target_unit}"
    buckets = ", ".join(" x ".join(map(str, bucket)) for bucket in schedule.buckets)
    sizes = ", ".join(f"{n:,}" for n in rows_sizes(run).values())
    rows = (
        *run.task.corpus().notes.items(),
        ("pairs to train on, of dev and of test", sizes),
        ("too long, left out of these", ", ".join(f"{split.left_out:,}" for split in splits)),
        (f"vocabularies: {units}", f"{len(formatter.source):,} and {len(formatter.target):,}"),
        ("unknown symbols of dev", f"{unknown[0]:.1%} and {unknown[1]:.1%}"),
        ("a mean row, start and end included", f"{mean[0]:.1f} and {mean[1]:.1f}"),
        ("batches: source x target x rows", buckets),
        (
            "padding of source and target positions",
            f"{padding_fraction[0]:.1%} and {padding_fraction[1]:.1%}",
        ),
    )
    return Table("What was read", ("what", "how much"), rows)
