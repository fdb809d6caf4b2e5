"""Addition: right answers, splits that cannot leak, and how many questions there are."""

import itertools
import math
import re
from collections import Counter
from collections.abc import Hashable

import jax
import numpy as np
import pytest

from s2sjax.errors import UserError
from s2sjax.taskconfig import Addition
from s2sjax.tasks import Task, addition, make_task
from s2sjax.tasks.addition import AdditionTask

SPLITS = ["train", "dev", "test"]
FEW = {"train": 30, "dev": 15, "test": 10}
ONE = {"train": 1, "dev": 1, "test": 1}

shapes = pytest.mark.parametrize(
    ("digits", "terms", "operator"),
    [(1, 2, "+"), (1, 2, "-"), (2, 3, "-"), (3, 2, "+"), (4, 5, "+"), (25, 2, "+"), (25, 3, "-")],
)
every_operands = pytest.mark.parametrize("operands", ["uniform", "any_length", "short_first"])
operators = pytest.mark.parametrize("operator", ["+", "-"])
both_splits = pytest.mark.parametrize("splits", ["independent", "leak_free"])


def draw(seed: int = 0, **settings) -> dict[str, list[tuple[str, str]]]:
    return make_task(Addition(**(FEW | settings))).splits(jax.random.key(seed))


def asked(split: list[tuple[str, str]]) -> list[str]:
    return [question for question, _ in split]


def identity(question: str) -> Hashable:
    """Equal for questions that only swap operands that may be swapped."""
    if "-" in question:
        first, *rest = question.split("-")
        return first, frozenset(Counter(rest).items())
    return frozenset(Counter(question.split("+")).items())


def every_question(digits: int, terms: int, operator: str) -> list[str]:
    numbers = [str(n) for n in range(10**digits)]
    return [operator.join(operands) for operands in itertools.product(numbers, repeat=terms)]


# --- questions and answers -------------------------------------------------------------------


@shapes
@both_splits
def test_all_answers_are_right(digits, terms, operator, splits):
    split = draw(digits=digits, terms=terms, operator=operator, splits=splits)
    for question, answer in itertools.chain(*split.values()):
        operands = [int(operand) for operand in question.split(operator)]
        assert len(operands) == terms
        assert all(0 <= operand < 10**digits for operand in operands)
        signs = [1] + [1 if operator == "+" else -1] * (terms - 1)
        assert answer == str(sum(s * n for s, n in zip(signs, operands, strict=True)))


def test_numbers_beyond_64_bits_are_drawn_and_computed_exactly():
    operands = [int(n) for q in asked(draw(digits=25)["train"]) for n in q.split("+")]
    assert max(operands) > 9 * 10**24
    assert sum(n > 10**24 for n in operands) > 0.8 * len(operands)
    assert len({n % 10**6 for n in operands}) == len(operands)  # a float's last digits repeat


def test_differences_are_negative_about_as_often_as_positive():
    answers = [a for _, a in draw(digits=25, operator="-", train=1_000)["train"]]
    assert 400 < sum(a.startswith("-") for a in answers) < 600


def test_operands_are_uniform():
    split = draw(digits=1, train=5_000, splits="independent")["train"]
    for place in (0, 1):
        counts = Counter(question.split("+")[place] for question in asked(split))
        assert len(counts) == 10
        assert all(abs(n - 500) < 110 for n in counts.values())  # 5 standard deviations
    assert len(set(asked(split))) == 100  # one operand says nothing about the other


@pytest.mark.parametrize(("digits", "terms"), [(1, 2), (1, 3), (2, 2)])
@operators
def test_widths_and_characters_are_those_of_every_question(digits, terms, operator):
    task = AdditionTask(Addition(digits=digits, terms=terms, operator=operator, **ONE))
    questions = every_question(digits, terms, operator)
    answers = [task.answer(question) for question in questions]
    assert max(map(len, questions)) == task.source_width
    assert max(map(len, answers)) == task.target_width
    assert set("".join(questions + answers)) | {" "} == set(task.characters)
    assert len(task.characters) == 12


