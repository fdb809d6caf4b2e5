"""Numbers in words to digits and back: 'forty-two' -> '42'.

The words are those of num2words; blanks of any kind and number are one space. Numbers up to the
largest are few enough to write all of them: what their characters are, how long they get, and that
no two of them are written alike is looked at, not argued.
"""

from dataclasses import dataclass
from functools import cached_property, lru_cache

import jax

from s2sjax import extras
from s2sjax.errors import UserError
from s2sjax.taskconfig import NumberWords
from s2sjax.tasks.questions import quoted
from s2sjax.tasks.sampling import leak_free, require


@lru_cache(maxsize=4)
def written(language: str, largest: int) -> tuple[str, ...]:
    """The words of 0 .. `largest`, all different.

    Raises UserError for a language that there is not, and where num2words fails or writes two
    numbers alike.
    """
    num2words = extras.require("num2words")
    if language not in num2words.CONVERTER_CLASSES:
        raise UserError(
            f"NumberWords.language: num2words has no {quoted(language)}; it has "
            f"{', '.join(sorted(num2words.CONVERTER_CLASSES))}"
        )
    numbers: dict[str, int] = {}
    for n in range(largest + 1):
        try:
            words = " ".join(num2words.num2words(n, lang=language).split())
        except Exception as error:  # each language fails in its own way
            raise UserError(
                f"num2words cannot write {n} in {language}: choose a smaller NumberWords.largest, "
                "or another language"
            ) from error
        if numbers.setdefault(words, n) != n:
            raise UserError(
                f"num2words writes {numbers[words]} and {n} alike in {language}: choose a smaller "
                "NumberWords.largest, or another language"
            )
    return tuple(numbers)


@dataclass(frozen=True)
class NumberWordsTask:
    """The numbers 0 .. largest, all equally likely."""

    config: NumberWords

    def __post_init__(self) -> None:
        c = self.config
        require((c.train, c.dev, c.test), c.largest + 1, "numbers")
        _ = self._words  # a language that there is not ends here

    @cached_property
    def _words(self) -> tuple[str, ...]:
        return written(self.config.language, self.config.largest)

    @cached_property
    def _answers(self) -> dict[str, str]:
        """The answer to every question."""
        return dict(self._pair(n) for n in range(len(self._words)))

    @cached_property
    def characters(self) -> str:
        """All that any of the numbers is written with, and the space of justified strings."""
        return "".join(sorted({*" 0123456789", *"".join(self._words)}))

    @property
    def source_width(self) -> int:
        """Length of the longest question."""
        return self._widths[0]

    @property
    def target_width(self) -> int:
        """Length of the longest answer."""
        return self._widths[1]

    @cached_property
    def _widths(self) -> tuple[int, int]:
        """Of words and digits, in the order of question and answer."""
        words, digits = max(map(len, self._words)), len(str(self.config.largest))
        return (words, digits) if self.config.direction == "to_digits" else (digits, words)

    def splits(self, key: jax.Array) -> dict[str, list[tuple[str, str]]]:
        """Pairs of train, dev and test; dev and test are the same for every key."""
        c = self.config
        sizes = {"train": c.train, "dev": c.dev, "test": c.test}
        drawn = leak_free(
            lambda rng, size: rng.integers(0, c.largest + 1, size).tolist(), int, sizes, key
        )
        return {name: [self._pair(n) for n in numbers] for name, numbers in drawn.items()}

    def _pair(self, n: int) -> tuple[str, str]:
        pair = (self._words[n], str(n))
        return pair if self.config.direction == "to_digits" else pair[::-1]

    def answer(self, source: str) -> str:
        """The right answer; raises UserError for a string that is no question of this task."""
        if source not in self._answers:
            raise UserError(
                f"{quoted(source)} is no number of this run: it takes 0 to {self.config.largest}, "
                f"such as {self._pair(42)[0]!r}"
            )
        return self._answers[source]
