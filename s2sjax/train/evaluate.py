"""Scoring a stack of replicas on a split: counts, answers, and the scores of their texts."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from s2sjax.data.batches import Bucket, place
from s2sjax.data.dataset import Split
from s2sjax.data.rows import Examples, Formatter
from s2sjax.data.words import WordVocabulary
from s2sjax.train.metrics import EXACT_MATCH, Count, is_exact_match
from s2sjax.train.replicas import Programs, fetch, stack
from s2sjax.train.textmetrics import bleu, text_scores

POSITIONS = 100_000
"""Symbols of all replicas that are scored in one call: the host is asked to stop between calls."""


class Evaluation(NamedTuple):
    """Scores of every replica on one split, on the host."""

    counts: Mapping[str, Count]  # by metric, [replicas], or [replicas, positions]
    answers: Int[np.ndarray, "replicas n time"]  # greedy, free-running
    right: Bool[np.ndarray, "replicas n"]  # which of them are right

    def values(self, replica: int) -> dict[str, float]:
        """Every score of a replica; what has nothing to score is left out."""
        found = {}
        for metric, (right, of) in self.counts.items():
            names = [metric]
            if right.ndim == 2:
                names = [f"{metric}_{k}" for k in range(1, right.shape[1] + 1)]
            counts = zip(names, right[replica].flat, of[replica].flat, strict=True)
            found |= {name: float(r) / float(n) for name, r, n in counts if n}
        return found


def evaluate(
    programs: Programs,
    params: Any,
    splits: Sequence[Split],
    buckets: Sequence[Bucket],
    batch_size: int,
    stop: Callable[[], bool] = lambda: False,
) -> Evaluation | None:
    """Score every replica's parameters; None if asked to `stop` meanwhile.

    Splits are the rows of each replica, of equal lengths. Scores do not depend on the buckets,
    narrowest first, nor on the batch size.
    """
    replicas, n = len(splits), len(splits[0].lengths)
    limit = max(bucket.target for bucket in buckets) - 1
    answers = np.zeros((replicas, n, limit), np.int32)
    right = np.zeros((replicas, n), bool)
    parts: list[dict[str, Count]] = []
    program, of_row = programs("evaluate", max_decode_len=limit), place(splits[0].lengths, buckets)
    for number, (source, target, _) in enumerate(buckets):
        rows = np.flatnonzero(of_row == number)
        if not len(rows):
            continue
        size = min(batch_size, len(rows))
        most = max(1, POSITIONS // (replicas * size * (source + target)))
        batches = min(most, math.ceil(len(rows) / size))
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
            arguments = (stack(x, programs.mesh, batches=True) for x in (examples, weighted))
            counts, free, correct = fetch(program(params, *arguments), replicas)
            answers[:, own] = free.reshape(replicas, -1, limit)[:, : len(own)]
            right[:, own] = correct.reshape(replicas, -1)[:, : len(own)]
            parts.append(counts)

    def total(metric: str) -> Count:  # in float64: it does not depend on the batches of a call
        each = zip(*(part[metric] for part in parts), strict=True)
        return Count(*(sum(x.sum(axis=1, dtype=np.float64) for x in several) for several in each))

    one = len(buckets) == 1  # else their rows differ in positions
    counts = {m: total(m) for m in parts[0] if one or not m.endswith("/position")}
    return Evaluation(counts, answers, right)


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
    """Count an answer as right that is any of the references of its row.

    `evaluation` compared answers with the first references; `formatter` is that of the `replicas`.
    """
    right, answers = evaluation.right.copy(), evaluation.answers
    for row, several in enumerate(references):
        for gold in gold_symbols(formatter, several)[1:]:
            if len(gold) <= answers.shape[2]:
                written = answers[replicas, row, : len(gold)]
                gold = np.broadcast_to(gold, written.shape)
                scored, unk_id = np.ones(gold.shape), formatter.target.unk_id
                right[replicas, row] |= is_exact_match(written, gold, scored, unk_id)
    exact = Count(right.sum(axis=1, dtype=np.float64), np.full(len(right), float(right.shape[1])))
    return Evaluation({**evaluation.counts, EXACT_MATCH: exact}, answers, right)


class Texts(NamedTuple):
    """What a replica wrote, and what is right, as text."""

    written: Sequence[str]  # an answer to every row
    references: Sequence[Sequence[str]]  # all right answers to it
    how: Mapping[str, bool]  # `words` and `lower_case` of `textmetrics`

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
    """Decoded ids and right answers as text, as the target's vocabulary spells them."""
    written = [
        formatter.read(ids, formatter.given(several[0]))
        for ids, several in zip(answers, references, strict=True)
    ]
    gold = [[formatter.reference(reference) for reference in several] for several in references]
    words = isinstance(formatter.target, WordVocabulary)
    return Texts(written, gold, {"words": words, "lower_case": words and formatter.text.lower_case})
