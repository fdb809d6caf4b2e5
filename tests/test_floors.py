"""Floors: the published table to its printed digits, and every field against plain loops."""

import dataclasses
import itertools
import math
from collections import Counter, defaultdict

import jax
import numpy as np
import pytest

from s2sjax.config import Text
from s2sjax.errors import UserError
from s2sjax.taskconfig import Addition, Toy
from s2sjax.tasks import Pairs, make_task
from s2sjax.tasks.floors import Floor, Knows, enumerable, floor, nothing, prior, top_digits

TWO = Addition(digits=2, splits="independent")
THREE = Addition(digits=3, splits="independent")

NOTEBOOK = Text(justify="right", start="first_target")
SAITOH = Text(justify="left", source_eos=False, target_eos=False)
KERAS = dataclasses.replace(SAITOH, start="nothing")


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
    assert 100 * floor(TWO, knows(2), NOTEBOOK).all == as_printed(two)
    found = floor(THREE, knows(3), NOTEBOOK)
    assert list(found.by_position) == [as_printed(text) for text in positions.split()]
    assert 100 * found.all == as_printed(three)


@pytest.mark.parametrize(
    ("config", "knows", "loss"),
    [(TWO, nothing, "1.471"), (THREE, nothing, "1.679"), (THREE, top_digits(2, 3), "0.697")],
    ids=["nothing, D=2", "nothing, D=3", "top two digits, D=3"],
)
def test_the_published_loss_floors(config, knows, loss):
    assert floor(config, knows, NOTEBOOK).loss == as_printed(loss)


# --- plain loops -----------------------------------------------------------------------------


def laid_out(answer: str, width: int, text: Text) -> str:
    """An answer as it is written, its end a line feed."""
    fill = {"left": str.ljust, "right": str.rjust, None: lambda answer, _: answer}[text.justify]
    turn = -1 if text.target_order == "reversed" else 1
    if text.justify_when == "before":
        answer = fill(answer, width)[::turn]
    else:
        answer = fill(answer[::turn], width)
    return answer + "\n" * text.target_eos


def by_hand(config: Addition, knows: Knows, text: Text) -> Floor:
    """The definitions of `Floor`, question by question."""
    questions = list(itertools.product(range(10**config.digits), repeat=config.terms))
    signs = [1] + [1 if config.operator == "+" else -1] * (config.terms - 1)
    answers = [str(sum(s * n for s, n in zip(signs, q, strict=True))) for q in questions]
    width = max(map(len, answers))
    answers = [laid_out(answer, width, text) for answer in answers]
    known = [int(k) for k in knows(np.array(questions))]
    given = 1 if text.start == "first_target" else 0

    right, scored, nats = Counter(), Counter(), 0.0
    for position in range(given, width + 1):
        seen = defaultdict(Counter)
        for k, answer in zip(known, answers, strict=True):
            if position < len(answer):
                fed = "" if text.start == "nothing" else answer[:position]
                seen[k, fed][answer[position]] += 1
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


TEXTS = [
    *(
        Text(target_order=order, start=start)
        for order in ("forward", "reversed")
        for start in ("bos", "first_target", "nothing")
    ),
    *(
        Text("forward", order, justify, when, target_eos=end, start=start)
        for order in ("forward", "reversed")
        for justify in ("left", "right")
        for when in ("before", "after")
        for end in (True, False)
        for start in ("bos", "first_target", "nothing")
    ),
]


@pytest.mark.parametrize("operator", ["+", "-"])
@pytest.mark.parametrize("knows", [nothing, operand_a, parity, top_digits(1, 1)])
@pytest.mark.parametrize("terms", [2, 3])
def test_every_field_is_what_plain_loops_find(operator, knows, terms):
    config = Addition(digits=1, terms=terms, operator=operator, splits="independent")
    for text in TEXTS if terms == 2 else TEXTS[::5]:
        found = floor(config, knows, text)
        assert numbers(found) == pytest.approx(numbers(by_hand(config, knows, text))), text


@pytest.mark.parametrize("text", [Text(), SAITOH, KERAS, Text(target_order="reversed")])
def test_floors_of_two_digit_operands_are_what_plain_loops_find(text):
    for knows in (nothing, top_digits(1, 2), bottom_digits(1)):
        found = floor(TWO, knows, text)
        assert numbers(found) == pytest.approx(numbers(by_hand(TWO, knows, text)))


# --- what must hold --------------------------------------------------------------------------


@pytest.mark.parametrize("text", [Text(), NOTEBOOK, SAITOH, KERAS], ids=str)
@pytest.mark.parametrize("operator", ["+", "-"])
def test_who_knows_everything_is_always_right(operator, text):
    config = dataclasses.replace(TWO, operator=operator)
    found = floor(config, top_digits(2, 2), text)
    assert found.by_position == (1,) * (2 if text == NOTEBOOK else 3)
    assert (found.all, found.content, found.exact_match, found.loss) == (1, 1, 1, 0)


