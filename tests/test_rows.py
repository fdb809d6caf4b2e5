"""Strings to rows of ids, against a definition on strings, and back."""

import itertools
import re
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s2sjax.config import SourceOrder, Text
from s2sjax.data.dataset import make_formatter
from s2sjax.data.rows import Formatter
from s2sjax.data.subwords import SubwordVocabulary
from s2sjax.data.tasks import Addition, Toy
from s2sjax.data.vocab import BOS, EOS, NO_SYMBOL, SPECIALS
from s2sjax.data.words import Rules, WordVocabulary
from s2sjax.errors import UserError

SUMS = Addition(digits=3)
NOTEBOOK = Text(source_justify="right", target_justify="right", start="first_target")
LEFT = Text(source_justify="left", target_justify="left")
SAITOH = replace(LEFT, source_eos=False, target_eos=False)
KERAS = replace(SAITOH, start="nothing")
PAIRS = [("568+32", "600"), ("999+999", "1998"), ("1+2", "3"), ("0+10", "10")]
SHOWN = {"<pad>": "_", "<bos>": "^", "<eos>": "$"}
TURNED = "reversed"

quickly = settings(derandomize=True, max_examples=200)
questions = st.tuples(st.integers(0, 999), st.integers(0, 999)).map(lambda n: "{}+{}".format(*n))
answers = st.integers(0, 1998).map(str)
sides = st.sampled_from([None, "left", "right"])


@st.composite
def texts(draw) -> Text:
    """Every way to lay out characters, among those that go together."""
    source, target = draw(sides), draw(sides)
    return Text(
        source_order=draw(st.sampled_from(get_args(SourceOrder))),
        target_order=draw(st.sampled_from(["forward", "reversed"])),
        source_justify=source,
        target_justify=target,
        justify_when=draw(st.sampled_from(["before", "after"])) if source or target else "before",
        mask_spaces=source is not None and draw(st.booleans()),
        lag=draw(st.sampled_from([0, 2])),
        source_eos=draw(st.booleans()),
        target_eos=target is None or draw(st.booleans()),
        start=draw(st.sampled_from(["bos", "first_target", "nothing"])),
    )


def spelled(text: Text, pairs: list[tuple[str, str]], task=SUMS) -> tuple[list[str], ...]:
    """Rows as strings: '_' is padding, '^' begins, '$' ends, '.' is no symbol."""
    formatter = make_formatter(task, text)
    symbols = {i: SHOWN.get(symbol, symbol) for i, symbol in enumerate(formatter.source.symbols)}
    symbols[NO_SYMBOL] = "."
    rows = formatter.examples(pairs)
    return tuple(["".join(symbols[i] for i in row) for row in side.tolist()] for side in rows)


# --- to the letter ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "sources", "targets"),
    [
        (
            NOTEBOOK,
            [" 568+32$", "999+999$", "    1+2$", "   0+10$"],
            [" 600$", "1998$", "   3$", "  10$"],
        ),
        (
            replace(NOTEBOOK, source_order="reversed"),
            ["23+865 $", "999+999$", "2+1    $", "01+0   $"],
            [" 600$", "1998$", "   3$", "  10$"],
        ),
        (
            Text(source_order="reversed"),
            ["23+865$_", "999+999$", "2+1$____", "01+0$___"],
            ["^600$_", "^1998$", "^3$___", "^10$__"],
        ),
        (
            SAITOH,
            ["568+32 ", "999+999", "1+2    ", "0+10   "],
            ["^600 ", "^1998", "^3   ", "^10  "],
        ),
        (
            replace(SAITOH, source_order="reversed"),
            [" 23+865", "999+999", "    2+1", "   01+0"],
            ["^600 ", "^1998", "^3   ", "^10  "],
        ),
    ],
    ids=["notebook", "notebook reversed", "clean", "Saitoh", "Saitoh reversed"],
)
def test_published_formats(text, sources, targets):
    assert spelled(text, PAIRS) == (sources, targets)
    examples = make_formatter(SUMS, text).examples(PAIRS)
    assert examples.source.dtype == examples.target.dtype == np.int32


def test_keras_format_is_saitohs_without_a_begin_symbol():
    formatter = make_formatter(SUMS, KERAS)
    assert formatter.source.symbols == formatter.target.symbols == (" ", "+", *"0123456789")
    source, target = formatter.examples(PAIRS[:1])
    assert source.tolist() == [[7, 8, 10, 1, 5, 4, 0]]
    assert target.tolist() == [[0, 8, 2, 2, 0]]  # the first column is never read


