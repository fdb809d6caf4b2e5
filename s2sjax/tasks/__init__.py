"""Tasks: a config and a key to text pairs, split without leaks."""

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

import jax

from s2sjax.taskconfig import Addition, Dates, NumberWords, TaskConfig, Toy
from s2sjax.tasks.addition import AdditionTask
from s2sjax.tasks.dates import DatesTask
from s2sjax.tasks.numbers import NumberWordsTask
from s2sjax.tasks.toys import ToyTask

Pairs = list[tuple[str, str]]
"""Source and target strings."""


@runtime_checkable
class Task(Protocol):
    """What a task offers; widths are in characters."""

    @property
    def characters(self) -> str:
        """The characters its strings are made of."""
        ...

    @property
    def source_width(self) -> int:
        """Length of the longest source."""
        ...

    @property
    def target_width(self) -> int:
        """Length of the longest target."""
        ...

    def splits(self, key: jax.Array) -> Mapping[str, Pairs]:
        """Pairs of the splits train, dev and test: a pure function of the config and the key."""
        ...

    def answer(self, source: str) -> str:
        """The right answer; raises UserError for a string that is no question of this task."""
        ...


def make_task(config: TaskConfig) -> Task:
    """The task that `config` describes; raises UserError where it cannot be."""
    match config:
        case Addition():
            return AdditionTask(config)
        case Toy():
            return ToyTask(config)
        case Dates():
            return DatesTask(config)
        case NumberWords():
            return NumberWordsTask(config)