@pytest.mark.parametrize("text", [Text(justify="right"), Text(), SAITOH, KERAS], ids=str)
def test_knowing_more_never_scores_less(text):
    floors = [floor(TWO, knows, text) for knows in (nothing, top_digits(1, 2), top_digits(2, 2))]
    for less, more in itertools.pairwise(floors):
        assert less.all < more.all
        assert less.exact_match < more.exact_match
        assert less.loss > more.loss


@pytest.mark.parametrize("knows", [nothing, top_digits(1, 2)])
def test_being_fed_the_gold_prefix_never_scores_less(knows):
    fed, unfed = floor(TWO, knows, SAITOH), floor(TWO, knows, KERAS)
    assert fed.all > unfed.all
    assert fed.loss < unfed.loss
    assert fed.by_position[0] == unfed.by_position[0]
    assert fed.exact_match == unfed.exact_match


def test_without_an_end_symbol_all_is_content():
    for text in (SAITOH, KERAS, dataclasses.replace(NOTEBOOK, target_eos=False)):
        found = floor(TWO, nothing, text)
        assert found.all == found.content == pytest.approx(np.mean(found.by_position))


def test_a_constant_end_symbol_is_a_hit_and_costs_nothing():
    with_end, without = (
        floor(TWO, nothing, NOTEBOOK),
        floor(TWO, nothing, dataclasses.replace(NOTEBOOK, target_eos=False)),
    )
    assert with_end.by_position == without.by_position
    assert with_end.content == without.content == without.all
    assert with_end.all == pytest.approx((2 * without.all + 1) / 3)
    assert with_end.loss == pytest.approx(2 * without.loss / 3)
    assert with_end.exact_match == without.exact_match


def test_of_a_reversed_answer_the_units_are_written_first_and_are_known_from_the_units():
    backwards = Text(target_order="reversed", justify="right")
    forwards = dataclasses.replace(backwards, target_order="forward")
    found = floor(TWO, bottom_digits(1), backwards)
    assert found.by_position[0] == 1
    assert found.exact_match == floor(TWO, bottom_digits(1), forwards).exact_match
    assert floor(TWO, nothing, backwards).by_position[0] == pytest.approx(0.1)
    found = floor(THREE, bottom_digits(2), backwards)
    assert found.by_position[0] == 1
    assert 1 - 1e-4 < found.by_position[1] < 1  # 3 + 4 is 7, but 103 + 4 is 107


def test_the_order_and_the_end_of_the_source_play_no_part():
    for text in (NOTEBOOK, KERAS):
        other = dataclasses.replace(
            text, source_order="reversed", source_eos=not text.source_eos, mask_spaces=True, lag=2
        )
        assert floor(TWO, nothing, other) == floor(TWO, nothing, text)


def test_top_digits_tells_operands_apart_by_their_leading_digits_alone():
    operands = np.array([[123, 456], [129, 450], [133, 456], [123, 466], [456, 123]])
    same = top_digits(2, 3)(operands)
    assert same[0] == same[1]
    assert len(set(same.tolist())) == 4


def test_too_many_questions_are_refused():
    message = r"^2-term, 4-digit '\+' questions are too many to enumerate \(2,000,000 at most\)$"
    assert not enumerable(Addition(digits=4))
    with pytest.raises(UserError, match=message):
        floor(Addition(digits=4), nothing, NOTEBOOK)
    assert enumerable(Addition(digits=3))
    assert enumerable(Addition(digits=2, terms=3))


@pytest.mark.parametrize(
    "settings", [{"operands": "any_length"}, {"operands": "short_first"}, {"file": "questions.txt"}]
)
def test_questions_that_are_not_equally_likely_are_refused(settings):
    config = Addition(**settings)
    assert not enumerable(config)
    message = r"^only of uniform operands are all questions equally likely$"
    with pytest.raises(UserError, match=message):
        floor(config, nothing, NOTEBOOK)


# --- questions as they were drawn ------------------------------------------------------------


def prior_by_hand(
    symbols: str, text: Text, train: list[str], test: list[str], fed: bool
) -> list[float]:
    """The definition of `prior`, answer by answer, of answers as they are laid out."""
    given = 1 if text.start == "first_target" else 0
    right, scored, nats = Counter(), Counter(), 0.0
    for answer in test:
        for p in range(given, len(answer)):
            before = answer[: p if fed else given]
            here = [a for a in train if len(a) > p]
            same = [a for a in here if a.startswith(before)]
            likely = {}
            for symbol in symbols:
                everywhere = sum(a[p] == symbol for a in here) + 1 / len(symbols)
                n = sum(a[p] == symbol for a in same)
                likely[symbol] = (n + everywhere / (len(here) + 1)) / (len(same) + 1)
            assert sum(likely.values()) == pytest.approx(1)
            scored[p, answer[p] == "\n"] += 1
            right[p, answer[p] == "\n"] += answer[p] == max(likely, key=lambda s: likely[s])
            nats -= math.log(likely[answer[p]])
    positions = sorted(p for p, end in scored if not end)
    common = {}
    for answer, _ in Counter(train).most_common():
        common.setdefault(answer[:given], answer)
    return [
        *(right[p, False] / scored[p, False] for p in positions),
        right.total() / scored.total(),
        sum(right[p, False] for p in positions) / sum(scored[p, False] for p in positions),
        sum(common.get(answer[:given]) == answer for answer in test) / len(test),
        nats / scored.total(),
    ]


