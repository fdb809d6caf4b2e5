"""Who has which job of a folder that many machines share: files, and no clock but one's own.

Attempt N at a job is the file ``JOB.N``, which only one worker can make (``O_EXCL``). That worker
has the job until another makes attempt N + 1; it looks for that file before it writes anything. It
changes its own file every quarter of a lease. Whoever sees a file unchanged for a whole lease, by
the monotonic clock of the one who watches, may make the next attempt: clocks of two machines are
never compared. A process of the same machine that has ended is seen at once.

A lease should be no shorter than a network file system keeps what it has read: often 60 s.
"""

import json
import os
import platform
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from s2sjax.errors import BusyError
from s2sjax.files import write_atomically

LEASE = 60.0  # seconds


def _machine() -> str | None:
    """This start of this machine, and the namespace of its process numbers; None if unknown."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return None


def _started(pid: object) -> str | None:
    """When a process of this machine started; None where it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else fields[19]


class Claim:
    """A worker's right to a job; a context manager, inside which it is renewed."""

    def __init__(self, folder: Path, job: str, number: int, lease: float = LEASE):
        """Attempt `number` at a job, made by this process or by the one that started it."""
        self.job, self.number = job, number
        self._path, self._next = (folder / f"{job}.{n}" for n in (number, number + 1))
        self._lease, self._beats = lease, 0
        self._ended, self._writing = threading.Event(), threading.Lock()
        pid = os.getpid()
        self._owner = {"host": platform.node(), "pid": pid, "started": _started(pid)}
        self._owner["machine"] = _machine()

    @property
    def lost(self) -> bool:
        """Whether another worker has taken the job over."""
        return self._next.exists()

    def check(self) -> None:
        """Raise BusyError where another worker has taken the job over."""
        if self.lost:
            raise BusyError(f"another worker has taken {self.job} over: this one writes no more")

    def beat(self) -> None:
        """Renew the lease."""
        self._beats += 1
        said = {"state": "running", "beat": self._beats} | self._owner
        with suppress(OSError):  # no room, say: the lease may end, and `check` finds out
            self._path.write_text(json.dumps(said))

    def end(self, state: str, why: str = "") -> None:
        """Say how the attempt has ended: done, stopped or failed."""
        said = {"state": state, "why": " ".join(why.split())} | self._owner
        with self._writing:
            self._ended.set()
            write_atomically(self._path, json.dumps(said))

    def __enter__(self) -> "Claim":
        threading.Thread(target=self._renew, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()

    def _renew(self) -> None:
        while not self._ended.wait(self._lease / 4):
            with self._writing:
                if not self._ended.is_set():
                    self.beat()


class Claims:
    """The claims on all jobs, as one worker sees them."""

    def __init__(self, folder: Path, lease: float = LEASE):
        self.folder, self.lease = folder, lease
        self._seen: dict[tuple[str, int], tuple[str, float]] = {}

    def attempts(self) -> dict[str, int]:
        """The number of the last attempt at every job that has one."""
        last: dict[str, int] = {}
        for name in os.listdir(self.folder):
            job, _, number = name.rpartition(".")
            if job and number.isdecimal():
                last[job] = max(int(number), last.get(job, 0))
        return last

    def take(self, job: str, after: int) -> Claim | None:
        """Make the attempt that follows attempt `after` (0: none); None if another worker has."""
        path = self.folder / f"{job}.{after + 1}"
        try:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        except FileExistsError:
            return None
        claim = Claim(self.folder, job, after + 1, self.lease)
        claim.beat()
        return claim

    def read(self, job: str, number: int) -> dict[str, Any]:
        """What an attempt says of itself; its ``state`` is running, done, stopped or failed."""
        return _parsed(self._text(job, number))

    def is_abandoned(self, job: str, number: int) -> bool:
        """Whether an attempt that says it runs does not; True a lease after the first call."""
        text, now = self._text(job, number), time.monotonic()
        if self.has_ended(_parsed(text)):
            return True
        before, since = self._seen.get((job, number), (None, now))
        if text != before:
            self._seen[job, number] = text, now
        return text == before and now - since > self.lease

    @staticmethod
    def has_ended(said: dict[str, Any]) -> bool:
        """Whether the process of an attempt was one of this machine and has ended."""
        here = _machine()
        return (
            here is not None
            and said.get("machine") == here
            and (_started(said.get("pid")) != said.get("started"))
        )

    def _text(self, job: str, number: int) -> str:
        try:
            return (self.folder / f"{job}.{number}").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return ""


def _parsed(text: str) -> dict[str, Any]:
    """An attempt's own words; one that is being written, or was killed meanwhile, runs."""
    with suppress(ValueError):
        said = json.loads(text)
        if isinstance(said, dict) and isinstance(said.get("state"), str):
            return said
    return {"state": "running"}
