"""What a task is: settings that make pairs of strings, split without leaks."""

from collections.abc import Iterable, Mapping
from typing import Protocol, runtime_checkable

import jax

from s2sjax.data.addition import Addition
from s2sjax.data.dates import Dates
from s2sjax.data.sampling import Pairs
from s2sjax.data.sentences import Sentences
from s2sjax.data.toys import Toy

__all__ = ["Addition", "Dates", "Pairs", "Sentences", "Task", "TaskConfig", "Toy"]

TaskConfig = Addition | Toy | Dates | Sentences


@runtime_checkable
class Task(Protocol):
    """What every task offers, also one from outside this package: a frozen dataclass of settings.

    Sizes that cannot be raise UserError when it is built; files and packages when first used.
    """

    @property
    def sizes(self) -> Mapping[str, int] | None:
        """How many pairs every split has; None where only the files tell: all seeds share them."""

    @property
    def characters(self) -> str | None:
        """All characters of its strings; None where only the pairs tell."""

    @property
    def source_width(self) -> int | None:
        """Characters of the longest source; None where only the pairs tell."""

    @property
    def target_width(self) -> int | None:
        """Characters of the longest target; None where only the pairs tell."""

    @property
    def questions(self) -> str:
        """What is asked, in words."""

    def pinned(self) -> "Task":
        """The task with the hash of its files' content; itself where it reads none."""

    def pairs(self, key: jax.Array) -> Mapping[str, Iterable[tuple[str, str]]]:
        """Pairs of the splits train, dev and test: a pure function of the settings and the key."""

    def answers(self, source: str) -> tuple[str, ...]:
        """All right answers; raises UserError for a string that is no question of this task."""