@pytest.mark.parametrize(("digits", "terms"), [(1, 12), (1, 13), (2, 3), (3, 2), (9, 2), (25, 4)])
@operators
def test_the_widest_question_and_answer_fit_exactly(digits, terms, operator):
    task = AdditionTask(Addition(digits=digits, terms=terms, operator=operator, **ONE))
    nines = ["9" * digits] * terms
    assert len(operator.join(nines)) == task.source_width
    lowest_or_highest = nines if operator == "+" else ["0", *nines[1:]]
    assert len(task.answer(operator.join(lowest_or_highest))) == task.target_width


@shapes
def test_drawn_text_fits_the_widths_and_the_characters(digits, terms, operator):
    task = AdditionTask(Addition(digits=digits, terms=terms, operator=operator, **FEW))
    for question, answer in itertools.chain(*task.splits(jax.random.key(0)).values()):
        assert len(question) <= task.source_width
        assert len(answer) <= task.target_width
        assert set(question + answer) <= set(task.characters)


def test_answers_to_given_questions():
    assert AdditionTask(Addition(digits=3)).answer("568+32") == "600"
    assert AdditionTask(Addition(digits=3)).answer("007+1") == "8"
    assert AdditionTask(Addition(digits=2, operator="-", terms=3)).answer("1-99-99") == "-197"
    assert AdditionTask(Addition(digits=25)).answer(f"{10**24}+{10**24}") == str(2 * 10**24)


@pytest.mark.parametrize(
    "source",
    [
        "",
        "12",
        "1+",
        "+1",
        "1+2+3",
        "1234+5",
        "1-2",
        "1 + 2",
        "1+2 ",
        "1+2\n",
        "1+x",
        "1+²",
        "1+٢",
        "1++2",
    ],
)
def test_what_is_no_question_is_refused_with_an_example(source):
    message = (
        f"{source!r} is no question of this run: it asks for 2 numbers of at most 3 digits "
        "joined by '+', such as 123+123"
    )
    with pytest.raises(UserError, match=f"^{re.escape(message)}$"):
        AdditionTask(Addition(digits=3)).answer(source)


@shapes
def test_the_example_in_that_message_is_a_question(digits, terms, operator):
    task = AdditionTask(Addition(digits=digits, terms=terms, operator=operator, **FEW))
    with pytest.raises(UserError) as error:
        task.answer("?")
    task.answer(str(error.value).rpartition("such as ")[2])


def test_it_is_a_task():
    task = make_task(Addition())
    assert isinstance(task, Task)
    assert task == AdditionTask(Addition())


# --- operands --------------------------------------------------------------------------------


def operands_of(question: str) -> list[int]:
    return [int(operand) for operand in question.split("+")]


def within(count: int, n: int, chance: float) -> bool:
    """Whether `count` of `n` is what has this chance, within five standard deviations."""
    return abs(count - n * chance) <= 5 * math.sqrt(n * chance * (1 - chance)) + 1


def test_any_length_draws_a_number_of_digits_and_then_the_digits_as_keras_does():
    n, digits = 20_000, 3
    split = draw(digits=digits, operands="any_length", splits="independent", train=n)["train"]
    pairs = [operands_of(question) for question in asked(split)]
    # Keras: int of 1 to 3 characters, each of ten, so a number below 10 comes in three ways
    by_hand = Counter(
        int("".join(drawn))
        for length in range(1, digits + 1)
        for drawn in itertools.product("0123456789", repeat=length)
        for _ in range(10 ** (digits - length))
    )
    total = by_hand.total()
    assert total == digits * 10**digits
    for place in (0, 1):
        found = Counter(pair[place] for pair in pairs)
        assert set(found) <= set(by_hand)
        assert all(within(found[number], n, by_hand[number] / total) for number in by_hand)
        lengths = Counter(len(str(pair[place])) for pair in pairs)
        for length in (1, 2, 3):
            chance = sum(k for number, k in by_hand.items() if len(str(number)) == length) / total
            assert within(lengths[length], n, chance)
    # the two operands' lengths say nothing about each other
    long = sum(k for number, k in by_hand.items() if number > 99) / total
    assert within(sum(a > 99 and b > 99 for a, b in pairs), n, long**2)


