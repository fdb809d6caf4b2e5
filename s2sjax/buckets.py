"""Pairs of rows of very different lengths, as batches of a few static shapes.

A bucket is a source width, a target width and a number of rows: one shape, one compiled program.
Buckets grow in both widths, and a pair goes to the first, so the narrowest, that holds it. A batch
has as many rows as fit a budget of *padded* positions, so that the budget bounds memory; or as
there are, where these are fewer. Lengths
count every id of a row, begin and end symbols included.
"""

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int

from s2sjax.data import Batch, Examples
from s2sjax.errors import UserError
from s2sjax.serial import config_hash
from s2sjax.vocab import fill

WIDTHS = 48
"""Most distinct lengths of a side that are all tried as widths."""


class Bucket(NamedTuple):
    """The shape of a batch.

    Attributes:
        source: symbols of a source row.
        target: symbols of a target row.
        rows: rows of a batch.
    """

    source: int
    target: int
    rows: int


class Waste(NamedTuple):
    """Shares of an epoch's positions that hold no symbol: padding, and rows that only fill up."""

    source: float
    target: float
    both: float


def rows_per_batch(width: int, tokens: int) -> int:
    """Rows of `width` positions, source and target together, that fit `tokens` positions.

    At least one: the budget is exceeded only where a single pair exceeds it.
    """
    return max(tokens // width, 1)


def _widths(lengths: Int[np.ndarray, " pairs"]) -> Int[np.ndarray, " widths"]:
    """Widths to try, the longest length among them; a row of no symbols still needs one."""
    distinct = np.unique(np.maximum(lengths, 1))
    if len(distinct) <= WIDTHS:
        return distinct
    share = np.linspace(0, 1, WIDTHS // 2)
    usual = np.quantile(lengths, share, method="higher")
    evenly = distinct[0] + share * (distinct[-1] - distinct[0])  # the few long ones need some too
    return distinct[np.unique(np.searchsorted(distinct, np.concatenate([usual, evenly])))]


def boundaries(lengths: Int[np.ndarray, "pairs 2"], count: int, tokens: int) -> tuple[Bucket, ...]:
    """At most `count` buckets, so that an epoch has the fewest positions, filling rows counted.

    Exact dynamic programming over all chains of growing (source, target) widths. What is tried as a
    width is every length that occurs; of more than `WIDTHS` lengths, half as many quantiles and
    half as many at even distances.

    Args:
        lengths: source and target length of every pair; none raises UserError.
        count: most buckets, at least 1.
        tokens: most positions of a batch, source and target together.
    """
    if not len(lengths):
        raise UserError("there are no pairs to make batches of")
    sources, targets = _widths(lengths[:, 0]), _widths(lengths[:, 1])
    shape = (len(sources) + 1, len(targets) + 1)  # before the first width there is width 0
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
        rows = np.clip(new, 1, rows_per_batch(width, tokens))
        positions = fewest[:-1, : i + 1, : j + 1] - (-new // rows) * rows * width
        positions = positions.reshape(count, -1)
        before[1:, i, j] = positions.argmin(axis=1)
        fewest[1:, i, j] = positions.min(axis=1)
    chain: list[Bucket] = []
    i, j = len(sources), len(targets)
    for k in range(int(fewest[:, i, j].argmin()), 0, -1):
        source, target = int(sources[i - 1]), int(targets[j - 1])
        inside, (i, j) = held[i, j], divmod(int(before[k, i, j]), j + 1)
        rows = min(rows_per_batch(source + target, tokens), int(inside - held[i, j]))
        chain.append(Bucket(source, target, rows))
    return tuple(reversed(chain))


@dataclass(frozen=True, eq=False)
class Schedule:
    """Which pairs form which batch: a pure function of lengths, buckets, seed and epoch.

    Attributes:
        lengths: source and target length of every pair, ``[pairs, 2]``.
        buckets: shapes, narrowest first; a pair that fits none raises UserError when it is placed.
        seed: decides every epoch's order, at least 0.
    """

    lengths: np.ndarray
    buckets: tuple[Bucket, ...]
    seed: int

    @cached_property
    def members(self) -> list[Int[np.ndarray, " members"]]:
        """The pairs of each bucket, by number, ascending."""
        fits = np.stack([(self.lengths <= bucket[:2]).all(axis=1) for bucket in self.buckets])
        if not (placed := fits.any(axis=0)).all():
            pair = int(placed.argmin())
            source, target = self.lengths[pair].tolist()
            raise UserError(
                f"pair {pair} has {source} and {target} symbols, more than the widest bucket's "
                f"{self.buckets[-1].source} and {self.buckets[-1].target}; leave out long pairs"
            )
        first = fits.argmax(axis=0)
        return [np.flatnonzero(first == bucket) for bucket in range(len(self.buckets))]

    @cached_property
    def _batches(self) -> list[int]:
        """Batches of each bucket in an epoch, every epoch's alike."""
        sizes = zip(self.buckets, self.members, strict=True)
        return [-(-len(pairs) // bucket.rows) for bucket, pairs in sizes]

    def __len__(self) -> int:
        """Batches of an epoch."""
        return sum(self._batches)

    def plan(self, epoch: int) -> list[tuple[int, Int[np.ndarray, " rows"]]]:
        """The batches of an epoch, each a bucket and its pairs, every pair in exactly one.

        The pairs of a bucket are shuffled and cut, the last cut may be short, and then the batches
        are shuffled. Only raw random bits are used: NumPy's documentation of Philox guarantees
        those for every version, and of what is made of them guarantees nothing.
        """
        bits = np.random.Philox(np.random.SeedSequence((self.seed, epoch)))
        batches = []
        for number, pairs in enumerate(self.members):
            shuffled, rows = pairs[_order(bits, len(pairs))], self.buckets[number].rows
            starts = range(0, len(pairs), rows)
            batches += [(number, shuffled[start : start + rows]) for start in starts]
        return [batches[i] for i in _order(bits, len(batches))]

    def waste(self) -> Waste:
        """The shares of positions that hold no symbol; no epoch differs from another in them."""
        rows = np.array(self._batches) * [bucket.rows for bucket in self.buckets]
        positions = rows @ np.array([bucket[:2] for bucket in self.buckets])
        symbols = self.lengths.sum(axis=0, dtype=np.int64)
        source, target = (1 - symbols / positions).tolist()
        return Waste(source, target, float(1 - symbols.sum() / positions.sum()))

    @cached_property
    def digest(self) -> str:
        """Twelve hexadecimal digits that tell this schedule from others."""
        lengths = zlib.crc32(self.lengths.astype(np.int64).tobytes())
        return config_hash({"lengths": lengths, "buckets": self.buckets, "seed": self.seed})


def _order(bits: np.random.BitGenerator, n: int) -> Int[np.ndarray, " n"]:
    """A random order of `n` things."""
    return np.argsort(bits.random_raw(n), kind="stable")


@runtime_checkable
class Encoded(Protocol):
    """Pairs as rows of ids, by number: a list, or what reads and encodes them when asked."""

    def __getitem__(self, pair: int, /) -> tuple[Sequence[int], Sequence[int]]:
        """Source and target row of a pair, begin and end symbols included."""
        ...


class Batches(Iterator[tuple[int, Batch]]):
    """The batches of a training, epoch after epoch without end: (number of the bucket, batch).

    Arrays are NumPy's. Where it stands is a number of batches, so that a run begun on pairs in
    memory may go on with the same pairs streamed.
    """

    def __init__(self, encoded: Encoded, schedule: Schedule, pad_id: int):
        """Stand before the first batch of epoch 0.

        Args:
            encoded: the pairs, as long as the schedule has them.
            schedule: which of them form which batch.
            pad_id: fills rows.
        """
        self.encoded, self.schedule, self.pad_id = encoded, schedule, pad_id
        self._given = 0
        self._planned = (0, schedule.plan(0))

    def __len__(self) -> int:
        """Batches of an epoch."""
        return len(self.schedule)

    def __next__(self) -> tuple[int, Batch]:
        batch = self.at(self._given)
        self._given += 1
        return batch

    def at(self, number: int) -> tuple[int, Batch]:
        """The batch that comes after `number` others, whatever was asked for before."""
        epoch, place = divmod(number, len(self))
        planned = self._planned  # one assignment: another thread never meets half a change
        if planned[0] != epoch:
            self._planned = planned = (epoch, self.schedule.plan(epoch))
        bucket, pairs = planned[1][place]
        return bucket, self.batch(bucket, pairs)

    def batch(self, bucket: int, pairs: Int[np.ndarray, " some"]) -> Batch:
        """These pairs in the shape of a bucket.

        Rows that are left over repeat the first pair at weight 0: a row of padding alone would be a
        sentence without words, which attention cannot average over.
        """
        shape = self.schedule.buckets[bucket]
        rows = [self.encoded[pair] for pair in pairs.tolist()]
        rows += rows[:1] * (shape.rows - len(rows))
        source, target = (
            fill([row[side] for row in rows], shape[side], self.pad_id) for side in (0, 1)
        )
        weight: Any = (np.arange(shape.rows) < len(pairs)).astype(np.float32)
        return Batch(Examples(source, target), weight)

    def state(self) -> dict[str, Any]:
        """Where it stands, for a checkpoint: JSON."""
        return {"batches": self._given, "schedule": self.schedule.digest}

    def restore(self, state: dict[str, Any]) -> None:
        """Go to where `state` was taken; raises UserError where pairs, buckets or seed differ."""
        if state["schedule"] != self.schedule.digest:
            raise UserError(
                "the position in the checkpoint belongs to other pairs, buckets or another seed: "
                "give the files and settings the run was begun with"
            )
        self._given = state["batches"]
