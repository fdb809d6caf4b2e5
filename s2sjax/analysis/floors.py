"""Floors: the scores of a predictor that knows only part of the question.

A score means little without them: under teacher forcing, a model that never reads the source gets
35 % of the symbols of a sum right. `floor` is exact, because it enumerates all questions of an
addition; they must be equally likely. `prior` uses the questions that were drawn, of any task.
"""

from itertools import chain
from typing import NamedTuple

import numpy as np

from s2sjax.config import Text
from s2sjax.data.dataset import make_formatter
from s2sjax.data.tasks import Addition, Pairs, TaskConfig
from s2sjax.data.vocab import fill
from s2sjax.errors import UserError

ENUMERABLE = 2_000_000  # the most questions; two operands of three digits make a million

_NONE = -1  # where an answer has ended


class Floor(NamedTuple):
    """Scores of a predictor with partial knowledge."""

    all: float  # accuracy over all scored symbols, including the end symbol
    content: float  # the same without the end symbol
    exact_match: float  # share of whole answers right
    loss: float  # cross-entropy in nats per scored symbol, including the end symbol


def enumerable(config: Addition) -> bool:
    """Whether `floor` can be computed: questions are equally likely, and not too many."""
    uniform = config.operands == "uniform" and config.file is None
    return uniform and 10 ** (config.digits * config.terms) <= ENUMERABLE


def floor(config: Addition, known_digits: int, text: Text) -> Floor:
    """Score the best predictor that knows the top `known_digits` digits of each operand.

    With 0 it never reads the source. All questions count. At each position it also knows the right
    symbols before it (teacher forcing), except where `text.start` is "nothing". A first symbol that
    is given is not scored. The layout of the questions does not matter. Raises UserError for a task
    that is not `enumerable`.
    """
    if not enumerable(config):
        raise UserError(f"{config.questions} cannot be enumerated: too many, or not equally likely")
    base = 10**config.digits
    index = np.arange(base**config.terms)
    terms = np.stack([index // base**i % base for i in range(config.terms)], axis=1)
    sign = 1 if config.operator == "+" else -1
    values, answer = np.unique(terms[:, 0] + sign * terms[:, 1:].sum(1), return_inverse=True)
    every, forced = slice(None), text.start != "nothing"
    top = terms // 10 ** (config.digits - known_digits)
    known = top @ 10 ** (known_digits * np.arange(config.terms))  # one number for them all
    questions = ([*map(str, values)], answer, known)
    return _score(config, text, *questions, every, every, teacher_forced=forced)


def prior(task: TaskConfig, text: Text, train: Pairs, test: Pairs) -> Floor:
    """Score the best predictor that never reads the source, free-running, on the pairs of `test`.

    It knows the position, the first symbol if that is given, and the answers of `train`. Its guess
    of a whole answer is the most frequent one. The probability of a symbol is its share among the
    answers that it cannot tell apart, smoothed twice: the shares in all answers are added as one
    more answer, and to these equal shares of all symbols. So no probability is zero. The layout of
    the questions does not matter.
    """
    golds = [answer for _, answer in chain(train, test)]
    number = {answer: n for n, answer in enumerate(dict.fromkeys(golds))}
    answer, n = np.array([number[gold] for gold in golds]), len(train)
    questions = ([*number], answer, np.zeros_like(answer))
    return _score(task, text, *questions, slice(n), slice(n, None), teacher_forced=False, added=1)


def _score(task, text, answers, answer, group, train, test, *, teacher_forced, added=0) -> Floor:
    """Learn probabilities from a slice of the questions, `train`, and score them on another.

    `answers` are all there are. Of each question, `answer` is the index of its answer, and `group`
    an integer that stands for what is known of it; `teacher_forced`: also all symbols before a
    position. `added` answers smooth the shares.
    """
    formatter, given = make_formatter(task, text), int(text.start == "first_target")
    target, ends = formatter.target, [formatter.target.eos_id] * text.target_eos
    ids = [[*formatter.answer_ids(one), *ends] for one in answers]
    every = dict.fromkeys([*target.encode(task.characters or ""), *chain(*ids)])
    code, symbols = {symbol: n for n, symbol in enumerate(every)}, len(every)
    end = code.get(target.eos_id, symbols)
    rows = fill([[code[symbol] for symbol in row] for row in ids], max(map(len, ids)), _NONE)
    right, scored = np.zeros((2, 2), np.int64)  # symbols of the answer, end symbols
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
            scored += np.bincount(is_end, minlength=2)
            right += np.bincount(is_end[hit], minlength=2)
            nats -= np.log(probability[asked[0], asked[1]]).sum()
        if teacher_forced or position < given:
            group = group * (symbols + 1) + symbol + 1
    return Floor(
        all=float(right.sum() / scored.sum()),
        content=float(right[0] / scored[0]),
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
