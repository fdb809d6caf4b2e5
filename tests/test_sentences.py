"""Sentence pairs: read, with every way a file can be wrong, and split without leaks."""

import gzip
import hashlib
import itertools
import os
import random
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s2sjax.data.sentences import PairFile, Sentences, files_of, source_type
from s2sjax.errors import UserError

PAIRS = [("ein hund .", "a dog ."), ("zwei männer", "two men"), ("雪", "snow")]
RIGHT = "a line must be SOURCE, one tab, TARGET"

quickly = settings(derandomize=True, max_examples=100)


def written(folder: Path, content: str | bytes, name: str = "pairs.tsv") -> str:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return str(path)


def read(path: str, columns: str | None = None) -> tuple[list[tuple[str, str]], str]:
    found, summary = PairFile(path, columns).read()
    return found["train"], summary


def refused(message: str):
    return pytest.raises(UserError, match=f"^{re.escape(message)}$")


def tsv(folder: Path, pairs, name: str = "pairs.tsv") -> str:
    return written(folder, "".join(f"{s}\t{t}\n" for s, t in pairs), name)


# --- files that are right --------------------------------------------------------------------


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("last", [True, False])
def test_line_ends_a_byte_order_mark_and_gzip_do_not_matter(tmp_path, end, mark, last):
    rows = [map("\t".join, PAIRS), *zip(*PAIRS, strict=True)]
    texts = [mark + end.join(row) + end * last for row in rows]
    whole, source, target = (written(tmp_path, text, str(i)) for i, text in enumerate(texts))
    packed = written(tmp_path, gzip.compress(texts[0].encode()), "pairs.tsv.gz")
    for path in (whole, f"{source},{target}", f"{source} , {target}", packed):
        assert read(path) == (PAIRS, "3 pairs, no line skipped")


def test_nothing_but_a_line_feed_ends_a_line_and_blanks_inside_a_side_are_kept(tmp_path):
    sides = ("a\u2028b\x0bc", "d\x85e\x0cf\x1cg\rh  i")
    assert read(tsv(tmp_path, [sides]))[0] == [sides]
    two = [written(tmp_path, side, name) for side, name in zip(sides, "st", strict=True)]
    assert read(",".join(two))[0] == [sides]
    assert read(written(tmp_path, "  a  b \t\u00a0c \r\n"))[0] == [("a  b", "c")]
    source, target = written(tmp_path, "a\tb\n", "s"), written(tmp_path, "c\n", "t")
    assert read(f"{source},{target}")[0] == [("a\tb", "c")]  # a tab like any other blank


def test_a_file_whose_name_has_a_comma_is_one_file(tmp_path):
    """Fault 6."""
    path = tsv(tmp_path, PAIRS, "de, en.tsv")
    assert files_of(path) == (path,)
    assert read(path)[0] == PAIRS
    assert files_of("no.de, no.en") == ("no.de", "no.en")


def test_columns_can_be_chosen_and_a_tab_at_the_end_begins_none(tmp_path):
    """Fault 16."""
    lines = [f"{n}\t{s}\t{n}\t{t}\tCC-BY" for n, (s, t) in enumerate(PAIRS)]
    path = written(tmp_path, "\n".join([*lines, "0\ta", "", "1\t\t2\tb"]))
    assert read(path, " 2, 4") == (
        PAIRS,
        "3 of 6 lines skipped: fewer than 4 columns (line 4); blank (line 5); no source (line 6)",
    )
    assert read(path, "4,2")[0] == [pair[::-1] for pair in PAIRS]
    assert read(written(tmp_path, "".join(f"{s}\t{t}\t \n" for s, t in PAIRS)))[0] == PAIRS
    for wrong in ("1", "1,2,3", "0,1", "a,b", "1,-2", "", "1,²"):
        with refused(
            f"Sentences.columns must be two numbers from 1 on, such as 1,2, not {wrong!r}"
        ):
            Sentences(columns=wrong)


# --- lines and files that are wrong ----------------------------------------------------------


