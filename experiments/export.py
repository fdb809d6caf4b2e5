"""Write the curves of a run where TensorBoard or Weights & Biases show them.

    python experiments/export.py WORKDIR tensorboard [--follow]
    python experiments/export.py WORKDIR wandb

Each seed is a run; runs are grouped by arm. Curves go to WORKDIR/tensorboard and WORKDIR/wandb,
made anew each time; nothing is sent anywhere (``wandb sync`` does that). ``metrics.jsonl`` stays
what counts: this reads it, also while the run trains. It needs ``pip install '.[tensorboard]'`` or
``'.[wandb]'``.
"""

from terminal import main

import importlib
import re
import shutil
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import tyro

from s2sjax.cli import make_console, parse
from s2sjax.errors import UserError
from s2sjax.files import read_json
from s2sjax.study.ablation import COUNT
from s2sjax.train.workdir import DIVERGED, read_records

Curves = Mapping[tuple[str, int], Mapping[int, Mapping[str, float]]]
"""``{(arm, seed): {epoch: {"split/metric": value}}}``"""


@dataclass(frozen=True)
class Export:
    """The command line."""

    workdir: tyro.conf.Positional[Path]
    """Folder of a run."""
    to: tyro.conf.Positional[Literal["tensorboard", "wandb"]]
    """What shows the curves."""
    follow: bool = False
    """Look again every half a minute until the run is finished; TensorBoard only."""
    project: str = "s2sjax"
    """Project of Weights & Biases."""


def package(name: str) -> Any:
    """Import the package of an extra."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        extra = {"tensorboardX": "tensorboard"}.get(name, name)
        how = f"pip install {name}, or in the checkout pip install '.[{extra}]'"
        raise UserError(f"this needs the package {name}: {how}") from error


def curves_of(workdir: Path) -> Curves:
    """Every number that a run has measured so far."""
    found: Any = defaultdict(lambda: defaultdict(dict))
    for r in read_records(workdir / "metrics.jsonl"):
        if r["metric"] not in (COUNT, DIVERGED):
            found[r["arm"], r["seed"]][r["epoch"]][f"{r['split']}/{r['metric']}"] = r["value"]
    return found


def folder_name(arm: str) -> str:
    """An arm as the name of a folder."""
    return re.sub(r"[^\w .,+=-]", "_", arm)


class TensorBoard:
    """Event files, one folder a seed in one folder an arm."""

    def __init__(self, workdir: Path):
        """Begin anew."""
        self._writer, self._folder = package("tensorboardX").SummaryWriter, workdir / "tensorboard"
        shutil.rmtree(self._folder, ignore_errors=True)
        self._writers: dict[tuple[str, int], Any] = {}
        self._written: set[tuple[Any, ...]] = set()

    def write(self, curves: Curves) -> None:
        """Write what is new."""
        for (arm, seed), epochs in curves.items():
            folder = self._folder / folder_name(arm) / f"seed {seed}"
            if (arm, seed) not in self._writers:
                self._writers[arm, seed] = self._writer(str(folder))
            for epoch, values in epochs.items():
                for name, value in values.items():
                    if (point := (arm, seed, epoch, name)) not in self._written:
                        self._writers[arm, seed].add_scalar(name, value, epoch)
                        self._written.add(point)
        for writer in self._writers.values():
            writer.flush()

    def close(self) -> None:
        """End the files."""
        for writer in self._writers.values():
            writer.close()


def to_wandb(workdir: Path, curves: Curves, config: Mapping[str, Any], project: str) -> None:
    """Write offline runs of Weights & Biases."""
    wandb = package("wandb")
    shutil.rmtree(workdir / "wandb", ignore_errors=True)
    for (arm, seed), epochs in curves.items():
        about: Any = {"group": arm, "name": f"{arm} seed {seed}", "config": config["arms"][arm]}
        run = wandb.init(project=project, mode="offline", dir=str(workdir), reinit=True, **about)
        for epoch, values in sorted(epochs.items()):
            run.log(dict(values), step=epoch)
        run.finish()


def export() -> None:
    """Export the curves of a run."""
    settings = parse(Export, __doc__ or "")
    workdir, console = settings.workdir, make_console()
    if not (workdir / "config.json").is_file():
        raise UserError(f"{workdir / 'config.json'} does not exist: give the workdir of a run")
    if settings.to == "wandb":
        if settings.follow:
            raise UserError("--follow is for tensorboard: write to wandb when the run has ended")
        config = read_json(workdir / "config.json", "give the workdir of a run")
        to_wandb(workdir, curves_of(workdir), config, settings.project)
        console.print(f"to send them: wandb sync {workdir / 'wandb'}/offline-*", soft_wrap=True)
        return
    board = TensorBoard(workdir)
    board.write(curves_of(workdir))
    console.print(f"to see them: tensorboard --logdir {workdir / 'tensorboard'}", soft_wrap=True)
    while settings.follow and not (workdir / "results.json").exists():
        time.sleep(30)
        board.write(curves_of(workdir))
    board.close()


if __name__ == "__main__":
    main(export)
