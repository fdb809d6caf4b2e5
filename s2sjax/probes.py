"""Why: what the questions that a trained model gets wrong have in common.

Probes are functions of text: questions, their right answers, and what the seeds of an arm wrote.
`ask` gets the last; whether an answer is right is decided as exact match, free-running, is.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Float

from s2sjax.config import Run
from s2sjax.errors import UserError
from s2sjax.group import read_answer
from s2sjax.metrics import HEADLINE
from s2sjax.report import MINUS, NONE, Table, quantity, score
from s2sjax.taskconfig import Addition, TaskConfig
from s2sjax.tasks import Pairs
from s2sjax.tasks.addition import SHORT, AdditionTask
from s2sjax.trained import BATCH, Models, Questions

Category = int | str
"""What a question is counted under."""

OVER_SEEDS = "Mean over seeds [95 % bootstrap interval of the mean]."

PLACES = {0: "sign", 1: "units", 2: "tens", 3: "hundreds", 4: "thousands"}


@dataclass(frozen=True)
class Written:
    """What the seeds of an arm wrote.

    Attributes:
        pairs: of every seed, its questions and their right answers.
        answers: of every seed, what it wrote, as text.
        right: which of them are right.
    """

    pairs: Sequence[Pairs]
    answers: Sequence[Sequence[str]]
    right: Bool[np.ndarray, "seeds n"]


def ask(models: Models, questions: Questions) -> dict[str, Written]:
    """What the arms that are asked write."""
    found = {}
    for arm, answers in models.decode(questions).items():
        form, pairs = models.formatters[arm], questions[arm]
        texts = [
            [read_answer(form, gold, ids) for (_, gold), ids in zip(own, tokens, strict=True)]
            for own, tokens in zip(pairs, answers.tokens, strict=True)
        ]
        found[arm] = Written(pairs, texts, answers.right)
    return found


# --- shares by category -----------------------------------------------------------------------


class Shares(NamedTuple):
    """How often an arm is right, by category.

    Attributes:
        shares: a share of each seed that has such questions.
        counts: how many there are, the mean over seeds that each have their own.
    """

    shares: dict[Category, list[float]]
    counts: dict[Category, int]

    def plus(self, other: "Shares") -> "Shares":
        """Followed by other categories."""
        return Shares({**self.shares, **other.shares}, {**self.counts, **other.counts})


def by(written: Written, category: Callable[[str, str], Category]) -> Shares:
    """Exact match by a category of (question, right answer), categories ascending."""
    cells: list[tuple[Category, bool, int]] = []
    for seed, (pairs, right) in enumerate(zip(written.pairs, written.right, strict=True)):
        cells += [(category(*p), bool(r), seed) for p, r in zip(pairs, right, strict=True)]
    return _shares(cells, len(written.right))


def overall(written: Written) -> Shares:
    """Exact match on all questions, as the one category "all"."""
    return by(written, lambda question, gold: "all")


def by_place(written: Written) -> Shares:
    """Share of answers whose character at a place is right, counted from the answer's end.

    What was written before the right answer's first character is not counted: 1234 for 234 has
    three places right of three. A minus, wherever it stands, is the place "sign".
    """
    cells: list[tuple[Category, bool, int]] = []
    for seed, (pairs, answers) in enumerate(zip(written.pairs, written.answers, strict=True)):
        for (_, gold), own in zip(pairs, answers, strict=True):
            own = own.rjust(len(gold))
            for k, right in enumerate(reversed(gold), start=1):
                cells.append((0 if right == "-" else k, own[-k] == right, seed))
    return _shares(cells, len(written.right), lambda k: PLACES.get(k, f"place {k}"))


def _shares(
    cells: Sequence[tuple[Category, bool, int]],
    seeds: int,
    name: Callable[[Any], Category] = lambda category: category,
) -> Shares:
    """(category, right, seed) of everything to be counted, to shares."""
    right: dict[tuple[Category, int], list[bool]] = {}
    for category, is_right, seed in cells:
        right.setdefault((category, seed), []).append(is_right)
    found = Shares({}, {})
    for c in sorted({category for category, _ in right}):
        of = [right[c, seed] for seed in range(seeds) if (c, seed) in right]
        found.shares[name(c)] = [float(np.mean(marks)) for marks in of]
        found.counts[name(c)] = round(sum(map(len, of)) / seeds)
    return found


def score_table(arms: Mapping[str, Written], note: str) -> Table:
    """Exact match of every arm: a row each."""
    every = {arm: overall(written) for arm, written in arms.items()}
    rows = [
        (arm, f"{of.counts['all']:,}", score(of.shares["all"], HEADLINE))
        for arm, of in every.items()
    ]
    return Table(
        title="Exact match, free-running",
        headers=("arm", "questions", "right"),
        rows=tuple(rows),
        note=f"{OVER_SEEDS} {note}",
    )


def share_table(arms: Mapping[str, Shares], title: str, header: str, note: str = "") -> Table:
    """Shares by category, a row each; arms that were asked the same, a column each.

    Beyond three arms there is no room for intervals.
    """
    counts = next(iter(arms.values())).counts
    wide = len(arms) > 3

    def cell(shares: Sequence[float]) -> str:
        return quantity(float(np.mean(shares)), HEADLINE) if wide else score(shares, HEADLINE)

    rows = [
        (str(category), f"{n:,}", *(cell(of.shares[category]) for of in arms.values()))
        for category, n in counts.items()
    ]
    return Table(
        title=title,
        headers=(header, "questions", *arms),
        rows=tuple(rows),
        note=f"{'Mean over seeds.' if wide else OVER_SEEDS} {note}".strip(),
    )


# --- what a sum may be hard for ---------------------------------------------------------------


def carries(terms: Sequence[int], operator: str) -> int:
    """Longest run of consecutive places with a carry; with a borrow for '-'.

    Borrows are those of the smaller subtracted from the larger: of the first operand and the sum of
    the others.
    """
    if operator == "-":
        high, low = sorted((terms[0], sum(terms[1:])), reverse=True)
        terms = (high - low, low)  # a place borrows where adding up again carries
    longest = run = carry = 0
    while any(terms) or carry > 9:
        carry = (carry + sum(term % 10 for term in terms)) // 10
        terms = [term // 10 for term in terms]
        run = run + 1 if carry else 0
        longest = max(longest, run)
    return longest


def operands(question: str) -> tuple[int, ...]:
    """The numbers of a question, in its order."""
    return tuple(map(int, re.findall("[0-9]+", question)))


def carry_chain(operator: str) -> Callable[[str, str], Category]:
    """A category: `carries` of a question."""
    return lambda question, gold: carries(operands(question), operator)


def operand_lengths(operator: str) -> Callable[[str, str], Category]:
    """A category: digits of each operand, "1 + 3"; of exchangeable ones in ascending order."""

    def category(question: str, gold: str) -> Category:
        lengths = [len(str(term)) for term in operands(question)]
        fixed = 0 if operator == "+" else 1
        lengths[fixed:] = sorted(lengths[fixed:])
        return f" {operator.replace('-', MINUS)} ".join(map(str, lengths))

    return category


def answer_length(question: str, gold: str) -> Category:
    """A category: characters of the right answer, its sign included."""
    return len(gold)


# --- questions of our own ---------------------------------------------------------------------


def edge_cases(task: Addition) -> dict[str, tuple[str, str]]:
    """Sums of two operands at the edges of what a task asks, by name: question and answer."""
    d, asked = task.digits, _task(task)
    nines, top = 10**d - 1, 10 ** (d - 1)
    rising = int(("1234567890" * d)[:d])
    fours, fives = 4 * (nines // 9), 5 * (nines // 9)
    named = {
        "nothing and nothing": (0, 0),
        "nothing first": (0, rising),
        "nothing last": (rising, 0),
        "nines and one": (nines, 1),
        "one and nines": (1, nines),
        "nines twice": (nines, nines),
        "a chain that fives begin": (fives, fours + 1),
        "a chain from one digit": (5, 10**d - 5),
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
    found: dict[str, tuple[str, str]] = {}
    for name, terms in named.items():
        question = "+".join(map(str, sorted(terms) if task.operands == "short_first" else terms))
        try:
            pair = question, asked.answer(question)
        except UserError:  # the task asks less
            continue
        if pair not in found.values():
            found[name] = pair
    return found


def _task(task: Addition, test: int = 1) -> AdditionTask:
    """The task without its own questions."""
    sizes = {"train": 1, "dev": 1, "test": test}
    return AdditionTask(replace(task, splits="leak_free", file=None, sha256=None, **sizes))


def edge_table(named: Mapping[str, tuple[str, str]], arms: Mapping[str, Written]) -> Table:
    """How many seeds of each arm get an edge case right; arms were asked them in this order."""
    rows = [
        (name, *pair, *(f"{w.right[:, i].sum()} of {len(w.right)}" for w in arms.values()))
        for i, (name, pair) in enumerate(named.items())
    ]
    return Table(
        title="Edge cases: seeds that are right",
        headers=("what", "question", "answer", *arms),
        rows=tuple(rows),
    )


def can_exhaust(task: TaskConfig) -> bool:
    """Whether all questions of a task can be asked: sums of two operands of up to three digits."""
    return (
        isinstance(task, Addition) and (task.operator, task.terms) == ("+", 2) and task.digits <= 3
    )


def _bounds(task: Addition) -> tuple[int, int]:
    """How many smaller and how many larger operands there are."""
    n = 10**task.digits
    return (min(10**SHORT, n) if task.operands == "short_first" else n), n


def every_question(task: Addition) -> Iterator[tuple[str, str]]:
    """Every unordered pair of operands once, as the sum a+b with a <= b, and its answer."""
    small, n = _bounds(task)
    for a in range(small):
        for b in range(a, n):
            yield f"{a}+{b}", str(a + b)


def seen(task: Addition, train: Pairs) -> Bool[np.ndarray, " n"]:
    """Which of `every_question` is among training questions, in whichever order of operands."""
    small, n = _bounds(task)
    found = np.zeros(small * n - small * (small - 1) // 2, bool)
    pairs = [sorted(operands(question)) for question, _ in train]
    a, b = np.array(pairs, int).reshape(-1, 2).T
    found[a * n - a * (a - 1) // 2 + (b - a)] = True
    return found


def ask_every(
    models: Models, task: Addition, told: Callable[[int], None], block: int = 32 * BATCH
) -> dict[str, Bool[np.ndarray, "seeds n"]]:
    """Which of `every_question` each arm gets right.

    Args:
        models: arms of that task.
        task: whose questions.
        told: called with the number of questions asked so far.
        block: questions laid out at once.
    """
    questions, done = every_question(task), 0
    parts: dict[str, list[np.ndarray]] = {arm: [] for arm in models.arms}
    while pairs := list(islice(questions, block)):
        for arm, answers in models.decode(models.same(pairs)).items():
            parts[arm].append(answers.right)
        done += len(pairs)
        told(done)
    return {arm: np.concatenate(part, axis=1) for arm, part in parts.items()}


def exhaustive_table(
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
            rows.append((arm, name, asked, score(shares, HEADLINE) if shares else NONE))
    return Table(
        title="Every question there is, exact match",
        headers=("arm", "questions", "how many", "right"),
        rows=tuple(rows),
        note=(
            "Every unordered pair of operands once, the smaller written first. Trained on: in "
            f"either order. {OVER_SEEDS}"
        ),
    )


def longer(run: Run) -> Run:
    """The same run with operands of one digit more; of a task without a file.

    Rows become wider (what is justified is filled up to the new width), parameters do not change.
    """
    if not isinstance(run.task, Addition):
        raise ValueError(f"Only numbers have digits, not {run.task}.")
    task = replace(run.task, digits=run.task.digits + 1, file=None, sha256=None)
    return replace(run, task=task)


def longer_questions(task: Addition, n: int) -> Pairs:
    """At most `n` distinct questions in which an operand has all its digits: always the same."""
    size = min(20 * n, max(1, _task(task).distinct_questions // 2))  # the last take long to draw
    drawn = _task(task, size).splits(jax.random.key(0))["test"]
    return [p for p in drawn if max(len(str(x)) for x in operands(p[0])) == task.digits][:n]


# --- the worst --------------------------------------------------------------------------------


def worst_table(
    arm: str,
    written: Written,
    log_probs: Float[np.ndarray, "seeds n"],
    first_seed: int,
    n: int = 20,
) -> Table:
    """The questions that the fewest seeds get right; of equals, the least likely right answers.

    Args:
        arm: its name.
        written: by all seeds, to the same questions.
        log_probs: of the right answers, forced, in nats.
        first_seed: whose answers are shown.
        n: how many questions.
    """
    seeds_right, likely = written.right.sum(axis=0), log_probs.mean(axis=0)
    rows = []
    for i in np.lexsort((likely, seeds_right))[:n]:
        question, gold = written.pairs[0][i]
        of = f"{seeds_right[i]} of {len(written.right)}"
        log_prob = f"{likely[i]:.2f}".replace("-", MINUS)
        rows.append((question, gold, of, written.answers[0][i] or "(nothing)", log_prob))
    return Table(
        title=f"The worst questions of {arm}",
        headers=("question", "answer", "seeds right", f"seed {first_seed} wrote", "log p"),
        rows=tuple(rows),
        note=(
            "log p: log probability of the right answer, its symbols given one by one, in nats; "
            "mean over seeds."
        ),
    )
