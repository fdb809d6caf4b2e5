"""Every accuracy against its definition in plain Python."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from s2sjax.metrics import HEADLINE, Count, argmax, count, ratio, scores
from s2sjax.vocab import NO_SYMBOL

PAD, EOS, TIME = 0, 2, 5
SCORES = jax.jit(scores, static_argnums=3)


def draw(seed: int, rows: int = 12) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Predicted, gold and scored symbols: answers of many lengths, some of them predicted well."""
    rng = np.random.default_rng(seed)
    target = np.full((rows, TIME), PAD, np.int32)
    for row, length in zip(target, rng.integers(0, TIME, rows), strict=True):
        row[:length] = rng.integers(3, 8, length)
        row[length] = EOS
    slips = rng.random((rows, TIME)) < rng.choice([0, 0.4], (rows, 1))
    predicted = np.where(slips, rng.integers(0, 8, (rows, TIME)), target).astype(np.int32)
    scored = (target != PAD).astype(np.float32)
    scored[rng.integers(rows)] = 0  # a row that only fills its batch
    predicted[scored == 0] = rng.integers(0, 8, int((scored == 0).sum()))
    return predicted, target, scored


def by_hand(predicted, target, scored) -> dict[str, tuple[int, int]]:
    """The definitions, symbol by symbol: (right, of)."""
    found = {"all": [], "content": [], "exact_match": []}
    found |= {f"position_{k + 1}": [] for k in range(TIME)}
    for guesses, golds, weights in zip(predicted, target, scored, strict=True):
        answer = []
        for k, (guess, gold, weight) in enumerate(zip(guesses, golds, weights, strict=True)):
            if weight:
                answer.append(guess == gold)
                found["all"].append(guess == gold)
                if gold != EOS:
                    found["content"].append(guess == gold)
                    found[f"position_{k + 1}"].append(guess == gold)
        if answer:
            found["exact_match"].append(all(answer))
    return {name: (sum(right), len(right)) for name, right in found.items()}


def plain(counts: dict[str, Count]) -> dict[str, tuple[float, float]]:
    return {name: (float(c.right), float(c.of)) for name, c in counts.items()}


@pytest.mark.parametrize("seed", range(8))
def test_every_score_is_its_definition(seed):
    arrays = draw(seed)
    assert plain(SCORES(*map(jnp.asarray, arrays), EOS)) == by_hand(*arrays)


def test_the_examples_of_that_test_tell_the_definitions_apart():
    named = by_hand(*(np.concatenate(parts) for parts in zip(*map(draw, range(8)), strict=True)))
    assert named.pop(f"position_{TIME}") == (0, 0)  # the longest answers end there
    assert len({right / of for right, of in named.values()}) == len(named)


def test_counts_add_up_over_batches():
    arrays = draw(0, rows=24)
    whole = by_hand(*arrays)
    halves = [
        SCORES(*(jnp.asarray(a[part]) for a in arrays), EOS) for part in (slice(12), slice(12, 24))
    ]
    assert plain(jax.tree.map(jnp.add, *halves)) == whole


def test_rows_that_fill_a_batch_change_nothing():
    predicted, target, scored = map(jnp.asarray, draw(1))
    filled = jnp.zeros(12).at[:7].set(1.0)
    cut = by_hand(*(a[:7] for a in draw(1)))
    assert plain(SCORES(predicted, target, scored * filled[:, None], EOS)) == cut


def test_what_is_predicted_at_padding_changes_nothing():
    predicted, target, scored = map(jnp.asarray, draw(2))
    noise = jnp.where(scored == 0, 7 - predicted, predicted)
    assert plain(SCORES(noise, target, scored, EOS)) == plain(
        SCORES(predicted, target, scored, EOS)
    )


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
def test_an_exact_match_needs_every_symbol_and_its_end_in_the_right_place(predicted, right):
    target = jnp.zeros((12, TIME), jnp.int32).at[0].set(jnp.array([5, 6, EOS, PAD, PAD]))
    guess = jnp.zeros((12, TIME), jnp.int32).at[0].set(jnp.array(predicted))
    scored = (target != PAD).astype(jnp.float32)
    assert plain(SCORES(guess, target, scored, EOS))["exact_match"] == (right, 1)


def test_positions_count_characters_from_one_and_never_the_end():
    target = jnp.zeros((12, TIME), jnp.int32)
    target = target.at[:3].set(jnp.array([[5, EOS, 0, 0, 0], [5, 6, EOS, 0, 0], [5, 6, 7, EOS, 0]]))
    predicted = target.at[2, 1].set(3)
    named = plain(SCORES(predicted, target, (target != PAD).astype(jnp.float32), EOS))
    positions = [named[f"position_{k}"] for k in range(1, TIME + 1)]
    assert positions == [(3, 3), (1, 2), (1, 1), (0, 0), (0, 0)]
    assert f"position_{TIME + 1}" not in named


def test_where_no_symbol_ends_an_answer_every_character_is_content():
    predicted, target, scored = draw(3)
    named = plain(SCORES(*map(jnp.asarray, (predicted, target, scored)), NO_SYMBOL))
    assert named["content"] == named["all"] == by_hand(predicted, target, scored)["all"]
    places = [named[f"position_{k + 1}"] for k in range(TIME)]
    assert tuple(map(sum, zip(*places, strict=True))) == named["all"]


def test_count_and_ratio():
    counted = count(jnp.array([True, True, False]), jnp.array([1.0, 0.0, 1.0]))
    assert plain({"x": counted})["x"] == (1, 2)
    assert ratio(1.0, 4.0) == 0.25
    assert ratio(0.0, 4.0) == 0.0
    assert ratio(0.0, 0.0) is None


def test_argmax_takes_the_smallest_id_of_equals():
    logits = jnp.array([[[0.0, 3.0, 3.0], [1.0, 1.0, 1.0]], [[-1.0, -3.0, -2.0], [0.0, 0.0, 9.0]]])
    chosen = argmax(logits)
    assert chosen.dtype == jnp.int32
    assert chosen.tolist() == [[1, 0], [0, 2]]


def test_the_headline_is_the_share_of_whole_answers_right_without_help():
    assert HEADLINE == "free_running/exact_match"
