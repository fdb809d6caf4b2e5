"""Decimal addition and subtraction as text: '27+5' -> '32'.

Sources: the 'Learning seq2seq' notebook and Keras' ``addition_rnn``.
"""

import math
import re
from collections.abc import Hashable
from dataclasses import dataclass

import jax
import numpy as np

from s2sjax.config import Addition
from s2sjax.errors import UserError
from s2sjax.tasks.sampling import generator, leak_free, require


@dataclass(frozen=True)
class AdditionTask:
    """Questions of `terms` operands, each uniform in 0 .. 10^digits - 1."""

    config: Addition

    def __post_init__(self) -> None:
        c = self.config
        if c.splits == "leak_free":
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
        return self.config.terms * (self.config.digits + 1) - 1

    @property
    def target_width(self) -> int:
        """Length of the longest answer, its sign included."""
        c, largest = self.config, 10**self.config.digits - 1
        if c.operator == "+":
            return len(str(c.terms * largest))
        return max(c.digits, len(str(-(c.terms - 1) * largest)))

    @property
    def distinct_questions(self) -> int:
        """How many questions exist, those that only swap exchangeable operands counted once.

        All operands of a sum are exchangeable; of a difference all but the first.
        """
        n, k = 10**self.config.digits, self.config.terms
        if self.config.operator == "+":
            return math.comb(n + k - 1, k)
        return n * math.comb(n + k - 2, k - 1)

    def splits(self, key: jax.Array) -> dict[str, list[tuple[str, str]]]:
        """Pairs of train, dev and test: see `Addition.splits` for what they share."""
        c = self.config
        sizes = {"train": c.train, "dev": c.dev, "test": c.test}
        if c.splits == "leak_free":
            drawn = leak_free(self._draw, self._identity, sizes, key)
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
        powers = np.array([10**i for i in range(c.digits)], dtype=object)
        return [tuple(row) for row in (digits.astype(object) @ powers).tolist()]

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
        c = self.config
        operand = f"[0-9]{{1,{c.digits}}}"
        pattern = re.escape(c.operator).join([operand] * c.terms)
        if not re.fullmatch(pattern, source):
            example = c.operator.join("123456789"[: c.digits] for _ in range(c.terms))
            raise UserError(
                f"{source!r} is no question of this run: it asks for {c.terms} numbers of at most "
                f"{c.digits} digits joined by '{c.operator}', such as {example}"
            )
        return self._pair(tuple(int(t) for t in source.split(c.operator)))[1]
