"""Floors: the published table to its printed digits, and every field against plain loops."""

import dataclasses
import itertools
import math
from collections import Counter, defaultdict

import numpy as np
import pytest

from s2sjax.config import Addition
from s2sjax.errors import UserError
from s2sjax.tasks.floors import Floor, Knows, floor, nothing, top_digits

TWO = Addition(digits=2, splits="independent")
THREE = Addition(digits=3, splits="independent")


def operand_a(terms: np.ndarray) -> np.ndarray:
    return terms[:, 0]


def bottom_digits(count: int) -> Knows:
    def knows(terms: np.ndarray) -> np.ndarray:
        return terms[:, 0] % 10**count * 1_000 + terms[:, 1] % 10**count

    return knows


# --- the published table: teacher-forced, the first character given, justified --------------------

TABLE = [  # knows (given the number of digits), D=2 accuracy, D=3 by position, D=3 accuracy
    ("nothing", lambda _: nothing, "43.30", ".1900 .1090 .1009", "35.00"),
    ("operand a only", lambda _: operand_a, "43.30", ".1900 .1090 .1009", "35.00"),
    ("top digit", lambda d: top_digits(1, d), "59.50", ".5545 .1900 .1090", "46.34"),
    ("units digit", lambda _: bottom_digits(1), "73.00", ".1900 .1090 1.0", "57.47"),
    ("top two digits", lambda d: top_digits(2, d), "100", ".9595 .5950 .1900", "68.61"),
    ("bottom two digits", lambda _: bottom_digits(2), "100", ".1900 1.0 1.0", "79.75"),
]


def as_printed(text: str):
    """What rounds to these digits, up or down from the middle: 57.47 stands for 57.475."""
    unit = 10.0 ** -len(text.partition(".")[2]) if text not in ("100", "1.0") else 0.0
    return pytest.approx(float(text), rel=0, abs=unit / 2 + 1e-12)


@pytest.mark.parametrize("row", TABLE, ids=[row[0] for row in TABLE])
def test_the_published_floors_of_two_and_three_digits(row):
    _, knows, two, positions, three = row
    assert 100 * floor(TWO, knows(2), justify=True, given=1).all == as_printed(two)
    found = floor(THREE, knows(3), justify=True, given=1)
    assert list(found.by_position) == [as_printed(text) for text in positions.split()]
    assert 100 * found.all == as_printed(three)


@pytest.mark.parametrize(
    ("config", "knows", "loss"),
    [(TWO, nothing, "1.471"), (THREE, nothing, "1.679"), (THREE, top_digits(2, 3), "0.697")],
    ids=["nothing, D=2", "nothing, D=3", "top two digits, D=3"],
)
def test_the_published_loss_floors(config, knows, loss):
    assert floor(config, knows, justify=True, given=1).loss == as_printed(loss)


# --- plain loops -----------------------------------------------------------------------------


def by_hand(config: Addition, knows: Knows, justify: bool, given: int) -> Floor:
    """The definitions of `Floor`, question by question."""
    questions = list(itertools.product(range(10**config.digits), repeat=config.terms))
    signs = [1] + [1 if config.operator == "+" else -1] * (config.terms - 1)
    answers = [str(sum(s * n for s, n in zip(signs, q, strict=True))) for q in questions]
    width = max(map(len, answers))
    if justify:
        answers = [answer.rjust(width) for answer in answers]
    known = [int(k) for k in knows(np.array(questions))]

    right, scored, nats = Counter(), Counter(), 0.0
    for position in range(given, width + 1):
        seen = defaultdict(Counter)
        for k, answer in zip(known, answers, strict=True):
            if position <= len(answer):
                seen[k, answer[:position]][(answer + "\n")[position]] += 1
        for counts in seen.values():
            for symbol, n in counts.items():
                scored[position, symbol == "\n"] += n
                nats -= n * math.log(n / counts.total())
            guess, n = max(counts.items(), key=lambda item: (item[1], item[0] != "\n"))
            right[position, guess == "\n"] += n
    whole = defaultdict(Counter)
    for k, answer in zip(known, answers, strict=True):
        whole[k, answer[:given]][answer] += 1

    positions = range(given, width)
    characters = sum(scored[p, False] for p in positions)
    return Floor(
        by_position=tuple(right[p, False] / scored[p, False] for p in positions),
        all=right.total() / scored.total(),
        content=sum(right[p, False] for p in positions) / characters,
        exact_match=sum(max(counts.values()) for counts in whole.values()) / len(questions),
        loss=nats / scored.total(),
    )


def numbers(found: Floor) -> list[float]:
    return [*found.by_position, found.all, found.content, found.exact_match, found.loss]


def parity(terms: np.ndarray) -> np.ndarray:
    return terms.sum(axis=1) % 2


@pytest.mark.parametrize("operator", ["+", "-"])
@pytest.mark.parametrize("justify", [False, True])
@pytest.mark.parametrize("given", [0, 1])
@pytest.mark.parametrize("knows", [nothing, operand_a, parity, top_digits(1, 1)])
@pytest.mark.parametrize("terms", [2, 3])
def test_every_field_is_what_plain_loops_find(operator, justify, given, knows, terms):
    config = Addition(digits=1, terms=terms, operator=operator, splits="independent")
    found = floor(config, knows, justify=justify, given=given)
    assert numbers(found) == pytest.approx(numbers(by_hand(config, knows, justify, given)))


def test_top_digits_of_two_digit_operands_are_what_plain_loops_find():
    found = floor(TWO, top_digits(1, 2), justify=False, given=0)
    assert numbers(found) == pytest.approx(numbers(by_hand(TWO, top_digits(1, 2), False, 0)))


# --- what must hold --------------------------------------------------------------------------


@pytest.mark.parametrize("justify", [False, True])
@pytest.mark.parametrize("operator", ["+", "-"])
def test_who_knows_everything_is_always_right(operator, justify):
    config = dataclasses.replace(TWO, operator=operator)
    found = floor(config, top_digits(2, 2), justify=justify, given=0)
    assert found.by_position == (1,) * 3
    assert (found.all, found.content, found.exact_match, found.loss) == (1, 1, 1, 0)


def test_knowing_more_never_scores_less():
    floors = [
        floor(TWO, knows, justify=True, given=0)
        for knows in (nothing, top_digits(1, 2), top_digits(2, 2))
    ]
    for less, more in itertools.pairwise(floors):
        assert less.all < more.all
        assert less.exact_match < more.exact_match
        assert less.loss > more.loss


def test_top_digits_tells_operands_apart_by_their_leading_digits_alone():
    operands = np.array([[123, 456], [129, 450], [133, 456], [123, 466], [456, 123]])
    same = top_digits(2, 3)(operands)
    assert same[0] == same[1]
    assert len(set(same.tolist())) == 4


def test_too_many_questions_are_refused():
    message = r"^2-term, 4-digit '\+' questions are too many to enumerate \(2,000,000 at most\)$"
    with pytest.raises(UserError, match=message):
        floor(Addition(digits=4), nothing, justify=True, given=1)
