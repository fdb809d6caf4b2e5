"""Strings to rows of ids, to the letter; and the batches of an epoch."""

import dataclasses
import itertools
from collections.abc import Iterator
from typing import get_args

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st

from s2sjax.config import SourceOrder, Text
from s2sjax.data import (
    Examples,
    Formatter,
    epoch_order,
    in_batches,
    make_vocabulary,
    reorder,
    take,
)
from s2sjax.errors import UserError
from s2sjax.taskconfig import Addition, Toy
from s2sjax.tasks import make_task
from s2sjax.vocab import BOS, EOS, NO_SYMBOL, SPECIALS, UNK

NOTEBOOK = Text(justify="right", start="first_target")
SAITOH = Text(justify="left", source_eos=False, target_eos=False)
KERAS = dataclasses.replace(SAITOH, start="nothing")
PAIRS = [("568+32", "600"), ("999+999", "1998"), ("1+2", "3"), ("0+10", "10")]
SHORT = {"<pad>": "_", "<bos>": "^", "<eos>": "$"}

orders = pytest.mark.parametrize("source_order", ["forward", "reversed"])
quickly = hypothesis.settings(deadline=None, derandomize=True, max_examples=100)
sums = st.lists(st.integers(0, 999), min_size=2, max_size=4).map(lambda n: "+".join(map(str, n)))


def texts() -> Iterator[Text]:
    """Every way to lay out a string, among those that go together."""
    for order, turned, justify, lag in itertools.product(
        get_args(SourceOrder), ("forward", "reversed"), (None, "left", "right"), (0, 3)
    ):
        for when, mask, end in itertools.product(("before", "after"), (True, False), (True, False)):
            if justify is not None or (when, mask, end) == ("before", False, True):
                yield Text(order, turned, justify, when, mask, lag, target_eos=end)


def formatter(text: Text, task: Addition | Toy = Addition(digits=3)) -> Formatter:
    made = make_task(task)
    return Formatter(made, text, make_vocabulary(made, text))


def spelled(text: Text, pairs: list[tuple[str, str]] = PAIRS) -> tuple[list[str], list[str]]:
    """Rows as strings: '_' is padding, '^' begins, '$' ends, '.' is no symbol."""
    form = formatter(text)
    examples = form.examples(pairs)
    symbols = {i: SHORT.get(symbol, symbol) for i, symbol in enumerate(form.vocabulary.symbols)}
    symbols[NO_SYMBOL] = "."
    sources, targets = (
        ["".join(symbols[i] for i in row) for row in rows.tolist()] for rows in examples
    )
    return sources, targets


# --- formats ---------------------------------------------------------------------------------


def test_the_notebook_format_to_the_letter():
    sources, targets = spelled(NOTEBOOK)
    assert sources == [" 568+32$", "999+999$", "    1+2$", "   0+10$"]
    assert targets == [" 600$", "1998$", "   3$", "  10$"]


def test_the_notebook_reverses_the_justified_string_and_then_ends_it():
    sources, targets = spelled(Text(source_order="reversed", justify="right", start="first_target"))
    assert sources == ["23+865 $", "999+999$", "2+1    $", "01+0   $"]
    assert targets == [" 600$", "1998$", "   3$", "  10$"]


def test_the_notebook_has_widths_8_and_5_and_13_symbols():
    examples = formatter(NOTEBOOK).examples(PAIRS)
    assert (examples.source.shape, examples.target.shape) == ((4, 8), (4, 5))
    assert examples.source.dtype == examples.target.dtype == np.int32
    vocab = formatter(NOTEBOOK).vocabulary
    assert (len(vocab), vocab.specials, vocab.pad_id) == (13, (EOS,), None)


def test_the_clean_format_begins_ends_and_pads_on_the_right():
    sources, targets = spelled(Text())
    assert sources == ["568+32$_", "999+999$", "1+2$____", "0+10$___"]
    assert targets == ["^600$_", "^1998$", "^3$___", "^10$__"]


def test_the_clean_format_reverses_the_bare_string():
    sources, targets = spelled(Text(source_order="reversed"))
    assert sources == ["23+865$_", "999+999$", "2+1$____", "01+0$___"]
    assert targets == ["^600$_", "^1998$", "^3$___", "^10$__"]


