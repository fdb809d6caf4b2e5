"""Dates as people write them to ISO: 'Tuesday, March 3, 2020' -> '2020-03-03'.

Months, weekdays and formats of every locale are CLDR's (the Unicode locale data), read through
Babel; case is as there, every kind of blank is a space.

A question must have one answer. So a format of a locale is left out where

- the year has two digits, because the century is open, or any part of the date is missing;
- it writes something that a format of this task, its own or another locale's, writes for another
  day of the year: with en_US and fr no 3/4/2020 is left; with de and fi 3.4.2020 is.

A text has four digits in a row only where its year is, so two texts of different years differ. What
is left is to write every day of one year on every weekday: that shows all that can be mistaken, the
characters there are, and the longest text.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

import jax
import numpy as np

from s2sjax import extras
from s2sjax.errors import UserError
from s2sjax.taskconfig import Dates, names
from s2sjax.tasks.questions import quoted
from s2sjax.tasks.sampling import leak_free, require

STYLES = ("full", "long", "medium", "short")
"""CLDR's styles, which every locale has; any other format is a skeleton."""

YEAR = 0
"""Stands for the year, as 0000, where any is meant."""

_DAYS = [date(2024, 1, 1) + timedelta(i) for i in range(366)]  # a leap year, from Monday on
_SAMPLES = (
    {day.month: day for day in _DAYS},
    {day.day: day for day in _DAYS},
    {day.weekday(): day for day in _DAYS},
)
_PARTS = {"M": 0, "L": 0, "d": 1, "E": 2, "e": 2, "c": 2}  # letter of a field: its sample

Day = tuple[int, int, int, int]
"""Year, month, day, and weekday from Monday = 0; `YEAR` has every day on every weekday."""


class Pattern(NamedTuple):
    """One way of one locale to write a date.

    Attributes:
        template: '%(EEEE)s, %(d)s. %(MMMM)s %(y)s'.
        fields: by name, which of month, day, weekday a field shows, and its text for each value.
    """

    template: str
    fields: dict[str, tuple[int, dict[int, str]]]

    def write(self, days: Iterable[Day]) -> list[str]:
        """The text of every day."""
        fields = [(name, 1 + part, text) for name, (part, text) in self.fields.items()]
        return [
            self.template
            % {"y": f"{day[0]:04}", **{name: text[day[i]] for name, i, text in fields}}
            for day in days
        ]

    def every_day(self) -> list[tuple[str, tuple[int, int]]]:
        """All texts of the year `YEAR`, each with its month and day."""
        weekdays = range(7 if any(part == 2 for part, _ in self.fields.values()) else 1)
        days = [(YEAR, day.month, day.day, weekday) for day in _DAYS for weekday in weekdays]
        return [(text, day[1:3]) for text, day in zip(self.write(days), days, strict=True)]


class Almanac(NamedTuple):
    """What some locales and formats make of dates.

    Attributes:
        patterns: those in use, by locale.
        days: month and day of every text of the year `YEAR`.
    """

    patterns: dict[str, list[Pattern]]
    days: dict[str, tuple[int, int]]


@lru_cache(maxsize=8)
def almanac(locales: tuple[str, ...], formats: tuple[str, ...]) -> Almanac:
    """The patterns of all locales that no text of theirs can be mistaken for another day's.

    Raises UserError for a locale or a format that there is not, and for a locale with no format
    left.
    """
    known = [_locale(name) for name in locales]
    for name in formats:
        if not any(_cldr(locale, name) for locale in known):
            raise UserError(
                f"Dates.formats: {quoted(name)} is none of {', '.join(STYLES)}, and no skeleton of "
                "these locales such as yMd, yMEd, yMMMd, yMMMEd"
            )
    written = {
        name: [(pattern, pattern.every_day()) for pattern in _patterns(locale, formats)]
        for name, locale in zip(locales, known, strict=True)
    }
    days: dict[str, tuple[int, int]] = {}
    every = (text for of_locale in written.values() for _, texts in of_locale for text in texts)
    mistaken = {text for text, day in every if days.setdefault(text, day) != day}
    kept = {
        name: [p for p in of_locale if mistaken.isdisjoint(text for text, _ in p[1])]
        for name, of_locale in written.items()
    }
    for name, patterns in kept.items():
        if not patterns:
            raise UserError(
                f"Dates.formats: {name} has none left: each lacks a part of the date, or its "
                "century, or is mistaken for another day's; add full or long"
            )
    return Almanac(
        {name: [pattern for pattern, _ in of_locale] for name, of_locale in kept.items()},
        {text: day for of_locale in kept.values() for _, texts in of_locale for text, day in texts},
    )


def _locale(name: str) -> Any:
    """Babel's locale; raises UserError where there is none."""
    babel = extras.require("babel")
    try:
        return babel.Locale.parse(name)
    except (ValueError, babel.UnknownLocaleError) as error:
        raise UserError(
            f"Dates.locales: Babel has no locale {quoted(name)}; such as en_US, de, pt_BR"
        ) from error


