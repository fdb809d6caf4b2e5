"""Floors: what a predictor scores on addition that knows only part of the question.

Every question is enumerated, so the numbers are exact. A score means little until it is held
against them: under teacher forcing a model that never reads the source is right 35 % of the time.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from s2sjax.config import Addition
from s2sjax.errors import UserError
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
    """Scores of the best predictor with partial knowledge, over all questions, equally likely.

    Attributes:
        by_position: teacher-forced accuracy at each scored answer character.
        all: teacher-forced accuracy over all scored symbols, the end symbol included.
        content: the same without the end symbol.
        exact_match: share of whole answers right.
        loss: teacher-forced cross-entropy in nats per scored symbol, the end symbol included.
    """

    by_position: tuple[float, ...]
    all: float
    content: float
    exact_match: float
    loss: float


_NONE, _END = 0, 1


def floor(config: Addition, knows: Knows, *, justify: bool, given: int) -> Floor:
    """Score the best predictor that sees `knows` and the gold prefix of the answer.

    Args:
        config: the task; raises UserError where it has more than `ENUMERABLE` questions.
        knows: what the predictor knows of a question.
        justify: answers are filled with spaces on the left to full width.
        given: leading answer characters that are given and not scored.
    """
    task, base = AdditionTask(config), 10**config.digits
    if base**config.terms > ENUMERABLE:
        raise UserError(f"{task.what} questions are too many to enumerate ({ENUMERABLE:,} at most)")
    index = np.arange(base**config.terms)
    terms = np.stack([index // base**i % base for i in range(config.terms)], axis=1)
    sign = 1 if config.operator == "+" else -1
    answers, answer = np.unique(terms[:, 0] + sign * terms[:, 1:].sum(1), return_inverse=True)

    classes = 2 + len(task.characters)
    symbols = np.full((len(answers), task.target_width + 1), _NONE)
    for row, value in zip(symbols, answers, strict=True):
        text = str(value).rjust(task.target_width if justify else 0)
        row[: len(text) + 1] = [2 + task.characters.index(c) for c in text] + [_END]

    group = _relabel(knows(terms))
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
        group = _relabel(group * classes + symbol)
    scored = sum(counts) + ends
    return Floor(
        by_position=tuple(float(h / n) for h, n in zip(hits, counts, strict=True) if n),
        all=float((sum(hits) + end_hits) / scored),
        content=float(sum(hits) / sum(counts)),
        exact_match=float(whole / len(index)),
        loss=float(nats / scored),
    )


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
