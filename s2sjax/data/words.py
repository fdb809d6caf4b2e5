"""Words: the rules that cut a text into words, and the vocabulary of the commonest."""

import re
import sys
import unicodedata
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import cache, cached_property
from typing import Any, Literal

from s2sjax.data.vocab import Vocabulary, check_distinct, commonest
from s2sjax.errors import LARGEST

Cut = Literal["punctuation", "whitespace"]


@cache
def pattern(cut: Cut) -> re.Pattern[str]:
    r"""The regular expression that matches the words of a text.

    For "punctuation" a run of letters, digits, underscores and combining marks is a word, and so is
    every other character that is no blank. (Python's ``\w`` lacks the marks, among them the vowel
    signs of Indic scripts, and the two joiners.)
    """
    if cut == "whitespace":
        return re.compile(r"\S+")
    every = map(chr, range(sys.maxunicode + 1))
    marks = "".join(c for c in every if unicodedata.category(c).startswith("M"))
    inside = rf"\w\u200c\u200d{marks}"
    return re.compile(rf"[{inside}]+|[^\s{inside}]")


@dataclass(frozen=True)
class Rules:
    """How a text becomes words: Unicode's composed form (NFC), letter case, then the cuts.

    "It's 3.5" becomes ``it ' s 3 . 5`` with cuts around punctuation and ``it's 3.5`` with cuts at
    whitespace only (for phones, and texts that are cut already). Only whitespace is lost.
    """

    lower_case: bool = True
    """Read capitals as small letters."""
    cut: Cut = "punctuation"

    def normalise(self, text: str) -> str:
        """The text in composed form and in its letter case."""
        text = unicodedata.normalize("NFC", text)
        # The small letter of a Turkish I with a dot is two characters: compose again.
        return unicodedata.normalize("NFC", text.lower()) if self.lower_case else text

    def words(self, text: str) -> list[str]:
        """The words of a text."""
        return pattern(self.cut).findall(self.normalise(text))


@dataclass(frozen=True)
class WordVocabulary(Vocabulary):
    """The four special symbols, then words; decoding puts one blank between two words."""

    words: tuple[str, ...]
    rules: Rules = Rules()

    def __post_init__(self) -> None:
        check_distinct(self.words)

    @classmethod
    def build(
        cls, texts: Iterable[str], rules: Rules = Rules(), *, min_count=1, max_size=LARGEST
    ) -> "WordVocabulary":
        """The commonest words of texts: see `commonest`."""
        words = (word for text in texts for word in rules.words(text))
        return cls(tuple(commonest(words, min_count, max_size)), rules)

    @cached_property
    def symbols(self) -> tuple[str, ...]:
        return (*self.specials, *self.words)

    def pieces(self, text: str) -> list[str]:
        return self.rules.words(text)

    def join(self, pieces: Iterable[str]) -> str:
        return " ".join(pieces)

    def to_json(self) -> dict[str, Any]:
        return {"kind": "words", "rules": asdict(self.rules), "words": list(self.words)}
