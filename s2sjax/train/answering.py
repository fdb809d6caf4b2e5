"""Trained replicas of one program: rows of ids in, answers and their probabilities out."""

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float, Int

from s2sjax.data.batches import Bucket
from s2sjax.data.dataset import Split
from s2sjax.data.rows import Examples, Formatter, Row
from s2sjax.errors import UserError
from s2sjax.model.seq2seq import Encoding, State
from s2sjax.train.evaluate import Evaluation, evaluate
from s2sjax.train.replicas import Programs, fetch, make_mesh, spread, stack
from s2sjax.train.run import Run
from s2sjax.train.step import Params, Trainer

Questions = Mapping[str, Sequence[Sequence[tuple[str, str]]]]
"""By arm, the (source, target) pairs of every seed, equally many."""

LONGEST = 16  # how many times as long as the longest trained on a text can be
BATCH = LONGEST**2  # rows that a replica reads at once


class Ensemble(Trainer):
    """Several replicas as one model: the mean of their probabilities. Parameters are stacked."""

    def encode(self, params: Params, source: Int[Array, "batch source_time"]) -> Encoding:
        return jax.vmap(super().encode, (0, None), 1)(params, source)

    def step(
        self, params: Params, state: State, token: Int[Array, " batch"], encoding: Encoding
    ) -> tuple[State, Float[Array, "batch vocab"]]:
        each = jax.vmap(super().step, (0, 1, None, 1), (1, 0))
        state, logits = each(params, state, token, encoding)
        return state, jax.nn.logsumexp(jax.nn.log_softmax(logits), 0) - math.log(len(logits))

    def alignment(self, state: State) -> Any:
        return super().alignment(state).mean(axis=1)


