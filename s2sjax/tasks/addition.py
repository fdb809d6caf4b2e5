"""Decimal addition and subtraction as text: '27+5' -> '32'.

Sources: the 'Learning seq2seq' notebook and Keras' ``addition_rnn``.
"""

import math
import re
from collections.abc import Hashable
from dataclasses import dataclass

import jax
import numpy as np

from s2sjax.errors import UserError
from s2sjax.taskconfig import Addition
from s2sjax.tasks.questions import quoted, read_questions, saitoh_split
from s2sjax.tasks.sampling import distinct, generator, leak_free, require, shared_generator

SHORT = 2
"""Most digits of the operand that `short_first` keeps short."""


@dataclass(frozen=True)
class AdditionTask:
    """Questions of `terms` operands of at most `digits` digits."""

    config: Addition

    def __post_init__(self) -> None:
        c = self.config
        if c.file is not None:
            self._in_file()
        elif c.splits == "leak_free":
            require((c.train, c.dev, c.test), self.distinct_questions, f"{self.what} questions")

    @property
    def what(self) -> str:
        """The questions in words."""
        c = self.config
        return f"{c.terms}-term, {c.digits}-digit '{c.operator}'"

    @property
    def characters(self) -> str:
        """The space of justified strings, the operator, the ten digits."""
        return f" {self.config.operator}0123456789"

    @property
    def source_width(self) -> int:
        """Length of the longest question."""
        return sum(self._digits) + self.config.terms - 1

    @property
    def target_width(self) -> int:
        """Length of the longest answer, its sign included."""
        c, largest = self.config, 10**self.config.digits - 1
        if c.operator == "+":
            return len(str(sum(10**d - 1 for d in self._digits)))
        return max(c.digits, len(str(-(c.terms - 1) * largest)))

    @property
    def distinct_questions(self) -> int:
        """How many questions exist, those that only swap exchangeable operands counted once.

        All operands of a sum are exchangeable; of a difference all but the first.
        """
        n, k = 10**self.config.digits, self.config.terms
        if self.config.operator == "-":
            return n * math.comb(n + k - 2, k - 1)
        short = 10 ** self._digits[0] if self.config.operands == "short_first" else n
        return math.comb(n + k - 1, k) - (math.comb(n - short + k - 1, k) if n > short else 0)

    @property
    def _digits(self) -> list[int]:
        """Most digits of each operand of a question, shortest first."""
        c = self.config
        first = min(SHORT, c.digits) if c.operands == "short_first" else c.digits
        return [first] + [c.digits] * (c.terms - 1)

    def splits(self, key: jax.Array) -> dict[str, list[tuple[str, str]]]:
        """Pairs of train, dev and test: see `Addition.splits` for what they share."""
        c = self.config
        sizes = {"train": c.train, "dev": c.dev, "test": c.test}
        if c.file is not None:
            drawn = self._from_file()
        elif c.splits == "leak_free":
            pooled = c.operands == "any_length"  # short numbers are the likelier ones
            drawn = leak_free(self._draw, self._identity, sizes, key, pooled=pooled)
        else:
            rng = generator(key)
            drawn = {name: self._draw(rng, size) for name, size in sizes.items()}
        return {name: [self._pair(terms) for terms in rows] for name, rows in drawn.items()}

    def _draw(self, rng: np.random.Generator, size: int) -> list[tuple[int, ...]]:
        """Operands of `size` questions, drawn with replacement.

        Drawn digit by digit and put together as Python integers, so that any number of digits fits.
        """
        c = self.config
        digits = rng.integers(0, 10, (size, c.terms, c.digits))
        if c.operands == "any_length":
            lengths = rng.integers(1, c.digits + 1, (size, c.terms, 1))
            digits *= np.arange(c.digits) < lengths  # the units come first
        if c.operands == "short_first":
            digits[:, 0, SHORT:] = 0
        powers = np.array([10**i for i in range(c.digits)], dtype=object)
        rows = (digits.astype(object) @ powers).tolist()
        return [tuple(sorted(row) if c.operands == "short_first" else row) for row in rows]

    def _in_file(self) -> list[tuple[int, ...]]:
        """Operands of the file's questions; raises UserError where they are not this task's."""
        c = self.config
        found = read_questions(str(c.file), c.sha256, self.operands_of)
        held_out = len(found) // 10
        if (c.train, c.test) != (len(found) - held_out, held_out):
            raise UserError(
                f"{c.file} has {len(found):,} questions, of which the last tenth is the test set: "
                f"set Addition.train {len(found) - held_out} and Addition.test {held_out}"
            )
        if len({self._identity(terms) for terms in found}) < len(found):
            raise UserError(f"{c.file} has a question twice, or with its operands swapped")
        return found

    def _from_file(self) -> dict[str, list[tuple[int, ...]]]:
        """The file's questions, split, and dev questions that are not in it."""
        found = self._in_file()
        train, test = saitoh_split(found)
        seen, rng = {self._identity(terms) for terms in found}, shared_generator()
        require((self.config.dev,), self.distinct_questions - len(seen), f"{self.what} questions")
        dev = distinct(lambda n: self._draw(rng, n), self._identity, self.config.dev, seen)
        return {"train": train, "dev": dev, "test": test}

    def _identity(self, terms: tuple[int, ...]) -> Hashable:
        """Equal for questions that only swap exchangeable operands."""
        fixed = 0 if self.config.operator == "+" else 1
        return (*terms[:fixed], *sorted(terms[fixed:]))

    def _pair(self, terms: tuple[int, ...]) -> tuple[str, str]:
        question = self.config.operator.join(map(str, terms))
        return question, str(self._value(terms))

    def _value(self, terms: tuple[int, ...]) -> int:
        rest = sum(terms[1:])
        return terms[0] + rest if self.config.operator == "+" else terms[0] - rest

    def answer(self, source: str) -> str:
        """The right answer; raises UserError for a string that is no question of this task."""
        return self._pair(self.operands_of(source))[1]

    def operands_of(self, source: str) -> tuple[int, ...]:
        """The operands; raises UserError for a string that is no question of this task."""
        c = self.config
        operand = f"[0-9]{{1,{c.digits}}}"
        pattern = re.escape(c.operator).join([operand] * c.terms)
        if not re.fullmatch(pattern, source):
            example = c.operator.join("123456789"[:digits] for digits in self._digits)
            raise UserError(
                f"{quoted(source)} is no question of this run: it asks for {c.terms} numbers of "
                f"at most {c.digits} digits joined by '{c.operator}', such as {example}"
            )
        terms = tuple(int(t) for t in source.split(c.operator))
        if c.operands == "short_first" and (list(terms) != sorted(terms) or terms[0] > 99):
            raise UserError(
                f"{quoted(source)} is no question of this run: the first number is at most 99 and "
                "the smallest"
            )
        return terms