def test_short_questions_of_any_length_are_in_every_split_alike():
    """Whoever draws first would otherwise have them all: they are few, and likely."""
    split = draw(operands="any_length", train=4_000, dev=1_000, test=1_000)
    short = {name: np.mean([len(q) <= 4 for q, _ in pairs]) for name, pairs in split.items()}
    assert short["train"] > 0.1
    assert max(short.values()) - min(short.values()) < 0.06  # five standard errors


def test_of_a_single_digit_any_length_is_uniform():
    ours, theirs = (
        draw(digits=1, operands=operands, splits="independent", train=5_000)["train"]
        for operands in ("any_length", "uniform")
    )
    counts = [Counter(answer for _, answer in split) for split in (ours, theirs)]
    for answer in range(19):
        chance = (10 - abs(answer - 9)) / 100
        assert all(within(found[str(answer)], 5_000, chance) for found in counts)


def test_many_distinct_questions_of_any_length_are_as_in_saitohs_file():
    sizes = {"train": 45_000, "dev": 1, "test": 5_000}
    split = draw(operands="any_length", **sizes)
    drawn = split["train"] + split["test"]
    assert sum(len(question) == 7 for question in asked(drawn)) / 50_000 == pytest.approx(
        0.252, abs=0.008
    )
    answers = Counter(len(answer) for _, answer in drawn)
    assert [answers[n] for n in (1, 2, 3, 4)] == [
        pytest.approx(30, abs=1),  # all there are, one of them perhaps in dev
        pytest.approx(2_478, abs=60),
        pytest.approx(38_415, abs=500),
        pytest.approx(9_077, abs=500),
    ]
    assert sum(answers.values()) == 50_000


def test_short_first_is_one_short_number_and_uniform_ones_in_ascending_order():
    n = 5_000
    split = draw(operands="short_first", splits="independent", train=n)["train"]
    pairs = [operands_of(question) for question in asked(split)]
    assert all(0 <= a <= 99 and a <= b <= 999 for a, b in pairs)
    # Flax: sorted((randint(0, 99), randint(0, 999)))
    by_hand = Counter(tuple(sorted(p)) for p in itertools.product(range(100), range(1_000)))
    for place, most in ((0, 99), (1, 999)):
        for threshold in (0, 10, 50, most):
            chance = sum(k for pair, k in by_hand.items() if pair[place] <= threshold) / 100_000
            assert within(sum(pair[place] <= threshold for pair in pairs), n, chance)


def test_short_first_of_many_terms_has_at_least_one_short_number():
    task = AdditionTask(Addition(digits=4, terms=3, operands="short_first", **FEW))
    assert (task.source_width, task.target_width) == (len("99+9999+9999"), len(str(99 + 2 * 9_999)))
    for question, answer in itertools.chain(*task.splits(jax.random.key(0)).values()):
        terms = operands_of(question)
        assert terms == sorted(terms)
        assert terms[0] <= 99
        assert terms[2] > 99
        assert answer == str(sum(terms))


@pytest.mark.parametrize("digits", [1, 2, 3])
def test_widths_of_short_first_are_those_of_its_widest_question(digits):
    task = AdditionTask(Addition(digits=digits, operands="short_first", **ONE))
    widest = f"{min(99, 10**digits - 1)}+{10**digits - 1}"
    assert task.source_width == len(widest)
    assert task.target_width == len(task.answer(widest))


@every_operands
@both_splits
def test_drawn_questions_are_questions(operands, splits):
    task = AdditionTask(Addition(operands=operands, splits=splits, **FEW))
    split = task.splits(jax.random.key(0))
    assert {name: len(rows) for name, rows in split.items()} == FEW
    for question, answer in itertools.chain(*split.values()):
        assert task.answer(question) == answer
        assert question == "+".join(map(str, operands_of(question)))  # no leading zeros
        assert len(question) <= task.source_width
        assert len(answer) <= task.target_width


