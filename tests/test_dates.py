"""Dates against Babel's own writing, one answer to every text, no date in two questions."""

import itertools
import re
from datetime import date, timedelta

import babel.dates
import jax
import pytest
from hypothesis import given
from hypothesis import strategies as st

from s2sjax import errors
from s2sjax.data.dates import STYLES, Dates, names, unambiguous_patterns
from s2sjax.errors import UserError

FEW = {"train": 300, "dev": 40, "test": 60}
SMALL = {"locales": "en_US,de,ru", **FEW}
CYCLE = [date(2000, 1, 1) + timedelta(i) for i in range(28 * 365 + 7)]
"""28 years: every day of the year on every weekday."""


def default():
    return unambiguous_patterns(names(Dates().locales), names(Dates().formats))


def texts_of(patterns: dict, days: list[date]):
    """Every text of every day, each with its day."""
    for pattern in itertools.chain(*patterns.values()):
        yield from ((pattern.write(day), day) for day in days)


def kept(locales: str, formats: str = Dates().formats) -> dict[str, list[str]]:
    """Templates in use by locale, shortened: 'EEEE, MMMM d, y'."""
    patterns = unambiguous_patterns(names(locales), names(formats)).of_locale
    return {
        name: [re.sub(r"%\((\w+)\)s", r"\1", p.template) for p in of_locale]
        for name, of_locale in patterns.items()
    }


def draw(seed: int = 0, **settings) -> dict[str, list[tuple[str, str]]]:
    return Dates(**(SMALL | settings)).pairs(jax.random.key(seed))


# --- how dates are written -------------------------------------------------------------------


def by_babel(day: date, name: str, locale: str) -> str:
    if name in STYLES:
        text = babel.dates.format_date(day, name, locale)
    else:
        text = babel.dates.format_skeleton(name, day, fuzzy=False, locale=locale)
    return re.sub(r"\s", " ", text)


@pytest.mark.parametrize("locale", [*names(Dates().locales), "ar", "eu", "hr", "ja", "pt_PT"])
def test_a_format_alone_writes_as_babel_does(locale):
    days = [CYCLE[0] + timedelta(97 * i) for i in range(60)]  # every month, day and weekday
    assert len({d.month for d in days}) == 12
    assert len({d.weekday() for d in days}) == 7
    cldr = babel.Locale.parse(locale)
    patterns = {**cldr.date_formats, **cldr.datetime_skeletons}
    full_years = [name for name in names(Dates().formats) if "yy" not in patterns[name].pattern]
    assert len(full_years) >= 6
    for name in full_years:
        ours = unambiguous_patterns((locale,), (name,)).of_locale
        assert [text for text, _ in texts_of(ours, days)] == [
            by_babel(day, name, locale) for day in days
        ]


def test_formats_are_what_cldr_has():
    assert kept("en_US,de,hu", "full,medium,yMEd") == {
        "en_US": ["EEEE, MMMM d, y", "MMM d, y", "E, M/d/y"],
        "de": ["EEEE, d. MMMM y", "dd.MM.y", "E, d.M.y"],
        "hu": ["y. MMMM d., EEEE", "y. MMM d.", "y. MM. dd., E"],
    }


def test_every_blank_is_a_space():
    assert "\u202f" in babel.Locale.parse("ru").date_formats["full"].pattern
    assert any(re.search(r"\d г\.$", source) for source, _ in draw(locales="ru")["train"])
    assert set(re.findall(r"\s", Dates().characters)) == {" "}


# --- one answer ------------------------------------------------------------------------------


