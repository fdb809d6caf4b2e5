"""The records of a group's replicas: scores during training, and after it."""

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from s2sjax.data.dataset import Split
from s2sjax.data.sentences import Sentences
from s2sjax.report.results import Record
from s2sjax.study.group import Group
from s2sjax.train.evaluate import Evaluation, texts_of, with_references
from s2sjax.train.loop import Epoch, Stack, divergence
from s2sjax.train.metrics import EXACT_MATCH
from s2sjax.train.progress import EpochProgress
from s2sjax.train.step import TrainState
from s2sjax.train.workdir import DIVERGED, Workdir

RANGES = 5  # of source lengths that have their own BLEU, with about equally many sentences


def record(arm: str, seed: int, split: str, epoch: int, metric: str, value: float) -> Record:
    """One measurement."""
    return Record(arm=arm, seed=seed, split=split, epoch=epoch, metric=metric, value=value)


def from_files(group: Group) -> bool:
    """Whether the pairs are from files. If so, the texts are scored too."""
    return group.run.task.sizes is None


def references(group: Group, arm: str, split: str, rows: Split) -> list[tuple[str, ...]]:
    """The right answers to each question of a split; from files, all that the split has to it."""
    task = group.arms[arm].task
    known = task.corpus().answers[split] if isinstance(task, Sentences) else {}
    right = [(gold, *(known.get(source) or task.answers(source))) for source, gold in rows.pairs]
    return [tuple(dict.fromkeys(answers)) for answers in right]


def evaluate_split(group: Group, runs: Stack, params: Any, split: str) -> Evaluation:
    """Score the answers to a split."""
    rows = group.rows(split)
    evaluation = runs.score(params, rows)
    assert evaluation is not None  # None means that it was asked to stop, which never happens here
    return accept_references(group, evaluation, split, rows)


def accept_references(
    group: Group, evaluation: Evaluation, split: str, rows: Sequence[Split]
) -> Evaluation:
    """Count an answer as right if it is any of the right ones, of which files may have several."""
    if from_files(group):
        for arm in group.arms:
            own = group.of(arm)
            right = references(group, arm, split, rows[own.start])
            evaluation = with_references(evaluation, group.formatter(arm), right, own)
    return evaluation


def records_of(group: Group, split: str, epoch: int, evaluation: Evaluation) -> Iterator[Record]:
    """A record for each replica and metric; accuracy by position is left out for dev."""
    for replica, (arm, seed) in enumerate(group.replicas):
        for metric, value in evaluation.values(replica).items():
            if split != "dev" or "/position_" not in metric:
                yield record(arm, seed, split, epoch, metric, value)
            if metric == "loss" and from_files(group):
                yield record(arm, seed, split, epoch, "perplexity", math.exp(min(value, 700)))


def dev_metrics(group: Group) -> set[str]:
    """What every replica has a record of in every epoch that is evaluated."""
    shares = {"all", "content", "exact_match"}
    names = {f"{how}/{share}" for how in ("teacher_forced", "free_running") for share in shares}
    return names | {"epoch_loss", "loss"} | ({"perplexity", "BLEU"} if from_files(group) else set())


def final_records(group: Group, runs: Stack, state: TrainState, epoch: int) -> list[Record]:
    """All scores of the trained replicas; training pairs from files are not scored."""
    test = evaluate_split(group, runs, state.scored, "test")
    if from_files(group):
        return [
            *records_of(group, "test", epoch, test),
            *text_records(group, epoch, test, group.rows("test")),
        ]
    train = evaluate_split(group, runs, state.scored, "train")
    return [
        *records_of(group, "train", epoch, train),
        *records_of(group, "test", epoch, test),
        *length_records(group, epoch, test, group.rows("test")),
    ]


def length_records(
    group: Group, epoch: int, evaluation: Evaluation, rows: Sequence[Split]
) -> Iterator[Record]:
    """Exact match on test questions of each length, in characters."""
    for replica, (arm, seed) in enumerate(group.replicas):
        lengths = np.array([len(source) for source, _ in rows[replica].pairs])
        for length in np.unique(lengths):
            share = float(evaluation.right[replica][lengths == length].mean())
            yield record(arm, seed, "test", epoch, f"{EXACT_MATCH}/length_{length}", share)


