r"""Run an experiment with every combination of some settings, on one machine or many.

    python experiments/sweep.py reverse_vs_forward clean --seeds 100..119  \
        --grid model.hidden_size=64,128,256 --grid optim.learning_rate=1e-3,3e-3

trains six cells, each with both arms and 20 seeds, and keeps them in runs/sweeps/EXPERIMENT/PRESET,
or the folder --out. The first words are a script of this folder and one of its presets; more
options change settings of all cells (--train.epochs 50). The same command goes on where it stopped
and does what is missing or has failed; more values add cells.

    --on local    one job after another, each in a process of its own
    --on files    the same, as one of many workers: start the command as often as you like, on every
                  machine that shares the folder; the job of a worker that dies returns
    --on slurm    submit the jobs as arrays; --slurm="--partition=main --time=10:00" goes to sbatch
    --on kubernetes    list the jobs for experiments/jobs/kubernetes-sweep.yaml

    python experiments/sweep.py status FOLDER      how far every job is, and its last line
    python experiments/sweep.py collect FOLDER     scores.csv, comparisons.csv, report.md
    python experiments/sweep.py work FOLDER        one more worker
    python experiments/sweep.py work FOLDER JOB    that job alone, in this process

Cells that can share a program are trained together, --pack of them in a job: as replicas they need
one start and one compilation, and find on a CPU what they find alone, bit for bit. Exit codes: 0
all is done, 75 stopped, start again, 1 a cell has failed (`status` says why), 78 wrong settings.
"""

from terminal import main

import contextlib
import os
import re
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.console import Console

from s2sjax.cli import make_console, parse
from s2sjax.errors import BusyError, Interrupted, UserError
from s2sjax.files import write_atomically
from s2sjax.study.cells import run_job
from s2sjax.study.collect import collect
from s2sjax.study.experiment import Experiment, Study
from s2sjax.study.leases import LEASE, Claim, Claims
from s2sjax.study.slurm import submit
from s2sjax.study.sweep import Sweep, load, make_plan
from s2sjax.study.worker import Worker, status_table
from s2sjax.train.replicas import use_all_cores
from s2sjax.train.run import Run
from s2sjax.train.stopping import stop_requests

HERE = Path(__file__).resolve().parent
WORK = (sys.executable, str(HERE / "sweep.py"), "work")


@dataclass(frozen=True)
class Command:
    """The options of a sweep."""

    run: Annotated[Run, tyro.conf.arg(name="")] = field(default_factory=Run)
    grid: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """NAME=VALUE,VALUE such as model.hidden_size=64,128; once for every setting that changes."""
    seeds: str | None = None
    """FIRST..LAST, such as 100..119, of every arm; None: those of the preset."""
    on: Literal["local", "files", "slurm", "kubernetes"] = "local"  # Where the jobs run
    out: Path | None = None  # Folder of the sweep; None: runs/sweeps/EXPERIMENT/PRESET
    pack: int = 8  # Most cells that one job trains together; 1: each alone
    lease: float = LEASE  # Seconds after which the job of a worker that gives no sign is taken over
    slurm: str = ""  # Options for sbatch


def main_of_sweep() -> None:
    """Read the command line, and do what it says."""
    first, *words = [*sys.argv[1:], "--help"][: max(1, len(sys.argv) - 1)]
    if first in ("-h", "--help"):
        print(__doc__)
        print("Experiments and presets:")
        for name in experiments():
            print(f"    {name}: {', '.join(find(name).presets)}")
    elif first in ("status", "collect", "work"):
        if not 1 <= len(words) <= (3 if first == "work" else 1):
            raise UserError(f"after {first} give the folder of a sweep, and no more")
        sweep, console = load(Path(words[0]), find), make_console()
        if first == "status":
            console.print(status_table(sweep).rich())
        elif first == "collect":
            _collect(sweep, console)
        elif len(words) == 1:
            sys.exit(Worker(sweep, WORK, console).run())
        else:
            _work(sweep, *words[1:])
    else:
        _sweep(first, words, make_console())


def experiments() -> list[str]:
    """Names of the scripts that define an experiment."""
    return sorted(p.stem for p in HERE.glob("*.py") if "\nEXPERIMENT = " in p.read_text("utf-8"))


def find(name: str) -> Experiment:
    """The experiment of a script of this folder."""
    if name not in experiments():
        raise UserError(f"there is no experiment {name!r}; there are {', '.join(experiments())}")
    return import_module(name).EXPERIMENT


