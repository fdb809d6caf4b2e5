"""A task: settings that make pairs of strings, split without leaks."""

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
    """A task, also one of your own: a frozen dataclass of settings with these members."""

    @property
    def sizes(self) -> Mapping[str, int] | None:
        """Pairs of every split; None where files decide, and all seeds share the pairs."""

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
        """The questions, in words."""

    def pinned(self) -> "Task":
        """The task with the hash of its files' content, if it reads files."""

    def pairs(self, key: jax.Array) -> Mapping[str, Iterable[tuple[str, str]]]:
        """Pairs of the splits train, dev and test: a pure function of the settings and the key."""

    def answers(self, source: str) -> tuple[str, ...]:
        """All right answers; raises UserError for a string that is no question of this task."""
