"""Sentence pairs, or any pairs of strings, from files: read, and split so that nothing leaks."""

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

_LINES_NAMED = 5  # line numbers that a summary gives for a reason


@dataclass(frozen=True)
class Sentences:
    """Pairs from files: 'ein Hund' -> 'a dog'.

    A file is UTF-8 text (or the same as .gz), a line SOURCE, one tab, TARGET; or it is two files
    with a comma between them, one of sources and one of targets, line by line.

    Every dev or test source is asked once. Where its file has several targets for it, all of them
    are right answers; losses are those of the first.
    """

    train: str = "train.tsv"
    """Training pairs: a file, or two with a comma between them."""
    dev: str | None = None
    """Pairs for the curves drawn while training; None takes some of the training file's."""
    test: str | None = None
    """Pairs scored once, at the end; None takes some of the training file's."""
    columns: str | None = None
    """Which columns of a line are source and target, such as 1,2; None: a line has just two."""
    dev_share: float = 0.05
    """Share of the training file's sources that dev takes where it has no file. No source is on two
    sides."""
    test_share: float = 0.05
    """The same for test."""
    stream: bool = False
    """For files larger than memory: the training text stays on disk. It is read a few times at the
    start, and its rows of ids are memory-mapped."""
    sha256: Annotated[str | None, tyro.conf.Suppress] = None
    """Hash of the files' content; set by the experiment, so that a run goes on with them only."""

    def __post_init__(self) -> None:
        for name in ("train", "dev", "test"):
            if (given := getattr(self, name)) is not None and "" in files_of(given):
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

    characters = source_width = target_width = sizes = None  # only the files tell

    @property
    def questions(self) -> str:
        """What is asked, in words."""
        return "pairs from files"

    def pinned(self) -> "Sentences":
        """These settings with the hash of their files' content, which may not have changed."""
        digest = hashlib.sha256()
        for part in (self.train, self.dev, self.test):
            for path in files_of(part) if part else ():
                if not Path(path).is_file() and Path(path).exists():
                    raise UserError(f"{path} is no regular file: pairs are read more than once")
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
        """All that the files hold; read once."""
        return corpus(self.pinned() if self.sha256 is None else self)

    def answers(self, source: str) -> tuple[str, ...]:
        """The targets that dev, test or training pairs have for a source; UserError for none."""
        for answers in reversed(self.corpus().answers.values()):
            if source.strip() in answers:
                return answers[source.strip()]
        raise UserError(f"{source[:80]!r} is no source of this run's files")


class Corpus(NamedTuple):
    """What was read."""

    splits: Mapping[str, Iterable[Pair]]  # dev and test have a source once
    answers: dict[str, dict[str, tuple[str, ...]]]  # by split and source; of a stream not train's
    notes: Mapping[str, str]  # what was skipped, and sources that splits share


@lru_cache(maxsize=4)
def corpus(task: Sentences) -> Corpus:
    """Read and split the pairs of a task; a file that cannot be used is a UserError."""
    task.pinned()  # refuses files that have changed
    own = {name: file for name in ("dev", "test") if (file := getattr(task, name)) is not None}
    shares = {n: getattr(task, f"{n}_share") for n in ("dev", "test") if n not in own}
    train = PairFile(task.train, task.columns, shares)
    splits, summary = train.read(keep_train=not task.stream)
    notes, answers = {"train": summary}, dict[str, dict[str, tuple[str, ...]]]()
    for name, file in own.items():
        found, notes[name] = PairFile(file, task.columns).read()
        splits[name] = found["train"]
    for name, pairs in splits.items():
        targets: dict[str, list[str]] = {}
        for source, target in pairs:
            targets.setdefault(source, []).append(target)
        answers[name] = {source: tuple(dict.fromkeys(some)) for source, some in targets.items()}
        if name != "train":
            splits[name] = [(source, some[0]) for source, some in targets.items()]
            if several := sum(len(set(some)) > 1 for some in targets.values()):
                notes[f"{name} sources with several right answers"] = f"{several:,}"
    types = {name: [source_type(source) for source, _ in splits[name]] for name in own}
    asked = set().union(*types.values())
    trained = {t for source, _ in train if (t := source_type(source)) in asked} if own else set()
    for name, some in types.items():
        if n := sum(t in trained for t in some):
            notes[f"{name} sources that are also trained on"] = f"{n:,} of {len(some):,}"
    return Corpus(splits | ({"train": train} if task.stream else {}), answers, notes)


def files_of(given: str) -> tuple[str, ...]:
    """The one or two files of a setting; an empty name stands for what is wrong with it."""
    if Path(given).exists():  # its own name may have a comma
        return (given,)
    names = tuple(name.strip() for name in given.split(","))
    return names if len(names) <= 2 else ("",)


def source_type(source: str) -> str:
    """What equal sources have in common, whichever rules read them.

    The sentence composed, in small letters, without blanks: "Don't" and "don ' t" are one type.
    """
    return "".join(Rules().normalise(source).split())


