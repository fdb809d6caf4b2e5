"""Trained replicas of one program: texts in, symbols and their probabilities out."""

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache, partial
from operator import itemgetter
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from s2sjax.data.dataset import seed_key
from s2sjax.data.rows import Examples, Formatter
from s2sjax.data.vocab import fill
from s2sjax.model.beam import Beam, beam_search, tile
from s2sjax.model.decode import Greedy, Sampling, decode
from s2sjax.model.seq2seq import Seq2Seq
from s2sjax.train.loop import Programs
from s2sjax.train.losses import token_losses
from s2sjax.train.metrics import is_exact_match
from s2sjax.train.replicas import fetch, lift, make_mesh, spread, stack
from s2sjax.train.run import Run
from s2sjax.train.step import Params

Policy = Greedy | Sampling | Beam
"""How answers are looked for."""

Questions = Mapping[str, Sequence[Sequence[tuple[str, str]]]]
"""By arm, the (source, target) pairs of every seed, equally many."""

BATCH = 256
"""Questions a replica answers at once."""


class Hypotheses(NamedTuple):
    """Hypotheses of a batch, best first."""

    tokens: Any  # [batch, size, time]
    log_probs: Any  # [batch, size, time]
    scores: Any  # [batch, size]
    alignment: Any  # [batch, size, time, source_time] or None


@lru_cache(maxsize=64)
def search_program(
    programs: Programs, policy: Policy, most: int, align: bool, ensemble: bool
) -> Any:
    """(params, sources, first symbols, keys) to a `Hypotheses`, for all replicas.

    An ensemble is one model: its next symbol has the mean probability over the replicas.
    """
    apply = programs.trainer.apply

    def encode(params: Params, source: Array) -> Any:
        if not ensemble:
            return apply(params, source, method=Seq2Seq.encode)
        each = jax.vmap(partial(apply, method=Seq2Seq.encode), (0, None), 1)
        return each(params, source)

    def step_of(params: Params, encoding: Any) -> Any:
        def step(carry, token):
            if not ensemble:
                return apply(params, carry, token, encoding, method=Seq2Seq.step)
            each = jax.vmap(partial(apply, method=Seq2Seq.step), (0, 1, None, 1), (1, 0))
            carry, logits = each(params, carry, token, encoding)
            return carry, jax.nn.logsumexp(jax.nn.log_softmax(logits), 0) - math.log(len(logits))

        return step

    def alignment_of(carry: Any) -> Any:
        if not align:
            return None
        return carry.alignment.mean(axis=1) if ensemble else carry.alignment

    def run(
        params: Params,
        source: Int[Array, "batch source_time"],
        start: Int[Array, " batch"],
        keys: Key[Array, " batch"],
    ) -> Hypotheses:
        encoding = encode(params, source)
        settings: Any = {
            "eos_id": programs.trainer.eos_id,
            "max_decode_len": most,
            "collect": alignment_of,
        }
        if isinstance(policy, Beam):
            step = step_of(params, tile(encoding, policy.size))
            return Hypotheses(
                *beam_search(step, encoding.initial_state, start, beam=policy, **settings)
            )
        step = step_of(params, encoding)
        one = decode(step, encoding.initial_state, start, policy=policy, keys=keys, **settings)
        one = Hypotheses(one.tokens, one.log_probs, one.log_probs.sum(axis=1), one.collected)
        return jax.tree.map(lambda x: x[:, None], one)

    return jax.jit(run) if ensemble else lift(run, programs.mesh, shared=1)


@lru_cache(maxsize=64)
def forced_program(programs: Programs) -> Any:
    """(params, examples) to the log probability of every target, for all replicas."""
    trainer = programs.trainer

    def run(params: Params, examples: Examples) -> Float[Array, " n"]:
        source, target = examples
        losses = token_losses(trainer.apply(params, source, target[:, :-1]), target[:, 1:])
        return -(losses * trainer.scored(target, jnp.ones(len(target)))).sum(axis=1)

    return lift(run, programs.mesh)


