"""Addition: right answers, splits that cannot leak, how many questions there are, and files."""

import hashlib
import itertools
import math
import os
import re
from collections import Counter
from collections.abc import Hashable
from pathlib import Path

import jax
import numpy as np
import pytest

from s2sjax.data import addition
from s2sjax.data.addition import Addition
from s2sjax.errors import UserError

SPLITS = ["train", "dev", "test"]
FEW = {"train": 30, "dev": 15, "test": 10}
ONE = {"train": 1, "dev": 1, "test": 1}
KEY = jax.random.key(0)

shapes = pytest.mark.parametrize(
    ("digits", "terms", "operator"),
    [(1, 2, "+"), (1, 2, "-"), (2, 3, "-"), (3, 2, "+"), (4, 5, "+"), (25, 2, "+"), (25, 3, "-")],
)
every_operands = pytest.mark.parametrize("operands", ["uniform", "any_length", "short_first"])
operators = pytest.mark.parametrize("operator", ["+", "-"])
both_splits = pytest.mark.parametrize("splits", ["independent", "leak_free"])


def draw(seed: int = 0, **settings) -> dict[str, list[tuple[str, str]]]:
    return Addition(**(FEW | settings)).pairs(jax.random.key(seed))


def refused(message: str):
    return pytest.raises(UserError, match=f"^{re.escape(message)}$")


def asked(split: list[tuple[str, str]]) -> list[str]:
    return [question for question, _ in split]


def canonical(question: str) -> Hashable:
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
@every_operands
@both_splits
def test_all_answers_are_right_and_fit(digits, terms, operator, operands, splits):
    if (operands, operator) == ("short_first", "-"):
        return
    task = Addition(digits, operands, terms, operator, splits=splits, **FEW)
    for question, answer in itertools.chain(*task.pairs(KEY).values()):
        assert len(question) <= task.source_width
        assert len(answer) <= task.target_width
        assert set(question + answer) <= set(task.characters)
        assert task.answers(question) == (answer,)
        numbers = [int(number) for number in question.split(operator)]
        assert len(numbers) == terms
        assert question == operator.join(map(str, numbers))  # no leading zeros
        assert all(0 <= number < 10**digits for number in numbers)
        signs = [1] + [1 if operator == "+" else -1] * (terms - 1)
        assert answer == str(sum(s * n for s, n in zip(signs, numbers, strict=True)))


def test_numbers_beyond_64_bits_are_drawn_and_computed_exactly():
    operands = [int(n) for q in asked(draw(digits=25)["train"]) for n in q.split("+")]
    assert max(operands) > 9 * 10**24
    assert sum(n > 10**24 for n in operands) > 0.8 * len(operands)
    assert len({n % 10**6 for n in operands}) == len(operands)  # a float's last digits repeat


def test_operands_are_uniform():
    split = draw(digits=1, train=5_000, splits="independent")["train"]
    for place in (0, 1):
        counts = Counter(question.split("+")[place] for question in asked(split))
        assert len(counts) == 10
        assert all(abs(n - 500) < 110 for n in counts.values())  # 5 standard deviations
    assert len(set(asked(split))) == 100  # one operand says nothing about the other


@pytest.mark.parametrize(("digits", "terms"), [(1, 2), (1, 3), (2, 2)])
@operators
def test_widths_characters_and_number_are_those_of_every_question(digits, terms, operator):
    task = Addition(digits=digits, terms=terms, operator=operator, **ONE)
    questions = every_question(digits, terms, operator)
    answers = [answer for question in questions for answer in task.answers(question)]
    assert max(map(len, questions)) == task.source_width
    assert max(map(len, answers)) == task.target_width
    assert set("".join(questions + answers)) | {" "} == set(task.characters)
    assert len(task.characters) == 12
    assert task.distinct_questions == len(set(map(canonical, questions)))


