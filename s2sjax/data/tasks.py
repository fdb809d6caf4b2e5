"""A task: settings that make pairs of strings, split without leaks."""

from abc import abstractmethod
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
    """A task; one of your own is a frozen dataclass with this as its base.

    The defaults are those of pairs that all seeds share, as pairs from a file.
    """

    questions: str = "questions"  # what they are, in words, such as "dates"
    sizes: Mapping[str, int] | None = None  # pairs of each split, where seeds draw their own
    characters: str | None = None  # of all strings; None: those of the training pairs
    source_width: int | None = None  # characters of the longest source; None: as the pairs have
    target_width: int | None = None  # characters of the longest target

    def pinned(self) -> "Task":
        """The task with the hash of its files' content, if it reads files."""
        return self

    @abstractmethod
    def pairs(self, key: jax.Array) -> Mapping[str, Iterable[tuple[str, str]]]:
        """Pairs of the splits train, dev and test: a pure function of the settings and the key."""

    @abstractmethod
    def answers(self, source: str) -> tuple[str, ...]:
        """All right answers; raises UserError for a string that is no question of this task."""


TaskConfig = Addition | Toy | Dates | Sentences | Task