def test_saitohs_format_to_the_letter():
    sources, targets = spelled(SAITOH)
    assert sources == ["568+32 ", "999+999", "1+2    ", "0+10   "]
    assert targets == ["^600 ", "^1998", "^3   ", "^10  "]
    sources, targets = spelled(dataclasses.replace(SAITOH, source_order="reversed"))
    assert sources == [" 23+865", "999+999", "    2+1", "   01+0"]
    assert targets == ["^600 ", "^1998", "^3   ", "^10  "]


def test_keras_format_is_saitohs_without_a_begin_symbol():
    form = formatter(KERAS)
    examples = form.examples(PAIRS[:1])
    assert form.vocabulary.symbols == (" ", "+", *"0123456789")
    assert examples.source.tolist() == [[7, 8, 10, 1, 5, 4, 0]]
    assert examples.target.tolist() == [[0, 8, 2, 2, 0]]  # the first column is never read
    assert (form.source_width, form.target_width, form.pad_id) == (7, 5, None)


@pytest.mark.parametrize(
    ("text", "source", "target"),
    [
        (Text(), "12+3$___", "^15$__"),
        (Text(source_eos=False), "12+3___", "^15$__"),
        (Text(source_eos=False, source_order="reversed"), "3+21___", "^15$__"),
        (Text(start="first_target"), "12+3$___", "15$__"),
        (Text(source_order="digits_reversed"), "21+3$___", "^15$__"),
        (Text(source_order="operands_swapped"), "3+12$___", "^15$__"),
        (Text(source_order="doubled"), "12+312+3$______", "^15$__"),
        (Text(target_order="reversed"), "12+3$___", "^51$__"),
        (Text(target_order="reversed", start="first_target"), "12+3$___", "51$__"),
        (Text(lag=2), "12+3  $___", "^15$__"),
        (Text(lag=2, source_order="reversed"), "3+21  $___", "^15$__"),
        (Text(lag=1, source_order="doubled", source_eos=False), "12+312+3 ______", "^15$__"),
        # justified, then ordered: the spaces move with the string
        (Text(justify="right"), "   12+3$", "^  15$"),
        (Text(justify="right", source_eos=False, source_order="reversed"), "3+21   ", "^  15$"),
        (Text(justify="left"), "12+3   $", "^15  $"),
        (Text(justify="left", source_order="reversed"), "   3+21$", "^15  $"),
        (Text(justify="left", source_order="digits_reversed"), "21+3   $", "^15  $"),
        (Text(justify="right", source_order="digits_reversed"), "   21+3$", "^  15$"),
        (Text(justify="left", source_order="operands_swapped"), "3+12   $", "^15  $"),
        (Text(justify="right", source_order="operands_swapped"), "   3+12$", "^  15$"),
        (Text(justify="left", source_order="doubled"), "12+3   12+3   $", "^15  $"),
        (Text(justify="right", source_order="doubled"), "   12+3   12+3$", "^  15$"),
        (Text(justify="left", target_order="reversed"), "12+3   $", "^  51$"),
        (Text(justify="right", target_order="reversed"), "   12+3$", "^51  $"),
        (Text(justify="right", target_order="reversed", target_eos=False), "   12+3$", "^51  "),
        (Text(justify="left", lag=2, source_order="reversed"), "   3+21  $", "^15  $"),
        # ordered, then justified: the spaces stay on their side
        (Text(justify="left", justify_when="after"), "12+3   $", "^15  $"),
        (Text("reversed", justify="left", justify_when="after"), "3+21   $", "^15  $"),
        (Text("reversed", justify="right", justify_when="after"), "   3+21$", "^  15$"),
        (Text("doubled", justify="left", justify_when="after"), "12+312+3      $", "^15  $"),
        (Text("doubled", justify="right", justify_when="after"), "      12+312+3$", "^  15$"),
        (Text("forward", "reversed", "left", "after"), "12+3   $", "^51  $"),
        (Text("forward", "reversed", "right", "after"), "   12+3$", "^  51$"),
        # the encoder skips what justification wrote, and nothing else
        (Text(justify="right", mask_spaces=True), "...12+3$", "^  15$"),
        (Text("reversed", justify="right", mask_spaces=True), "3+21...$", "^  15$"),
        (Text(justify="left", mask_spaces=True, lag=2), "12+3...  $", "^15  $"),
        (Text("doubled", justify="left", mask_spaces=True), "12+3...12+3...$", "^15  $"),
        (Text("reversed", "forward", "left", "after", True, 1), "3+21... $", "^15  $"),
        (Text("operands_swapped", justify="right", mask_spaces=True), "...3+12$", "^  15$"),
        # all together
        (
            Text("reversed", "reversed", "left", "before", True, 1, False, False),
            "...3+21 ",
            "^  51",
        ),
    ],
)
def test_each_setting_of_the_text_does_what_it_says(text, source, target):
    assert spelled(text, [("12+3", "15")]) == ([source], [target])


