"""Floors: what a predictor scores that knows only part of the question.

A score means little until it is held against them: under teacher forcing a model that never reads
the source is right 35 % of the time. `floor` enumerates every question of an addition, so its
numbers are exact; it needs questions that are equally likely. `prior` takes them as they were
drawn.
"""

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from s2sjax.config import Text
from s2sjax.data import Formatter, make_vocabulary
from s2sjax.errors import UserError
from s2sjax.taskconfig import Addition, Toy
from s2sjax.tasks import Pairs, make_task
from s2sjax.tasks.addition import AdditionTask

ENUMERABLE = 2_000_000
"""Most questions that are enumerated; two operands of three digits make a million."""

Knows = Callable[[np.ndarray], np.ndarray]
"""Operands ``[questions, terms]`` to a non-negative integer each; questions with equal integers
look the same to the predictor."""


def nothing(terms: np.ndarray) -> np.ndarray:
    """The predictor never reads the source."""
    return np.zeros(len(terms), np.int64)


def top_digits(count: int, digits: int) -> Knows:
    """The predictor knows the `count` most significant of the `digits` digits of each operand."""

    def knows(terms: np.ndarray) -> np.ndarray:
        known = terms // 10 ** (digits - count)
        return known @ 10 ** (count * np.arange(terms.shape[1]))

    return knows


@dataclass(frozen=True)
class Floor:
    """Scores of a predictor with partial knowledge.

    Attributes:
        by_position: accuracy at each scored answer character, in the order they are written.
        all: accuracy over all scored symbols, the end symbol, where there is one, included.
        content: the same without the end symbol.
        exact_match: share of whole answers right.
        loss: cross-entropy in nats per scored symbol, the end symbol included.
    """

    by_position: tuple[float, ...]
    all: float
    content: float
    exact_match: float
    loss: float


# --- every question --------------------------------------------------------------------------

_NONE, _END = 0, 1


def enumerable(config: Addition) -> bool:
    """Whether `floor` has an answer: all questions are equally likely, and not too many."""
    return _uniform(config) and 10 ** (config.digits * config.terms) <= ENUMERABLE


def _uniform(config: Addition) -> bool:
    return config.operands == "uniform" and config.file is None


