"""Sentence pairs: read, with every way a file can be wrong; filtered; split without leaks."""

import hashlib
import itertools
import math
import random
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s2sjax.errors import UserError
from s2sjax.sentences import (
    Corpus,
    read_aligned,
    read_pairs,
    source_type,
    split,
)

PAIRS = [("ein hund .", "a dog ."), ("zwei männer", "two men"), ("雪", "snow")]
COLUMNS = "a line must be SOURCE, one tab, TARGET"
BOTH = "a line must have text in both"

quickly = settings(derandomize=True, max_examples=100)


def written(folder: Path, content: str | bytes, name: str = "pairs.tsv") -> str:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return str(path)


def refused(message: str):
    return pytest.raises(UserError, match=f"^{re.escape(message)}$")


# --- files that are right --------------------------------------------------------------------


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("last", [True, False])
def test_line_ends_and_a_byte_order_mark_do_not_matter(tmp_path, end, mark, last):
    rows = [map("\t".join, PAIRS), *zip(*PAIRS, strict=True)]
    texts = [mark + end.join(row) + end * last for row in rows]
    whole, source, target = (written(tmp_path, text, str(i)) for i, text in enumerate(texts))
    assert read_pairs(whole) == read_aligned(source, target) == Corpus(PAIRS, [])


def test_nothing_but_a_line_feed_ends_a_line(tmp_path):
    sides = ("a\u2028b\x0bc", "d\x85e\x0cf\x1cg\rh")
    text = "\t".join(sides) + "\n"
    assert read_pairs(written(tmp_path, text)).pairs == [sides]
    source, target = (written(tmp_path, side, name) for side, name in zip(sides, "st", strict=True))
    assert read_aligned(source, target).pairs == [sides]


def test_blanks_around_a_side_are_taken_off_and_those_inside_are_kept(tmp_path):
    path = written(tmp_path, "  a  b \t\u00a0c \r\n")
    assert read_pairs(path) == Corpus([("a  b", "c")], [])


def test_a_tab_in_an_aligned_file_is_a_blank_like_any_other(tmp_path):
    source, target = written(tmp_path, "a\tb\n", "s"), written(tmp_path, "c\n", "t")
    assert read_aligned(source, target).pairs == [("a\tb", "c")]


# --- lines that are wrong --------------------------------------------------------------------

BAD = ["one column", "a\tb\tc", "\tb", "a\t", "", " \t ", "a\t \t", "  "]
WHY = [
    "no tab", "more than one tab", "no source", "no target",
    "blank", "blank", "more than one tab", "blank",
]  # fmt: skip


def test_a_line_that_is_no_pair_is_skipped_with_its_number_and_the_reason(tmp_path):
    lines = ["a\tb", *BAD, "c\td"]
    corpus = read_pairs(written(tmp_path, "\n".join(lines) + "\n"))
    assert corpus.pairs == [("a", "b"), ("c", "d")]
    assert corpus.skipped == list(enumerate(WHY, start=2))


def test_lines_are_numbered_from_1_behind_a_byte_order_mark(tmp_path):
    assert read_pairs(written(tmp_path, "\ufeff\r\na\tb\r\n")).skipped == [(1, "blank")]


def test_an_aligned_line_without_text_in_both_is_skipped(tmp_path):
    source, target = written(tmp_path, "a\n\n \nd\n", "s"), written(tmp_path, "w\nx\n\n\n", "t")
    assert read_aligned(source, target) == Corpus(
        [("a", "w")], [(2, "no source"), (3, "blank"), (4, "no target")]
    )


@pytest.mark.parametrize(
    ("skipped", "summary"),
    [
        ([], "3 pairs, no line skipped"),
        ([(2, "blank")], "1 of 4 lines skipped: blank (line 2)"),
        (
            [(2, "no tab"), (3, "blank"), (6, "blank")],
            "3 of 6 lines skipped: blank (lines 3, 6); no tab (line 2)",
        ),
        (
            [(n, "no tab") for n in range(1_000, 1_005)],
            "5 of 8 lines skipped: no tab (lines 1,000, 1,001, 1,002, 1,003, 1,004)",
        ),
        (
            [(n, "no tab") for n in range(7, 2_007)],
            "2,000 of 2,003 lines skipped: no tab (lines 7, 8, 9, 10, 11 and 1,995 more)",
        ),
    ],
)
def test_the_summary_is_one_line_with_the_first_numbers(skipped, summary):
    assert Corpus(PAIRS, skipped).summary() == summary