def test_ids_of_what_the_encoder_skips_are_no_symbols():
    text = Text(justify="left", mask_spaces=True, lag=1, target_eos=False, start="first_target")
    form = formatter(text)
    examples = form.examples([("1+2", "3")])
    assert form.vocabulary.symbols == (EOS, " ", "+", *"0123456789")
    # four spaces are skipped, the filler and the end symbol are read
    assert examples.source.tolist() == [[4, 2, 5, -1, -1, -1, -1, 1, 0]]
    assert examples.target.tolist() == [[6, 1, 1, 1]]
    assert examples.source.dtype == examples.target.dtype == np.int32
    assert form.pad_id == NO_SYMBOL == -1


# --- orders ----------------------------------------------------------------------------------


@quickly
@hypothesis.given(question=sums)
def test_reversal_is_digit_reversal_of_the_swapped_question(question):
    swapped = "+".join(reversed(question.split("+")))
    assert reorder(question, "reversed") == reorder(swapped, "digits_reversed")
    both = reorder(reorder(question, "operands_swapped"), "digits_reversed")
    assert both == reorder(question, "reversed") == question[::-1]


def test_so_both_arms_read_the_same_set_of_questions_where_operands_are_exchangeable():
    every = {f"{a}+{b}" for a in range(12) for b in range(12)}
    assert {reorder(q, "reversed") for q in every} == {reorder(q, "digits_reversed") for q in every}


@quickly
@hypothesis.given(question=sums, order=st.sampled_from(get_args(SourceOrder)))
def test_orders_undo_themselves_and_lose_no_character(question, order):
    once = reorder(question, order)
    assert sorted(once) == sorted(question * (2 if order == "doubled" else 1))
    if order == "doubled":
        assert once == question + question
    else:
        assert reorder(once, order) == question


@pytest.mark.parametrize(
    ("order", "text"),
    [
        ("forward", "120-3-45"),
        ("reversed", "54-3-021"),
        ("digits_reversed", "021-3-54"),
        ("operands_swapped", "45-3-120"),
        ("doubled", "120-3-45120-3-45"),
    ],
)
def test_orders_of_a_difference_of_three(order, text):
    assert reorder("120-3-45", order) == text


def test_a_string_of_letters_is_doubled_and_reversed():
    form = formatter(Text("doubled", "reversed", "left"), Toy(max_length=4))
    assert (form.source("bca"), form.target("bca")) == ("bca bca ", " acb")
    assert form.answer(" acb") == "bca"


# --- what holds for every text ---------------------------------------------------------------

TEXTS = list(texts())
EVERY_PAIR = [(f"{a}+{b}", str(a + b)) for a in (0, 30, 999) for b in (5, 901, 999)]


def test_that_is_all_of_them():
    assert len(TEXTS) == len(set(TEXTS)) == 5 * 2 * 2 * (1 + 2 * 2 * 2 * 2)


def test_an_answer_is_read_back_from_what_is_written():
    for text in TEXTS:
        form = formatter(text)
        for answer in ("0", "10", "600", "1998", "1001"):
            assert form.answer(form.target(answer)) == answer, text
    task = Addition(digits=2, operator="-", terms=3)
    for turned, justify, when in itertools.product(
        ("forward", "reversed"), ("left", "right"), ("before", "after")
    ):
        form = formatter(Text("forward", turned, justify, when), task)
        for answer in ("-197", "-1", "0", "99", "-10"):
            assert form.answer(form.target(answer)) == answer