def text_records(
    group: Group, epoch: int, evaluation: Evaluation, rows: Sequence[Split]
) -> Iterator[Record]:
    """Scores of the texts, and BLEU by the length of the source, in symbols."""
    for replica, (arm, seed) in enumerate(group.replicas):
        formatter, split = group.formatter(arm), rows[replica]
        texts = texts_of(
            formatter, evaluation.answers[replica], references(group, arm, "test", split)
        )
        for metric, value in texts.scores().items():
            yield record(arm, seed, "test", epoch, metric, value)
        lengths = np.array([len(formatter.source.pieces(source)) for source, _ in split.pairs])
        ends = np.unique(np.quantile(lengths, np.linspace(0, 1, RANGES + 1)[1:], method="lower"))
        for low, high in zip([lengths.min(), *(ends[:-1] + 1)], ends, strict=True):
            inside = np.flatnonzero((lengths >= low) & (lengths <= high)).tolist()
            metric = f"BLEU/length_{low}-{high}"
            yield record(arm, seed, "test", epoch, metric, texts.bleu(inside))


@dataclass
class Observer:
    """Called by the loop after every epoch: writes records, and shows progress."""

    group: Group
    runs: Stack
    workdir: Workdir
    progress: EpochProgress
    since: float
    lost: set[tuple[str, int]]  # replicas that have diverged

    def __call__(self, done: Epoch) -> None:
        now = time.monotonic()
        self.workdir.spent(now - self.since)
        self.since = now
        lost = {self.group.replicas[n]: update for n, update in done.diverged.items()}
        for arm, seed in sorted(lost.keys() - self.lost):
            what = divergence(f"{arm} seed {seed}", lost[arm, seed])
            self.progress.console.print(f"left out: {what}", soft_wrap=True)
            at = float(lost[arm, seed])
            self.workdir.append([record(arm, seed, "train", done.epoch, DIVERGED, at)])
        self.lost |= lost.keys()
        if done.evaluation is None:
            self.progress.advance(done.epoch, None)
            return
        group, train, dev = self.group, self.group.run.train, self.runs.dev
        evaluation = accept_references(group, done.evaluation, "dev", dev)
        replicas = [*zip(group.replicas, done.losses, evaluation.answers, dev, strict=True)]
        records = [
            record(arm, seed, "train", done.epoch, "epoch_loss", float(losses.mean()))
            for (arm, seed), losses, *_ in replicas
        ]
        records += records_of(group, "dev", done.epoch, evaluation)
        for (arm, seed), _, answers, split in replicas if from_files(group) else ():
            texts = texts_of(group.formatter(arm), answers, references(group, arm, "dev", split))
            records.append(record(arm, seed, "dev", done.epoch, "BLEU", texts.bleu()))
        self.workdir.append(r for r in records if (r["arm"], r["seed"]) not in lost)
        if done.epoch % train.show_every < train.eval_every or done.epoch == train.epochs:
            self.progress.show(self._answered(evaluation))
        self.progress.advance(done.epoch, self._scores(evaluation, records))

    def _scores(self, evaluation: Evaluation, records: Sequence[Record]) -> str:
        """Mean scores of every arm: next symbols right, whole answers right, and BLEU."""
        parts = []
        for arm in self.group.arms:
            rows = self.group.of(arm)
            counts = (evaluation.counts[name] for name in ("teacher_forced/all", EXACT_MATCH))
            forced, free = (100 * float((c.right[rows] / c.of[rows]).mean()) for c in counts)
            own = [r["value"] for r in records if r["arm"] == arm and r["metric"] == "BLEU"]
            bleu = f", BLEU {np.mean(own):.1f}" if own else ""
            parts.append(f"{arm} {forced:.1f} % (whole answers {free:.1f} %{bleu})")
        return "  ".join(parts)

    def _answered(self, evaluation: Evaluation) -> list[Any]:
        """The first dev questions of the first seed, with the answers of the arms asked."""
        group = self.group
        together: dict[tuple[str, str], list[tuple[str, str, bool]]] = {}
        for arm in group.arms:
            replica, formatter = group.of(arm).start, group.formatter(arm)
            asked = self.runs.dev[replica].pairs[: group.run.train.shown]
            for n, (question, gold) in enumerate(asked):
                written = formatter.read(evaluation.answers[replica, n], formatter.given(gold))
                right = bool(evaluation.right[replica, n])
                together.setdefault((question, gold), []).append((arm, written, right))
        return [(question, gold, answers) for (question, gold), answers in together.items()]
