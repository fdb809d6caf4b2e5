"""Vocabularies: text to ids and back."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import SupportsIndex

import numpy as np
from jaxtyping import Array, Bool, Int

from s2sjax.errors import UserError

PAD, BOS, EOS, UNK = SPECIALS = ("<pad>", "<bos>", "<eos>", "<unk>")
"""The special symbols; in a vocabulary that has all four their ids are 0, 1, 2, 3."""

NO_SYMBOL = -1
"""An id that no symbol has: what is never read, written or scored needs no row in a table."""


@dataclass(frozen=True)
class CharacterVocabulary:
    """Special symbols, then characters; an id is a position in that list.

    The notebook's 13 symbols are ``specials=(EOS,)`` and twelve characters: it has no padding and
    no begin symbol, and a class that cannot occur would change its parameter count. So are
    Saitoh's, with ``specials=(BOS,)``; Keras' twelve have no special at all.

    Attributes:
        characters: the ordinary characters, each once.
        specials: the special symbols in use, in the order of their ids.
    """

    characters: str
    specials: tuple[str, ...] = SPECIALS

    def __post_init__(self) -> None:
        if not set(self.specials) <= set(SPECIALS):
            raise ValueError(f"specials must be among {SPECIALS}")
        if len(set(self.symbols)) != len(self.symbols):
            raise ValueError(f"a symbol stands twice in {self.symbols!r}")

    @cached_property
    def symbols(self) -> tuple[str, ...]:
        """Every symbol, at the position that is its id."""
        return (*self.specials, *self.characters)

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {symbol: i for i, symbol in enumerate(self.symbols)}

    def __len__(self) -> int:
        return len(self.symbols)

    @property
    def pad_id(self) -> int | None:
        """Id that fills rows, or None where every row is full."""
        return self._ids.get(PAD)

    @property
    def bos_id(self) -> int:
        """Id that starts decoding; a vocabulary without one raises KeyError."""
        return self._ids[BOS]

    @property
    def eos_id(self) -> int:
        """Id that ends a sequence; `NO_SYMBOL` where none does and all have full width."""
        return self._ids.get(EOS, NO_SYMBOL)

    def unknown(self, text: str) -> str:
        """The characters of `text` that the vocabulary lacks, each once."""
        return "".join(dict.fromkeys(c for c in text if c not in self.characters))

    def encode(self, text: str) -> list[int]:
        """Ids of the characters of `text`, without specials.

        An unknown character becomes the unk id; in a vocabulary without one it raises UserError.
        """
        if UNK not in self.specials and (unknown := self.unknown(text)):
            raise UserError(
                f"{text!r} has characters outside the vocabulary: {unknown!r}; "
                f"it holds {self.characters!r}"
            )
        return [self._ids[c if c in self.characters else UNK] for c in text]

    def decode(self, ids: Iterable[SupportsIndex]) -> str:
        """Text up to the first end symbol; pad, bos and `NO_SYMBOL` are left out, unk is '?'."""
        text = []
        for i in map(int, ids):
            symbol = PAD if i == NO_SYMBOL else self.symbols[i]
            if symbol == EOS:
                break
            if symbol not in (PAD, BOS):
                text.append("?" if symbol == UNK else symbol)
        return "".join(text)

    def show(self, i: int) -> str:
        """One symbol as a person would like to see it."""
        return {EOS: "⏎", " ": "␣"}.get(self.symbols[i], self.symbols[i])


def padding_mask(ids: Int[Array, "*shape"], pad_id: int | None) -> Bool[Array, "*shape"] | None:
    """True where a symbol is real; None where nothing can be padding, so that no mask is paid for.

    The one place that tells padding from text: lengths, masks and weights all derive from it.
    """
    return None if pad_id is None else ids != pad_id


def fill(rows: Sequence[Sequence[int]], width: int, pad_id: int | None) -> np.ndarray:
    """Rows of ids as one int32 array ``[len(rows), width]``, filled with padding on the right.

    Raises UserError for a row longer than `width`, and for a shorter one where there is no pad id.
    """
    out = np.full((len(rows), width), NO_SYMBOL if pad_id is None else pad_id, np.int32)
    for row, ids in zip(out, rows, strict=True):
        if len(ids) > width:
            raise UserError(f"a row of {len(ids)} symbols does not fit the width {width}")
        if pad_id is None and len(ids) < width:
            raise UserError(f"without padding every row must have exactly {width} symbols")
        row[: len(ids)] = ids
    return out