@pytest.mark.parametrize(
    ("text", "source", "target"),
    [
        (Text(start="first_target"), "12+3$___", "15$__"),
        (Text(source_order="digits_reversed"), "21+3$___", "^15$__"),
        (Text(source_order="operands_swapped"), "3+12$___", "^15$__"),
        (Text(target_order="reversed", start="first_target"), "12+3$___", "51$__"),
        (Text(lag=1, source_order="doubled", source_eos=False), "12+312+3 ______", "^15$__"),
        (replace(LEFT, source_order="doubled"), "12+3   12+3   $", "^15  $"),
        (replace(NOTEBOOK, source_order="operands_swapped"), "   3+12$", "  15$"),
        (replace(LEFT, source_order="reversed", justify_when="after"), "3+21   $", "^15  $"),
        (replace(LEFT, target_order="reversed", justify_when="after"), "12+3   $", "^51  $"),
        (replace(LEFT, mask_spaces=True, lag=2), "12+3...  $", "^15  $"),
        # fault 8: each side is justified alone
        (Text(source_justify="right"), "   12+3$", "^15$__"),
        (Text(target_justify="right"), "12+3$___", "^  15$"),
        (replace(LEFT, source_justify="right"), "   12+3$", "^15  $"),
    ],
)
def test_each_setting_of_the_text_does_what_it_says(text, source, target):
    assert spelled(text, [("12+3", "15")]) == ([source], [target])


def test_orders_of_a_difference_of_three():
    task = Addition(digits=3, terms=3, operator="-")
    orders = {
        "forward": "120-3-45",
        "reversed": "54-3-021",
        "digits_reversed": "021-3-54",
        "operands_swapped": "45-3-120",
        "doubled": "120-3-45120-3-45",
    }
    for order, expected in orders.items():
        text = Text(source_order=order, source_eos=False)
        assert spelled(text, [("120-3-45", "72")], task)[0][0].rstrip("_") == expected


# --- by definition ---------------------------------------------------------------------------

BLANK = "\0"


def justified(string: str, side: str | None, width: int) -> str:
    return {None: str(string), "left": string.ljust(width, BLANK)}.get(
        side, string.rjust(width, BLANK)
    )


def ordered(string: str, order: str) -> str:
    bare = string.strip(BLANK)
    return {
        "forward": string,
        "reversed": string[::-1],
        "doubled": 2 * string,
        "digits_reversed": re.sub("[0-9]+", lambda n: n[0][::-1], string),
        "operands_swapped": string.replace(bare, "+".join(bare.split("+")[::-1])),
    }[order]


def laid_out(string: str, order: str, side: str | None, width: int, when: str) -> str:
    if when == "before":
        return ordered(justified(string, side, width), order)
    return justified(ordered(string, order), side, width * (2 if order == "doubled" else 1))


@quickly
@given(text=texts(), question=questions, answer=answers)
def test_rows_are_those_of_the_justified_and_ordered_string(text, question, answer):
    formatter = make_formatter(SUMS, text)
    symbols = list(formatter.source.symbols)
    blank = [NO_SYMBOL if text.mask_spaces else symbols.index(" ")]
    ids = lambda string: [blank[0] if c == BLANK else symbols.index(c) for c in string]
    when = text.justify_when
    read = laid_out(question, text.source_order, text.source_justify, 7, when) + " " * text.lag
    end = [formatter.source.eos_id]
    assert formatter.source_ids(question) == ids(read) + end * text.source_eos
    written = laid_out(answer, text.target_order, text.target_justify, 4, when)
    blank = [symbols.index(" ")]
    assert formatter.answer_ids(answer) == ids(written)
    start = {"bos": lambda: [formatter.target.bos_id], "nothing": lambda: [0], "first_target": list}
    row = start[text.start]() + ids(written) + end * text.target_eos
    assert formatter.target_ids(answer) == row
    assert formatter.row((question, answer)) == (formatter.source_ids(question), row)


@quickly
@given(text=texts(), question=questions, answer=answers, side=sides)
def test_an_arm_can_move_the_spaces_of_one_side_alone(text, question, answer, side):
    """Fault 8."""
    text = replace(text, justify_when="before", mask_spaces=False, start="bos")
    ours = spelled(text, [(question, answer)])
    assert spelled(replace(text, source_justify=side), [(question, answer)])[1] == ours[1]
    moved = replace(text, target_justify=side, target_eos=True)
    assert spelled(moved, [(question, answer)])[0] == ours[0]


@quickly
@given(text=texts(), pairs=st.lists(st.tuples(questions, answers), max_size=3))
def test_widths_are_those_of_the_task_and_the_widest_pair_fills_them(text, pairs):
    formatter = make_formatter(SUMS, text)
    examples = formatter.examples([*pairs, ("999+999", "1998")])
    assert tuple(rows.shape[1] for rows in examples) == formatter.row_widths
    assert tuple(map(len, formatter.row(("999+999", "1998")))) == formatter.row_widths
    for i, pair in enumerate(pairs):  # a row does not depend on the others
        for rows, alone in zip(examples, formatter.examples([pair]), strict=True):
            assert rows[i].tolist() == alone[0].tolist()


def test_reversal_is_digit_reversal_of_swapped_operands():
    """So both arms read the same set of questions where operands are exchangeable."""
    read = lambda order, a, b: spelled(Text(source_order=order), [(f"{a}+{b}", "0")])[0]
    for a, b in itertools.product((0, 7, 10, 123), repeat=2):
        assert read("reversed", a, b) == read("digits_reversed", b, a)


# --- and back --------------------------------------------------------------------------------


