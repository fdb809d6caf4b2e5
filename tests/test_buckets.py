"""Buckets, the plan of an epoch, and its batches: against brute force, and as properties."""

import itertools
import math

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from s2sjax.buckets import (
    WIDTHS,
    Batches,
    Bucket,
    Schedule,
    boundaries,
    rows_per_batch,
)
from s2sjax.errors import UserError

PAD = 0

few_lengths = st.lists(st.tuples(st.integers(1, 4), st.integers(1, 4)), min_size=1, max_size=12)
some_lengths = st.lists(st.tuples(st.integers(0, 30), st.integers(2, 30)), min_size=1, max_size=80)


def array(lengths) -> np.ndarray:
    return np.array(lengths, np.int32).reshape(-1, 2)


def positions(lengths, widths, tokens: int) -> float:
    """Positions of an epoch with these buckets, counted one pair at a time."""
    members = dict.fromkeys(widths, 0)
    for source, target in lengths:
        fitting = [width for width in widths if source <= width[0] and target <= width[1]]
        if not fitting:
            return math.inf
        members[fitting[0]] += 1
    total = 0
    for width, pairs in members.items():
        rows = min(max(tokens // sum(width), 1), max(pairs, 1))
        total += math.ceil(pairs / rows) * rows * sum(width)
    return total


def shape_of(buckets) -> list[tuple[int, int]]:
    return [bucket[:2] for bucket in buckets]


def corpus(pairs: int = 300, seed: int = 0) -> tuple[list, Schedule]:
    """Rows whose first id is their number, in four buckets."""
    rng = np.random.default_rng(seed)
    lengths = array(np.stack([rng.integers(1, 12, pairs), rng.integers(2, 9, pairs)], axis=1))
    rows = [([i + 1] * s, [1] * (t - 1) + [2]) for i, (s, t) in enumerate(lengths.tolist())]
    return rows, Schedule(lengths, boundaries(lengths, 4, 60), 7)


def same(one, other) -> bool:
    """Whether two (bucket, batch) are equal, bit for bit."""
    arrays = [(b, *batch.examples, batch.weight) for b, batch in (one, other)]
    return all(np.array_equal(x, y) for x, y in zip(*arrays, strict=True))


# --- boundaries ------------------------------------------------------------------------------


@hypothesis.given(few_lengths, st.integers(1, 3), st.integers(1, 20))
def test_no_chain_of_buckets_has_fewer_positions(lengths, count, tokens):
    corners = list(itertools.product({s for s, _ in lengths}, {t for _, t in lengths}))
    least = min(
        positions(lengths, chain, tokens)
        for k in range(1, count + 1)
        for chain in itertools.combinations(sorted(corners), k)
        if all(a[1] <= b[1] for a, b in itertools.pairwise(chain))
    )
    buckets = boundaries(array(lengths), count, tokens)
    assert positions(lengths, shape_of(buckets), tokens) == least
    assert len(buckets) <= count


@hypothesis.given(some_lengths, st.integers(1, 6), st.integers(1, 200))
def test_buckets_grow_hold_every_pair_and_keep_to_the_budget(lengths, count, tokens):
    buckets = boundaries(array(lengths), count, tokens)
    assert 1 <= len(buckets) <= count
    for narrow, wide in itertools.pairwise(buckets):
        assert narrow.source <= wide.source
        assert narrow.target <= wide.target
        assert narrow[:2] != wide[:2]
    assert buckets[-1][:2] == (max(1, *(s for s, _ in lengths)), max(t for _, t in lengths))
    schedule = Schedule(array(lengths), buckets, 0)
    assert all(len(members) for members in schedule.members)  # no bucket for nothing
    for bucket, members in zip(buckets, schedule.members, strict=True):
        width = bucket.source + bucket.target
        assert bucket.rows == min(rows_per_batch(width, tokens), len(members))
        assert bucket.rows * width <= tokens or bucket.rows == 1
        assert (bucket.rows + 1) * width > tokens or bucket.rows == len(members)


@hypothesis.given(some_lengths, st.integers(1, 5), st.integers(1, 200))
def test_more_buckets_never_waste_more(lengths, count, tokens):
    lengths = array(lengths)
    less, more = (
        Schedule(lengths, boundaries(lengths, k, tokens), 0).waste().both
        for k in (count, count + 1)
    )
    assert more <= less


def test_of_very_many_lengths_the_longest_is_a_width_and_the_few_long_ones_have_some():
    rng = np.random.default_rng(0)
    usual = rng.integers(5, 100, (5000, 2))
    lengths = array(np.concatenate([usual, rng.integers(100, 3000, (50, 2)), [[3000, 7]]]))
    assert len(np.unique(lengths[:, 0])) > WIDTHS
    buckets = boundaries(lengths, 8, 10_000)
    assert buckets[-1][:2] == (3000, lengths[:, 1].max())
    assert sum(bucket.source > 150 for bucket in buckets) > 1
    waste = Schedule(lengths, buckets, 0).waste().both
    evenly = [Bucket(w, w, rows_per_batch(2 * w, 10_000)) for w in range(375, 3001, 375)]
    assert waste < Schedule(lengths, tuple(evenly), 0).waste().both / 1.5


def test_no_pairs_are_refused():
    with pytest.raises(UserError, match="no pairs to make batches of"):
        boundaries(array([]), 4, 100)


def test_a_pair_that_fits_no_bucket_is_refused():
    schedule = Schedule(array([[3, 3], [2, 5], [9, 9]]), (Bucket(3, 4, 2), Bucket(4, 4, 2)), 0)
    with pytest.raises(UserError, match=r"pair 1 has 2 and 5 symbols, .* 4 and 4"):
        schedule.plan(0)


# --- the plan --------------------------------------------------------------------------------


@hypothesis.given(some_lengths, st.integers(1, 4), st.integers(1, 200), st.integers(0, 2**64))
def test_a_plan_has_every_pair_once_in_the_first_bucket_that_holds_it(lengths, count, tokens, seed):
    lengths = array(lengths)
    buckets = boundaries(lengths, count, tokens)
    schedule = Schedule(lengths, buckets, seed)
    plan = schedule.plan(1)
    assert len(plan) == len(schedule)
    assert sorted(np.concatenate([pairs for _, pairs in plan]).tolist()) == [*range(len(lengths))]
    short = [0] * len(buckets)
    for number, pairs in plan:
        assert 1 <= len(pairs) <= buckets[number].rows
        short[number] += len(pairs) < buckets[number].rows
        for pair in pairs:
            fits = [(lengths[pair] <= bucket[:2]).all() for bucket in buckets]
            assert fits.index(True) == number
    assert max(short) <= 1


def test_a_plan_is_a_pure_function_of_seed_and_epoch():
    _, schedule = corpus()
    again = Schedule(schedule.lengths.copy(), schedule.buckets, schedule.seed)
    first = str(schedule.plan(3))
    again.plan(0)
    assert str(again.plan(3)) == first


def test_every_seed_and_every_epoch_has_an_order_of_its_own():
    _, schedule = corpus()
    seeds = [Schedule(schedule.lengths, schedule.buckets, seed) for seed in range(3)]
    plans = [s.plan(epoch) for s in seeds for epoch in range(4)]
    assert len(set(map(str, plans))) == 12
    assert len({str([bucket for bucket, _ in plan]) for plan in plans}) == 12  # batches' order
    everyone = [sorted(pairs[0] for _, pairs in plan) for plan in plans]
    assert len(set(map(str, everyone))) == 12  # who goes together


def test_a_plan_is_the_same_on_every_machine():
    schedule = Schedule(array([[1, 2]] * 5 + [[3, 3]] * 3), (Bucket(2, 2, 2), Bucket(3, 3, 2)), 5)
    plan = [(bucket, pairs.tolist()) for bucket, pairs in schedule.plan(2)]
    assert plan == [(0, [3]), (0, [4, 2]), (1, [5]), (0, [0, 1]), (1, [6, 7])]


def test_orders_are_uniform():
    schedule = Schedule(array([[1, 1]] * 4), (Bucket(1, 1, 4),), 0)
    orders = [tuple(schedule.plan(epoch)[0][1]) for epoch in range(2400)]
    counts = [orders.count(order) for order in itertools.permutations(range(4))]
    assert sum(counts) == 2400
    assert all(60 < count < 140 for count in counts)  # 4 standard deviations about 100


def test_waste_is_what_the_arrays_of_an_epoch_hold_of_no_symbol():
    rows, schedule = corpus()
    held = {"source": [0, 0], "target": [0, 0]}
    batches = Batches(rows, schedule, PAD)
    for _ in range(len(batches)):
        _, batch = next(batches)
        for side, array in zip(held, batch.examples, strict=True):
            held[side][0] += int(((array != PAD) * batch.weight[:, None]).sum())
            held[side][1] += array.size
    waste = schedule.waste()
    (s, source), (t, target) = held.values()
    assert (waste.source, waste.target) == (
        pytest.approx(1 - s / source),
        pytest.approx(1 - t / target),
    )
    assert waste.both == pytest.approx(1 - (s + t) / (source + target))


# --- batches ---------------------------------------------------------------------------------


def test_batches_have_the_shapes_of_their_buckets_and_the_rows_of_their_pairs():
    rows, schedule = corpus()
    batches = Batches(rows, schedule, PAD)
    for number, pairs in schedule.plan(0):
        bucket, (examples, weight) = next(batches)
        shape = schedule.buckets[number]
        assert bucket == number
        assert examples.source.shape == (shape.rows, shape.source)
        assert examples.target.shape == (shape.rows, shape.target)
        assert examples.source.dtype == examples.target.dtype == np.int32
        assert weight.dtype == np.float32
        assert weight.tolist() == [1.0] * len(pairs) + [0.0] * (shape.rows - len(pairs))
        filled = [*pairs, *[pairs[0]] * (shape.rows - len(pairs))]
        for i, source, target in zip(filled, *(ids.tolist() for ids in examples), strict=True):
            assert source == rows[i][0] + [PAD] * (shape.source - len(rows[i][0]))
            assert target == rows[i][1] + [PAD] * (shape.target - len(rows[i][1]))


def test_an_epoch_gives_every_pair_weight_one():
    rows, schedule = corpus()
    batches = Batches(rows, schedule, PAD)
    for _ in range(2):
        seen = np.zeros(len(rows) + 1)
        for _ in range(len(batches)):
            _, batch = next(batches)
            np.add.at(seen, batch.examples.source[:, 0], batch.weight)
        assert seen.tolist() == [0] + [1] * len(rows)


def test_any_batch_can_be_asked_for_in_any_order():
    rows, schedule = corpus()
    batches = Batches(rows, schedule, PAD)
    n = 2 * len(batches) + 3
    given = [next(batches) for _ in range(n)]
    fresh = Batches(rows, schedule, PAD)
    for number in np.random.default_rng(0).permutation(n).tolist():
        assert same(fresh.at(number), given[number])
    assert same(next(fresh), given[0])  # asking moves nothing


def test_resumed_equals_uninterrupted_within_and_across_epochs():
    rows, schedule = corpus()
    whole = Batches(rows, schedule, PAD)
    n = len(whole)
    states, given = [], []
    for _ in range(3 * n):
        states.append(whole.state())
        given.append(next(whole))
    for start in (0, 1, n // 2, n - 1, n, n + 1, 2 * n + n // 2):
        resumed = Batches(rows, schedule, PAD)
        resumed.restore(states[start])
        assert resumed.state() == states[start]
        assert all(same(next(resumed), batch) for batch in given[start:])


def test_a_position_in_other_pairs_buckets_or_of_another_seed_is_refused():
    rows, schedule = corpus()
    batches = Batches(rows, schedule, PAD)
    lengths = schedule.lengths.copy()
    lengths[5] -= [0, 1]
    narrower = boundaries(schedule.lengths, 2, 60)
    others = [
        Schedule(lengths, schedule.buckets, schedule.seed),
        Schedule(schedule.lengths, narrower, schedule.seed),
        Schedule(schedule.lengths, schedule.buckets, schedule.seed + 1),
    ]
    for other in others:
        with pytest.raises(UserError, match="belongs to other pairs, buckets or another seed"):
            batches.restore(Batches(rows, other, PAD).state())
    wide = Schedule(schedule.lengths.astype(np.int64), schedule.buckets, schedule.seed)
    batches.restore(Batches(rows, wide, PAD).state())  # the same numbers are the same schedule
