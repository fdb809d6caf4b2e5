"""Vocabularies: text to ids and back; of characters, and what all kinds share."""

import unicodedata
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import takewhile
from typing import Any, SupportsIndex

import numpy as np

from s2sjax.errors import LARGEST, UserError

PAD, BOS, EOS, UNK = SPECIALS = ("<pad>", "<bos>", "<eos>", "<unk>")
"""The special symbols; in a vocabulary that has all four their ids are 0, 1, 2, 3."""
NO_SYMBOL = -1  # no symbol's id: what is never read, written or scored needs no row in a table


class Vocabulary(ABC):
    """Text to ids and back; an id is a position in `symbols`.

    The special symbols come first. No text is ever read as one.
    """

    @property
    def specials(self) -> tuple[str, ...]:
        """The special symbols in use, in the order of their ids."""
        return SPECIALS

    @property
    @abstractmethod
    def symbols(self) -> tuple[str, ...]:
        """Every symbol, the special ones first."""

    @abstractmethod
    def pieces(self, text: str) -> list[str]:
        """Cut a text into what `encode` gives ids to, unknown pieces included."""

    @abstractmethod
    def join(self, pieces: Iterable[str]) -> str:
        """Make text of pieces again."""

    @abstractmethod
    def to_json(self) -> dict[str, Any]:
        """JSON values from which `dataset.load_vocabulary` makes an equal vocabulary."""

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {s: i for i, s in enumerate(self.symbols) if i >= len(self.specials)}

    def __len__(self) -> int:
        return len(self.symbols)

    @property
    def pad_id(self) -> int | None:
        """Id that fills rows; None where every row is full."""
        return self.specials.index(PAD) if PAD in self.specials else None

    @property
    def bos_id(self) -> int:
        """Id that starts decoding; ValueError where there is none."""
        return self.specials.index(BOS)

    @property
    def eos_id(self) -> int:
        """Id that ends a sequence; `NO_SYMBOL` where all sequences have full width."""
        return self.specials.index(EOS) if EOS in self.specials else NO_SYMBOL

    @property
    def unk_id(self) -> int:
        """Id of an unknown piece; `NO_SYMBOL` where unknown pieces are refused."""
        return self.specials.index(UNK) if UNK in self.specials else NO_SYMBOL

    @property
    def silent_ids(self) -> tuple[int, ...]:
        """Ids that stand for no text: pad and bos."""
        return tuple(i for i, s in enumerate(self.specials) if s in (PAD, BOS))

    def encode(self, text: str) -> list[int]:
        """Ids of the pieces of `text`; UserError for an unknown one where there is no unk."""
        known, unknown = self._ids, self.unk_id
        ids = [known.get(piece, unknown) for piece in self.pieces(text)]
        if NO_SYMBOL in ids:
            raise UserError(
                f"{text!r} has characters outside the vocabulary: {''.join(self.unknown(text))!r}; "
                f"it holds {''.join(known)!r}"
            )
        return ids

    def unknown(self, text: str) -> list[str]:
        """The pieces of a text without an id of their own, each once."""
        return [piece for piece in dict.fromkeys(self.pieces(text)) if piece not in self._ids]

    def decode(self, ids: Iterable[SupportsIndex]) -> str:
        """Text up to the first end symbol; pad, bos and `NO_SYMBOL` are left out."""
        silent = {NO_SYMBOL, *self.silent_ids}
        kept = (i for i in map(int, ids) if i not in silent)
        return self.join(self.symbols[i] for i in takewhile(lambda i: i != self.eos_id, kept))

    def show(self, i: int) -> str:
        """One symbol as a person can see it."""
        return "⏎" if i == self.eos_id else visible(self.symbols[i])


def visible(text: str) -> str:
    """A text in which blanks and control characters can be seen."""
    shown = (c if c.isprintable() else repr(c)[1:-1] for c in text)
    return "".join(shown).replace(" ", "␣")


def commonest(pieces: Iterable[str], min_count: int, max_size: int) -> list[str]:
    """The commonest pieces, at most `max_size` - 4; of equally common ones the lower code points.

    Raises UserError when none occurs `min_count` times.
    """
    counts = Counter(pieces)
    common = [piece for piece, n in counts.items() if n >= min_count]
    if not common:
        raise UserError(f"no symbol occurs {min_count:,} times in training: lower Text.min_count")
    return sorted(common, key=lambda piece: (-counts[piece], piece))[: max_size - 4]


def check_distinct(symbols: Sequence[str]) -> None:
    """Raise ValueError when a symbol is there twice."""
    if len(set(symbols)) < len(symbols):
        raise ValueError(f"{Counter(symbols).most_common(1)[0][0]!r} is there twice")


@dataclass(frozen=True)
class CharacterVocabulary(Vocabulary):
    """Special symbols, then characters; texts are read in Unicode's composed form (NFC).

    Published models have fewer special symbols: the notebook has EOS, Saitoh BOS, Keras none.
    """

    characters: str
    specials: tuple[str, ...] = SPECIALS

    def __post_init__(self) -> None:
        if not set(self.specials) <= set(SPECIALS):
            raise ValueError(f"specials must be among {SPECIALS}")
        check_distinct(self.symbols)

    @classmethod
    def build(cls, texts: Iterable[str], *, min_count=1, max_size=LARGEST) -> "CharacterVocabulary":
        """The commonest characters of texts: see `commonest`."""
        characters = (c for text in texts for c in unicodedata.normalize("NFC", text))
        return cls("".join(commonest(characters, min_count, max_size)))

    @cached_property
    def symbols(self) -> tuple[str, ...]:
        return (*self.specials, *self.characters)

    def pieces(self, text: str) -> list[str]:
        return list(unicodedata.normalize("NFC", text))

    def join(self, pieces: Iterable[str]) -> str:
        """The characters in a row; an unk is '?'."""
        return "".join("?" if piece == UNK else piece for piece in pieces)

    def to_json(self) -> dict[str, Any]:
        specials = list(self.specials)
        return {"kind": "characters", "characters": self.characters, "specials": specials}


def fill(rows: Sequence[Sequence[int]], width: int, pad_id: int | None) -> np.ndarray:
    """Rows of ids as one int32 array ``[len(rows), width]``, padded on the right.

    Raises UserError for a row that is too long, or too short where there is no pad id.
    """
    out = np.full((len(rows), width), NO_SYMBOL if pad_id is None else pad_id, np.int32)
    for row, ids in zip(out, rows, strict=True):
        if len(ids) > width:
            raise UserError(f"a row of {len(ids)} symbols does not fit the width {width}")
        if pad_id is None and len(ids) < width:
            raise UserError(f"without padding every row must have exactly {width} symbols")
        row[: len(ids)] = ids
    return out