def test_an_answer_is_read_back_from_its_ids():
    for text in TEXTS:
        form = formatter(text)
        targets = form.examples(EVERY_PAIR).target
        for (_, answer), row in zip(EVERY_PAIR, targets, strict=True):
            assert form.answer(form.vocabulary.decode(row)) == answer, text


def test_widths_are_those_of_the_rows_and_of_the_text_alone():
    for text in TEXTS:
        form = formatter(text)
        for pairs in (EVERY_PAIR, EVERY_PAIR[:1], [("999+999", "1998")], []):
            source, target = form.examples(pairs)
            assert source.shape == (len(pairs), form.source_width), text
            assert target.shape == (len(pairs), form.target_width), text


def test_the_widest_question_and_answer_fill_their_rows():
    for text in TEXTS:
        form = formatter(text)
        source, target = form.examples([("999+999", "1998")])
        assert form.pad_id not in source, text
        assert form.pad_id not in target, text
        assert source.shape[1] == len(form.source("999+999")) + text.source_eos
        assert target.shape[1] == 1 + len(form.target("1998")) + text.target_eos


def test_ids_are_those_of_the_strings():
    for text in TEXTS:
        form = formatter(text)
        rows = form.examples(EVERY_PAIR)
        for (question, answer), source, target in zip(EVERY_PAIR, *rows, strict=True):
            read, written = form.source(question), form.target(answer)
            expected = np.array(form.vocabulary.encode(read))
            found = source[: len(read)]
            skipped = found == NO_SYMBOL
            assert (found[~skipped] == expected[~skipped]).all(), text
            if not text.mask_spaces:
                assert not skipped.any()
            assert target[1 : 1 + len(written)].tolist() == form.vocabulary.encode(written)
            assert target[0] == form.vocabulary.bos_id


def test_what_is_skipped_is_what_justification_wrote():
    for text in TEXTS:
        if not text.mask_spaces:
            continue
        form = formatter(text)
        for question, _ in EVERY_PAIR:
            row, read = form.examples([(question, "0")]).source[0], form.source(question)
            copies = 2 if text.source_order == "doubled" else 1
            assert (row == NO_SYMBOL).sum() == copies * (7 - len(question)), text
            assert all(read[i] == " " for i in np.flatnonzero(row == NO_SYMBOL))
            fillers = row[len(read) - text.lag : len(read)]
            assert fillers.tolist() == form.vocabulary.encode(" " * text.lag)


@orders
@pytest.mark.parametrize("justify", [None, "right"])
def test_only_the_source_is_reversed_and_the_end_symbol_stays_last(justify, source_order):
    form = formatter(Text(justify=justify, source_order=source_order))
    forward = formatter(Text(justify=justify))
    for question, answer in form.task.splits(jax.random.key(0))["dev"][:50]:
        read = forward.source(question)
        assert form.source(question) == (read if source_order == "forward" else read[::-1])
        assert read.strip() == question
        assert form.target(answer) == forward.target(answer)
        row = form.examples([(question, answer)]).source[0]
        assert row[len(read)] == form.vocabulary.eos_id
        assert form.vocabulary.decode(row) == form.source(question)


@pytest.mark.parametrize("text", [Text(), NOTEBOOK], ids=["clean", "notebook"])
def test_a_row_does_not_depend_on_the_rows_beside_it(text):
    together = formatter(text).examples(PAIRS)
    for i, pair in enumerate(PAIRS):
        alone = formatter(text).examples([pair])
        assert alone.source.tolist() == together.source[i : i + 1].tolist()
        assert alone.target.tolist() == together.target[i : i + 1].tolist()


# --- vocabularies ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [Text(), Text(start="first_target"), Text(start="nothing"), Text(source_eos=False)],
    ids=str,
)
def test_the_vocabulary_has_all_specials_where_rows_need_padding(text):
    assert make_vocabulary(make_task(Addition()), text).specials == SPECIALS


