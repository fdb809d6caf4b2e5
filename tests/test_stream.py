"""A corpus in files: the batches it streams are those of the same pairs in memory."""

import contextlib
import itertools
import json
import os
import sys
import threading
import tracemalloc
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from s2sjax import stream
from s2sjax.buckets import Batches, Schedule, boundaries
from s2sjax.errors import UserError
from s2sjax.sentences import read_aligned, read_pairs
from s2sjax.stream import FilePairs, Index, Reader, Streamed, index

PAD, BOS, EOS = 0, 1, 2
N = 120


def source_ids(text: str) -> list[int]:
    return [4 + ord(character) for character in text] + [EOS]


def target_ids(text: str) -> list[int]:
    return [BOS, *(4 + ord(character) for character in text), EOS]


def pairs_of(n: int = N) -> list[tuple[str, str]]:
    """Pairs of 1 to 14 characters, some of two bytes or four, no two alike."""
    rng = np.random.default_rng(0)
    letters = np.array(list("abc deß語🙂"))
    draw = lambda: "".join(rng.choice(letters, rng.integers(1, 12)))
    return [(f"{i}{draw()}x", f"y{draw()}{i}") for i in range(n)]


PAIRS = pairs_of()
ROWS = [(source_ids(source), target_ids(target)) for source, target in PAIRS]
LENGTHS = np.array([[len(source), len(target)] for source, target in ROWS])
BUCKETS = boundaries(LENGTHS, 3, 200)


def write(path: Path, lines: list[str], end: str = "\n") -> Path:
    path.write_bytes("".join(line + end for line in lines).encode())
    return path


def tsv(folder: Path, lines: list[str] | None = None) -> Reader:
    lines = ["\t".join(pair) for pair in PAIRS] if lines is None else lines
    return Reader((write(folder / "pairs.tsv", lines),), source_ids, target_ids)


@pytest.fixture
def corpus(tmp_path: Path) -> FilePairs:
    reader = tsv(tmp_path)
    assert index(reader, tmp_path / "index") == Index(N, 0, [])
    return FilePairs(reader, tmp_path / "index")


@pytest.fixture
def streamed(corpus: FilePairs):
    with contextlib.closing(Streamed(corpus, Schedule(corpus.lengths, BUCKETS, 3), PAD)) as batches:
        yield batches


def rows(reader: Reader, folder: Path) -> list:
    pairs = FilePairs(reader, folder)
    return [pairs[i] for i in range(len(pairs))]


def in_memory() -> Batches:
    return Batches(ROWS, Schedule(LENGTHS, BUCKETS, 3), PAD)


def same(one, other) -> bool:
    """Whether two (bucket, batch) are equal, bit for bit."""
    arrays = [(b, *batch.examples, batch.weight) for b, batch in (one, other)]
    return all(np.array_equal(x, y) for x, y in zip(*arrays, strict=True))


# --- the index -------------------------------------------------------------------------------


def test_a_corpus_has_every_pair_by_number(corpus):
    assert len(corpus) == N
    assert [corpus[i] for i in range(N)] == ROWS
    assert np.array_equal(corpus.lengths, LENGTHS)


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_two_aligned_files_are_the_corpus_that_one_file_of_both_is(tmp_path, end):
    files = tuple(
        write(tmp_path / name, [pair[side] for pair in PAIRS], end)
        for side, name in enumerate(("a.de", "a.en"))
    )
    reader = Reader(files, source_ids, target_ids)
    index(reader, tmp_path / "index")
    corpus = FilePairs(reader, tmp_path / "index")
    assert [corpus[i] for i in range(N)] == ROWS


def test_a_byte_order_mark_is_no_text_and_the_last_line_needs_no_end(tmp_path):
    path = tmp_path / "pairs.tsv"
    path.write_bytes(b"\xef\xbb\xbfa\tb\r\nc\td")
    reader = Reader((path,), source_ids, target_ids)
    assert index(reader, tmp_path).pairs == 2
    corpus = FilePairs(reader, tmp_path)
    assert [corpus[0], corpus[1]] == [(source_ids(s), target_ids(t)) for s, t in ("ab", "cd")]


def test_only_a_line_feed_ends_a_line(tmp_path):
    odd = "a\x0bb\x0c\u2028\x85\rc"
    reader = tsv(tmp_path, [f"{odd}\td", "e\tf"])
    assert index(reader, tmp_path) == Index(2, 0, [])
    assert FilePairs(reader, tmp_path)[0] == (source_ids(odd), target_ids("d"))


def test_lines_that_are_no_pair_are_counted_and_the_first_shown(tmp_path):
    lines = ["a\tb", "", "c", "d\te\tf", "g\t ", "\th", "i\tj", "\t\t", "k\tl"]
    reader = tsv(tmp_path, lines)
    shown = [(2, "blank"), (3, "no tab"), (4, "more than one tab")]
    shown += [(5, "no target"), (6, "no source")]
    assert index(reader, tmp_path) == Index(3, 6, shown)
    assert rows(reader, tmp_path) == [(source_ids(s), target_ids(t)) for s, t in ("ab", "ij", "kl")]


