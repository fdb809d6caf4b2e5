"""Intervals, the paired test, the effect sizes: properties, and what degenerate data give."""

import itertools
import json
from dataclasses import asdict

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from s2sjax.report.stats import (
    ENUMERABLE,
    caution,
    compare,
    holm,
    interval,
    next_seed_range,
    sign_flip_interval,
    sign_flip_p,
    smallest_p,
)


def draw(n: int, seed: int = 0) -> tuple[list[float], list[float]]:
    """Two arms of n seeds whose scores go up and down together."""
    rng = np.random.default_rng(seed)
    shared = rng.normal(0.6, 0.05, n)
    return (shared + rng.normal(0.03, 0.02, n)).tolist(), shared.tolist()


def test_compare_describes_the_differences_within_seeds():
    a, b = [0.9, 0.7, 0.8, 0.6], [0.5, 0.6, 0.8, 0.8]  # differences .4, .1, 0, -.2
    result = compare("reversed", "forward", "free_running/all", a, b)
    assert (result.a, result.b, result.metric, result.n) == (
        "reversed",
        "forward",
        "free_running/all",
        4,
    )
    assert result.mean_a == pytest.approx(0.75)
    assert result.mean_b == pytest.approx(0.675)
    assert result.mean_difference == pytest.approx(0.075)
    assert result.d_z == pytest.approx(0.075 / np.std([0.4, 0.1, 0.0, -0.2], ddof=1))
    assert result.p_superiority == pytest.approx((1 + 1 + 0.5 + 0) / 4)


@pytest.mark.parametrize("n", [2, 5, 6, 10, 25])
def test_swapping_the_arms_changes_the_sign_and_nothing_else(n):
    a, b = draw(n)
    there, back = compare("a", "b", "m", a, b), compare("b", "a", "m", b, a)
    assert there.mean_difference == pytest.approx(-back.mean_difference, abs=1e-15)
    assert (there.ci95 is None) == (back.ci95 is None) == (n < 6)
    if n >= 6:
        assert there.ci95 == pytest.approx((-back.ci95[1], -back.ci95[0]), abs=1e-12)
    assert there.p_sign_flip == back.p_sign_flip
    assert there.d_z == pytest.approx(-back.d_z)
    assert there.p_superiority == pytest.approx(1 - back.p_superiority)


def test_pairing_matters_and_order_of_the_pairs_does_not():
    a, b = draw(9)
    paired = compare("a", "b", "m", a, b)
    shuffled = compare("a", "b", "m", a, b[1:] + b[:1])
    assert shuffled.mean_difference == pytest.approx(paired.mean_difference)
    assert shuffled.d_z < paired.d_z / 2
    assert shuffled.p_sign_flip > paired.p_sign_flip
    reordered = compare("a", "b", "m", a[::-1], b[::-1])
    assert reordered.p_sign_flip == paired.p_sign_flip
    assert reordered.d_z == pytest.approx(paired.d_z)


def test_results_are_deterministic_and_survive_json():
    a, b = draw(ENUMERABLE + 5)  # the Monte Carlo test is seeded
    first, second = compare("a", "b", "m", a, b), compare("a", "b", "m", a, b)
    assert first == second
    text = json.dumps(asdict(first), allow_nan=False)
    assert json.loads(text) == {**asdict(first), "ci95": list(first.ci95)}


@pytest.mark.parametrize("n", [2, 3, 6, 10, 15])
def test_smallest_p_is_reached_when_all_signs_agree(n):
    a = np.linspace(0.7, 0.9, n)
    result = compare("a", "b", "m", a.tolist(), (a - np.linspace(0.1, 0.3, n)).tolist())
    assert result.p_sign_flip == smallest_p(n) == 2 / 2**n


def test_p_equals_enumeration_by_hand():
    for seed, n in itertools.product(range(5), (2, 4, 7)):
        a, b = (np.round(arm, 2) for arm in draw(n, seed))  # rounded: ties between sums occur
        difference = np.round(a - b, 2)
        sums = [abs(np.dot(signs, difference)) for signs in itertools.product((1, -1), repeat=n)]
        by_hand = np.mean([s >= abs(difference.sum()) - 1e-9 for s in sums])
        assert compare("a", "b", "m", a.tolist(), b.tolist()).p_sign_flip == by_hand


@pytest.mark.parametrize("seed", range(3))
def test_p_equals_scipys_permutation_test(seed):
    a, b = draw(9, seed)
    expected = scipy.stats.permutation_test(
        (np.subtract(a, b),), np.mean, permutation_type="samples", n_resamples=2**9
    )
    assert compare("a", "b", "m", a, b).p_sign_flip == pytest.approx(expected.pvalue, abs=1e-12)