@lru_cache(maxsize=64)
def align_program(programs: Programs) -> Any:
    """(params, examples) to the attention weights of every step, for all replicas."""
    apply = programs.trainer.apply

    def run(params: Params, examples: Examples) -> Float[Array, "n target_time source_time"]:
        encoding = apply(params, examples.source, method=Seq2Seq.encode)
        target_in = examples.target[:, :-1]
        return apply(params, encoding, target_in, method=Seq2Seq.decode_forced)[1]

    return lift(run, programs.mesh)


@lru_cache(maxsize=64)
def greedy_program(programs: Programs, most: int) -> Any:
    """(params, examples) to tokens, log probabilities, and what is right, for all replicas."""
    trainer = programs.trainer

    def run(params: Params, examples: Examples) -> tuple[Array, Array, Array]:
        n = examples.source.shape[0]
        keys = jax.random.split(jax.random.key(0), n)  # greedy draws nothing
        gold = examples.target.shape[1] - 1
        answers = trainer.decode(params, examples, Greedy(), keys, max(most, gold))
        scored = trainer.scored(examples.target, jnp.ones(n))
        shown = answers.tokens[:, :gold]
        right = is_exact_match(shown, examples.target[:, 1:], scored, trainer.unk_id)
        return answers.tokens, answers.log_probs, right

    return lift(run, programs.mesh)


