"""Scores of text against slow, plain definitions and values worked out by hand."""

import math
from itertools import pairwise

import pytest
import sacrebleu
from hypothesis import given
from hypothesis import strategies as st

from s2sjax import textmetrics
from s2sjax.errors import UserError
from s2sjax.textmetrics import Bucket, Score, bleu, by_length, chrf, error_rate, exact_match

WRITTEN = ["the cat sat on a mat", "a dog runs in the park", "we eat"]
RIGHT = ["the cat sat on the mat", "a big dog runs in the park", "we eat bread now"]

texts = st.text("ab ", max_size=6)
corpora = st.lists(st.tuples(texts, st.lists(texts, min_size=1, max_size=3)), min_size=1)


def distance(a, b) -> int:
    """Levenshtein's, by its recurrence."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, start=1):
        before, row = row, [i]
        for j, y in enumerate(b, start=1):
            row.append(min(before[j] + 1, row[-1] + 1, before[j - 1] + (x != y)))
    return row[-1]


# --- edit distances --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "right", "unit", "rate"),
    [
        ("the cat sat", "the cat sat", "word", 0),
        ("the cat", "the fat cat sat", "word", 2 / 4),
        ("a b c d", "a", "word", 3),
        ("K AE T S", "K AH T", "symbol", 2 / 3),
        ("kitten", "sitting", "character", 3 / 7),
        ("a b", "ab", "character", 1 / 2),
        ("", "a b", "word", 1),
    ],
)
def test_rates_worked_out_by_hand(written, right, unit, rate):
    assert error_rate([written], [right], unit) == rate


@given(corpora, st.sampled_from(["word", "symbol", "character"]))
def test_a_rate_is_the_nearest_references_distances_over_their_lengths(corpus, unit):
    def cut(text):
        return list(text) if unit == "character" else text.split()

    edits = length = 0
    for written, references in corpus:
        units = [cut(r) for r in references]
        nearest = min(distance(cut(written), u) for u in units)
        edits += nearest
        length += max(len(u) for u in units if distance(cut(written), u) == nearest)
    hypotheses, references = zip(*corpus, strict=True)
    if length == 0:
        with pytest.raises(UserError, match="all of them are empty"):
            error_rate(hypotheses, references, unit)
    else:
        assert error_rate(hypotheses, references, unit) == edits / length


def test_a_corpus_is_scored_as_one_text_and_not_item_by_item():
    assert error_rate(["a", "a b c"], ["b", "a b c"]) == 1 / 4  # the mean of the items is 1/2


def test_one_reference_is_a_string_or_a_list_of_one():
    assert error_rate(WRITTEN, RIGHT) == error_rate(WRITTEN, [[r] for r in RIGHT]) == 4 / 17
    for score in bleu, chrf, exact_match:
        assert score(WRITTEN, RIGHT) == score(WRITTEN, [(r,) for r in RIGHT])


def test_a_further_reference_counts_where_it_is_nearer_and_order_does_not():
    several = [[right, "we eat"] for right in RIGHT]
    assert error_rate(WRITTEN, several) == 2 / (6 + 7 + 2)
    assert error_rate(WRITTEN, [r[::-1] for r in several]) == 2 / 15


def test_exact_match_is_the_share_of_items_that_equal_any_reference():
    assert exact_match(["a", "b", "c ", "d"], ["a", ["x", "b"], "c", ["D"]]) == 0.5


# --- sacrebleu -------------------------------------------------------------------------------


def test_bleu_and_chrf_are_those_of_sacrebleu_and_say_how_they_were_taken():
    ours, theirs = bleu(WRITTEN, RIGHT), sacrebleu.corpus_bleu(WRITTEN, [RIGHT])
    assert 0 < ours.value == theirs.score < 100
    version = f"version:{sacrebleu.__version__}"
    assert ours.signature == f"nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|{version}"
    ours, theirs = chrf(WRITTEN, RIGHT), sacrebleu.corpus_chrf(WRITTEN, [RIGHT])
    assert 0 < ours.value == theirs.score < 100
    assert ours.signature == f"nrefs:1|case:mixed|eff:yes|nc:6|nw:0|space:no|{version}"


def test_bleu_worked_out_by_hand():
    # of 6 words 5, of 5 pairs 3, of 4 triples 2, of 3 quadruples 1; the lengths are equal
    value = 100 * (5 / 6 * 3 / 5 * 2 / 4 * 1 / 3) ** (1 / 4)
    assert bleu(WRITTEN[:1], RIGHT[:1]).value == pytest.approx(value)


@pytest.mark.parametrize("score", [bleu, chrf])
def test_case_counts_unless_told_otherwise(score):
    shouted = [text.upper() for text in RIGHT]
    assert score(shouted, RIGHT).value < 5
    lower = score(shouted, RIGHT, lowercase=True)
    assert lower.value == pytest.approx(100)
    assert "case:lc" in lower.signature


def test_numbers_of_references_may_differ():
    several = [[RIGHT[0], WRITTEN[0]], RIGHT[1], [RIGHT[2]]]
    padded = [RIGHT, [WRITTEN[0], None, None]]
    assert bleu(WRITTEN, several).value == sacrebleu.corpus_bleu(WRITTEN, padded).score
    assert bleu(WRITTEN, several).value > bleu(WRITTEN, RIGHT).value
    assert "nrefs:var" in bleu(WRITTEN, several).signature
    assert chrf(WRITTEN, several).value == sacrebleu.corpus_chrf(WRITTEN, padded).score


def test_text_that_was_cut_before_is_not_cut_again_and_not_complained_of(caplog):
    written, right = ["see a, b and c ."] * 200, ["see a , b and c ."] * 200
    assert bleu(written, right).value == pytest.approx(100)
    assert bleu(written, right, tokenize="none").value < 50
    assert "tok:none" in bleu(written, right, tokenize="none").signature
    assert caplog.records == []


# --- by length -------------------------------------------------------------------------------


def test_means_are_taken_of_ranges_of_lengths():
    values, lengths = [1, 0, 1, 1, 0.5], [1, 10, 11, 12, 99]
    assert by_length(values, lengths, (10, 11, 20, 30)) == [
        Bucket("up to 10", 2, 0.5),
        Bucket("11", 1, 1.0),
        Bucket("12 to 20", 1, 1.0),
        Bucket("21 to 30", 0, None),
        Bucket("over 30", 1, 0.5),
    ]


@given(
    st.lists(st.tuples(st.integers(0, 8), st.integers(0, 40)), min_size=1),
    st.lists(st.integers(0, 40), min_size=1, max_size=5, unique=True).map(sorted),
)
def test_every_item_is_in_one_bucket(items, edges):
    values, lengths = zip(*items, strict=True)
    buckets = by_length(values, lengths, edges)
    assert sum(b.n for b in buckets) == len(items)
    total = sum(b.n * b.mean for b in buckets if b.mean is not None)
    assert math.isclose(total, sum(values), abs_tol=1e-9)
    assert len({b.label for b in buckets}) == len(edges) + 1
    counted = [sum(n <= edge for n in lengths) for edge in edges]
    assert [b.n for b in buckets[1:-1]] == [b - a for a, b in pairwise(counted)]


@pytest.mark.parametrize("edges", [[], [3, 3], [5, 2]])
def test_edges_that_do_not_ascend_are_refused(edges):
    with pytest.raises(UserError, match=r"^edges of length buckets must ascend, not "):
        by_length([1], [1], edges)


# --- what cannot be scored -------------------------------------------------------------------

SCORES = [error_rate, exact_match, bleu, chrf]


@pytest.mark.parametrize("score", SCORES)
def test_what_cannot_be_scored_is_refused(score):
    with pytest.raises(UserError, match=r"^2 hypotheses and 1 references: every one needs "):
        score(["a", "b"], ["a"])
    with pytest.raises(
        UserError, match=r"^there is nothing to score: no hypotheses, no references"
    ):
        score([], [])
    with pytest.raises(UserError, match=r"^hypothesis 2 has no reference to be held against$"):
        score(["a", "b"], [["a"], []])


def test_unequal_counts_are_refused_by_length():
    with pytest.raises(UserError, match=r"^1 values and 2 lengths: every one needs "):
        by_length([1], [1, 2], [3])
    with pytest.raises(UserError, match=r"^there is nothing to score: no values, no lengths$"):
        by_length([], [], [3])


def test_references_that_are_all_empty_have_no_rate():
    with pytest.raises(UserError, match="all of them are empty"):
        error_rate(["a", "b"], ["", " "])
    assert error_rate(["a", "b"], ["", "b"]) == 1


def test_a_missing_package_is_named(monkeypatch):
    def nothing(name):
        raise UserError(f"this needs the package {name}")

    monkeypatch.setattr(textmetrics, "require", nothing)
    for score, package in ((error_rate, "rapidfuzz"), (bleu, "sacrebleu"), (chrf, "sacrebleu")):
        with pytest.raises(UserError, match=package):
            score(["a"], ["a"])


def test_a_score_unpacks_to_value_and_signature():
    value, signature = bleu(RIGHT, RIGHT)
    assert Score(value, signature) == bleu(RIGHT, RIGHT)
    assert value == pytest.approx(100)
