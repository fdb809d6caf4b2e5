"""Probes of text: categories against brute force, every question once, the worst first."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s2sjax import probes
from s2sjax.config import Run, Text
from s2sjax.group import formatter
from s2sjax.probes import Written
from s2sjax.taskconfig import Addition, Toy
from s2sjax.tasks.addition import AdditionTask

SMALL = Addition(digits=2, train=10, dev=5, test=5)


def runs(marks: list[bool]) -> int:
    """Longest run of True."""
    return max(map(len, "".join("01"[m] for m in marks).split("0")))


# --- categories -------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 10**6), min_size=2, max_size=25))
def test_a_place_carries_where_the_numbers_cut_off_above_it_overflow(terms):
    powers = [10**k for k in range(1, 12)]
    marks = [sum(t % p for t in terms) >= p for p in powers]
    assert probes.carries(terms, "+") == runs(marks)


@given(st.lists(st.integers(0, 10**6), min_size=2, max_size=4))
def test_a_place_borrows_where_the_larger_number_cut_off_above_it_is_less(terms):
    low, high = sorted((terms[0], sum(terms[1:])))
    marks = [high % 10**k < low % 10**k for k in range(1, 12)]
    assert probes.carries(terms, "-") == runs(marks)


@pytest.mark.parametrize(
    ("terms", "operator", "chain"),
    [
        ((0, 0), "+", 0),
        ((999, 1), "+", 3),
        ((444, 555), "+", 0),
        ((105, 105), "+", 1),
        ((5_050, 5_050), "+", 1),
        ((9,) * 12, "+", 2),  # 108: a carry of ten makes another
        ((1000, 1), "-", 3),
        ((1, 1000), "-", 3),
        ((123, 23), "-", 0),
    ],
)
def test_chains_that_are_known(terms, operator, chain):
    assert probes.carries(terms, operator) == chain


def test_categories_of_questions():
    assert probes.operand_lengths("+")("123+7", "130") == "1 + 3"
    assert probes.operand_lengths("+")("7+123", "130") == "1 + 3"
    assert probes.operand_lengths("-")("7-123", "-116") == "1 − 3"
    assert probes.operand_lengths("-")("123-7", "116") == "3 − 1"
    assert probes.answer_length("7-123", "-116") == 4
    assert probes.carry_chain("+")("7+123", "130") == 1


# --- shares -----------------------------------------------------------------------------------

PAIRS = [[("1+1", "2"), ("9+1", "10"), ("8+1", "9")], [("1+1", "2"), ("9+1", "10"), ("9+9", "18")]]
WRITTEN = Written(
    PAIRS, [["2", "11", "9"], ["3", "10", "1"]], np.array([[1, 0, 1], [0, 1, 0]], bool)
)


def test_shares_are_each_seeds_over_the_questions_it_was_asked():
    by_chain = probes.by(WRITTEN, probes.carry_chain("+"))
    assert by_chain.shares == {0: [1.0, 0.0], 1: [0.0, 0.5]}
    assert by_chain.counts == {0: 2, 1: 2}  # of three on average, 1.5 each
    overall = probes.overall(WRITTEN)
    assert overall.shares == {"all": pytest.approx([2 / 3, 1 / 3])}
    assert overall.counts == {"all": 3}
    assert list(overall.plus(by_chain).counts) == ["all", 0, 1]


def test_a_category_that_one_seed_lacks_has_a_share_less():
    of = probes.by(WRITTEN, lambda question, gold: question)
    assert of.shares["9+9"] == [0.0]
    assert of.shares["1+1"] == [1.0, 0.0]


def test_places_count_from_the_end_of_what_was_written():
    of = probes.by_place(WRITTEN)
    assert list(of.shares) == ["units", "tens"]
    assert of.shares["tens"] == [1.0, 0.5]  # 11 for 10; 10 for 10, but 1 for 18
    assert of.shares["units"] == pytest.approx([2 / 3, 1 / 3])
    longer = Written([[("a", "234")]], [["1234"]], np.array([[False]]))
    assert probes.by_place(longer).shares == {"units": [1.0], "tens": [1.0], "hundreds": [1.0]}
    sixth = Written([[("a", "123456")]], [["23456"]], np.array([[False]]))
    assert probes.by_place(sixth).shares["place 6"] == [0.0]
    minus = Written([[("a", "-8"), ("b", "12")]], [["18", "12"]], np.array([[False, True]]))
    assert probes.by_place(minus).shares == {"units": [1.0], "tens": [1.0], "sign": [0.0]}


def test_a_table_of_shares_has_a_column_an_arm():
    arms = {"forward": probes.overall(WRITTEN), "reversed": probes.overall(WRITTEN)}
    table = probes.share_table(arms, "Title", "of", "Note.")
    assert table.headers == ("of", "questions", "forward", "reversed")
    assert table.rows[0][:2] == ("all", "3")
    assert table.rows[0][2].startswith("50.0 % [")
    assert table.note.endswith("of the mean]. Note.")


def test_many_arms_leave_no_room_for_intervals():
    table = probes.share_table({f"arm {i}": probes.overall(WRITTEN) for i in range(4)}, "T", "of")
    assert table.rows == (("all", "3", *["50.0 %"] * 4),)
    assert table.note == "Mean over seeds."


def test_scores_of_arms_have_a_row_each():
    table = probes.score_table({"forward": WRITTEN, "reversed": WRITTEN}, "So be it.")
    assert [row[:2] for row in table.rows] == [("forward", "3"), ("reversed", "3")]
    assert table.rows[0][2] == "50.0 % [33.3, 66.7]"
    assert table.note.endswith("So be it.")


# --- questions of our own ---------------------------------------------------------------------


@pytest.mark.parametrize("operands", ["uniform", "any_length", "short_first"])
@pytest.mark.parametrize("digits", [1, 2, 3, 5, 12])
def test_edge_cases_are_questions_of_the_task_each_once(digits, operands):
    task = Addition(digits=digits, operands=operands)
    found = probes.edge_cases(task)
    asked = AdditionTask(replace(task, train=1, dev=1, test=1))
    assert all(answer == asked.answer(question) for question, answer in found.values())
    assert len(set(found.values())) == len(found) >= 5


def test_edge_cases_have_what_sums_fail_at():
    questions = {question for question, _ in probes.edge_cases(Addition(digits=3)).values()}
    assert questions >= {"0+0", "0+123", "123+0", "999+1", "1+999", "999+999", "555+445"}
    assert questions >= {"444+444", "444+555", "5+995", "7+123", "123+7", "500+500"}


def test_the_table_of_edge_cases_counts_seeds():
    named = {"one": ("1+1", "2"), "nine": ("9+1", "10"), "eight": ("8+1", "9")}
    table = probes.edge_table(named, {"forward": WRITTEN})
    assert [row[-1] for row in table.rows] == ["1 of 2", "1 of 2", "1 of 2"]
    assert table.rows[1] == ("nine", "9+1", "10", "1 of 2")


def test_which_tasks_can_be_exhausted():
    assert probes.can_exhaust(Addition(digits=3))
    assert probes.can_exhaust(Addition(digits=3, operands="short_first"))
    assert not probes.can_exhaust(Addition(digits=4))
    assert not probes.can_exhaust(Addition(digits=2, terms=3))
    assert not probes.can_exhaust(Addition(digits=2, operator="-"))
    assert not probes.can_exhaust(Toy())


@pytest.mark.parametrize(
    "task",
    [Addition(digits=1), Addition(digits=2), Addition(digits=3)]
    + [Addition(digits=d, operands="short_first") for d in (1, 2, 3)],
)
def test_every_question_is_there_once_in_either_order(task):
    task = replace(task, train=1, dev=1, test=1)
    questions = [*probes.every_question(task)]
    operands = [tuple(map(int, question.split("+"))) for question, _ in questions]
    assert all(a <= b for a, b in operands)
    assert len(set(operands)) == len(operands) == AdditionTask(task).distinct_questions
    assert [int(answer) for _, answer in questions[:999]] == [a + b for a, b in operands[:999]]
    if task.operands == "uniform":
        assert len(operands) == {1: 55, 2: 5_050, 3: 500_500}[task.digits]


@settings(max_examples=20)
@given(st.sampled_from(["uniform", "short_first"]), st.lists(st.tuples(*[st.integers(0, 99)] * 2)))
def test_what_was_trained_on_is_marked_whichever_way_round(operands, pairs):
    task = replace(SMALL, operands=operands)
    marks = probes.seen(task, [(f"{a}+{b}", str(a + b)) for a, b in pairs])
    every = [question for question, _ in probes.every_question(task)]
    marked = {question for question, mark in zip(every, marks, strict=True) if mark}
    assert marked == {f"{min(pair)}+{max(pair)}" for pair in pairs}


def test_the_table_of_every_question_splits_what_was_trained_on():
    right = np.array([[1, 1, 0, 0], [1, 0, 0, 0]], bool)
    trained_on = np.array([[1, 0, 0, 0], [1, 1, 0, 0]], bool)
    table = probes.exhaustive_table({"forward": right}, {"forward": trained_on})
    assert [row[1:3] for row in table.rows] == [
        ("all", "4"),
        ("trained on", "2"),
        ("never trained on", "2"),
    ]
    assert [row[3].split(" %")[0] for row in table.rows] == ["37.5", "75.0", "16.7"]
    everything = probes.exhaustive_table({"forward": right}, {"forward": np.ones_like(right)})
    assert everything.rows[2][2:] == ("0", "–")


# --- longer numbers ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        Text(),
        Text(source_order="reversed"),
        Text(source_order="doubled", lag=2),
        Text(justify="right", start="first_target"),
        Text(justify="left", source_eos=False, target_eos=False),
        Text(justify="left", justify_when="after", mask_spaces=True, source_order="reversed"),
    ],
)
def test_a_digit_more_widens_the_rows_and_nothing_else(text):
    run = Run(SMALL, text)
    narrow, wide = formatter(run), formatter(probes.longer(run))
    assert wide.vocabulary == narrow.vocabulary
    assert wide.pad_id == narrow.pad_id
    copies = 2 if text.source_order == "doubled" else 1
    assert wide.source_width == narrow.source_width + 2 * copies
    assert wide.target_width == narrow.target_width + 1
    pairs = [("999+999", "1998"), ("1+999", "1000"), ("100+0", "100")]
    rows = wide.examples(pairs)
    assert rows.source.shape == (3, wide.source_width)
    if text.justify:  # filled up to the new width
        assert wide.target("100") == wide.target("100").strip().rjust(4) or text.justify == "left"
        assert len(wide.target("100")) == 4
    with pytest.raises(Exception, match="width"):
        narrow.examples(pairs)


def test_a_file_of_questions_is_not_read_for_longer_ones():
    task = replace(SMALL, file=None)
    assert probes.longer(Run(task)).task == replace(task, digits=3)
    with pytest.raises(ValueError, match="Only numbers"):
        probes.longer(Run(Toy()))


@pytest.mark.parametrize("operands", ["uniform", "any_length", "short_first"])
@pytest.mark.parametrize("digits", [2, 4, 9])
def test_longer_questions_are_distinct_new_and_always_the_same(digits, operands):
    task = Addition(digits=digits, operands=operands)
    pairs = probes.longer_questions(task, 200)
    assert pairs == probes.longer_questions(task, 200)
    assert len(set(pairs)) == len(pairs) == 200
    assert all(max(map(len, question.split("+"))) == digits for question, _ in pairs)
    asked = AdditionTask(replace(task, train=1, dev=1, test=1))
    assert all(asked.answer(question) == answer for question, answer in pairs)


def test_where_few_longer_questions_exist_there_are_fewer():
    found = probes.longer_questions(Addition(digits=2), 10_000)
    assert 2_000 < len(found) < 5_050 - 55


# --- the worst --------------------------------------------------------------------------------


def test_the_worst_are_those_fewest_seeds_get_right_and_of_these_the_least_likely():
    pairs = [("1+1", "2"), ("2+2", "4"), ("3+3", "6"), ("4+4", "8")]
    right = np.array([[1, 0, 0, 1], [1, 0, 0, 0]], bool)
    written = Written([pairs] * 2, [["2", "5", "", "8"], ["2", "3", "7", "9"]], right)
    log_probs = -np.array([[9, 1, 2, 3], [9, 1.5, 4, 3]])
    table = probes.worst_table("forward", written, log_probs, first_seed=7, n=3)
    assert table.headers[3] == "seed 7 wrote"
    assert table.rows == (
        ("3+3", "6", "0 of 2", "(nothing)", "−3.00"),
        ("2+2", "4", "0 of 2", "5", "−1.25"),
        ("4+4", "8", "1 of 2", "8", "−3.00"),
    )
