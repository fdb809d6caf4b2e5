"""Words: the rules that cut a text into them, and the vocabulary of the commonest."""

import re
import sys
import unicodedata
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import cache, cached_property
from typing import Any, Literal

from s2sjax.errors import LARGEST, UserError
from s2sjax.vocab import Vocabulary

Cut = Literal["punctuation", "blanks"]
"""Where a text is cut: around every sign as well, or at blanks only."""


@cache
def pattern(cut: Cut) -> re.Pattern[str]:
    r"""The regular expression whose matches are the words of a text.

    ``\S+`` for "blanks". For "punctuation" it is ``[\w M]+|[^\w\s M]``, M being the combining marks
    and the two joiners: runs of letters, digits, underscores and what belongs to them are words,
    and so is every other character that is no blank, alone. (``\w`` by itself would cut the vowel
    signs off Indic letters, and the tildes off phonetic ones.)
    """
    if cut == "blanks":
        return re.compile(r"\S+")
    every = map(chr, range(sys.maxunicode + 1))
    marks = "".join(c for c in every if unicodedata.category(c).startswith("M"))
    inside = rf"\w\u200c\u200d{marks}"
    return re.compile(rf"[{inside}]+|[^\s{inside}]")


@dataclass(frozen=True)
class Rules:
    """How a text becomes words: Unicode's composed form (NFC), letter case, then the cuts.

    Nothing is thrown away but blanks and, if so set, letter case. "It's 3.5" is cut into
    ``it ' s 3 . 5`` at punctuation and ``it's 3.5`` at blanks, the choice for a text that other
    software has cut already, or for phones.

    Attributes:
        lower_case: read capitals as small letters.
        cut: at "punctuation" or at "blanks".
    """

    lower_case: bool = True
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
    """The four special symbols, then words; what is no word of it is unknown.

    What decoding restores is the words with one blank between any two: where nothing was unknown,
    ``decode(encode(text)) == " ".join(rules.words(text))``. Cut at blanks and with letter case
    kept, that is the text itself, but for runs of blanks.

    A text that spells "<unk>" is no special symbol: its words are ``< unk >`` or, cut at blanks,
    an ordinary word like any other.

    Attributes:
        words: the words, each once; the commonest first where `build` made it.
        rules: cut a text into words.
    """

    words: tuple[str, ...]
    rules: Rules = Rules()

    def __post_init__(self) -> None:
        if len(set(self.words)) != len(self.words):
            twice = next(word for word, n in Counter(self.words).items() if n > 1)
            raise ValueError(f"the word {twice!r} stands twice")

    @classmethod
    def build(
        cls,
        texts: Iterable[str],
        rules: Rules | None = None,
        *,
        min_count: int = 1,
        max_size: int = LARGEST,
    ) -> "WordVocabulary":
        """The commonest words of texts; of words equally common, the first by code points.

        Args:
            texts: what is counted; their order does not matter.
            rules: cut them into words; None takes the default ones.
            min_count: a word that occurs less often is left out.
            max_size: most symbols, the four special ones included.

        Raises:
            UserError: no word is left, or a limit is out of range.
        """
        rules = Rules() if rules is None else rules
        if min_count < 1:
            raise UserError(f"min_count must be at least 1, not {min_count}")
        if max_size < 5:
            raise UserError(f"max_size must be at least 5 (four are special), not {max_size}")
        counts = Counter(word for text in texts for word in rules.words(text))
        common = [word for word, n in counts.items() if n >= min_count]
        if not common:
            raise UserError(
                f"no word occurs {min_count:,} times: lower min_count"
                if counts
                else "there are no words to make a vocabulary of: the texts are empty"
            )
        common.sort(key=lambda word: (-counts[word], word))
        return cls(tuple(common[: max_size - 4]), rules)

    @cached_property
    def symbols(self) -> tuple[str, ...]:
        """Every symbol, at the position that is its id."""
        return (*self.specials, *self.words)

    def pieces(self, text: str) -> list[str]:
        """The words of `text`, by the rules."""
        return self.rules.words(text)

    def join(self, pieces: Iterable[str]) -> str:
        """The words with blanks between them; an unk is "<unk>"."""
        return " ".join(pieces)

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return {"kind": "words", "rules": asdict(self.rules), "words": list(self.words)}
