"""The batches of an epoch: which rows, in which order, in a few static shapes.

A bucket is a shape: a source width, a target width and a number of rows. Every shape is one
compiled program. Rows of one width have one bucket. With a budget of positions (padding counts),
buckets grow in both widths, and a row belongs to the narrowest that holds it. A row's length counts
start and end symbol.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float, Int, Key

from s2sjax.errors import UserError

WIDTHS = 48  # the most lengths of a side that are tried as widths
BLOCK = 8  # updates of one bucket in a row, where there are several buckets
Lengths = Int[np.ndarray, "n 2"]  # symbols of the source and the target row of every pair
ORDER_SEED = 2_014  # of the sequence of buckets, which all seeds share


class Bucket(NamedTuple):
    """The shape of a batch."""

    source: int  # symbols of a source row
    target: int  # symbols of a target row
    rows: int


def _batches(pairs: Any, width: int, tokens: int) -> tuple[Any, Any]:
    """The fewest batches of at most `tokens` positions for pairs of `width`, and their rows.

    A single pair may exceed the budget.
    """
    count = -(-pairs // max(tokens // width, 1))
    return count, -(-pairs // np.maximum(count, 1))


def _widths(lengths: Int[np.ndarray, " pairs"]) -> Int[np.ndarray, " widths"]:
    """The lengths that are tried as widths: every one, or every second, ... up to the longest."""
    distinct = np.unique(np.maximum(lengths, 1))  # a row without symbols still needs a position
    return distinct[:: -max(1, -(-len(distinct) // WIDTHS))][::-1]


def choose_buckets(lengths: Lengths, count: int, tokens: int) -> tuple[Bucket, ...]:
    """At most `count` buckets, such that an epoch has the fewest positions.

    Exact dynamic programming over all chains of growing (source, target) widths. `tokens` is the
    most positions of a batch, source and target together.
    """
    if not len(lengths):
        raise UserError("there are no pairs to make batches of")
    sources, targets = _widths(lengths[:, 0]), _widths(lengths[:, 1])
    shape = (len(sources) + 1, len(targets) + 1)  # index 0 is width 0
    held = np.zeros(shape, np.int64)
    narrowest = np.searchsorted(sources, lengths[:, 0]), np.searchsorted(targets, lengths[:, 1])
    np.add.at(held[1:, 1:], narrowest, 1)
    held = held.cumsum(axis=0).cumsum(axis=1)  # pairs that fit these widths
    fewest = np.full((count + 1, *shape), np.inf)  # positions of those pairs, in k buckets
    fewest[:, held == 0] = 0
    before = np.zeros((count + 1, *shape), np.int64)  # the bucket before the last, as one number
    for i, j in np.argwhere(held):
        width = int(sources[i - 1] + targets[j - 1])
        new = held[i, j] - held[: i + 1, : j + 1]
        batches, rows = _batches(new, width, tokens)
        positions = (fewest[:-1, : i + 1, : j + 1] + batches * rows * width).reshape(count, -1)
        before[1:, i, j] = positions.argmin(axis=1)
        fewest[1:, i, j] = positions.min(axis=1)
    chain: list[Bucket] = []
    i, j = len(sources), len(targets)
    for k in range(int(fewest[:, i, j].argmin()), 0, -1):
        source, target = int(sources[i - 1]), int(targets[j - 1])
        inside, (i, j) = held[i, j], divmod(int(before[k, i, j]), j + 1)
        _, rows = _batches(inside - held[i, j], source + target, tokens)
        chain.append(Bucket(source, target, int(rows)))
    return tuple(chain[::-1])


class Block(NamedTuple):
    """Batches of one bucket that follow each other in an epoch."""

    bucket: int
    first: int  # index of the first batch in the bucket
    count: int


@dataclass(frozen=True, eq=False)
class Schedule:
    """The batches of every epoch: a pure function of the rows' lengths, seed and epoch.

    All seeds of a stack have one sequence of buckets, so that they stay replicas of one program;
    each shuffles the rows of every bucket.
    """

    buckets: tuple[Bucket, ...]  # narrowest first
    lengths: Lengths | int  # of every row; or the number of rows, if equally wide

    @cached_property
    def bucket_of(self) -> Int[np.ndarray, " n"]:
        """The bucket of every row."""
        if isinstance(self.lengths, int):
            return np.zeros(self.lengths, np.int64)
        return place(self.lengths, self.buckets)

    @cached_property
    def starts(self) -> list[Int[np.ndarray, " batches_and_end"]]:
        """Where the batches of each bucket begin among its rows, and where the last one ends."""
        members = np.bincount(self.bucket_of, minlength=len(self.buckets))
        starts = []
        for n, bucket in zip(members.tolist(), self.buckets, strict=True):
            batches = -(-n // bucket.rows)
            if isinstance(self.lengths, int):
                starts.append(np.minimum(np.arange(batches + 1) * bucket.rows, n))
            else:  # evenly full: an update of a few rows would weigh them more
                starts.append(np.arange(batches + 1) * n // max(batches, 1))
        return starts

    @cached_property
    def updates(self) -> int:
        """Batches of an epoch."""
        return sum(len(starts) - 1 for starts in self.starts)

    def batches(
        self, order: Int[np.ndarray, "replicas n"], bucket: int
    ) -> tuple[Int[np.ndarray, "replicas k rows"], Float[np.ndarray, "replicas k rows"]]:
        """Rows of every batch of a bucket, and their weights: 0 where a row only fills the batch.

        `order` is each replica's order of all rows in an epoch.
        """
        starts = self.starts[bucket]
        own = [row[self.bucket_of[row] == bucket] for row in order]
        places = starts[:-1, None] + np.arange(self.buckets[bucket].rows)
        weights = (places < starts[1:, None]).astype(np.float32)
        places = np.where(weights, places, starts[:-1, None])  # a real row: attention needs symbols
        indices = np.stack(own)[:, places].astype(np.int32)
        return indices, np.broadcast_to(weights, indices.shape)

    def blocks(self, epoch: int, done: int = 0) -> list[Block]:
        """The blocks of an epoch that are left after `done` of its updates.

        Their order needs only Philox' raw bits, which are the same in every version of NumPy.
        """
        most = BLOCK if len(self.buckets) > 1 else max(self.updates, 1)
        blocks = [
            Block(bucket, first, min(most, len(starts) - 1 - first))
            for bucket, starts in enumerate(self.starts)
            for first in range(0, len(starts) - 1, most)
        ]
        bits = np.random.Philox(np.random.SeedSequence((ORDER_SEED, epoch)))
        left = []
        for i in np.argsort(bits.random_raw(len(blocks)), kind="stable"):
            bucket, first, count = blocks[i]
            if done < count:
                left.append(Block(bucket, first + done, count - done))
            done = max(done - count, 0)
        return left

    @cached_property
    def padding_fraction(self) -> tuple[float, float]:
        """The shares of source and target positions without a symbol."""
        if isinstance(self.lengths, int):
            return 0.0, 0.0
        rows = [(len(s) - 1) * b.rows for s, b in zip(self.starts, self.buckets, strict=True)]
        positions = np.array(rows) @ np.array([bucket[:2] for bucket in self.buckets])
        source, target = (1 - self.lengths.sum(axis=0) / positions).tolist()
        return source, target


def place(lengths: Lengths, buckets: Sequence[Bucket]) -> Int[np.ndarray, " n"]:
    """The narrowest bucket of every row; raises UserError for a row that fits none."""
    fits = np.stack([(lengths <= bucket[:2]).all(axis=1) for bucket in buckets])
    if not fits.any(axis=0).all():
        row = int(fits.any(axis=0).argmin())
        raise UserError(
            f"row {row} has {lengths[row].tolist()} symbols, more than the widest bucket's "
            f"{list(buckets[-1][:2])}"
        )
    return fits.argmax(axis=0)


def epoch_order(key: Key[Array, ""], epoch: Int[Array, ""], n: int) -> Int[Array, " n"]:
    """The order of `n` rows in an epoch, from the run's key."""
    return jax.random.permutation(jax.random.fold_in(key, epoch), n)
