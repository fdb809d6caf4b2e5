"""Step one of a translation: files of sentence pairs to vocabularies, rows of ids, and batches."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import zip_longest
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int

from s2sjax import sentences, vocabularies
from s2sjax.buckets import Batches, Bucket, Encoded, Schedule, boundaries
from s2sjax.errors import UserError
from s2sjax.files import reading
from s2sjax.report import Table
from s2sjax.sentences import Pairs
from s2sjax.stream import FilePairs, Reader, Streamed, index
from s2sjax.subwords import SubwordVocabulary
from s2sjax.taskconfig import Sentences, files
from s2sjax.vocab import CharacterVocabulary, Vocabulary
from s2sjax.words import Rules, WordVocabulary


class Form(NamedTuple):
    """How the two sides of a pair become rows of ids.

    Attributes:
        source: vocabulary of what is read.
        target: vocabulary of what is written.
        turned: the encoder reads a source from its last symbol to its first.
    """

    source: Vocabulary
    target: Vocabulary
    turned: bool

    @property
    def pad_id(self) -> int:
        """Id that fills rows of both sides."""
        pad_id = self.target.pad_id
        assert pad_id is not None  # vocabularies made here have all special symbols
        return pad_id

    def read(self, text: str) -> list[int]:
        """The row of a source: its symbols in the order they are read, and the end symbol."""
        ids = self.source.encode(text)
        return [*(reversed(ids) if self.turned else ids), self.source.eos_id]

    def write(self, text: str) -> list[int]:
        """The row of a target: begin symbol, its symbols, end symbol."""
        return [self.target.bos_id, *self.target.encode(text), self.target.eos_id]

    def in_order(self, text: str) -> str:
        """A target as the vocabulary would write it: what a translation can be equal to."""
        return self.target.join(self.target.pieces(text))

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "source": self.source.to_json(),
            "target": self.target.to_json(),
            "turned": self.turned,
        }

    @classmethod
    def from_json(cls, values: Any, where: str) -> "Form":
        """What `to_json` gave; raises UserError, which says where, for anything else."""
        match values:
            case {"source": source, "target": target, "turned": bool(turned)}:
                source, target = (vocabularies.from_json(v, where) for v in (source, target))
                return cls(source, target, turned)
        raise UserError(f"{where} is damaged: it does not hold two vocabularies")


@dataclass(frozen=True, eq=False)
class Prepared:
    """Sentence pairs, ready for training.

    Attributes:
        sentences: the settings, with the hash of the files.
        form: the vocabularies, made of the training pairs alone.
        rows: the training pairs as rows of ids, in memory or read when asked for.
        lengths: source and target length of every such row, ``[pairs, 2]``.
        buckets: shapes of batches.
        dev: pairs of text, for the curves drawn while training.
        test: pairs of text, to be scored once.
        told: what was skipped and left out, by what it is called.
    """

    sentences: Sentences
    form: Form
    rows: Encoded
    lengths: Int[np.ndarray, "pairs 2"]
    buckets: tuple[Bucket, ...]
    dev: Pairs
    test: Pairs
    told: Mapping[str, str]

    def batches(self, seed: int) -> Batches:
        """The batches of a training, epoch after epoch; a seed decides their order."""
        kind = Streamed if self.sentences.stream else Batches
        return kind(self.rows, Schedule(self.lengths, self.buckets, seed), self.form.pad_id)

    @cached_property
    def unknown(self) -> tuple[float, float]:
        """Shares of dev symbols, source and target, that are unknown."""
        form, shares = self.form, []
        for vocabulary, side in ((form.source, 0), (form.target, 1)):
            ids = Counter(i for pair in self.dev for i in vocabulary.encode(pair[side]))
            shares.append(ids[vocabulary.unk_id] / max(ids.total(), 1))
        return shares[0], shares[1]

    def table(self) -> Table:
        """What there is to train on."""
        schedule = Schedule(self.lengths, self.buckets, 0)
        known, unknown, unit = self.form, self.unknown, self.sentences.unit
        mean = self.lengths.mean(axis=0)
        parts = map(len, (self.lengths, self.dev, self.test))
        shapes = (" x ".join(map(str, bucket)) for bucket in self.buckets)
        rows = (
            *self.told.items(),
            ("pairs to train on, of dev and of test", _counts(*parts)),
            (f"{unit} known, source and target", _counts(len(known.source), len(known.target))),
            (f"{unit} of dev that are unknown", f"{unknown[0]:.1%} and {unknown[1]:.1%}"),
            ("a mean row, begin and end included", f"{mean[0]:.1f} and {mean[1]:.1f}"),
            ("buckets: source x target x rows", ", ".join(shapes)),
            ("batches of an epoch", f"{len(schedule):,}"),
            ("padding, of their positions", f"{schedule.waste().both:.1%}"),
        )
        return Table("What was prepared", ("what", "how much"), rows)


def prepare(settings: Sentences) -> Prepared:
    """Read and split the pairs, make both vocabularies of the training pairs, choose the buckets.

    A dev or test set without a file is split off the training file, by source: see
    `sentences.split`. Of the training pairs those that are too long are left out; dev and test
    pairs all stay. With `Sentences.stream` the training pairs are only counted and measured; where
    they stand is noted in a temporary file (see `tempfile` on how to choose its folder).

    Raises:
        UserError: a file cannot be read or used, has changed since `settings.sha256`, or leaves
            nothing.
    """
    settings = pinned(settings)
    told: dict[str, str] = {}
    given = {
        name: _pairs_of(path, name, told)
        for name in ("dev", "test")
        if (path := getattr(settings, name)) is not None
    }
    if settings.stream:
        return _streamed(settings, given, told)
    train = _pairs_of(settings.train, "train", told)
    if len(given) < 2:
        shares = [getattr(settings, f"{n}_share") * (n not in given) for n in ("dev", "test")]
        parts, duplicates = sentences.split(train, *shares)
        train, given = parts["train"], {**parts, **given}
        told["pairs given again, left out"] = f"{duplicates:,}"
    form = _form(settings, lambda: train)
    rows = [(form.read(source), form.write(target)) for source, target in train]
    rows = [row for row in rows if _fits(settings, row)]
    if not rows:
        raise _nothing_left(settings, len(train))
    told["pairs that are too long, left out"] = f"{len(train) - len(rows):,}"
    lengths = np.array([(len(source), len(target)) for source, target in rows], np.int64)
    _tell_overlap(train, given, told)
    return _prepared(settings, form, rows, lengths, given, told)


def _streamed(settings: Sentences, given: dict[str, Pairs], told: dict[str, str]) -> Prepared:
    """`prepare` for a training file that stays where it is.

    It is read for each vocabulary, for the index, and for sources that dev and test have too.
    """
    paths = tuple(map(Path, files(settings.train)))
    form = _form(settings, lambda: _lines(paths))
    too_long = 0

    def parse(columns: Sequence[str]) -> tuple[str, str] | str:
        nonlocal too_long
        pair = sentences.pair_of(columns)
        if isinstance(pair, str) or _fits(settings, (form.read(pair[0]), form.write(pair[1]))):
            return pair
        too_long += 1
        return f"too long (Sentences.longest {settings.longest})"

    reader = Reader(paths, form.read, form.write, parse)
    with TemporaryDirectory() as folder:  # once it is open, the index needs no name
        found = index(reader, Path(folder))
        rows = FilePairs(reader, Path(folder))
    told["train"] = f"{found.pairs:,} pairs, {found.skipped - too_long:,} lines skipped"
    told["pairs that are too long, left out"] = f"{too_long:,}"
    _tell_overlap(_lines(paths), given, told)
    return _prepared(settings, form, rows, rows.lengths, given, told)


def _prepared(
    settings: Sentences,
    form: Form,
    rows: Encoded,
    lengths: Int[np.ndarray, "pairs 2"],
    given: Mapping[str, Pairs],
    told: Mapping[str, str],
) -> Prepared:
    buckets = boundaries(lengths, settings.buckets, settings.tokens_per_batch)
    return Prepared(settings, form, rows, lengths, buckets, given["dev"], given["test"], told)


def pinned(settings: Sentences) -> Sentences:
    """The settings with the hash of their files' content.

    Raises UserError for a file that cannot be read, or files that are not those of the hash.
    """
    digest = hashlib.sha256()
    for part in (settings.train, settings.dev, settings.test):
        for path in files(part) if part else ():
            with reading(path), open(path, "rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    if settings.sha256 not in (None, digest.hexdigest()):
        raise UserError(
            f"{settings.train} (or the dev or test file) is not as this run began with it: its "
            "content has changed"
        )
    return replace(settings, sha256=digest.hexdigest())


def _pairs_of(given: str, name: str, told: dict[str, str]) -> Pairs:
    """The pairs of a setting's one or two files; what was skipped is told."""
    paths = files(given)
    corpus = sentences.read_pairs(*paths) if len(paths) == 1 else sentences.read_aligned(*paths)
    told[name] = corpus.summary()
    return corpus.pairs


