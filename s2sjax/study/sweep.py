"""A sweep: an experiment's preset with every combination of some settings, each a cell.

Cells whose arms share all their programs are packed into one job: their arms are replicas. Names
come from the settings, so a plan can grow, and nothing in it is renamed.

=================  =================================================================================
``sweep.json``     the plan: what was asked, the cells, the jobs with the cells of each
``cells/NAME``     what a finished cell found; it is there as a whole or not at all
``jobs/JOB.N``     the workdir of attempt N at a job
``claims/JOB.N``   who makes that attempt, and how it ended (`leases`)
``logs/JOB.N``     what it printed
=================  =================================================================================

Whoever takes a job over renames its workdir. An attempt that was frozen meanwhile, and wakes up,
finds neither its claim nor its folder, and what it writes harms nobody.
"""

import fcntl
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import chain, product
from pathlib import Path
from typing import Any, NamedTuple

from s2sjax.errors import UserError
from s2sjax.files import PARTIAL, read_json, write_json
from s2sjax.serial import config_hash, differences, from_json, to_json
from s2sjax.study.ablation import Ablation
from s2sjax.study.experiment import Experiment, Study
from s2sjax.train.run import Run
from s2sjax.train.workdir import LOCK

Settings = Mapping[str, Any]  # values by dotted name, as "model.hidden_size"

FOLDERS = ("cells", "jobs", "claims", "logs", "slurm")
PARTS = ("experiment", "preset", "seeds", "first_seed", "lease", "run", "cells", "jobs")
LONGEST = 120  # characters of a name; longer ones end in a hash
WORDS = {"None": None, "True": True, "False": False}


class Job(NamedTuple):
    """Cells that are trained together."""

    cells: Sequence[str]
    programs: Sequence[tuple[Sequence[str], int]]  # arms of a cell and epochs, of each program


def grid_of(options: Sequence[str], run: Run) -> dict[str, Settings]:
    """Every combination of options such as ``model.hidden_size=64,128``, by the cell's name."""
    values: dict[str, list[Any]] = {}
    for option in options:
        name, _, texts = option.partition("=")
        if not texts or name in values:
            wrong = "is there twice" if texts else "must be NAME=VALUE,VALUE"
            raise UserError(f"--grid {option}: {wrong}")
        _require(run, name)
        values[name] = [_value(text) for text in texts.split(",")]
    cells: dict[str, Settings] = {}
    for chosen in product(*values.values()):
        settings = dict(zip(values, chosen, strict=True))
        held = to_json(changed(run, settings))
        settings = {name: part_of(held, name) for name in sorted(settings)}
        cells[name_of(settings)] = settings
    return cells


def part_of(values: Any, name: str) -> Any:
    """The value of a setting, in a run as nested dicts."""
    for part in name.split("."):
        values = values[part]
    return values


def _require(run: Run, name: str) -> None:
    """Raise UserError unless a run has a setting of this name."""
    held, known = to_json(run), "a run"
    for part in name.split("."):
        if not isinstance(held, dict) or part not in held:
            there = ", ".join(held) if isinstance(held, dict) else "no settings of its own"
            raise UserError(f"--grid {name}: there is no {part!r}; {known} has {there}")
        held, known = held[part], part
    if isinstance(held, dict):
        raise UserError(f"--grid {name}: name one of its settings: {', '.join(held)}")


def _value(text: str) -> Any:
    """What was typed: a number, None, True, False, or a text."""
    try:
        return WORDS[text] if text in WORDS else json.loads(text)
    except ValueError:
        return text


def changed(run: Run, settings: Settings) -> Run:
    """The run with some settings changed, all at once."""
    values = to_json(run)
    for name, value in settings.items():
        place, _, last = name.rpartition(".")
        part_of(values, place)[last] = value
    try:
        return from_json(Run, values, "run")
    except UserError as error:
        raise UserError(f"cell {name_of(settings)}: {error}") from error


def name_of(settings: Settings) -> str:
    """The name of a cell, safe as a file's, whatever the order of its settings."""
    words = [f"{k}={v if isinstance(v, str) else json.dumps(v)}" for k, v in settings.items()]
    full = ",".join(sorted(words)) or "all"
    safe = re.sub(r"[^A-Za-z0-9._=,+-]", "_", full)[:LONGEST]
    return safe if safe == full else f"{safe}-{config_hash(dict(settings))[:8]}"


class Sweep:
    """A plan, and its folder."""

    def __init__(self, folder: Path, experiment: Experiment, plan: Mapping[str, Any]):
        self.folder, self.experiment, self.plan = folder, experiment, plan
        self.lease = float(plan["lease"])
        self.cells: Mapping[str, Settings] = plan["cells"]
        self.jobs = {name: Job(**job) for name, job in plan["jobs"].items()}
        self.cells_folder, self.claims_folder = folder / "cells", folder / "claims"
        self.work_folder, self.logs_folder = folder / "jobs", folder / "logs"

    @cached_property
    def run(self) -> Run:
        """The settings that all cells share."""
        return from_json(Run, self.plan["run"], "run")

    @property
    def seeds(self) -> range:
        first = self.plan["first_seed"]
        return range(first, first + self.plan["seeds"])

    def ablation(self, settings: Settings) -> Ablation:
        """The arms and seeds of a cell."""
        study = Study(changed(self.run, settings), len(self.seeds), self.seeds.start)
        return self.experiment.ablation(self.plan["preset"], study)

    def finished(self) -> set[str]:
        """Names of the cells that are finished."""
        return {*os.listdir(self.cells_folder)}

    def unfinished(self) -> list[str]:
        """Names of the jobs with a cell that is not finished."""
        there = self.finished()
        return [name for name, job in self.jobs.items() if not there.issuperset(job.cells)]

    def is_finished(self, job: str) -> bool:
        """Whether all cells of a job are finished."""
        return all((self.cells_folder / cell).exists() for cell in self.jobs[job].cells)

    def log(self, job: str) -> str:
        """The log of a job, over all its attempts."""
        paths = self.logs_folder.glob(f"{job}.*")
        numbered = sorted((int(p.name.rpartition(".")[2]), p) for p in paths)
        return "".join(p.read_text(encoding="utf-8", errors="replace") for _, p in numbered)


