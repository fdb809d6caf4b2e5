"""Arms x seeds -> one program -> paired records.

Arms that differ only in how the same text is laid out (source order) share everything else: seed i
of every arm has the same initial weights, the same questions and the same order of batches. They
are replicas of one compiled program.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, SupportsIndex

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from rich.console import Console

from s2sjax import checkpoint
from s2sjax.config import Run, config_hash, differences, from_json, to_json
from s2sjax.data import Examples, Formatter, make_vocabulary
from s2sjax.errors import UserError
from s2sjax.files import write_atomically
from s2sjax.fit import Epoch, Evaluation, Programs, evaluate, fit, make_programs
from s2sjax.metrics import HEADLINE, ratio
from s2sjax.models import Seq2Seq
from s2sjax.progress import EpochProgress
from s2sjax.replicas import make_mesh, spread, stack
from s2sjax.results import Results, dump_results, load_results
from s2sjax.runlog import Record, Workdir, environment
from s2sjax.stats import compare
from s2sjax.tasks import Task, make_task
from s2sjax.train import Trainer, TrainState
from s2sjax.vocab import CharacterVocabulary

SHOWN = 5
"""Questions shown with every arm's answer."""


@dataclass(frozen=True)
class Ablation:
    """What is compared, over which seeds.

    Attributes:
        arms: by name, complete settings; all must compile to one program.
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
        # Only the source's order may differ: everything else decides shapes, programs or data.
        if len({replace(r, text=replace(r.text, source_order="forward")) for r in self.runs}) > 1:
            raise UserError("arms may differ in text.source_order only")
        make_task(self.run.task)  # refuses sizes that cannot be before anything is written

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "Ablation":
        """The ablation that `config` wrote down; raises UserError where it did not."""
        missing = {"arms", "seeds", "first_seed"} - set(config)
        if missing or not isinstance(config["arms"], Mapping) or not config["arms"]:
            raise UserError("its config is not that of an ablation")
        arms = {name: from_json(Run, run, name) for name, run in config["arms"].items()}
        return cls(arms, config["seeds"], config["first_seed"])

    @property
    def runs(self) -> list[Run]:
        """Settings of the arms."""
        return list(self.arms.values())

    @property
    def run(self) -> Run:
        """What all arms share, in the settings of the first."""
        return self.runs[0]

    @property
    def config(self) -> dict[str, Any]:
        """The ablation as JSON values."""
        arms = {name: to_json(run) for name, run in self.arms.items()}
        return {"arms": arms, "seeds": self.seeds, "first_seed": self.first_seed}

    @cached_property
    def replicas(self) -> list[tuple[str, int]]:
        """(arm, seed) of every replica, arm by arm."""
        seeds = range(self.first_seed, self.first_seed + self.seeds)
        return [(arm, seed) for arm in self.arms for seed in seeds]

    @property
    def labels(self) -> list[str]:
        """Names of the replicas."""
        return [f"{arm} seed {seed}" for arm, seed in self.replicas]

    @cached_property
    def task(self) -> Task:
        """The task, the same for every arm."""
        return make_task(self.run.task)

    @cached_property
    def vocabulary(self) -> CharacterVocabulary:
        """The vocabulary, the same for every arm."""
        return make_vocabulary(self.task, self.run.text)

    def formatter(self, arm: str) -> Formatter:
        """How an arm lays out its text."""
        return Formatter(self.task, self.arms[arm].text, self.vocabulary)

    @cached_property
    def trainer(self) -> Trainer:
        """The single run that all replicas are copies of."""
        vocab = self.vocabulary
        model = Seq2Seq(len(vocab), vocab.pad_id, self.run.model)
        return Trainer(model, self.run.optim, self.run.train.batch_size, vocab.eos_id)

    @cached_property
    def mesh(self) -> Mesh:
        """The devices the replicas are spread over."""
        return make_mesh(len(self.replicas))

    @cached_property
    def pairs(self) -> list[Mapping[str, list[tuple[str, str]]]]:
        """Text pairs by split of every seed."""
        keys = seed_keys(range(self.first_seed, self.first_seed + self.seeds))
        return [self.task.splits(jax.random.fold_in(key, _DATA)) for key in keys]

    def examples(self, split: str) -> Examples:
        """Stacked examples of a split, laid out over the devices."""
        rows = [self.formatter(arm).examples(p[split]) for arm in self.arms for p in self.pairs]
        return spread(stack(rows), self.mesh)

    def init(self, programs: Programs) -> TrainState:
        """The stacked state before the first update; seed i is the same in every arm."""
        keys = seed_keys([seed for _, seed in self.replicas])
        keys = jax.vmap(lambda key: jax.random.fold_in(key, _RUN))(keys)
        return programs.init(spread(keys, self.mesh))

    def updates_per_epoch(self) -> int:
        """Updates of one replica in an epoch."""
        return -(-self.run.task.train // self.run.train.batch_size)


_DATA, _RUN = 0, 1  # streams that a seed's key is folded into


def seed_keys(seeds: Sequence[int]) -> jax.Array:
    """A typed key for each seed, of one generator whatever the environment says."""
    return jnp.stack([jax.random.key(seed, impl="threefry2x32") for seed in seeds])


# --- running it ------------------------------------------------------------------------------


def run(
    experiment: str,
    preset: str,
    ablation: Ablation,
    workdir: Workdir,
    console: Console,
    metrics: Sequence[str],
) -> Results:
    """Train, score and compare: the results, also written to the workdir.

    A run that is already finished there is not run again.

    Args:
        experiment: its name.
        preset: its preset's name.
        ablation: arms and seeds.
        workdir: opened for this ablation.
        console: where progress is shown.
        metrics: test metrics on which the last arm is compared with each arm before it.
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
    console.print("drawing questions and weights, compiling ...")
    programs = make_programs(ablation.trainer, ablation.mesh)
    state = ablation.init(programs)
    done = checkpoint.latest(workdir.checkpoints) or 0
    if done:
        state = checkpoint.restore(workdir.checkpoints, done, state)
        console.print(f"going on from the checkpoint of epoch {done}")
    workdir.forget_after(done)
    _refuse_lost_records(ablation, workdir, done)
    splits = {split: ablation.examples(split) for split in ("train", "dev", "test")}
    with EpochProgress(console, done, ablation.run.train.epochs) as progress:
        observer = _Observer(ablation, workdir, progress)
        state = fit(
            programs,
            state,
            splits,
            ablation.run.train,
            labels=ablation.labels,
            checkpoints=workdir.checkpoints,
            on_epoch=observer,
        )
    console.print("scoring ...")
    records = workdir.records()
    for split in ("train", "test"):
        scored = evaluate(programs, state, splits[split])
        records += _records(ablation, split, ablation.run.train.epochs, scored, positions=True)
    results = {
        **identity,
        "environment": environment(),
        "comparisons": comparisons(records, list(ablation.arms), metrics),
        "records": records,
    }
    write_atomically(workdir.results_file, dump_results(results))
    return results