class PairFile:
    """The pairs of a file, or of two: read anew whenever they are iterated, dev and test left out.

    Which split a pair belongs to is a function of its source alone: of its type's SHA-256, as a
    number from 0 to 1, the lowest share is the test set and the next the dev set. So a split
    survives another order and another machine, and lines that are added move none of the others.
    `given` and `columns` are as in `Sentences`; `shares` of dev and test, if the file has them too.
    """

    def __init__(
        self, given: str, columns: str | None = None, shares: Mapping[str, float] | None = None
    ):
        self._paths, self._shares = files_of(given), shares or {}
        self._columns = tuple(int(n) - 1 for n in columns.split(",")) if columns else None

    def __iter__(self) -> Iterator[Pair]:
        return (pair for pair in self._pairs() if self._split_of(pair[0]) == "train")

    def _split_of(self, source: str) -> str:
        if not self._shares:
            return "train"
        digest = hashlib.sha256(source_type(source).encode()).digest()
        place = int.from_bytes(digest[:8], "big") / 2**64
        if place < self._shares.get("test", 0.0):
            return "test"
        return "dev" if place < sum(self._shares.values()) else "train"

    def read(self, *, keep_train: bool = True) -> tuple[dict[str, list[Pair]], str]:
        """The pairs of every split, those of train only if asked for; in words, what was skipped.

        A file that cannot be read, or a split without a pair, is a UserError.
        """
        splits: dict[str, list[Pair]] = {split: [] for split in ("train", *self._shares)}
        sizes, skipped = Counter[str](), []
        for number, pair in self._lines():
            if isinstance(pair, str):
                skipped.append((number, pair))
                continue
            split = self._split_of(pair[0])
            sizes[split] += 1
            if keep_train or split != "train":
                splits[split].append(pair)
        name, summary = " and ".join(self._paths), _summary(sizes.total(), skipped)
        if not sizes:
            right = "be SOURCE, one tab, TARGET"
            if len(self._paths) == 2:
                right = "have text in both files"
            what = "has no pair" if skipped else "is empty"
            why = f"; {summary}" if skipped else ""
            raise UserError(f"{name} {what}: a line must {right}{why}")
        for split in splits:
            if not sizes[split]:
                kinds = len({source_type(source) for source, _ in self._pairs()})
                share = self._shares.get(split, 1 - sum(self._shares.values()))
                raise UserError(
                    f"{name} has {kinds:,} distinct source{'s' * (kinds != 1)}, and none falls to "
                    f"{split}, whose share is {share:.3g}: give more sources, or another share"
                )
        return splits, summary

    def _pairs(self) -> Iterator[Pair]:
        return (pair for _, pair in self._lines() if not isinstance(pair, str))

    def _lines(self) -> Iterator[tuple[int, Pair | str]]:
        """The number of every line, and its pair or why it is none."""
        names = " and ".join(self._paths)
        for number, lines in enumerate(zip_longest(*map(_raw_lines, self._paths)), start=1):
            if None in lines:
                raise UserError(f"{names} are not aligned: only one has a line {number:,}")
            texts = [_decoded(line, number, names) for line in lines]
            columns = texts[0].split("\t") if len(texts) == 1 else texts
            yield number, _pair_of(columns, self._columns)


def _summary(pairs: int, skipped: Sequence[tuple[int, str]]) -> str:
    """One line: how many lines were no pairs, for which reasons, and where the first are."""
    if not skipped:
        return f"{pairs:,} pairs, no line skipped"
    reasons = []
    for reason, n in Counter(reason for _, reason in skipped).most_common():
        first = [f"{line:,}" for line, why in skipped if why == reason][:_LINES_NAMED]
        more = f" and {n - _LINES_NAMED:,} more" if n > _LINES_NAMED else ""
        reasons.append(f"{reason} ({'line' if n == 1 else 'lines'} {', '.join(first)}{more})")
    total = pairs + len(skipped)
    return f"{len(skipped):,} of {total:,} lines skipped: {'; '.join(reasons)}"


def _raw_lines(path: str) -> Iterator[bytes]:
    try:
        with gzip.open(path) if path.endswith(".gz") else open(path, "rb") as file:
            yield from file
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{path} cannot be read: {reason}") from error


def _decoded(line: bytes, number: int, names: str) -> str:
    """A line as text, without its end and the file's byte-order mark."""
    try:
        text = line.decode()
        if "\0" in text:
            raise ValueError("it has a zero byte")
    except ValueError as error:
        what = f"line {number:,} of {names} is no UTF-8 text ({error})"
        raise UserError(f"{what}: save it as UTF-8") from error
    text = text.removesuffix("\n").removesuffix("\r")
    return text.removeprefix("\ufeff") if number == 1 else text


def _pair_of(columns: Sequence[str], chosen: Sequence[int] | None) -> Pair | str:
    """The pair in the columns of a line, without the blanks around each side; or why it is none."""
    columns = [column.strip() for column in columns]
    if not any(columns):
        return "blank"
    if chosen is not None:
        if max(chosen) >= len(columns):
            return f"fewer than {max(chosen) + 1} columns"
        columns = [columns[i] for i in chosen]
    while len(columns) > 2 and not columns[-1]:  # a tab at the end of a line begins no column
        columns.pop()
    if len(columns) != 2:
        return "no tab" if len(columns) == 1 else "more than one tab, see Sentences.columns"
    if not all(columns):
        return "no target" if columns[0] else "no source"
    return columns[0], columns[1]
