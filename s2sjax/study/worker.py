"""Workers of a sweep, which take jobs until none is left, and what all of them have done so far."""

import json
import random
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import NamedTuple

from rich.console import Console

from s2sjax.errors import AGAIN, FAULT, Interrupted, stopped_by
from s2sjax.report.tables import NONE, Table
from s2sjax.study.leases import Claim, Claims
from s2sjax.study.sweep import Sweep
from s2sjax.train.progress import duration
from s2sjax.train.stopping import SIGNALS

WATCHED = 32  # jobs of others that a worker without work looks at in one go: many watch one folder
TRIES = 4  # jobs that a worker tries to take before it lists the claims again
LINE = 60.0  # seconds from one line about a job that runs to the next
TAIL = 2**16  # bytes at the end of a file that are read to see how far a job is


class State(NamedTuple):
    """What is known of a job."""

    word: str  # waiting, running, done, failed or stopped
    why: str  # it failed or stopped
    done: int  # epochs
    of: int  # epochs of all its programs
    left: float | None  # seconds


class Worker:
    """A process that runs jobs, one after another, each in a process of its own."""

    def __init__(self, sweep: Sweep, command: Sequence[str], console: Console):
        """`command` and a folder, a job and the number of an attempt run that attempt."""
        self.sweep, self.command, self.console = sweep, command, console
        self.claims = Claims(sweep.claims_folder, sweep.lease)
        self.before = self.claims.attempts()  # those that failed may be made again
        self.tried: set[str] = set()
        self.free: list[str] = []  # jobs that nobody had when the claims were last listed
        self.crowded = False  # whether another worker was faster once
        self.signal: int | None = None
        self.child: subprocess.Popen[bytes] | None = None

    def run(self) -> int:
        """Work until no job is left, also for those of others; returns the exit code.

        That is 0 where all cells are finished, 1 where one has failed, 75 where one was stopped.
        Raises Interrupted where a signal has stopped this worker.
        """
        started, todo = time.monotonic(), len(self.sweep.unfinished())
        with self._signals():
            while (claim := self._next()) is not None:
                self.tried.add(claim.job)
                self._attempt(claim)
                left = len(self.sweep.unfinished())
                if left and todo > left and self.signal is None:
                    seconds = (time.monotonic() - started) / (todo - left) * left
                    total = len(self.sweep.jobs)
                    self._say(
                        f"{total - left} of {total} jobs done, about {duration(seconds)} left"
                    )
        if self.signal is not None:
            raise Interrupted("stopped; the same command goes on", self.signal)
        words = {state.word for state in states(self.sweep).values()}
        return FAULT if "failed" in words else AGAIN if words - {"done"} else 0

    def _next(self) -> Claim | None:
        """Take a job; where others have all that are left, wait for theirs."""
        told = False
        while self.signal is None:
            for _ in range(min(len(self.free), TRIES)):
                job = self.free.pop(random.randrange(len(self.free)) if self.crowded else 0)
                if claim := self.claims.take(job, 0):
                    return claim
                self.crowded = True  # others choose, too: go apart
            attempts = self.claims.attempts()
            left = [job for job in self.sweep.unfinished() if job not in self.tried]
            self.free = [job for job in left if job not in attempts]
            if self.free:
                continue
            if not left:
                return None
            for job in random.sample(left, min(len(left), WATCHED)):
                if self._is_free(job, attempts[job]) and (
                    claim := self.claims.take(job, attempts[job])
                ):
                    return claim
            others = len({*left} - self.tried)
            if not others:
                return None
            if not told:
                self._say(f"other workers have the last {others} jobs; waiting for them to end")
                told = True
            self._sleep(self.claims.lease / 8)
        return None

    def _is_free(self, job: str, number: int) -> bool:
        """Whether the next attempt may be made; a job that has failed meanwhile is left alone."""
        word = self.claims.read(job, number)["state"]
        if word == "failed" and number > self.before.get(job, 0):
            self.tried.add(job)
            return False
        free = word != "running" or self.claims.is_abandoned(job, number)
        return free and not self.sweep.is_finished(job)  # it may have ended since it was listed

    def _attempt(self, claim: Claim) -> None:
        """Run a job to its end in a process, whose signals come from this one alone."""
        job, number = claim.job, str(claim.number)
        log, begun = self.sweep.logs_folder / f"{job}.{number}", time.monotonic()
        self._say(f"{job}: begun" + f", attempt {number}" * (claim.number > 1))
        with claim, log.open("ab") as output:
            self.child = child = subprocess.Popen(
                [*self.command, str(self.sweep.folder), job, number],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            if self.signal is not None:
                child.send_signal(self.signal)
            while child.poll() is None:
                with suppress(subprocess.TimeoutExpired):
                    child.wait(LINE)
                    break
                self._say(f"{job}: {_how_far(states(self.sweep, [job])[job])}")
            self.child = None
        word, why = _ending(child.returncode), last_line(log)
        why = {"done": "", "stopped": why}.get(word, f"{why} (exit code {child.returncode})")
        claim.end(word, why)
        if claim.lost:
            word, why = "taken over by another worker", ""
        took = f" in {duration(time.monotonic() - begun)}" if word == "done" else ""
        self._say(f"{job}: {word}{took}" + f": {why}" * bool(why))

    def _say(self, line: str) -> None:
        self.console.print(line, soft_wrap=True, highlight=False)

    def _sleep(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while self.signal is None and (left := until - time.monotonic()) > 0:
            time.sleep(min(0.5, left))

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """Inside, signals that ask to stop are passed on to the process of the job."""

        def pass_on(number: int, _: FrameType | None) -> None:
            self.signal = number
            if self.child is not None:
                self.child.send_signal(number)

        handled = [s for s in SIGNALS if signal.getsignal(s) != signal.SIG_IGN]
        before = {s: signal.signal(s, pass_on) for s in handled}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _ending(code: int) -> str:
    """How a process has ended; one that a signal ended before it listened was stopped."""
    if code in (AGAIN, stopped_by(signal.SIGINT)) or -code in SIGNALS:
        return "stopped"
    return "failed" if code else "done"


def last_line(log: Path) -> str:
    """The last line of a log that says something."""
    return next(reversed([line.strip() for line in _tail(log) if line.strip()]), "")


def _tail(path: Path) -> list[str]:
    """The last lines of a file; the first of them may have lost its beginning."""
    if not path.exists():
        return []
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - TAIL))
        return file.read().decode(errors="replace").splitlines(keepends=True)


