"""Copy, reverse and sort strings: tasks of known difficulty, for tests and controls."""

import re
from dataclasses import dataclass
from functools import partial
from string import ascii_lowercase
from typing import Literal

import jax
import numpy as np
from numpy.random import Generator

from s2sjax.data import sampling
from s2sjax.data.sampling import Pairs, quoted
from s2sjax.errors import UserError, check_range


@dataclass(frozen=True)
class Toy:
    """Distinct strings to copy, reverse or sort: 'bca' -> 'bca' | 'acb' | 'abc'.

    Their length is uniform in min_length .. max_length where enough strings exist.
    """

    kind: Literal["copy", "reverse", "sort"] = "copy"  # What the answer is
    symbols: int = 8  # Size of the alphabet, from 'a' on: at most 26
    min_length: int = 1  # Shortest string, in characters
    max_length: int = 6  # Longest string, in characters
    longer: int = 0  # If not 0: `test` more test strings, by up to so many characters longer
    train: int = 2_000  # Training strings
    dev: int = 200  # Strings for the curves drawn while training
    test: int = 200  # Strings scored once, at the end

    def __post_init__(self) -> None:
        check_range(1, self, "min_length", "train", "dev", "test")
        check_range(1, self, "symbols", most=26)
        check_range(0, self, "longer", most=1_000)
        check_range(self.min_length, self, "max_length", most=1_000)
        existing = self._existing(self.min_length, self.max_length)
        sampling.require_enough(sampling.split_sizes(self), existing, self.questions)
        if self.longer:
            existing = self._existing(self.max_length + 1, self.source_width)
            sampling.require_enough({"test": self.test}, existing, f"longer {self.questions}")

    @property
    def questions(self) -> str:
        return f"strings to {self.kind}"

    @property
    def sizes(self) -> dict[str, int]:
        return sampling.split_sizes(self) | {"test": 2 * self.test if self.longer else self.test}

    @property
    def characters(self) -> str:
        return f" {self._alphabet}"  # the space of justified strings

    @property
    def source_width(self) -> int:
        return self.max_length + self.longer

    target_width = source_width

    @property
    def _alphabet(self) -> str:
        return ascii_lowercase[: self.symbols]

    def _existing(self, shortest: int, longest: int) -> int:
        return sum(self.symbols**length for length in range(shortest, longest + 1))

    def pinned(self) -> "Toy":
        return self

    def pairs(self, key: jax.Array) -> dict[str, Pairs]:
        sizes = sampling.split_sizes(self)
        scarce = self.symbols**self.min_length < sum(sizes.values())
        draw = partial(self._strings, self.min_length, self.max_length)
        drawn = sampling.leak_free(draw, list, sizes, key, pooled=scarce)
        if self.longer:
            draw = partial(self._strings, self.max_length + 1, self.source_width)
            rng = sampling.shared_generator()
            drawn["test"] += sampling.distinct(draw, list, self.test, rng, set())
        return {split: [(s, self.answers(s)[0]) for s in rows] for split, rows in drawn.items()}

    def _strings(self, shortest: int, longest: int, rng: Generator, size: int) -> list[str]:
        rows = np.array(list(self._alphabet))[rng.integers(0, self.symbols, (size, longest))]
        lengths = rng.integers(shortest, longest + 1, size)
        return ["".join(row[:n]) for row, n in zip(rows, lengths, strict=True)]

    def answers(self, source: str) -> tuple[str, ...]:
        shortest, longest = self.min_length, self.source_width
        if not re.fullmatch(f"[{self._alphabet}]{{{shortest},{longest}}}", source):
            raise UserError(
                f"{quoted(source)} is no question of this run: it takes {shortest} to {longest} "
                f"letters of {self._alphabet!r}"
            )
        answers = {"copy": source, "reverse": source[::-1], "sort": "".join(sorted(source))}
        return (answers[self.kind],)
