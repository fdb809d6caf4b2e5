"""Scoring a stack of replicas on a split: counts, answers, and the scores of their texts."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from s2sjax.data.batches import Bucket, place
from s2sjax.data.dataset import Split
from s2sjax.data.rows import Examples, Formatter
from s2sjax.data.words import WordVocabulary
from s2sjax.train.metrics import EXACT_MATCH, Count, is_exact_match, ratio
from s2sjax.train.replicas import fetch, stack
from s2sjax.train.textmetrics import bleu, text_scores

POSITIONS = 100_000
"""Symbols of all replicas that are scored in one call: the host is asked to stop between calls."""


class Evaluation(NamedTuple):
    """Scores of every replica on one split, on the host.

    Attributes:
        counts: by metric, arrays of one number a replica.
        answers: the free-running answers as ids, ``[replicas, n, time]``.
        right: which of them are right.
    """

    counts: Mapping[str, Count]
    answers: Int[np.ndarray, "replicas n time"]
    right: Bool[np.ndarray, "replicas n"]

    def values(self, replica: int) -> dict[str, float]:
        """Every score of a replica; what has nothing to score is left out."""
        found = {}
        for metric, (right, of) in self.counts.items():
            if right.ndim == 1:
                found[metric] = ratio(float(right[replica]), float(of[replica]))
                continue
            for k, pair in enumerate(zip(right[replica], of[replica], strict=True), start=1):
                found[f"{metric}_{k}"] = ratio(*map(float, pair))
        return {metric: value for metric, value in found.items() if value is not None}


def evaluate(
    programs: Any,
    params: Any,
    splits: Sequence[Split],
    buckets: Sequence[Bucket],
    batch_size: int,
    stop: Callable[[], bool] = lambda: False,
) -> Evaluation | None:
    """Score every replica's parameters; None if asked to stop meanwhile.

    Args:
        programs: those of the stack.
        params: stacked parameters.
        splits: the rows of each replica, of equal lengths.
        buckets: widths, narrowest first; scores do not depend on them.
        batch_size: rows scored at once.
        stop: whether to stop.
    """
    replicas, n = len(splits), len(splits[0].lengths)
    limit = max(bucket.target for bucket in buckets) - 1
    answers = np.zeros((replicas, n, limit), np.int32)
    right = np.zeros((replicas, n), bool)
    totals: dict[str, Count] = {}
    of_row = place(splits[0].lengths, buckets)
    for number, (source, target, _) in enumerate(buckets):
        rows = np.flatnonzero(of_row == number)
        if not len(rows):
            continue
        size = min(batch_size, len(rows))
        most = max(1, POSITIONS // (replicas * size * (source + target)))
        batches = min(most, -(-len(rows) // size))
        for begin in range(0, len(rows), batches * size):
            if stop():
                return None
            own = rows[begin : begin + batches * size]
            filled = np.resize(own, (batches, size))  # rows that fill the last batch weigh nothing
            weights = (np.arange(batches * size) < len(own)).reshape(batches, size)
            examples = [
                Examples(s.examples.source[filled, :source], s.examples.target[filled, :target])
                for s in splits
            ]
            weighted = [weights.astype(np.float32)] * replicas
            mesh = programs.mesh
            out = programs.evaluate(limit)(params, stack(examples, mesh), stack(weighted, mesh))
            counts, free, correct = fetch(out, replicas)
            answers[:, own] = free.reshape(replicas, -1, limit)[:, : len(own)]
            right[:, own] = correct.reshape(replicas, -1)[:, : len(own)]
            for metric, count in counts.items():
                _add(totals, metric, count)
    if len(buckets) > 1:
        totals = {metric: c for metric, c in totals.items() if not metric.endswith("/position")}
    return Evaluation(totals, answers, right)


def _add(totals: dict[str, Count], metric: str, count: Count) -> None:
    """Add the counts of batches up, in float64: no sum depends on how many a call has.

    Rows of narrower buckets have fewer positions, which are not counted then.
    """
    new = Count(*(np.asarray(x, np.float64).sum(axis=1) for x in count))
    old = totals.get(metric)
    if old is None:
        totals[metric] = new
    elif old.right.shape == new.right.shape:
        totals[metric] = Count(old.right + new.right, old.of + new.of)


def gold_symbols(formatter: Formatter, references: Sequence[str]) -> list[Int[np.ndarray, " time"]]:
    """The symbols of all references that begin with what is given: the first one's beginning."""
    given = formatter.given(references[0])
    right = [reference for reference in references if formatter.given(reference) == given]
    return [np.array(formatter.target_ids(reference)[1:], np.int32) for reference in right]


def with_references(
    evaluation: Evaluation,
    formatter: Formatter,
    references: Sequence[Sequence[str]],
    replicas: slice,
) -> Evaluation:
    """Count an answer as right that is any of several references.

    Args:
        evaluation: of answers held against the first references.
        formatter: how the replicas lay out their text.
        references: of every row, all right answers.
        replicas: which they are.
    """
    right, answers = evaluation.right.copy(), evaluation.answers
    for row, several in enumerate(references):
        for gold in gold_symbols(formatter, several)[1:]:
            if len(gold) <= answers.shape[2]:
                written = answers[replicas, row, : len(gold)]
                gold = np.broadcast_to(gold, written.shape)
                right[replicas, row] |= is_exact_match(
                    written, gold, np.ones_like(gold, np.float32), formatter.target.unk_id
                )
    counts = dict(evaluation.counts)
    counts[EXACT_MATCH] = Count(
        right.sum(axis=1).astype(np.float64), np.full(len(right), right.shape[1], np.float64)
    )
    return Evaluation(counts, answers, right)


class Texts(NamedTuple):
    """What a replica wrote, and what is right, as text.

    Attributes:
        written: an answer to every row.
        references: all right answers to it.
        how: of `textmetrics`: whether symbols are words, and whether letter case counts.
    """

    written: Sequence[str]
    references: Sequence[Sequence[str]]
    how: Mapping[str, bool]

    def scores(self) -> dict[str, float]:
        """BLEU, chrF and symbol error rate: see `textmetrics.text_scores`."""
        return text_scores(self.written, self.references, **self.how)

    def bleu(self, rows: Iterable[int] | None = None) -> float:
        """BLEU of some rows; of all where none are given."""
        some = [*(range(len(self.written)) if rows is None else rows)]
        written = [self.written[i] for i in some]
        return bleu(written, [self.references[i] for i in some], **self.how)


def texts_of(
    formatter: Formatter, answers: Int[np.ndarray, "n time"], references: Sequence[Sequence[str]]
) -> Texts:
    """Decoded ids and right answers as text, both as the target's vocabulary spells them."""
    written = [
        formatter.read(ids, formatter.given(several[0]))
        for ids, several in zip(answers, references, strict=True)
    ]
    gold = [[formatter.reference(reference) for reference in several] for several in references]
    words = isinstance(formatter.target, WordVocabulary)
    return Texts(written, gold, {"words": words, "lower_case": words and formatter.text.lower_case})
