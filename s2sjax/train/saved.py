"""What a workdir holds of its models besides checkpoints: vocabularies, and how to load them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from s2sjax.data.dataset import load_vocabulary
from s2sjax.data.rows import Formatter
from s2sjax.data.vocab import Vocabulary
from s2sjax.errors import UserError
from s2sjax.files import read_json, write_json
from s2sjax.model.dropout import Rates
from s2sjax.serial import from_json
from s2sjax.train import checkpoint
from s2sjax.train.answering import TrainedStack
from s2sjax.train.loop import LoopState
from s2sjax.train.replicas import Programs, make_mesh
from s2sjax.train.run import Run, make_schedule, make_trainer, scoring_buckets
from s2sjax.train.workdir import Workdir

VOCABULARIES = "vocabularies.json"


class Entry(NamedTuple):
    """One stack of a workdir."""

    folder: str  # of its checkpoints
    formatters: Mapping[str, Formatter]  # by arm
    seeds: tuple[int, ...]  # of every arm
    widths: tuple[tuple[int, int], ...]  # of `TrainedStack`
    updates: int  # of an epoch

    def load(self, workdir: Path, runs: Mapping[str, Run]) -> TrainedStack:
        """Restore its last checkpoint; raises UserError where there is none."""
        folder = workdir / "checkpoints" / self.folder
        own = {arm: runs[arm] for arm in self.formatters}
        run, formatter = next(iter(own.values())), next(iter(self.formatters.values()))
        trainer, n = make_trainer(run, formatter), len(own) * len(self.seeds)
        key, rate = np.zeros(2, np.uint32), np.float32(0)
        state = jax.eval_shape(trainer.init, key, rate, Rates.of(run.model))
        losses = jax.ShapeDtypeStruct((self.updates,), jnp.float32)
        like = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct((n, *x.shape), x.dtype), LoopState(state, losses)
        )
        last = checkpoint.restore_last(folder, like)
        if last is None:
            raise UserError(f"{folder} has no checkpoint yet: let the training go on")
        programs, params = Programs(trainer, make_mesh(n)), last.state.scored
        return TrainedStack(own, self.formatters, self.seeds, self.widths, programs, params)


def write_vocabularies(workdir: Workdir, groups: Mapping[str, Any]) -> None:
    """Write what `Trained.load` needs of every `study.group.Group`, by the name of its folder.

    Raises UserError where a run goes on with vocabularies other than those it began with.
    """
    known: list[dict[str, Any]] = []

    def number(vocabulary: Vocabulary) -> int:
        if (values := vocabulary.to_json()) not in known:
            known.append(values)
        return known.index(values)

    stacks = []
    for folder, group in groups.items():
        formatters = {arm: run.formatter for arm, run in group.arms.items()}
        stacks.append({
            "folder": folder,
            "arms": {arm: [number(f.source), number(f.target)] for arm, f in formatters.items()},
            "text_widths": group.run.formatter.widths,
            "seeds": [group.seed_range.start, group.seed_range.stop],
            "widths": [list(bucket[:2]) for bucket in scoring_buckets(group.run)],
            "updates": make_schedule(group.run).updates,
        })  # fmt: skip
    values = {"stacks": stacks, "vocabularies": known}
    path = workdir.path / VOCABULARIES
    begun = any(workdir.checkpoints.iterdir())
    held = read_json(path, "restore it") if begun and path.exists() else values
    if not isinstance(held, dict) or held.get("vocabularies") != known:
        raise UserError(
            f"{path} does not hold the vocabularies that these settings give now: was another "
            "version of tokenizers installed? Go on with that one, or choose another --workdir"
        )
    write_json(path, values)


def read_run(workdir: Path) -> tuple[dict[str, Run], list[Entry]]:
    """Settings of every arm of a workdir, and its stacks.

    Raises UserError for a folder that is no workdir, or one whose files are damaged.
    """
    config, path = workdir / "config.json", workdir / VOCABULARIES
    for file in (config, path):
        if not file.is_file():
            raise UserError(f"{file} does not exist: restore it, or give the workdir of a run")
    remedy = "restore it, or train the run again in another workdir"
    held, values = read_json(config, remedy), read_json(path, remedy)
    try:
        runs = {arm: from_json(Run, run, arm) for arm, run in held["arms"].items()}
        known = [load_vocabulary(one, str(path)) for one in values["vocabularies"]]
        entries = []
        for one in values["stacks"]:
            text_widths = one["text_widths"] and tuple(one["text_widths"])
            formatters = {
                arm: Formatter(runs[arm].text, known[source], known[target], text_widths)
                for arm, (source, target) in one["arms"].items()
            }
            widths = tuple((source, target) for source, target in one["widths"])
            seeds = tuple(range(*one["seeds"]))
            entries.append(Entry(one["folder"], formatters, seeds, widths, one["updates"]))
    except (TypeError, KeyError, AttributeError, ValueError, IndexError) as error:
        raise UserError(f"{workdir} is damaged ({type(error).__name__}): {remedy}") from error
    return runs, entries