def _lines(paths: Sequence[Path]) -> Iterator[tuple[str, str]]:
    """The pairs of files that are too large to be held; lines that are none are passed over.

    Raises UserError for files that are no UTF-8 text, are not aligned, or have no pair.
    """
    names, pairs = " and ".join(map(str, paths)), 0
    with ExitStack() as stack:
        opened = [stack.enter_context(path.open("rb")) for path in paths]
        for number, lines in enumerate(zip_longest(*opened), start=1):
            if None in lines:
                raise UserError(f"{names} are not aligned: only one has a line {number:,}")
            texts = [_decoded(line, number, paths) for line in lines]
            pair = sentences.pair_of(texts[0].split("\t") if len(texts) == 1 else texts)
            if not isinstance(pair, str):
                pairs += 1
                yield pair
    if not pairs:
        raise UserError(f"{names} has no sentence pair")


def _decoded(line: bytes, number: int, paths: Sequence[Path]) -> str:
    """A line as text; raises UserError where it is no UTF-8."""
    try:
        text = line.decode()
    except UnicodeDecodeError as error:
        names = " or ".join(map(str, paths))
        raise UserError(
            f"line {number:,} of {names} is no UTF-8 text ({error}); save it as UTF-8"
        ) from error
    return text.removeprefix("\ufeff") if number == 1 else text


