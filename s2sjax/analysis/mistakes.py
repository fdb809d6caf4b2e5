"""What the questions that a trained model gets wrong have in common.

The functions work on texts: questions, their right answers, and the answers of the seeds of an arm
(`ask`). An answer is right if exact match, free-running, counts it as right.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from statistics import mean
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from s2sjax.data.addition import SHORT, Addition
from s2sjax.data.dataset import make_formatter, seed_key
from s2sjax.data.tasks import Pairs
from s2sjax.errors import UserError
from s2sjax.report.plots import Category
from s2sjax.report.tables import MINUS, NONE, OVER_SEEDS, Table, quantity, score
from s2sjax.train.answering import Questions
from s2sjax.train.metrics import EXACT_MATCH
from s2sjax.train.trained import Trained

PLACES = {0: "sign", 1: "units", 2: "tens", 3: "hundreds", 4: "thousands"}
Marks = Bool[np.ndarray, "seeds n"]  # whether the answer of each seed to each question is right


class Answers(NamedTuple):
    """The answers of the seeds of an arm."""

    pairs: Sequence[Sequence[tuple[str, str]]]  # of each seed: (question, right answer)
    texts: Sequence[Sequence[str]]  # of each seed: what it answered
    right: Marks


def ask(trained: Trained, questions: Questions) -> dict[str, Answers]:
    """The answers of each arm to its questions."""
    answers = {}
    for arm, evaluation in trained.evaluate(questions).items():
        formatter, texts = trained.formatters[arm], []
        for pairs, tokens in zip(questions[arm], evaluation.answers, strict=True):
            asked = zip(pairs, tokens, strict=True)
            texts.append([formatter.read(ids, formatter.given(gold)) for (_, gold), ids in asked])
        answers[arm] = Answers(questions[arm], texts, evaluation.right)
    return answers


class Share(NamedTuple):
    """The share of right answers in one category of questions."""

    seeds: list[float]  # of each seed that was asked such questions
    count: int  # the number of such questions, a mean over all seeds


Shares = Mapping[Category, Share]


def shares_by(answers: Answers, category: Callable[[str, str], Category]) -> Shares:
    """Exact match by category; `category` is a function of a question and its right answer."""
    return _shares(
        (seed, category(*pair), bool(right))
        for seed, (pairs, marks) in enumerate(zip(answers.pairs, answers.right, strict=True))
        for pair, right in zip(pairs, marks, strict=True)
    )


def overall(answers: Answers) -> Shares:
    """Exact match on all questions, in one category called "all"."""
    return shares_by(answers, lambda question, gold: "all")


def shares_by_place(answers: Answers) -> Shares:
    """The share of right characters at each place of the right answer, from its end.

    Characters before these places do not count: 1234 for 234 is right at all three places. The
    place of a minus is called "sign".
    """
    by_number = _shares(
        (seed, 0 if right == "-" else k, text.rjust(len(gold))[-k] == right)
        for seed, (pairs, texts) in enumerate(zip(answers.pairs, answers.texts, strict=True))
        for (_, gold), text in zip(pairs, texts, strict=True)
        for k, right in enumerate(reversed(gold), start=1)
    )
    return {PLACES.get(k, f"place {k}"): share for k, share in by_number.items()}


def _shares(cells: Iterable[tuple[int, Any, bool]]) -> dict[Any, Share]:
    """Shares by category, ascending, from (seed, category, whether right) of every answer."""
    marks: dict[Category, dict[int, list[bool]]] = {}
    seeds = set()
    for seed, category, right in cells:
        seeds.add(seed)
        marks.setdefault(category, {}).setdefault(seed, []).append(right)
    return {
        category: Share([sum(m) / len(m) for m in own], round(sum(map(len, own)) / len(seeds)))
        for category, own in sorted((c, of.values()) for c, of in marks.items())
    }


def exact_match_table(arms: Mapping[str, Answers], note: str) -> Table:
    """Exact match of every arm, a row each."""
    every = {arm: overall(answers)["all"] for arm, answers in arms.items()}
    rows = [(arm, f"{n:,}", score(seeds, EXACT_MATCH)) for arm, (seeds, n) in every.items()]
    headers = ("arm", "questions", "right")
    return Table("Exact match, free-running", headers, tuple(rows), f"{OVER_SEEDS} {note}")


def share_table(arms: Mapping[str, Shares], title: str, header: str, note: str = "") -> Table:
    """A row for each category, a column for each arm; all arms were asked the same questions.

    Intervals are shown for up to three arms.
    """
    wide, rows = len(arms) > 3, []
    for category, (_, n) in next(iter(arms.values())).items():
        seeds = [of[category].seeds for of in arms.values()]
        cells = [quantity(mean(x), EXACT_MATCH) if wide else score(x, EXACT_MATCH) for x in seeds]
        rows.append((str(category), f"{n:,}", *cells))
    note = f"{'Mean over seeds.' if wide else OVER_SEEDS} {note}".strip()
    return Table(title, (header, "questions", *arms), tuple(rows), note)


def operands(question: str) -> tuple[int, ...]:
    """The numbers of a question, in its order."""
    return tuple(map(int, re.findall("[0-9]+", question)))


def carries(question: str, gold: str = "") -> int:
    """A category: the longest run of neighbouring places with a carry, or with a borrow.

    The borrows of a difference are those of the larger minus the smaller number, where one number
    is the first operand and the other the sum of all others.
    """
    terms = operands(question)
    if "-" in question:
        high, low = sorted((terms[0], sum(terms[1:])), reverse=True)
        terms = (high - low, low)  # high - low borrows where (high - low) + low carries
    longest = run = carry = 0
    while any(terms) or carry > 9:
        carry = (carry + sum(term % 10 for term in terms)) // 10
        terms = tuple(term // 10 for term in terms)
        run = run + 1 if carry else 0
        longest = max(longest, run)
    return longest


def operand_lengths(question: str, gold: str) -> str:
    """A category: the digits of each operand, such as "1 + 3".

    Operands that can change places without changing the answer are sorted.
    """
    lengths = [len(str(term)) for term in operands(question)]
    fixed = int("-" in question)
    lengths[fixed:] = sorted(lengths[fixed:])
    return (f" {MINUS} " if fixed else " + ").join(map(str, lengths))


def edge_cases(task: Addition) -> dict[str, tuple[str, str]]:
    """Extreme sums of two operands, ``{name: (question, answer)}``."""
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
        except UserError:  # not a question of this task
            continue
        if pair not in cases.values():
            cases[name] = pair
    return cases


def edge_table(named: Mapping[str, tuple[str, str]], arms: Mapping[str, Answers]) -> Table:
    """How many seeds of each arm get each edge case right; they were asked in this order."""
    marks = [answers.right for answers in arms.values()]
    rows = [
        (name, *pair, *(f"{right[:, i].sum()} of {len(right)}" for right in marks))
        for i, (name, pair) in enumerate(named.items())
    ]
    headers = ("what", "question", "answer", *arms)
    return Table("Edge cases: seeds that are right", headers, tuple(rows))


def all_sums(task: Addition) -> Pairs:
    """All sums a+b with a <= b, and their answers; none of other questions or longer numbers."""
    if (task.operator, task.terms) != ("+", 2) or task.digits > 3:
        return []
    n = 10**task.digits
    shorter = min(10**SHORT, n) if task.operands == "short_first" else n
    return [(f"{a}+{b}", str(a + b)) for a in range(shorter) for b in range(a, n)]


def which_sums(sums: Pairs, train: Pairs) -> Bool[np.ndarray, " n"]:
    """Which of `all_sums` are among the training questions, in any order of their operands."""
    known = {"+".join(map(str, sorted(operands(question)))) for question, _ in train}
    return np.array([question in known for question, _ in sums])


def ask_in_blocks(trained: Trained, blocks: Iterable[Pairs]) -> dict[str, Marks]:
    """Whether each arm answers many questions right, asked block by block to save memory."""
    parts: dict[str, list[np.ndarray]] = {arm: [] for arm in trained.arms}
    for pairs in blocks:
        for arm, evaluation in trained.evaluate(trained.same(pairs)).items():
            parts[arm].append(evaluation.right)
    return {arm: np.concatenate(part, axis=1) for arm, part in parts.items()}


def all_sums_table(right: Mapping[str, Marks], trained_on: Mapping[str, Marks]) -> Table:
    """Exact match on all sums, on those trained on, and on the others."""
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


def with_longer_numbers(task: Addition) -> Addition:
    """The same task with one more digit, and without a file."""
    return replace(task, digits=task.digits + 1, file=None, sha256=None)


def longer_questions(task: Addition, n: int) -> Pairs:
    """At most `n` distinct questions with an operand of full length, the same at every call."""
    size = min(20 * n, max(1, task.distinct_questions // 2))  # drawing all would take long
    own = replace(task, splits="leak_free", train=1, dev=1, test=size)
    drawn = own.pairs(seed_key(0))["test"]
    return [p for p in drawn if max(len(str(x)) for x in operands(p[0])) == task.digits][:n]


def widened(trained: Trained) -> Trained:
    """The same models with rows that are wide enough for `with_longer_numbers`."""
    stacks = []
    for stack in trained.stacks:
        formatters = {}
        for arm, run in stack.runs.items():
            assert isinstance(run.task, Addition)
            widths = make_formatter(with_longer_numbers(run.task), run.text).widths
            formatters[arm] = stack.formatters[arm]._replace(widths=widths)
        widths = tuple(filter(None, (f.row_widths for f in formatters.values())))[:1]
        stacks.append(replace(stack, formatters=formatters, widths=widths))
    return replace(trained, stacks=tuple(stacks))


def worst_table(
    arm: str, answers: Answers, log_probs: Float[np.ndarray, "seeds n"], seed: int, n: int = 20
) -> Table:
    """The `n` questions that the fewest seeds get right, the least probable answers first.

    All seeds were asked the same questions. `log_probs` are those of the right answers; the table
    shows what the first seed, number `seed`, wrote.
    """
    seeds_right, likely = answers.right.sum(axis=0), log_probs.mean(axis=0)
    rows = []
    for i in np.lexsort((likely, seeds_right))[:n]:
        question, gold = answers.pairs[0][i]
        own, count = answers.texts[0][i] or "(nothing)", f"{seeds_right[i]} of {len(answers.right)}"
        rows.append((question, gold, count, own, f"{likely[i]:.2f}".replace("-", MINUS)))
    headers = ("question", "answer", "seeds right", f"seed {seed} wrote", "log p")
    note = (
        "log p: log probability of the right answer, its symbols given one by one, in nats; "
        "mean over seeds."
    )
    return Table(f"The worst questions of {arm}", headers, tuple(rows), note)
