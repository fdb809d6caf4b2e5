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


@runtime_checkable
class Task(Protocol):
    """A task, also one of your own: a frozen dataclass of settings with these members.

    What only the pairs tell is None.
    """

    questions: str  # in words, such as "dates"
    sizes: Mapping[str, int] | None  # pairs of each split; None: read from files
    characters: str | None  # of all strings
    source_width: int | None  # characters of the longest source
    target_width: int | None  # characters of the longest target

    def pinned(self) -> "Task":
        """The task with the hash of its files' content, if it reads files."""

    def pairs(self, key: jax.Array) -> Mapping[str, Iterable[tuple[str, str]]]:
        """Pairs of the splits train, dev and test: a pure function of the settings and the key."""

    def answers(self, source: str) -> tuple[str, ...]:
        """All right answers; raises UserError for a string that is no question of this task."""


TaskConfig = Addition | Toy | Dates | Sentences | Task