def _form(settings: Sentences, pairs: Any) -> Form:
    """Vocabularies of the pairs that a call of `pairs` gives."""
    source, target = (
        _vocabulary(settings, (pair[side] for pair in pairs()), size)
        for side, size in ((0, settings.source_size), (1, settings.target_size))
    )
    return Form(source, target, settings.source_order == "reversed")


def _vocabulary(settings: Sentences, texts: Iterable[str], size: int) -> Vocabulary:
    match settings.unit:
        case "words":
            rules = Rules(settings.lower_case, settings.cut)
            return WordVocabulary.build(texts, rules, min_count=settings.min_count, max_size=size)
        case "subwords":
            return SubwordVocabulary.build(texts, max_size=size, min_count=settings.min_count)
        case "characters":
            counts = Counter(character for text in texts for character in text)
            common = [c for c, n in counts.items() if n >= settings.min_count]
            if not common:
                raise UserError(f"no character occurs {settings.min_count} times: lower min_count")
            common.sort(key=lambda c: (-counts[c], c))
            return CharacterVocabulary("".join(common[: size - 4]))


def _fits(settings: Sentences, row: tuple[Sequence[int], Sequence[int]]) -> bool:
    """Whether neither side of a pair is too long, special symbols aside."""
    source, target = row
    return len(source) - 1 <= settings.longest and len(target) - 2 <= settings.longest


def _nothing_left(settings: Sentences, pairs: int) -> UserError:
    return UserError(
        f"all {pairs:,} training pairs are too long: none has at most {settings.longest} "
        f"{settings.unit} on either side; raise Sentences.longest"
    )


def _tell_overlap(
    train: Iterable[tuple[str, str]], given: Mapping[str, Pairs], told: dict[str, str]
) -> None:
    """Tell how many dev and test sources are also trained on, where there are any."""
    types = {n: [sentences.source_type(s) for s, _ in given[n]] for n in ("dev", "test")}
    wanted = set().union(*types.values())
    seen = {t for source, _ in train if (t := sentences.source_type(source)) in wanted}
    for name, held in types.items():
        if both := sum(t in seen for t in held):
            told[f"{name} sources that are also trained on"] = f"{both:,} of {len(held):,}"


def _counts(*numbers: int) -> str:
    return ", ".join(f"{n:,}" for n in numbers)
