"""Copy, reverse and sort; and what holds for every task that is drawn."""

import hashlib
import itertools
import json
import re
from collections import Counter
from typing import get_args

import jax
import pytest

from s2sjax.data.sampling import quoted
from s2sjax.data.tasks import Addition, Dates, Task, TaskConfig, Toy
from s2sjax.errors import UserError

FEW = {"train": 60, "dev": 20, "test": 10}
LARGE = {"train": 10_000, "dev": 500, "test": 1_000}
SMALL = Toy(symbols=3, min_length=2, max_length=4, **FEW)


def draw(seed: int = 0, **settings) -> dict[str, list[tuple[str, str]]]:
    return Toy(**(FEW | settings)).pairs(jax.random.key(seed))


def strings(split: dict[str, list[tuple[str, str]]]) -> list[str]:
    return [source for rows in split.values() for source, _ in rows]


@pytest.mark.parametrize(
    ("kind", "right"), [("copy", "cabca"), ("reverse", "acbac"), ("sort", "aabcc")]
)
def test_the_answer_is_the_string_copied_reversed_or_sorted(kind, right):
    task = Toy(kind=kind, **FEW)
    assert task.answers("cabca") == (right,)
    for source, answer in itertools.chain(*task.pairs(jax.random.key(0)).values()):
        if kind == "sort":
            assert sorted(answer) == sorted(source)
            assert all(a <= b for a, b in itertools.pairwise(answer))
        else:
            order = range(len(source)) if kind == "copy" else range(len(source) - 1, -1, -1)
            assert answer == "".join(source[i] for i in order)


def test_strings_have_the_alphabet_and_the_lengths_asked_for():
    drawn = strings(SMALL.pairs(jax.random.key(0)))
    assert {len(source) for source in drawn} == {2, 3, 4}
    assert set("".join(drawn)) == set("abc")
    assert SMALL.characters == " abc"
    assert (SMALL.source_width, SMALL.target_width) == (4, 4)
    assert SMALL.pinned() is SMALL


def test_lengths_are_uniform_where_enough_strings_exist():
    lengths = [len(source) for source in strings(draw(symbols=26, min_length=5, train=1_970))]
    assert len(lengths) == 2_000
    assert abs(lengths.count(5) - 1_000) < 112  # 5 standard deviations


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(
    "task",
    [
        Toy(),
        Toy(symbols=26, max_length=20),
        Toy("copy", 10, 4, 6, **LARGE),
        Toy(symbols=3, max_length=5, train=300, dev=30, test=30),
    ],
)
def test_each_split_has_its_share_of_every_length(task, seed):
    """Short strings are few: a split that is drawn first must not take them all."""
    split = task.pairs(jax.random.key(seed))
    lengths = {name: Counter(len(source) for source, _ in rows) for name, rows in split.items()}
    for length in range(task.min_length, task.max_length + 1):
        count = sum(of_split[length] for of_split in lengths.values())
        for name, size in task.sizes.items():
            share = size / sum(task.sizes.values())
            spread = 5 * (count * share * (1 - share)) ** 0.5 + 1  # 5 standard deviations
            assert abs(lengths[name][length] - count * share) <= spread
            assert lengths["train"][length] > 0


def test_all_strings_that_exist_can_be_asked_for_and_no_more():
    split = draw(symbols=3, max_length=3, train=30, dev=5, test=4)
    assert len(set(strings(split))) == 39
    message = "40 distinct strings to sort are asked for (train + dev + test) but only 39 exist"
    with pytest.raises(UserError, match=f"^{re.escape(message)}$"):
        Toy(kind="sort", symbols=3, max_length=3, train=30, dev=5, test=5)


@pytest.mark.parametrize("source", ["xbca", "bca ", "bca\n", "a", "", "abcab", "a" * 99])
def test_what_is_no_question_is_refused(source):
    message = "is no question of this run: it takes 2 to 4 letters of 'abc'"
    with pytest.raises(UserError, match=f"^{re.escape(quoted(source))} {message}$"):
        SMALL.answers(source)
    assert [*map(SMALL.answers, ("ab", "abca"))] == [("ab",), ("abca",)]  # shortest and longest