@dataclass(frozen=True, eq=False)
class TrainedStack:
    """Trained replicas of one program: all seeds of some arms."""

    runs: Mapping[str, Run]  # by arm
    formatters: Mapping[str, Formatter]  # by arm
    seeds: tuple[int, ...]  # of every arm
    widths: tuple[tuple[int, int], ...]  # source and target widths trained on, narrowest first
    programs: Programs
    params: Params  # on the host, stacked: arm by arm, seed by seed

    @property
    def replicas(self) -> list[tuple[str, int]]:
        """(arm, seed) of every replica."""
        return [(arm, seed) for arm in self.runs for seed in self.seeds]

    @cached_property
    def on_devices(self) -> Params:
        """The parameters, laid out."""
        return spread(self.params, self.programs.mesh)

    @cached_property
    def ensembles(self) -> "TrainedStack":
        """One replica an arm: the ensemble of its seeds."""
        shape = (len(self.runs), len(self.seeds))
        params = jax.tree.map(lambda x: x.reshape(shape + x.shape[1:]), self.params)
        programs = Programs(Ensemble(**vars(self.programs.trainer)), make_mesh(len(self.runs)))
        return replace(self, seeds=self.seeds[:1], programs=programs, params=params)

    def decode(
        self, rows: Mapping[str, Sequence[Row]], keys: Any, **settings: Any
    ) -> Iterator[tuple[int, str, Any]]:
        """`Trainer.decode` of rows whose targets are a first symbol alone: see `run`.

        Nothing but text and its end is written, unlike in `evaluate`, which counts what models do.
        """
        never = {i for of in self.formatters.values() for i in of.target.silent_ids}

        def ask(examples: Examples, places: np.ndarray) -> Any:
            most = self._times_as_long(examples.source.shape[-1]) * (self.widths[-1][1] - 1)
            own = {"max_decode_len": most, "never": tuple(sorted(never))}
            program = self.programs("decode", **own, **settings)
            return program(self.on_devices, examples, keys[places])

        return self.run(rows, ask)

    def forced(
        self, rows: Mapping[str, Sequence[Row]], align: bool
    ) -> Iterator[tuple[int, str, Any]]:
        """`Trainer.forced` of rows: see `run`."""
        program = self.programs("forced", align=align)
        return self.run(rows, lambda examples, places: program(self.on_devices, examples))

    def run(
        self, rows: Mapping[str, Sequence[Row]], ask: Callable[[Examples, np.ndarray], Any]
    ) -> Iterator[tuple[int, str, Any]]:
        """Ask every arm its rows: the place of a row, the arm, and the results of its seeds.

        Rows of one width are a batch. A source k times as long as the longest trained on costs
        about k² as much, so that batches of such sources are smaller.
        """
        lengths = np.max([[[*map(len, row)] for row in own] for own in rows.values()], axis=0)
        of_width: dict[tuple[int, int], list[int]] = {}
        for place, (source, target) in enumerate(lengths.tolist()):
            width = (self.width(source, 0), self.width(target, 1))
            of_width.setdefault(width, []).append(place)
        n = len(self.seeds)
        for width, places in of_width.items():
            most = BATCH // self._times_as_long(width[0]) ** 2
            size = 1 if len(lengths) == 1 else most
            for begin in range(0, len(places), size):
                own = places[begin : begin + size]
                filled = np.resize(own, size)  # results of rows that fill it up are not read
                batch = {
                    arm: formatter.filled([rows[arm][i] for i in filled], width)
                    for arm, formatter in self.formatters.items()
                }
                examples = stack([batch[arm] for arm, _ in self.replicas], self.programs.mesh)
                results = fetch(ask(examples, filled), len(self.replicas))
                for i, arm in enumerate(self.runs):
                    seeds = slice(i * n, (i + 1) * n)
                    for k, place in enumerate(own):
                        yield place, arm, jax.tree.map(lambda x, at=(seeds, k): x[at], results)

    def width(self, length: int, side: int) -> int:
        """The width of a row: one trained on, a multiple of the widest, or 1 for a first symbol.

        Raises UserError for a row that is more than `LONGEST` times as long as the widest.
        """
        known = [1, *(width[side] for width in self.widths)]
        if length > (most := LONGEST * known[-1]):
            what = f"a {('source', 'target')[side]} of {length:,} symbols is too long"
            raise UserError(f"{what}: this run takes at most {most:,}, start and end included")
        return next((w for w in known if length <= w), known[-1] * math.ceil(length / known[-1]))

    def _times_as_long(self, source_width: int) -> int:
        """A source width over the widest trained on, rounded up."""
        return math.ceil(source_width / self.widths[-1][0])

    def evaluate(self, questions: Questions) -> dict[str, Evaluation]:
        """Greedy answers to the pairs of every seed, and their scores, by arm."""
        asked = {(arm, id(pairs)): pairs for arm in self.runs for pairs in questions[arm]}
        rows = {
            (arm, i): [self.formatters[arm].row(pair) for pair in pairs]
            for (arm, i), pairs in asked.items()
        }
        lengths = {key: np.array([[*map(len, row)] for row in own]) for key, own in rows.items()}
        longest = np.max([own.max(axis=0) for own in lengths.values()], axis=0)
        target = max(self.width(int(longest[1]), 1), self.widths[-1][1])
        bucket = Bucket(self.width(int(longest[0]), 0), target, BATCH)
        splits = {
            key: Split((), self.formatters[key[0]].filled(own, bucket[:2]), lengths[key])
            for key, own in rows.items()
        }
        each = [splits[arm, id(pairs)] for arm in self.runs for pairs in questions[arm]]
        found = evaluate(self.programs, self.on_devices, each, [bucket], BATCH)
        n = len(self.seeds)
        return {
            arm: jax.tree.map(lambda x, i=i: x[i * n : (i + 1) * n], found)
            for i, arm in enumerate(self.runs)
        }


def joined(
    cohorts: Sequence[TrainedStack], arms: Collection[str], seeds: Collection[int]
) -> TrainedStack:
    """Some arms and seeds of stacks that have the same arms, as one stack."""
    first, replicas = cohorts[0], [replica for own in cohorts for replica in own.replicas]
    runs = {arm: run for arm, run in first.runs.items() if arm in arms}
    rows = [
        i
        for wanted in runs
        for i, (arm, seed) in enumerate(replicas)
        if arm == wanted and seed in seeds
    ]
    if len(cohorts) == 1 and len(rows) == len(replicas):
        return first  # with what it has on devices
    params = jax.tree.map(lambda *x: np.concatenate(x)[rows], *(own.params for own in cohorts))
    return TrainedStack(
        runs,
        {arm: first.formatters[arm] for arm in runs},
        tuple(seed for own in cohorts for seed in own.seeds if seed in seeds),
        first.widths,
        replace(first.programs, mesh=make_mesh(len(rows))),
        params,
    )