def test_p_above_the_enumerable_agrees_with_the_exact_one_and_is_never_zero():
    rng = np.random.default_rng(1)
    n = ENUMERABLE + 2
    difference = rng.normal(0.2, 1, n)
    sums = np.zeros(1)
    for d in difference:
        sums = np.concatenate([sums + d, sums - d])
    exact = np.mean(np.abs(sums) >= abs(difference.sum()) - 1e-9)
    sampled = compare("a", "b", "m", difference.tolist(), [0.0] * n).p_sign_flip
    assert 0.01 < exact < 0.9
    assert sampled == pytest.approx(exact, abs=4 * np.sqrt(exact * (1 - exact) / 9_999))
    assert (
        compare("a", "b", "m", [float(i + 1) for i in range(n)], [0.0] * n).p_sign_flip
        == 1 / 10_000
    )


def test_p_is_uniform_when_the_arms_do_the_same():
    rng = np.random.default_rng(3)
    p = [
        compare("a", "b", "m", x.tolist(), [0.0] * 8).p_sign_flip for x in rng.normal(size=(200, 8))
    ]
    assert np.mean(np.array(p) <= 0.25) == pytest.approx(0.25, abs=4 * np.sqrt(0.25 * 0.75 / 200))


# Multiples of a unit: many ties, and with most units sums that differ by rounding only.
DIFFERENCES = st.sampled_from([1.0, 0.1, 0.013, 1e-6]).flatmap(
    lambda unit: st.lists(
        st.integers(-4, 9 if unit > 1e-3 else 1_000_000).map(lambda k: k * unit),
        min_size=6,
        max_size=12,
    )
)


def p_by_definition(x: np.ndarray) -> float:
    """The share of all sign flips whose sum is at least as far from 0."""
    sums = np.zeros(1)
    for value in x:
        sums = np.concatenate([sums + value, sums - value])
    return float(np.mean(np.abs(sums) >= abs(x.sum()) - 1e-12 * np.abs(x).sum()))


@settings(max_examples=60)
@given(DIFFERENCES, st.sampled_from([0.05, 0.1]))
def test_the_interval_holds_what_the_test_does_not_reject(differences, level):
    x = np.array(differences)
    assert sign_flip_p(x) == p_by_definition(x)
    low, high = sign_flip_interval(x, level)
    assert (low > 0 or high < 0) == (p_by_definition(x) <= level)
    step = 1e-6 * max(1e-3, np.ptp(x))
    assert all(p_by_definition(x - d) <= level for d in (low - step, high + step))
    if high - low > 2 * step:
        assert all(p_by_definition(x - d) > level for d in (low + step, x.mean(), high - step))


@settings(max_examples=30)
@given(DIFFERENCES)
def test_a_comparison_and_its_interval_agree(differences):
    c = compare("a", "b", "m", [0.3 + x for x in differences], [0.3] * len(differences))
    low, high = c.ci95
    assert (not low <= 0 <= high) == (c.p_sign_flip <= 0.05)
    assert low - 1e-12 <= c.mean_difference <= high + 1e-12


@pytest.mark.parametrize("n", [6, 10, ENUMERABLE + 1])
@pytest.mark.parametrize(("scale", "shift"), [(100.0, 0.0), (1.0, 7.3), (1e-9, 0.2), (-3.0, 1.0)])
def test_intervals_move_and_scale_with_their_data(n, scale, shift):
    x = np.random.default_rng(n).normal(size=n)
    for ends in (sign_flip_interval, lambda x: interval(x)[1]):
        expected = sorted(scale * np.array(ends(x)) + shift)
        np.testing.assert_allclose(ends(scale * x + shift), expected)


def test_below_six_pairs_there_is_no_interval():
    assert not any(sign_flip_interval(np.arange(n) + 1.0) for n in range(1, 6))
    assert sign_flip_interval(np.arange(1.0, 6.0), 0.1) == (1.0, 5.0)  # of one-sided tests: five
    assert sign_flip_interval(np.arange(1.0, 7.0)) == (1.0, 6.0)


def test_the_interval_of_many_seeds_agrees_with_their_test():
    for shift in np.linspace(-0.8, 0.8, 41):
        x = np.random.default_rng(1).normal(size=ENUMERABLE + 5) + shift
        low, high = sign_flip_interval(x)
        assert (low > 0 or high < 0) == (sign_flip_p(x) <= 0.05)
    x = np.random.default_rng(2).normal(size=200)
    np.testing.assert_allclose(sign_flip_interval(x), interval(x)[1], atol=0.02)


