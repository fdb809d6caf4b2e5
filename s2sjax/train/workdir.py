"""The workdir: the folder that belongs to one run, and all that is written in it.

=====================  =============================================================================
``config.json``        what the run is; the same command goes on, another is refused
``metrics.jsonl``      one record a line, as they come
``checkpoints/``       what to go on from (`checkpoint`)
``seconds.txt``        time spent, epoch by epoch
``vocabularies.json``  what a trained model needs besides its parameters (`saved`)
``results.json``       the finished run: config, environment, records, comparisons
``report.md``          the same for people, with its pictures
=====================  =============================================================================
"""

import fcntl
import json
import os
import platform
import re
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import version
from itertools import count
from pathlib import Path
from typing import Any, TextIO

import jax

from s2sjax.errors import BusyError, UserError
from s2sjax.files import PARTIAL, read_json, write_atomically, write_json
from s2sjax.report.results import Record, checked
from s2sjax.serial import differences
from s2sjax.train.processes import leads
from s2sjax.train.replicas import NUMERICS

LOCK = ".lock"
DIVERGED = "diverged"
"""Metric of the record of a replica that has diverged; its value is the update."""
ELSEWHERE = "choose another --workdir, or delete that folder"


def environment() -> dict[str, Any]:
    """What a result depends on besides its config: versions, devices, and unusual `NUMERICS`."""
    packages, flags = ("jax", "jaxlib", "flax", "numpy"), ("XLA_FLAGS", "LIBTPU_INIT_ARGS")
    return {
        "python": platform.python_version(),
        **{name: version(name) for name in packages},
        "device_kind": jax.devices()[0].device_kind,
        "device_count": jax.device_count(),
        **{name: os.environ[name] for name in flags if os.environ.get(name)},
        **{n: v for n, usual in NUMERICS.items() if (v := getattr(jax.config, n)) != usual},
    }


class Workdir:
    """A workdir, locked while this object is open; use it as a context manager.

    Attributes:
        environment_changes: versions and devices that differ from those the run began under.
        cohorts: how many seeds were trained together, where more were added later.
    """

    def __init__(
        self,
        path: Path,
        config: Mapping[str, Any],
        is_extension: Callable[[Mapping[str, Any], Mapping[str, Any]], bool] = lambda *_: False,
    ):
        """Open the workdir of the run that `config` describes, or make one.

        Where `is_extension(held, asked)` says that a config is that of the folder with more seeds
        or epochs, the workdir goes on as that run; its old results are kept, renamed.

        Raises UserError where the folder holds another run, something else, or a run in progress.
        """
        self.path, self.checkpoints = path, path / "checkpoints"
        self.config_file, self.results_file = path / "config.json", path / "results.json"
        self.metrics_file, self.clock_file = path / "metrics.jsonl", path / "seconds.txt"
        if {*"[\\"} & {*str(path.absolute())}:
            raise UserError(f"{path.absolute()}: Orbax loads from no folder with [ or \\ in it")
        if path.exists() and not path.is_dir():
            raise UserError(f"{path} is a file: choose a folder as --workdir")
        try:
            str(path.absolute()).encode()
        except UnicodeEncodeError as error:
            what = f"{str(path)!a} is no UTF-8, and checkpoints need that"
            raise UserError(f"{what}: choose another --workdir") from error
        there = {file.name for file in path.iterdir()} if path.exists() else set()
        started = {LOCK, self.checkpoints.name, *(n for n in there if n.endswith(PARTIAL))}
        if self.config_file.name not in there and there - started:  # else a kill left them
            raise UserError(f"{path} is not empty and holds no run: choose another --workdir")
        self.checkpoints.mkdir(parents=True, exist_ok=True)
        self._lock = _opened(path / LOCK)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._claim(json.loads(json.dumps(config)), is_extension)
        except BaseException as error:
            self._lock.close()
            if isinstance(error, BlockingIOError):
                message = f"another process is running in {path}: wait, or stop it"
                raise BusyError(message) from error
            raise

    def _claim(self, config: dict[str, Any], is_extension: Callable[..., bool]) -> None:
        """Write what the run is, or refuse where another run was written down."""
        now = environment()
        if not self.config_file.exists():
            write_json(self.config_file, {**config, "environment": now})
        held = read_json(self.config_file, ELSEWHERE)
        try:
            began, cohorts = {**held.pop("environment", {})}, [*held.pop("cohorts", [])]
        except (AttributeError, TypeError) as error:
            raise UserError(f"{self.config_file} is damaged ({error}): {ELSEWHERE}") from error
        left = (self.metrics_file, self.results_file, *self.checkpoints.iterdir())
        same = renamed(held, config)
        if held != config and not any(path.exists() for path in left):  # nothing is lost
            write_json(self.config_file, {**config, "environment": now})
            self.clock_file.unlink(missing_ok=True)
            cohorts = []
        elif same != config and is_extension(same, config):
            if jax.process_count() > 1:
                raise UserError(f"{self.path}: add seeds and epochs in one process")
            cohorts = cohorts or [held["seeds"]]
            if config["seeds"] > held["seeds"]:
                cohorts.append(config["seeds"] - held["seeds"])
            if self.results_file.exists():
                names = (self.path / f"results.before-{n}.json" for n in count(1))
                self.results_file.rename(next(path for path in names if not path.exists()))
            write_json(self.config_file, {**config, "environment": began, "cohorts": cohorts})
        elif same != config:
            summary = _summary(same, config)
            raise UserError(f"{self.path} holds another run ({summary}): {ELSEWHERE}")
        elif held != config:
            write_json(self.config_file, {**config, "environment": began, "cohorts": cohorts})
        self.environment_changes = differences(began, now)
        self.cohorts: tuple[int, ...] = tuple(cohorts)

    def __enter__(self) -> "Workdir":
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.close()

    def check(self) -> None:
        """Raise UserError unless the folder is still this object's; it calls it before it writes.

        A folder that was deleted, or made anew by another run, is not.
        """
        try:
            mine = os.path.samestat(os.fstat(self._lock.fileno()), (self.path / LOCK).stat())
        except OSError:
            mine = False
        if not mine:
            gone = f"{self.path} was deleted or moved, or another run has it now"
            raise UserError(f"{gone}: this run writes nothing more to it; start it again")

    def append(self, records: Iterable[Record]) -> None:
        """Add records to `metrics_file`, on disk when the call returns."""
        self.check()
        with _opened(self.metrics_file) as file:
            file.write(_lines(records))
            file.flush()
            os.fsync(file.fileno())

    def append_at_once(self, records: Iterable[Record]) -> None:
        """Add records such that a kill leaves all of them or none."""
        self.check()
        write_atomically(self.metrics_file, _lines([*self.records(), *records]))

    def records(self) -> list[Record]:
        """Every record so far."""
        return read_records(self.metrics_file)

    def forget(self, replicas: set[tuple[str, int]], epoch: int, due: set[int]) -> None:
        """Drop what (arm, seed) `replicas` have after `epoch`, that of their checkpoint.

        Of the epochs up to it, records of those that are not `due` are dropped too, and so are
        scores of the end of a training, and a line that a kill cut short.
        """

        def kept(r: Record) -> bool:
            if (r["arm"], r["seed"]) not in replicas:
                return True
            if r["metric"] == DIVERGED:
                return r["epoch"] <= epoch
            at_the_end = r["split"] != "dev" and r["metric"] != "epoch_loss"
            return r["epoch"] <= epoch and r["epoch"] in due and not at_the_end

        self.check()
        if self.metrics_file.exists():
            write_atomically(self.metrics_file, _lines(filter(kept, self.records())))

    def spent(self, seconds: float) -> None:
        """Note time spent on this run."""
        self.check()
        with _opened(self.clock_file) as file:
            file.write(f"\n{seconds:.3f}")  # a line that a kill cuts short costs no other

    def seconds(self) -> float:
        """Time spent on this run, over all starts; lines that are damaged do not count."""
        if not self.clock_file.exists():
            return 0.0
        lines = self.clock_file.read_text(encoding="utf-8", errors="replace").split()
        return sum((float(s) for s in lines if re.fullmatch(r"[0-9]+\.[0-9]{3}", s)), 0.0)


