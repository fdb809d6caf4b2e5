"""A file of questions: the data set of K. Saitoh, *Deep Learning from Scratch 2*, chapter 7.

Every line is QUESTION_ANSWER, both filled with spaces on the right: ``16+75  _91  ``. His 50,000
questions are ``dataset/addition.txt`` of the book's repository, oreilly-japan/deep-learning-from-
scratch-2 (MIT licence); no copy is kept here.
"""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

from s2sjax.errors import UserError
from s2sjax.files import reading

T = TypeVar("T")

SAITOH_SEED = 1984
"""Of NumPy's legacy generator, which shuffles his questions."""


def file_hash(path: str) -> str:
    """SHA-256 of a file's content; raises UserError where it cannot be read."""
    return hashlib.sha256(_read(path)).hexdigest()


def _read(path: str) -> bytes:
    with reading(path):
        return Path(path).read_bytes()


def quoted(text: str) -> str:
    """A string as an error shows it: cut, because what is no text may have no line ends."""
    return repr(text if len(text) <= 80 else f"{text[:79]}…")


def read_questions(
    path: str, sha256: str | None, operands_of: Callable[[str], tuple[int, ...]]
) -> list[tuple[int, ...]]:
    """Operands of every question of a file, in its order.

    A byte-order mark, Windows line ends and blank lines at the end do not matter.

    Args:
        path: the file.
        sha256: of the content it must have; None takes any.
        operands_of: a question to its operands; raises UserError for what is none.

    Raises:
        UserError: the file cannot be read, is another than it was, or has a line that is no
            question with its right answer; names the first.
    """
    content = _read(path)
    if sha256 not in (None, hashlib.sha256(content).hexdigest()):
        raise UserError(f"{path} is not the file this run began with: its content has changed")
    found = []
    lines = content.decode("utf-8-sig", errors="replace").rstrip().splitlines()
    for number, line in enumerate(lines, start=1):
        question, _, answer = line.partition("_")
        try:
            terms = operands_of(question.strip())
        except UserError as error:
            raise UserError(f"line {number} of {path}: {error}") from error
        if answer.strip() != str(sum(terms)):
            raise UserError(
                f"line {number} of {path} must be QUESTION_ANSWER with the right sum, "
                f"not {quoted(line)}"
            )
        found.append(terms)
    if len(found) < 10:
        raise UserError(f"{path} has {len(found)} questions: too few to split")
    return found


def saitoh_split(questions: Sequence[T]) -> tuple[list[T], list[T]]:
    """Train and test questions as his code splits them: shuffled, the last tenth is the test."""
    order = np.arange(len(questions))
    np.random.RandomState(SAITOH_SEED).shuffle(order)
    shuffled = [questions[i] for i in order.tolist()]
    end = len(questions) - len(questions) // 10
    return shuffled[:end], shuffled[end:]
