"""Pairs of sentences, or of any strings, from files; the splits share no source."""

import gzip
import hashlib
import re
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import zip_longest
from pathlib import Path
from typing import Annotated, NamedTuple

import tyro

from s2sjax.data.words import Rules
from s2sjax.errors import UserError
from s2sjax.files import reading

Pair = tuple[str, str]

LINES_NAMED = 5  # line numbers that a summary gives for each reason


@dataclass(frozen=True)
class Sentences:
    """Pairs from files: 'ein Hund' -> 'a dog'.

    A file is UTF-8 text (or the same as .gz), a line SOURCE, one tab, TARGET; or it is two files
    with a comma between them, one of sources and one of targets, line by line.

    Every source of dev and test is asked once. If it has several targets, all are right answers;
    the loss is that of the first.
    """

    train: str = "train.tsv"  # Training pairs: a file, or two with a comma between them
    dev: str | None = None  # Pairs for the curves while training; None: some of the training file's
    test: str | None = None  # Pairs scored once, at the end; None takes some of the training file's
    columns: str | None = None  # Those of source and target, such as 1,2; None: a line has just two
    dev_share: float = 0.05  # Share of the training file's sources for dev, where it has no file
    test_share: float = 0.05  # The same for test
    stream: bool = False  # For files larger than memory: training text and rows stay on disk
    sha256: Annotated[str | None, tyro.conf.Suppress] = None
    """Hash of the files' content; `pinned` sets it, so that a run resumes with the same content."""

    def __post_init__(self) -> None:
        for name in ("train", "dev", "test"):
            given = getattr(self, name)
            if given is not None and not (len(files_of(given)) <= 2 and all(files_of(given))):
                right = "a file of pairs, or two with a comma between them"
                raise UserError(f"Sentences.{name} must be {right}, not {given!r}")
        for name in ("dev", "test"):
            share = getattr(self, f"{name}_share")
            if not 0 < share < 0.5:
                raise UserError(f"Sentences.{name}_share must be between 0 and 0.5, not {share}")
            if getattr(self, name) is not None and share != 0.05:
                raise UserError(f"Sentences.{name}_share: Sentences.{name} has a file of its own")
        number = " *[1-9][0-9]{0,3} *"
        if self.columns is not None and not re.fullmatch(f"{number},{number}", self.columns):
            right = "two numbers from 1 on, such as 1,2"
            raise UserError(f"Sentences.columns must be {right}, not {self.columns!r}")

    questions = "pairs from files"
    characters = source_width = target_width = sizes = None  # only the files tell

    def pinned(self) -> "Sentences":
        """These settings with the hash of their files' content; UserError if it has changed."""
        digest = hashlib.sha256()
        for part in filter(None, (self.train, self.dev, self.test)):
            for path in files_of(part):
                with reading(path), open(path, "rb") as file:
                    digest.update(hashlib.file_digest(file, "sha256").digest())
        if self.sha256 not in (None, digest.hexdigest()):
            files = f"{self.train} (or the dev or test file)"
            raise UserError(f"{files} is not as this run began with it: its content has changed")
        return replace(self, sha256=digest.hexdigest())

    def pairs(self, key: object = None) -> Mapping[str, Iterable[Pair]]:
        """Pairs of train, dev and test, the same for every key."""
        del key
        return self.corpus().splits

    def corpus(self) -> "Corpus":
        """The content of the files; read once."""
        return read_corpus(self.pinned() if self.sha256 is None else self)

    def answers(self, source: str) -> tuple[str, ...]:
        """The targets of a source in the dev, test or training pairs; UserError for none."""
        for answers in reversed(self.corpus().answers.values()):
            if source.strip() in answers:
                return answers[source.strip()]
        raise UserError(f"{source[:80]!r} is no source of this run's files")


class Corpus(NamedTuple):
    """The content of a task's files."""

    splits: Mapping[str, Iterable[Pair]]  # dev and test have every source once
    answers: dict[str, dict[str, tuple[str, ...]]]  # by split and source; not of a streamed train
    notes: Mapping[str, str]  # skipped lines, and sources that splits share


@lru_cache(maxsize=4)
def read_corpus(task: Sentences) -> Corpus:
    """Read and split the pairs of a task; a file that cannot be used is a UserError."""
    task.pinned()  # refuses files that have changed
    own = {name: file for name in ("dev", "test") if (file := getattr(task, name)) is not None}
    shares = {n: getattr(task, f"{n}_share") for n in ("dev", "test") if n not in own}
    train = PairFile(task.train, task.columns, shares)
    splits, summary = train.read(keep_train=not task.stream)
    notes = {"train": summary}
    for name, file in own.items():
        found, notes[name] = PairFile(file, task.columns).read()
        splits[name] = found["train"]
    answers = {}
    for name, pairs in splits.items():
        targets: dict[str, dict[str, None]] = {}
        for source, target in pairs:
            targets.setdefault(source, {})[target] = None
        answers[name] = {source: tuple(several) for source, several in targets.items()}
        if name != "train":
            splits[name] = [(source, several[0]) for source, several in answers[name].items()]
            if n := sum(len(several) > 1 for several in answers[name].values()):
                notes[f"{name} sources with several right answers"] = f"{n:,}"
    if own:
        types = {name: [source_type(source) for source, _ in splits[name]] for name in own}
        asked = set().union(*types.values())
        trained = asked.intersection(source_type(source) for source, _ in train)
        for name, of_split in types.items():
            if n := sum(one in trained for one in of_split):
                notes[f"{name} sources that are also trained on"] = f"{n:,} of {len(of_split):,}"
    return Corpus(splits | ({"train": train} if task.stream else {}), answers, notes)


