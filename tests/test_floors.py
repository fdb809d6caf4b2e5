"""Floors: the published table to its printed digits, and every field against plain loops."""

import itertools
import math
from collections import Counter, defaultdict
from dataclasses import replace

import jax
import pytest

from s2sjax.analysis.floors import enumerable, floor, prior
from s2sjax.config import Justify, Text
from s2sjax.data.tasks import Addition, Pairs
from s2sjax.errors import UserError

TWO = Addition(digits=2, splits="independent")
THREE = Addition(digits=3, splits="independent")
SMALL = Addition(digits=2, train=1, dev=1, test=1)


def justified(side: Justify, **settings) -> Text:
    """Both sides of a pair are filled with spaces."""
    return Text(source_justify=side, target_justify=side, **settings)


NOTEBOOK = justified("right", start="first_target")
SAITOH = justified("left", source_eos=False, target_eos=False)
KERAS = replace(SAITOH, start="nothing")


# --- the published table: teacher-forced, the first character given, justified --------------------

TABLE = [  # top digits known, accuracy of two and of three digits
    (0, "43.30", "35.00"),
    (1, "59.50", "46.34"),
    (2, "100", "68.61"),
]


def as_printed(text: str):
    """What rounds to these digits, up or down from the middle: 57.47 stands for 57.475."""
    unit = 10.0 ** -len(text.partition(".")[2]) if text != "100" else 0.0
    return pytest.approx(float(text), rel=0, abs=unit / 2 + 1e-12)


@pytest.mark.parametrize(("known", "two", "three"), TABLE)
def test_the_published_floors_of_two_and_three_digits(known, two, three):
    assert 100 * floor(TWO, known, NOTEBOOK).all == as_printed(two)
    assert 100 * floor(THREE, known, NOTEBOOK).all == as_printed(three)


def test_the_published_loss_floors():
    assert floor(TWO, 0, NOTEBOOK).loss == as_printed("1.471")
    assert floor(THREE, 0, NOTEBOOK).loss == as_printed("1.679")
    assert floor(THREE, 2, NOTEBOOK).loss == as_printed("0.697")


# --- plain loops -----------------------------------------------------------------------------


def laid_out(answer: str, width: int, text: Text) -> str:
    """An answer as it is written, its end a line feed."""
    fills = {"left": str.ljust, "right": str.rjust, None: lambda answer, _: answer}
    fill = fills[text.target_justify]
    turn = -1 if text.target_order == "reversed" else 1
    if text.justify_when == "before":
        answer = fill(answer, width)[::turn]
    else:
        answer = fill(answer[::turn], width)
    return answer + "\n" * text.target_eos


def by_hand(
    text: Text, symbols: str, train, test, *, teacher_forced: bool, added: int = 0
) -> list[float]:
    """All scores by their definitions; a question is what is known of it, and its answer's row."""
    given = int(text.start == "first_target")
    seen, whole = defaultdict(Counter), defaultdict(Counter)
    for known, answer in train:
        whole[known, answer[:given]][answer] += 1
        for p in range(given, len(answer)):
            seen[p][answer[p]] += 1
            seen[p, known, answer[: p if teacher_forced else given]][answer[p]] += 1
    right, scored, nats, exact = Counter(), Counter(), 0.0, 0
    for (known, answer), n in Counter(test).items():
        exact += n * ([a for a, _ in whole[known, answer[:given]].most_common(1)] == [answer])
        for p in range(given, len(answer)):
            here, own = seen[p], seen[p, known, answer[: p if teacher_forced else given]]
            likely = {}
            for s in symbols:
                everywhere = (here[s] + added / len(symbols)) / (here.total() + added)
                likely[s] = (own[s] + added * everywhere) / (own.total() + added)
            assert sum(likely.values()) == pytest.approx(1)
            scored[p, answer[p] == "\n"] += n
            right[p, answer[p] == "\n"] += n * (answer[p] == max(likely, key=lambda s: likely[s]))
            nats -= n * math.log(likely[answer[p]])
    positions = sorted(p for p, end in scored if not end)
    return [
        right.total() / scored.total(),
        sum(right[p, False] for p in positions) / sum(scored[p, False] for p in positions),
        exact / len(test),
        nats / scored.total(),
    ]


STARTS = ("bos", "first_target", "nothing")
TEXTS = [
    *(Text(target_order=o, start=s) for o in ("forward", "reversed") for s in STARTS),
    *(
        justified(side, target_order=order, justify_when=when, target_eos=end, start=start)
        for order in ("forward", "reversed")
        for side in ("left", "right")
        for when in ("before", "after")
        for end in (True, False)
        for start in STARTS
    ),
]