def test_intervals_cover_the_true_mean_as_often_as_they_say():
    samples = np.random.default_rng(5).normal(size=(600, 10))
    for ends in (sign_flip_interval, lambda x: interval(x)[1]):
        covered = np.mean([low < 0 < high for low, high in map(ends, samples)])
        assert covered == pytest.approx(0.95, abs=3 * np.sqrt(0.95 * 0.05 / 600))


def test_the_interval_of_a_mean_is_students():
    for n in (3, 4, 10, 40):
        x = np.random.default_rng(n).normal(0.6, 0.1, n)
        mean, ends = interval(x)
        assert mean == pytest.approx(x.mean())
        expected = scipy.stats.t.interval(0.95, n - 1, x.mean(), scipy.stats.sem(x))
        assert ends == pytest.approx(expected, rel=1e-12)
    assert interval([0.4, 0.5]) == (0.45, None)  # twelve times as wide as their distance
    assert interval([0.5, 0.5, 0.5]) == (0.5, (0.5, 0.5))


def test_identical_differences_give_a_point():
    a, b = [0.9, 0.4, 0.7] * 2, [0.6, 0.1, 0.4] * 2  # .3 each, but not the same float
    assert len({x - y for x, y in zip(a, b, strict=True)}) > 1
    result = compare("a", "b", "m", a, b)
    assert result.ci95 == pytest.approx((0.3, 0.3))
    assert result.d_z is None
    assert result.p_sign_flip == 2 / 2**6
    assert result.p_superiority == 1.0


def test_identical_arms_show_no_effect():
    result = compare("a", "b", "m", [0.9, 0.4, 0.7] * 2, [0.9, 0.4, 0.7] * 2)
    assert (result.mean_difference, result.ci95) == (0.0, (0.0, 0.0))
    assert (result.p_sign_flip, result.d_z, result.p_superiority) == (1.0, 0.0, 0.5)


def test_one_seed_has_no_interval_no_test_no_effect_size():
    result = compare("a", "b", "m", [0.9], [0.6])
    assert (result.n, result.ci95, result.p_sign_flip, result.d_z) == (1, None, None, None)
    assert result.mean_difference == pytest.approx(0.3)
    assert result.p_superiority == 1.0
    assert interval([0.5]) == (0.5, None)


def test_nearly_degenerate_data_give_finite_numbers():
    for x in ([0.0] * 9 + [1.0], [1.0] * 9 + [1.0 - 1e-9], [1e-200, 0.0, 2e-200] * 2, [3e15] * 7):
        low, high = sign_flip_interval(np.array(x))
        assert min(x) <= low <= np.mean(x) <= high <= max(x)
        mean, ends = interval(x)
        assert ends[0] <= mean <= ends[1]


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        ([0.1, 0.2], [0.1], "need the same seeds, but 'up' has 2 values of 'm' and 'down' has 1"),
        ([], [], "at least one number"),
        ([0.1, float("nan")], [0.1, 0.2], "finite numbers, but 'up'"),
        ([0.1, 0.2], [0.1, float("inf")], "finite numbers, but 'down'"),
    ],
)
def test_unusable_values_are_refused_in_a_sentence(a, b, message):
    with pytest.raises(ValueError, match=message) as error:
        compare("up", "down", "m", a, b)
    assert str(error.value).endswith(".")


def test_a_table_of_values_is_refused():
    with pytest.raises(ValueError, match="a list of at least one number"):
        interval(np.ones((2, 2)))


def test_caution_speaks_where_seeds_are_few():
    assert "One seed" in caution(1)
    assert [n for n in range(2, 30) if caution(n) and "reaches .05" in caution(n)] == [2, 3, 4, 5]
    assert "0.062" in caution(5)
    assert not any(map(caution, range(6, 30)))


def test_holms_correction():
    assert holm([]) == []
    assert holm([0.03]) == [0.03]
    assert holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])  # never below one before
    assert holm([0.5, 0.6]) == [1.0, 1.0]


def test_one_family_in_twenty_has_a_p_that_chance_made():
    families = np.random.default_rng(0).random((4_000, 8)).tolist()
    wrong = np.mean([min(holm(family)) <= 0.05 for family in families])
    assert 0.04 <= wrong <= 0.06


def test_one_more_seed_falls_in_its_prediction_as_often_as_promised():
    rng = np.random.default_rng(5)
    draws = rng.normal(3, 2, (2_000, 7))
    held = [low <= row[-1] <= high for row in draws for low, high in [next_seed_range(row[:-1])]]
    assert 0.935 <= np.mean(held) <= 0.965
    low, high = next_seed_range([1.0, 2.0, 3.0])
    assert next_seed_range([10.0, 20.0, 30.0]) == pytest.approx((10 * low, 10 * high))
