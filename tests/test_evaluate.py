"""Scores of a stack: independent of how they are taken, against several references, and of text."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny import begin, group, same, stack_of

from s2sjax.config import Text
from s2sjax.data.batches import Bucket
from s2sjax.data.rows import Formatter
from s2sjax.data.vocab import CharacterVocabulary
from s2sjax.train import evaluate
from s2sjax.train.evaluate import Evaluation, texts_of, with_references
from s2sjax.train.metrics import EXACT_MATCH, Count

KINDS = ["sums", "sentences"]


def scored(kind, batch_size=16, buckets=None):
    runs = stack_of(kind)
    runs = runs._replace(
        training=replace(runs.training, batch_size=batch_size), buckets=buckets or runs.buckets
    )
    return runs.score(begin(kind).state.params, runs.dev)


@pytest.mark.parametrize(
    ("kind", "batch_size", "narrow"),
    [
        ("sums", 7, None),
        ("sentences", 7, None),
        ("sentences", 1_000, ()),
        ("sentences", 16, (Bucket(2, 3, 1), Bucket(4, 4, 9))),
    ],
    ids=["sums by 7", "sentences by 7", "one batch", "other widths"],
)
def test_scores_do_not_depend_on_the_batches_they_are_taken_in(
    kind, batch_size, narrow, monkeypatch
):
    wanted, buckets = scored(kind), stack_of(kind).buckets
    monkeypatch.setattr(evaluate, "POSITIONS", 1)  # each batch in a call of its own
    found = scored(kind, batch_size, buckets if narrow is None else (*narrow, buckets[-1]))
    np.testing.assert_array_equal(found.answers, wanted.answers)
    np.testing.assert_array_equal(found.right, wanted.right)
    for metric in wanted.counts.keys() & found.counts.keys():
        np.testing.assert_allclose(found.counts[metric], wanted.counts[metric], rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_every_row_of_every_replica_is_scored_once(kind):
    found, runs = scored(kind), stack_of(kind)
    n = len(runs.dev[0].lengths)
    assert found.answers.shape[:2] == (2, n)
    assert found.counts[EXACT_MATCH].of.tolist() == [n, n]
    assert found.counts["loss"].of.tolist() == [runs.dev[0].lengths[:, 1].sum() - n] * 2
    np.testing.assert_array_equal(found.counts[EXACT_MATCH].right, found.right.sum(axis=1))
    positions = {m for m in found.values(0) if "/position_" in m}
    assert bool(positions) == (kind == "sums")  # of one width
    assert found.values(0)["loss"] == pytest.approx(np.log(9 if kind == "sums" else 18), rel=0.3)


def test_scoring_ends_when_it_is_asked_to(monkeypatch):
    monkeypatch.setattr(evaluate, "POSITIONS", 1)
    asked = iter([False, True])
    runs = stack_of("sums")
    assert runs.score(begin("sums").state.params, runs.dev, lambda: next(asked)) is None


def test_values_leave_out_what_has_nothing_to_score():
    counts = {
        "a": Count(np.array([1.0, 2.0]), np.array([4.0, 4.0])),
        "b": Count(np.array([0.0, 0.0]), np.array([0.0, 1.0])),
        "a/position": Count(np.array([[1.0, 0], [2, 0]]), np.array([[2.0, 0], [2, 1]])),
    }
    found = Evaluation(counts, np.zeros((2, 1, 1), np.int32), np.zeros((2, 1), bool))
    assert found.values(0) == {"a": 0.25, "a/position_1": 0.5}
    assert found.values(1) == {"a": 0.5, "b": 0.0, "a/position_1": 1.0, "a/position_2": 0.0}


# --- several right answers -----------------------------------------------------------------

VOCABULARY = CharacterVocabulary("abc")
strings = st.text("abc", min_size=1, max_size=3)


def formatter(**text):
    return Formatter(Text(**text), VOCABULARY, VOCABULARY, (3, 3))


def evaluation(rows, references, formatter):
    """Of two replicas that wrote these strings; held against the first references."""
    ids = [[(formatter.target_ids(w)[1:] + [2] * 4)[:4] for w in replica] for replica in rows]
    right = [[w == r[0] for w, r in zip(replica, references, strict=True)] for replica in rows]
    return Evaluation({"loss": Count(*np.ones((2, 2)))}, np.array(ids, np.int32), np.array(right))


@given(st.lists(st.tuples(strings, strings, st.lists(strings, min_size=1)), min_size=1))
def test_an_answer_that_is_any_of_the_references_is_right(items):
    references = [tuple(several) for *_, several in items]
    rows = [[w for w, *_ in items], [w for _, w, _ in items]]
    before = evaluation(rows, references, formatter())
    for replicas in (slice(0, 2), slice(1, 2)):
        found = with_references(before, formatter(), references, replicas)
        wanted = before.right.copy()
        for i in range(2)[replicas]:
            wanted[i] = [w in r for w, r in zip(rows[i], references, strict=True)]
        np.testing.assert_array_equal(found.right, wanted)
        np.testing.assert_array_equal(found.counts[EXACT_MATCH].right, wanted.sum(axis=1))
        same(found.counts["loss"], before.counts["loss"])


def test_a_first_symbol_that_was_given_is_part_of_the_answer():
    given = formatter(start="first_target")
    before = evaluation([["ab"], ["ab"]], [("ac", "cb", "ab")], given)
    assert with_references(before, given, [("ac", "cb")], slice(0, 2)).right.tolist() == [[0], [0]]
    assert with_references(before, given, [("ac", "ab")], slice(0, 2)).right.tolist() == [[1], [1]]


def test_texts_are_what_was_written_and_scored_as_their_unit_is():
    lettered, worded = formatter(target_order="reversed"), group("sentences").formatter("forward")
    ids = np.array([lettered.target_ids("abc")[1:], [*lettered.target_ids("b")[1:], 2, 2]])
    texts = texts_of(lettered, ids.astype(np.int32), [("abc", "c"), ("c",)])
    assert texts.written == ["abc", "b"]
    assert texts.scores()["symbol_error_rate"] == 1 / 4
    ids = np.array([worded.target_ids("v1 v2 v3 v4")[1:]], np.int32)
    texts = texts_of(worded, ids, [("V1 v2 v3 v4",)])  # capitals are read as small
    assert texts.written == ["v1 v2 v3 v4"]
    assert texts.bleu() == texts.scores()["BLEU"] == pytest.approx(100)
    assert texts.scores()["symbol_error_rate"] == 0
