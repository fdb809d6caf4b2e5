"""Decimal addition and subtraction as text: '27+5' -> '32'.

Sources: the 'Learning seq2seq' notebook; Keras' ``addition_rnn``; Flax' ``seq2seq``; and K. Saitoh,
*Deep Learning from Scratch 2*, chapter 7. Saitoh's 50,000 questions are ``dataset/addition.txt`` of
oreilly-japan/deep-learning-from-scratch-2 (MIT licence); no copy is kept here.
"""

import hashlib
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import jax
import numpy as np
import tyro

from s2sjax.data import sampling
from s2sjax.data.sampling import Pairs, quoted
from s2sjax.errors import UserError, check_range
from s2sjax.files import reading

SHORT = 2  # most digits of the operand that `short_first` keeps short
SAITOH_SEED = 1984  # Saitoh shuffles his file's questions with NumPy's legacy generator
Operands = tuple[int, ...]


@dataclass(frozen=True)
class Addition:
    """Sums written out in decimal: '27+5' -> '32'."""

    digits: int = 3  # Most digits an operand has
    operands: Literal["uniform", "any_length", "short_first"] = "uniform"
    """uniform: each in 0 .. 10^digits - 1. any_length: first its number of digits is drawn, then
    every digit, leading zeros dropped (Keras, Saitoh). short_first: one in 0 .. 99, the others
    uniform, written in ascending order (Flax' seq2seq example)."""
    terms: int = 2  # Operands in a question
    operator: Literal["+", "-"] = "+"  # The sign between them; '-' subtracts all from the first
    train: int = 5_000  # Training questions
    dev: int = 1_000  # Questions for the curves drawn while training
    test: int = 1_000  # Questions scored once, at the end
    splits: Literal["independent", "leak_free"] = "leak_free"
    """independent: each seed draws all its questions, with replacement (as in the notebook).
    leak_free: no question occurs twice, nor with its operands swapped; all seeds share dev and
    test, each seed draws its training questions. Where few questions exist, seeds draw many of the
    same: of 3,000 sums of two digits two seeds share 85 %."""
    file: Annotated[str | None, tyro.conf.arg(aliases=["--data"])] = None
    """File of training and test questions, lines QUESTION_ANSWER, such as Saitoh's addition.txt,
    split as he does, the same for every seed. Dev questions are drawn, none of them in the file.
    None draws all."""
    sha256: Annotated[str | None, tyro.conf.Suppress] = None
    """Hash of the file's content; `pinned` sets it, so that a run resumes with the same content."""

    def __post_init__(self) -> None:
        check_range(1, self, "train", "dev", "test")
        check_range(1, self, "digits", most=1_000)
        check_range(2, self, "terms", most=1_000)
        if self.operands == "short_first" and self.operator == "-":
            raise UserError("Addition.operands short_first sorts them: Addition.operator must be +")
        if self.file is not None and (self.splits, self.operator) != ("leak_free", "+"):
            raise UserError(
                "Addition.file holds distinct sums: Addition.splits must be leak_free, "
                "Addition.operator +"
            )
        if self.file is None and self.splits == "leak_free":
            sampling.require_enough(self.sizes, self.distinct_questions, self.questions)

    @property
    def questions(self) -> str:
        return f"{self.terms}-term, {self.digits}-digit '{self.operator}' questions"

    sizes = property(sampling.split_sizes)

    @property
    def characters(self) -> str:
        return f" {self.operator}0123456789"  # the space of justified strings

    @property
    def source_width(self) -> int:
        return sum(self._digits) + self.terms - 1

    @property
    def target_width(self) -> int:
        if self.operator == "+":
            return len(str(sum(10**d - 1 for d in self._digits)))
        return max(self.digits, len(str((1 - self.terms) * (10**self.digits - 1))))

    @property
    def distinct_questions(self) -> int:
        """How many questions exist; those that only swap operands count once."""
        n, k = 10**self.digits, self.terms
        if self.operator == "-":
            return n * math.comb(n + k - 2, k - 1)
        long = n - 10 ** self._digits[0] if self.operands == "short_first" else 0
        return math.comb(n + k - 1, k) - math.comb(long + k - 1, k)

    @property
    def _digits(self) -> list[int]:
        """Most digits of each operand of a question, shortest first."""
        first = min(SHORT, self.digits) if self.operands == "short_first" else self.digits
        return [first] + [self.digits] * (self.terms - 1)

    def pinned(self) -> "Addition":
        return self if self.file is None else replace(self, sha256=self._read_file()[1])

    def pairs(self, key: jax.Array) -> dict[str, Pairs]:
        if self.file is not None:
            drawn = self._file_splits()
        elif self.splits == "leak_free":
            pooled = self.operands == "any_length"  # short numbers are the likelier ones
            drawn = sampling.leak_free(self._draw, self._canonical, self.sizes, key, pooled=pooled)
        else:
            rng = sampling.generator(key)
            drawn = {split: self._draw(rng, size) for split, size in self.sizes.items()}
        return {split: self._pairs(rows) for split, rows in drawn.items()}

    def answers(self, source: str) -> tuple[str, ...]:
        ((_, answer),) = self._pairs([self.operands_of(source)])
        return (answer,)

    def operands_of(self, source: str) -> Operands:
        """The operands of a question; UserError for a string that is none of this task."""
        refusal = f"{quoted(source)} is no question of this run:"
        operand = f"[0-9]{{1,{self.digits}}}"
        if not re.fullmatch(re.escape(self.operator).join([operand] * self.terms), source):
            example = self.operator.join("123456789"[:digits] for digits in self._digits)
            raise UserError(
                f"{refusal} it asks for {self.terms} numbers of at most {self.digits} digits "
                f"joined by '{self.operator}', such as {example}"
            )
        operands = tuple(map(int, source.split(self.operator)))
        fits = operands == tuple(sorted(operands)) and operands[0] <= 99
        if self.operands == "short_first" and not fits:
            raise UserError(f"{refusal} the first number is at most 99 and the smallest")
        return operands

    def _draw(self, rng: np.random.Generator, size: int) -> list[Operands]:
        digits = rng.integers(0, 10, (size, self.terms, self.digits))  # the units come first
        if self.operands == "any_length":
            lengths = rng.integers(1, self.digits + 1, (size, self.terms, 1))
            digits *= np.arange(self.digits) < lengths
        if self.operands == "short_first":
            digits[:, 0, SHORT:] = 0
        kind = np.int64 if self.digits <= 18 else object  # Python's integers have any size
        powers = np.array([10**i for i in range(self.digits)], dtype=kind)
        rows = (digits.astype(kind) @ powers).tolist()
        return [tuple(sorted(row) if self.operands == "short_first" else row) for row in rows]

    def _canonical(self, questions: Sequence[Operands]) -> Iterator[Operands]:
        """The same for questions that only swap operands; the first of a difference stays."""
        fixed = self.operator == "-"
        return ((*operands[:fixed], *sorted(operands[fixed:])) for operands in questions)

    def _pairs(self, questions: Sequence[Operands]) -> Pairs:
        join = self.operator.join
        if self.operator == "+":
            return [(join(map(str, operands)), str(sum(operands))) for operands in questions]
        return [(join(map(str, o)), str(2 * o[0] - sum(o))) for o in questions]

    def _read_file(self) -> tuple[list[Operands], str]:
        """The file's questions and its hash; UserError where it does not fit the settings."""
        with reading(str(self.file)):
            content = Path(str(self.file)).read_bytes()
        sha256 = hashlib.sha256(content).hexdigest()
        if self.sha256 not in (None, sha256):
            raise UserError(
                f"{self.file} is not as this run began with it: its content has changed"
            )
        found = []
        lines = content.decode("utf-8-sig", errors="replace").rstrip().splitlines()
        for number, line in enumerate(lines, start=1):
            question, _, answer = line.partition("_")
            try:
                found.append(self.operands_of(question.strip()))
            except UserError as error:
                raise UserError(f"line {number} of {self.file}: {error}") from error
            if answer.strip() != str(sum(found[-1])):
                right = "QUESTION_ANSWER with the right sum"
                raise UserError(f"line {number} of {self.file} must be {right}, not {quoted(line)}")
        test = len(found) // 10
        if not test:
            raise UserError(f"{self.file} has {len(found)} questions: too few to split")
        if (self.train, self.test) != (len(found) - test, test):
            raise UserError(
                f"{self.file} has {len(found):,} questions, of which the last tenth is the test "
                f"set: set Addition.train {len(found) - test} and Addition.test {test}"
            )
        if len(set(self._canonical(found))) < len(found):
            raise UserError(f"{self.file} has a question twice, or with its operands swapped")
        return found, sha256

    def _file_splits(self) -> dict[str, list[Operands]]:
        """The file's questions as Saitoh splits them, and dev questions that are not in it."""
        found, _ = self._read_file()
        left = self.distinct_questions - len(found)
        sampling.require_enough({"dev": self.dev}, left, f"{self.questions} outside the file")
        seen, rng = set(self._canonical(found)), sampling.shared_generator()
        dev = sampling.distinct(self._draw, self._canonical, self.dev, rng, seen)
        order = np.random.RandomState(SAITOH_SEED).permutation(len(found))
        shuffled = [found[i] for i in order.tolist()]
        return {"train": shuffled[: self.train], "dev": dev, "test": shuffled[self.train :]}
