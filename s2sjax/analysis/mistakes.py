"""Why: what the questions that a trained model gets wrong have in common.

Everything here works on text: questions, their right answers, and what the seeds of an arm
answered (`ask`). Whether an answer is right is decided as for exact match, free-running.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from s2sjax.data.addition import SHORT, Addition
from s2sjax.data.dataset import make_formatter, seed_key
from s2sjax.data.tasks import Pairs, TaskConfig
from s2sjax.errors import UserError
from s2sjax.report.plots import Category
from s2sjax.report.tables import MINUS, NONE, Table, quantity, score
from s2sjax.train.answering import Questions
from s2sjax.train.metrics import EXACT_MATCH
from s2sjax.train.trained import Trained

OVER_SEEDS = "Mean over seeds [95 % bootstrap interval of the mean]."
PLACES = {0: "sign", 1: "units", 2: "tens", 3: "hundreds", 4: "thousands"}


class Answers(NamedTuple):
    """What the seeds of an arm answered."""

    pairs: Sequence[Sequence[tuple[str, str]]]  # of every seed, its questions and right answers
    texts: Sequence[Sequence[str]]  # of every seed, its answers
    right: Bool[np.ndarray, "seeds n"]  # which of them are right


def ask(trained: Trained, questions: Questions) -> dict[str, Answers]:
    """The answers of the arms that are asked."""
    answers = {}
    for arm, found in trained.evaluate(questions).items():
        formatter, pairs = trained.formatters[arm], questions[arm]
        texts = [
            [
                formatter.read(ids, formatter.given(gold))
                for (_, gold), ids in zip(own, tokens, strict=True)
            ]
            for own, tokens in zip(pairs, found.answers, strict=True)
        ]
        answers[arm] = Answers(pairs, texts, found.right)
    return answers


# --- shares by category -----------------------------------------------------------------------


class Share(NamedTuple):
    """How often an arm is right on one category of questions."""

    seeds: list[float]  # of each seed that has such questions
    count: int  # how many there are, the mean over seeds that each have their own


Shares = Mapping[Category, Share]


def shares_by(answers: Answers, category: Callable[[str, str], Category]) -> Shares:
    """Exact match by a category of (question, right answer), categories ascending."""
    return _shares(
        (seed, category(*pair), bool(right))
        for seed, (pairs, marks) in enumerate(zip(answers.pairs, answers.right, strict=True))
        for pair, right in zip(pairs, marks, strict=True)
    )


def overall(answers: Answers) -> Shares:
    """Exact match on all questions, as the one category "all"."""
    return shares_by(answers, lambda question, gold: "all")


def shares_by_place(answers: Answers) -> Shares:
    """Share of answers whose character at a place is right, counted from the answer's end.

    What was written before the right answer's first character is not counted: 1234 for 234 has
    three places right of three. A minus, wherever it stands, is the place "sign".
    """
    by_number = _shares(
        (seed, 0 if right == "-" else k, text.rjust(len(gold))[-k] == right)
        for seed, (pairs, texts) in enumerate(zip(answers.pairs, answers.texts, strict=True))
        for (_, gold), text in zip(pairs, texts, strict=True)
        for k, right in enumerate(reversed(gold), start=1)
    )
    return {PLACES.get(k, f"place {k}"): share for k, share in by_number.items()}


def _shares(cells: Iterable[tuple[int, Any, bool]]) -> dict[Any, Share]:
    """(seed, category, right) of everything to be counted, to shares."""
    marks: dict[Category, dict[int, list[bool]]] = {}
    seeds = set()
    for seed, category, right in cells:
        seeds.add(seed)
        marks.setdefault(category, {}).setdefault(seed, []).append(right)
    return {
        category: Share([float(np.mean(m)) for m in own], round(sum(map(len, own)) / len(seeds)))
        for category, own in sorted((c, of.values()) for c, of in marks.items())
    }


def score_table(arms: Mapping[str, Answers], note: str) -> Table:
    """Exact match of every arm: a row each."""
    every = {arm: overall(answers)["all"] for arm, answers in arms.items()}
    rows = [(arm, f"{n:,}", score(seeds, EXACT_MATCH)) for arm, (seeds, n) in every.items()]
    headers = ("arm", "questions", "right")
    return Table("Exact match, free-running", headers, tuple(rows), f"{OVER_SEEDS} {note}")


def share_table(arms: Mapping[str, Shares], title: str, header: str, note: str = "") -> Table:
    """Shares by category, a row each; arms that were asked the same, a column each.

    Beyond three arms there is no room for intervals.
    """
    wide = len(arms) > 3
    show = (lambda shares, of: quantity(float(np.mean(shares)), of)) if wide else score
    rows = [
        (str(category), f"{n:,}", *(show(of[category].seeds, EXACT_MATCH) for of in arms.values()))
        for category, (_, n) in next(iter(arms.values())).items()
    ]
    note = f"{'Mean over seeds.' if wide else OVER_SEEDS} {note}".strip()
    return Table(title, (header, "questions", *arms), tuple(rows), note)


# --- what a sum may be hard for ---------------------------------------------------------------


def operands(question: str) -> tuple[int, ...]:
    """The numbers of a question, in its order."""
    return tuple(map(int, re.findall("[0-9]+", question)))


def carries(question: str, gold: str = "") -> int:
    """A category: the longest run of consecutive places with a carry; of a difference, a borrow.

    Borrows are those of the smaller subtracted from the larger: of the first operand and the sum of
    the others.
    """
    terms = operands(question)
    if "-" in question:
        high, low = sorted((terms[0], sum(terms[1:])), reverse=True)
        terms = (high - low, low)  # a place borrows where adding up again carries
    longest = run = carry = 0
    while any(terms) or carry > 9:
        carry = (carry + sum(term % 10 for term in terms)) // 10
        terms = tuple(term // 10 for term in terms)
        run = run + 1 if carry else 0
        longest = max(longest, run)
    return longest


def operand_lengths(question: str, gold: str) -> str:
    """A category: digits of each operand, "1 + 3"; of exchangeable ones in ascending order."""
    lengths = [len(str(term)) for term in operands(question)]
    fixed = int("-" in question)
    lengths[fixed:] = sorted(lengths[fixed:])
    return (f" {MINUS} " if fixed else " + ").join(map(str, lengths))


# --- chosen questions -------------------------------------------------------------------------


def edge_cases(task: Addition) -> dict[str, tuple[str, str]]:
    """Sums of two operands at the edges of what a task asks, by name: question and answer."""
    nines, top = 10**task.digits - 1, 10 ** (task.digits - 1)
    rising = int(("1234567890" * task.digits)[: task.digits])
    fours, fives = 4 * (nines // 9), 5 * (nines // 9)
    named = {
        "nothing and nothing": (0, 0),
        "nothing first": (0, rising),
        "nothing last": (rising, 0),
        "nines and one": (nines, 1),
        "one and nines": (1, nines),
        "nines twice": (nines, nines),
        "a chain that fives begin": (fives, fours + 1),
        "a chain from one digit": (5, 10**task.digits - 5),
        "all nines, no carry": (fours, fives),
        "a double without carry": (fours, fours),
        "a double that carries everywhere": (fives, fives),
        "a rising number doubled": (rising, rising),
        "round numbers": (top, 2 * top),
        "round numbers that carry": (5 * top, 5 * top),
        "short and long": (7, rising),
        "long and short": (rising, 7),
        "no carry but in the units": (top + 5, top + 5),
    }
    cases: dict[str, tuple[str, str]] = {}
    for name, terms in named.items():
        question = "+".join(map(str, sorted(terms) if task.operands == "short_first" else terms))
        try:
            pair = question, task.answers(question)[0]
        except UserError:  # the task asks less
            continue
        if pair not in cases.values():
            cases[name] = pair
    return cases


def edge_table(named: Mapping[str, tuple[str, str]], arms: Mapping[str, Answers]) -> Table:
    """How many seeds of each arm get an edge case right; arms were asked them in this order."""
    marks = [answers.right for answers in arms.values()]
    rows = [
        (name, *pair, *(f"{right[:, i].sum()} of {len(right)}" for right in marks))
        for i, (name, pair) in enumerate(named.items())
    ]
    headers = ("what", "question", "answer", *arms)
    return Table("Edge cases: seeds that are right", headers, tuple(rows))


def can_ask_all(task: TaskConfig) -> bool:
    """Whether all questions of a task can be asked: sums of two operands of up to three digits."""
    sums = isinstance(task, Addition) and (task.operator, task.terms) == ("+", 2)
    return sums and task.digits <= 3


def _bounds(task: Addition) -> tuple[int, int]:
    """How many smaller and how many larger operands there are."""
    n = 10**task.digits
    return (min(10**SHORT, n) if task.operands == "short_first" else n), n


def every_question(task: Addition) -> Pairs:
    """Every unordered pair of operands once, as the sum a+b with a <= b, and its answer."""
    small, n = _bounds(task)
    return [(f"{a}+{b}", str(a + b)) for a in range(small) for b in range(a, n)]


def among_every(task: Addition, train: Pairs) -> Bool[np.ndarray, " n"]:
    """Which of `every_question` is among training questions, in whichever order of operands."""
    small, n = _bounds(task)
    marks = np.zeros(small * n - small * (small - 1) // 2, bool)
    pairs = [sorted(operands(question)) for question, _ in train]
    a, b = np.array(pairs, int).reshape(-1, 2).T
    marks[a * n - a * (a - 1) // 2 + (b - a)] = True
    return marks


def ask_all(trained: Trained, blocks: Iterable[Pairs]) -> dict[str, Bool[np.ndarray, "seeds n"]]:
    """Which of many questions each arm gets right; a block of them is laid out at once."""
    parts: dict[str, list[np.ndarray]] = {arm: [] for arm in trained.arms}
    for pairs in blocks:
        for arm, found in trained.evaluate(trained.same(pairs)).items():
            parts[arm].append(found.right)
    return {arm: np.concatenate(part, axis=1) for arm, part in parts.items()}


def every_table(
    right: Mapping[str, Bool[np.ndarray, "seeds n"]],
    trained_on: Mapping[str, Bool[np.ndarray, "seeds n"]],
) -> Table:
    """Exact match on every question there is, on those trained on, and on the others."""
    rows = []
    for arm, of in right.items():
        known = trained_on[arm]
        masks = {"all": np.ones_like(known), "trained on": known, "never trained on": ~known}
        for name, mask in masks.items():
            shares = [float(r[m].mean()) for r, m in zip(of, mask, strict=True) if m.any()]
            asked = f"{round(mask.sum() / len(mask)):,}"
            rows.append((arm, name, asked, score(shares, EXACT_MATCH) if shares else NONE))
    note = (
        "Every unordered pair of operands once, the smaller written first. Trained on: in either "
        f"order. {OVER_SEEDS}"
    )
    headers = ("arm", "questions", "how many", "right")
    return Table("Every question there is, exact match", headers, tuple(rows), note)


def longer(task: Addition) -> Addition:
    """The same task with operands of one digit more, and without a file."""
    return replace(task, digits=task.digits + 1, file=None, sha256=None)


def longer_questions(task: Addition, n: int) -> Pairs:
    """At most `n` distinct questions in which an operand has all its digits: always the same."""
    size = min(20 * n, max(1, task.distinct_questions // 2))  # the last take long to draw
    own = replace(task, splits="leak_free", train=1, dev=1, test=size)
    drawn = own.pairs(seed_key(0))["test"]
    return [p for p in drawn if max(len(str(x)) for x in operands(p[0])) == task.digits][:n]


def widened(trained: Trained) -> Trained:
    """The same parameters for numbers of one digit more: rows as wide as `longer` ones take."""
    stacks = []
    for stack in trained.stacks:
        formatters = {}
        for arm, run in stack.runs.items():
            assert isinstance(run.task, Addition)
            widths = make_formatter(longer(run.task), run.text).widths
            formatters[arm] = stack.formatters[arm]._replace(widths=widths)
        widths = tuple(filter(None, (f.row_widths for f in formatters.values())))[:1]
        stacks.append(replace(stack, formatters=formatters, widths=widths))
    return replace(trained, stacks=tuple(stacks))


def worst_table(
    arm: str, answers: Answers, log_probs: Float[np.ndarray, "seeds n"], seed: int, n: int = 20
) -> Table:
    """The `n` questions that the fewest seeds get right; of equals, the least likely right answers.

    All seeds were asked the same; `log_probs` are of the right answers, and `seed` is the first.
    """
    seeds_right, likely = answers.right.sum(axis=0), log_probs.mean(axis=0)
    rows = []
    for i in np.lexsort((likely, seeds_right))[:n]:
        question, gold = answers.pairs[0][i]
        own, of = answers.texts[0][i] or "(nothing)", f"{seeds_right[i]} of {len(answers.right)}"
        rows.append((question, gold, of, own, f"{likely[i]:.2f}".replace("-", MINUS)))
    headers = ("question", "answer", "seeds right", f"seed {seed} wrote", "log p")
    note = (
        "log p: log probability of the right answer, its symbols given one by one, in nats; "
        "mean over seeds."
    )
    return Table(f"The worst questions of {arm}", headers, tuple(rows), note)