class _Elsewhere(Workdir):
    """The workdir in processes other than the first one: nothing is read or written."""

    def __init__(self, path: Path):
        self.path, self.checkpoints = path, path / "checkpoints"
        self.results_file = self.metrics_file = path / "of the first process"
        self.environment_changes, self.cohorts = [], ()

    def __exit__(self, *_: object) -> None:
        pass

    def check(self) -> None:
        pass

    def append(self, records: Iterable[Record]) -> None:
        pass

    append_at_once = append

    def records(self) -> list[Record]:
        return []

    def forget(self, replicas: set[tuple[str, int]], epoch: int, due: set[int]) -> None:
        pass

    def spent(self, seconds: float) -> None:
        pass


def open_workdir(path: Path, *what: Any) -> Workdir:
    """The `Workdir` of a run; of several processes, the first one has it."""
    return Workdir(path, *what) if leads() else _Elsewhere(path)


def read_records(path: Path) -> list[Record]:
    """The records of a ``metrics.jsonl``; a last line that is not whole yet is dropped."""
    if not path.exists():
        return []
    text = path.read_text(encoding="utf-8", errors="replace")
    found = []
    for number, line in enumerate(text[: text.rfind("\n") + 1].splitlines(), start=1):
        try:
            found.append(checked(json.loads(line)))
        except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
            what = f"line {number} of {path} is damaged"
            raise UserError(f"{what}: restore the file, or start in another --workdir") from error
    return found


def _opened(path: Path) -> TextIO:
    """Open a file of a workdir to add to it, unless it is a link, which could lead out of it."""
    if path.is_symlink():
        raise UserError(f"{path} is a link: put the file itself there, or remove it")
    return path.open("a", encoding="utf-8")


def _lines(records: Iterable[Record]) -> str:
    return "".join(json.dumps(record, allow_nan=False) + "\n" for record in records)


def renamed(held: Any, config: Any) -> Any:
    """A held config with what decides no number as in another config.

    That is what is shown while training, and the names of files whose content is the same.
    """
    if not (isinstance(held, Mapping) and isinstance(config, Mapping)):
        return held
    free: dict[str, type] = {"shown": int, "show_every": int}
    if held.get("sha256") is not None and held["sha256"] == config.get("sha256"):
        free |= dict.fromkeys(("train", "dev", "test", "file"), str)
    return {
        name: config[name]
        if name in free and type(value) is type(config.get(name)) is free[name]
        else renamed(value, config.get(name))
        for name, value in held.items()
    }


def _summary(held: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    """The first differences of two configs; what differs in every arm is named once."""
    lines = [re.sub(r"^arms\.[^.]+\.", "", line) for line in differences(held, config)]
    lines = [re.sub(r".*\bsha256: .*", "the content of its files has changed", x) for x in lines]
    lines = sorted(dict.fromkeys(lines), key=lambda line: "." in line.partition(":")[0])
    more = f" and {len(lines) - 4} more" if len(lines) > 4 else ""
    return "; ".join(lines[:4]) + more