NASTY = [
    "\ufeffa\tb",
    "\ufeffa\t\u2028b\x85",
    " c\x0c\td\re \r",
    "\t",
    "",
    "f\t",
    "\tg",
    "h",
    "\ufeff",
    "i\u00a0\t\u00a0j\tk",
    "l\tm",
]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_pairs_are_those_that_are_read_into_memory(tmp_path, end, monkeypatch):
    monkeypatch.setattr(stream, "SHOWN", 100)
    one = write(tmp_path / "both", NASTY, end)
    two = [
        write(tmp_path / side, NASTY[turn:] + NASTY[:turn], end)
        for side, turn in (("a", 0), ("b", 4))
    ]
    for files, read in (((one,), read_pairs(str(one))), (tuple(two), read_aligned(*map(str, two)))):
        reader = Reader(files, source_ids, target_ids)
        assert index(reader, tmp_path) == Index(len(read.pairs), len(read.skipped), read.skipped)
        assert rows(reader, tmp_path) == [(source_ids(s), target_ids(t)) for s, t in read.pairs]


def test_a_parser_of_ones_own_reads_and_leaves_out_what_it_likes(tmp_path):
    def swapped(columns: Sequence[str]) -> tuple[str, str] | str:
        target, source = columns[0].split(";")
        return "too long" if len(source) > 2 else (source.upper(), target)

    path = write(tmp_path / "pairs", ["a;b", "c;ddd", "e;ff"], end="\r\n")
    reader = Reader((path,), source_ids, target_ids, swapped)
    assert index(reader, tmp_path) == Index(2, 1, [(2, "too long")])
    assert FilePairs(reader, tmp_path)[1] == (source_ids("FF"), target_ids("e"))


def test_files_that_cannot_be_a_corpus_are_one_clear_error(tmp_path):
    def refused(reader: Reader, match: str) -> None:
        with pytest.raises(UserError, match=match):
            index(reader, tmp_path / "index")
        assert not (tmp_path / "index").exists()

    refused(Reader((tmp_path / "none.tsv",), len, len), r"none\.tsv cannot be read: No such file")
    refused(tsv(tmp_path, []), r"pairs\.tsv has no sentence pair$")
    refused(tsv(tmp_path, ["a", ""]), "no sentence pair; line 1: no tab; line 2: blank")
    bad = tmp_path / "bad.tsv"
    bad.write_bytes("a\tb\nc\té\n".encode("latin-1"))
    refused(
        Reader((bad,), source_ids, target_ids),
        r"line 2 of .*bad\.tsv is no UTF-8 text .*; save it as UTF-8",
    )
    bad.write_bytes(b"a\tb\nc\0\td\n")
    refused(
        Reader((bad,), source_ids, target_ids), r"line 2 of .*bad\.tsv is no UTF-8 text \(a zero"
    )
    for short, long in (("a", "b"), ("b", "a")):
        files = (tmp_path / short, tmp_path / long)
        write(tmp_path / "a", ["1", "2"])
        write(tmp_path / "b", ["1", "2", "3"])
        refused(
            Reader(files, source_ids, target_ids),
            "not aligned: only one has a line 3",
        )


def test_a_folder_that_cannot_be_written_is_one_clear_error(tmp_path):
    reader = tsv(tmp_path)
    with pytest.raises(UserError, match="the index cannot be written to"):
        index(reader, reader.files[0] / "index")


def test_a_folder_without_an_index_or_with_a_damaged_one_is_refused(tmp_path):
    reader = tsv(tmp_path)
    with pytest.raises(UserError, match="holds no index: index the corpus first"):
        FilePairs(reader, tmp_path)
    index(reader, tmp_path)
    (tmp_path / "pairs.npy").write_bytes(b"")
    with pytest.raises(UserError, match=r"pairs\.npy is damaged: index the corpus again"):
        FilePairs(reader, tmp_path)
    (tmp_path / "files.json").write_bytes(b"{")
    with pytest.raises(UserError, match=r"files\.json is damaged .*: index the corpus again"):
        FilePairs(reader, tmp_path)


def test_an_indexing_that_was_killed_leaves_no_index(tmp_path, monkeypatch):
    reader = tsv(tmp_path)
    index(reader, tmp_path)

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(np, "save", killed)
    with pytest.raises(KeyboardInterrupt):
        index(reader, tmp_path)
    with pytest.raises(UserError, match="holds no index"):
        FilePairs(reader, tmp_path)


# --- files that change -----------------------------------------------------------------------

CHANGED = r"pairs\.tsv: not as when the corpus was indexed; index it again"


def test_a_file_that_changed_since_it_was_indexed_is_refused(tmp_path):
    reader = tsv(tmp_path)
    index(reader, tmp_path)
    path = reader.files[0]
    path.write_bytes(path.read_bytes() + b"a\tb\n")
    with pytest.raises(UserError, match=CHANGED):
        FilePairs(reader, tmp_path)
    index(reader, tmp_path)
    assert len(FilePairs(reader, tmp_path)) == N + 1
    status = path.stat()  # as many bytes as before, but written later
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    with pytest.raises(UserError, match=CHANGED):
        FilePairs(reader, tmp_path)


