"""Numbers in words against num2words: one answer, no number in two questions, all written once."""

import itertools
import json
import re

import jax
import num2words
import pytest

from s2sjax import extras
from s2sjax.cli import OPTIONS
from s2sjax.config import Run, Text
from s2sjax.data import Formatter, make_vocabulary
from s2sjax.errors import UserError
from s2sjax.serial import from_json, to_json
from s2sjax.taskconfig import NumberWords, Toy
from s2sjax.tasks import Task, make_task, numbers
from s2sjax.tasks.numbers import NumberWordsTask, written

FEW = {"largest": 499, "train": 300, "dev": 40, "test": 60}
SIZES = {name: FEW[name] for name in ("train", "dev", "test")}

directions = pytest.mark.parametrize("direction", ["to_digits", "to_words"])
languages = pytest.mark.parametrize("language", ["en", "de", "fr", "es", "ru", "ja"])


def draw(seed: int = 0, **settings) -> dict[str, list[tuple[str, str]]]:
    return make_task(NumberWords(**(FEW | settings))).splits(jax.random.key(seed))


def words_of(n: int, language: str) -> str:
    return " ".join(num2words.num2words(n, lang=language).split())


@languages
@directions
def test_all_answers_are_right_and_found_again(direction, language):
    task = make_task(NumberWords(direction, language, **FEW))
    for source, answer in itertools.chain(*task.splits(jax.random.key(0)).values()):
        n = int(answer if direction == "to_digits" else source)
        pair = (words_of(n, language), str(n))
        assert (source, answer) == (pair if direction == "to_digits" else pair[::-1])
        assert task.answer(source) == answer


def test_words_are_as_spoken():
    assert make_task(NumberWords(**FEW)).answer("two hundred and forty-two") == "242"
    assert make_task(NumberWords("to_words", "fr", **FEW)).answer("91") == "quatre-vingt-onze"
    assert make_task(NumberWords("to_words", "fr_CH", **FEW)).answer("91") == "nonante et un"
    assert make_task(NumberWords("to_words", "de", **FEW)).answer("0") == "null"


@directions
def test_no_number_is_in_two_questions(direction):
    split = draw(direction=direction)
    assert {name: len(rows) for name, rows in split.items()} == SIZES
    pairs = list(itertools.chain(*split.values()))
    assert len({source for source, _ in pairs}) == len({answer for _, answer in pairs}) == 400


def test_both_directions_ask_for_the_same_numbers():
    turned = {name: [(answer, source) for source, answer in rows] for name, rows in draw().items()}
    assert draw(direction="to_words") == turned


def test_splits_are_a_pure_function_of_the_key_and_share_dev_and_test():
    ours, theirs = draw(0), draw(1)
    assert draw(0) == ours
    assert (ours["dev"], ours["test"]) == (theirs["dev"], theirs["test"])
    assert ours["train"] != theirs["train"]


def test_every_number_can_be_asked_for_and_no_more():
    split = draw(train=400)
    digits = {answer for _, answer in itertools.chain(*split.values())}
    assert digits == {str(n) for n in range(500)}
    message = "501 distinct numbers are asked for (train + dev + test) but only 500 exist"
    with pytest.raises(UserError, match=f"^{re.escape(message)}$"):
        draw(train=401)


@languages
def test_characters_and_widths_are_those_of_all_numbers(language):
    every = [words_of(n, language) for n in range(500)]
    task = make_task(NumberWords(language=language, **FEW))
    assert set(task.characters) == {*" 0123456789", *"".join(every)}
    assert list(task.characters) == sorted(set(task.characters))
    assert (task.source_width, task.target_width) == (max(map(len, every)), 3)
    back = make_task(NumberWords("to_words", language, **FEW))
    assert (back.source_width, back.target_width) == (task.target_width, task.source_width)
    assert back.characters == task.characters


@directions
def test_rows_fit_and_hold_no_unknown_character(direction):
    task, text = make_task(NumberWords(direction, **FEW)), Text()
    vocabulary = make_vocabulary(task, text)
    for rows in draw(direction=direction).values():
        examples = Formatter(task, text, vocabulary).examples(rows)
        assert (examples.source != vocabulary.unk_id).all()
        assert vocabulary.decode(examples.target[0][1:]) == rows[0][1]