@quickly
@given(text=texts(), answer=answers)
def test_an_answer_is_read_back_from_its_symbols(text, answer):
    formatter = make_formatter(SUMS, text)
    given_first = formatter.given(answer)
    assert given_first == (formatter.answer_ids(answer)[:1] if text.start == "first_target" else [])
    ids = np.array(formatter.target_ids(answer))[1:]  # what is decoded
    end = [] if formatter.target.pad_id is None else [formatter.target.pad_id]
    for written in (ids, [*ids, *end * 3]):
        assert formatter.read(written, given_first) == formatter.reference(answer) == answer


@pytest.mark.parametrize("turned", ["forward", "reversed"])
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_signs_and_letters_are_read_back(turned, when, side):
    text = Text(target_justify=side, justify_when=when, target_order=turned)
    formatters = {"-197 -1 0 99": Addition(2, terms=3, operator="-"), "b bca": Toy(max_length=4)}
    for listed, task in formatters.items():
        formatter = make_formatter(task, text)
        assert [formatter.read(formatter.answer_ids(a)) for a in listed.split()] == listed.split()


@quickly
@given(text=texts(), written=st.text(" 015", min_size=4, max_size=4))
def test_a_misplaced_space_is_not_the_same_answer(text, written):
    """Fault 7: of all rows of full width, one reads as a given answer."""
    formatter = make_formatter(SUMS, replace(text, start="bos"))
    ids = formatter.target.encode(written)
    for answer in {written.strip(), "15"} - {""}:
        assert (formatter.read(ids) == answer) == (ids == formatter.answer_ids(answer)), answer


# --- words and subwords ----------------------------------------------------------------------

TEXTS = ["a big dog", "the dog saw a cat", "dogs see cats"]
UNITS = {
    "words": WordVocabulary.build(TEXTS, Rules()),
    "subwords": SubwordVocabulary.build(TEXTS, max_size=280),
}


@pytest.mark.parametrize("unit", UNITS)
def test_orders_of_words_and_subwords_are_those_of_their_symbols(unit):
    known = UNITS[unit]
    ids, units = known.encode("a dog saw cats"), {"source_unit": unit, "target_unit": unit}
    assert len(ids) >= 4
    expected = {"forward": ids, "reversed": ids[::-1], "doubled": 2 * ids}
    for order, read in expected.items():
        formatter = Formatter(Text(**units, source_order=order), known, known, None)
        assert formatter.source_ids("a dog saw cats") == [*read, known.eos_id]
    turned = Formatter(Text(**units, target_order="reversed"), known, known, None)
    assert turned.answer_ids("a dog saw cats") == ids[::-1]
    assert turned.read(turned.target_ids("a dog saw cats")[1:]) == "a dog saw cats"
    first = Formatter(Text(**units, start="first_target"), known, known, None)
    assert first.target_ids("a dog") == [*known.encode("a dog"), known.eos_id]
    assert first.read(first.target_ids("a dog")[1:], first.given("a dog")) == "a dog"


def test_a_reference_is_spelled_as_the_vocabulary_does_with_its_unknown_words():
    formatter = Formatter(Text(target_unit="words"), UNITS["words"], UNITS["words"], None)
    assert formatter.reference("A  Zebra, dog") == "a zebra , dog"
    assert formatter.read(formatter.answer_ids("A  Zebra, dog")) == "a <unk> <unk> dog"


def test_rows_without_known_widths_are_as_wide_as_the_widest_or_as_asked():
    formatter = Formatter(Text(), UNITS["words"], UNITS["words"], None)
    pairs = [("a dog", "dogs"), ("cat", "a cat saw")]
    assert formatter.row_widths is None
    assert [rows.shape for rows in formatter.examples(pairs)] == [(2, 3), (2, 5)]
    assert formatter.filled([formatter.row(p) for p in pairs], (4, 6)).source[:, 3].tolist() == [
        0,
        0,
    ]
    assert formatter.with_ends(2, 3) == (3, 5)


# --- vocabularies ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "specials"),
    [
        (Text(), SPECIALS),
        (Text(source_justify="right"), SPECIALS),
        (Text(target_justify="right", start="nothing"), SPECIALS),
        (NOTEBOOK, (EOS,)),
        (SAITOH, (BOS,)),
        (KERAS, ()),
        (replace(LEFT, mask_spaces=True), (BOS, EOS)),
        (replace(LEFT, source_eos=False), (BOS, EOS)),
        (replace(LEFT, target_eos=False, start="nothing"), (EOS,)),
    ],
    ids=str,
)
def test_a_vocabulary_has_all_specials_or_where_all_rows_are_full_those_used(text, specials):
    formatter = make_formatter(SUMS, text)
    assert formatter.source == formatter.target
    assert (formatter.source.specials, len(formatter.source)) == (specials, 12 + len(specials))
    pad_id = 0 if specials == SPECIALS else None
    assert formatter.source_pad_id == (NO_SYMBOL if text.mask_spaces else pad_id)
    assert formatter.target.pad_id == pad_id


def test_a_string_that_is_too_long_is_refused():
    with pytest.raises(UserError, match="a row of 9 symbols does not fit the width 8"):
        make_formatter(SUMS, Text()).examples([("1234+567", "1801")])