@pytest.mark.parametrize(
    ("text", "specials"),
    [
        (NOTEBOOK, (EOS,)),
        (SAITOH, (BOS,)),
        (KERAS, ()),
        (Text(justify="right"), (BOS, EOS)),
        (Text(justify="left", source_eos=False), (BOS, EOS)),
        (Text(justify="left", target_eos=False), (BOS, EOS)),
        (Text(justify="left", target_eos=False, start="nothing"), (EOS,)),
        (Text(justify="left", source_eos=False, target_eos=False, start="first_target"), ()),
    ],
    ids=str,
)
def test_the_vocabulary_has_no_special_but_those_used_where_every_row_is_full(text, specials):
    for mask in (False, True):
        vocabulary = make_vocabulary(
            make_task(Addition()), dataclasses.replace(text, mask_spaces=mask)
        )
        assert vocabulary.specials == specials
        assert len(vocabulary) == 12 + len(specials)
        assert vocabulary.pad_id is None


def test_the_model_skips_padding_masked_spaces_or_nothing():
    assert formatter(Text()).pad_id == 0
    assert formatter(NOTEBOOK).pad_id is None
    assert formatter(dataclasses.replace(NOTEBOOK, mask_spaces=True)).pad_id == NO_SYMBOL


def test_no_text_of_a_task_is_unknown():
    for task in (make_task(Addition(operator="-")), make_task(Toy())):
        form = Formatter(task, Text(justify="right"), make_vocabulary(task, Text()))
        examples = form.examples(task.splits(jax.random.key(0))["dev"])
        unk = form.vocabulary.symbols.index(UNK)
        assert not any((rows == unk).any() for rows in examples)


def test_a_string_that_is_too_long_is_refused():
    with pytest.raises(UserError, match="a row of 9 symbols does not fit the width 8"):
        formatter(Text()).examples([("1234+567", "1801")])


# --- batches ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "batch_size"), [(1, 4), (4, 4), (5, 4), (7, 3), (3, 1)])
def test_batches_cover_every_example_once_and_fill_up_at_weight_zero(n, batch_size):
    order = jax.random.permutation(jax.random.key(0), n)
    indices, weights = in_batches(order, batch_size)
    batch_size = min(batch_size, n)  # a batch is never larger than what there is
    steps = -(-n // batch_size)
    assert indices.shape == weights.shape == (steps, batch_size)
    assert indices.ravel()[:n].tolist() == order.tolist()  # the last, partial batch is kept
    assert weights.ravel().tolist() == [1.0] * n + [0.0] * (steps * batch_size - n)
    assert set(indices.ravel()[n:].tolist()) <= {0}


ORDER = jax.jit(epoch_order, static_argnums=2)
N = 50


def order_of(seed: int, epoch: int) -> list[int]:
    return ORDER(jax.random.key(seed), jnp.int32(epoch), N).tolist()


def test_an_epochs_order_is_a_permutation():
    assert sorted(order_of(0, 0)) == list(range(N))
    assert order_of(0, 0) != list(range(N))


def test_an_epochs_order_is_a_pure_function_of_key_and_epoch():
    first = order_of(0, 3)
    order_of(1, 4)
    assert order_of(0, 3) == first
    assert epoch_order(jax.random.key(0), jnp.int32(3), N).tolist() == first


def test_every_seed_and_every_epoch_has_an_order_of_its_own():
    orders = {tuple(order_of(seed, epoch)) for seed in range(3) for epoch in range(4)}
    assert len(orders) == 12


def test_take_gathers_rows_with_their_weights():
    examples = Examples(jnp.arange(12).reshape(4, 3), 100 + jnp.arange(8).reshape(4, 2))
    batch = take(examples, jnp.array([2, 0, 2]), jnp.array([1.0, 1.0, 0.0]))
    assert batch.examples.source.tolist() == [[6, 7, 8], [0, 1, 2], [6, 7, 8]]
    assert batch.examples.target.tolist() == [[104, 105], [100, 101], [104, 105]]
    assert batch.weight.tolist() == [1, 1, 0]
