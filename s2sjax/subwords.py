"""Subwords: pieces of words, found by merging bytes, from which any text can be put together.

Byte-pair encoding (Sennrich, Haddow & Birch, 2016) over the bytes of UTF-8, each written as a
character that can be seen, inside what GPT-2's regular expression takes for a word (Radford et al.,
2019). The package `tokenizers` learns and applies the merges.
"""

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from s2sjax.errors import LARGEST, UserError
from s2sjax.extras import require
from s2sjax.vocab import SPECIALS, Vocabulary, visible


def _alphabet() -> tuple[str, ...]:
    """The character that each of the 256 bytes is written as: GPT-2's."""
    seen = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), 256)]
    unseen = iter(range(256, 512))
    return tuple(chr(byte if byte in seen else next(unseen)) for byte in range(256))


ALPHABET = _alphabet()
"""The character that each byte is written as; a blank is 'Ġ'."""

_BYTES = {character: byte for byte, character in enumerate(ALPHABET)}


def _package() -> Any:
    """The package `tokenizers`, kept to one thread.

    Its threads are for larger texts than ours: on a busy machine they wait for each other, and what
    takes one thread a second takes them half a minute. Nor do they survive a fork.
    """
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    return require("tokenizers")


def _tokenizer(ids: dict[str, int], merges: list[tuple[str, str]]) -> Any:
    """A byte-level tokenizer that knows of no special symbols."""
    package = _package()
    tokenizer = package.Tokenizer(package.models.BPE(ids, merges))
    tokenizer.pre_tokenizer = package.pre_tokenizers.ByteLevel(add_prefix_space=False)
    return tokenizer


def _prefixed(text: str) -> str:
    """A text with a blank before it; raises UserError for what UTF-8 cannot write."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UserError(f"{text!r} cannot be written in UTF-8: {error.reason}") from error
    return " " + text if text else text


@dataclass(frozen=True)
class SubwordVocabulary(Vocabulary):
    """The four special symbols, the 256 bytes, then what the merges make.

    No text has anything unknown, and every text is restored to the letter:
    ``decode(encode(text)) == text``. To that end nothing is lower-cased or composed. A blank is put
    before the text and taken off again, so that a word at its start is the symbol that it is
    elsewhere. What a model writes may be no UTF-8: then it shows "\ufffd".

    Attributes:
        merges: pairs of symbols, the most important first; each makes one symbol.
    """

    merges: tuple[tuple[str, str], ...]

    def __post_init__(self) -> None:
        known = set(ALPHABET)
        for left, right in self.merges:
            if not {left, right} <= known:
                raise ValueError(f"the merge of {left!r} and {right!r} has an unknown part")
            known.add(left + right)

    @classmethod
    def build(
        cls, texts: Iterable[str], *, max_size: int, min_count: int = 2
    ) -> "SubwordVocabulary":
        """Learn the merges; the same texts, in any order, give the same ones.

        Args:
            texts: what is counted.
            max_size: most symbols, the special ones and the bytes included.
            min_count: a pair of symbols that occurs less often is not merged.

        Raises:
            UserError: a limit is out of range, a text cannot be written in UTF-8, or the extra
                `text` is not installed.
        """
        if not 260 <= max_size <= LARGEST:
            raise UserError(
                "max_size must be at least 260 (four special symbols and 256 bytes) "
                f"and at most {LARGEST:,}, not {max_size}"
            )
        if min_count < 1:
            raise UserError(f"min_count must be at least 1, not {min_count}")
        tokenizer = _tokenizer({}, [])
        trainer = _package().trainers.BpeTrainer(
            vocab_size=max_size - len(SPECIALS),
            min_frequency=min_count,
            initial_alphabet=list(ALPHABET),
            special_tokens=[],
            show_progress=False,
        )
        tokenizer.train_from_iterator(map(_prefixed, texts), trainer)
        learnt = json.loads(tokenizer.to_str())["model"]["merges"]
        return cls(tuple((left, right) for left, right in learnt))

    @cached_property
    def symbols(self) -> tuple[str, ...]:
        """Every symbol, at the position that is its id."""
        made = (left + right for left, right in self.merges)  # two merges can make the same
        return (*self.specials, *dict.fromkeys((*ALPHABET, *made)))

    @cached_property
    def _merger(self) -> Any:
        return _tokenizer(self._ids, list(self.merges))

    def pieces(self, text: str) -> list[str]:
        """The subwords of `text`, their bytes written as characters."""
        return self._merger.encode(_prefixed(text)).tokens

    def join(self, pieces: Iterable[str]) -> str:
        """The text whose bytes the pieces are; an unk is "<unk>"."""
        content = bytes(_BYTES[character] for piece in pieces for character in piece)
        return content.decode("utf-8", errors="replace").removeprefix(" ")

    def show(self, i: int) -> str:
        """One symbol as a person would like to see it; part of a character as its bytes."""
        if i < len(self.specials):
            return super().show(i)
        content = bytes(_BYTES[character] for character in self.symbols[i])
        return visible(content.decode("utf-8", errors="backslashreplace"))

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return {"kind": "subwords", "merges": [list(merge) for merge in self.merges]}