def test_a_file_that_changes_while_it_is_streamed_is_refused(streamed, tmp_path):
    next(streamed)
    (tmp_path / "pairs.tsv").write_bytes(b"")
    with pytest.raises(UserError, match=CHANGED):
        list(itertools.islice(streamed, stream.AHEAD + 2))


def test_another_number_of_files_is_refused(corpus, tmp_path):
    files = (tmp_path / "pairs.tsv",) * 2
    with pytest.raises(UserError, match="index it again"):
        FilePairs(Reader(files, source_ids, target_ids), tmp_path / "index")


def test_another_vocabulary_than_the_indexed_one_is_refused(corpus, tmp_path):
    other = Reader((tmp_path / "pairs.tsv",), source_ids, source_ids)
    with pytest.raises(UserError, match="pair 4 is read otherwise than when it was indexed"):
        FilePairs(other, tmp_path / "index")[4]
    stricter = Reader(other.files, source_ids, target_ids, lambda columns: "unwanted")
    with pytest.raises(UserError, match="pair 5 is read otherwise than when it was indexed"):
        FilePairs(stricter, tmp_path / "index")[5]


# --- streaming -------------------------------------------------------------------------------


def test_streamed_batches_are_those_of_the_pairs_in_memory(streamed):
    memory = in_memory()
    assert len(streamed) == len(memory) > 2 * stream.AHEAD
    for _ in range(2 * len(memory) + 3):
        assert same(next(streamed), next(memory))


def test_resumed_equals_uninterrupted_within_and_across_epochs(corpus, streamed):
    n = len(streamed)
    given, states = [], []
    for _ in range(2 * n + 4):
        states.append(json.loads(json.dumps(streamed.state())))
        given.append(next(streamed))
    for start in (0, 1, n // 2, n - 1, n, n + 3):
        resumed = Streamed(corpus, streamed.schedule, PAD)
        resumed.restore(states[start])
        assert all(same(next(resumed), batch) for batch in given[start:])
        assert resumed.state() == {**states[0], "batches": len(given)}
        resumed.close()


def test_a_stream_can_be_sent_back_and_closed_while_it_reads_ahead(streamed):
    start = streamed.state()
    first = [next(streamed) for _ in range(5)]
    streamed.restore(start)
    assert all(same(next(streamed), batch) for batch in first[:3])
    streamed.close()
    assert all(same(next(streamed), batch) for batch in first[3:])


def test_a_run_goes_on_streamed_from_where_it_was_in_memory_and_back(streamed):
    memory = in_memory()
    for _ in range(7):
        next(memory)
    streamed.restore(memory.state())
    assert same(next(streamed), next(memory))
    memory.restore(streamed.state())
    assert same(next(streamed), next(memory))


def test_after_an_error_the_stream_goes_on_where_it_was(streamed, monkeypatch):
    memory, faults, at = in_memory(), [5], streamed.at

    def faulty(number: int):
        if number in faults:
            faults.remove(number)
            raise ZeroDivisionError
        return at(number)

    monkeypatch.setattr(streamed, "at", faulty)
    for _ in range(5):
        assert same(next(streamed), next(memory))
    with pytest.raises(ZeroDivisionError):
        next(streamed)
    assert streamed.state() == memory.state()
    for _ in range(5):
        assert same(next(streamed), next(memory))


def test_batches_are_read_ahead_in_a_thread_and_no_further_than_said(streamed, monkeypatch):
    asked, inside = [], set()
    at = streamed.at

    def noted(number: int):
        asked.append(number)
        inside.add(threading.current_thread())
        return at(number)

    monkeypatch.setattr(streamed, "at", noted)
    for _ in range(3):
        next(streamed)
    streamed.close()
    assert asked == list(range(len(asked)))
    assert 3 <= len(asked) <= 3 + stream.AHEAD
    assert len(inside) == 1
    assert threading.current_thread() not in inside
    for thread in inside:
        thread.join(timeout=10)
        assert not thread.is_alive()


def test_streaming_without_grain_says_what_to_install(streamed, monkeypatch):
    monkeypatch.setitem(sys.modules, "grain", None)
    with pytest.raises(UserError, match=r"needs the package grain: pip install 's2sjax\[text\]'"):
        next(streamed)


def test_no_text_stays_in_memory(tmp_path):
    lines, size = 600, 5000
    path = write(tmp_path / "pairs.tsv", [f"{i}\t{'word ' * (size // 5)}" for i in range(lines)])
    few = lambda text: [3] * (1 + len(text) % 3)
    reader = Reader((path,), few, few)
    tracemalloc.start()
    try:
        index(reader, tmp_path)
        corpus = FilePairs(reader, tmp_path)
        schedule = Schedule(corpus.lengths, boundaries(corpus.lengths, 2, 400), 0)
        batches = Batches(corpus, schedule, PAD)
        for _ in itertools.islice(batches, len(batches)):
            pass
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert path.stat().st_size > lines * size
    assert peak < lines * size / 4
    assert isinstance(corpus.lengths.base.base, np.memmap)
