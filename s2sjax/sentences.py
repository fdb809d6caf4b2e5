"""Sentence pairs from files: read, and split so that nothing leaks."""

import hashlib
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from s2sjax.errors import UserError
from s2sjax.files import reading
from s2sjax.words import Rules

Pairs = list[tuple[str, str]]
"""Source and target sentences."""

_NAMED = 5  # line numbers that a summary gives for a reason


class Corpus(NamedTuple):
    """What was read.

    Attributes:
        pairs: the sentence pairs in their order, without the blanks around each side.
        skipped: number, from 1, of each line that is no pair, and why.
    """

    pairs: Pairs
    skipped: list[tuple[int, str]]

    def summary(self) -> str:
        """One line: how many lines were no pairs, for which reasons, and where the first are."""
        if not self.skipped:
            return f"{len(self.pairs):,} pairs, no line skipped"
        reasons = []
        for reason, n in Counter(reason for _, reason in self.skipped).most_common():
            first = [f"{line:,}" for line, why in self.skipped if why == reason][:_NAMED]
            more = f" and {n - _NAMED:,} more" if n > _NAMED else ""
            lines = "line" if n == 1 else "lines"
            reasons.append(f"{reason} ({lines} {', '.join(first)}{more})")
        total = len(self.pairs) + len(self.skipped)
        return f"{len(self.skipped):,} of {total:,} lines skipped: {'; '.join(reasons)}"


def pair_of(columns: Sequence[str]) -> tuple[str, str] | str:
    """The pair in the columns of a line, without the blanks around each side; or why it is none."""
    columns = [column.strip() for column in columns]
    if not any(columns):
        return "blank"
    if len(columns) != 2:
        return "no tab" if len(columns) == 1 else "more than one tab"
    if not all(columns):
        return "no target" if columns[0] else "no source"
    return columns[0], columns[1]


def read_pairs(path: str) -> Corpus:
    """Sentence pairs of a UTF-8 file of two columns: SOURCE, one tab, TARGET.

    A line ends at a line feed, or a carriage return and a line feed, and at nothing else. A
    byte-order mark does not matter. Blank lines and lines that are no pair are skipped.

    Raises:
        UserError: the file cannot be read, is no UTF-8 text, or has no pair.
    """
    lines = [line.split("\t") for line in _lines(path)]
    return _corpus(lines, path, "a line must be SOURCE, one tab, TARGET")


def read_aligned(source_path: str, target_path: str) -> Corpus:
    """Sentence pairs of two UTF-8 files, each line of one the translation of the other's.

    Lines are as in `read_pairs`. A line that is blank in one file is skipped in both.

    Raises:
        UserError: a file cannot be read, is no UTF-8 text, or has another number of lines than the
            other; or no line is a pair.
    """
    sources, targets = _lines(source_path), _lines(target_path)
    if len(sources) != len(targets):
        raise UserError(
            f"{source_path} has {len(sources):,} lines and {target_path} {len(targets):,}: "
            "each line of one must be the translation of the same line of the other"
        )
    pairs = [list(pair) for pair in zip(sources, targets, strict=True)]
    return _corpus(pairs, f"{source_path} with {target_path}", "a line must have text in both")


def _lines(path: str) -> list[str]:
    """The lines of a UTF-8 file, without their ends; raises UserError where it is none."""
    with reading(path):
        content = Path(path).read_bytes()
    try:
        text, fault = content.decode("utf-8"), content.find(b"\0")
    except UnicodeDecodeError as error:
        text, fault = "", error.start
    if fault >= 0:
        line = content.count(b"\n", 0, fault) + 1
        raise UserError(
            f"{path} is no UTF-8 text: byte {fault + 1:,}, in line {line:,}, is "
            f"0x{content[fault]:02x}; save it as UTF-8"
        )
    lines = text.removeprefix("\ufeff").split("\n")
    if not lines[-1]:
        lines.pop()
    return [line.removesuffix("\r") for line in lines]


def _corpus(lines: Sequence[Sequence[str]], where: str, right: str) -> Corpus:
    """Lines of columns to pairs; raises UserError, which says what is right, if there are none."""
    found = [pair_of(columns) for columns in lines]
    corpus = Corpus(
        [pair for pair in found if not isinstance(pair, str)],
        [(number, why) for number, why in enumerate(found, start=1) if isinstance(why, str)],
    )
    if not lines:
        raise UserError(f"{where} is empty: {right}")
    if not corpus.pairs:
        raise UserError(f"{where} has no sentence pair: {right}; {corpus.summary()}")
    return corpus


def source_type(source: str) -> str:
    """What equal sources have in common, whichever rules read them.

    The sentence composed, in small letters, without blanks: "Don't" and "don ' t" are one type.
    """
    return "".join(Rules().normalise(source).split())


class Split(NamedTuple):
    """Pairs of train, dev and test.

    Attributes:
        parts: the pairs of "train", "dev" and "test", each in the order they were given in.
        duplicates: how many pairs were left out because they had been there before.
    """

    parts: dict[str, Pairs]
    duplicates: int


def split(pairs: Sequence[tuple[str, str]], dev_share: float, test_share: float) -> Split:
    """Split sentence pairs by source type: equal sources are never on two sides.

    The side is a function of the source alone: of its type's SHA-256, as a number from 0 to 1, the
    lowest `test_share` is the test set and the next `dev_share` the dev set. So a split survives
    another order and another machine, and lines that are added move none of the others. The shares
    are of types, and met as closely as chance has it. A pair that occurs again is left out.

    Raises:
        UserError: the shares leave nothing to train on, or a part that was asked for is empty.
    """
    if not (dev_share >= 0 and test_share >= 0 and dev_share + test_share < 1):
        raise UserError(
            f"dev_share {dev_share} and test_share {test_share} must be at least 0 and "
            "below 1 together"
        )
    ends = {"test": test_share, "dev": test_share + dev_share, "train": math.inf}
    shares = {"train": 1 - dev_share - test_share, "dev": dev_share, "test": test_share}
    parts: dict[str, Pairs] = {name: [] for name in shares}
    for pair in dict.fromkeys(pairs):
        place = _place(pair[0])
        parts[next(name for name, end in ends.items() if place < end)].append(pair)
    for name, share in shares.items():
        if share and not parts[name]:
            raise UserError(
                f"of {len(pairs):,} pairs none falls to {name}, whose share is {share:.3g}: "
                "give more pairs or another share"
            )
    return Split(parts, len(pairs) - sum(map(len, parts.values())))


def _place(source: str) -> float:
    """A number from 0 to 1 that is drawn by the source's type alone."""
    digest = hashlib.sha256(source_type(source).encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64