@every_operands
def test_leak_free_splits_hold_no_question_twice_whatever_the_operands(operands):
    sizes = {"train": 700, "dev": 100, "test": 100}
    split = draw(digits=2, operands=operands, **sizes)
    names = [identity(question) for name in SPLITS for question in asked(split[name])]
    assert len(set(names)) == len(names) == 900


@pytest.mark.parametrize("question", ["100+999", "12+5", "100+5"])
def test_short_first_refuses_what_it_does_not_ask(question):
    message = (
        f"{question!r} is no question of this run: the first number is at most 99 and the smallest"
    )
    with pytest.raises(UserError, match=f"^{re.escape(message)}$"):
        AdditionTask(Addition(operands="short_first")).answer(question)


@pytest.mark.parametrize("question", ["0+0", "99+99", "5+12", "99+999"])
def test_short_first_answers_what_it_asks(question):
    assert AdditionTask(Addition(operands="short_first")).answer(question) == str(
        sum(operands_of(question))
    )


@pytest.mark.parametrize(("digits", "terms"), [(1, 2), (2, 3), (3, 2), (12, 3)])
def test_the_example_of_a_question_is_one_for_short_first_too(digits, terms):
    config = Addition(digits=digits, terms=terms, operands="short_first", **FEW)
    with pytest.raises(UserError) as error:
        AdditionTask(config).answer("?")
    AdditionTask(config).answer(str(error.value).rpartition("such as ")[2])


def test_a_string_without_end_is_cut_in_the_message():
    with pytest.raises(UserError) as error:
        AdditionTask(Addition()).answer("1" * 1_000_000)
    assert str(error.value).startswith(f"'{79 * '1'}…' is no question of this run: ")
    assert len(str(error.value)) < 250


# --- splits ----------------------------------------------------------------------------------


@both_splits
def test_splits_have_the_sizes_asked_for(splits):
    assert {name: len(rows) for name, rows in draw(splits=splits).items()} == FEW


@both_splits
def test_splits_are_a_pure_function_of_the_key(splits):
    assert draw(3, splits=splits) == draw(3, splits=splits)


def test_independent_splits_are_all_the_seeds_own():
    ours, theirs = draw(0, splits="independent"), draw(1, splits="independent")
    assert all(ours[name] != theirs[name] for name in SPLITS)


def test_independent_questions_are_drawn_with_replacement():
    split = draw(digits=1, train=1_000, splits="independent")  # 100 questions exist
    assert len(split["train"]) == 1_000
    assert set(asked(split["test"])) <= set(asked(split["train"]))


@pytest.mark.parametrize("digits", [1, 3])  # of one digit, the splits hold all that exist
def test_seeds_share_leak_free_dev_and_test_questions_but_not_training_questions(digits):
    ours, theirs = draw(0, digits=digits), draw(1, digits=digits)
    assert (ours["dev"], ours["test"]) == (theirs["dev"], theirs["test"])
    assert ours["train"] != theirs["train"]
    if digits == 3:
        assert len(set(asked(ours["train"])) & set(asked(theirs["train"]))) < 5


def test_leak_free_dev_and_test_questions_do_not_depend_on_how_many_others_there_are():
    small, large = draw(digits=2), draw(digits=2, train=4_000)
    assert (small["dev"], small["test"]) == (large["dev"], large["test"])
    assert small["test"] == draw(digits=2, dev=4_000)["test"]
    assert small["dev"][:10] != small["test"]


def test_the_leak_free_test_set_stays_what_it_was():  # committed results were scored on it
    pinned = [("914+918", "1832"), ("963+883", "1846"), ("930+100", "1030")]
    assert draw(digits=3)["test"][:3] == pinned


