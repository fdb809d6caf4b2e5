"""Settings to vocabularies, and pairs to arrays of rows, in memory or memory-mapped."""

import tempfile
from array import array
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Int

from s2sjax import serial
from s2sjax.config import Text
from s2sjax.data.rows import Examples, Formatter
from s2sjax.data.sampling import HELD_OUT_SEED
from s2sjax.data.sentences import PairFile
from s2sjax.data.subwords import SubwordVocabulary
from s2sjax.data.tasks import TaskConfig
from s2sjax.data.vocab import BOS, EOS, CharacterVocabulary, Vocabulary
from s2sjax.data.words import Rules, WordVocabulary
from s2sjax.errors import UserError


class Split(NamedTuple):
    """The rows of one split, in memory or memory-mapped."""

    pairs: Sequence[tuple[str, str]]  # empty where the text stays on disk
    examples: Examples
    lengths: Int[np.ndarray, "n 2"]  # symbols of every source and target row, without padding
    left_out: int = 0  # pairs that were too long


def seed_key(seed: int) -> jax.Array:
    """A typed key of threefry2x32, whatever JAX's settings say."""
    return jax.random.key(seed, impl="threefry2x32")


@lru_cache(maxsize=128)
def pairs_of(task: TaskConfig, seed: int) -> Mapping[str, Iterable[tuple[str, str]]]:
    """Text pairs of train, dev and test; drawn once for all arms."""
    return task.pairs(jax.random.fold_in(seed_key(seed), 0))  # 0: the stream of the data


def rows_of(task: TaskConfig, text: Text, seed: int, split: str) -> Split:
    """The rows of a split; all seeds share one object if no seed decides them."""
    if task.sizes is None:
        return _shared_rows(task, text, split)
    return lay_out(make_formatter(task, text), pairs_of(task, seed)[split])


@lru_cache(maxsize=32)
def _shared_rows(task: TaskConfig, text: Text, split: str) -> Split:
    return lay_out(make_formatter(task, text), task.pairs(seed_key(0))[split])


@lru_cache(maxsize=64)
def make_formatter(task: TaskConfig, text: Text) -> Formatter:
    """The formatter of a run, with the vocabularies that all seeds share.

    If a task knows its characters, they are the vocabulary of both sides. Other vocabularies are
    built from training pairs: those of the files, or those that one fixed key draws.
    """
    source, target = (_vocabulary(task, text, side) for side in (0, 1))
    if task.source_width is None or task.target_width is None:
        if text.source_justify or text.target_justify:
            side = "source" if text.source_justify else "target"
            raise UserError(f"Text.{side}_justify needs a task with a known longest string")
        return Formatter(text, source, target, None)
    # A text has at most as many words as characters, and as many subwords as bytes, plus a blank.
    most = max(len(c.encode()) for c in task.characters or "\U0010ffff")
    sides = (text.source_unit, task.source_width), (text.target_unit, task.target_width)
    read, written = (most * n + 1 if unit == "subwords" else n for unit, n in sides)
    if text.start == "first_target" and written == 1:
        raise UserError("Text.start 'first_target' needs answers of more than one symbol")
    return Formatter(text, source, target, (read, written))


def _vocabulary(task: TaskConfig, text: Text, side: int) -> Vocabulary:
    unit, size = [(text.source_unit, text.source_size), (text.target_unit, text.target_size)][side]
    if unit == "characters" and task.characters is not None:
        if text.source_justify is None or text.target_justify is None:
            return CharacterVocabulary(task.characters)
        # All rows are full: as in the notebook, there is no padding and no unused symbol.
        begin = (BOS,) if text.start == "bos" else ()
        end = (EOS,) if text.source_eos or text.target_eos else ()
        return CharacterVocabulary(task.characters, begin + end)
    texts = (pair[side] for pair in task.pairs(seed_key(HELD_OUT_SEED))["train"])
    if unit == "words":
        rules = Rules(text.lower_case, text.cut)
        return WordVocabulary.build(texts, rules, min_count=text.min_count, max_size=size)
    kind = SubwordVocabulary if unit == "subwords" else CharacterVocabulary
    return kind.build(texts, min_count=text.min_count, max_size=size)


def load_vocabulary(values: Any, where: str = "the vocabulary") -> Vocabulary:
    """The vocabulary of which `Vocabulary.to_json` gave `values`, with equal ids.

    Raises UserError for values that are damaged; `where` names their file.
    """
    try:
        match values:
            case {"kind": "characters", "characters": str(characters), "specials": specials}:
                return CharacterVocabulary(characters, _strings(specials))
            case {"kind": "words", "words": words, "rules": rules}:
                rules = serial.from_json(Rules, rules, f"{where} is damaged: rules")
                return WordVocabulary(_strings(words), rules)
            case {"kind": "subwords", "merges": list(merges)}:
                pairs = tuple((left, right) for left, right in map(_strings, merges))
                return SubwordVocabulary(pairs)
    except ValueError as error:
        raise UserError(f"{where} is damaged: {error}") from error
    raise UserError(f"{where} is damaged: it has no characters, words or subwords")


def _strings(values: Any) -> tuple[str, ...]:
    if isinstance(values, list) and all(isinstance(value, str) for value in values):
        return tuple(values)
    raise ValueError(f"{str(values)[:80]} is no list of strings")


def lay_out(formatter: Formatter, pairs: Iterable[tuple[str, str]]) -> Split:
    """Pairs to rows, in memory; those of a `PairFile` in memory-mapped temporary files.

    Where no width is known, pairs longer than `Text.max_length` are left out; if all are too long,
    this raises UserError.
    """
    max_length = formatter.text.max_length
    most = formatter.row_widths or formatter.with_ends(max_length, max_length)
    on_disk = isinstance(pairs, PairFile)
    kept, rows, lengths, total = [], [], array("q"), 0
    with ExitStack() as stack:
        files = [stack.enter_context(tempfile.TemporaryFile()) for _ in most if on_disk]
        for total, pair in enumerate(pairs, start=1):  # noqa: B007
            row = formatter.row(pair)
            if formatter.widths is None and (len(row[0]) > most[0] or len(row[1]) > most[1]):
                continue
            lengths.extend(map(len, row))
            if on_disk:
                for file, ids in zip(files, formatter.filled([row], most), strict=True):
                    file.write(ids.tobytes())
            else:
                kept.append(pair)
                rows.append(row)
        n = len(lengths) // 2
        if n < min(total, 1):
            raise UserError(
                f"no pair of a split ({total:,}) has at most {max_length} symbols on each side: "
                "raise Text.max_length"
            )
        if on_disk:
            maps = (np.memmap(files[i], np.int32, "r", shape=(n, most[i])) for i in (0, 1))
            examples = Examples(*maps)
        else:
            examples = formatter.filled(rows)
    return Split(kept, examples, np.array(lengths, np.int64).reshape(n, 2), total - n)