@dataclass(frozen=True, eq=False)
class Replicas:
    """Trained replicas of one program.

    Attributes:
        runs: settings of every arm, by name.
        forms: how each lays out its text.
        seeds: of every arm.
        widths: source and target widths that were trained on, narrowest first.
        programs: the single run, and the devices.
        params: what they are scored with, stacked on the host: arm by arm, seed by seed.
    """

    runs: Mapping[str, Run]
    formatters: Mapping[str, Formatter]
    seeds: tuple[int, ...]
    widths: tuple[tuple[int, int], ...]
    programs: Programs
    params: Params

    @property
    def replicas(self) -> list[tuple[str, int]]:
        """(arm, seed) of every replica."""
        return [(arm, seed) for arm in self.runs for seed in self.seeds]

    @cached_property
    def on_devices(self) -> Params:
        """The parameters, laid out."""
        return spread(self.params, self.programs.mesh)

    def only(self, arms: Collection[str], seeds: Collection[int]) -> "Replicas":
        """The same without other arms and seeds than these."""
        rows = [i for i, (arm, s) in enumerate(self.replicas) if arm in arms and s in seeds]
        if len(rows) == len(self.replicas):
            return self
        return replace(
            self,
            runs={arm: run for arm, run in self.runs.items() if arm in arms},
            formatters={
                arm: formatter for arm, formatter in self.formatters.items() if arm in arms
            },
            seeds=tuple(seed for seed in self.seeds if seed in seeds),
            programs=replace(self.programs, mesh=make_mesh(len(rows))),
            params=jax.tree.map(lambda leaf: leaf[np.array(rows)], self.params),
        )

    def width(self, length: int, side: int) -> int:
        """The width that a row of this length has, whatever is asked beside it."""
        narrow = [w[side] for w in self.widths if length <= w[side]]
        widest = max(w[side] for w in self.widths)
        return min(narrow, default=widest * math.ceil(length / widest))

    def batches(self, lengths: Sequence[int], size: int = BATCH) -> Iterator[tuple[int, Any, Any]]:
        """Texts that are asked together: their width, their numbers, and the same filled up.

        A source k times as long as the longest one trained on costs about k² as much: such sources
        are answered in smaller batches.
        """
        widths = [self.width(length, 0) for length in lengths]
        for width in sorted(set(widths)):
            own = np.flatnonzero(np.array(widths) == width)
            beyond = math.ceil(width / max(w[0] for w in self.widths))
            some = 1 if len(lengths) == 1 else max(size // beyond**2, 1)
            for begin in range(0, len(own), some):
                numbers = own[begin : begin + some]
                yield width, numbers, np.resize(numbers, some)

    def search(
        self,
        texts: Sequence[str],
        first_symbols: Mapping[str, Sequence[int]],
        policy: Policy,
        *,
        align: bool,
        ensemble: bool,
        seed: int,
        numbers: Sequence[int],
    ) -> Iterator[tuple[int, str, list[Hypotheses]]]:
        """Answer texts: place of a text, arm, and the hypotheses of each seed (or of them all)."""
        formatters = self.formatters
        rows = {
            arm: [formatter.source_ids(text) for text in texts]
            for arm, formatter in formatters.items()
        }
        lengths = [len(row) for row in next(iter(rows.values()))]
        key = seed_key(seed)
        for width, places, filled in self.batches(lengths):
            beyond = math.ceil(width / max(w[0] for w in self.widths))
            most = beyond * (max(w[1] for w in self.widths) - 1)
            own = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.array(numbers)[filled])
            asked = {
                arm: (
                    fill([rows[arm][n] for n in filled], width, formatter.source.pad_id),
                    np.array([first_symbols[arm][n] for n in filled], np.int32),
                )
                for arm, formatter in formatters.items()
            }
            program = search_program(self.programs, policy, most, align, ensemble)
            for arm, answers in self._run(program, asked, own, ensemble):
                for i, place in enumerate(places.tolist()):
                    yield place, arm, [jax.tree.map(itemgetter(i), one) for one in answers]

    def _run(
        self, program: Any, asked: Mapping[str, Any], keys: Any, ensemble: bool
    ) -> Iterator[tuple[str, list[Hypotheses]]]:
        """Run a search on what every arm is asked; its seeds' results, or that of the ensemble."""
        n = len(self.seeds)
        if ensemble:
            for i, arm in enumerate(self.runs):
                own = jax.tree.map(lambda leaf, i=i: leaf[i * n : (i + 1) * n], self.params)
                yield arm, [jax.device_get(program(own, *asked[arm], keys))]
            return
        mesh = self.programs.mesh
        stacked = stack([asked[arm] for arm, _ in self.replicas], mesh)
        answers = fetch(program(self.on_devices, *stacked, keys), len(self.replicas))
        for i, arm in enumerate(self.runs):
            yield arm, [jax.tree.map(itemgetter(i * n + k), answers) for k in range(n)]

    def on_pairs(self, program: Any, questions: Questions) -> Any:
        """Run a program of (params, examples) on pairs of every seed; ``[replicas, n, ...]``."""
        asked = {(arm, id(pairs)): pairs for arm in self.runs for pairs in questions[arm]}
        laid_out = {key: self.formatters[key[0]].examples(pairs) for key, pairs in asked.items()}
        longest = [max(x[side].shape[1] for x in laid_out.values()) for side in (0, 1)]
        if next(iter(self.formatters.values())).row_widths is None:
            widths = (self.width(longest[0], 0), self.width(longest[1], 1))
            laid_out = {
                key: self.formatters[key[0]].examples(pairs, widths) for key, pairs in asked.items()
            }
        rows = [laid_out[arm, id(pairs)] for arm in self.runs for pairs in questions[arm]]
        n = len(rows[0].source)
        size = 1 if n == 1 else BATCH
        parts = []
        for begin in range(0, n, size):
            some = np.arange(begin, begin + size) % n  # the last batch is filled up
            batch = stack(
                [Examples(r.source[some], r.target[some]) for r in rows], self.programs.mesh
            )
            parts.append(fetch(program(self.on_devices, batch), len(rows)))
        return jax.tree.map(lambda *x: np.concatenate(x, axis=1)[:, :n], *parts)

    def by_arm(self, stacked: Any) -> dict[str, Any]:
        """``[replicas, ...]`` to ``[seeds, ...]`` of every arm."""
        n = len(self.seeds)
        return {
            arm: jax.tree.map(lambda x, i=i: x[i * n : (i + 1) * n], stacked)
            for i, arm in enumerate(self.runs)
        }


def joined(first: Replicas, second: Replicas) -> Replicas:
    """Two cohorts of the same arms as one."""
    n, m = len(first.seeds), len(second.seeds)

    def join(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        a = a.reshape(len(first.runs), n, *a.shape[1:])
        b = b.reshape(len(first.runs), m, *b.shape[1:])
        both = np.concatenate([a, b], axis=1)
        return both.reshape(-1, *both.shape[2:])

    params = jax.tree.map(join, first.params, second.params)
    mesh = make_mesh(len(first.runs) * (n + m))
    programs = replace(first.programs, mesh=mesh)
    seeds = first.seeds + second.seeds
    return replace(first, seeds=seeds, params=params, programs=programs)