# --- files that are wrong --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", f"is empty: {COLUMNS}"),
        ("\ufeff", f"is empty: {COLUMNS}"),
        ("\n\n", f"has no sentence pair: {COLUMNS}; 2 of 2 lines skipped: blank (lines 1, 2)"),
        ("a b", f"has no sentence pair: {COLUMNS}; 1 of 1 lines skipped: no tab (line 1)"),
        (
            "Go.\tVa !\tCC-BY 2.0\n" * 9,
            f"has no sentence pair: {COLUMNS}; 9 of 9 lines skipped: "
            "more than one tab (lines 1, 2, 3, 4, 5 and 4 more)",
        ),
        (b"a\tb\n\xe4\tb\n", "is no UTF-8 text: byte 5, in line 2, is 0xe4; save it as UTF-8"),
        (b"\xef\xbb\xbfa\xff", "is no UTF-8 text: byte 5, in line 1, is 0xff; save it as UTF-8"),
        (b"a\tb\xe9\x9b", "is no UTF-8 text: byte 4, in line 1, is 0xe9; save it as UTF-8"),
        (b"a\tb\n\n\nc\0", "is no UTF-8 text: byte 8, in line 4, is 0x00; save it as UTF-8"),
        (b"\x89PNG\r\n\x1a\n", "is no UTF-8 text: byte 1, in line 1, is 0x89; save it as UTF-8"),
        (
            "a\tb\n".encode("utf-16"),
            "is no UTF-8 text: byte 1, in line 1, is 0xff; save it as UTF-8",
        ),
        (
            "a\tb\n".encode("utf-16-le"),
            "is no UTF-8 text: byte 2, in line 1, is 0x00; save it as UTF-8",
        ),
        (bytes(10_000), "is no UTF-8 text: byte 1, in line 1, is 0x00; save it as UTF-8"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused(tmp_path, content, reason):
    path = written(tmp_path, content)
    with refused(f"{path} {reason}"):
        read_pairs(path)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda path: None, "No such file or directory"),
        (lambda path: path.mkdir(), "Is a directory"),
        (lambda path: path.symlink_to(path), "Too many levels of symbolic links"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused(tmp_path, make, reason):
    path, good = tmp_path / "missing", written(tmp_path, "a\tb\n")
    make(path)
    for attempt in (
        lambda: read_pairs(str(path)),
        lambda: read_aligned(str(path), good),
        lambda: read_aligned(good, str(path)),
    ):
        with refused(f"{path} cannot be read: {reason}"):
            attempt()


def test_aligned_files_of_different_lengths_are_refused(tmp_path):
    source, target = written(tmp_path, "a\nb\n", "s"), written(tmp_path, "c\nd\n\n", "t")
    with refused(
        f"{source} has 2 lines and {target} 3: "
        "each line of one must be the translation of the same line of the other"
    ):
        read_aligned(source, target)


@pytest.mark.parametrize(
    ("source", "target", "reason"),
    [
        ("", "", f"is empty: {BOTH}"),
        (
            "a\n\n",
            "\nb\n",
            f"has no sentence pair: {BOTH}; "
            "2 of 2 lines skipped: no target (line 1); no source (line 2)",
        ),
    ],
)
def test_aligned_files_without_a_pair_are_refused(tmp_path, source, target, reason):
    paths = written(tmp_path, source, "s"), written(tmp_path, target, "t")
    with refused(f"{paths[0]} with {paths[1]} {reason}"):
        read_aligned(*paths)


@quickly
@given(content=st.binary(max_size=60) | st.text("ab\t\n\r \0é").map(str.encode))
def test_whatever_a_file_holds_it_is_read_or_refused_in_one_line(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "any.tsv"
    path.write_bytes(content)
    corpus, message = None, ""
    try:
        corpus = read_pairs(str(path))
    except UserError as error:
        message = str(error)
    if corpus is None:
        assert message.startswith(str(path))
        assert message.isprintable()
    else:
        assert corpus.pairs
        assert all(side == side.strip() != "" for pair in corpus.pairs for side in pair)
        assert len(corpus.pairs) + len(corpus.skipped) == len(
            content.split(b"\n")
        ) - content.endswith(b"\n")


# --- splits ----------------------------------------------------------------------------------


def many(n: int = 2_000, seed: int = 0) -> list[tuple[str, str]]:
    """Pairs of which many share a source, in different letter case and spacing, or occur twice."""
    rng = random.Random(seed)
    sources = ["Satz {}!", "satz {} !", "  SATZ  {}!", "satz {}!"]
    return [
        (rng.choice(sources).format(rng.randrange(n // 3)), f"sentence {rng.randrange(3)}")
        for _ in range(n)
    ]


@pytest.mark.parametrize("seed", range(3))
def test_equal_sources_are_never_on_two_sides(seed):
    pairs = many(seed=seed)
    parts, duplicates = split(pairs, 0.1, 0.2)
    types = {name: {source_type(source) for source, _ in part} for name, part in parts.items()}
    for a, b in itertools.combinations(types.values(), 2):
        assert not a & b
    whole = [pair for part in parts.values() for pair in part]
    assert len(set(whole)) == len(whole)
    assert set(whole) == set(pairs)
    assert duplicates == len(pairs) - len(set(pairs)) > 0


def sides(pairs: list[tuple[str, str]], *shares: float) -> dict[tuple[str, str], str]:
    return {pair: name for name, part in split(pairs, *shares).parts.items() for pair in part}


def test_lines_that_are_added_or_moved_move_none_of_the_others():
    pairs, more = many(), many(3_000, seed=1)
    before = sides(pairs, 0.1, 0.2)
    random.Random(0).shuffle(more)
    after = sides(more + pairs[::-1], 0.1, 0.2)
    assert before.items() <= after.items()
    assert sides(pairs[::2], 0.1, 0.2).items() <= before.items()


def test_a_larger_test_share_keeps_the_test_set():
    before, after = sides(many(), 0.0, 0.1), sides(many(), 0.1, 0.2)
    assert all(after[pair] == "test" for pair, side in before.items() if side == "test")


def test_pairs_keep_their_order():
    pairs = list(dict.fromkeys(many()))
    for part in split(pairs, 0.1, 0.2).parts.values():
        assert part == sorted(part, key=pairs.index)


def test_shares_are_met_as_closely_as_chance_has_it():
    pairs = [(f"satz {i}", "sentence") for i in range(10_000)]
    parts = split(pairs, 0.1, 0.2).parts
    for name, share in (("train", 0.7), ("dev", 0.1), ("test", 0.2)):
        deviation = (share * (1 - share) * len(pairs)) ** 0.5
        assert abs(len(parts[name]) - share * len(pairs)) < 4 * deviation


def test_a_side_is_drawn_by_the_hash_of_the_type():
    for i in range(100):
        place = int(hashlib.sha256(f"ärger{i}!".encode()).hexdigest()[:16], 16) / 2**64
        side = "test" if place < 0.3 else "dev" if place < 0.6 else "train"
        pair, others = (f"A\u0308rger {i} !", "x"), [(f"{n}", "") for n in range(50)]
        assert sides([pair, *others], 0.3, 0.3)[pair] == side


def test_the_split_stays_what_it_was():
    parts = split([(f"satz {i}", "") for i in range(30)], 0.2, 0.2).parts
    numbers = {name: [int(s.split()[1]) for s, _ in part] for name, part in parts.items()}
    # int(sha256(b"satz0").hexdigest(), 16) / 2**256: below 0.2 test, below 0.4 dev
    assert numbers["test"] == [1, 2, 3, 7, 13, 17, 26, 29]
    assert numbers["dev"] == [14, 15, 18, 19, 20, 21]
    assert len(numbers["train"]) == 16


def test_a_part_without_a_share_is_empty():
    assert split(PAIRS, 0.0, 0.0) == ({"train": PAIRS, "dev": [], "test": []}, 0)


def test_a_share_that_no_pair_falls_to_is_refused():
    with refused(
        "of 3 pairs none falls to dev, whose share is 0.001: give more pairs or another share"
    ):
        split(PAIRS, 0.001, 0.0)
    with refused(
        "of 0 pairs none falls to train, whose share is 1: give more pairs or another share"
    ):
        split([], 0.0, 0.0)


@pytest.mark.parametrize(
    "shares", [(-0.1, 0.1), (0.1, -0.1), (0.5, 0.5), (1.0, 0.0), (math.nan, 0.0)]
)
def test_impossible_shares_are_refused(shares):
    dev, test = shares
    with refused(f"dev_share {dev} and test_share {test} must be at least 0 and below 1 together"):
        split(PAIRS, *shares)


def test_a_source_type_is_the_sentence_without_letter_case_blanks_or_decomposition():
    for text in ("Don't go", "don ' t go", " DON'T  GO ", "don't\u00a0go"):
        assert source_type(text) == "don'tgo"
    assert source_type("A\u0308") == source_type("Ä") == "ä"
    assert len(set(map(source_type, ("go", "go .", "gö", "got")))) == 4
