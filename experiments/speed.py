"""How fast the ablation trains on this machine, and what it costs to compile and to hold.

The question: updates a second and replica of the notebook's model; start and compile time; memory.

The command: ``python experiments/speed.py``; for sentence pairs ``speed.py --translation``. Time:
two minutes on two CPU cores. What to expect: results/speed.md.

Both arms of the notebook's preset are trained, all replicas in one program, in each of the two ways
that `s2sjax.train.replicas.lift` knows. An epoch is timed as a whole and the median is quoted.

With ``--translation`` it is one replica of two layers of 256 units, in two directions, with
additive attention, on drawn pairs of Multi30k's size: 29,000, of 12.4 and 13 words on average,
8,000 and 6,000 symbols. What is timed is the beginning of an epoch.
"""

from terminal import main

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import reverse_vs_forward
from reverse_vs_forward import EXPERIMENT
from translation import LARGE

from s2sjax.cli import make_console, parse
from s2sjax.data.sentences import Sentences
from s2sjax.data.vocab import SPECIALS
from s2sjax.errors import UserError
from s2sjax.report.tables import Table
from s2sjax.study.experiment import Study
from s2sjax.study.group import Group
from s2sjax.train.loop import Stack
from s2sjax.train.progress import peak_memory
from s2sjax.train.replicas import fetch, lift, stack, use_all_cores
from s2sjax.train.run import Run

PAIRS, SOURCES, TARGETS = 32_200, 8_000, 6_000
"""As of Multi30k: pairs, nine tenths of them to train on; symbols of the vocabularies."""
LAYERS: dict[str, Any] = {"encoder_layers": 2, "decoder_layers": 2, "directions": 2}
BAHDANAU: dict[str, Any] = {"attention": "additive", "attend": "before"}
BASE = replace(LARGE, model=replace(LARGE.model, hidden_size=256, **LAYERS, **BAHDANAU))
AT_LEAST = 20  # updates that are timed together; an epoch of the notebook's has 40
ROUNDS = 5  # how often they are timed, after a first time


@dataclass(frozen=True)
class Speed:
    """What was asked for on the command line."""

    seeds: int | None = None  # Seeds of each arm; None: 10, of sentence pairs 1
    translation: bool = False  # Time the training on sentence pairs instead


