"""A corpus larger than memory: where its pairs stand in their files, and batches read ahead.

One pass notes, for each usable line, where it begins, its bytes, and the lengths of its rows of
ids: a few numbers a pair, memory-mapped from then on. The texts stay in their files until a batch
wants them; Grain reads ahead of the training in a thread.
"""

import os
import sys
import weakref
from array import array
from codecs import BOM_UTF8
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from jaxtyping import Int

from s2sjax.buckets import Batches
from s2sjax.data import Batch
from s2sjax.errors import UserError
from s2sjax.extras import require
from s2sjax.files import PARTIAL, read_json, reading, write_json
from s2sjax.sentences import pair_of

AHEAD = 8
"""Batches that are read ahead."""

SHOWN = 5
"""Lines left out that an index shows; the others it only counts."""

Ids = Sequence[int]
Encode = Callable[[str], Ids]
"""A text to its whole row of ids, begin and end symbols included."""

_TABLE, _STAMPS = "pairs.npy", "files.json"


@dataclass(frozen=True)
class Reader:
    """How a corpus is read.

    Attributes:
        files: one file of two columns, SOURCE, one tab, TARGET; or a file of sources and one of
            targets, each line of one the translation of the other's. UTF-8.
        source: encodes a source.
        target: encodes a target.
        parse: the columns of a line to its pair, or to the reason to leave the line out.
    """

    files: tuple[Path, ...]
    source: Encode
    target: Encode
    parse: Callable[[Sequence[str]], tuple[str, str] | str] = pair_of

    def rows(self, lines: Sequence[bytes]) -> tuple[Ids, Ids] | str:
        """The rows of ids of a line of each file, or why there are none.

        Raises UnicodeError for what is no UTF-8 text.
        """
        texts = [line.decode().removesuffix("\n").removesuffix("\r") for line in lines]
        if any("\0" in text for text in texts):
            raise UnicodeError("a zero byte")
        pair = self.parse(texts[0].split("\t") if len(texts) == 1 else texts)
        return pair if isinstance(pair, str) else (self.source(pair[0]), self.target(pair[1]))


class Index(NamedTuple):
    """What an indexing pass has found.

    Attributes:
        pairs: usable lines.
        skipped: lines left out.
        shown: line number, from 1, and reason of the first of these.
    """

    pairs: int
    skipped: int
    shown: list[tuple[int, str]]


def index(reader: Reader, folder: Path) -> Index:
    """Note in `folder` where the pairs of a corpus stand and how long their rows are.

    Raises UserError for files that cannot be read, are no UTF-8 text, are not aligned or have
    no pair, and for a folder that cannot be written.
    """
    table, skipped, shown = array("q"), 0, []
    names = _names(reader)
    with ExitStack() as stack:
        files = [stack.enter_context(_open(path)) for path in reader.files]
        stamps = [_stamp(file) for file in files]
        for number, spans in enumerate(zip_longest(*map(_lines, files)), start=1):
            if None in spans:
                raise UserError(f"{names} are not aligned: only one has a line {number:,}")
            try:
                rows = reader.rows([line for _, line in spans])
            except UnicodeError as error:
                raise UserError(
                    f"line {number:,} of {names} is no UTF-8 text ({error}); save it as UTF-8"
                ) from error
            if isinstance(rows, str):
                skipped += 1
                shown += [(number, rows)] if skipped <= SHOWN else []
                continue
            for begin, line in spans:
                table.extend((begin, len(line)))
            table.extend(map(len, rows))
    if not table:
        why = "".join(f"; line {number:,}: {reason}" for number, reason in shown)
        raise UserError(f"{names} has no sentence pair{why}")
    numbers = np.frombuffer(table, np.int64).reshape(-1, 2 * len(files) + 2)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / _STAMPS).unlink(missing_ok=True)  # without it there is no index
        partial = folder / (_TABLE + PARTIAL)
        with partial.open("wb") as file:
            np.save(file, numbers)
        os.replace(partial, folder / _TABLE)  # whoever has the former one mapped keeps it
        write_json(folder / _STAMPS, stamps)
    except OSError as error:
        raise UserError(f"the index cannot be written to {folder}: {error.strerror}") from error
    return Index(len(numbers), skipped, shown)


