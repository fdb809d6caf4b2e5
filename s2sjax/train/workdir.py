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
from typing import Any

import jax

from s2sjax.errors import UserError
from s2sjax.files import PARTIAL, read_json, write_atomically, write_json
from s2sjax.report.results import Record
from s2sjax.serial import differences

LOCK = ".lock"
ELSEWHERE = "choose another --workdir, or delete that folder"


def environment() -> dict[str, Any]:
    """What a result depends on besides its config: versions and devices."""
    packages = ("jax", "jaxlib", "flax", "numpy")
    return {
        "python": platform.python_version(),
        **{name: version(name) for name in packages},
        "device_kind": jax.devices()[0].device_kind,
        "device_count": jax.device_count(),
    }


class Workdir:
    """A workdir, locked while this object is open; use it as a context manager.

    Attributes:
        path: the folder.
        moved: versions and devices that are no longer those the run began under.
        cohorts: how many seeds were trained together, where more were added later.
    """

    def __init__(
        self,
        path: Path,
        config: Mapping[str, Any],
        is_extension: Callable[[Mapping[str, Any], Mapping[str, Any]], bool] = lambda held, asked: (
            False
        ),
    ):
        """Open the workdir of the run that `config` describes, or make one.

        Args:
            path: the folder.
            config: what the run is.
            is_extension: whether the second of two configs is the first with more seeds or epochs.
                The workdir then goes on as the second; its old results are kept, renamed.

        Raises:
            UserError: the folder holds another run, something else, or a run in progress.
        """
        self.path = path
        if path.exists() and not path.is_dir():
            raise UserError(f"{path} is a file: choose a folder as --workdir")
        if not self.config_file.exists() and self._foreign():
            raise UserError(f"{path} is not empty and holds no run: choose another --workdir")
        self.checkpoints.mkdir(parents=True, exist_ok=True)
        self._lock = (path / LOCK).open("a")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._claim(json.loads(json.dumps(config)), is_extension)
        except BlockingIOError as error:
            self._lock.close()
            raise UserError(f"another process is running in {path}: wait, or stop it") from error
        except BaseException:
            self._lock.close()
            raise

    def _foreign(self) -> list[Path]:
        """What lies in the folder that a run killed while starting would not have left."""
        ours = {LOCK, self.checkpoints.name, self.config_file.name + PARTIAL}
        found = self.path.iterdir() if self.path.exists() else ()
        return [path for path in found if path.name not in ours]

    def _begun(self) -> bool:
        """Whether the run has left anything."""
        left = (self.metrics_file, self.results_file, *self.checkpoints.iterdir())
        return any(path.exists() for path in left)

    def _claim(self, config: dict[str, Any], is_extension: Callable[..., bool]) -> None:
        """Write what the run is, or refuse where another run was written down."""
        now = environment()
        if not self.config_file.exists():
            write_json(self.config_file, {**config, "environment": now})
        held = read_json(self.config_file, ELSEWHERE)
        if not isinstance(held, dict):
            raise UserError(f"{self.config_file} is damaged (no object): {ELSEWHERE}")
        began, cohorts = held.pop("environment", None), held.pop("cohorts", [])
        if held != config and not self._begun():  # nothing is lost
            write_json(self.config_file, {**config, "environment": now})
            self.clock_file.unlink(missing_ok=True)
            cohorts = []
        elif held != config and is_extension(held, config):
            cohorts = cohorts or [held["seeds"]]
            if config["seeds"] > held["seeds"]:
                cohorts.append(config["seeds"] - held["seeds"])
            if self.results_file.exists():
                names = (self.path / f"results.before-{n}.json" for n in count(1))
                self.results_file.rename(next(path for path in names if not path.exists()))
            write_json(self.config_file, {**config, "environment": began, "cohorts": cohorts})
        elif held != config:
            raise UserError(
                f"{self.path} holds another run ({_summary(held, config)}): {ELSEWHERE}"
            )
        self.environment_changes = differences(began or {}, now)
        self.cohorts = tuple(cohorts)

    def __enter__(self) -> "Workdir":
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.close()

    @property
    def config_file(self) -> Path:
        """What the run is."""
        return self.path / "config.json"

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints."""
        return self.path / "checkpoints"

    @property
    def metrics_file(self) -> Path:
        """Records as they come."""
        return self.path / "metrics.jsonl"

    @property
    def clock_file(self) -> Path:
        """Seconds spent, a line whenever an epoch is done."""
        return self.path / "seconds.txt"

    @property
    def results_file(self) -> Path:
        """The finished run."""
        return self.path / "results.json"

    def append(self, records: Iterable[Record]) -> None:
        """Add records to `metrics_file`, on disk when the call returns."""
        with self.metrics_file.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(record, allow_nan=False) + "\n" for record in records)
            file.flush()
            os.fsync(file.fileno())

    def append_at_once(self, records: Iterable[Record]) -> None:
        """Add records such that a kill leaves all of them or none."""
        self._rewrite([*self.records(), *records])

    def _rewrite(self, records: Iterable[Record]) -> None:
        lines = "".join(json.dumps(record, allow_nan=False) + "\n" for record in records)
        write_atomically(self.metrics_file, lines)

    def records(self) -> list[Record]:
        """Every record so far."""
        return list(_parse(self.metrics_file)) if self.metrics_file.exists() else []

    def forget(self, replicas: set[tuple[str, int]], epoch: int, due: set[int]) -> None:
        """Drop what some replicas have after the checkpoint they go on from.

        Also drops the end of a line that a kill left behind.

        Args:
            replicas: (arm, seed) of each.
            epoch: of the checkpoint; records of later ones, and scores of the end, are dropped.
            due: the epochs up to it that are evaluated; records of others are dropped.
        """
        if self.metrics_file.exists():
            kept = [
                r
                for r in self.records()
                if (r["arm"], r["seed"]) not in replicas
                or (_while_training(r, epoch) and r["epoch"] in due)
            ]
            self._rewrite(kept)

    def spent(self, seconds: float) -> None:
        """Note time spent on this run."""
        with self.clock_file.open("a", encoding="utf-8") as file:
            file.write(f"\n{seconds:.3f}")  # begins a line: one that a kill cut short stays alone

    def seconds(self) -> float:
        """Time spent on this run, over all starts; lines that are damaged do not count."""
        if not self.clock_file.exists():
            return 0.0
        lines = self.clock_file.read_text(encoding="utf-8", errors="replace").split()
        return sum((float(s) for s in lines if re.fullmatch(r"[0-9]+\.[0-9]{3}", s)), 0.0)


def _while_training(record: Record, epoch: int) -> bool:
    """Whether a record was made while training, up to an epoch; the others are of its end."""
    made = record["split"] == "dev" or record["metric"] == "epoch_loss"
    return made and record["epoch"] <= epoch


def _summary(held: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    """The first differences of two configs; what differs in every arm is named once."""
    lines = [re.sub(r"^arms\.[^.]+\.", "", line) for line in differences(held, config)]
    lines = sorted(dict.fromkeys(lines), key=lambda line: "." in line.partition(":")[0])
    more = f" and {len(lines) - 4} more" if len(lines) > 4 else ""
    return "; ".join(lines[:4]) + more


def _parse(path: Path) -> Iterable[Record]:
    """Records of a file; a last line without its end is what a kill left behind, and is dropped."""
    text = path.read_text(encoding="utf-8", errors="replace")
    for number, line in enumerate(text[: text.rfind("\n") + 1].splitlines(), start=1):
        try:
            record = json.loads(line)
            record["epoch"], record["seed"]
        except (ValueError, TypeError, KeyError) as error:
            raise UserError(
                f"line {number} of {path} is damaged: restore the file, or start in another "
                "--workdir"
            ) from error
        yield record
