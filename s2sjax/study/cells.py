"""One job of a sweep: its cells are trained together, and each gets what it would have alone."""

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from s2sjax.errors import UserError
from s2sjax.files import PARTIAL, read_json, write_atomically, write_json
from s2sjax.report.results import Results, dump_results
from s2sjax.serial import config_hash
from s2sjax.study.ablation import Ablation, comparisons, run
from s2sjax.study.experiment import Study
from s2sjax.study.leases import Claim
from s2sjax.study.sweep import Sweep
from s2sjax.train.stopping import Stop
from s2sjax.train.workdir import LOCK, Workdir


class _Fenced(Workdir):
    """A workdir that belongs to an attempt at a job: nothing is written after it has lost it."""

    def __init__(self, claim: Claim, path: Path, config: Mapping[str, Any]):
        self._fence = claim
        super().__init__(path, config)

    def check(self) -> None:
        self._fence.check()
        super().check()


def run_job(sweep: Sweep, claim: Claim, console: Console, stop: Stop | None = None) -> None:
    """Train the cells of a job, or go on, and put what they found into their folders.

    Raises BusyError where another worker has taken the job over.
    """
    try:
        _run_job(sweep, claim, console, stop)
    except (OSError, UserError):
        claim.check()  # an error because the folder is gone
        raise


def _run_job(sweep: Sweep, claim: Claim, console: Console, stop: Stop | None) -> None:
    cells, preset = sweep.jobs[claim.job].cells, sweep.plan["preset"]
    experiment = sweep.experiment
    experiment.prepare(preset, Study(sweep.run))
    ablations = {cell: sweep.ablation(sweep.cells[cell]) for cell in cells}
    first = ablations[cells[0]]
    suited = experiment.suited(first.run)
    compared = suited.metrics, experiment.pairs(preset)
    folder = _taken_over(sweep.work_folder, claim)
    if len(cells) == 1:
        together, shown = first, compared
    else:
        arms = {_packed(c, arm): run for c, of in ablations.items() for arm, run in of.arms.items()}
        together, shown = replace(first, arms=arms), (suited.metrics, [])
    config = {"experiment": experiment.name, "preset": preset, **together.config}
    with _Fenced(claim, folder, config) as workdir:
        results = run(experiment.name, preset, together, workdir, console, *shown, stop)
        lines = workdir.metrics_file.read_text(encoding="utf-8").splitlines()
        environment = read_json(workdir.config_file, "")["environment"]
    claim.check()
    log = sweep.log(claim.job, claim.number)
    if len(cells) == 1:
        write_atomically(folder / "log", log)
        _publish(folder, sweep.cells_folder / cells[0])
        return
    lost = {}
    for cell, ablation in ablations.items():
        if (sweep.cells_folder / cell).exists():
            continue
        own = _own(results, cell, ablation, len(cells), *compared)
        if not own["records"]:
            lost[cell] = next(iter(own["left_out"].values()))
            continue
        made = sweep.cells_folder / f".{cell}.{claim.number}{PARTIAL}"
        shutil.rmtree(made, ignore_errors=True)
        made.mkdir()
        held = {"experiment": experiment.name, "preset": preset, **ablation.config}
        write_json(made / "config.json", {**held, "environment": environment})
        write_atomically(made / "metrics.jsonl", "".join(_lines(lines, cell)))
        write_atomically(made / "log", log)
        write_atomically(made / "results.json", dump_results(own))
        _publish(made, sweep.cells_folder / cell)
    if lost:
        raise UserError("; ".join(f"{cell}: {why}" for cell, why in lost.items()))


def _packed(cell: str, arm: str) -> str:
    """The name of a cell's arm in a job of several cells; no cell's name has a blank."""
    return f"{cell}: {arm}"


def _own(
    results: Results, cell: str, ablation: Ablation, cells: int,
    metrics: Sequence[str], pairs: Sequence[tuple[str, str]],
) -> dict[str, Any]:  # fmt: skip
    """The part of a job's results that a cell run alone would have."""
    prefix = _packed(cell, "")
    records: list[Any] = [
        {**r, "arm": r["arm"].removeprefix(prefix)}
        for r in results["records"]
        if r["arm"].startswith(prefix)
    ]
    left_out = {
        what.removeprefix(prefix): why.replace(prefix, "")
        for what, why in results.get("left_out", {}).items()
        if what.startswith(prefix)
    }
    return {
        **{name: results[name] for name in ("experiment", "preset")},
        "config": ablation.config,
        "config_hash": config_hash(ablation.config),
        "environment": results["environment"],
        "seconds": round(results["seconds"] / cells, 1),
        "comparisons": comparisons(records, pairs, metrics),
        "records": records,
    } | ({"left_out": left_out} if left_out else {})


def _lines(lines: Sequence[str], cell: str) -> Iterator[str]:
    """A cell's lines of the metrics of its job."""
    prefix = _packed(cell, "")
    for line in lines:
        record = json.loads(line)
        if record["arm"].startswith(prefix):
            yield json.dumps({**record, "arm": record["arm"].removeprefix(prefix)}) + "\n"


def _publish(made: Path, target: Path) -> None:
    """Give a finished cell its name, unless an attempt that was overtaken has done so."""
    if not target.exists():
        os.rename(made, target)


def _taken_over(folder: Path, claim: Claim) -> Path:
    """The workdir of an attempt: that of the last one before it, renamed, if there is one."""
    mine = folder / f"{claim.job}.{claim.number}"
    for number in range(claim.number - 1, 0, -1):
        if mine.exists():
            break
        claim.check()
        with suppress(FileNotFoundError):
            os.rename(folder / f"{claim.job}.{number}", mine)
            (mine / LOCK).unlink(missing_ok=True)  # which a frozen process may still hold
    return mine