def test_lines_that_are_no_pairs_are_skipped_with_their_numbers_and_reasons(tmp_path):
    bad = ["one column", "a\tb\tc", "\tb", "a\t", "", " \t ", "a\t \t", "  "]
    text = "\n".join(["a\tb", *bad, "c\td"])
    assert read(written(tmp_path, text)) == (
        [("a", "b"), ("c", "d")],
        "8 of 10 lines skipped: blank (lines 6, 7, 9); no target (lines 5, 8); no tab (line 2); "
        "more than one tab, see Sentences.columns (line 3); no source (line 4)",
    )
    summary = read(written(tmp_path, "\ufeff\r\n" + "x\n" * 1_200 + "a\tb"))[1]
    assert summary == (
        "1,201 of 1,202 lines skipped: no tab (lines 2, 3, 4, 5, 6 and 1,195 more); blank (line 1)"
    )
    source, target = written(tmp_path, "a\n\n \nd\n", "s"), written(tmp_path, "w\nx\n\n\n", "t")
    reasons = "no source (line 2); blank (line 3); no target (line 4)"
    assert read(f"{source},{target}") == ([("a", "w")], f"3 of 4 lines skipped: {reasons}")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", f"is empty: {RIGHT}"),
        ("\n\n", f"has no pair: {RIGHT}; 2 of 2 lines skipped: blank (lines 1, 2)"),
        (
            "Go.\tVa !\tCC-BY 2.0\n" * 9,
            f"has no pair: {RIGHT}; 9 of 9 lines skipped: "
            "more than one tab, see Sentences.columns (lines 1, 2, 3, 4, 5 and 4 more)",
        ),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_a_file_without_a_pair_is_refused_with_the_reasons_streamed_too(
    tmp_path, content, reason, stream
):
    """Fault 17d."""
    path = written(tmp_path, content)
    with refused(f"{path} {reason}"):
        Sentences(path, stream=stream).corpus()


@pytest.mark.parametrize(
    ("content", "line", "reason"),
    [
        (b"a\tb\n\xe4\tb\n", 2, "can't decode byte 0xe4"),
        (b"a\tb\n\n\nc\0", 4, "it has a zero byte"),
        (b"\x89PNG\r\n\x1a\n", 1, "can't decode byte 0x89"),
        ("a\tb\n".encode("utf-16"), 1, "can't decode byte 0xff"),
        ("a\tb\n".encode("utf-16-le"), 1, "it has a zero byte"),
        (bytes(10_000), 1, "it has a zero byte"),
    ],
)
def test_what_is_no_utf_8_text_is_refused_with_its_line(tmp_path, content, line, reason):
    path = written(tmp_path, content)
    message = rf"^line {line} of {path} is no UTF-8 text \(.*{reason}.*\): save it as UTF-8$"
    with pytest.raises(UserError, match=message):
        read(path)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda path: None, "cannot be read: No such file or directory"),
        (lambda path: path.symlink_to(path), "cannot be read: Too many levels of symbolic links"),
        (lambda path: path.mkdir(), "is no regular file: it is read more than once"),
        (os.mkfifo, "is no regular file: it is read more than once"),
    ],
    ids=["none", "loop", "folder", "pipe"],
)
def test_a_file_that_cannot_be_read_twice_is_refused_in_one_line(tmp_path, make, reason):
    """Fault 26g."""
    path, good = tmp_path / "missing", tsv(tmp_path, PAIRS)
    make(path)
    for task in (
        Sentences(str(path)),
        Sentences(f"{good},{path}"),
        Sentences(good, test=str(path)),
    ):
        with refused(f"{path} {reason}"):
            task.pairs()


def test_a_damaged_gzip_file_is_refused_in_one_line(tmp_path):
    packed = gzip.compress("".join(f"{n}\t{n * n}\n" for n in range(99)).encode())
    for content in (b"a\tb\n", packed[:-20], packed[:20] + b"\xff" * 9 + packed[29:]):
        path = written(tmp_path, content, "pairs.gz")
        with pytest.raises(UserError, match=f"^{path} cannot be read: .+"):
            read(path)


def test_aligned_files_of_different_lengths_are_refused(tmp_path):
    short, long = written(tmp_path, "a\nb\n", "s"), written(tmp_path, "c\nd\n\n", "t")
    for one, other in ((short, long), (long, short)):
        with refused(f"{one} and {other} are not aligned: only one has a line 3"):
            read(f"{one},{other}")
    none = written(tmp_path, "", "none")
    with refused(f"{none} and {none} is empty: a line must have text in both files"):
        read(f"{none},{none}")