class FilePairs:
    """The pairs of an indexed corpus, each read from its file and encoded when it is asked for.

    Attributes:
        lengths: source and target length of every pair, on disk until used, ``[pairs, 2]``.
    """

    lengths: Int[np.ndarray, "pairs 2"]

    def __init__(self, reader: Reader, folder: Path):
        """Open what `index` has noted in `folder`.

        Raises UserError where it has noted nothing, or files that were not these as they are now.
        """
        if not (folder / _STAMPS).exists():
            raise UserError(f"{folder} holds no index: index the corpus first")
        self._stamps = read_json(folder / _STAMPS, "index the corpus again")
        try:
            self._table = np.asarray(np.load(folder / _TABLE, mmap_mode="r"))
        except (OSError, EOFError, ValueError) as error:
            raise UserError(f"{folder / _TABLE} is damaged: index the corpus again") from error
        self.lengths = self._table[:, -2:]
        self._reader = reader
        self._files = [_open(path) for path in reader.files]
        for file in self._files:
            weakref.finalize(self, file.close)
        self._check_unchanged()

    def __len__(self) -> int:
        """Pairs."""
        return len(self._table)

    def __getitem__(self, pair: int, /) -> tuple[Ids, Ids]:
        """Source and target row of a pair.

        Raises UserError where a file has changed, or rows are not as long as when it was indexed.
        """
        *spans, source, target = self._table[pair].tolist()
        places = zip(self._files, spans[::2], spans[1::2], strict=True)
        lines = [os.pread(file.fileno(), size, begin) for file, begin, size in places]
        self._check_unchanged()
        rows = self._reader.rows(lines)
        if isinstance(rows, str) or (len(rows[0]), len(rows[1])) != (source, target):
            raise UserError(
                f"pair {pair} is read otherwise than when it was indexed: index the corpus again, "
                "with the vocabulary and the settings of this run"
            )
        return rows

    def _check_unchanged(self) -> None:
        if [_stamp(file) for file in self._files] != self._stamps:
            raise UserError(
                f"{_names(self._reader)}: not as when the corpus was indexed; index it again"
            )


class Streamed(Batches):
    """`Batches` that a thread reads ahead; the same batches in the same order."""

    _ahead: Any = None

    def __next__(self) -> tuple[int, Batch]:
        # Taken out while it is in use: after an error, or Ctrl-C, reading starts anew.
        ahead, self._ahead = self._ahead or self._start(), None
        batch = next(ahead)
        self._ahead = ahead
        self._given += 1
        return batch

    def _start(self) -> Any:
        grain = require("grain")
        numbers = grain.MapDataset.range(self._given, sys.maxsize)
        options = grain.ReadOptions(num_threads=1, prefetch_buffer_size=AHEAD)
        return iter(numbers.map(self.at).to_iter_dataset(options))

    def restore(self, state: dict[str, Any]) -> None:
        super().restore(state)
        self.close()

    def close(self) -> None:
        """Stop reading ahead; the next batch starts it again."""
        if self._ahead is not None:
            self._ahead.close()
            self._ahead = None


def _open(path: Path) -> BinaryIO:
    """A file to read, which the caller closes."""
    with reading(path):
        return path.open("rb")


def _names(reader: Reader) -> str:
    """The files of a corpus, for an error."""
    return " and ".join(map(str, reader.files))


def _stamp(file: BinaryIO) -> list[int]:
    """What changes when a file does: its bytes, and when it was last written, in nanoseconds."""
    status = os.fstat(file.fileno())
    return [status.st_size, status.st_mtime_ns]


def _lines(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """The byte each line begins at, and the line with its end; a byte-order mark is passed over."""
    begin = len(BOM_UTF8) if file.read(len(BOM_UTF8)) == BOM_UTF8 else 0
    file.seek(begin)
    for line in file:
        yield begin, line
        begin += len(line)
