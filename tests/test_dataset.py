"""Settings to vocabularies and rows: any unit on any task, in memory and memory-mapped."""

from dataclasses import dataclass, replace
from pathlib import Path

import jax
import numpy as np
import pytest

from s2sjax.config import Text
from s2sjax.data.dataset import lay_out, make_formatter, pairs_of, rows_of, seed_key
from s2sjax.data.sentences import PairFile, Sentences
from s2sjax.data.subwords import SubwordVocabulary
from s2sjax.data.tasks import Addition, Dates, Toy
from s2sjax.data.vocab import CharacterVocabulary
from s2sjax.data.words import WordVocabulary
from s2sjax.errors import UserError

SPLITS = ("train", "dev", "test")
FEW = {"train": 60, "dev": 20, "test": 20}
SUMS, STRINGS = Addition(digits=3, **FEW), Toy(symbols=3, max_length=5, **FEW)
DATES = Dates(locales="en_US,ru", **FEW)
WORDS = Text("words", "words")
BYTES = Text("subwords", "subwords", source_size=260, target_size=260)


@dataclass(frozen=True)
class Drawn(Toy):
    """A task whose pairs are those of its lines and of the key; `widths` are their max_length."""

    widths: int | None = None
    characters = None
    source_width = target_width = property(lambda self: self.widths)

    def pairs(self, key):
        number = int(jax.random.randint(key, (), 0, 100))
        train = [(f"same {number}", "yes"), ("same 🙂", "no")]
        return {"train": train, "dev": [("other", "maybe")], "test": [("else", "never")]}


@pytest.fixture
def files(tmp_path: Path) -> Sentences:
    """Lines of 2 to 5 words and of many, some twice, some no pairs; among them in every split."""
    rng = np.random.default_rng(0)
    lines = []
    for i in range(120):
        size = 40 if i % 10 == 0 else rng.integers(1, 5)
        lines.append(f"w{i} {'é🙂 ' * size}\t{'x ' * size}{i}")
    text = "\n".join([*lines, lines[1], "no tab", "", *lines[:3]])
    (tmp_path / "pairs.tsv").write_text(text, encoding="utf-8")
    return Sentences(str(tmp_path / "pairs.tsv"), dev_share=0.2, test_share=0.2)


# --- vocabularies ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("task", "text", "kinds"),
    [
        (SUMS, BYTES, (SubwordVocabulary, SubwordVocabulary)),
        (SUMS, Text("words", source_order="doubled"), (WordVocabulary, CharacterVocabulary)),
        (DATES, Text("words"), (WordVocabulary, CharacterVocabulary)),
        (DATES, Text("subwords", "words", cut="whitespace"), (SubwordVocabulary, WordVocabulary)),
        (STRINGS, Text("characters", "subwords"), (CharacterVocabulary, SubwordVocabulary)),
        (STRINGS, BYTES, (SubwordVocabulary, SubwordVocabulary)),
        (Drawn(widths=9), BYTES, (SubwordVocabulary, SubwordVocabulary)),
        (None, Text("characters", "words"), (CharacterVocabulary, WordVocabulary)),
        (None, Text("words", "subwords"), (WordVocabulary, SubwordVocabulary)),
    ],
    ids=str,
)
def test_any_unit_goes_with_any_task_and_widths_suffice(files, task, text, kinds):
    task, text = task or files, replace(text, max_length=1_000)
    formatter = make_formatter(task, text)
    assert (type(formatter.source), type(formatter.target)) == kinds
    for seed in (0, 1):
        for split in SPLITS:
            pairs, examples, lengths, left_out = rows_of(task, text, seed, split)
            assert list(pairs) == list(pairs_of(task, seed)[split])
            assert (left_out, lengths.shape) == (0, (len(pairs), 2))
            widths = formatter.row_widths or tuple(lengths.max(axis=0))
            assert tuple(rows.shape[1] for rows in examples) == widths
            for n, (pair, source, target) in enumerate(zip(pairs, *examples, strict=True)):
                rows = formatter.row(pair)
                assert tuple(map(len, rows)) == tuple(lengths[n])
                assert (source[: lengths[n, 0]].tolist(), target[: lengths[n, 1]].tolist()) == rows
                if kinds[1] is not WordVocabulary:
                    assert formatter.read(target[1:]) == pair[1]


def test_the_longest_subwords_fit_where_they_are_bytes():
    task = Addition(digits=2, splits="independent")
    formatter = make_formatter(task, BYTES)
    assert tuple(map(len, formatter.row(("99+99", "198")))) == formatter.row_widths == (7, 6)