@pytest.mark.parametrize(("digits", "terms"), [(1, 12), (1, 13), (2, 3), (3, 2), (9, 2), (25, 4)])
@pytest.mark.parametrize("operands", ["+", "-", "short_first"])
def test_the_widest_question_and_answer_fit_exactly(digits, terms, operands):
    operator = "-" if operands == "-" else "+"
    short = {"operands": "short_first"} if operands == "short_first" else {}
    task = Addition(digits=digits, terms=terms, operator=operator, **ONE, **short)
    numbers = ["9" * digits] * terms
    if short:
        numbers[0] = numbers[0][:2]
    assert len(operator.join(numbers)) == task.source_width
    extreme = numbers if operator == "+" else ["0", *numbers[1:]]
    assert len(*task.answers(operator.join(extreme))) == task.target_width


def test_answers_to_given_questions():
    assert Addition(digits=3).answers("568+32") == ("600",)
    assert Addition(digits=3).answers("007+1") == ("8",)
    assert Addition(digits=2, operator="-", terms=3).answers("1-99-99") == ("-197",)
    assert Addition(digits=25).answers(f"{10**24}+{10**24}") == (str(2 * 10**24),)


@pytest.mark.parametrize(
    "source",
    ["", "12", "1+", "+1", "1+2+3", "1234+5", "1-2", "1 + 2", "1+2 ", "1+2\n", "1+x", "1+²", "1+٢"],
)
def test_what_is_no_question_is_refused_with_an_example(source):
    message = (
        f"{source!r} is no question of this run: it asks for 2 numbers of at most 3 digits "
        "joined by '+', such as 123+123"
    )
    with refused(message):
        Addition(digits=3).answers(source)


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
    task = Addition(digits=4, terms=3, operands="short_first", **FEW)
    for question, answer in itertools.chain(*task.pairs(KEY).values()):
        terms = operands_of(question)
        assert terms == sorted(terms)
        assert terms[0] <= 99
        assert terms[2] > 99
        assert answer == str(sum(terms))


def test_short_first_answers_what_it_asks_and_refuses_the_rest():
    task = Addition(operands="short_first")
    for question in ("0+0", "99+99", "5+12", "99+999"):
        assert task.answers(question) == (str(sum(operands_of(question))),)
    for question in ("100+999", "12+5", "100+5"):
        with refused(
            f"{question!r} is no question of this run: the first number is at most 99 and the "
            "smallest"
        ):
            task.answers(question)


@shapes
@every_operands
def test_the_example_in_that_message_is_a_question(digits, terms, operator, operands):
    if (operands, operator) != ("short_first", "-"):
        task = Addition(digits, operands, terms, operator, **FEW)
        with pytest.raises(UserError) as error:
            task.answers("?")
        assert task.answers(str(error.value).rpartition("such as ")[2])


def test_a_string_without_end_is_cut_in_the_message():
    with pytest.raises(UserError) as error:
        Addition().answers("1" * 1_000_000)
    assert str(error.value).startswith(f"'{79 * '1'}…' is no question of this run: ")
    assert len(str(error.value)) < 250


# --- splits ----------------------------------------------------------------------------------


def test_independent_questions_are_drawn_with_replacement():
    split = draw(digits=1, train=1_000, splits="independent")  # 100 questions exist
    assert len(split["train"]) == 1_000
    assert set(asked(split["test"])) <= set(asked(split["train"]))


@pytest.mark.parametrize("digits", [1, 3])  # of one digit, the splits hold all that exist
def test_seeds_share_leak_free_dev_and_test_questions_but_not_training_questions(digits):
    ours, theirs = draw(0, digits=digits), draw(1, digits=digits)
    assert (ours["dev"], ours["test"]) == (theirs["dev"], theirs["test"])
    if digits == 3:
        assert len(set(asked(ours["train"])) & set(asked(theirs["train"]))) < 5
        larger = draw(digits=3, train=4_000)  # nor do they depend on how many others there are
        assert (ours["dev"], ours["test"]) == (larger["dev"], larger["test"])
        assert ours["test"] == draw(digits=3, dev=4_000)["test"]


def test_seeds_share_many_training_questions_where_few_exist():
    """Fault 28: as the help of `Addition.splits` says."""
    drawn = [draw(seed, digits=2, train=3_000, dev=500, test=1_000)["train"] for seed in (0, 1)]
    ours, theirs = ({frozenset(q.split("+")) for q in asked(train)} for train in drawn)
    assert len(ours & theirs) / len(ours) == pytest.approx(0.85, abs=0.01)


