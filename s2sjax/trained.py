"""The trained models of a finished run: their answers to any questions."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Bool, Float, Int

from s2sjax import checkpoint
from s2sjax.ablation import Ablation
from s2sjax.config import Run
from s2sjax.data import Examples, Formatter
from s2sjax.decode import Greedy
from s2sjax.dropout import Rates
from s2sjax.errors import UserError
from s2sjax.group import Group
from s2sjax.losses import token_losses
from s2sjax.models import Seq2Seq
from s2sjax.replicas import AXIS, lift, spread, stack
from s2sjax.results import load_results
from s2sjax.tasks import Pairs
from s2sjax.train import Params, Trainer

BATCH = 256
"""Questions a replica answers at once; a program is compiled for so many and for one alone."""

Questions = Mapping[str, Sequence[Pairs]]
"""By arm, the text pairs of every seed, equally many; one list for all seeds is laid out once."""


def load_ablation(workdir: Path) -> Ablation:
    """The ablation that a workdir holds the results of; raises UserError where there is none."""
    path = workdir / "results.json"
    results = load_results(path)
    try:
        return Ablation.from_config(results["config"])
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


class Answers(NamedTuple):
    """Greedy answers of some replicas, on the host.

    Attributes:
        tokens: the symbols written, the end symbol included.
        log_probs: log probability of each, in nats.
        right: whether all that is scored of an answer is right, as `metrics` counts exact match.
    """

    tokens: Int[Any, "replicas n time"]
    log_probs: Float[Any, "replicas n time"]
    right: Bool[Any, "replicas n"]


class _Programs(NamedTuple):
    """(params, examples) to what their names say, lifted over replicas."""

    decode: Any
    force: Any
    align: Any


@lru_cache(maxsize=32)
def _programs(trainer: Trainer, mesh: Mesh) -> _Programs:
    """Compiled once for all that are equal, whatever their questions."""

    def scored(examples: Examples) -> jax.Array:
        return trainer.scored(examples.target, jnp.ones(examples.target.shape[0]))

    def decode(params: Params, examples: Examples) -> Answers:
        keys = jax.random.split(jax.random.key(0), examples.source.shape[0])  # draws nothing
        decoded = trainer.decode(params, examples, Greedy(), keys)
        right = (decoded.tokens == examples.target[:, 1:]) | (scored(examples) == 0)
        return Answers(decoded.tokens, decoded.log_probs, right.all(axis=1))

    def force(params: Params, examples: Examples) -> jax.Array:
        logits = trainer.apply(params, examples.source, examples.target[:, :-1])
        losses = token_losses(logits, examples.target[:, 1:])
        return -(losses * scored(examples)).sum(axis=1)

    def align(params: Params, examples: Examples) -> jax.Array:
        encoding = trainer.apply(params, examples.source, method=Seq2Seq.encode)
        target_in = examples.target[:, :-1]
        return trainer.apply(params, encoding, target_in, method=Seq2Seq.write_aligned)[1]

    return _Programs(lift(decode, mesh), lift(force, mesh), lift(align, mesh))


def _shapes(group: Group) -> Any:
    """Shapes and places of a stacked state; nothing is computed."""
    key, rate = jax.random.key(0, impl="threefry2x32"), jnp.float32(0)
    place = NamedSharding(group.mesh, PartitionSpec(AXIS))
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct((len(group.replicas), *x.shape), x.dtype, sharding=place),
        jax.eval_shape(group.trainer.init, key, rate, Rates.of(group.run.model)),
    )


@dataclass(frozen=True)
class Trained:
    """The trained replicas of one program, or of some of its arms.

    Attributes:
        group: their arms and seeds.
        params: what they are scored with, stacked.
    """

    group: Group
    params: Params

    @classmethod
    def load(cls, group: Group, number: int, workdir: Path) -> "Trained":
        """Restore program `number` of a finished run; raises UserError where it is not there."""
        folder = workdir / "checkpoints" / str(number)
        last = checkpoint.latest(folder)
        epochs = group.run.train.epochs
        if last is None or (last != epochs and group.run.train.patience is None):
            raise UserError(f"{folder} has no checkpoint of the last epoch, {epochs}")
        return cls(group, checkpoint.restore(folder, last, _shapes(group)).scored)

    def only(self, arms: Collection[str]) -> "Trained":
        """The same without other arms than these."""
        group = self.group
        if set(group.arms) <= set(arms):
            return self
        few = replace(group, arms={arm: run for arm, run in group.arms.items() if arm in arms})
        rows = np.array([i for i, (arm, _) in enumerate(group.replicas) if arm in arms])
        params = jax.tree.map(lambda leaf: leaf[rows], jax.device_get(self.params))
        return Trained(few, spread(params, few.mesh))

    def decode(self, questions: Questions) -> dict[str, Answers]:
        """Greedy answers of every arm and seed to their questions."""
        answers = self._in_batches(self._programs.decode, questions)
        return {arm: Answers(*(x[rows] for x in answers)) for arm, rows in self._rows.items()}

    def force(self, questions: Questions) -> dict[str, Float[np.ndarray, "seeds n"]]:
        """Log probability of the right answers, their symbols given one by one, in nats."""
        log_probs = self._in_batches(self._programs.force, questions)
        return {arm: log_probs[rows] for arm, rows in self._rows.items()}

    def align(self, questions: Questions) -> dict[str, Float[np.ndarray, "seeds n target source"]]:
        """How each step to the right answer looks at the source; for models with attention."""
        alignments = self._in_batches(self._programs.align, questions)
        return {arm: alignments[rows] for arm, rows in self._rows.items()}

    @property
    def _programs(self) -> _Programs:
        return _programs(self.group.trainer, self.group.mesh)

    @property
    def _rows(self) -> dict[str, slice]:
        """Where the seeds of each arm are in the stack."""
        seeds = self.group.seeds
        return {arm: slice(i * seeds, (i + 1) * seeds) for i, arm in enumerate(self.group.arms)}

    def _in_batches(self, program: Any, questions: Questions) -> Any:
        """Run a program on all questions, batch by batch; results are stacked and on the host."""
        group = self.group
        laid_out = {
            (arm, id(pairs)): group.formatters[arm].examples(pairs)
            for arm in group.arms
            for pairs in {id(pairs): pairs for pairs in questions[arm]}.values()
        }
        rows = [laid_out[arm, id(pairs)] for arm in group.arms for pairs in questions[arm]]
        n = rows[0].source.shape[0]
        size = 1 if n == 1 else BATCH
        parts = []
        for start in range(0, n, size):
            picked = np.arange(start, start + size) % n  # the last batch is filled up
            batch = stack([Examples(row.source[picked], row.target[picked]) for row in rows])
            parts.append(jax.device_get(program(self.params, spread(batch, group.mesh))))
        return jax.tree.map(lambda *leaves: np.concatenate(leaves, axis=1)[:, :n], *parts)


@dataclass(frozen=True)
class Models:
    """The trained arms of a run, whichever programs they are of.

    Attributes:
        programs: their programs.
        arms: their settings, by name, in the order of the run.
    """

    programs: Sequence[Trained]
    arms: Mapping[str, Run]

    @property
    def seeds(self) -> range:
        """The seeds of every arm."""
        group = self.programs[0].group
        return range(group.first_seed, group.first_seed + group.seeds)

    @cached_property
    def formatters(self) -> dict[str, Formatter]:
        """How each arm lays out its text."""
        found = {a: form for p in self.programs for a, form in p.group.formatters.items()}
        return {arm: found[arm] for arm in self.arms}

    def pairs(self, arm: str) -> list[Mapping[str, Pairs]]:
        """Text pairs by split of every seed of an arm."""
        return next(p.group for p in self.programs if arm in p.group.arms).pairs(arm)

    def same(self, pairs: Pairs) -> Questions:
        """The same questions for every arm and seed."""
        return {arm: [pairs] * len(self.seeds) for arm in self.arms}

    def only(self, arms: Collection[str]) -> "Models":
        """The same without other arms than these."""
        programs = [p.only(arms) for p in self.programs if set(p.group.arms) & set(arms)]
        return Models(programs, {arm: run for arm, run in self.arms.items() if arm in arms})

    def relaid(self, change: Callable[[Run], Run]) -> "Models":
        """The same parameters with the text laid out as for other runs; widths may change."""
        arms = {arm: change(run) for arm, run in self.arms.items()}
        programs = [
            Trained(replace(p.group, arms={arm: arms[arm] for arm in p.group.arms}), p.params)
            for p in self.programs
        ]
        return Models(programs, arms)

    def decode(self, questions: Questions) -> dict[str, Answers]:
        """Greedy answers of the arms that are asked, ``[seeds, n, ...]``."""
        parts = [p.decode(questions) for p in self.only(questions).programs]
        return {arm: part[arm] for arm in questions for part in parts if arm in part}

    def force(self, questions: Questions) -> dict[str, Float[np.ndarray, "seeds n"]]:
        """Log probability of the right answers, their symbols given one by one, in nats."""
        parts = [p.force(questions) for p in self.only(questions).programs]
        return {arm: part[arm] for arm in questions for part in parts if arm in part}

    def align(self, questions: Questions) -> dict[str, Float[np.ndarray, "seeds n target source"]]:
        """How each step to the right answer looks at the source; for arms with attention."""
        parts = [p.align(questions) for p in self.only(questions).programs]
        return {arm: part[arm] for arm in questions for part in parts if arm in part}


def load(workdir: Path, arms: Collection[str] | None = None) -> Models:
    """The trained models of a finished run, or some of its arms.

    Raises:
        UserError: the workdir holds no finished run.
    """
    ablation = load_ablation(workdir)
    runs = {arm: run for arm, run in ablation.arms.items() if arms is None or arm in arms}
    programs = [
        Trained.load(group, number, workdir).only(runs)
        for number, group in enumerate(ablation.groups, start=1)
        if set(group.arms) & set(runs)
    ]
    return Models(programs, runs)
