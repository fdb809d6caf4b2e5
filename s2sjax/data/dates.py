"""Dates as people write them, to ISO: 'Tuesday, March 3, 2020' -> '2020-03-03'.

The formats of every locale are CLDR's (the Unicode locale data), read through Babel; every kind of
blank becomes a space. A question must have one answer, so the task drops a locale's format if

- it lacks a part of the date, or shows two digits of the year only: the century is open; or
- it writes a text that a format of any locale also writes for another day: en_US and fr together
  lose 3/4/2020, de and fi together keep 3.4.2020.

To find such texts, every day of a leap year is written with every weekday and the year 0000. No
other part of a date has four digits, so this stands for all years.
"""

import re
from contextlib import suppress
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cache, lru_cache
from itertools import chain, product
from typing import Any, NamedTuple

import jax
import numpy as np

from s2sjax.data.sampling import Pairs, leak_free, quoted, require_enough, split_sizes
from s2sjax.errors import UserError, check_range, require

STYLES = ("full", "long", "medium", "short")  # every locale has these; other formats are skeletons
YEAR = "0000"  # stands for any year in a text
_DAYS = [date(2024, 1, 1) + timedelta(i) for i in range(366)]  # a leap year
_PARTS = {"M": 0, "L": 0, "d": 1, "E": 2, "e": 2, "c": 2}  # a field's letter: month, day, weekday


class Pattern(NamedTuple):
    """One way of one locale to write a date, such as '%(EEEE)s, %(d)s. %(MMMM)s %(y)s'."""

    template: str
    texts: dict[tuple[int, int, int], str]
    """By month, day and weekday (Monday is 0), in the year `YEAR`."""

    def write(self, day: date) -> str:
        text = self.texts[day.month, day.day, day.weekday()]
        return text.replace(YEAR, f"{day.year:04}")


class Patterns(NamedTuple):
    """The patterns of some locales, and what they write."""

    of_locale: dict[str, list[Pattern]]
    days: dict[str, tuple[int, int]]  # month and day of every text, in the year `YEAR`
    characters: str  # of all texts and answers
    width: int  # characters of the longest text


@lru_cache(maxsize=8)
def unambiguous_patterns(locales: tuple[str, ...], formats: tuple[str, ...]) -> Patterns:
    """Each locale's patterns, without those whose texts can be read as another day.

    Raises UserError for an unknown locale or format, a locale that has no pattern left, and where
    Babel is not installed.
    """
    babel = require("babel")
    known = {}
    for name in locales:
        try:
            known[name] = babel.Locale.parse(name)
        except (ValueError, babel.UnknownLocaleError) as error:
            what = f"Babel has no locale {quoted(name)}; such as en_US, de, pt_BR"
            raise UserError(f"Dates.locales: {what}") from error
    for name in formats:
        if not any(_cldr(locale, name) for locale in known.values()):
            what = f"{quoted(name)} is none of {', '.join(STYLES)}, and no skeleton such as yMMMEd"
            raise UserError(f"Dates.formats: {what}")
    written = {name: _patterns(locale, formats) for name, locale in known.items()}
    days: dict[str, tuple[int, int]] = {}
    ambiguous = set()
    for pattern in chain(*written.values()):
        for (month, day, _), text in pattern.texts.items():
            if days.setdefault(text, (month, day)) != (month, day):
                ambiguous.add(text)
    for name, patterns in written.items():
        written[name] = [p for p in patterns if ambiguous.isdisjoint(p.texts.values())]
        if not written[name]:
            why = "each lacks a part of the date, or can be read as another day"
            raise UserError(f"Dates.formats: {name} has none left: {why}; add full or long")
    kept = {text: days[text] for p in chain(*written.values()) for text in p.texts.values()}
    characters = "".join(sorted({*" -0123456789", *"".join(kept)}))
    return Patterns(written, kept, characters, max(map(len, kept)))


def _cldr(locale: Any, name: str) -> Any:
    """Babel's pattern of a style or skeleton, or None."""
    return locale.date_formats[name] if name in STYLES else locale.datetime_skeletons.get(name)


def _patterns(locale: Any, formats: tuple[str, ...]) -> list[Pattern]:
    """A locale's distinct patterns that show day, month and full year, and only the date."""
    patterns: dict[str, Pattern] = {}
    for cldr in filter(None, (_cldr(locale, name) for name in formats)):
        template = re.sub(r"\s", " ", cldr.format).replace("%(yyyy)s", "%(y)s")
        fields = set(re.findall(r"%\((\w+)\)s", template))
        parts = {name: _PARTS.get(name[0], -1) for name in fields - {"y"}}
        if "y" in fields and {0, 1} <= {*parts.values()} <= {0, 1, 2}:
            shown = {name: _field(locale, name, part) for name, part in parts.items()}
            texts = {}
            for day, weekday in product(_DAYS, range(7)):
                values = (day.month, day.day, weekday)
                written = {name: shown[name][values[part]] for name, part in parts.items()}
                texts[values] = template % {"y": YEAR, **written}
            patterns[template] = Pattern(template, texts)
    return list(patterns.values())