def floor(config: Addition, knows: Knows, text: Text) -> Floor:
    """Score the best predictor that sees `knows` and what is fed, over all questions.

    Fed is the gold prefix of the answer (teacher forcing), or nothing where `text.start` says so. A
    first character that is given is not scored.

    Args:
        config: the task; raises UserError where it is not `enumerable`.
        knows: what the predictor knows of a question.
        text: how answers are written; how questions are plays no part.
    """
    if not _uniform(config):
        raise UserError("only of uniform operands are all questions equally likely")
    task, base = AdditionTask(config), 10**config.digits
    if base**config.terms > ENUMERABLE:
        raise UserError(f"{task.what} questions are too many to enumerate ({ENUMERABLE:,} at most)")
    index = np.arange(base**config.terms)
    terms = np.stack([index // base**i % base for i in range(config.terms)], axis=1)
    sign = 1 if config.operator == "+" else -1
    answers, answer = np.unique(terms[:, 0] + sign * terms[:, 1:].sum(1), return_inverse=True)

    classes = 2 + len(task.characters)
    form = Formatter(task, text, make_vocabulary(task, text))
    symbols = np.full((len(answers), task.target_width + text.target_eos), _NONE)
    for row, value in zip(symbols, answers, strict=True):
        codes = [2 + task.characters.index(c) for c in form.target(str(value))]
        codes += [_END] * text.target_eos
        row[: len(codes)] = codes

    group, given = _relabel(knows(terms)), _given(text)
    hits, counts, ends, end_hits, nats, whole = [], [], 0, 0, 0.0, 0
    for position in range(symbols.shape[1]):
        symbol = symbols[answer, position]
        if position == given:
            whole = _best_guess(group, answer, len(answers))[1].sum()
        if position >= given:
            live = symbol != _NONE
            guess, right, entropy = _best_guess(group[live], symbol[live], classes)
            end_hits += right[guess == _END].sum()
            hits.append(right[guess != _END].sum())
            counts.append((symbol > _END).sum())
            ends += (symbol == _END).sum()
            nats += entropy
        if text.start != "nothing":
            group = _relabel(group * classes + symbol)
    scored = sum(counts) + ends
    return Floor(
        by_position=tuple(float(h / n) for h, n in zip(hits, counts, strict=True) if n),
        all=float((sum(hits) + end_hits) / scored),
        content=float(sum(hits) / sum(counts)),
        exact_match=float(whole / len(index)),
        loss=float(nats / scored),
    )


def _given(text: Text) -> int:
    """Leading answer characters that are given and not scored."""
    return int(text.start == "first_target")


def _relabel(codes: np.ndarray) -> np.ndarray:
    """Equal codes to equal small integers."""
    return np.unique(codes, return_inverse=True)[1]


def _best_guess(
    group: np.ndarray, symbol: np.ndarray, classes: int
) -> tuple[np.ndarray, np.ndarray, float]:
    """Each group's commonest symbol, how often it is right, and the nats that uncertainty costs."""
    codes, counts = np.unique(group * classes + symbol, return_counts=True)
    owner, symbols = np.divmod(codes, classes)
    nats = -(counts * np.log(counts / np.bincount(owner, counts)[owner])).sum()
    order = np.lexsort((counts, owner))
    last = order[np.append(np.diff(owner[order]) > 0, True)]
    return symbols[last], counts[last], float(nats)


# --- questions as they were drawn ------------------------------------------------------------


_STOP = "end"  # two characters or more, so never taken for one


class Prior(NamedTuple):
    """Scores of a model that never reads the source, learned from the training answers.

    Whole answers are guessed as the commonest training answer, whatever is fed.

    Attributes:
        unfed: the decoder sees the position alone, and a first character that is given: every
            decoder that runs freely, and one that repeats.
        fed: it sees the gold prefix too (teacher forcing).
    """

    unfed: Floor
    fed: Floor


def prior(config: Addition | Toy, text: Text, train: Pairs, test: Pairs) -> Prior:
    """Learn a `Prior` from the answers of `train` and score it on those of `test`.

    A symbol's chance is its share among the training answers with the same symbols before it, where
    its share at that position, whatever came before, counts as one answer more; and one more there
    is spread evenly over all symbols. So chances are never zero, and where an answer is the first
    of its kind, or two symbols are equally common, the position decides.

    Args:
        config: the task.
        text: how answers are written; how questions are plays no part.
        train: pairs to learn from.
        test: pairs to score.
    """
    task = make_task(config)
    form = Formatter(task, text, make_vocabulary(task, text))
    end = [_STOP] * text.target_eos

    def written(pairs: Pairs) -> Counter[tuple[str, ...]]:
        answers = Counter(answer for _, answer in pairs)
        return Counter({(*form.target(answer), *end): n for answer, n in answers.items()})

    known, asked = written(train), written(test)
    symbols = [*task.characters, *end]
    return Prior(
        unfed=_scored(known, asked, symbols, _given(text), fed=False),
        fed=_scored(known, asked, symbols, _given(text), fed=True),
    )


def _scored(
    known: Counter[tuple[str, ...]],
    asked: Counter[tuple[str, ...]],
    symbols: list[str],
    given: int,
    fed: bool,
) -> Floor:
    """Scores on the answers `asked` of what the answers `known` teach, both with their counts."""

    def contexts(answer: tuple[str, ...]) -> list[tuple]:
        """What is seen at every scored position: the position, and the symbols before it."""
        return [(p, answer[: p if fed else given]) for p in range(given, len(answer))]

    seen: dict[tuple | int, Counter[str]] = {}
    for answer, n in known.items():
        for context in contexts(answer):
            for place in context, context[0]:
                seen.setdefault(place, Counter())[answer[context[0]]] += n

    def chances(position: int, context: tuple) -> dict[str, float]:
        chance = dict.fromkeys(symbols, 1 / len(symbols))
        for place in position, context:
            counts = seen.get(place, Counter())
            chance = {s: (counts[s] + chance[s]) / (counts.total() + 1) for s in symbols}
        return chance

    favourite: dict[tuple[str, ...], tuple[str, ...]] = {}
    for answer, _ in known.most_common():
        favourite.setdefault(answer[:given], answer)
    right, scored, nats, whole = Counter(), Counter(), 0.0, 0
    cached: dict[tuple, dict[str, float]] = {}
    for answer, n in asked.items():
        whole += n * (favourite.get(answer[:given]) == answer)
        for context in contexts(answer):
            if context not in cached:
                cached[context] = chances(context[0], context)
            chance, symbol = cached[context], answer[context[0]]
            place = (context[0], symbol == _STOP)
            scored[place] += n
            right[place] += n * (symbol == max(chance, key=chance.__getitem__))
            nats -= n * math.log(chance[symbol])
    content = sorted(p for p, stop in scored if not stop)
    return Floor(
        by_position=tuple(right[p, False] / scored[p, False] for p in content),
        all=right.total() / scored.total(),
        content=sum(right[p, False] for p in content) / sum(scored[p, False] for p in content),
        exact_match=whole / asked.total(),
        loss=nats / scored.total(),
    )
