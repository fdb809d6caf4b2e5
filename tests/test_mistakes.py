"""Mistakes: categories against brute force, every question once, the worst first."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s2sjax.analysis import mistakes
from s2sjax.analysis.mistakes import Answers
from s2sjax.config import Text
from s2sjax.data.dataset import make_formatter
from s2sjax.data.tasks import Addition
from s2sjax.errors import UserError

SMALL = Addition(digits=2, train=10, dev=5, test=5)


def runs(marks: list[bool]) -> int:
    """Longest run of True."""
    return max(map(len, "".join("01"[m] for m in marks).split("0")))


# --- categories -------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 10**6), min_size=2, max_size=25))
def test_a_place_carries_where_the_numbers_cut_off_above_it_overflow(terms):
    powers = [10**k for k in range(1, 12)]
    marks = [sum(t % p for t in terms) >= p for p in powers]
    assert mistakes.carries("+".join(map(str, terms))) == runs(marks)


@given(st.lists(st.integers(0, 10**6), min_size=2, max_size=4))
def test_a_place_borrows_where_the_larger_number_cut_off_above_it_is_less(terms):
    low, high = sorted((terms[0], sum(terms[1:])))
    marks = [high % 10**k < low % 10**k for k in range(1, 12)]
    assert mistakes.carries("-".join(map(str, terms))) == runs(marks)


def test_categories_that_are_known():
    chains = {"0+0": 0, "999+1": 3, "444+555": 0, "105+105": 1, "5050+5050": 1}
    chains |= {"1000-1": 3, "1-1000": 3, "123-23": 0, "+".join("9" * 12): 2}  # a carry of ten: two
    assert {question: mistakes.carries(question) for question in chains} == chains
    lengths = {"123+7": "1 + 3", "7+123": "1 + 3", "7-123": "1 − 3", "123-7": "3 − 1"}
    assert {question: mistakes.operand_lengths(question, "") for question in lengths} == lengths


# --- shares -----------------------------------------------------------------------------------

PAIRS = [[("1+1", "2"), ("9+1", "10"), ("8+1", "9")], [("1+1", "2"), ("9+1", "10"), ("9+9", "18")]]
ANSWERS = Answers(
    PAIRS, [["2", "11", "9"], ["3", "10", "1"]], np.array([[1, 0, 1], [0, 1, 0]], bool)
)


def test_shares_are_each_seeds_over_the_questions_it_was_asked():
    chains = mistakes.shares_by(ANSWERS, mistakes.carries)
    assert chains == {0: ([1.0, 0.0], 2), 1: ([0.0, 0.5], 2)}  # of three on average, 1.5 each
    overall = mistakes.overall(ANSWERS)
    assert overall == {"all": (pytest.approx([2 / 3, 1 / 3]), 3)}
    questions = mistakes.shares_by(ANSWERS, lambda question, gold: question)
    assert questions["9+9"].seeds == [0.0]  # asked of one seed alone
    assert questions["1+1"].seeds == [1.0, 0.0]


def test_places_count_from_the_end_of_what_was_written():
    places = mistakes.shares_by_place(ANSWERS)
    assert list(places) == ["units", "tens"]
    assert places["tens"].seeds == [1.0, 0.5]  # 11 for 10; 10 for 10, but 1 for 18
    assert places["units"].seeds == pytest.approx([2 / 3, 1 / 3])

    def seeds(*rows: tuple[str, str]) -> dict:
        pairs, texts = [[("a", gold) for gold, _ in rows]], [[text for _, text in rows]]
        places = mistakes.shares_by_place(Answers(pairs, texts, np.zeros((1, len(rows)), bool)))
        return {place: share.seeds for place, share in places.items()}

    assert seeds(("234", "1234")) == {"units": [1.0], "tens": [1.0], "hundreds": [1.0]}
    assert seeds(("123456", "23456"))["place 6"] == [0.0]
    assert seeds(("-8", "18"), ("12", "12")) == {"units": [1.0], "tens": [1.0], "sign": [0.0]}


def test_tables_have_a_column_or_a_row_an_arm():
    arms = {"forward": mistakes.overall(ANSWERS), "reversed": mistakes.overall(ANSWERS)}
    table = mistakes.share_table(arms, "Title", "of", "Note.")
    assert table.headers == ("of", "questions", "forward", "reversed")
    assert table.rows[0][:2] == ("all", "3")
    assert table.rows[0][2] == "50.0 %"
    assert table.note.endswith("Student's t]. Note.")
    many = mistakes.share_table({f"arm {i}": arms["forward"] for i in range(4)}, "T", "of")
    assert many.rows == (("all", "3", *["50.0 %"] * 4),)  # no room for intervals
    assert many.note == "Mean over seeds."
    scores = mistakes.exact_match_table({"forward": ANSWERS, "reversed": ANSWERS}, "So be it.")
    assert [row[:2] for row in scores.rows] == [("forward", "3"), ("reversed", "3")]
    assert scores.rows[0][2] == "50.0 %"
    assert scores.note.endswith("So be it.")


# --- chosen questions -------------------------------------------------------------------------


@pytest.mark.parametrize("operands", ["uniform", "any_length", "short_first"])
@pytest.mark.parametrize("digits", [1, 2, 3, 5, 12])
def test_edge_cases_are_questions_of_the_task_each_once(digits, operands):
    task = Addition(digits=digits, operands=operands, train=1, dev=1, test=1)
    cases = mistakes.edge_cases(task)
    assert all(answer == task.answers(question)[0] for question, answer in cases.values())
    assert len(set(cases.values())) == len(cases) >= 5


def test_edge_cases_have_what_sums_fail_at():
    questions = {question for question, _ in mistakes.edge_cases(Addition(digits=3)).values()}
    assert questions >= {"0+0", "0+123", "123+0", "999+1", "1+999", "999+999", "555+445"}
    assert questions >= {"444+444", "444+555", "5+995", "7+123", "123+7", "500+500"}


def test_the_table_of_edge_cases_counts_seeds():
    named = {"one": ("1+1", "2"), "nine": ("9+1", "10"), "eight": ("8+1", "9")}
    rows = mistakes.edge_table(named, {"forward": ANSWERS}).rows
    assert rows[1] == ("nine", "9+1", "10", "1 of 2")


def test_which_tasks_can_be_asked_in_full():
    assert mistakes.all_sums(Addition(digits=3, operands="short_first"))
    others = (Addition(digits=4), Addition(digits=2, terms=3), replace(SMALL, operator="-"))
    assert not any(map(mistakes.all_sums, others))


@pytest.mark.parametrize("operands", ["uniform", "short_first"])
@pytest.mark.parametrize("digits", [1, 2, 3])
def test_every_question_is_there_once_in_either_order(digits, operands):
    task = Addition(digits=digits, operands=operands, train=1, dev=1, test=1)
    questions = mistakes.all_sums(task)
    terms = [tuple(map(int, question.split("+"))) for question, _ in questions]
    assert all(a <= b for a, b in terms)
    assert len(set(terms)) == len(terms) == task.distinct_questions
    assert [int(answer) for _, answer in questions[:999]] == [a + b for a, b in terms[:999]]


@settings(max_examples=20)
@given(st.sampled_from(["uniform", "short_first"]), st.lists(st.tuples(*[st.integers(0, 99)] * 2)))
def test_what_was_trained_on_is_marked_whichever_way_round(operands, pairs):
    task = replace(SMALL, operands=operands)
    sums = mistakes.all_sums(task)
    marks = mistakes.which_sums(sums, [(f"{a}+{b}", str(a + b)) for a, b in pairs])
    marked = {question for (question, _), mark in zip(sums, marks, strict=True) if mark}
    assert marked == {f"{min(pair)}+{max(pair)}" for pair in pairs}


def test_the_table_of_every_question_splits_what_was_trained_on():
    right = np.array([[1, 1, 0, 0], [1, 0, 0, 0]], bool)
    trained_on = np.array([[1, 0, 0, 0], [1, 1, 0, 0]], bool)
    table = mistakes.all_sums_table({"forward": right}, {"forward": trained_on})
    assert [row[1:3] for row in table.rows] == [
        ("all", "4"),
        ("trained on", "2"),
        ("never trained on", "2"),
    ]
    assert [row[3].split(" %")[0] for row in table.rows] == ["37.5", "75.0", "16.7"]
    everything = mistakes.all_sums_table({"forward": right}, {"forward": np.ones_like(right)})
    assert everything.rows[2][2:] == ("0", "–")


# --- longer numbers ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        Text(),
        Text(source_order="doubled", lag=2),
        Text(source_justify="right", target_justify="right", start="first_target"),
        Text(source_justify="left", justify_when="after", mask_spaces=True, lag=1),
    ],
)
def test_a_digit_more_widens_the_rows_and_nothing_else(text):
    narrow, wide = (
        make_formatter(SMALL, text),
        make_formatter(mistakes.with_longer_numbers(SMALL), text),
    )
    assert wide.source == narrow.source
    assert wide.target == narrow.target
    copies = 2 if text.source_order == "doubled" else 1
    more = np.subtract(wide.row_widths, narrow.row_widths).tolist()
    assert more == [2 * copies, 1]
    pairs = [("999+999", "1998"), ("1+999", "1000"), ("100+0", "100")]
    rows = wide.examples(pairs)
    assert rows.source.shape == (3, wide.row_widths[0])
    with pytest.raises(UserError, match="width"):
        narrow.examples(pairs)


@pytest.mark.parametrize("operands", ["uniform", "any_length", "short_first"])
@pytest.mark.parametrize("digits", [2, 4, 9])
def test_longer_questions_are_distinct_new_and_always_the_same(digits, operands):
    task = Addition(digits=digits, operands=operands, train=1, dev=1, test=1)
    pairs = mistakes.longer_questions(task, 200)
    assert pairs == mistakes.longer_questions(replace(task, train=9), 200)
    assert len(set(pairs)) == len(pairs) == 200
    assert all(max(map(len, question.split("+"))) == digits for question, _ in pairs)
    assert all(task.answers(question)[0] == answer for question, answer in pairs)


def test_where_few_longer_questions_exist_there_are_fewer():
    found = mistakes.longer_questions(SMALL, 10_000)
    assert 2_000 < len(found) < 5_050 - 55


# --- the worst --------------------------------------------------------------------------------


def test_the_worst_are_those_fewest_seeds_get_right_and_of_these_the_least_likely():
    pairs = [("1+1", "2"), ("2+2", "4"), ("3+3", "6"), ("4+4", "8")]
    right = np.array([[1, 0, 0, 1], [1, 0, 0, 0]], bool)
    answers = Answers([pairs] * 2, [["2", "5", "", "8"], ["2", "3", "7", "9"]], right)
    log_probs = -np.array([[9, 1, 2, 3], [9, 1.5, 4, 3]])
    table = mistakes.worst_table("forward", answers, log_probs, seed=7, n=3)
    assert table.headers[3] == "seed 7 wrote"
    assert table.rows == (
        ("3+3", "6", "0 of 2", "(nothing)", "−3.00"),
        ("2+2", "4", "0 of 2", "5", "−1.25"),
        ("4+4", "8", "1 of 2", "8", "−3.00"),
    )