def _finished(path: Path, identity: Mapping[str, Any]) -> Results:
    """The results of a finished run; raises UserError where they are those of another."""
    results = load_results(path)
    found = differences({name: results[name] for name in identity}, identity)
    if found:
        raise UserError(f"{path} is not of this run ({found[0]}): move it away, or start elsewhere")
    return results


def _refuse_lost_records(ablation: Ablation, workdir: Workdir, done: int) -> None:
    """Raise UserError unless the metrics file has every record up to the checkpoint."""
    train = ablation.run.train
    epochs = [e for e in range(1, done + 1) if e % train.eval_every == 0 or e == train.epochs]
    wanted = {(arm, seed, epoch) for arm, seed in ablation.replicas for epoch in epochs}
    for metric in ("epoch_loss", HEADLINE):
        held = {
            (r["arm"], r["seed"], r["epoch"]) for r in workdir.records() if r["metric"] == metric
        }
        if held != wanted:
            raise UserError(
                f"{workdir.metrics_file} does not hold the records of the {done} epochs that the "
                "checkpoint has: restore it, or start in another --workdir"
            )


@dataclass
class _Observer:
    """Turns what the loop tells into records, and into what a person sees."""

    ablation: Ablation
    workdir: Workdir
    progress: EpochProgress

    def __call__(self, told: Epoch) -> None:
        if told.evaluation is None:
            self.progress.advance(told.epoch, None)
            return
        train = self.ablation.run.train
        self.workdir.append(
            _record(arm, seed, "train", told.epoch, "epoch_loss", float(losses.mean()))
            for (arm, seed), losses in zip(self.ablation.replicas, told.losses, strict=True)
        )
        self.workdir.append(
            _records(self.ablation, "dev", told.epoch, told.evaluation, positions=False)
        )
        if told.epoch % train.show_every < train.eval_every or told.epoch == train.epochs:
            self.progress.show(self._answered(told.evaluation))
        self.progress.advance(told.epoch, self._scores(told.evaluation))

    def _scores(self, evaluation: Evaluation) -> str:
        """Mean scores of every arm: next symbol right, and whole answers right."""
        said = []
        for arm in self.ablation.arms:
            rows = [i for i, (name, _) in enumerate(self.ablation.replicas) if name == arm]
            forced, free = (
                float((count.right[rows] / count.of[rows]).mean())
                for count in (evaluation.counts["teacher_forced/all"], evaluation.counts[HEADLINE])
            )
            said.append(f"{arm} {100 * forced:.1f} % (whole answers {100 * free:.1f} %)")
        return "  ".join(said)

    def _answered(self, evaluation: Evaluation):
        """The first dev questions of the first seed, as every arm answers them."""
        ablation = self.ablation
        for n, (question, gold) in enumerate(ablation.pairs[0]["dev"][:SHOWN]):
            answers = []
            for index, arm in enumerate(ablation.arms):
                ids = evaluation.answers[index * ablation.seeds, n]
                answers.append((arm, read_answer(ablation.formatter(arm), gold, ids)))
            yield question, gold, answers


def read_answer(formatter: Formatter, gold: str, ids: Iterable[SupportsIndex]) -> str:
    """Decoded ids as an answer: a given first character put back, justification taken off."""
    given = formatter.target(gold)[:1] if formatter.text.start == "first_target" else ""
    return (given + formatter.vocabulary.decode(ids)).strip()


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
    ablation: Ablation, split: str, epoch: int, evaluation: Evaluation, *, positions: bool
) -> list[Record]:
    """One record for each replica and metric; scores by position only where they are asked for."""
    records = []
    for replica, (arm, seed) in enumerate(ablation.replicas):
        for metric, count in evaluation.counts.items():
            value = ratio(float(count.right[replica]), float(count.of[replica]))
            if value is not None and (positions or "/position_" not in metric):
                records.append(_record(arm, seed, split, epoch, metric, value))
    return records


def comparisons(
    records: Sequence[Record], arms: Sequence[str], metrics: Sequence[str]
) -> list[dict[str, Any]]:
    """The last arm against each arm before it, paired by seed, on the test split."""
    *others, treatment = arms
    values = {
        (arm, metric): [
            r["value"]
            for r in records
            if (r["arm"], r["split"], r["metric"]) == (arm, "test", metric)
        ]
        for arm in arms
        for metric in metrics
    }
    return [
        asdict(compare(treatment, other, m, values[treatment, m], values[other, m]))
        for other in others
        for m in metrics
    ]