def test_vocabularies_are_made_of_training_pairs_alone_and_the_same_for_all_seeds():
    for task in (Drawn(), Drawn(widths=20)):
        formatter = make_formatter(task, WORDS)
        assert formatter.target.symbols[4:] == ("no", "yes")
        assert formatter.source.encode("other else") == [3, 3]
        assert len(formatter.source) == 7  # same, 🙂, and the number of one fixed key
        assert pairs_of(task, 0)["train"] != pairs_of(task, 1)["train"]
    assert make_formatter(DATES, WORDS) is make_formatter(DATES, WORDS)


def test_a_vocabulary_of_files_is_made_of_their_training_pairs(files):
    formatter = make_formatter(files, Text("words", "words", source_size=30, min_count=2))
    train = list(files.pairs()["train"])
    assert formatter.source == WordVocabulary.build((s for s, _ in train), min_count=2, max_size=30)
    assert formatter.target == WordVocabulary.build((t for _, t in train), min_count=2)
    characters = make_formatter(files, Text()).source
    assert set(characters.characters) == set("".join(source for source, _ in train))


def test_no_text_of_a_task_is_unknown():
    for task in (SUMS, STRINGS, DATES):
        formatter = make_formatter(task, Text())
        for split in SPLITS:
            for rows in rows_of(task, Text(), 0, split).examples:
                assert (rows != formatter.source.unk_id).all()


def test_what_has_no_width_cannot_be_justified_and_one_symbol_cannot_be_given():
    for side in ("source", "target"):
        message = f"Text.{side}_justify needs a task with a known longest string"
        with pytest.raises(UserError, match=message):
            make_formatter(Drawn(), Text(**{f"{side}_justify": "right"}))
    with pytest.raises(UserError, match="needs answers of more than one symbol"):
        make_formatter(Toy(max_length=1, train=1, dev=1, test=1), Text(start="first_target"))


# --- rows ------------------------------------------------------------------------------------


def test_pairs_are_drawn_once_for_a_seed_and_files_are_read_once_for_all(files):
    assert pairs_of(SUMS, 0) is pairs_of(SUMS, 0)
    assert pairs_of(SUMS, 0)["train"] != pairs_of(SUMS, 1)["train"]
    assert rows_of(files, WORDS, 0, "train") is rows_of(files, WORDS, 1, "train")


def test_keys_are_those_of_one_generator_whatever_is_set():
    with jax.default_prng_impl("rbg"):
        key = seed_key(3)
    assert str(jax.random.key_impl(key)) == "threefry2x32"
    assert jax.random.key_data(key).tolist() == [0, 3]


@pytest.mark.parametrize("stream", [False, True])
def test_pairs_that_are_too_long_are_left_out_of_every_split(files, stream):
    """Fault 26k."""
    task, text = replace(files, stream=stream), replace(WORDS, max_length=10)
    for split in SPLITS:
        pairs = list(files.pairs()[split])
        kept = [pair for pair in pairs if len(pair[0].split()) < 8]
        found = rows_of(task, text, 0, split)
        assert (len(found.lengths), found.left_out) == (len(kept), len(pairs) - len(kept))
        assert found.left_out > 0
        if not (stream and split == "train"):
            assert list(found.pairs) == kept
    doubled = rows_of(task, replace(text, source_order="doubled"), 0, "test")
    assert len(doubled.lengths) == len(kept)  # both arms have the same pairs


@pytest.mark.parametrize("stream", [False, True])
def test_pairs_that_are_all_too_long_are_refused_in_one_line(files, stream):
    text = replace(WORDS, max_length=1)
    with pytest.raises(UserError, match=r"^no pair of a split \(\d+\) has at most 1 sy"):
        rows_of(replace(files, stream=stream), text, 0, "train")


@pytest.mark.parametrize("order", ["forward", "doubled"])
def test_streamed_rows_are_those_in_memory_in_the_same_order_and_memory_mapped(files, order):
    text = replace(WORDS, max_length=10, source_order=order)
    streamed = replace(files, stream=True)
    assert make_formatter(streamed, text) == make_formatter(files, text)
    for split in SPLITS:
        memory, mapped = (rows_of(task, text, 0, split) for task in (files, streamed))
        assert (mapped.lengths.tolist(), mapped.left_out) == (
            memory.lengths.tolist(),
            memory.left_out,
        )
        for ours, theirs in zip(memory.examples, mapped.examples, strict=True):
            assert ours.dtype == theirs.dtype == np.int32
            assert (theirs[:, : ours.shape[1]] == ours).all()
            assert (theirs[:, ours.shape[1] :] == 0).all()
    mapped = rows_of(streamed, text, 0, "train")
    assert all(isinstance(rows, np.memmap) for rows in mapped.examples)
    assert mapped.pairs == []


def test_a_stream_is_read_anew_whenever_it_is_iterated(files):
    lines = files.train
    assert list(pairs := PairFile(lines)) == list(pairs) != []
    assert not lay_out(make_formatter(files, WORDS), []).examples.source.size
