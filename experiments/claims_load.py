"""What a thousand workers of a sweep ask of one shared folder: a simulation, without training.

The question: how many claims a second does a folder bear, and what does it see of each?

The command: ``python experiments/claims_load.py --workers 1000 --jobs 10000 --seconds 5``. Every
worker is a thread that does all of a real one but to train: it sleeps instead. The threads share
the cores of this machine, so a claim takes longer here than where each worker has its own.

What to expect: each job is claimed once. A worker lists the claims, makes one file, writes to it.
"""

from terminal import main

import os
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from s2sjax.cli import make_console, parse
from s2sjax.report.tables import Table
from s2sjax.study.experiment import Experiment
from s2sjax.study.leases import Claim, Claims
from s2sjax.study.sweep import FOLDERS, Sweep
from s2sjax.study.worker import Worker

CALLS = {"os.listdir": "listings", "open": "opened files", "os.rename": "renamed files"}
NOBODY = Experiment("none", "", {}, lambda *_: {}, lambda _: [])


@dataclass(frozen=True)
class Load:
    """How many work, and on what."""

    workers: int = 1_000
    jobs: int = 10_000
    seconds: float = 5.0  # That a job takes
    processes: int = 8  # That the workers are spread over
    folder: Path = Path("/tmp")  # Where the shared folder is made


class Sleeper(Worker):
    """A worker that sleeps instead of training."""

    seconds, ended = 0.0, 0.0

    def work(self, waits: list[float]) -> None:
        """Take jobs until none is left; notes how long each took to get."""
        while True:
            started = time.monotonic()
            claim = self._next()
            if claim is None:
                return
            waits.append(time.monotonic() - started)
            self._attempt(claim)

    def _attempt(self, claim: Claim) -> None:
        with claim:
            time.sleep(self.seconds)
            (self.sweep.cells_folder / claim.job).mkdir()
        claim.end("done")
        self.ended = time.monotonic()


def _some(
    load: Load, folder: Path, workers: int, begin: float
) -> tuple[list[float], Counter[str], float]:
    """The workers of one process: waits for claims, what they called, the end."""
    calls: Counter[str] = Counter()
    mine = str(folder)

    def count(event: str, arguments: tuple) -> None:
        if event in CALLS and str(arguments[0]).startswith(mine):
            calls[CALLS[event]] += 1

    plan = {"cells": {}, "lease": 60.0, "jobs": {}}
    plan["jobs"] = {f"cell={n}": {"cells": [f"cell={n}"], "programs": []} for n in range(load.jobs)}
    sweep, console = Sweep(folder, NOBODY, plan), make_console(quiet=True)
    Sleeper.seconds, waits = load.seconds, []
    sleepers = [Sleeper(sweep, (), console) for _ in range(workers)]
    threads = [threading.Thread(target=s.work, args=(waits,)) for s in sleepers]
    sys.addaudithook(count)
    time.sleep(max(0.0, begin - time.monotonic()))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return waits, calls, max(sleeper.ended for sleeper in sleepers)


def simulate() -> None:
    """Let the workers work, and show what that was."""
    load = parse(Load, __doc__ or "")
    with TemporaryDirectory(dir=load.folder) as name:
        folder = Path(name)
        for part in FOLDERS:
            (folder / part).mkdir()
        begin = time.monotonic() + 5
        shares = [len(range(n, load.workers, load.processes)) for n in range(load.processes)]
        with get_context("fork").Pool(load.processes) as pool:
            found = pool.starmap(_some, [(load, folder, share, begin) for share in shares])
        claims, attempts = os.listdir(folder / "claims"), Claims(folder / "claims").attempts()
    waits = np.array([wait for some, *_ in found for wait in some])
    calls = sum((some for _, some, _ in found), Counter[str]())
    took = max(ended for *_, ended in found) - begin
    assert len(claims) == len(attempts) == len(waits) == load.jobs, "a job was claimed twice"
    ideal = load.seconds * -(-load.jobs // load.workers)
    rows = [
        ("workers", f"{load.workers:,}"),
        ("jobs, each claimed once", f"{load.jobs:,}"),
        ("seconds from start to end", f"{took:.1f}"),
        ("seconds of it that the jobs take", f"{ideal:.1f}"),
        ("claims a second", f"{load.jobs / took:.0f}"),
        ("seconds to get a job, median", f"{np.median(waits):.3f}"),
        ("seconds to get a job, 95 of 100", f"{np.quantile(waits, 0.95):.3f}"),
        *((f"{what}, for each job", f"{n / load.jobs:.1f}") for what, n in sorted(calls.items())),
    ]
    make_console().print(Table("Claims on one folder", ("what", "measured"), tuple(rows)).rich())


if __name__ == "__main__":
    main(simulate)