def _cldr(locale: Any, name: str) -> Any:
    """A locale's pattern of a style or skeleton, as Babel has it; None where there is none."""
    return locale.date_formats[name] if name in STYLES else locale.datetime_skeletons.get(name)


def _patterns(locale: Any, formats: tuple[str, ...]) -> list[Pattern]:
    """A locale's distinct patterns that show the whole date, and nothing but the date."""
    dates = extras.require("babel.dates")
    texts: dict[str, tuple[int, dict[int, str]]] = {}
    templates = {}
    for cldr in filter(None, (_cldr(locale, name) for name in formats)):
        template = re.sub(r"\s", " ", cldr.format).replace("%(yyyy)s", "%(y)s")
        fields = set(re.findall(r"%\((\w+)\)s", template))
        shown = {_PARTS.get(name[0]) for name in fields - {"y"}}
        if "y" in fields and {0, 1} <= shown <= {0, 1, 2}:
            templates[template] = fields - {"y"}
    for name in set().union(*templates.values()):
        samples = _SAMPLES[_PARTS[name[0]]].items()
        written = {value: dates.DateTimeFormat(day, locale)[name] for value, day in samples}
        texts[name] = _PARTS[name[0]], {v: re.sub(r"\s", " ", t) for v, t in written.items()}
    return [Pattern(t, {name: texts[name] for name in sorted(f)}) for t, f in templates.items()]


@dataclass(frozen=True)
class DatesTask:
    """Dates of `first_year` to `last_year`, each written in one way of one locale."""

    config: Dates

    def __post_init__(self) -> None:
        c = self.config
        require((c.train, c.dev, c.test), self.distinct_dates, "dates")
        _ = self._almanac  # what locales and formats there are is known from here on

    @cached_property
    def _almanac(self) -> Almanac:
        return almanac(names(self.config.locales), names(self.config.formats))

    @cached_property
    def characters(self) -> str:
        """All that any year's dates are written with, the digits, and ISO's hyphen."""
        return "".join(sorted({*" -0123456789", *"".join(self._almanac.days)}))

    @cached_property
    def source_width(self) -> int:
        """Length of the longest text of any year."""
        return max(map(len, self._almanac.days))

    @property
    def target_width(self) -> int:
        """Length of YYYY-MM-DD."""
        return 10

    @property
    def distinct_dates(self) -> int:
        """How many dates exist."""
        return len(range(*self._range))

    @property
    def _range(self) -> tuple[int, int]:
        """Ordinals of the first date, and of the first behind the last."""
        first, last = date(self.config.first_year, 1, 1), date(self.config.last_year, 12, 31)
        return first.toordinal(), last.toordinal() + 1

    def splits(self, key: jax.Array) -> dict[str, list[tuple[str, str]]]:
        """Pairs of train, dev and test; dev and test are the same for every key."""
        c = self.config
        sizes = {"train": c.train, "dev": c.dev, "test": c.test}
        drawn = leak_free(self._draw, lambda question: question[0], sizes, key)
        return {
            name: [(_write(*q), q[0].isoformat()) for q in rows] for name, rows in drawn.items()
        }

    def _draw(self, rng: np.random.Generator, size: int) -> list[tuple[date, Pattern]]:
        """Dates, all equally likely, each with a locale's pattern: of any locale, any of its."""
        patterns = list(self._almanac.patterns.values())
        days = rng.integers(*self._range, size).tolist()
        locales = rng.integers(len(patterns), size=size).tolist()
        which = rng.random(size).tolist()
        return [
            (date.fromordinal(day), patterns[i][int(share * len(patterns[i]))])
            for day, i, share in zip(days, locales, which, strict=True)
        ]

    def answer(self, source: str) -> str:
        """The right answer; raises UserError for a string that is no question of this task."""
        day = self._date(source)
        patterns = [p for of_locale in self._almanac.patterns.values() for p in of_locale]
        if day is None or source not in {_write(day, pattern) for pattern in patterns}:
            c, example = self.config, date(self.config.first_year, 3, 14)
            raise UserError(
                f"{quoted(source)} is no date of this run: it takes those of {c.first_year} to "
                f"{c.last_year}, the weekday right, such as {_write(example, patterns[0])!r}"
            )
        return day.isoformat()

    def _date(self, source: str) -> date | None:
        """The date that a text can only be, its weekday unread; None where it is no text."""
        year = re.search("[0-9]{4}", source)
        days = self._almanac.days
        if year is None or (found := days.get(source.replace(year[0], f"{YEAR:04}", 1))) is None:
            return None
        try:
            day = date(int(year[0]), *found)
        except ValueError:  # 29 February
            return None
        return day if day.toordinal() in range(*self._range) else None


def _write(day: date, pattern: Pattern) -> str:
    return pattern.write([(day.year, day.month, day.day, day.weekday())])[0]
