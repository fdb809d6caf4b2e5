"""Scores of whole corpora of text, on the host: BLEU, chrF, edit distance.

A hypothesis is a string, compared with one or more references. Edit distances are rapidfuzz's, BLEU
and chrF sacrebleu's.
"""

from collections.abc import Sequence
from itertools import zip_longest
from typing import Any

from s2sjax.errors import UserError, require

References = Sequence[Sequence[str]]
"""All right answers to every hypothesis, at least one each."""


def text_scores(
    hypotheses: Sequence[str], references: References, *, words: bool, lower_case: bool
) -> dict[str, float]:
    """BLEU and chrF, 0 to 100, and the symbol error rate, a fraction.

    With `words`, symbols are words and blanks separate them: BLEU takes them as they are. Else
    sacrebleu cuts ("13a"), and error rates are of characters. With `lower_case`, letter case does
    not count in BLEU and chrF (character n-grams, n up to 6, beta 2: Popović, 2015).

    Raises UserError where there is nothing to score, or the extra `text` is not installed.
    """
    chrf = require("sacrebleu.metrics").CHRF(lowercase=lower_case)
    return {
        "BLEU": bleu(hypotheses, references, words=words, lower_case=lower_case),
        "chrF": _corpus_score(chrf, hypotheses, references),
        "symbol_error_rate": error_rate(hypotheses, references, words=words),
    }


def bleu(
    hypotheses: Sequence[str], references: References, *, words: bool, lower_case: bool
) -> float:
    """BLEU of a corpus, 0 to 100 (Papineni et al., 2002; Post, 2018)."""
    tokenize = "none" if words else "13a"
    metric = require("sacrebleu.metrics").BLEU(lowercase=lower_case, tokenize=tokenize, force=True)
    return _corpus_score(metric, hypotheses, references)


def error_rate(hypotheses: Sequence[str], references: References, *, words: bool) -> float:
    """Edits that turn hypotheses into references, per symbol of the references.

    The sum of Levenshtein distances over the sum of reference lengths, so it can be above 1. Of
    several references the nearest counts, with its length; of equally near ones the longest.
    Raises UserError where the counts differ, or all references are empty.
    """
    distance = require("rapidfuzz.distance").Levenshtein.distance
    cut = str.split if words else list
    _refuse_unequal(hypotheses, references)
    edits = length = 0
    for written, right in zip(hypotheses, references, strict=True):
        units = [cut(reference) for reference in right]
        nearest, longest = min((distance(cut(written), u), -len(u)) for u in units)
        edits, length = edits + nearest, length - longest
    if length == 0:
        raise UserError("an error rate is per symbol of the references, and all of them are empty")
    return edits / length


def _corpus_score(metric: Any, hypotheses: Sequence[str], references: References) -> float:
    """A score of sacrebleu, which takes the first reference of every item, then the second, ..."""
    _refuse_unequal(hypotheses, references)
    streams = [list(stream) for stream in zip_longest(*references)]
    return float(metric.corpus_score(list(hypotheses), streams).score)


def _refuse_unequal(hypotheses: Sequence[str], references: References) -> None:
    if len(hypotheses) != len(references) or not all(references):
        raise UserError(
            f"{len(hypotheses)} hypotheses and {len(references)} lists of references: every "
            "hypothesis needs a reference"
        )
    if not hypotheses:
        raise UserError("there is nothing to score")