@pytest.mark.parametrize("operator", ["+", "-"])
@pytest.mark.parametrize(("digits", "terms", "known"), [(1, 2, 0), (1, 2, 1), (1, 3, 0), (2, 2, 1)])
def test_every_field_is_what_plain_loops_find(operator, digits, terms, known):
    config = Addition(digits, terms=terms, operator=operator, splits="independent")
    operands = list(itertools.product(range(10**digits), repeat=terms))
    signs = [1] + [1 if operator == "+" else -1] * (terms - 1)
    answers = [str(sum(s * n for s, n in zip(signs, own, strict=True))) for own in operands]
    tops = [tuple(n // 10 ** (digits - known) for n in own) for own in operands]
    for text in TEXTS[:: 1 if len(operands) == 100 else 11]:
        rows = [laid_out(answer, max(map(len, answers)), text) for answer in answers]
        every, teacher_forced = [*zip(tops, rows, strict=True)], text.start != "nothing"
        expected = by_hand(
            text, config.characters + "\n", every, every, teacher_forced=teacher_forced
        )
        assert list(floor(config, known, text)) == pytest.approx(expected), text


# --- what must hold --------------------------------------------------------------------------


@pytest.mark.parametrize("text", [Text(), NOTEBOOK, SAITOH, KERAS], ids=str)
def test_knowing_more_never_scores_less_and_everything_is_always_right(text):
    for config in (TWO, replace(TWO, operator="-")):
        floors = [floor(config, known, text) for known in (0, 1, 2)]
        for less, more in itertools.pairwise(floors):
            assert less.all < more.all or text == NOTEBOOK
            assert less.exact_match < more.exact_match or text == NOTEBOOK
            assert less.loss > more.loss
        best = floors[-1]
        assert best == (1, 1, 1, 0)


def test_a_constant_end_symbol_is_right_and_costs_nothing():
    with_end = floor(TWO, 0, NOTEBOOK)
    without = floor(TWO, 0, replace(NOTEBOOK, target_eos=False))
    assert with_end.content == without.content == without.all
    assert with_end.all == pytest.approx((2 * without.all + 1) / 3)
    assert with_end.loss == pytest.approx(2 * without.loss / 3)
    assert with_end.exact_match == without.exact_match


def test_how_questions_are_written_does_not_matter():
    for text in (NOTEBOOK, KERAS):
        settings = {"source_order": "reversed", "mask_spaces": True, "lag": 2}
        other = replace(text, source_eos=not text.source_eos, **settings)
        assert floor(TWO, 0, other) == floor(TWO, 0, text)


@pytest.mark.parametrize(
    "settings",
    [{"digits": 4}, {"operands": "any_length"}, {"operands": "short_first"}, {"file": "q.txt"}],
)
def test_what_cannot_be_enumerated_is_refused(settings):
    config = Addition(**settings)
    assert not enumerable(config)
    with pytest.raises(UserError, match="questions cannot be enumerated: too many, or not equally"):
        floor(config, 0, NOTEBOOK)
    assert enumerable(Addition(digits=3))
    assert enumerable(Addition(digits=2, terms=3))


# --- questions as they were drawn ------------------------------------------------------------


def pairs(answers: list[str]) -> Pairs:
    return [("never read", answer) for answer in answers]


@pytest.mark.parametrize("operator", ["+", "-"])
def test_a_prior_is_what_plain_loops_find(operator):
    task = Addition(digits=2, operator=operator, operands="any_length", train=60, dev=1, test=30)
    split = task.pairs(jax.random.key(0))
    for text in TEXTS[::3]:
        train, test = (
            [("", laid_out(answer, task.target_width, text)) for _, answer in split[name]]
            for name in ("train", "test")
        )
        symbols = task.characters + "\n" * text.target_eos
        expected = by_hand(text, symbols, train, test, teacher_forced=False, added=1)
        scores = prior(task, text, split["train"], split["test"])
        assert list(scores) == pytest.approx(expected), text


@pytest.mark.parametrize("operator", ["+", "-"])
def test_the_prior_of_every_question_is_its_floor(operator):
    config = replace(TWO, operator=operator)
    sign = 1 if operator == "+" else -1
    every = pairs([str(a + sign * b) for a in range(100) for b in range(100)])
    for text in (t for t in TEXTS[::4] if t.start == "nothing"):
        scores, best = prior(config, text, every, every), floor(config, 0, text)
        assert scores.all == pytest.approx(best.all)
        assert scores.exact_match == best.exact_match
        assert scores.loss == pytest.approx(best.loss, rel=0.01)


def test_a_prior_to_the_letter():
    # Keras' layout: width 3, filled on the right, no end
    train, test = pairs(["10", "10", "12", "5", "150"]), pairs(["10", "15", "7"])
    scores = prior(SMALL, KERAS, train, test)
    assert scores.exact_match == 1 / 3  # '10'
    assert scores.all == scores.content == pytest.approx(6 / 9)  # '1' twice, '0' once, ' ' thrice


@pytest.mark.parametrize("text", TEXTS[::5], ids=str)
def test_a_prior_takes_what_it_has_never_seen_and_knows_what_it_has(text):
    scores = prior(SMALL, text, pairs(["5"]), pairs(["198", "73"]))
    assert scores.exact_match == 0
    assert 0 < scores.loss < math.inf
    scores = prior(SMALL, text, pairs(["73"] * 1_000), pairs(["73"]))
    assert (scores.all, scores.content, scores.exact_match) == (1, 1, 1)
    assert scores.loss < 0.01
