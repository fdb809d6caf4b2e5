"""Words: the rules that cut a text into them, and the vocabulary of the commonest."""

import re
import sys
import unicodedata
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import cache, cached_property
from typing import Any, Literal

from s2sjax.data.vocab import Vocabulary, commonest
from s2sjax.errors import LARGEST

Cut = Literal["punctuation", "whitespace"]  # around every sign as well, or at whitespace only


@cache
def pattern(cut: Cut) -> re.Pattern[str]:
    r"""The regular expression whose matches are the words of a text.

    ``\S+`` for "whitespace". For "punctuation" it is ``[\w M]+|[^\w\s M]``, M being combining marks
    and the two joiners, without which vowel signs would be cut off Indic letters: a run of letters,
    digits, underscores and marks is a word, and so is any other character that is no blank.
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

    "It's 3.5" is cut into ``it ' s 3 . 5`` at punctuation and ``it's 3.5`` at whitespace: for
    texts that other software has cut already, or phones. Only whitespace is thrown away.
    """

    lower_case: bool = True
    """Read capitals as small letters."""
    cut: Cut = "punctuation"

    def normalise(self, text: str) -> str:
        """The text, composed and in its letter case; blanks as they were."""
        text = unicodedata.normalize("NFC", text)
        # lower case can be decomposed: that of a Turkish I with a dot is two characters
        return unicodedata.normalize("NFC", text.lower()) if self.lower_case else text

    def words(self, text: str) -> list[str]:
        """The words of a text; words joined by blanks have the same words again."""
        return pattern(self.cut).findall(self.normalise(text))


@dataclass(frozen=True)
class WordVocabulary(Vocabulary):
    """The four special symbols, then words; any other word is unknown.

    Decoding gives the words with one blank between any two: where nothing was unknown,
    ``decode(encode(text)) == " ".join(rules.words(text))``.
    """

    words: tuple[str, ...]
    rules: Rules = Rules()

    def __post_init__(self) -> None:
        if len(set(self.words)) != len(self.words):
            raise ValueError(f"the word {Counter(self.words).most_common(1)[0][0]!r} stands twice")

    @classmethod
    def build(
        cls, texts: Iterable[str], rules: Rules = Rules(), *, min_count=1, max_size=LARGEST
    ) -> "WordVocabulary":
        """The commonest words of texts, cut by rules: see `commonest`."""
        counts = Counter(word for text in texts for word in rules.words(text))
        return cls(tuple(commonest(counts, min_count, max_size, "word")), rules)

    @cached_property
    def symbols(self) -> tuple[str, ...]:
        return (*self.specials, *self.words)

    def pieces(self, text: str) -> list[str]:
        return self.rules.words(text)

    def join(self, pieces: Iterable[str]) -> str:
        return " ".join(pieces)

    def to_json(self) -> dict[str, Any]:
        return {"kind": "words", "rules": asdict(self.rules), "words": list(self.words)}
