"""Buckets, the sequence of an epoch and its batches: against brute force, and as properties."""

import itertools
import math

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st

from s2sjax.data.batches import BLOCK, WIDTHS, Bucket, Schedule, choose_buckets, epoch_order, place
from s2sjax.errors import UserError

few_lengths = st.lists(st.tuples(st.integers(1, 4), st.integers(1, 4)), min_size=1, max_size=12)
some_lengths = st.lists(st.tuples(st.integers(0, 30), st.integers(2, 30)), min_size=1, max_size=80)
quickly = hypothesis.settings(derandomize=True, max_examples=60)


def array(lengths) -> np.ndarray:
    return np.array(lengths, np.int64).reshape(-1, 2)


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
        batches = math.ceil(pairs / max(tokens // sum(width), 1))
        total += batches and batches * math.ceil(pairs / batches) * sum(width)
    return total


def schedule_of(lengths, count: int = 4, tokens: int = 60) -> Schedule:
    return Schedule(choose_buckets(array(lengths), count, tokens), array(lengths))


def corpus(pairs: int = 700) -> Schedule:
    """Rows in four buckets of several blocks each."""
    rng = np.random.default_rng(0)
    return schedule_of(np.stack([rng.integers(1, 12, pairs), rng.integers(2, 9, pairs)], axis=1))


def epoch(schedule: Schedule, order, number: int = 0) -> list[tuple[int, np.ndarray, np.ndarray]]:
    """Every batch of an epoch as it comes: its bucket, its rows and their weights."""
    batches = [schedule.batches(order, bucket) for bucket in range(len(schedule.buckets))]
    return [
        (bucket, batches[bucket][0][:, i], batches[bucket][1][:, i])
        for bucket, first, count in schedule.blocks(number)
        for i in range(first, first + count)
    ]


def all_positions(schedule: Schedule) -> int:
    steps = [len(starts) - 1 for starts in schedule.starts]
    return sum(
        n * b.rows * (b.source + b.target) for n, b in zip(steps, schedule.buckets, strict=True)
    )


# --- boundaries ------------------------------------------------------------------------------


@quickly
@hypothesis.given(few_lengths, st.integers(1, 3), st.integers(1, 20))
def test_no_chain_of_buckets_has_fewer_positions(lengths, count, tokens):
    corners = list(itertools.product({s for s, _ in lengths}, {t for _, t in lengths}))
    least = min(
        positions(lengths, chain, tokens)
        for k in range(1, count + 1)
        for chain in itertools.combinations(sorted(corners), k)
        if all(a[1] <= b[1] for a, b in itertools.pairwise(chain))
    )
    schedule = schedule_of(lengths, count, tokens)
    assert len(schedule.buckets) <= count
    assert all_positions(schedule) == least
    assert positions(lengths, [bucket[:2] for bucket in schedule.buckets], tokens) == least


@quickly
@hypothesis.given(some_lengths, st.integers(1, 6), st.integers(1, 200))
def test_buckets_grow_hold_every_pair_and_keep_to_the_budget(lengths, count, tokens):
    schedule = schedule_of(lengths, count, tokens)
    buckets = schedule.buckets
    assert 1 <= len(buckets) <= count
    for narrow, wide in itertools.pairwise(buckets):
        assert narrow.source <= wide.source
        assert narrow.target <= wide.target
        assert narrow[:2] != wide[:2]
    assert buckets[-1][:2] == (max(1, *(s for s, _ in lengths)), max(t for _, t in lengths))
    members = np.bincount(schedule.bucket_of, minlength=len(buckets))
    for bucket, starts, n in zip(buckets, schedule.starts, members.tolist(), strict=True):
        width, batches = bucket.source + bucket.target, len(starts) - 1
        assert bucket.rows * width <= tokens or bucket.rows == 1
        assert batches == math.ceil(n / max(tokens // width, 1)) > 0  # no bucket for nothing
        assert bucket.rows == math.ceil(n / batches)
    assert all_positions(schedule_of(lengths, count + 1, tokens)) <= all_positions(schedule)


def test_of_very_many_lengths_the_longest_is_a_width_and_the_few_long_ones_have_some():
    rng = np.random.default_rng(0)
    usual = rng.integers(5, 100, (5000, 2))
    lengths = array(np.concatenate([usual, rng.integers(100, 3000, (50, 2)), [[3000, 7]]]))
    assert len(np.unique(lengths[:, 0])) > WIDTHS
    schedule = schedule_of(lengths, 8, 10_000)
    assert schedule.buckets[-1][:2] == (3000, lengths[:, 1].max())
    assert sum(bucket.source > 150 for bucket in schedule.buckets) > 1
    evenly = [(width, width) for width in range(375, 3001, 375)]
    assert all_positions(schedule) < positions(lengths.tolist(), evenly, 10_000) / 1.5


def test_no_pairs_and_a_row_that_fits_no_bucket_are_refused():
    with pytest.raises(UserError, match="no pairs to make batches of"):
        choose_buckets(array([]), 4, 100)
    with pytest.raises(UserError, match=r"row 1 has \[2, 5\] symbols, more .* \[4, 4\]"):
        place(array([[3, 3], [2, 5], [9, 9]]), (Bucket(3, 4, 2), Bucket(4, 4, 2)))


# --- batches ---------------------------------------------------------------------------------


@quickly
@hypothesis.given(
    some_lengths, st.integers(1, 4), st.integers(1, 200), st.integers(0, 99), st.booleans()
)
def test_every_row_is_once_in_an_epoch_in_the_narrowest_bucket_that_holds_it(
    lengths, count, tokens, number, one_width
):
    n = len(lengths)
    schedule = schedule_of(lengths, count, tokens)
    if one_width:
        schedule = Schedule((Bucket(30, 30, 1 + tokens % n),), n)
    rng = np.random.default_rng(number)
    order = np.stack([rng.permutation(n) for _ in range(3)])
    batches = epoch(schedule, order, number)
    assert len(batches) == schedule.updates
    for replica in range(3):
        seen = np.zeros(n)
        for bucket, rows, weights in batches:
            assert rows.shape == weights.shape == (3, schedule.buckets[bucket].rows)
            np.add.at(seen, rows[replica], weights[replica])
            real = weights[replica] == 1
            assert (weights[replica][~real] == 0).all()
            assert set(rows[replica][~real]) <= {rows[replica][0]}  # filled with a real row
            assert real[0]
        assert seen.tolist() == [1] * n
    if one_width:
        return
    for bucket, rows, weights in batches:
        for row in rows[weights > 0]:
            fits = [(array(lengths)[row] <= b[:2]).all() for b in schedule.buckets]
            assert fits.index(True) == bucket
    for bucket in range(len(schedule.buckets)):  # fault 34
        sizes = [int(w[0].sum()) for b, _, w in batches if b == bucket]
        assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize(("n", "size"), [(1, 1), (4, 4), (5, 4), (7, 3), (3, 1)])
def test_rows_of_one_width_are_a_permutation_cut_in_batches_the_last_one_partial(n, size):
    key, number = jax.random.key(3), jnp.int32(2)
    order = np.asarray(epoch_order(key, number, n))
    assert order.tolist() == jax.random.permutation(jax.random.fold_in(key, number), n).tolist()
    schedule = Schedule((Bucket(8, 5, size),), n)
    steps = -(-n // size)
    assert schedule.blocks(2) == [(0, 0, steps)]
    indices, weights = schedule.batches(order[None], 0)
    assert (indices.dtype, weights.dtype) == (np.int32, np.float32)
    assert indices.ravel()[:n].tolist() == order.tolist()
    assert weights.ravel().tolist() == [1.0] * n + [0.0] * (steps * size - n)
    assert schedule.padding_fraction == (0.0, 0.0)


def test_an_epochs_order_is_a_pure_function_of_key_and_epoch_and_stays_what_it_was():
    order_of = jax.jit(epoch_order, static_argnums=2)
    orders = {
        (seed, number): tuple(order_of(jax.random.key(seed), jnp.int32(number), 10).tolist())
        for seed, number in itertools.product(range(3), range(4))
    }
    assert len(set(orders.values())) == 12
    assert all(sorted(order) == list(range(10)) for order in orders.values())
    assert orders[0, 3] == (8, 2, 9, 1, 7, 4, 3, 5, 6, 0)
    assert epoch_order(jax.random.key(0), jnp.int32(3), 10).tolist() == list(orders[0, 3])


def test_replicas_share_the_sequence_of_buckets_but_not_the_members():
    schedule = corpus()
    n = len(schedule.lengths)
    order = np.stack([np.random.default_rng(seed).permutation(n) for seed in range(2)])
    for _, rows, weights in (batches := epoch(schedule, order)):
        assert (weights[0] == weights[1]).all()
        assert (rows[0] != rows[1]).any()
    for replica in (0, 1):  # replica i has the batches of the single run i
        for (_, rows, _), (_, alone, _) in zip(
            batches, epoch(schedule, order[replica : replica + 1]), strict=True
        ):
            assert rows[replica].tolist() == alone[0].tolist()


# --- the sequence ----------------------------------------------------------------------------


def test_the_sequence_is_a_pure_function_of_the_epoch_in_blocks_of_one_bucket():
    schedule, again = corpus(), corpus()
    sequences = [schedule.blocks(number) for number in range(4)]
    assert [again.blocks(number) for number in (3, 2, 1, 0)] == sequences[::-1]
    assert len(set(map(str, sequences))) == 4
    batches = sorted(
        (b, f) for b, first, count in sequences[0] for f in range(first, first + count)
    )
    steps = [len(starts) - 1 for starts in schedule.starts]
    assert batches == [(bucket, i) for bucket, n in enumerate(steps) for i in range(n)]
    assert max(steps) > BLOCK >= max(block.count for block in sequences[0])


def test_the_sequence_stays_what_it_was_on_every_machine():
    schedule = Schedule((Bucket(1, 1, 1), Bucket(2, 2, 1)), array([[1, 1]] * 18 + [[2, 2]] * 9))
    assert schedule.blocks(2) == [(1, 8, 1), (0, 16, 2), (1, 0, 8), (0, 0, 8), (0, 8, 8)]


def test_an_epoch_goes_on_after_any_of_its_updates():
    schedule = corpus()
    flat = lambda blocks: [(b, f + i) for b, f, count in blocks for i in range(count)]
    whole = flat(schedule.blocks(5))
    for done in range(schedule.updates + 1):
        assert flat(schedule.blocks(5, done)) == whole[done:]


def test_waste_is_the_share_of_positions_that_hold_no_symbol():
    schedule = corpus()
    order = np.arange(len(schedule.lengths))[None]
    held = np.zeros((2, 2))
    for bucket, rows, weights in epoch(schedule, order):
        held[0] += (schedule.lengths[rows[0]] * weights[0][:, None]).sum(axis=0)
        held[1] += np.array(schedule.buckets[bucket][:2]) * schedule.buckets[bucket].rows
    assert schedule.padding_fraction == pytest.approx(tuple(1 - held[0] / held[1]))
    assert min(schedule.padding_fraction) > 0