def pairs(answers: list[str]) -> Pairs:
    return [("never read", answer) for answer in answers]


@pytest.mark.parametrize("operator", ["+", "-"])
def test_a_prior_is_what_plain_loops_find(operator):
    config = Addition(digits=2, operator=operator, operands="any_length", train=60, dev=1, test=30)
    task = make_task(config)
    split = task.splits(jax.random.key(0))
    answers = {name: [answer for _, answer in rows] for name, rows in split.items()}
    for text in TEXTS:
        found = prior(config, text, pairs(answers["train"]), pairs(answers["test"]))
        train, test = (
            [laid_out(answer, task.target_width, text) for answer in answers[name]]
            for name in ("train", "test")
        )
        symbols = task.characters + "\n" * text.target_eos
        for fed, scores in enumerate(found):
            expected = prior_by_hand(symbols, text, train, test, bool(fed))
            assert numbers(scores) == pytest.approx(expected), text


@pytest.mark.parametrize("operator", ["+", "-"])
def test_the_prior_of_every_question_is_its_floor(operator):
    config = dataclasses.replace(TWO, operator=operator)
    sign = 1 if operator == "+" else -1
    every = pairs([str(a + sign * b) for a in range(100) for b in range(100)])
    for text in TEXTS[::4]:
        found = prior(config, text, every, every)
        fed = floor(config, nothing, text)
        if text.start != "nothing":
            assert found.fed.all == pytest.approx(fed.all)
            assert found.fed.exact_match == fed.exact_match
            assert found.fed.loss == pytest.approx(fed.loss, rel=0.01)
        if text.start != "first_target":
            unfed = floor(config, nothing, dataclasses.replace(text, start="nothing"))
            assert found.unfed.all == pytest.approx(unfed.all)
            assert found.unfed.exact_match == unfed.exact_match
            assert found.unfed.loss == pytest.approx(unfed.loss, rel=0.001)
            if not text.target_eos:  # else an end and a digit may be equally common
                assert found.unfed.by_position == pytest.approx(unfed.by_position)


def test_a_prior_to_the_letter():
    # Keras' layout: width 3, filled on the right, no end
    config = Addition(digits=2, train=1, dev=1, test=1)
    train, test = pairs(["10", "10", "12", "5", "150"]), pairs(["10", "15", "7"])
    unfed, fed = prior(config, KERAS, train, test)
    assert unfed.by_position == (2 / 3, 1 / 3, 1)  # '1', '0', ' '
    assert fed.by_position == (2 / 3, 1 / 3, 2 / 3)  # after the new '7' the same; after '15': '0'
    assert unfed.exact_match == fed.exact_match == 1 / 3  # '10'
    assert unfed.all == unfed.content == pytest.approx(6 / 9)


def test_a_prior_takes_what_it_has_never_seen():
    config = Addition(digits=2, train=1, dev=1, test=1)
    for text in (Text(), NOTEBOOK, SAITOH, KERAS):
        found = prior(config, text, pairs(["5"]), pairs(["198", "73"]))
        assert found.unfed.exact_match == found.fed.exact_match == 0
        assert all(0 < scores.loss < math.inf for scores in found)


def test_of_one_answer_known_and_asked_everything_is_right():
    config = Addition(digits=2, train=1, dev=1, test=1)
    for text in TEXTS:
        for scores in prior(config, text, pairs(["73"] * 1_000), pairs(["73"])):
            assert (scores.all, scores.content, scores.exact_match) == (1, 1, 1)
            assert scores.loss < 0.01


def test_a_prior_of_keras_questions_is_above_chance_and_below_the_questions():
    config = Addition(operands="any_length", train=45_000, dev=1, test=5_000)
    split = make_task(config).splits(jax.random.key(0))
    unfed, fed = prior(config, KERAS, split["train"], split["test"])
    last, first = unfed.by_position[-1], unfed.by_position[0]
    assert 0.7 < last < 0.95  # a space, but for sums of four digits
    assert first > 0.2
    assert unfed.exact_match < 0.01
    assert fed.loss < unfed.loss < math.log(12)


@pytest.mark.parametrize("kind", ["copy", "reverse", "sort"])
def test_toys_have_a_prior(kind):
    config = Toy(kind, symbols=3, max_length=4, train=60, dev=10, test=40)
    split = make_task(config).splits(jax.random.key(0))
    unfed, fed = prior(config, Text(), split["train"], split["test"])
    assert 1 / 4 < unfed.content < 1
    assert unfed.by_position[0] == fed.by_position[0]
    assert len(fed.by_position) == 4
