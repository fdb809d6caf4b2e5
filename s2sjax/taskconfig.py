"""Settings of every task: what the questions are, and how many."""

from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from s2sjax.errors import UserError, at_least


@dataclass(frozen=True)
class Addition:
    """Sums written out in decimal: '27+5' -> '32'."""

    digits: int = 3
    """Most digits an operand has."""
    operands: Literal["uniform", "any_length", "short_first"] = "uniform"
    """uniform: each in 0 .. 10^digits - 1. any_length: first its number of digits is drawn, then
    every digit, leading zeros dropped (Keras, Saitoh). short_first: one in 0 .. 99, the others
    uniform, written in ascending order (Flax' seq2seq example)."""
    terms: int = 2
    """Operands in a question."""
    operator: Literal["+", "-"] = "+"
    """What stands between them; '-' subtracts every further operand from the first."""
    train: int = 5_000
    """Training questions."""
    dev: int = 1_000
    """Questions for the curves drawn while training."""
    test: int = 1_000
    """Questions scored once, at the end."""
    splits: Literal["independent", "leak_free"] = "leak_free"
    """independent: each seed draws all its questions with replacement (the notebook's way).
    leak_free: no question twice, also not with exchangeable operands swapped; dev and test are
    shared by every seed, training questions are each seed's own."""
    file: Annotated[str | None, tyro.conf.arg(aliases=["--data"])] = None
    """File with a line QUESTION_ANSWER for every training and test question, as Saitoh's
    addition.txt; split as he splits it, the same for every seed. Dev questions are drawn, none of
    them in the file. None draws all."""
    sha256: Annotated[str | None, tyro.conf.Suppress] = None
    """Hash of the file's content; set by the experiment, so that a run goes on with it only."""

    def __post_init__(self) -> None:
        """Refuse sizes that cannot be; how many distinct questions exist is the task's to check."""
        at_least(1, self, "train", "dev", "test")
        at_least(1, self, "digits", most=1_000)
        at_least(2, self, "terms", most=1_000)
        if self.operands == "short_first" and self.operator == "-":
            raise UserError("Addition.operands short_first sorts them: Addition.operator must be +")
        if self.file is not None and (self.splits, self.operator) != ("leak_free", "+"):
            raise UserError(
                "Addition.file holds distinct sums: Addition.splits must be leak_free, "
                "Addition.operator +"
            )


@dataclass(frozen=True)
class Toy:
    """Strings to copy, reverse or sort, all distinct: 'bca' -> 'bca' | 'acb' | 'abc'."""

    kind: Literal["copy", "reverse", "sort"] = "copy"
    """What the answer is."""
    symbols: int = 8
    """Size of the alphabet, from 'a' on."""
    min_length: int = 1
    """Shortest string, in characters."""
    max_length: int = 6
    """Longest string, in characters."""
    train: int = 2_000
    """Training strings."""
    dev: int = 200
    """Strings for the curves drawn while training."""
    test: int = 200
    """Strings scored once, at the end."""

    def __post_init__(self) -> None:
        """Refuse sizes that cannot be."""
        at_least(1, self, "symbols", "min_length", "train", "dev", "test")
        if self.symbols > 26:
            raise UserError(f"Toy.symbols must be at most 26 (a to z), not {self.symbols}")
        if self.max_length < self.min_length:
            raise UserError(
                f"Toy.max_length must be at least Toy.min_length = {self.min_length}, "
                f"not {self.max_length}"
            )