@cache
def _field(locale: Any, name: str, part: int) -> dict[int, str]:
    """How a locale writes a field, such as MMMM, for every month, day or weekday."""
    babel = require("babel.dates")
    samples = {(day.month, day.day, day.weekday())[part]: day for day in _DAYS}
    written = {value: babel.DateTimeFormat(day, locale)[name] for value, day in samples.items()}
    return {value: re.sub(r"\s", " ", text) for value, text in written.items()}


def names(listed: str) -> tuple[str, ...]:
    """The names in a setting, with commas between them."""
    return tuple(name.strip() for name in listed.split(","))


@dataclass(frozen=True)
class Dates:
    """Distinct dates of many languages to ISO: '3 de março de 2020' -> '2020-03-03'."""

    locales: str = "en_US,en_GB,de,fr,es,it,pt,nl,sv,da,fi,pl,cs,hu,tr,el,ru"
    """CLDR's names of locales, with commas between them; all are equally likely."""
    formats: str = "full,long,medium,short,yMd,yMEd,yMMMEd"
    """CLDR's styles and skeletons, with commas between them. Ambiguous formats are left out: see
    `data/dates.py`."""
    first_year: int = 1900  # Year of the earliest dates
    last_year: int = 2099  # Year of the latest; 200 years have 73,049 dates
    train: int = 50_000  # Training dates
    dev: int = 1_000  # Dates for the curves drawn while training
    test: int = 2_000  # Dates scored once, at the end
    questions = "dates"
    target_width = len("YYYY-MM-DD")

    def __post_init__(self) -> None:
        for setting in ("locales", "formats"):
            listed = getattr(self, setting)
            if "" in names(listed) or len(set(names(listed))) < len(names(listed)):
                right = "names with commas between them, each once"
                raise UserError(f"Dates.{setting} must be {right}, not {listed!r}")
        check_range(1, self, "train", "dev", "test")
        check_range(1_000, self, "first_year", most=9_999)
        check_range(self.first_year, self, "last_year", most=9_999)
        require_enough(self.sizes, len(self._ordinals), self.questions)

    sizes = property(split_sizes)

    @property
    def characters(self) -> str:
        return self._patterns.characters

    @property
    def source_width(self) -> int:
        return self._patterns.width

    @property
    def _patterns(self) -> Patterns:
        return unambiguous_patterns(names(self.locales), names(self.formats))

    @property
    def _ordinals(self) -> range:
        """The dates, as days from the year 1 on."""
        first, last = date(self.first_year, 1, 1), date(self.last_year, 12, 31)
        return range(first.toordinal(), last.toordinal() + 1)

    def pinned(self) -> "Dates":
        _ = self._patterns  # raises UserError where Babel lacks a locale or format
        return self

    def pairs(self, key: jax.Array) -> dict[str, Pairs]:
        drawn = leak_free(self._draw, lambda drawn: [day for day, _ in drawn], self.sizes, key)
        return {
            split: [(pattern.write(day), day.isoformat()) for day, pattern in rows]
            for split, rows in drawn.items()
        }

    def _draw(self, rng: np.random.Generator, size: int) -> list[tuple[date, Pattern]]:
        """Draw dates, each with a locale, and one of its patterns."""
        patterns = list(self._patterns.of_locale.values())
        days = rng.integers(self._ordinals.start, self._ordinals.stop, size).tolist()
        locales = rng.integers(len(patterns), size=size).tolist()
        which = rng.random(size).tolist()
        return [
            (date.fromordinal(day), patterns[i][int(share * len(patterns[i]))])
            for day, i, share in zip(days, locales, which, strict=True)
        ]

    def answers(self, source: str) -> tuple[str, ...]:
        patterns = list(chain(*self._patterns.of_locale.values()))
        year = re.search("[0-9]{4}", source)
        found = self._patterns.days.get(source.replace(year[0], YEAR, 1)) if year else None
        if year and found:
            with suppress(ValueError):  # 29 February
                day = date(int(year[0]), *found)
                if day.toordinal() in self._ordinals and source in {p.write(day) for p in patterns}:
                    return (day.isoformat(),)
        raise UserError(
            f"{quoted(source)} is no date of this run: it takes those of {self.first_year} to "
            f"{self.last_year}, the weekday right, such as "
            f"{patterns[0].write(date(self.first_year, 3, 14))!r}"
        )