@pytest.mark.parametrize(
    ("settings", "seed"),
    [
        ({"digits": 2, "train": 2_000, "dev": 500, "test": 500}, 0),
        ({"digits": 2, "train": 2_000, "dev": 500, "test": 500}, 1),
        ({"digits": 2, "train": 5_000, "dev": 500, "test": 500, "operator": "-"}, 0),
        ({"digits": 1, "terms": 3, "train": 300, "dev": 50, "test": 50, "operator": "-"}, 0),
        ({"digits": 1, "terms": 3, "train": 100, "dev": 50, "test": 50}, 0),
    ],
)
def test_no_question_is_in_two_leak_free_splits_or_twice_in_one(settings, seed):
    split = draw(seed, **settings)
    names = [identity(question) for name in SPLITS for question in asked(split[name])]
    assert len(set(names)) == len(names) == sum(settings[name] for name in SPLITS)


# --- how many there are ----------------------------------------------------------------------


@pytest.mark.parametrize(("digits", "terms"), [(1, 2), (1, 3), (1, 4), (2, 2)])
@operators
def test_distinct_questions_are_counted_as_enumeration_counts_them(digits, terms, operator):
    task = AdditionTask(Addition(digits=digits, terms=terms, operator=operator, **ONE))
    every = {identity(question) for question in every_question(digits, terms, operator)}
    assert task.distinct_questions == len(every)


@pytest.mark.parametrize(("digits", "terms"), [(1, 2), (1, 3), (2, 2)])
@every_operands
def test_distinct_questions_are_counted_whatever_the_operands(digits, terms, operands):
    task = AdditionTask(Addition(digits=digits, terms=terms, operands=operands, **ONE))
    questions = every_question(digits, terms, "+")
    if operands == "short_first":
        questions = [q for q in questions if operands_of(q) == sorted(operands_of(q))]
    assert task.distinct_questions == len({identity(question) for question in questions})


@pytest.mark.parametrize("terms", [2, 3])
def test_distinct_questions_of_short_first_are_those_with_a_short_number(terms, monkeypatch):
    # with two digits all are short: here those of one digit count as short
    monkeypatch.setattr(addition, "SHORT", 1)
    task = AdditionTask(Addition(digits=2, terms=terms, operands="short_first", **ONE))
    every = itertools.combinations_with_replacement(range(100), terms)
    assert task.distinct_questions == sum(numbers[0] <= 9 for numbers in every)


def test_distinct_questions_of_short_first_with_three_digits():
    task = AdditionTask(Addition(digits=3, operands="short_first", **ONE))
    assert task.distinct_questions == sum(b >= a for a in range(100) for b in range(1_000))


@pytest.mark.parametrize(
    ("settings", "wanted", "existing", "what"),
    [
        ({"digits": 2}, "7,000", "5,050", "2-term, 2-digit '+'"),
        ({"digits": 3, "train": 600_000}, "602,000", "500,500", "2-term, 3-digit '+'"),
        ({"digits": 2, "operator": "-", "train": 9_000}, "11,000", "10,000", "2-term, 2-digit '-'"),
        ({"digits": 1, "train": 54, "dev": 1, "test": 1}, "56", "55", "2-term, 1-digit '+'"),
        (
            {"operands": "short_first", "train": 100_000},
            *("102,000", "95,050", "2-term, 3-digit '+'"),
        ),
    ],
)
def test_asking_for_more_distinct_questions_than_exist_is_refused(settings, wanted, existing, what):
    message = (
        f"{wanted} distinct {what} questions are asked for (train + dev + test) "
        f"but only {existing} exist"
    )
    with pytest.raises(UserError, match=f"^{re.escape(message)}$"):
        make_task(Addition(**settings))
    make_task(Addition(**settings, splits="independent"))  # with replacement there is no end


@pytest.mark.parametrize(
    ("settings", "existing"),
    [
        ({"train": 30, "dev": 15, "test": 10}, 55),
        ({"train": 1, "dev": 1, "test": 53}, 55),
        ({"train": 80, "dev": 10, "test": 10, "operator": "-"}, 100),
        ({"train": 30, "dev": 15, "test": 10, "operands": "any_length"}, 55),
        ({"train": 30, "dev": 15, "test": 10, "operands": "short_first"}, 55),
    ],
)
def test_all_questions_that_exist_can_be_asked_for(settings, existing):
    split = draw(digits=1, **settings)
    names = {identity(question) for name in SPLITS for question in asked(split[name])}
    assert len(names) == existing