@pytest.mark.parametrize(
    ("settings", "seed"),
    [
        ({"digits": 2, "train": 2_000, "dev": 500, "test": 500}, 0),
        ({"digits": 2, "train": 2_000, "dev": 500, "test": 500, "operands": "any_length"}, 1),
        ({"digits": 2, "train": 2_000, "dev": 500, "test": 500, "operands": "short_first"}, 2),
        ({"digits": 2, "train": 5_000, "dev": 500, "test": 500, "operator": "-"}, 0),
        ({"digits": 1, "terms": 3, "train": 300, "dev": 50, "test": 50, "operator": "-"}, 0),
        ({"digits": 1, "terms": 3, "train": 100, "dev": 50, "test": 50}, 0),
        # all that exist
        ({"digits": 1, "train": 30, "dev": 15, "test": 10}, 0),
        ({"digits": 1, "train": 1, "dev": 1, "test": 53}, 0),
        ({"digits": 1, "train": 80, "dev": 10, "test": 10, "operator": "-"}, 0),
        ({"digits": 1, "operands": "any_length"}, 0),
        ({"digits": 1, "operands": "short_first"}, 0),
    ],
)
def test_no_question_is_in_two_leak_free_splits_or_twice_in_one(settings, seed):
    split = draw(seed, **settings)
    names = [canonical(question) for name in SPLITS for question in asked(split[name])]
    assert len(set(names)) == len(names) == sum((FEW | settings)[name] for name in SPLITS)


# --- how many there are ----------------------------------------------------------------------


@pytest.mark.parametrize("terms", [2, 3])
def test_distinct_questions_of_short_first_are_those_with_a_short_number(terms, monkeypatch):
    ask = lambda digits: Addition(digits=digits, terms=terms, operands="short_first", **ONE)
    assert ask(1).distinct_questions == Addition(1, terms=terms, **ONE).distinct_questions
    # with two digits all are short: here those of one digit count as short
    monkeypatch.setattr(addition, "SHORT", 1)
    every = itertools.combinations_with_replacement(range(100), terms)
    assert ask(2).distinct_questions == sum(numbers[0] <= 9 for numbers in every)


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
    with refused(message):
        Addition(**settings)
    Addition(**settings, splits="independent")  # with replacement there is no end


# --- files of questions ----------------------------------------------------------------------

PAIRS = [(a, b) for a, b in itertools.product(range(40), range(0, 1_000, 77)) if a <= b]
NO_QUESTION = "it asks for 2 numbers of at most 3 digits joined by '+', such as 123+123"


def line(a: int, b: int) -> str:
    """As in Saitoh's addition.txt: filled with spaces on the right."""
    return f"{a}+{b}".ljust(7) + "_" + str(a + b).ljust(4)


def written(folder: Path, lines: list[str]) -> str:
    path = folder / "addition.txt"
    path.write_bytes("".join(f"{text}\n" for text in lines).encode())
    return str(path)


def good(folder: Path, n: int = 50) -> str:
    return written(folder, [line(a, b) for a, b in PAIRS[:n]])


