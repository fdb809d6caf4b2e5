"""Subwords: byte-pair encoding (Sennrich, Haddow & Birch, 2016) of UTF-8 bytes.

As in GPT-2 (Radford et al., 2019), a byte is written as a visible character, and its regular
expression cuts texts into words; no merge crosses a cut. The package `tokenizers` does the work.
"""

import json
import os
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from s2sjax.data.vocab import SPECIALS, Vocabulary, visible
from s2sjax.errors import UserError, require

_VISIBLE = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), 256)]
_INVISIBLE = [byte for byte in range(256) if byte not in _VISIBLE]

ALPHABET = tuple(chr(b if b in _VISIBLE else 256 + _INVISIBLE.index(b)) for b in range(256))
"""The character that GPT-2 writes for each byte; a blank is 'Ġ'."""

_BYTES = {character: byte for byte, character in enumerate(ALPHABET)}


def _tokenizer(ids: dict[str, int], merges: list[tuple[str, str]]) -> Any:
    """A byte-level tokenizer; by default with one thread: many are slower on a busy machine."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    package = require("tokenizers")
    tokenizer = package.Tokenizer(package.models.BPE(ids, merges))
    tokenizer.pre_tokenizer = package.pre_tokenizers.ByteLevel(add_prefix_space=False)
    return tokenizer


def _prefixed(text: str) -> str:
    """A text in Unicode's composed form (NFC), with a blank before it."""
    text = unicodedata.normalize("NFC", text)
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

    Nothing is unknown: ``decode(encode(text))`` is the text in composed form. `encode` puts a blank
    before it, so that its first word has the ids that it has elsewhere; `decode` removes it, and
    writes "\ufffd" for bytes that are no UTF-8.
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

        Raises UserError where the extra `text` is not installed.
        """
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
        return cls(tuple(map(tuple, merges)))

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