def states(sweep: Sweep, jobs: Sequence[str] | None = None) -> dict[str, State]:
    """What is known of jobs, by default all. It locks nothing, and says what is damaged."""
    claims, unfinished, found = Claims(sweep.claims_folder), {*sweep.unfinished()}, {}
    attempts, folders = claims.attempts(), Claims(sweep.work_folder).attempts()
    for name in sweep.jobs if jobs is None else jobs:
        of = sum(epochs for _, epochs in sweep.jobs[name].programs)
        if name not in unfinished:
            found[name] = State("done", "", of, of, None)
            continue
        said = claims.read(name, attempts[name]) if name in attempts else {"state": "waiting"}
        word, why = said["state"], str(said.get("why", ""))
        if word == "running" and claims.has_ended(said):
            word, why = "stopped", "its worker has ended"
        if word == "done":  # and a cell was deleted since
            word = "waiting"
        done, left = 0, None
        try:
            if name in folders:
                done, left = _progress(sweep, name, sweep.work_folder / f"{name}.{folders[name]}")
        except (OSError, ValueError, KeyError, TypeError) as error:
            why = "; ".join(filter(None, [why, f"damaged: {error!r}"]))
        found[name] = State(word, why, done, of, left if word == "running" else None)
    return found


def _progress(sweep: Sweep, name: str, workdir: Path) -> tuple[int, float | None]:
    """Epochs that a job has done, and the seconds that are left, from what it has written."""
    job, before = sweep.jobs[name], 0
    whole = [line for line in _tail(workdir / "metrics.jsonl") if line.endswith("\n")]
    if not whole:
        return 0, None
    last = json.loads(whole[-1])
    arm = last["arm"].partition(": ")[2] if len(job.cells) > 1 else last["arm"]
    for arms, epochs in job.programs:
        if arm in arms:
            break
        before += epochs
    else:
        raise ValueError(f"no program has the arm {arm!r}")
    done, of = before + int(last["epoch"]), sum(epochs for _, epochs in job.programs)
    seconds = sum(float(s) for s in (workdir / "seconds.txt").read_text().split())
    return done, seconds / done * (of - done)


def _how_far(state: State) -> str:
    left = "" if state.left is None else f", about {duration(state.left)} left"
    return f"{state.done} of {state.of} epochs{left}"


def status_table(sweep: Sweep) -> Table:
    """Every job: how far it is, and the last line of its log."""
    rows, found, logs = [], states(sweep), Claims(sweep.logs_folder).attempts()
    for name, state in found.items():
        log = last_line(sweep.logs_folder / f"{name}.{logs[name]}") if name in logs else ""
        rows.append(
            (
                name,
                str(len(sweep.jobs[name].cells)),
                state.word,
                f"{state.done}/{state.of}",
                NONE if state.left is None else duration(state.left),
                state.why if state.why else log if state.word != "done" else "",
            )
        )
    words = [state.word for state in found.values()]
    counts = ", ".join(f"{words.count(word)} {word}" for word in dict.fromkeys(words))
    headers = ("job", "cells", "state", "epochs", "time left", "last line")
    title = f"{sweep.folder}: {len(sweep.cells)} cells in {len(found)} jobs: {counts}"
    return Table(title, headers, tuple(rows))
