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

    @property
    def questions(self) -> str:
        """What is asked, in words."""
        return f"{self.terms}-term, {self.digits}-digit '{self.operator}' questions"

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
    longer: int = 0
    """If not 0, the test has as many strings again, up to so many characters longer than any that
    was trained on."""
    train: int = 2_000
    """Training strings."""
    dev: int = 200
    """Strings for the curves drawn while training."""
    test: int = 200
    """Strings scored once, at the end."""

    @property
    def questions(self) -> str:
        """What is asked, in words."""
        return f"strings to {self.kind}"

    def __post_init__(self) -> None:
        """Refuse sizes that cannot be."""
        at_least(1, self, "symbols", "min_length", "train", "dev", "test")
        at_least(0, self, "longer", most=1_000)
        if self.max_length > 1_000:
            raise UserError(f"Toy.max_length must be at most 1,000, not {self.max_length}")
        if self.symbols > 26:
            raise UserError(f"Toy.symbols must be at most 26 (a to z), not {self.symbols}")
        if self.max_length < self.min_length:
            raise UserError(
                f"Toy.max_length must be at least Toy.min_length = {self.min_length}, "
                f"not {self.max_length}"
            )


@dataclass(frozen=True)
class Dates:
    """Dates as people write them, in many languages, to ISO: '3 de março de 2020' -> '2020-03-03'.

    No date is in two questions. How dates are written is CLDR's data, read through Babel.
    """

    locales: str = "en_US,en_GB,de,fr,es,it,pt,nl,sv,da,fi,pl,cs,hu,tr,el,ru"
    """Whose dates: CLDR's names, commas between them. Every one is equally likely."""
    formats: str = "full,long,medium,short,yMd,yMEd,yMMMEd"
    """How they are written: CLDR's styles and skeletons, commas between them. Whatever could be two
    dates is left out: see `tasks.dates`."""
    first_year: int = 1900
    """Year of the earliest dates."""
    last_year: int = 2099
    """Year of the latest; 200 years have 73,049 dates."""
    train: int = 50_000
    """Training dates."""
    dev: int = 1_000
    """Dates for the curves drawn while training."""
    test: int = 2_000
    """Dates scored once, at the end."""

    @property
    def questions(self) -> str:
        """What is asked, in words."""
        return "dates"

    def __post_init__(self) -> None:
        """Refuse lists and years that cannot be; which names there are is the task's to check."""
        for setting in ("locales", "formats"):
            listed = getattr(self, setting)
            if "" in names(listed) or len(set(names(listed))) < len(names(listed)):
                raise UserError(
                    f"Dates.{setting} must be names with commas between them, each once, "
                    f"not {listed!r}"
                )
        at_least(1, self, "train", "dev", "test")
        at_least(1_000, self, "first_year", "last_year", most=9_999)
        if self.last_year < self.first_year:
            raise UserError(
                f"Dates.last_year must be at least Dates.first_year = {self.first_year}, "
                f"not {self.last_year}"
            )


def names(listed: str) -> tuple[str, ...]:
    """What a setting lists with commas."""
    return tuple(name.strip() for name in listed.split(","))


@dataclass(frozen=True)
class NumberWords:
    """Whole numbers from 0 on, each in one question: 'forty-two' -> '42', or the other way.

    The words are those of the package num2words.
    """

    direction: Literal["to_digits", "to_words"] = "to_digits"
    """What the answer is."""
    language: str = "en"
    """num2words' name of the language."""
    largest: int = 9_999
    """Largest number. All up to it are written once, at some 6,000 (de, fr) to 17,000 (en) a
    second, to know every character and the longest."""
    train: int = 5_000
    """Training numbers."""
    dev: int = 1_000
    """Numbers for the curves drawn while training."""
    test: int = 1_000
    """Numbers scored once, at the end."""

    @property
    def questions(self) -> str:
        """What is asked, in words."""
        return "numbers"

    def __post_init__(self) -> None:
        """Refuse sizes that cannot be; which languages there are is the task's to check."""
        at_least(1, self, "train", "dev", "test")
        at_least(100, self, "largest", most=999_999)


