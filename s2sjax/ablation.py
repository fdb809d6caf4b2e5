"""Arms x seeds -> programs -> paired records.

Arms of one structure and shape are one program (`group`); the ablation finds out which go together.
Programs run one after another, so that results come in arm by arm, and a seed means the same in
all of them.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from s2sjax import checkpoint
from s2sjax.config import Run
from s2sjax.errors import UserError
from s2sjax.files import write_atomically
from s2sjax.fit import Epoch, Evaluation, evaluate, fit, make_programs
from s2sjax.group import Group, program, read_answer
from s2sjax.metrics import HEADLINE, ratio
from s2sjax.progress import EpochProgress
from s2sjax.report import metric_name, score_table
from s2sjax.results import Results, dump_results, load_results
from s2sjax.runlog import Record, Workdir, environment
from s2sjax.serial import config_hash, differences, from_json, to_json
from s2sjax.stats import compare


@dataclass(frozen=True)
class Ablation:
    """What is compared, over which seeds.

    Attributes:
        arms: by name, complete settings.
        seeds: how many.
        first_seed: they count up from here.
    """

    arms: Mapping[str, Run]
    seeds: int
    first_seed: int

    def __post_init__(self) -> None:
        if not 1 <= self.seeds <= 10_000:
            raise UserError(f"seeds must be at least 1 and at most 10,000, not {self.seeds}")
        if not 0 <= self.first_seed <= 2**31 - self.seeds:
            raise UserError(f"first_seed must be from 0 to 2^31 - seeds, not {self.first_seed}")
        for (a, run), (b, other) in combinations(self.arms.items(), 2):
            if run == other:
                raise UserError(
                    f"arms {a!r} and {b!r} have the same settings: one that was given takes away "
                    "what tells them apart"
                )
        self.programs  # noqa: B018 (refuses tasks that cannot be before anything is written)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "Ablation":
        """The ablation that `config` wrote down; raises UserError where it did not."""
        missing = {"arms", "seeds", "first_seed"} - set(config)
        if missing or not isinstance(config["arms"], Mapping) or not config["arms"]:
            raise UserError("its config is not that of an ablation")
        arms = {name: from_json(Run, run, name) for name, run in config["arms"].items()}
        return cls(arms, config["seeds"], config["first_seed"])

    @property
    def run(self) -> Run:
        """The settings of the first arm."""
        return next(iter(self.arms.values()))

    @property
    def config(self) -> dict[str, Any]:
        """The ablation as JSON values."""
        arms = {name: to_json(run) for name, run in self.arms.items()}
        return {"arms": arms, "seeds": self.seeds, "first_seed": self.first_seed}

    @cached_property
    def programs(self) -> list[dict[str, Any]]:
        """What decides each program, in the order of their first arms."""
        found: list[dict[str, Any]] = []
        for run in self.arms.values():
            if (one := program(run)) not in found:
                found.append(one)
        return found

    @cached_property
    def groups(self) -> list[Group]:
        """The arms of each program."""
        arms: list[dict[str, Run]] = [{} for _ in self.programs]
        for name, run in self.arms.items():
            arms[self.programs.index(program(run))][name] = run
        return [Group(members, self.seeds, self.first_seed) for members in arms]

    def reasons(self) -> list[str]:
        """Why each program is another than the first: what it differs in."""
        first, *others = self.programs
        return ["the first", *("; ".join(differences(first, other)) for other in others)]


# --- running it ------------------------------------------------------------------------------


def run(
    experiment: str,
    preset: str,
    ablation: Ablation,
    workdir: Workdir,
    console: Console,
    metrics: Sequence[str],
    pairs: Sequence[tuple[str, str]],
) -> Results:
    """Train, score and compare: the results, also written to the workdir.

    Programs run one after another, and the scores of each are shown when it is through; what is
    already finished in the workdir is not run again.

    Args:
        experiment: its name.
        preset: its preset's name.
        ablation: arms and seeds.
        workdir: opened for this ablation.
        console: where progress is shown.
        metrics: test metrics on which arms are compared.
        pairs: names (a, b) of arms to compare, a with b.
    """
    identity = {
        "experiment": experiment,
        "preset": preset,
        "config": ablation.config,
        "config_hash": config_hash(ablation.config),
    }
    if workdir.results_file.exists():
        results = _finished(workdir.results_file, identity)
        console.print(f"{workdir.path} holds the finished run; nothing is trained again")
        return results
    if workdir.moved:
        console.print(
            f"begun under {'; '.join(workdir.moved)}: the last digits may not be those of a run "
            "that was never interrupted"
        )
    for number, group in enumerate(ablation.groups, start=1):
        train_group(group, workdir, number, console, of=len(ablation.groups))
        if number < len(ablation.groups):  # the report has them all
            own = [r for r in workdir.records() if r["arm"] in group.arms]
            table = score_table({**identity, "records": own}, {metric_name(m): m for m in metrics})
            console.print(replace(table, title=f"Program {number}, test set").rich())
    records = in_order(workdir.records())
    results = {
        **identity,
        "environment": environment(),
        "seconds": round(workdir.seconds(), 1),
        "comparisons": comparisons(records, pairs, metrics),
        "records": records,
    }
    write_atomically(workdir.results_file, dump_results(results))
    return load_results(workdir.results_file)


def train_group(group: Group, workdir: Workdir, number: int, console: Console, of: int) -> None:
    """Train and score the arms of one program, unless the workdir has their scores.

    Args:
        group: the arms.
        workdir: gets records and checkpoints.
        number: of the program, from 1; names the folder of its checkpoints.
        console: where progress is shown.
        of: programs in all.
    """
    name = f"program {number} of {of}: {', '.join(group.arms)}"
    if _scored(group, workdir):
        console.print(f"{name}: finished before")
        return
    started = time.monotonic()
    console.print(f"{name}: drawing questions and weights, compiling ...", soft_wrap=True)
    checkpoints = workdir.checkpoints / str(number)
    programs = make_programs(group.trainer, group.mesh)
    state = group.init(programs)
    done = checkpoint.latest(checkpoints) or 0
    if done:
        state = checkpoint.restore(checkpoints, done, state)
        console.print(f"going on from the checkpoint of epoch {done}")
    workdir.forget(set(group.arms), done)
    _refuse_lost_records(group, workdir, done)
    splits = {split: group.examples(split) for split in ("train", "dev", "test")}
    with EpochProgress(console, done, group.run.train.epochs) as progress:
        observer = _Observer(group, workdir, progress, started)
        state = fit(
            programs,
            state,
            splits,
            group.run.train,
            labels=group.labels,
            checkpoints=checkpoints,
            on_epoch=observer,
        )
    console.print("scoring ...")
    epoch, started = int(state.epoch[0]), time.monotonic()
    records: list[Record] = []
    for split in ("train", "test"):
        scored = evaluate(programs, state.scored, splits[split])
        records += _records(group, split, epoch, scored, positions=True)
    records += _by_length(group, epoch, scored)
    workdir.append_at_once(records)  # having one of them means having all
    workdir.spent(time.monotonic() - started)


def _scored(group: Group, workdir: Workdir) -> bool:
    """Whether the workdir has the test scores of every replica."""
    held = {
        (r["arm"], r["seed"])
        for r in workdir.records()
        if (r["split"], r["metric"]) == ("test", HEADLINE)
    }
    return held >= set(group.replicas)


def in_order(records: Sequence[Record]) -> list[Record]:
    """What was measured while training, then what was measured in the end."""
    return [
        r
        for split in (("dev",), ("train",), ("test",))
        for r in records
        if (("dev",) if r["metric"] == "epoch_loss" else (r["split"],)) == split
    ]


def _finished(path: Path, identity: Mapping[str, Any]) -> Results:
    """The results of a finished run; raises UserError where they are those of another."""
    results = load_results(path)
    found = differences({name: results[name] for name in identity}, identity)
    if found:
        raise UserError(f"{path} is not of this run ({found[0]}): move it away, or start elsewhere")
    return results


def _refuse_lost_records(group: Group, workdir: Workdir, done: int) -> None:
    """Raise UserError unless the metrics file has every record up to the checkpoint."""
    train = group.run.train
    epochs = [e for e in range(1, done + 1) if e % train.eval_every == 0 or e == train.epochs]
    wanted = {(arm, seed, epoch) for arm, seed in group.replicas for epoch in epochs}
    for metric in ("epoch_loss", HEADLINE):
        held = {
            (r["arm"], r["seed"], r["epoch"])
            for r in workdir.records()
            if r["metric"] == metric and r["arm"] in group.arms
        }
        if held != wanted:
            raise UserError(
                f"{workdir.metrics_file} does not hold the records of the {done} epochs that the "
                "checkpoint has: restore it, or start in another --workdir"
            )


@dataclass
class _Observer:
    """Turns what the loop tells into records, and into what a person sees."""

    group: Group
    workdir: Workdir
    progress: EpochProgress
    since: float

    def __call__(self, told: Epoch) -> None:
        now = time.monotonic()
        self.workdir.spent(now - self.since)
        self.since = now
        if told.evaluation is None:
            self.progress.advance(told.epoch, None)
            return
        train = self.group.run.train
        self.workdir.append(
            _record(arm, seed, "train", told.epoch, "epoch_loss", float(losses.mean()))
            for (arm, seed), losses in zip(self.group.replicas, told.losses, strict=True)
        )
        self.workdir.append(
            _records(self.group, "dev", told.epoch, told.evaluation, positions=False)
        )
        if told.epoch % train.show_every < train.eval_every or told.epoch == train.epochs:
            self.progress.show(self._answered(told.evaluation))
        self.progress.advance(told.epoch, self._scores(told.evaluation))

    def _scores(self, evaluation: Evaluation) -> str:
        """Mean scores of every arm: next symbol right, and whole answers right."""
        said = []
        for arm in self.group.arms:
            rows = [i for i, (name, _) in enumerate(self.group.replicas) if name == arm]
            forced, free = (
                float((count.right[rows] / count.of[rows]).mean())
                for count in (evaluation.counts["teacher_forced/all"], evaluation.counts[HEADLINE])
            )
            said.append(f"{arm} {100 * forced:.1f} % (whole answers {100 * free:.1f} %)")
        return "  ".join(said)

    def _answered(self, evaluation: Evaluation):
        """The first dev questions of the first seed, as every arm answers them.

        Arms of different questions are told one below the other.
        """
        group = self.group
        together: dict[tuple[str, str], list[tuple[str, str]]] = {}
        for index, arm in enumerate(group.arms):
            dev = group.pairs(arm)[0]["dev"]
            for n, (question, gold) in enumerate(dev[: group.run.train.shown]):
                ids = evaluation.answers[index * group.seeds, n]
                written = read_answer(group.formatters[arm], gold, ids)
                together.setdefault((question, gold), []).append((arm, written))
        for (question, gold), answers in together.items():
            yield question, gold, answers


def _record(arm: str, seed: int, split: str, epoch: int, metric: str, value: float) -> Record:
    return {
        "arm": arm,
        "seed": seed,
        "split": split,
        "epoch": epoch,
        "metric": metric,
        "value": value,
    }


def _records(
    group: Group, split: str, epoch: int, evaluation: Evaluation, *, positions: bool
) -> list[Record]:
    """One record for each replica and metric; scores by position only where they are asked for."""
    records = []
    for replica, (arm, seed) in enumerate(group.replicas):
        for metric, count in evaluation.counts.items():
            value = ratio(float(count.right[replica]), float(count.of[replica]))
            if value is not None and (positions or "/position_" not in metric):
                records.append(_record(arm, seed, split, epoch, metric, value))
    return records


def _by_length(group: Group, epoch: int, evaluation: Evaluation) -> list[Record]:
    """Whole answers right, free-running, on test questions of each length, in characters."""
    records = []
    seeds = range(group.first_seed, group.first_seed + group.seeds)
    for index, arm in enumerate(group.arms):
        form = group.formatters[arm]
        for pairs, seed in zip(group.pairs(arm), seeds, strict=True):
            pairs = pairs["test"]
            answers = evaluation.answers[index * group.seeds + seed - seeds[0]]
            gold = form.examples(pairs).target[:, 1:]
            right = ((answers == gold) | (gold == form.vocabulary.pad_id)).all(axis=1)
            lengths = np.array([len(source) for source, _ in pairs])
            for length in np.unique(lengths):
                share = float(right[lengths == length].mean())
                metric = f"{HEADLINE}/length_{length}"
                records.append(_record(arm, seed, "test", epoch, metric, share))
    return records


def comparisons(
    records: Sequence[Record], pairs: Sequence[tuple[str, str]], metrics: Sequence[str]
) -> list[dict[str, Any]]:
    """Pairs (a, b) of arms, a against b, paired by seed, on the test split."""
    values: dict[tuple[str, str], list[float]] = {}
    for r in records:
        if r["split"] == "test":
            values.setdefault((r["arm"], r["metric"]), []).append(r["value"])
    return [
        asdict(compare(a, b, metric, values[a, metric], values[b, metric]))
        for a, b in pairs
        for metric in metrics
    ]
