"""Copy, reverse, sort: right answers, distinct strings, and what is refused."""

import itertools
import re

import jax
import pytest

from s2sjax.errors import UserError
from s2sjax.taskconfig import Toy
from s2sjax.tasks import Task, make_task
from s2sjax.tasks.toys import ToyTask

SPLITS = ["train", "dev", "test"]
FEW = {"train": 60, "dev": 20, "test": 10}
RIGHT = {"copy": "cabca", "reverse": "acbac", "sort": "aabcc"}

kinds = pytest.mark.parametrize("kind", ["copy", "reverse", "sort"])


def draw(seed: int = 0, **settings) -> dict[str, list[tuple[str, str]]]:
    return make_task(Toy(**(FEW | settings))).splits(jax.random.key(seed))


def strings(split: dict[str, list[tuple[str, str]]]) -> list[str]:
    return [source for name in SPLITS for source, _ in split[name]]


@kinds
def test_the_answer_is_the_string_copied_reversed_or_sorted(kind):
    assert ToyTask(Toy(kind=kind)).answer("cabca") == RIGHT[kind]


@kinds
def test_all_answers_are_right(kind):
    for source, answer in itertools.chain(*draw(kind=kind).values()):
        if kind == "sort":
            assert sorted(answer) == sorted(source)
            assert all(a <= b for a, b in itertools.pairwise(answer))
        else:
            order = range(len(source)) if kind == "copy" else range(len(source) - 1, -1, -1)
            assert answer == "".join(source[i] for i in order)


def test_strings_are_distinct_over_all_splits_which_have_the_sizes_asked_for():
    split = draw(symbols=2, max_length=6)  # 126 strings exist
    assert {name: len(rows) for name, rows in split.items()} == FEW
    assert len(set(strings(split))) == sum(FEW.values())


def test_strings_have_the_alphabet_and_the_lengths_asked_for():
    task = ToyTask(Toy(symbols=3, min_length=2, max_length=4, **FEW))
    drawn = strings(task.splits(jax.random.key(0)))
    assert {len(source) for source in drawn} == {2, 3, 4}
    assert set("".join(drawn)) == set("abc")
    assert task.characters == " abc"
    assert (task.source_width, task.target_width) == (4, 4)


def test_lengths_are_uniform_where_enough_strings_exist():
    lengths = [len(source) for source in strings(draw(symbols=26, min_length=5, train=1_970))]
    assert len(lengths) == 2_000
    assert abs(lengths.count(5) - 1_000) < 112  # 5 standard deviations


def test_splits_are_a_pure_function_of_the_key_and_share_dev_and_test():
    ours, theirs = draw(0, symbols=2), draw(1, symbols=2)
    assert draw(0, symbols=2) == ours
    assert (ours["dev"], ours["test"]) == (theirs["dev"], theirs["test"])
    assert ours["train"] != theirs["train"]
    assert ours["dev"][:10] != ours["test"]


def test_strings_that_exist_are_counted():
    lengths = range(1, 4)
    every = {"".join(s) for n in lengths for s in itertools.product("abc", repeat=n)}
    assert ToyTask(Toy(symbols=3, max_length=3, train=1, dev=1, test=1)).distinct_strings == 39
    assert len(every) == 39


def test_all_strings_that_exist_can_be_asked_for():
    split = draw(symbols=3, max_length=3, train=30, dev=5, test=4)
    assert len(set(strings(split))) == 39


def test_asking_for_more_strings_than_exist_is_refused():
    message = "40 distinct strings to sort are asked for (train + dev + test) but only 39 exist"
    with pytest.raises(UserError, match=f"^{re.escape(message)}$"):
        make_task(Toy(kind="sort", symbols=3, max_length=3, train=30, dev=5, test=5))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("xbca ", "'xbca ' has characters outside the alphabet: ' x'; it is 'abc'"),
        ("abd", "'abd' has characters outside the alphabet: 'd'; it is 'abc'"),
        ("a", "'a' has 1 characters; this run takes 2 to 4"),
        ("", "'' has 0 characters; this run takes 2 to 4"),
        ("abcab", "'abcab' has 5 characters; this run takes 2 to 4"),
    ],
)
def test_what_is_no_question_is_refused(source, message):
    with pytest.raises(UserError, match=f"^{re.escape(message)}$"):
        ToyTask(Toy(symbols=3, min_length=2, max_length=4, **FEW)).answer(source)


@pytest.mark.parametrize("source", ["ab", "abca"])
def test_shortest_and_longest_strings_are_questions(source):
    assert ToyTask(Toy(symbols=3, min_length=2, max_length=4, **FEW)).answer(source) == source


def test_it_is_a_task():
    task = make_task(Toy())
    assert isinstance(task, Task)
    assert task == ToyTask(Toy())


def test_longer_strings_are_in_the_test_only_and_as_many_again():
    plain, further = (ToyTask(Toy(symbols=3, longer=n, train=20, dev=9, test=9)) for n in (0, 2))
    short, long = (task.splits(jax.random.key(0)) for task in (plain, further))
    for split in ("train", "dev"):
        assert short[split] == long[split]
    assert long["test"][:9] == short["test"]
    lengths = {len(source) for source, _ in long["test"][9:]}
    assert (len(long["test"]), lengths) == (18, {7, 8})
    assert len({*long["test"]}) == 18
    assert further.splits(jax.random.key(5))["test"] == long["test"]
    assert (further.source_width, further.target_width) == (8, 8)
    assert further.answer("abcabcab") == "abcabcab"


def test_longer_strings_that_do_not_exist_are_refused():
    with pytest.raises(UserError, match="9 distinct longer strings to copy"):
        ToyTask(Toy(symbols=1, max_length=40, longer=2, train=1, dev=1, test=9))
