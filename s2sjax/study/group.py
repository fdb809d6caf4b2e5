"""Arms that share one compiled program, and their seeds: a stack of replicas.

Such arms differ only in data (source order, side of the padding, operator) or in a traced number
(the learning rate, a chance to drop). They are replicas of one program, and so are their seeds:
seed i has the same initial weights, questions and order of batches in every arm. Arms of several
programs have the same weights only where their shapes agree.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

import jax
import numpy as np

from s2sjax.data.dataset import Split, pairs_of, rows_of, seed_key
from s2sjax.data.rows import Formatter
from s2sjax.model.dropout import Rates
from s2sjax.train.loop import LoopState, Stack, begin
from s2sjax.train.replicas import Programs, make_mesh, stack
from s2sjax.train.run import Run, make_schedule, make_trainer, scoring_buckets

_RUN = 1  # the stream of a seed's key that decides all but its data


@dataclass(frozen=True)
class Group:
    """Arms of one program."""

    arms: Mapping[str, Run]
    seeds: int
    first_seed: int  # they count up from here
    devices_per_replica: int | None = None  # see `replicas.make_mesh`

    @property
    def run(self) -> Run:
        """The settings of the first arm; what decides the program is the same in all."""
        return next(iter(self.arms.values()))

    @property
    def seed_range(self) -> range:
        return range(self.first_seed, self.first_seed + self.seeds)

    @cached_property
    def replicas(self) -> list[tuple[str, int]]:
        """(arm, seed) of every replica, arm by arm."""
        return [(arm, seed) for arm in self.arms for seed in self.seed_range]

    @property
    def labels(self) -> list[str]:
        """Names of the replicas."""
        return [f"{arm} seed {seed}" for arm, seed in self.replicas]

    def of(self, arm: str) -> slice:
        """Where the seeds of an arm are in the stack."""
        first = [*self.arms].index(arm) * self.seeds
        return slice(first, first + self.seeds)

    @cached_property
    def programs(self) -> Programs:
        """The compiled programs of all replicas."""
        updates = self.run.train.epochs * make_schedule(self.run).updates
        mesh = make_mesh(len(self.replicas), self.devices_per_replica)
        return Programs(make_trainer(self.run, updates=updates), mesh)

    def formatter(self, arm: str) -> Formatter:
        """How an arm lays out its text."""
        return self.arms[arm].formatter

    def pairs(self, arm: str) -> list[Mapping[str, Iterable[tuple[str, str]]]]:
        """Text pairs by split of every seed of an arm."""
        return [pairs_of(self.arms[arm].task, seed) for seed in self.seed_range]

    def rows(self, split: str) -> list[Split]:
        """The rows of a split of every replica."""
        runs = [(self.arms[arm], seed) for arm, seed in self.replicas]
        return [rows_of(run.task, run.text, seed, split) for run, seed in runs]

    def stack(self) -> Stack:
        """What the loop trains."""
        train, dev = self.rows("train"), self.rows("dev")
        schedule, buckets = make_schedule(self.run), scoring_buckets(self.run)
        return Stack(self.programs, self.run.train, self.labels, schedule, train, dev, buckets)

    def begin(self, runs: Stack) -> LoopState:
        """Before the first update; seed i is the same in every arm."""
        start = []
        for arm, seed in self.replicas:
            key = jax.random.key_data(jax.random.fold_in(seed_key(seed), _RUN))
            rate = np.float32(self.arms[arm].optim.learning_rate)
            start.append((np.asarray(key), rate, Rates.of(self.arms[arm].model)))
        return begin(runs, self.programs("init")(*stack(start, self.programs.mesh)))
