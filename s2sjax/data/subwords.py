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

from s2sjax.data.vocab import SPECIALS, Vocabulary, visible
from s2sjax.errors import LARGEST, UserError
from s2sjax.extras import require

_SEEN = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), 256)]
_UNSEEN = [byte for byte in range(256) if byte not in _SEEN]

ALPHABET = tuple(chr(b if b in _SEEN else 256 + _UNSEEN.index(b)) for b in range(256))
"""The character that each byte is written as, as by GPT-2; a blank is 'Ġ'."""

_BYTES = {character: byte for byte, character in enumerate(ALPHABET)}


def _tokenizer(ids: dict[str, int], merges: list[tuple[str, str]]) -> Any:
    """A byte-level tokenizer; of one thread, because many are slower on a busy machine."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    package = require("tokenizers")
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


def _bytes(pieces: Iterable[str]) -> bytes:
    return bytes(_BYTES[character] for piece in pieces for character in piece)


@dataclass(frozen=True)
class SubwordVocabulary(Vocabulary):
    """The four special symbols, the 256 bytes, then what the merges make.

    Nothing is unknown, and ``decode(encode(text)) == text``, letter case and normal form included.
    A blank is put before the text and taken off again, so that its first word is the symbol that it
    is elsewhere. Bytes of a model that are no UTF-8 become "\ufffd".
    """

    merges: tuple[tuple[str, str], ...]
    """Pairs of symbols that each make one symbol, the most important first."""

    def __post_init__(self) -> None:
        known = set(ALPHABET)
        for left, right in self.merges:
            if not {left, right} <= known:
                raise ValueError(f"the merge of {left!r} and {right!r} has an unknown part")
            known.add(left + right)

    @classmethod
    def build(cls, texts: Iterable[str], *, max_size: int, min_count=2) -> "SubwordVocabulary":
        """Learn merges of pairs that occur `min_count` times; the order of texts does not matter.

        Raises UserError for a limit out of range, for a text that UTF-8 cannot write, and where the
        extra `text` is not installed.
        """
        if not 260 <= max_size <= LARGEST:
            raise UserError(
                "max_size must be at least 260 (four special symbols and 256 bytes) "
                f"and at most {LARGEST:,}, not {max_size}"
            )
        if min_count < 1:
            raise UserError(f"min_count must be at least 1, not {min_count}")
        tokenizer = _tokenizer({}, [])
        trainer = require("tokenizers").trainers.BpeTrainer(
            vocab_size=max_size - len(SPECIALS),
            min_frequency=min_count,
            initial_alphabet=list(ALPHABET),
            special_tokens=[],
            show_progress=False,
        )
        tokenizer.train_from_iterator(map(_prefixed, texts), trainer)
        merges = json.loads(tokenizer.to_str())["model"]["merges"]
        return cls(tuple((left, right) for left, right in merges))

    @cached_property
    def symbols(self) -> tuple[str, ...]:
        made = (left + right for left, right in self.merges)  # two merges can make the same
        return (*self.specials, *dict.fromkeys((*ALPHABET, *made)))

    @cached_property
    def _merger(self) -> Any:
        return _tokenizer(self._ids, list(self.merges))

    def pieces(self, text: str) -> list[str]:
        return self._merger.encode(_prefixed(text)).tokens

    def join(self, pieces: Iterable[str]) -> str:
        return _bytes(pieces).decode("utf-8", errors="replace").removeprefix(" ")

    def show(self, i: int) -> str:
        if i < len(self.specials):
            return super().show(i)
        return visible(_bytes(self.symbols[i]).decode("utf-8", errors="backslashreplace"))

    def to_json(self) -> dict[str, Any]:
        return {"kind": "subwords", "merges": [list(merge) for merge in self.merges]}