def files_of(given: str) -> tuple[str, ...]:
    """The files that a setting names; the name of a file that exists may have a comma."""
    return (given,) if Path(given).exists() else tuple(map(str.strip, given.split(",")))


def source_type(source: str) -> str:
    """What equal sources have in common: the text composed, in small letters, without blanks."""
    return "".join(Rules().normalise(source).split())


class PairFile:
    """The pairs of a file, or of two; iterating reads the training pairs anew.

    The SHA-256 of a source's type, as a number from 0 to 1, decides its split: the lowest share is
    the test set, the next the dev set. Lines that are added or moved change no other line's split.
    `given` and `columns` are as in `Sentences`; `shares` are those of dev and test.
    """

    def __init__(
        self, given: str, columns: str | None = None, shares: Mapping[str, float] | None = None
    ):
        self._paths, self._shares = files_of(given), shares or {}
        self._name = " and ".join(self._paths)
        self._columns = tuple(int(n) - 1 for n in columns.split(",")) if columns else None

    def __iter__(self) -> Iterator[Pair]:
        pairs = (pair for pair in self._lines() if not isinstance(pair, str))
        return (pair for pair in pairs if self._split_of(pair[0]) == "train")

    def _split_of(self, source: str) -> str:
        if not self._shares:
            return "train"
        digest = hashlib.sha256(source_type(source).encode()).digest()
        place = int.from_bytes(digest[:8], "big") / 2**64
        if place < self._shares.get("test", 0.0):
            return "test"
        return "dev" if place < sum(self._shares.values()) else "train"

    def read(self, *, keep_train: bool = True) -> tuple[dict[str, list[Pair]], str]:
        """The pairs of every split, and a summary of skipped lines.

        Raises UserError for a file that cannot be read, and for a split without a pair.
        """
        splits: dict[str, list[Pair]] = {split: [] for split in ("train", *self._shares)}
        sizes, skipped = Counter[str](), dict[str, list[int]]()
        for number, pair in enumerate(self._lines(), start=1):
            if isinstance(pair, str):
                skipped.setdefault(pair, []).append(number)
                continue
            split = self._split_of(pair[0])
            sizes[split] += 1
            if keep_train or split != "train":
                splits[split].append(pair)
        summary = _summary(sizes.total(), skipped)
        if not sizes:
            two = len(self._paths) == 2
            right = "have text in both files" if two else "be SOURCE, one tab, TARGET"
            what, why = ("has no pair", f"; {summary}") if skipped else ("is empty", "")
            raise UserError(f"{self._name} {what}: a line must {right}{why}")
        for split in splits:
            if not sizes[split]:
                share = self._shares.get(split, 1 - sum(self._shares.values()))
                raise UserError(
                    f"{self._name} has no source for {split}, whose share is {share:.3g}: "
                    "give more sources, or another share"
                )
        return splits, summary

    def _lines(self) -> Iterator[Pair | str]:
        """The pair of every line, or why it has none."""
        for number, texts in enumerate(zip_longest(*map(_texts, self._paths)), start=1):
            if None in texts:
                raise UserError(f"{self._name} are not aligned: only one has a line {number:,}")
            yield _pair_of(texts if len(texts) == 2 else texts[0].split("\t"), self._columns)


def _summary(pairs: int, skipped: Mapping[str, Sequence[int]]) -> str:
    """One line: how many lines have no pair, why, and where the first are."""
    if not skipped:
        return f"{pairs:,} pairs, no line skipped"
    reasons = []
    for reason, lines in sorted(skipped.items(), key=lambda item: -len(item[1])):
        first = ", ".join(f"{line:,}" for line in lines[:LINES_NAMED])
        more = f" and {len(lines) - LINES_NAMED:,} more" if len(lines) > LINES_NAMED else ""
        reasons.append(f"{reason} ({'line' if len(lines) == 1 else 'lines'} {first}{more})")
    n = sum(map(len, skipped.values()))
    return f"{n:,} of {pairs + n:,} lines skipped: {'; '.join(reasons)}"


def _texts(path: str) -> Iterator[str]:
    """The lines of a file, without their ends and the byte-order mark."""
    number = 0
    try:
        with gzip.open(path) if path.endswith(".gz") else open(path, "rb") as file:
            for number, line in enumerate(file, start=1):
                text = line.decode()
                if "\0" in text:
                    raise ValueError("it has a zero byte")
                text = text.removesuffix("\n").removesuffix("\r")
                yield text.removeprefix("\ufeff") if number == 1 else text
    except ValueError as error:
        what = f"line {number:,} of {path} is no UTF-8 text ({error})"
        raise UserError(f"{what}: save it as UTF-8") from error
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{path} cannot be read: {reason}") from error


def _pair_of(columns: Sequence[str], chosen: Sequence[int] | None) -> Pair | str:
    """The pair in the columns of a line, without blanks around each side; or why it has none."""
    columns = [column.strip() for column in columns]
    if not any(columns):
        return "blank"
    if chosen is not None:
        if max(chosen) >= len(columns):
            return f"fewer than {max(chosen) + 1} columns"
        columns = [columns[i] for i in chosen]
    while len(columns) > 2 and not columns[-1]:  # a tab at the end of a line
        columns.pop()
    if len(columns) != 2:
        return "no tab" if len(columns) == 1 else "more than one tab, see Sentences.columns"
    if not all(columns):
        return "no target" if columns[0] else "no source"
    return columns[0], columns[1]
