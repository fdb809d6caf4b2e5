"""Every accuracy against its definition in plain Python, and that an answer is right in one way."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from s2sjax.config import Text
from s2sjax.data.rows import Formatter
from s2sjax.data.vocab import NO_SYMBOL
from s2sjax.data.words import Rules, WordVocabulary
from s2sjax.train.evaluate import Evaluation, with_references
from s2sjax.train.metrics import EXACT_MATCH, Count, count, is_exact_match, scores

PAD, EOS, UNK, TIME, ROWS = 0, 2, 3, 5, 12
SCORES = jax.jit(scores, static_argnums=(3, 4))


def draw(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Predicted, gold and scored symbols: answers of many lengths, some of them predicted well."""
    rng = np.random.default_rng(seed)
    target = np.full((ROWS, TIME), PAD, np.int32)
    for row, length in zip(target, rng.integers(0, TIME, ROWS), strict=True):
        row[:length] = rng.integers(4, 8, length)
        row[length] = EOS
    target[(rng.random((ROWS, TIME)) < 0.1) & (target > EOS)] = UNK
    slips = rng.random((ROWS, TIME)) < rng.choice([0, 0.4], (ROWS, 1))
    predicted = np.where(slips, rng.integers(0, 8, (ROWS, TIME)), target).astype(np.int32)
    scored = (target != PAD).astype(np.float32)
    scored[rng.integers(ROWS)] = 0  # a row that only fills its batch
    predicted[scored == 0] = rng.integers(0, 8, int((scored == 0).sum()))
    return predicted, target, scored


def by_hand(predicted, target, scored, unk=UNK, eos=EOS) -> dict[str, tuple[int, int]]:
    """The definitions, symbol by symbol: (right, of)."""
    found = {"all": [], "content": [], "exact_match": []}
    found |= {f"position_{k + 1}": [] for k in range(TIME)}
    for guesses, golds, weights in zip(predicted, target, scored, strict=True):
        answer = []
        for k, (guess, gold, weight) in enumerate(zip(guesses, golds, weights, strict=True)):
            if weight:
                answer.append(guess == gold != unk)
                if gold != eos:
                    found["content"].append(answer[-1])
                    found[f"position_{k + 1}"].append(answer[-1])
        found["all"] += answer
        if answer:
            found["exact_match"].append(all(answer))
    return {name: (sum(right), len(right)) for name, right in found.items()}


def plain(counts: dict[str, Count]) -> dict[str, tuple[float, float]]:
    right, of = counts.pop("position")
    counts |= {f"position_{k + 1}": Count(right[k], of[k]) for k in range(TIME)}
    return {name: (float(c.right), float(c.of)) for name, c in counts.items()}


def taken(predicted, target, scored, eos=EOS, unk=UNK):
    return plain(SCORES(*map(jnp.asarray, (predicted, target, scored)), eos, unk))


@given(st.integers(0, 10_000))
def test_every_score_is_its_definition_whatever_stands_in_padding_and_filling_rows(seed):
    predicted, target, scored = draw(seed)
    wanted = by_hand(predicted, target, scored)
    assert taken(predicted, target, scored) == wanted
    assert taken(np.where(scored == 0, 7 - predicted, predicted), target, scored) == wanted
    halves = [scored * (np.arange(ROWS) % 2 == k)[:, None] for k in (0, 1)]
    each = [taken(predicted, target, half) for half in halves]  # counts add up over batches
    assert {m: (each[0][m][0] + each[1][m][0], each[0][m][1] + each[1][m][1]) for m in wanted} == (
        wanted
    )


def test_the_examples_of_that_test_tell_the_definitions_apart():
    named = by_hand(*(np.concatenate(parts) for parts in zip(*map(draw, range(40)), strict=True)))
    assert named.pop(f"position_{TIME}") == (0, 0)  # the longest answers end there
    assert len({right / of for right, of in named.values()}) == len(named)


def test_where_no_symbol_ends_an_answer_every_character_is_content():
    arrays = draw(3)
    named = taken(*arrays, NO_SYMBOL, NO_SYMBOL)
    wanted = by_hand(*arrays, unk=None, eos=None)
    assert named == wanted
    assert named["content"] == named["all"]


@pytest.mark.parametrize(
    ("predicted", "right"),
    [
        ([5, 6, EOS, EOS, EOS], True),
        ([5, 6, EOS, 7, PAD], True),  # after the end nothing is scored
        ([5, 6, 7, EOS, EOS], False),  # goes on
        ([5, 6, PAD, EOS, EOS], False),  # ends late
        ([5, EOS, EOS, EOS, EOS], False),  # ends early
        ([5, 5, EOS, EOS, EOS], False),
    ],
)
def test_a_right_answer_has_every_symbol_and_its_end_in_the_right_place(predicted, right):
    gold = np.array([[5, 6, EOS, PAD, PAD]], np.int32)
    found = is_exact_match(
        np.array([predicted], np.int32), gold, (gold != PAD).astype(np.float32), UNK
    )
    assert found.tolist() == [right]


WORDS = WordVocabulary(("a", "b"), Rules())
FORM = Formatter(Text(source_unit="words", target_unit="words"), WORDS, WORDS, None)
answers = st.lists(st.sampled_from("abz"), max_size=3).map(" ".join)  # z is unknown


@given(answers, st.lists(st.sampled_from([EOS, UNK, 4, 5]), min_size=4, max_size=4))
def test_an_answer_is_right_in_one_way_and_an_unknown_gold_symbol_never_is(gold, written):
    written = np.array([written], np.int32)
    target = np.array([FORM.target_ids(gold)[1:]], np.int32)
    wanted = FORM.read(written[0]) == gold and EOS in written and "z" not in gold
    scored = np.ones(target.shape, np.float32)
    shown = written[:, : target.shape[1]]
    on_device = scores(*map(jnp.asarray, (shown, target, scored)), EOS, UNK)["exact_match"]
    assert float(on_device.right) == wanted
    assert is_exact_match(shown, target, scored, UNK).tolist() == [wanted]
    nothing = Evaluation({}, written[None], np.zeros((1, 1), bool))
    several = with_references(nothing, FORM, [("z", "z z", gold)], slice(0, 1))
    assert several.right.tolist() == [[wanted]]
    assert several.values(0) == {EXACT_MATCH: wanted}


def test_what_is_right_is_counted_among_what_is_scored():
    counted = count(jnp.array([True, True, False]), jnp.array([1.0, 0.0, 1.0]))
    assert (float(counted.right), float(counted.of)) == (1, 2)
