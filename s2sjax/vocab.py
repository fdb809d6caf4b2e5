"""Vocabularies: text to ids and back; of characters, and what all kinds share."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import takewhile
from typing import Any, SupportsIndex

import numpy as np
from jaxtyping import Array, Bool, Int

from s2sjax.errors import UserError

PAD, BOS, EOS, UNK = SPECIALS = ("<pad>", "<bos>", "<eos>", "<unk>")
"""The special symbols; in a vocabulary that has all four their ids are 0, 1, 2, 3."""

NO_SYMBOL = -1
"""An id that no symbol has: what is never read, written or scored needs no row in a table."""


class Vocabulary(ABC):
    """Text to ids and back; an id is a position in `symbols`.

    A text is cut into `pieces`, a symbol each, and `join` makes text of symbols again. The special
    symbols come first: they are known by their ids alone, so that no text is ever read as one.
    """

    @property
    def specials(self) -> tuple[str, ...]:
        """The special symbols in use, in the order of their ids."""
        return SPECIALS

    @property
    @abstractmethod
    def symbols(self) -> tuple[str, ...]:
        """Every symbol, at the position that is its id."""

    @abstractmethod
    def pieces(self, text: str) -> list[str]:
        """What `encode` gives ids to, in order; also that which is unknown."""

    @abstractmethod
    def join(self, pieces: Iterable[str]) -> str:
        """The text that is made of pieces."""

    @abstractmethod
    def to_json(self) -> dict[str, Any]:
        """As JSON values, from which `vocabularies.from_json` makes an equal vocabulary."""

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {s: i for i, s in enumerate(self.symbols) if i >= len(self.specials)}

    @cached_property
    def _special_ids(self) -> dict[str, int]:
        return {symbol: i for i, symbol in enumerate(self.specials)}

    def __len__(self) -> int:
        return len(self.symbols)

    @property
    def pad_id(self) -> int | None:
        """Id that fills rows, or None where every row is full."""
        return self._special_ids.get(PAD)

    @property
    def bos_id(self) -> int:
        """Id that starts decoding; a vocabulary without one raises KeyError."""
        return self._special_ids[BOS]

    @property
    def eos_id(self) -> int:
        """Id that ends a sequence; `NO_SYMBOL` where none does and all have full width."""
        return self._special_ids.get(EOS, NO_SYMBOL)

    @property
    def unk_id(self) -> int:
        """Id of what is unknown; `NO_SYMBOL` where that is refused."""
        return self._special_ids.get(UNK, NO_SYMBOL)

    def unknown(self, text: str) -> Sequence[str]:
        """The pieces of `text` that the vocabulary lacks, each once."""
        return [piece for piece in dict.fromkeys(self.pieces(text)) if piece not in self._ids]

    def encode(self, text: str) -> list[int]:
        """Ids of the pieces of `text`, without specials; an unknown piece becomes the unk id."""
        ids, unk_id = self._ids, self.unk_id
        return [ids.get(piece, unk_id) for piece in self.pieces(text)]

    def spell(self, ids: Iterable[SupportsIndex]) -> list[str]:
        """The symbols of ids, one for each, up to the first end symbol or `NO_SYMBOL`."""
        ends = (self.eos_id, NO_SYMBOL)
        return [self.symbols[i] for i in takewhile(lambda i: i not in ends, map(int, ids))]

    def decode(self, ids: Iterable[SupportsIndex]) -> str:
        """Text up to the first end symbol; pad, bos and `NO_SYMBOL` are left out."""
        left_out = (NO_SYMBOL, self._special_ids.get(PAD), self._special_ids.get(BOS))
        return self.join(self.spell(i for i in map(int, ids) if i not in left_out))

    def show(self, i: int) -> str:
        """One symbol as a person would like to see it."""
        return "⏎" if i == self.eos_id else visible(self.symbols[i])


def visible(text: str) -> str:
    """A text in which blanks, and what cannot be printed, are seen."""
    shown = (c if c.isprintable() else repr(c)[1:-1] for c in text)
    return "".join(shown).replace(" ", "␣")


@dataclass(frozen=True)
class CharacterVocabulary(Vocabulary):
    """Special symbols, then characters; nothing is cut off or changed.

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

    def pieces(self, text: str) -> list[str]:
        """The characters of `text`."""
        return list(text)

    def join(self, pieces: Iterable[str]) -> str:
        """The characters in a row; an unk is '?'."""
        return "".join("?" if piece == UNK else piece for piece in pieces)

    def unknown(self, text: str) -> str:
        """The characters of `text` that the vocabulary lacks, each once."""
        return "".join(super().unknown(text))

    def encode(self, text: str) -> list[int]:
        """Ids of the characters of `text`, without specials.

        An unknown character becomes the unk id; in a vocabulary without one it raises UserError.
        """
        ids = super().encode(text)
        if NO_SYMBOL in ids:
            raise UserError(
                f"{text!r} has characters outside the vocabulary: {self.unknown(text)!r}; "
                f"it holds {self.characters!r}"
            )
        return ids

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "kind": "characters",
            "characters": self.characters,
            "specials": list(self.specials),
        }


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
