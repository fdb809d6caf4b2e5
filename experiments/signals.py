"""How soon does a run honour a signal, and does it end in the same bits?

The command: ``python experiments/signals.py [--signals 100]``. It starts a small run, sends it
SIGTERM, SIGUSR1, SIGHUP or SIGKILL at a random moment, waits for the end, and starts the same
command again, until the run is finished; then the next run. The table has a row for each phase in
which signals came. Every finished run is compared, bit for bit, with one that nothing stopped.

Time on two CPU cores: about half an hour for 100 signals.
"""

from terminal import main

import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from s2sjax.cli import make_console, parse
from s2sjax.errors import UserError, check_range
from s2sjax.report.results import load_results
from s2sjax.report.tables import Table

SCRIPT = Path(__file__).with_name("reverse_vs_forward.py")
OPTIONS = "smoke --seeds 2 --train.epochs 20 --train.eval-every 1 --train.checkpoint-every 5"
SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP, signal.SIGKILL)
PHASES = {  # by the last line that was printed
    "": "starting: Python and its imports",
    "program": "drawing questions, compiling",
    "epoch": "training, scoring, saving",
    "scoring": "scoring the trained models",
    "drawing": "writing the report",
}
KILLED = "any of these, killed with SIGKILL"


@dataclass(frozen=True)
class Settings:
    """The command line."""

    signals: int = 100
    """How many are sent."""
    seed: int = 0
    """Of the random moments."""

    def __post_init__(self) -> None:
        """Refuse no signals at all."""
        check_range(1, self, "signals", most=10_000)


def phase(printed: str) -> str:
    """What a run was doing when it had printed so much."""
    words = [line.split()[0] for line in printed.splitlines() if line.strip()]
    return next((PHASES[word] for word in reversed(words) if word in PHASES), PHASES[""])


def started(folder: Path) -> tuple[subprocess.Popen[bytes], Path]:
    """A run in a folder, and the file that it prints to."""
    log = folder.with_suffix(".log")
    command = [sys.executable, "-u", SCRIPT, *OPTIONS.split(), "--workdir", folder]
    with log.open("w") as file:
        return subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT), log


def end(folder: Path) -> object:
    """What a finished run found: every number that it measured."""
    results = load_results(folder / "results.json")
    return json.dumps(results["records"])


def signals() -> None:
    """Send signals, and print the table."""
    settings = parse(Settings, __doc__ or "")
    console, rng = make_console(), random.Random(settings.seed)
    rows: dict[str, list[tuple[float, int]]] = defaultdict(list)
    runs = sent = 0
    with tempfile.TemporaryDirectory() as root:
        whole = Path(root) / "whole"
        before = time.monotonic()
        if started(whole)[0].wait():
            raise UserError(f"the run itself fails: {whole.with_suffix('.log').read_text()[-200:]}")
        longest = time.monotonic() - before
        while sent < settings.signals:
            folder = Path(root) / str(runs)
            process, log = started(folder)
            try:
                process.wait(rng.uniform(0, longest))
            except subprocess.TimeoutExpired:
                number = rng.choice(SIGNALS)
                at = phase(log.read_text(errors="replace"))
                at = KILLED if number == signal.SIGKILL else at
                asked = time.monotonic()
                process.send_signal(number)
                code = process.wait()
                if code != 0:  # else it was at its end
                    rows[at].append((time.monotonic() - asked, code))
                    sent += 1
                    console.print(f"{sent}/{settings.signals}  {number.name}  {at}  exit {code}")
                    continue
            if process.returncode != 0:
                raise UserError(f"a run ended with {process.returncode}: {log.read_text()[-300:]}")
            if end(folder) != end(whole):
                raise UserError(f"run {runs} ended in other numbers than one that nothing stopped")
            runs += 1
    table = [
        (
            name,
            str(len(found)),
            *(f"{f(s for s, _ in found):.1f} s" for f in (median, max)),
            ", ".join(map(str, sorted({code for _, code in found}))),
        )
        for name in (*PHASES.values(), KILLED)
        if (found := rows[name])
    ]
    title = f"{sent} signals, {runs} runs finished, all with the same numbers"
    headers = ("the signal came while", "signals", "median to the end", "longest", "exit codes")
    print(Table(title, headers, tuple(table)).markdown())


if __name__ == "__main__":
    main(signals)