def first_line_after(seeds: int) -> float:
    """From the start of Python to the first line of progress of the notebook's preset."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, reverse_vs_forward.__file__, "notebook"]
        command += ["--seeds", str(seeds), "--workdir", f"{folder}/run"]
        started = time.perf_counter()
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            next(line for line in process.stdout if line.startswith("epoch 1/"))
            process.kill()
        return time.perf_counter() - started


def beginning(runs: Stack, state: Any) -> Iterator[tuple[int, tuple[Any, ...], float]]:
    """Blocks of the first epoch: the bucket, arguments of its program, target symbols of a run."""
    rows, mesh, updates = runs.train, runs.programs.mesh, 0
    examples = stack([split.examples for split in rows], mesh)
    order = fetch(runs.programs("order", n=len(rows[0].lengths))(state), len(runs.labels))
    for number, first, count in runs.schedule.blocks(epoch=0):
        batches = runs.schedule.batches(order, number)
        indices, weights = (x[0, first : first + count] for x in batches)
        symbols = float(((rows[0].lengths[indices, 1] - 1) * weights).sum())
        yield number, (examples, *(stack([*x], mesh) for x in batches), first, count), symbols
        if (updates := updates + count) >= AT_LEAST:
            return


def measure(group: Group, *, rival: bool = False) -> Table:
    """Compile every shape and train a little; a rival is the way that is not used here."""
    runs = group.stack()
    programs, schedule = runs.programs, runs.schedule
    state, losses = group.begin(runs)
    work = [*beginning(runs, state)]
    devices = programs.mesh.devices.flatten()
    ways = ["in turns", "vmapped"][:: 1 if devices[0].platform == "cpu" else -1]

    def compiled(way: str) -> list[Any]:
        made = {}
        for number, arguments, _ in work:
            chunk = partial(programs.trainer.train_chunk, widths=schedule.buckets[number][:2])
            lifted = lift(chunk, programs.mesh, (0, 1), 2, in_turns=way == "in turns")
            made[number] = made.get(number) or lifted.lower(state, losses, *arguments).compile()
        return [(made[number], arguments) for number, arguments, _ in work]

    def train(steps: list[Any]) -> float:
        nonlocal state, losses
        started = time.perf_counter()
        for step, arguments in steps:
            state, losses, _ = step(state, losses, *arguments)
        jax.block_until_ready(losses)
        return time.perf_counter() - started

    started = time.perf_counter()
    layouts = {ways[0]: compiled(ways[0])}
    compiling = time.perf_counter() - started
    train(layouts[ways[0]])
    for _ in range(2):  # the first time it is compiled
        started = time.perf_counter()
        runs.score(state.params, runs.dev)
        evaluating = time.perf_counter() - started
    peak = peak_memory()
    layouts |= {ways[1]: compiled(ways[1])} if rival else {}
    seconds: dict[str, list[float]] = {way: [] for way in layouts}
    for _ in range(ROUNDS + 1):
        for way, steps in layouts.items():  # interleaved: machines drift
            seconds[way].append(train(steps))

    replicas, updates = len(runs.labels), sum(arguments[-1] for _, arguments, _ in work)
    training, shapes = runs.training, (" x ".join(map(str, b)) for b in schedule.buckets)
    medians = {way: statistics.median(times[1:]) for way, times in seconds.items()}
    epoch = medians[ways[0]] * schedule.updates / updates
    looks = training.epochs // training.eval_every
    whole = training.epochs * epoch + looks * evaluating
    symbols = sum(of_block for *_, of_block in work) / medians[ways[0]]
    padding_fraction = " and ".join(f"{share:.1%}" for share in schedule.padding_fraction)
    rows = [
        ("devices", f"{len(devices)} x {devices[0].device_kind}, jax {jax.__version__}"),
        ("replicas", str(replicas)),
    ]
    for way, median in medians.items():
        each = f"{updates / median:.1f} each, {replicas * updates / median:,.0f} in all"
        spread = f"{median:.2f} s ({min(seconds[way][1:]):.2f} to {max(seconds[way][1:]):.2f})"
        rows.append((f"updates a second, replicas {way}", each))
        rows.append((f"{updates} updates: median of {ROUNDS}", spread))
    rows += [
        ("target symbols a second of a replica, end symbols counted", f"{symbols:,.0f}"),
        (f"an epoch of {schedule.updates} updates, replicas {ways[0]}", f"{epoch:.1f} s"),
        (f"{training.epochs} epochs and {looks} evaluations", f"{whole / 60:.1f} min"),
        (f"compiling {len({n for n, *_ in work})} shapes of an update", f"{compiling:.1f} s"),
        (f"evaluating {len(runs.dev[0].lengths):,} questions", f"{evaluating:.2f} s"),
        ("shapes: source x target x rows", ", ".join(shapes)),
        ("padding of source and of target positions", padding_fraction),
        ("peak memory, of what a run uses", peak),
    ]
    return Table("Speed", ("what", "how much"), tuple(rows))


def pairs_group(seeds: int = 1, run: Run = BASE, pairs: int = PAIRS) -> Group:
    """A model for sentence pairs: random words, as many and as long as Multi30k's."""
    rng = np.random.default_rng(0)
    sources = np.clip(np.rint(rng.normal(12.4, 4, pairs)), 2, 40).astype(int)
    targets = np.clip(np.rint(sources + rng.normal(0.6, 2, pairs)), 2, 41).astype(int)

    def words(n: int, symbols: int) -> str:
        return " ".join(f"w{i}" for i in rng.integers(symbols - len(SPECIALS), size=n))

    sides = zip(sources, targets, strict=True)
    lines = [f"{words(m, SOURCES)}\t{words(n, TARGETS)}\n" for m, n in sides]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "drawn.tsv"
        path.write_text("".join(lines), encoding="utf-8")
        task = Sentences(train=str(path)).pinned()
        text = replace(run.text, min_count=1, max_length=80)
        group = Group({"drawn": replace(run, task=task, text=text)}, seeds, 0)
        group.stack()  # reads the file
    return group


def speed() -> None:
    """Parse, measure, print."""
    asked = parse(Speed, __doc__ or "")
    if asked.seeds is not None and asked.seeds < 1:
        raise UserError("--seeds must be at least 1")
    use_all_cores()
    if asked.translation:
        table = measure(pairs_group(asked.seeds or 1))
    else:
        seeds = asked.seeds or 10
        first_line = ("from start to the first line", f"{first_line_after(seeds):.1f} s")
        study = Study(EXPERIMENT.presets["notebook"][1].run, seeds)
        (group,) = EXPERIMENT.ablation("notebook", study).groups.values()
        table = measure(group, rival=True)
        table = replace(table, rows=(*table.rows, first_line))
    make_console().print(table.rich())


if __name__ == "__main__":
    main(speed)