def with_file(path: str, n: int = 50, **settings) -> Addition:
    sizes = {"train": n - n // 10, "dev": 20, "test": n // 10}
    return Addition(**({"file": path, "operands": "any_length"} | sizes | settings))


def as_saitoh(questions: list[str]) -> tuple[list[str], list[str]]:
    """The lines of his load_data that split, on the legacy generator."""
    state = np.random.RandomState()
    x = np.array(questions)

    indices = np.arange(len(x))
    state.seed(1984)
    state.shuffle(indices)
    x = x[indices]

    split_at = len(x) - len(x) // 10
    return x[:split_at].tolist(), x[split_at:].tolist()


@pytest.mark.parametrize("n", [10, 19, 20, 101])
def test_a_files_questions_are_split_as_saitoh_splits_them(tmp_path, n):
    before = np.random.get_state()[1].tolist()  # noqa: NPY002
    split = with_file(good(tmp_path, n), n).pairs(KEY)
    expected = as_saitoh([f"{a}+{b}" for a, b in PAIRS[:n]])
    assert (asked(split["train"]), asked(split["test"])) == expected
    for question, answer in itertools.chain(*split.values()):
        assert answer == str(sum(operands_of(question)))
    assert np.random.get_state()[1].tolist() == before  # noqa: NPY002


def test_that_split_stays_what_it_was_for_every_seed(tmp_path):
    # numpy.random.seed(1984); numpy.random.shuffle(numpy.arange(20))
    order = [3, 12, 16, 11, 4, 13, 7, 17, 1, 0, 19, 9, 2, 5, 14, 10, 18, 6, 8, 15]
    task = with_file(good(tmp_path, 20), 20)
    split = task.pairs(KEY)
    drawn = [tuple(operands_of(q)) for q in asked(split["train"] + split["test"])]
    assert drawn == [PAIRS[i] for i in order]
    assert split == task.pairs(jax.random.key(1))


@pytest.mark.parametrize("operands", ["uniform", "any_length"])
def test_dev_questions_are_drawn_and_not_in_the_file_either_way_round(tmp_path, operands):
    every = list(itertools.combinations_with_replacement(range(10), 2))  # 55
    path = written(tmp_path, [line(b, a) for a, b in every[::2]])
    dev = asked(with_file(path, 28, digits=1, dev=27, operands=operands).pairs(KEY)["dev"])
    assert {tuple(sorted(operands_of(question))) for question in dev} == set(every[1::2])
    assert len(dev) == 27  # all that are left, each once
    message = r"^28 distinct 2-term, 1-digit '\+' questions outside the file .* \(dev\) but only 27"
    with pytest.raises(UserError, match=message):
        with_file(path, 28, digits=1, dev=28, operands=operands).pairs(KEY)


def test_dev_questions_depend_on_the_file_only_where_it_has_them(tmp_path):
    small = with_file(good(tmp_path)).pairs(KEY)["dev"]
    assert small == with_file(good(tmp_path, 60), 60).pairs(KEY)["dev"]


def test_a_file_of_another_shape_of_question_is_read(tmp_path):
    lines = [f"{a}+{b}+{a + b}_{2 * (a + b)}" for a, b in PAIRS[:20]]
    split = with_file(written(tmp_path, lines), 20, terms=3, digits=4).pairs(KEY)
    expected = {text.partition("_")[0] for text in lines}
    assert {*asked(split["train"]), *asked(split["test"])} == expected


def test_line_ends_a_byte_order_mark_and_blank_lines_at_the_end_do_not_matter(tmp_path):
    task = with_file(good(tmp_path, 12), 12)
    expected = task.pairs(KEY)
    endings = ("\n", "\r\n"), ("", "\ufeff"), ("", "\n", "  \n", "\r\n\r\n")
    for end, mark, last in itertools.product(*endings):
        text = mark + end.join(f"{a}+{b}_{a + b}" for a, b in PAIRS[:12]) + last
        (tmp_path / "addition.txt").write_bytes(text.encode())
        assert task.pairs(KEY) == expected


@pytest.mark.parametrize(
    ("number", "question"),
    [(1, "12"), (1, "\ufeff1+2"), (7, ""), (7, "1 + 2"), (7, "1+²"), (12, "1234+5"), (12, "1.5+2")],
)
def test_a_line_that_is_no_question_is_refused_with_its_number(tmp_path, number, question):
    lines = [line(a, b) for a, b in PAIRS[:12]]
    lines[number - 1] = f"{question}_3"
    path = written(tmp_path, ["\ufeff" + lines[0], *lines[1:], "1+2_4"])
    message = f"{question!r} is no question of this run: {NO_QUESTION}"
    with refused(f"line {number} of {path}: {message}"):
        with_file(path).pinned()


@pytest.mark.parametrize(
    "text",
    ["1+2", "1+2_", "1+2_4", "1+2_03", "1+2_3.0", "1+2_3_3", "1+2_ 3 3", "1+2_+3", "1+2_٣"],
)
def test_a_line_without_its_right_answer_is_refused_with_its_number(tmp_path, text):
    lines = [line(a, b) for a, b in PAIRS[:12]]
    path = written(tmp_path, [*lines[:5], text, *lines[5:]])
    with refused(f"line 6 of {path} must be QUESTION_ANSWER with the right sum, not {text!r}"):
        with_file(path).pinned()


@pytest.mark.parametrize(
    "content",
    [bytes(range(256)), bytes(100_000), b"\x89PNG\r\n\x1a\n" + bytes(5_000), b"1" * 1_000_000],
    ids=["every byte", "zeros", "picture", "one long line"],
)
def test_what_is_no_text_is_refused_in_one_short_line(tmp_path, content):
    path = tmp_path / "addition.txt"
    path.write_bytes(content)
    with pytest.raises(UserError) as error:
        with_file(str(path)).pinned()
    message = str(error.value)
    assert message.startswith(f"line 1 of {path}: ")
    assert message.endswith(f" is no question of this run: {NO_QUESTION}")
    assert len(message) < len(str(path)) + 600
    assert message.isprintable()


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda path: None, "cannot be read: No such file or directory"),
        (lambda path: path.symlink_to(path), "cannot be read: Too many levels of symbolic links"),
        (lambda path: path.mkdir(), "is no regular file: it is read more than once"),
        (os.mkfifo, "is no regular file: it is read more than once"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused(tmp_path, make, reason):
    """Fault 26g."""
    path = tmp_path / "addition.txt"
    make(path)
    task = with_file(str(path))
    for attempt in (task.pinned, lambda: task.pairs(KEY)):
        with refused(f"{path} {reason}"):
            attempt()


def test_a_pinned_task_refuses_a_file_whose_content_has_changed(tmp_path):
    path = good(tmp_path)
    task = with_file(path).pinned()
    assert task.sha256 == hashlib.sha256(Path(path).read_bytes()).hexdigest()
    assert task == task.pinned() == with_file(path, sha256=task.sha256)
    assert Addition().pinned() == Addition()
    questions = task.pairs(KEY)
    for change in (lambda text: text + "\n", lambda text: text.replace("_", " _", 1)):
        Path(path).write_text(change(Path(path).read_text()))
        for attempt in (task.pinned, lambda: task.pairs(KEY)):
            with refused(f"{path} is not as this run began with it: its content has changed"):
                attempt()
        good(tmp_path)
        assert task.pairs(KEY) == questions


def test_sizes_that_are_not_the_files_are_refused_with_the_right_ones(tmp_path):
    path = good(tmp_path)
    for train, test in ((45, 6), (44, 5), (5_000, 1_000)):
        with refused(
            f"{path} has 50 questions, of which the last tenth is the test set: "
            "set Addition.train 45 and Addition.test 5"
        ):
            with_file(path, train=train, test=test).pinned()
    for n in (0, 1, 9):
        path = good(tmp_path, n)
        with refused(f"{path} has {n} questions: too few to split"):
            with_file(path).pinned()


@pytest.mark.parametrize("again", [PAIRS[3], PAIRS[3][::-1]])
def test_a_question_twice_is_refused_either_way_round(tmp_path, again):
    path = written(tmp_path, [line(*pair) for pair in [*PAIRS[:49], again]])
    with refused(f"{path} has a question twice, or with its operands swapped"):
        with_file(path).pinned()


def test_questions_that_this_run_does_not_ask_are_refused(tmp_path):
    path = good(tmp_path)
    with_file(path, operands="short_first").pinned()
    number = next(i for i, (_, b) in enumerate(PAIRS, start=1) if b > 99)
    with pytest.raises(UserError, match=f"^line {number} of .* at most 2 digits"):
        with_file(path, digits=2).pinned()
    swapped = written(tmp_path, [line(b, a) for a, b in PAIRS[1:51]])
    with pytest.raises(UserError, match=r"^line 1 of .*first number is at most 99 and the small"):
        with_file(swapped, operands="short_first").pinned()
