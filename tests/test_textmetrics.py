"""Scores of text against slow, plain definitions and values worked out by hand."""

from functools import partial

import pytest
import sacrebleu
from hypothesis import given
from hypothesis import strategies as st

from s2sjax.errors import UserError
from s2sjax.train import textmetrics
from s2sjax.train.textmetrics import bleu, error_rate, text_scores

WRITTEN = ["the cat sat on a mat", "a dog runs in the park", "we eat"]
RIGHT = [("the cat sat on the mat",), ("a big dog runs in the park",), ("we eat bread now",)]

texts = st.text("ab ", max_size=6)
corpora = st.lists(st.tuples(texts, st.lists(texts, min_size=1, max_size=3)), min_size=1)
plain = partial(bleu, words=False, lower_case=False)


def distance(a, b) -> int:
    """Levenshtein's, by its recurrence."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, start=1):
        before, row = row, [i]
        for j, y in enumerate(b, start=1):
            row.append(min(before[j] + 1, row[-1] + 1, before[j - 1] + (x != y)))
    return row[-1]


@pytest.mark.parametrize(
    ("written", "right", "words", "rate"),
    [
        ("the cat sat", "the cat sat", True, 0),
        ("the cat", "the fat cat sat", True, 2 / 4),
        ("a b c d", "a", True, 3),
        ("kitten", "sitting", False, 3 / 7),
        ("a b", "ab", False, 1 / 2),
        ("", "a b", True, 1),
    ],
)
def test_rates_worked_out_by_hand(written, right, words, rate):
    assert error_rate([written], [[right]], words=words) == rate


@given(corpora, st.booleans())
def test_a_rate_is_the_nearest_references_distances_over_their_lengths(corpus, words):
    cut = str.split if words else list
    edits = length = 0
    for written, references in corpus:
        units = [cut(r) for r in references]
        nearest = min(distance(cut(written), u) for u in units)
        edits += nearest
        length += max(len(u) for u in units if distance(cut(written), u) == nearest)
    hypotheses, references = zip(*corpus, strict=True)
    if length == 0:
        with pytest.raises(UserError, match="all of them are empty"):
            error_rate(hypotheses, references, words=words)
    else:
        assert error_rate(hypotheses, references, words=words) == edits / length


def test_a_corpus_is_scored_as_one_text_and_not_item_by_item():
    rate = error_rate(["a", "a b c"], [["b"], ["a b c"]], words=True)
    assert rate == 1 / 4  # the mean of the items is 1/2


def test_bleu_and_chrf_are_those_of_sacrebleu():
    streams = [[r for (r,) in RIGHT]]
    found = text_scores(WRITTEN, RIGHT, words=False, lower_case=False)
    assert 0 < found["BLEU"] == sacrebleu.corpus_bleu(WRITTEN, streams).score < 100
    assert 0 < found["chrF"] == sacrebleu.corpus_chrf(WRITTEN, streams).score < 100
    assert found["symbol_error_rate"] == error_rate(WRITTEN, RIGHT, words=False)


def test_bleu_worked_out_by_hand():
    # of 6 words 5, of 5 pairs 3, of 4 triples 2, of 3 quadruples 1; the lengths are equal
    value = 100 * (5 / 6 * 3 / 5 * 2 / 4 * 1 / 3) ** (1 / 4)
    assert plain(WRITTEN[:1], RIGHT[:1]) == pytest.approx(value)


def test_letter_case_counts_only_where_it_is_said_to():
    shouted = [text.upper() for (text,) in RIGHT]
    assert plain(shouted, RIGHT) < 5
    assert bleu(shouted, RIGHT, words=False, lower_case=True) == pytest.approx(100)
    assert text_scores(shouted, RIGHT, words=False, lower_case=True)["chrF"] == pytest.approx(100)


def test_numbers_of_references_may_differ():
    several = [[*RIGHT[0], WRITTEN[0]], RIGHT[1], [*RIGHT[2]]]
    padded = [[r for (r,) in RIGHT], [WRITTEN[0], None, None]]
    assert plain(WRITTEN, several) == sacrebleu.corpus_bleu(WRITTEN, padded).score
    assert plain(WRITTEN, several) > plain(WRITTEN, RIGHT)


def test_words_are_not_cut_again_and_sacrebleu_does_not_complain_of_it(caplog):
    written, right = ["see a, b and c ."] * 200, [["see a , b and c ."]] * 200
    assert plain(written, right) == pytest.approx(100)
    assert bleu(written, right, words=True, lower_case=False) < 50
    assert caplog.records == []


SCORES = [plain, partial(error_rate, words=True)]


@pytest.mark.parametrize("score", SCORES)
def test_what_cannot_be_scored_is_refused(score):
    with pytest.raises(UserError, match=r"^2 hypotheses and 1 lists of references: every hypothes"):
        score(["a", "b"], [["a"]])
    with pytest.raises(UserError, match=r"^2 hypotheses and 2 lists of references: every hypothes"):
        score(["a", "b"], [["a"], []])
    with pytest.raises(UserError, match=r"^there is nothing to score$"):
        score([], [])


def test_a_missing_package_is_named(monkeypatch):
    def nothing(name):
        raise UserError(f"this needs the package {name}")

    monkeypatch.setattr(textmetrics, "require", nothing)
    for score, package in zip(SCORES, ("sacrebleu", "rapidfuzz"), strict=True):
        with pytest.raises(UserError, match=package):
            score(["a"], [["a"]])
