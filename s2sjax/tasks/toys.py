"""Copy, reverse and sort strings: tasks whose difficulty is known, for tests and controls."""

from dataclasses import dataclass

import jax
import numpy as np

from s2sjax.errors import UserError
from s2sjax.taskconfig import Toy
from s2sjax.tasks.sampling import distinct, leak_free, require, shared_generator

_ALPHABET = "abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True)
class ToyTask:
    """Distinct strings, their length uniform in min_length .. max_length where enough exist."""

    config: Toy

    def __post_init__(self) -> None:
        c = self.config
        require((c.train, c.dev, c.test), self.distinct_strings, f"strings to {c.kind}")
        if c.longer:
            longer = c.symbols**self.source_width  # of the longest alone: enough in practice
            require((c.test,), longer, f"longer strings to {c.kind}")

    @property
    def characters(self) -> str:
        """The first letters of the alphabet, behind the space of justified strings."""
        return " " + _ALPHABET[: self.config.symbols]

    @property
    def source_width(self) -> int:
        """Length of the longest string."""
        return self.config.max_length + self.config.longer

    @property
    def target_width(self) -> int:
        """The same: every toy answer has its source's length."""
        return self.source_width

    @property
    def distinct_strings(self) -> int:
        """How many strings exist."""
        c = self.config
        return sum(c.symbols**length for length in range(c.min_length, c.max_length + 1))

    def splits(self, key: jax.Array) -> dict[str, list[tuple[str, str]]]:
        """Pairs of train, dev and test; dev and test are the same for every key."""
        c = self.config
        sizes = {"train": c.train, "dev": c.dev, "test": c.test}
        drawn = leak_free(self._draw, lambda source: source, sizes, key)
        if c.longer:
            rng, lengths = shared_generator(), (c.max_length + 1, self.source_width)
            drawn["test"] += distinct(lambda n: self._strings(rng, n, lengths), str, c.test, set())
        return {name: [(s, self.answer(s)) for s in rows] for name, rows in drawn.items()}

    def _draw(self, rng: np.random.Generator, size: int) -> list[str]:
        return self._strings(rng, size, (self.config.min_length, self.config.max_length))

    def _strings(
        self, rng: np.random.Generator, size: int, lengths_between: tuple[int, int]
    ) -> list[str]:
        """Random strings of lengths between two, both included."""
        shortest, longest = lengths_between
        letters = np.array(list(_ALPHABET[: self.config.symbols]))
        rows = letters[rng.integers(0, self.config.symbols, (size, longest))]
        lengths = rng.integers(shortest, longest + 1, size)
        return ["".join(row[:n]) for row, n in zip(rows, lengths, strict=True)]

    def answer(self, source: str) -> str:
        """The right answer; raises UserError for a string that is no question of this task."""
        c = self.config
        if unknown := set(source) - set(_ALPHABET[: c.symbols]):
            raise UserError(
                f"{source!r} has characters outside the alphabet: {''.join(sorted(unknown))!r}; "
                f"it is {_ALPHABET[: c.symbols]!r}"
            )
        if not c.min_length <= len(source) <= self.source_width:
            raise UserError(
                f"{source!r} has {len(source)} characters; "
                f"this run takes {c.min_length} to {self.source_width}"
            )
        return {"copy": source, "reverse": source[::-1], "sort": "".join(sorted(source))}[c.kind]