def _sweep(name: str, words: Sequence[str], console: Console) -> None:
    experiment = find(name)
    preset, *options = [*words, ""][: max(1, len(words))]
    if preset not in experiment.presets:
        there = ", ".join(experiment.presets)
        raise UserError(f"{name} has no preset {preset!r}; it has {there}")
    what, study = experiment.presets[preset]
    asked = parse(
        Command, what, prog=f"sweep.py {name} {preset}", args=options, default=Command(study.run)
    )
    seeds = study.seeds, study.first_seed
    if asked.seeds is not None:
        ends = re.fullmatch(r"(\d+)(?:\.\.(\d+))?", asked.seeds)
        first, last = (int(ends[1]), int(ends[2] or ends[1])) if ends else (1, 0)
        if first > last:
            raise UserError(f"--seeds must be FIRST..LAST, such as 100..119, not {asked.seeds}")
        seeds = last - first + 1, first
    if asked.pack < 1 or not asked.lease > 0:
        raise UserError("--pack must be at least 1, and --lease above 0")
    study = Study(asked.run, *seeds)
    experiment.prepare(preset, study)
    folder = asked.out or Path("runs") / "sweeps" / name / preset
    sweep = make_plan(folder, experiment, preset, study, asked.grid, asked.pack, asked.lease)
    console.print(f"{folder}: {len(sweep.cells)} cells in {len(sweep.jobs)} jobs", soft_wrap=True)
    if asked.on == "slurm":
        for line in submit(sweep, HERE / "sweep.py", asked.slurm.split()):
            console.print(line, soft_wrap=True)
        return
    if asked.on == "kubernetes":
        listed = folder / "kubernetes.txt"  # it only grows: pods find their jobs by line
        write_atomically(listed, "".join(f"{job}\n" for job in sweep.jobs))
        console.print(f"{listed}: completions: {len(sweep.jobs)}", soft_wrap=True)
        return
    code = Worker(sweep, WORK, console).run()
    _collect(sweep, console)
    if code:
        status = f"python experiments/sweep.py status {folder}"
        console.print(f"not all cells are done; why: {status}", soft_wrap=True)
    sys.exit(code)


def _collect(sweep: Sweep, console: Console) -> None:
    found = collect(sweep)
    for hole in found.holes[:10]:
        console.print(f"missing: {hole.what}: {hole.why}", soft_wrap=True)
    more = f"; {len(found.holes)} holes" if found.holes else ""
    console.print(
        f"{len(found.scores):,} scores, {sweep.folder / 'report.md'}{more}", soft_wrap=True
    )


def _work(sweep: Sweep, job: str, attempt: str | None = None) -> None:
    """Run a job in this process: `attempt` at it, which a worker has made, or the next one."""
    if job not in sweep.jobs:
        raise UserError(f"{sweep.folder} has no job {job!r}; sweep.json names them")
    use_all_cores()
    with stop_requests() as stop:
        if attempt is not None:
            claim = Claim(sweep.claims_folder, job, int(attempt))
            return run_job(sweep, claim, make_console(), stop)
        if job not in sweep.unfinished():
            return print(f"{job} is done")
        with _claimed(sweep, job) as claim:
            run_job(sweep, claim, make_console(), stop)


@contextlib.contextmanager
def _claimed(sweep: Sweep, job: str) -> Iterator[Claim]:
    """Inside, this process has a job, and what it prints goes to the job's log."""
    claims = Claims(sweep.claims_folder, sweep.lease)
    number = claims.attempts().get(job, 0)
    until = time.monotonic() + 1.5 * sweep.lease
    while number and claims.read(job, number)["state"] == "running":
        if claims.is_abandoned(job, number):
            break
        if time.monotonic() > until:
            raise BusyError(f"another worker runs {job}: {claims.read(job, number)}")
        time.sleep(sweep.lease / 8)
    claim = claims.take(job, number)
    if claim is None:
        raise BusyError(f"another worker was faster to take {job}")
    log = sweep.logs_folder / f"{job}.{claim.number}"
    print(f"{job}: attempt {claim.number}, log {log}", flush=True)
    with claim, log.open("ab") as output:
        shown = os.dup(2)
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
        try:
            yield claim
        except BaseException as error:
            stopped = isinstance(error, Interrupted | KeyboardInterrupt)
            claim.end("stopped" if stopped else "failed", str(error) or type(error).__name__)
            os.write(shown, f"{job}: {' '.join(str(error).split())}\n".encode())
            raise
        claim.end("done")


if __name__ == "__main__":
    main(main_of_sweep)