def test_formats_that_could_be_taken_for_another_day_are_left_out_on_both_sides():
    assert kept("en_US", "yMd") == {"en_US": ["M/d/y"]}
    assert kept("fr", "yMd") == {"fr": ["dd/MM/y"]}
    assert kept("en_US,fr", "long,yMd") == {"en_US": ["MMMM d, y"], "fr": ["d MMMM y"]}
    # day first in both, or the year first in one: nothing to be taken for another
    assert kept("en_GB,fr", "yMd") == {"en_GB": ["dd/MM/y"], "fr": ["dd/MM/y"]}
    assert kept("nl,sv", "yMd") == {"nl": ["d-M-y"], "sv": ["y-MM-dd"]}
    # 'may' is May in Spanish, October in Duala; whole names and weekdays tell them apart
    assert kept("es,dua", "long,medium,yMMMEd") == {
        "es": ["d de MMMM de y", "EEE, d MMM y"],
        "dua": ["d MMMM y", "E d MMM y"],
    }


@pytest.mark.parametrize(
    "locales",
    [Dates().locales, "en_US,en_GB,fr,pt_PT", "hr,cs,es,dua", "ja,zh,ko", "lt,lv,eu"],
)
def test_no_text_is_two_dates(locales):
    days: dict[str, date] = {}
    for text, day in texts_of(
        unambiguous_patterns(names(locales), names(Dates().formats)).of_locale, CYCLE[::3]
    ):
        assert days.setdefault(text, day) == day


def test_the_year_is_the_only_number_of_four_digits():
    assert all(re.findall("[0-9]{4,}", text) == ["0000"] for text in default().days)


def test_a_year_of_two_digits_leaves_the_century_open():
    assert "yy" in babel.Locale.parse("de").date_formats["short"].pattern
    with pytest.raises(UserError, match=r"^Dates.formats: de has none left: .* add full or long$"):
        unambiguous_patterns(("de",), ("short",))


@pytest.mark.parametrize("skeleton", ["MMMd", "yMMM", "Hm", "GyMMMd", "yw"])
def test_a_format_that_is_not_a_whole_date_and_only_that_is_left_out(skeleton):
    assert skeleton in babel.Locale.parse("en").datetime_skeletons
    assert kept("en", f"long,{skeleton}") == {"en": ["MMMM d, y"]}


@given(st.dates(date(1900, 1, 1), date(2099, 12, 31)), st.randoms(use_true_random=False))
def test_every_writing_of_a_date_is_answered_with_it(day, rng):
    text, _ = rng.choice(list(texts_of(default().of_locale, [day])))
    assert Dates().answers(text) == (day.isoformat(),)


def test_leap_days_are_dates():
    assert Dates(**SMALL).answers("29. Februar 2096") == ("2096-02-29",)


NO_DATES = """yesterday|2020|0000|March 3, 20²0|Monday, March 2, 2021|February 29, 2021
February 29, 1900|February 30, 2020|March 3, 2100|March 3, 1899|March 3, 20|March 3, 0000
march 3, 2020| March 3, 2020|March 3, 2020 2020|3 March 2020|3.4.20|March 3, ٢٠٢٠"""


@pytest.mark.parametrize("source", [*re.split("[|\n]", NO_DATES), "", "\n", "x" * 1_000])
def test_what_is_no_date_of_the_task_is_refused(source):
    message = r"is no date of this run: it takes those of 1900 to 2099, the weekday right, such as "
    with pytest.raises(UserError, match=message + "'Wednesday, March 14, 1900'$") as error:
        Dates(**SMALL).answers(source)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 250


# --- splits ----------------------------------------------------------------------------------


def test_no_date_is_in_two_questions_and_all_answers_are_right():
    split = draw(locales="en_US, de , ru")
    pairs = list(itertools.chain(*split.values()))
    assert len({answer for _, answer in pairs}) == len({source for source, _ in pairs}) == 400
    writings: dict[str, set[str]] = {}
    for text, day in texts_of(
        unambiguous_patterns(("en_US", "de", "ru"), names(Dates().formats)).of_locale,
        [date.fromisoformat(answer) for _, answer in pairs],
    ):
        writings.setdefault(day.isoformat(), set()).add(text)
    assert all(source in writings[answer] for source, answer in pairs)


