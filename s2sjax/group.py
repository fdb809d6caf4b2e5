"""Arms that share one compiled program, and their seeds: a stack of replicas.

Arms whose runs have the same structure and the same shapes differ only in data (source order, side
of the padding, operator) or in a traced number (the learning rate, a chance to drop). They are
replicas of one program, and so are their seeds: replica i of every arm has the key of seed i, so
the same initial weights, the same questions and the same order of batches.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any, SupportsIndex

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from s2sjax.config import Model, Run
from s2sjax.data import Examples, Formatter, make_vocabulary
from s2sjax.dropout import Rates
from s2sjax.fit import Programs
from s2sjax.models import Seq2Seq
from s2sjax.replicas import make_mesh, spread, stack
from s2sjax.serial import to_json
from s2sjax.taskconfig import TaskConfig
from s2sjax.tasks import Pairs, make_task
from s2sjax.train import Trainer, TrainState

_DATA, _RUN = 0, 1  # streams that a seed's key is folded into


def formatter(run: Run) -> Formatter:
    """How a run lays out its text; raises UserError for a task that cannot be."""
    task = make_task(run.task)
    return Formatter(task, run.text, make_vocabulary(task, run.text))


def make_trainer(run: Run) -> Trainer:
    """The single run that the replicas of `run` are copies of."""
    form = formatter(run)
    optimiser = replace(run.optim, learning_rate=1.0)  # the state's multiplies it
    model = Seq2Seq(len(form.vocabulary), form.pad_id, _placeholder_rates(run.model))
    updates = run.train.epochs * updates_per_epoch(run)
    return Trainer(model, optimiser, run.train, updates, form.vocabulary.eos_id)


def _placeholder_rates(model: Model) -> Model:
    """Settings that are equal where only chances to drop differ: those of the state count."""
    equal: dict[str, Any] = {name: 0.5 for name, rate in model.rates.items() if rate}
    return replace(model, **equal)


def updates_per_epoch(run: Run) -> int:
    """Updates of one replica in an epoch."""
    return -(-run.task.train // run.train.batch_size)


def program(run: Run) -> dict[str, Any]:
    """All that decides which program `run` compiles to, as JSON values by name."""
    form, task = formatter(run), run.task
    optimiser = {k: v for k, v in to_json(run.optim).items() if k != "learning_rate"}
    drops = {name: rate > 0 for name, rate in run.model.rates.items()}
    return {
        "model": to_json(run.model) | drops,
        "optim": optimiser,
        "train": to_json(run.train),
        "symbols": {
            "in the vocabulary": len(form.vocabulary),
            "in a source": form.source_width,
            "in a target": form.target_width,
            "skipped by the encoder": form.pad_id is not None,
            "that end a target": form.vocabulary.eos_id,
        },
        "questions": {"to train": task.train, "of dev": task.dev, "of test": task.test},
    }


@dataclass(frozen=True)
class Group:
    """Arms of one program.

    Attributes:
        arms: by name, complete settings.
        seeds: how many.
        first_seed: they count up from here.
    """

    arms: Mapping[str, Run]
    seeds: int
    first_seed: int

    @property
    def run(self) -> Run:
        """The settings of the first arm; what decides the program is the same in all."""
        return next(iter(self.arms.values()))

    @cached_property
    def replicas(self) -> list[tuple[str, int]]:
        """(arm, seed) of every replica, arm by arm."""
        seeds = range(self.first_seed, self.first_seed + self.seeds)
        return [(arm, seed) for arm in self.arms for seed in seeds]

    @property
    def labels(self) -> list[str]:
        """Names of the replicas."""
        return [f"{arm} seed {seed}" for arm, seed in self.replicas]

    @cached_property
    def trainer(self) -> Trainer:
        """The single run that all replicas are copies of."""
        return make_trainer(self.run)

    @cached_property
    def mesh(self) -> Mesh:
        """The devices the replicas are spread over."""
        return make_mesh(len(self.replicas))

    @cached_property
    def formatters(self) -> Mapping[str, Formatter]:
        """How each arm lays out its text."""
        return {arm: formatter(run) for arm, run in self.arms.items()}

    def pairs(self, arm: str) -> list[Mapping[str, Pairs]]:
        """Text pairs by split of every seed of an arm."""
        return _drawn(self.arms[arm].task, self.first_seed, self.seeds)

    def examples(self, split: str) -> Examples:
        """Stacked examples of a split, laid out over the devices."""
        rows = [
            self.formatters[arm].examples(pairs[split])
            for arm in self.arms
            for pairs in self.pairs(arm)
        ]
        return spread(stack(rows), self.mesh)

    def init(self, programs: Programs) -> TrainState:
        """The stacked state before the first update; seed i is the same in every arm."""
        keys = seed_keys([seed for _, seed in self.replicas])
        keys = jax.vmap(lambda key: jax.random.fold_in(key, _RUN))(keys)
        runs = [self.arms[arm] for arm, _ in self.replicas]
        steps = np.array([run.optim.learning_rate for run in runs], np.float32)
        rates = stack([Rates.of(run.model) for run in runs])
        return programs.init(*spread((keys, steps, rates), self.mesh))


@lru_cache(maxsize=16)
def _drawn(config: TaskConfig, first_seed: int, seeds: int) -> list[Mapping[str, Pairs]]:
    """Text pairs by split of every seed, drawn once for all arms and programs that ask them."""
    task, keys = make_task(config), seed_keys(range(first_seed, first_seed + seeds))
    return [task.splits(jax.random.fold_in(key, _DATA)) for key in keys]


def seed_keys(seeds: Sequence[int]) -> jax.Array:
    """A typed key for each seed, of one generator whatever the environment says."""
    return jnp.stack([jax.random.key(seed, impl="threefry2x32") for seed in seeds])


def read_answer(form: Formatter, gold: str, ids: Iterable[SupportsIndex]) -> str:
    """Decoded ids as an answer: a given first character put back, justification taken off."""
    given = form.target(gold)[:1] if form.text.start == "first_target" else ""
    return form.answer(given + form.vocabulary.decode(ids))