@pytest.mark.parametrize(
    ("direction", "source", "example"),
    [
        ("to_digits", "five hundred", "'forty-two'"),
        ("to_digits", "Forty-two", "'forty-two'"),
        ("to_digits", "42", "'forty-two'"),
        ("to_digits", "", "'forty-two'"),
        ("to_words", "500", "'42'"),
        ("to_words", "042", "'42'"),
        ("to_words", "-1", "'42'"),
        ("to_words", "٤٢", "'42'"),
        ("to_words", "9" * 5_000, "'42'"),
        ("to_words", "forty-two", "'42'"),
    ],
)
def test_what_is_no_number_of_the_task_is_refused(direction, source, example):
    message = f"is no number of this run: it takes 0 to 499, such as {example}$"
    with pytest.raises(UserError, match=message):
        make_task(NumberWords(direction, **FEW)).answer(source)


def test_blanks_of_any_kind_and_number_are_one_space():
    assert any(re.search(r"\s\s|\s$", num2words.num2words(n, lang="te")) for n in range(1_001))
    assert not any(re.search(r"\s\s|\s$|[^\S ]", words) for words in written("te", 1_000))


def test_it_is_a_task():
    task = make_task(NumberWords(**FEW))
    assert isinstance(task, Task)
    assert task == NumberWordsTask(NumberWords(**FEW))
    assert OPTIONS["NumberWords"] == "task"


def test_the_config_survives_json_as_what_it_is():
    run = Run(NumberWords("to_words", "de", **FEW))
    assert from_json(Run, json.loads(json.dumps(to_json(run)))) == run
    for mine in ({"direction": "to_words"}, {"language": "fr"}, {"largest": 100, "train": 7}):
        assert from_json(Run, {"task": mine}).task == NumberWords(**mine)
    assert from_json(Run, {"task": to_json(Toy())}).task == Toy()


# --- what cannot be --------------------------------------------------------------------------


def test_sizes_that_cannot_be_are_refused():
    with pytest.raises(UserError, match=r"^NumberWords.largest must be at least 100, not 99$"):
        NumberWords(largest=99)
    with pytest.raises(UserError, match=r"^NumberWords.largest must be at most 999,999, not 1000"):
        NumberWords(largest=1_000_000)
    with pytest.raises(UserError, match=r"^NumberWords.test must be at least 1, not 0$"):
        NumberWords(test=0)
    with pytest.raises(UserError, match=r"digits_reversed: NumberWords has no operands$"):
        Run(NumberWords(), Text("digits_reversed"))


@pytest.mark.parametrize("language", ["xx", "", "en_US", "EN"])
def test_a_language_that_num2words_lacks_is_named_with_those_it_has(language):
    message = rf"^NumberWords.language: num2words has no '{language}'; it has am, ar, .*, uk, vi$"
    with pytest.raises(UserError, match=message):
        make_task(NumberWords(language=language, **FEW))


def test_a_number_that_num2words_cannot_write_is_named():
    with pytest.raises(UserError, match=r"^num2words cannot write \d+ in am: choose a smaller "):
        make_task(NumberWords(language="am", **FEW | {"largest": 5_000}))


def test_numbers_written_alike_are_named(monkeypatch):
    monkeypatch.setattr(num2words, "num2words", lambda n, lang: f" {n % 7}  ")
    with pytest.raises(UserError, match=r"^num2words writes 0 and 7 alike in en: choose a smaller"):
        numbers.written.__wrapped__("en", 100)


def test_without_num2words_the_extra_is_named(monkeypatch):
    def nothing(name):
        raise ModuleNotFoundError(name=name)

    monkeypatch.setattr(extras.importlib, "import_module", nothing)
    with pytest.raises(UserError, match=r"package num2words: pip install 's2sjax\[text\]'$"):
        make_task(NumberWords(language="sv", **FEW))
