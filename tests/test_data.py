"""Strings to rows of ids, to the letter; and the batches of an epoch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from s2sjax.config import Addition, Text, Toy
from s2sjax.data import Examples, Formatter, epoch_order, in_batches, make_vocabulary, take
from s2sjax.errors import UserError
from s2sjax.tasks import make_task
from s2sjax.vocab import EOS, SPECIALS, UNK

NOTEBOOK = Text(justify="right", start="first_target")
PAIRS = [("568+32", "600"), ("999+999", "1998"), ("1+2", "3"), ("0+10", "10")]
SHORT = {"<pad>": "_", "<bos>": "^", "<eos>": "$"}

orders = pytest.mark.parametrize("source_order", ["forward", "reversed"])


def formatter(text: Text) -> Formatter:
    task = make_task(Addition(digits=3))
    return Formatter(task, text, make_vocabulary(task, text))


def spelled(text: Text, pairs: list[tuple[str, str]] = PAIRS) -> tuple[list[str], list[str]]:
    """Rows as strings, sources and targets: '_' is padding, '^' begins, '$' ends."""
    form = formatter(text)
    examples = form.examples(pairs)
    symbols = [SHORT.get(symbol, symbol) for symbol in form.vocabulary.symbols]
    sources, targets = (["".join(symbols[i] for i in row) for row in rows] for rows in examples)
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


@pytest.mark.parametrize(
    ("text", "source", "target"),
    [
        (Text(source_eos=False), "1+2____", "^3$___"),
        (Text(source_eos=False, source_order="reversed"), "2+1____", "^3$___"),
        (Text(start="first_target"), "1+2$____", "3$___"),
        (Text(justify="right"), "    1+2$", "^   3$"),
        (Text(justify="right", source_eos=False, source_order="reversed"), "2+1    ", "^   3$"),
    ],
)
def test_each_setting_of_the_text_does_what_it_says(text, source, target):
    assert spelled(text, [("1+2", "3")]) == ([source], [target])


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


@pytest.mark.parametrize(
    "text", [Text(), Text(justify="right"), Text(start="first_target")], ids=str
)
def test_the_vocabulary_has_all_specials_unless_every_row_is_full(text):
    assert make_vocabulary(make_task(Addition()), text).specials == SPECIALS


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