def test_locales_and_their_formats_are_equally_likely():
    sources = [s for s, _ in draw(locales="en_US,ru", formats="long,medium", train=1_600)["train"]]
    russian = [s for s in sources if s.endswith("г.")]
    assert abs(len(russian) - 800) < 5 * 20
    long = [s for s in russian if re.search(" [а-я]{5,} ", s)]  # май and мая have no short form
    assert 0.2 < len(long) / len(russian) < 0.6


def test_years_are_those_asked_for_and_every_date_can_be_asked_for():
    year = {"first_year": 2023, "last_year": 2024, "train": 700, "dev": 20, "test": 11}
    answers = {answer for _, answer in itertools.chain(*draw(**year).values())}
    assert answers == {(date(2023, 1, 1) + timedelta(i)).isoformat() for i in range(731)}
    message = "732 distinct dates are asked for (train + dev + test) but only 731 exist"
    with pytest.raises(UserError, match=f"^{re.escape(message)}$"):
        draw(**year | {"train": 701})


@pytest.mark.parametrize("years", [(1_000, 1_000), (9_999, 9_999)])
def test_first_and_last_years_there_are(years):
    split = draw(first_year=years[0], last_year=years[1], train=340, dev=10, test=10)
    assert all(answer.startswith(f"{years[0]}-") for _, answer in split["train"])
    task = Dates(first_year=years[0], last_year=years[1], **FEW | {"train": 200})
    assert task.answers(f"March 3, {years[0]}") == (f"{years[0]}-03-03",)


# --- the task --------------------------------------------------------------------------------


def test_characters_and_width_are_those_of_28_years():
    task = Dates(locales="es,ru", **FEW)
    patterns = unambiguous_patterns(("es", "ru"), names(task.formats)).of_locale
    texts = [text for text, _ in texts_of(patterns, CYCLE)]
    assert set(task.characters) == {*" -0123456789", *"".join(texts)}
    assert list(task.characters) == sorted(set(task.characters))
    assert task.source_width == max(map(len, texts)) == len("miércoles, 20 de septiembre de 2000")
    assert task.target_width == len("2000-09-20")


# --- what cannot be --------------------------------------------------------------------------


@pytest.mark.parametrize("listed", ["", ",", "full,", "full,,long", "full, full"])
def test_lists_are_names_each_once(listed):
    for name in ("locales", "formats"):
        message = f"Dates.{name} must be names with commas between them, each once, not {listed!r}"
        with pytest.raises(UserError, match=f"^{re.escape(message)}$"):
            Dates(**{name: listed})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"first_year": 2001, "last_year": 2000}, "last_year must be at least 2001, not 2000"),
        ({"first_year": 999}, "first_year must be at least 1000, not 999"),
        ({"last_year": 10_000}, "last_year must be at most 9,999, not 10000"),
        ({"dev": 0}, "dev must be at least 1, not 0"),
    ],
)
def test_years_and_sizes_that_cannot_be_are_refused(settings, message):
    with pytest.raises(UserError, match=f"^Dates.{message}"):
        Dates(**settings)


def test_a_locale_and_a_format_that_babel_lacks_are_named():
    for locale in ("xx", "en-US", "English", "../de", "ä"):
        message = f"Dates.locales: Babel has no locale {locale!r}; such as en_US, de, pt_BR"
        with pytest.raises(UserError, match=f"^{re.escape(message)}$"):
            Dates(locales=f"de,{locale}", **FEW).pinned()
    with pytest.raises(UserError, match=r"^Dates.formats: 'longest' is none of full, long, "):
        Dates(formats="full,longest", **FEW).pinned()


def test_without_babel_the_extra_is_named(monkeypatch):
    def nothing(name):
        raise ModuleNotFoundError(name=name)

    monkeypatch.setattr(errors.importlib, "import_module", nothing)
    with pytest.raises(UserError, match=r"the package babel of the extra `text`"):
        Dates(locales="ms", **FEW).pinned()