def test_longer_strings_are_in_the_test_only_and_as_many_again():
    plain, further = (Toy(symbols=3, longer=n, train=20, dev=9, test=9) for n in (0, 2))
    short, long = (task.pairs(jax.random.key(0)) for task in (plain, further))
    for split in ("train", "dev"):
        assert short[split] == long[split]
    assert long["test"][:9] == short["test"]
    lengths = {len(source) for source, _ in long["test"][9:]}
    assert (len(set(long["test"])), lengths) == (18, {7, 8})
    assert (further.sizes, plain.sizes["test"]) == ({"train": 20, "dev": 9, "test": 18}, 9)
    assert further.pairs(jax.random.key(5))["test"] == long["test"]
    assert (further.source_width, further.target_width) == (8, 8)
    assert further.answers("abcabcab") == ("abcabcab",)


def test_longer_strings_that_do_not_exist_are_refused():
    message = r"^9 distinct longer strings to copy are asked for \(test\) but only 2 exist$"
    with pytest.raises(UserError, match=message):
        Toy(symbols=1, max_length=40, longer=2, train=1, dev=1, test=9)


# --- every task that is drawn ----------------------------------------------------------------

FLAX = Addition(operands="short_first")
NOTEBOOK = Addition(2, train=1_000, dev=200, test=200, splits="independent")
SAITOH = Addition(operands="any_length", train=45_000, test=5_000)
DRAWN = [
    Toy(symbols=2, **FEW),
    Addition(2, **FEW),
    Addition(2, "short_first", **FEW),
    Addition(2, "any_length", **FEW),
    Addition(2, terms=3, operator="-", **FEW),
    Addition(2, splits="independent", **FEW),
    Dates(locales="en_US,de,ru", **FEW),
]


@pytest.mark.parametrize("task", DRAWN, ids=str)
def test_splits_are_a_pure_function_of_the_key_and_their_questions_fit(task):
    ours, theirs = (task.pairs(jax.random.key(seed)) for seed in (0, 1))
    assert task.pairs(jax.random.key(0)) == ours
    assert {name: len(rows) for name, rows in ours.items()} == task.sizes == FEW
    assert ours["train"] != theirs["train"]
    shared = getattr(task, "splits", "leak_free") == "leak_free"
    assert (ours["dev"] == theirs["dev"]) == (ours["test"] == theirs["test"]) == shared
    assert ours["dev"][:10] != ours["test"]
    if shared:
        assert len(set(strings(ours))) == sum(FEW.values())
    for source, answer in itertools.chain(*ours.values(), *theirs.values()):
        assert task.answers(source) == (answer,)
        assert len(source) <= task.source_width
        assert len(answer) <= task.target_width
        assert set(source + answer) <= set(task.characters)


@pytest.mark.parametrize(
    ("task", "pinned"),
    [
        (Toy("copy", 26, 3, 20, **LARGE), "9207a912798c d9055ae5e247 a4e7a24eafd4"),
        (Toy("reverse", 26, 3, 10, 10, **LARGE), "ea81f53bb17f 87a34c7e7121 9533167bfcbe"),
        (Toy("reverse", 10, 4, 6, 0, 3_000, 500, 1_000), "eaf89fd89967 9c921c2b77c6 7793f21dd5e0"),
        (Toy(), "cb56046b30de cbbb3d2cdcfa db2fbb6edbcf"),
        (Addition(), "7e2dc41ae60a 177c9433da6c 710821d307f5"),
        (Addition(operator="-"), "d08ef5673407 d5857fe2c514 cc21e704e60e"),
        (FLAX, "d479f3ef5420 2b2865985b08 5c41b4d781ce"),
        (SAITOH, "2144ea0b4bad 67ae89b7349e ec5ce9521dd8"),
        (NOTEBOOK, "c13d6829b8e5 d5c91edb7bc6 37676fcce80f"),
        (Dates(), "228c5a681be8 367b12886499 4715634af3cf"),
    ],
    ids=str,
)
def test_the_questions_of_seed_0_stay_what_they_were(task, pinned):
    """Fault 32: committed results rest on them, NumPy's generators and Babel's data."""
    split = task.pairs(jax.random.key(0))
    texts = [json.dumps(split[name]).encode() for name in ("train", "dev", "test")]
    assert [hashlib.sha256(text).hexdigest()[:12] for text in texts] == pinned.split()


def test_tasks_are_tasks_and_so_is_one_from_outside():
    class Outside:
        characters = questions = "a"
        source_width = target_width = sizes = None
        pinned = pairs = answers = len

    assert all(isinstance(task, Task) for task in (Toy(), Addition(), Dates(), Outside()))
    assert not isinstance("a", Task)
    assert {Addition, Toy, Dates, Task} < set(get_args(TaskConfig))