@quickly
@given(content=st.binary(max_size=60) | st.text("ab\t\n\r \0é").map(str.encode))
def test_whatever_a_file_holds_it_is_read_or_refused_in_one_line(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "any.tsv"
    path.write_bytes(content)
    pairs, message = [], ""
    try:
        pairs, _ = read(str(path))
    except UserError as error:
        message = str(error)
    assert bool(pairs) == (not message)
    assert message.isprintable()
    assert str(path) in message or not message
    assert all(side == side.strip() != "" for pair in pairs for side in pair)


@pytest.mark.parametrize("given", ["", "a,", ",b", "a,b,c"])
def test_a_setting_is_a_file_or_two(given):
    for name in ("train", "dev", "test"):
        with pytest.raises(UserError, match=f"^Sentences.{name} must be a file of pairs, or two"):
            Sentences(**{name: given})


@pytest.mark.parametrize("share", [0.0, -0.1, 0.5, 1.0, float("nan")])
def test_impossible_shares_are_refused(share):
    with refused(f"Sentences.test_share must be between 0 and 0.5, not {share}"):
        Sentences(test_share=share)
    with pytest.raises(UserError, match=r"^Sentences.dev_share: Sentences.dev has a file"):
        Sentences(dev="dev.tsv", dev_share=0.1)


# --- splits ----------------------------------------------------------------------------------


def many(n: int = 2_000, seed: int = 0) -> list[tuple[str, str]]:
    """Pairs of which many share a source, in different letter case and spacing, or occur twice."""
    rng = random.Random(seed)
    sources = ["Satz {}!", "satz {} !", "SATZ  {}!", "satz {}!"]
    return [
        (rng.choice(sources).format(rng.randrange(n // 3)), f"sentence {rng.randrange(3)}")
        for _ in range(n)
    ]


def split(folder: Path, pairs, dev: float = 0.1, test: float = 0.2) -> dict:
    return PairFile(tsv(folder, pairs), None, {"dev": dev, "test": test}).read()[0]


def test_equal_sources_are_never_on_two_sides_and_pairs_keep_their_order(tmp_path):
    pairs = many()
    parts = split(tmp_path, pairs)
    types = [{source_type(source) for source, _ in part} for part in parts.values()]
    for a, b in itertools.combinations(types, 2):
        assert not a & b
    for name, part in parts.items():
        assert part == [pair for pair in pairs if pair in set(part)], name
    assert sum(map(len, parts.values())) == len(pairs)


def test_lines_that_are_added_or_moved_move_none_of_the_others(tmp_path):
    sides = lambda *args: {pair: name for name, part in split(*args).items() for pair in part}
    pairs, more = many(), many(3_000, seed=1)
    before = sides(tmp_path, pairs)
    random.Random(0).shuffle(more)
    assert before.items() <= sides(tmp_path, more + pairs[::-1]).items()
    assert sides(tmp_path, pairs[::2]).items() <= before.items()
    larger = sides(tmp_path, pairs, 0.2, 0.3)  # a larger share keeps the test set
    assert all(larger[pair] == "test" for pair, side in before.items() if side == "test")


def test_shares_are_met_as_closely_as_chance_has_it_and_the_split_stays_what_it_was(tmp_path):
    parts = split(tmp_path, [(f"satz {i}", "sentence") for i in range(10_000)])
    for name, share in (("train", 0.7), ("dev", 0.1), ("test", 0.2)):
        deviation = (share * (1 - share) * 10_000) ** 0.5
        assert abs(len(parts[name]) - share * 10_000) < 4 * deviation
    parts = split(tmp_path, [(f"Satz {i}", "x") for i in range(30)], 0.2, 0.2)
    numbers = {name: [int(s.split()[1]) for s, _ in part] for name, part in parts.items()}
    # int(sha256(b"satz0").hexdigest(), 16) / 2**256: below 0.2 test, below 0.4 dev
    assert numbers["test"] == [1, 2, 3, 7, 13, 17, 26, 29]
    assert numbers["dev"] == [14, 15, 18, 19, 20, 21]


def test_a_source_type_is_the_sentence_without_letter_case_blanks_or_decomposition():
    for text in ("Don't go", "don ' t go", " DON'T  GO ", "don't\u00a0go"):
        assert source_type(text) == "don'tgo"
    assert source_type("A\u0308") == source_type("Ä") == "ä"
    assert len(set(map(source_type, ("go", "go .", "gö", "got")))) == 4


@pytest.mark.parametrize("stream", [False, True])
def test_a_split_without_a_source_is_refused(tmp_path, stream):
    """Fault 17."""
    path = tsv(tmp_path, [PAIRS[0]] * 200)
    with refused(
        f"{path} has no source for dev, whose share is 0.05: give more sources, or another share"
    ):
        Sentences(path, stream=stream).corpus()


# --- the task --------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
def test_a_source_of_dev_or_test_is_asked_once_and_all_its_targets_are_right(tmp_path, stream):
    train = tsv(tmp_path, [("Rot", "red"), ("rot", "red"), ("blau", "blue"), ("grün", "lawn")])
    dev = tsv(tmp_path, [("rot", "red"), ("gelb", "y"), ("rot", "ruby"), ("rot", "red")], "dev.tsv")
    test = tsv(tmp_path, [("weiß", "white"), ("blau", "azure")], "test.tsv")
    task = Sentences(train, dev, test, stream=stream)
    splits, answers, notes = task.corpus()
    assert list(splits["train"]) == list(splits["train"])
    assert len(list(splits["train"])) == 4
    assert splits["dev"] == [("rot", "red"), ("gelb", "y")]
    assert splits["test"] == [("weiß", "white"), ("blau", "azure")]
    assert task.answers(" rot ") == ("red", "ruby")
    assert task.answers("blau") == ("azure",)
    assert ("grün" in answers.get("train", {})) == (not stream)
    assert notes == {
        "train": "4 pairs, no line skipped",
        "dev": "4 pairs, no line skipped",
        "test": "2 pairs, no line skipped",
        "dev sources with several right answers": "1",
        "dev sources that are also trained on": "1 of 2",
        "test sources that are also trained on": "1 of 2",
    }
    with refused("'lila' is no source of this run's files"):
        task.answers("lila")


def test_right_answers_are_those_of_the_split_that_asks(tmp_path):
    names = ("train", "dev", "test")
    files = [tsv(tmp_path, [("rot", f"{n} 1"), ("rot", f"{n} 2")], f"{n}.tsv") for n in names]
    task = Sentences(*files)
    own = {split: task.corpus().answers[split]["rot"] for split in names}
    assert own == {n: (f"{n} 1", f"{n} 2") for n in names}
    assert task.answers("rot") == own["test"]  # of a person's question


def test_streamed_splits_are_those_in_memory(tmp_path):
    path = tsv(tmp_path, [*many(300), ("no tab", "")])
    memory, streamed = (Sentences(path, stream=stream).corpus() for stream in (False, True))
    assert {name: list(pairs) for name, pairs in memory.splits.items()} == {
        name: list(pairs) for name, pairs in streamed.splits.items()
    }
    assert isinstance(streamed.splits["train"], PairFile)
    assert memory.notes == streamed.notes
    for split in ("dev", "test"):
        assert streamed.answers[split] == memory.answers[split]


def test_a_changed_file_is_refused(tmp_path):
    train, test = tsv(tmp_path, many(300)), tsv(tmp_path, PAIRS, "test.tsv")
    task = Sentences(train, test=test).pinned()
    digests = [hashlib.sha256(Path(path).read_bytes()).digest() for path in (train, test)]
    assert task.sha256 == hashlib.sha256(b"".join(digests)).hexdigest()
    assert task.pinned() == task
    pairs = task.pairs()
    tsv(tmp_path, [*PAIRS, ("neu", "new")], "test.tsv")
    message = f"^{train} .* is not as this run began with it: its content has changed$"
    with pytest.raises(UserError, match=message):
        task.pinned()
    assert task.pairs() == pairs  # what was read before
    assert len(Sentences(train, test=test).pairs()["test"]) == 4