@dataclass(frozen=True)
class Sentences:
    """Pairs of sentences from files, and how they become rows of ids: 'ein Hund' -> 'a dog'.

    A file is UTF-8 text of two columns, SOURCE, one tab, TARGET; or it is two files with a comma
    between them, one of sources and one of targets, line by line.
    """

    train: str = "train.tsv"
    """Training pairs: a file, or two with a comma between them."""
    dev: str | None = None
    """Pairs for the curves drawn while training; None takes some of the training file's."""
    test: str | None = None
    """Pairs scored once, at the end; None takes some of the training file's."""
    dev_share: float = 0.05
    """Share of the training file's sources that dev takes where it has no file. No source is on two
    sides."""
    test_share: float = 0.05
    """The same for test."""
    sha256: Annotated[str | None, tyro.conf.Suppress] = None
    """Hash of the files' content; set by `prepare`, so that a run goes on with them only."""
    unit: Literal["words", "subwords", "characters"] = "words"
    """What a symbol is. subwords: byte-pair encoding, which nothing is unknown to."""
    cut: Literal["punctuation", "blanks"] = "punctuation"
    """Where words are cut: around every sign as well, or at blanks only, for text that other
    software has cut."""
    lower_case: bool = True
    """Read the capitals of words as small letters; other units keep letter case."""
    min_count: int = 2
    """A symbol that occurs less often in training is unknown (a pair of subwords: not merged)."""
    source_size: int = 10_000
    """Most symbols of the source's vocabulary, four special ones included."""
    target_size: int = 10_000
    """The same of the target's."""
    longest: int = 80
    """Most symbols of either side of a training pair; longer pairs are left out."""
    source_order: Literal["forward", "reversed"] = "forward"
    """Order in which the encoder reads a source's symbols."""
    buckets: int = 6
    """Shapes of batches: more of them waste less on padding, and each is compiled."""
    tokens_per_batch: int = 4_096
    """Most positions of a batch, source, target and padding together."""
    stream: bool = False
    """Read training pairs when they are needed instead of holding them in memory."""

    def __post_init__(self) -> None:
        """Refuse what cannot be, and settings that would change nothing."""
        for name in ("train", "dev", "test"):
            if (given := getattr(self, name)) is not None and "" in files(given):
                raise UserError(
                    f"Sentences.{name} must be a file of pairs, or two with a comma between them, "
                    f"not {given!r}"
                )
        at_least(1, self, "min_count", "longest", "tokens_per_batch")
        at_least(1, self, "buckets", most=100)
        at_least(260 if self.unit == "subwords" else 5, self, "source_size", "target_size")
        for name in ("dev", "test"):
            share = getattr(self, f"{name}_share")
            if not 0 < share <= 0.5:
                raise UserError(
                    f"Sentences.{name}_share must be above 0 and at most 0.5, not {share}"
                )
            if getattr(self, name) is not None and share != 0.05:
                raise UserError(f"Sentences.{name}_share: Sentences.{name} has a file of its own")
        if self.unit != "words" and (self.cut, self.lower_case) != ("punctuation", True):
            raise UserError(
                f"Sentences.cut and Sentences.lower_case are for words: {self.unit} are neither "
                "cut nor changed"
            )
        if self.stream and (self.dev is None or self.test is None):
            raise UserError(
                "Sentences.stream needs Sentences.dev and Sentences.test: to split the training "
                "file it would have to be held in memory"
            )


def files(given: str) -> tuple[str, ...]:
    """The one or two files of a setting; an empty name stands for what is wrong with it."""
    named = tuple(name.strip() for name in given.split(","))
    return named if len(named) <= 2 else ("",)


TaskConfig = Addition | Toy | Dates | NumberWords
"""The settings of any task. In JSON a task is the first of these that has all its settings."""
