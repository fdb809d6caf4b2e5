"""Floors: the scores of a predictor that knows only part of the question.

A score means little without them: under teacher forcing, a model that never reads the source gets
35 % of the symbols of a sum right. `floor` is exact, because it enumerates all questions of an
addition; they must be equally likely. `prior` uses the questions that were drawn, of any task.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, NamedTuple

import numpy as np

from s2sjax.config import Text
from s2sjax.data.dataset import make_formatter
from s2sjax.data.tasks import Addition, Pairs, TaskConfig
from s2sjax.errors import UserError

ENUMERABLE = 2_000_000
"""The most questions to enumerate; two operands of three digits make a million."""

Knows = Callable[[np.ndarray], np.ndarray]
"""What a predictor knows: a function from operands ``[questions, terms]`` to an integer >= 0 for
each question. The predictor cannot distinguish questions with equal integers."""

_NONE = -1  # where an answer has ended


def nothing(terms: np.ndarray) -> np.ndarray:
    """The predictor never reads the source."""
    return np.zeros(len(terms), np.int64)


def top_digits(count: int, digits: int) -> Knows:
    """The predictor knows the `count` most significant of the `digits` digits of each operand."""

    def knows(terms: np.ndarray) -> np.ndarray:
        return (terms // 10 ** (digits - count)) @ 10 ** (count * np.arange(terms.shape[1]))

    return knows


@dataclass(frozen=True)
class Floor:
    """Scores of a predictor with partial knowledge."""

    by_position: tuple[float, ...]  # accuracy at each scored position, in the order of writing
    all: float  # accuracy over all scored symbols, including the end symbol
    content: float  # the same without the end symbol
    exact_match: float  # share of whole answers right
    loss: float  # cross-entropy in nats per scored symbol, including the end symbol


class Prior(NamedTuple):
    """Scores of a predictor that never reads the source, learned from the training answers.

    In both modes, its guess of a whole answer is the most frequent training answer.
    """

    free_running: Floor  # it knows the position, and the first symbol if that is given
    teacher_forced: Floor  # it knows the position and all right symbols before it


def enumerable(config: Addition) -> bool:
    """Whether `floor` can be computed: questions are equally likely, and not too many."""
    uniform = config.operands == "uniform" and config.file is None
    return uniform and 10 ** (config.digits * config.terms) <= ENUMERABLE


def floor(config: Addition, knows: Knows, text: Text) -> Floor:
    """Score the best predictor that knows `knows`, over all questions.

    At each position it also knows the right symbols before it (teacher forcing), except where
    `text.start` is "nothing". A first symbol that is given is not scored. The layout of the
    questions does not matter. Raises UserError for a task that is not `enumerable`.
    """
    if not enumerable(config):
        raise UserError(f"{config.questions} cannot be enumerated: too many, or not equally likely")
    base = 10**config.digits
    index = np.arange(base**config.terms)
    terms = np.stack([index // base**i % base for i in range(config.terms)], axis=1)
    sign = 1 if config.operator == "+" else -1
    values, answer = np.unique(terms[:, 0] + sign * terms[:, 1:].sum(1), return_inverse=True)
    written, every = _write(config, text, [*map(str, values)]), slice(None)
    forced = text.start != "nothing"
    return _score(written, answer, knows(terms), every, every, teacher_forced=forced)


def prior(task: TaskConfig, text: Text, train: Pairs, test: Pairs) -> Prior:
    """Learn a `Prior` from the answers of `train`, and score it on those of `test`.

    The probability of a symbol is its share among the training answers that begin with the same
    symbols, smoothed twice. The shares at its position in all training answers are added as if they
    were one more answer; to these, equal shares for all symbols are added as one more answer. So no
    probability is zero, and after a beginning that was never seen, the position decides.

    The layout of the questions does not matter.
    """
    golds = [answer for _, answer in chain(train, test)]
    number = {answer: n for n, answer in enumerate(dict.fromkeys(golds))}
    written, n = _write(task, text, [*number]), len(train)
    answer = np.array([number[gold] for gold in golds])
    known: Any = (written, answer, np.zeros_like(answer), slice(n), slice(n, None))
    free_running, teacher_forced = (
        _score(*known, teacher_forced=forced, added=1) for forced in (False, True)
    )
    return Prior(free_running, teacher_forced)


class _Written(NamedTuple):
    """Answers in the layout of a text, as rows of symbols, which are numbered from 0."""

    rows: np.ndarray  # [answers, positions]; `_NONE` after the end
    symbols: int  # how many there are
    end: int  # the end symbol
    given: int  # how many symbols are given at the start, and not scored


def _write(task: TaskConfig, text: Text, answers: Sequence[str]) -> _Written:
    formatter = make_formatter(task, text)
    ids = [formatter.answer_ids(answer) for answer in answers]
    known = dict.fromkeys([*formatter.target.encode(task.characters or ""), *chain(*ids)])
    code = {symbol: n for n, symbol in enumerate(known)}
    ends = [len(code)] * text.target_eos
    rows = np.full((len(ids), max(map(len, ids)) + len(ends)), _NONE)
    for row, own in zip(rows, ids, strict=True):
        row[: len(own) + len(ends)] = [*(code[symbol] for symbol in own), *ends]
    return _Written(rows, len(code) + len(ends), len(code), int(text.start == "first_target"))


def _score(
    written: _Written,
    answer: np.ndarray,  # row of each question's answer
    group: np.ndarray,  # what is known of each question, an integer
    train: slice,  # questions to learn from
    test: slice,  # questions to score
    *,
    teacher_forced: bool,  # whether the right symbols before a position are known
    added: int = 0,  # answers that are added in each of the two steps of smoothing
) -> Floor:
    """Learn probabilities from some questions, and score them on others."""
    rows, symbols, end, given = written
    right, scored = np.zeros((2, rows.shape[1], 2), np.int64)  # by position: content, end
    nats = whole = 0.0
    for position, column in enumerate(rows.T):
        symbol, group = column[answer], np.unique(group, return_inverse=True)[1]
        groups = int(group.max()) + 1
        if position == given:
            guess = _commonest(group[train], answer[train], groups)
            whole = (guess[group[test]] == answer[test]).mean()
        if position >= given:
            pairs = np.stack([group, symbol])
            known, asked = (some[:, some[1] != _NONE] for some in (pairs[:, train], pairs[:, test]))
            cells = known[0] * symbols + known[1]
            counts = np.bincount(cells, minlength=symbols * groups).reshape(-1, symbols)
            everywhere = (counts.sum(axis=0) + added / symbols) / (counts.sum() + added)
            total = counts.sum(axis=1, keepdims=True) + added
            probability = (counts + added * everywhere) / np.maximum(total, 1)
            hit = probability.argmax(axis=1)[asked[0]] == asked[1]
            is_end = (asked[1] == end).astype(int)
            scored[position] = np.bincount(is_end, minlength=2)
            right[position] = np.bincount(is_end[hit], minlength=2)
            nats -= np.log(probability[asked[0], asked[1]]).sum()
        if teacher_forced or position < given:
            group = group * (symbols + 1) + symbol + 1
    content = scored[:, 0] > 0
    return Floor(
        by_position=tuple((right[content, 0] / scored[content, 0]).tolist()),
        all=float(right.sum() / scored.sum()),
        content=float(right[:, 0].sum() / scored[:, 0].sum()),
        exact_match=float(whole),
        loss=float(nats / scored.sum()),
    )


def _commonest(group: np.ndarray, answer: np.ndarray, groups: int) -> np.ndarray:
    """The most frequent answer of each group (of equals the lowest); `_NONE` if it has none."""
    answers = answer.max() + 1
    pairs, counts = np.unique(group * answers + answer, return_counts=True)
    owner, answer = np.divmod(pairs, answers)
    order = np.lexsort((-answer, counts, owner))
    guess = np.full(groups, _NONE)
    guess[owner[order]] = answer[order]  # the last of each group stays
    return guess
