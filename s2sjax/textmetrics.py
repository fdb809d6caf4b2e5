"""Scores of whole corpora of text, on the host: edit-distance rates, BLEU, chrF.

A hypothesis is a string. What it is held against is one reference, a string, or several, a sequence
of strings; every score here takes both. Edit distances are rapidfuzz's, BLEU and chrF sacrebleu's.
"""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise, zip_longest
from typing import Any, Literal, NamedTuple

from s2sjax.errors import UserError
from s2sjax.extras import require

References = Sequence[str] | Sequence[Sequence[str]]
"""For every hypothesis its reference, or its references."""

_CUT: dict[str, Callable[[str], Sequence[str]]] = {
    "word": str.split,
    "symbol": str.split,
    "character": str,
}


class Score(NamedTuple):
    """A score and how sacrebleu took it: scores compare only where signatures are equal.

    Attributes:
        value: 0 to 100.
        signature: number of references, case, tokenisation, version.
    """

    value: float
    signature: str


class Bucket(NamedTuple):
    """What is known of the items of some lengths.

    Attributes:
        label: the lengths, in words.
        n: how many items.
        mean: of their values; None where there are none.
    """

    label: str
    n: int
    mean: float | None


def error_rate(
    hypotheses: Sequence[str],
    references: References,
    unit: Literal["word", "symbol", "character"] = "word",
) -> float:
    """Edits that turn hypotheses into references, per unit of the references.

    The sum of Levenshtein distances over the sum of reference lengths, so it can be above 1. Of
    several references the nearest counts, with its length; of equally near ones the longest.

    Args:
        hypotheses: what was written.
        references: what is right.
        unit: what is inserted, deleted and substituted. word, symbol: what blanks separate, in a
            sentence (WER) or in a pronunciation such as 'K AE T' (PER). character: every character,
            blanks too (CER).

    Raises:
        UserError: the counts differ, or all references are empty.
    """
    distance = require("rapidfuzz.distance").Levenshtein.distance
    cut, edits, length = _CUT[unit], 0, 0
    for written, right in zip(hypotheses, _several(hypotheses, references), strict=True):
        units = [cut(reference) for reference in right]
        nearest, longest = min((distance(cut(written), u), -len(u)) for u in units)
        edits, length = edits + nearest, length - longest
    if length == 0:
        raise UserError("an error rate is per unit of the references, and all of them are empty")
    return edits / length


def exact_match(hypotheses: Sequence[str], references: References) -> float:
    """Share of hypotheses that are a reference of theirs; raises UserError where counts differ."""
    right = _several(hypotheses, references)
    return sum(h in r for h, r in zip(hypotheses, right, strict=True)) / len(hypotheses)


def bleu(
    hypotheses: Sequence[str],
    references: References,
    *,
    lowercase: bool = False,
    tokenize: Literal["13a", "none"] = "13a",
) -> Score:
    """BLEU of a corpus (Papineni et al., 2002; Post, 2018).

    Args:
        hypotheses: what was written.
        references: what is right.
        lowercase: case does not count.
        tokenize: how sacrebleu finds words. 13a, that of WMT, wants text as people write it; none
            takes what blanks separate, for text that was cut into words before.

    Raises:
        UserError: the counts differ, or there is nothing to score.
    """
    metrics = require("sacrebleu.metrics")
    return _score(
        metrics.BLEU(lowercase=lowercase, tokenize=tokenize, force=True), hypotheses, references
    )


def chrf(hypotheses: Sequence[str], references: References, *, lowercase: bool = False) -> Score:
    """Character n-gram F-score of a corpus, n up to 6, beta 2 (Popović, 2015); errors as `bleu`."""
    return _score(require("sacrebleu.metrics").CHRF(lowercase=lowercase), hypotheses, references)


def by_length(
    values: Sequence[float | int], lengths: Sequence[int], edges: Sequence[int]
) -> list[Bucket]:
    """Means of values, each bucket one range of lengths: does it get worse on longer ones?

    Args:
        values: one for every item, such as 1 where it is right.
        lengths: one for every item, such as the words of its source.
        edges: the longest length of every bucket but the last, ascending.

    Raises:
        UserError: the counts differ, there is no item, or edges do not ascend.
    """
    _counted(values, lengths, "values", "lengths")
    if not edges or any(a >= b for a, b in pairwise(edges)):
        raise UserError(f"edges of length buckets must ascend, not {list(edges)}")
    inner = [f"{a + 1} to {b}" if a + 1 < b else f"{b}" for a, b in pairwise(edges)]
    labels = [f"up to {edges[0]}", *inner, f"over {edges[-1]}"]
    buckets = []
    for label, above, most in zip(labels, [-math.inf, *edges], [*edges, math.inf], strict=True):
        inside = [v for v, n in zip(values, lengths, strict=True) if above < n <= most]
        mean = math.fsum(inside) / len(inside) if inside else None
        buckets.append(Bucket(label, len(inside), mean))
    return buckets


def _score(metric: Any, hypotheses: Sequence[str], references: References) -> Score:
    """What a sacrebleu metric says; it wants the first reference of every item, the second, ..."""
    streams = list(zip_longest(*_several(hypotheses, references)))
    value = metric.corpus_score(list(hypotheses), [list(stream) for stream in streams]).score
    return Score(value, str(metric.get_signature()))


def _several(hypotheses: Sequence[str], references: References) -> list[Sequence[str]]:
    """The references of every hypothesis; raises UserError where there are not as many."""
    _counted(hypotheses, references, "hypotheses", "references")
    several = [[r] if isinstance(r, str) else r for r in references]
    if missing := [i for i, right in enumerate(several, start=1) if not right]:
        raise UserError(f"hypothesis {missing[0]} has no reference to be held against")
    return several


def _counted(ours: Sequence, theirs: Sequence, what: str, other: str) -> None:
    """Raise UserError unless there are as many of one as of the other, and any."""
    if len(ours) != len(theirs):
        raise UserError(
            f"{len(ours)} {what} and {len(theirs)} {other}: every one needs its own of the other"
        )
    if not ours:
        raise UserError(f"there is nothing to score: no {what}, no {other}")