def load(folder: Path, find: Callable[[str], Experiment]) -> Sweep:
    """The sweep of a folder; `find` gives an experiment by name."""
    held = _held(folder)
    if held is None:
        raise UserError(f"{folder} holds no sweep.json: it is not the folder of a sweep")
    return Sweep(folder, find(held["experiment"]), held)


def _held(folder: Path) -> dict[str, Any] | None:
    """The plan in a folder, None where there is none."""
    path = folder / "sweep.json"
    if not path.exists():
        return None
    plan = read_json(path, "restore it: it names the cells and the jobs")
    if not isinstance(plan, dict) or {*PARTS} - {*plan}:
        raise UserError(f"{path} is damaged or of another version: restore it")
    return plan


def make_plan(
    folder: Path,
    experiment: Experiment,
    preset: str,
    study: Study,
    grid: Sequence[str],
    pack: int,
    lease: float,
) -> Sweep:
    """The plan of a folder with all cells of a grid: it is made, or the cells that lack are added.

    At most `pack` cells share a job; `lease` is that of claims (`leases`), in seconds. Raises
    UserError where the folder holds another sweep, or a cell cannot be; then nothing is written.
    """
    asked = {
        "experiment": experiment.name,
        "preset": preset,
        "seeds": study.seeds,
        "first_seed": study.first_seed,
        "lease": lease,
        "run": to_json(study.run.pinned()),
    }
    held = _held(folder) or {**asked, "cells": {}, "jobs": {}}
    sweep = Sweep(folder, experiment, held)
    if changes := differences({name: held[name] for name in asked}, asked):
        remedy = "choose another --out, or repeat the first command"
        raise UserError(f"{folder} holds another sweep ({'; '.join(changes[:4])}): {remedy}")
    cells = grid_of(grid, sweep.run)
    known = {changed(sweep.run, cell) for cell in sweep.cells.values()}  # by whatever name
    cells = {name: cell for name, cell in cells.items() if changed(sweep.run, cell) not in known}
    new = {name: sweep.ablation(cell) for name, cell in cells.items()}
    _refuse_repeated(new)
    strange = {p.name for p in folder.iterdir()} - {LOCK, *FOLDERS} if folder.exists() else set()
    if not sweep.cells and any(not name.endswith(PARTIAL) for name in strange):
        raise UserError(f"{folder} is not empty and holds no sweep: choose another --out")
    for name in FOLDERS:
        (folder / name).mkdir(parents=True, exist_ok=True)
    with (folder / LOCK).open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        held = _held(folder) or held  # another command may have added cells meanwhile
        new = {name: ablation for name, ablation in new.items() if name not in held["cells"]}
        if new:
            jobs = {name: job._asdict() for name, job in _jobs(new, pack)}
            cells = {**held["cells"], **{name: cells[name] for name in new}}
            held = {**held, "cells": cells, "jobs": {**held["jobs"], **jobs}}
            write_json(folder / "sweep.json", held)
    return Sweep(folder, experiment, held)


def _refuse_repeated(cells: Mapping[str, Ablation]) -> None:
    """Raise UserError where two cells are the same: the arms set what the grid changes."""
    first: dict[str, str] = {}
    for name, ablation in cells.items():
        other = first.setdefault(config_hash(ablation.config), name)
        if other != name:
            why = "the arms of this experiment set what the grid changes"
            raise UserError(f"cells {other} and {name} have the same arms: {why}")


def _jobs(cells: Mapping[str, Ablation], pack: int) -> Iterator[tuple[str, Job]]:
    """Jobs of at most `pack` cells whose arms share all programs.

    With early stopping a cell is alone: a stack trains until its last replica stops.
    """
    packs: dict[str, list[list[str]]] = {}
    for name, ablation in cells.items():
        early = any(run.train.patience is not None for run in ablation.arms.values())
        key = name if early else json.dumps([(key, [*of]) for key, of in ablation.programs])
        arms = {*ablation.arms.values()}
        for together in packs.setdefault(key, []):
            others = chain.from_iterable(cells[cell].arms.values() for cell in together)
            if len(together) < pack and arms.isdisjoint(others):
                together.append(name)
                break
        else:
            packs[key].append([name])
    for together in chain.from_iterable(packs.values()):
        first, more = together[0], len(together) - 1
        programs = [
            ([*of], next(iter(of.values())).train.epochs) for _, of in cells[first].programs
        ]
        yield f"{first}+{more}" if more else first, Job(together, programs)
