"""The trained models of a run: answer, score, align, for every arm and seed.

trained = Trained.load("runs/reverse_vs_forward/notebook")
trained.answer(["123+456"])["reversed"][0][0][0].text  # first seed, first text, best answer
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from s2sjax.data.dataset import seed_key
from s2sjax.data.rows import Formatter, Row
from s2sjax.errors import UserError
from s2sjax.model.beam import Beams
from s2sjax.model.decode import Greedy
from s2sjax.train.answering import Questions, TrainedStack, joined
from s2sjax.train.evaluate import Evaluation, gold_symbols
from s2sjax.train.metrics import is_exact_match
from s2sjax.train.run import Run
from s2sjax.train.saved import read_run
from s2sjax.train.step import Policy


class Answer(NamedTuple):
    """One answer to a text."""

    text: str
    score: float  # log probability of all its symbols, in nats; of a beam's divided by its penalty
    symbols: tuple[str, ...]  # of the text, the end symbol last if the model wrote it
    log_probs: Float[Any, " written"]  # of each symbol, in nats
    alignment: Float[np.ndarray, "written read"] | None = None
    """Attention weights over the source's symbols in the order of the text, the end symbol last."""
    ids: tuple[int, ...] = ()  # of the symbols


class Scores(NamedTuple):
    """Log probabilities of given targets."""

    log_probs: Float[np.ndarray, "seeds n"]  # of each target, its symbols given one by one, in nats
    symbols: Int[np.ndarray, " n"]  # how many symbols that is the sum of, the end symbol included
    alignment: Any  # Float[np.ndarray, "seeds n target source"], or None
    """Attention weights of every step, zero where a row has ended; sources in the order read."""


@dataclass(frozen=True, eq=False)
class Trained:
    """The trained models of a run, whichever programs they are of.

    A text longer than any that was trained on is read in full; how well is not known. One that is
    more than `answering.LONGEST` times as long is refused with a UserError. A text without symbols
    has an empty answer, without asking the model.
    """

    stacks: tuple[TrainedStack, ...]  # one for each program
    arms: Mapping[str, Run]  # in the order of the run
    seeds: tuple[int, ...]  # of every arm

    @classmethod
    def load(
        cls,
        workdir: Path | str,
        arms: Collection[str] | None = None,
        seeds: Collection[int] | None = None,
    ) -> "Trained":
        """The models of a workdir, or some of them; of an unfinished run, the last checkpoint.

        Raises UserError where the folder is no workdir, or has no such arm, seed, or checkpoint.
        """
        workdir = Path(workdir)
        runs, entries = read_run(workdir)
        every = tuple(dict.fromkeys(seed for entry in entries for seed in entry.seeds))
        for name, wanted, there in (("arm", arms, runs), ("seed", seeds, every)):
            for one in wanted or ():
                if one not in there:
                    known = ", ".join(map(str, there))
                    raise UserError(f"{workdir} has no {name} {one!r}; there are {known}")
        arms, seeds = arms or [*runs], seeds or every
        cohorts: dict[tuple[str, ...], list[TrainedStack]] = {}
        for entry in entries:
            if {*entry.formatters} & {*arms} and {*entry.seeds} & {*seeds}:
                of_arms = cohorts.setdefault(tuple(entry.formatters), [])
                of_arms.append(entry.load(workdir, runs))
        stacks = tuple(joined(several, arms, seeds) for several in cohorts.values())
        chosen = {arm: run for arm, run in runs.items() if arm in arms}
        return cls(stacks, chosen, tuple(s for s in every if s in seeds))

    @cached_property
    def formatters(self) -> dict[str, Formatter]:
        """How each arm lays out its text."""
        found = {arm: f for stack in self.stacks for arm, f in stack.formatters.items()}
        return {arm: found[arm] for arm in self.arms}

    def only(self, arms: Collection[str], seeds: Collection[int] | None = None) -> "Trained":
        """The same without other arms, and other seeds, than these."""
        kept_seeds = tuple(s for s in self.seeds if seeds is None or s in seeds)
        stacks = (joined([s], arms, kept_seeds) for s in self.stacks if {*s.runs} & {*arms})
        kept = {arm: run for arm, run in self.arms.items() if arm in arms}
        return Trained(tuple(stacks), kept, kept_seeds)

    def answer(
        self,
        texts: Sequence[str],
        policy: Policy | None = None,
        *,
        align: bool = False,
        replace_unknown: bool = False,
        ensemble: bool = False,
        seed: int = 0,
        numbers: Sequence[int] | None = None,
    ) -> dict[str, list[list[tuple[Answer, ...]]]]:
        """Answer texts; an answer does not depend on the other texts.

        Args:
            texts: as people write them. An arm whose decoder is given the first symbol can only
                answer what its task knows the answer of.
            policy: greedy where none is given.
            align: attention weights too; their memory grows with the square of a text's length.
            replace_unknown: write the source symbol with the most attention instead of the unknown
                symbol (Luong et al., 2015; Jean et al., 2015).
            ensemble: the seeds of an arm answer as one model.
            seed: of `Sampling`.
            numbers: of the texts, from 0, which decide their draws; by default their places.

        Returns the answers by arm, seed (an ensemble is one) and text: best first, all different,
        several of a beam. Raises UserError where attention is needed and an arm has none.
        """
        align = align or replace_unknown
        if align:
            self._refuse_without_attention()
        empty: tuple[Answer, ...] = (Answer("", 0.0, (), np.zeros(0, np.float32)),)
        members = range(1 if ensemble else len(self.seeds))
        answers = {arm: [[empty] * len(texts) for _ in members] for arm in self.arms}
        settings: Any = {"policy": policy or Greedy(), "align": align}
        for stack in self.stacks:
            asked = [n for n, text in enumerate(texts) if not _is_empty(stack, text)]
            if not asked:
                continue
            rows = {arm: [self.row(arm, texts[n]) for n in asked] for arm in stack.runs}
            draws = jnp.array([n if numbers is None else numbers[n] for n in asked])
            keys = jax.vmap(jax.random.fold_in, (None, 0))(seed_key(seed), draws)
            stack = stack.ensembles if ensemble else stack
            for place, arm, beams in stack.decode(rows, keys, **settings):
                n, (_, start) = asked[place], rows[arm][place]
                for member in members:
                    found: dict[str, Answer] = {}
                    for rank in np.flatnonzero(np.isfinite(beams.scores[member])).tolist():
                        one = jax.tree.map(itemgetter((member, rank)), beams)
                        formatter = self.formatters[arm]
                        answer = _spelled(formatter, texts[n], one, start, replace_unknown)
                        found.setdefault(answer.text, answer)
                    answers[arm][member][n] = tuple(found.values())
        return answers

    def row(self, arm: str, source: str, target: str | None = None) -> Row:
        """The ids of a pair; without a target, of a source and of what the decoder reads first.

        Raises UserError for what an arm cannot read.
        """
        formatter = self.formatters[arm]
        given = target is None and formatter.text.start == "first_target"
        answer = self.arms[arm].task.answers(source)[0] if given else target or ""
        read, written = formatter.source_ids(source), formatter.target_ids(answer)
        row = read, written[:1] if target is None else written
        (stack,) = (stack for stack in self.stacks if arm in stack.runs)
        for side, ids in enumerate(row):
            stack.width(len(ids), side)
        return row

    def _refuse_without_attention(self) -> None:
        for arm, run in self.arms.items():
            if run.model.attention is None:
                raise UserError(f"arm {arm!r} has no attention, which alignments are made of")

    def is_right(self, arm: str, answer: Answer, references: Sequence[str]) -> bool:
        """Whether an answer is one of several right ones (`metrics.is_exact_match`)."""
        formatter = self.formatters[arm]
        for gold in gold_symbols(formatter, references):
            written, scored = np.array(answer.ids[: len(gold)], np.int32), np.ones(len(gold))
            same = written.shape == gold.shape
            if same and is_exact_match(written, gold, scored, formatter.target.unk_id):
                return True
        return False

    def score(self, pairs: Sequence[tuple[str, str]], *, align: bool = False) -> dict[str, Scores]:
        """Log probability of given targets, by arm; unknown symbols as the unknown symbol.

        Raises UserError where attention weights are asked for, and an arm has no attention.
        """
        if align:
            self._refuse_without_attention()
        found: dict[str, Scores] = {}
        for stack in self.stacks:
            rows = {arm: [self.row(arm, *pair) for pair in pairs] for arm in stack.runs}
            for arm, own in rows.items():
                shape, symbols = (len(self.seeds), len(own)), np.array([len(t) - 1 for _, t in own])
                most = (max(symbols), max(len(source) for source, _ in own))
                weights = np.zeros((*shape, *most), np.float32) if align else None
                found[arm] = Scores(np.zeros(shape, np.float32), symbols, weights)
            for n, arm, (log_probs, alignment) in stack.forced(rows, align):
                found[arm].log_probs[:, n] = log_probs
                if (weights := found[arm].alignment) is not None:
                    written, read = found[arm].symbols[n], len(rows[arm][n][0])
                    weights[:, n, :written, :read] = alignment[:, :written, :read]
        return {arm: found[arm] for arm in self.arms}

    def evaluate(self, questions: Questions) -> dict[str, Evaluation]:
        """Greedy answers of the arms that are asked to pairs of every seed, and their scores."""
        found: dict[str, Evaluation] = {}
        for stack in self.only(questions).stacks:
            found |= stack.evaluate(questions)
        return {arm: found[arm] for arm in questions}

    def same(self, pairs: Sequence[tuple[str, str]]) -> Questions:
        """The same questions for every arm and seed."""
        return {arm: [pairs] * len(self.seeds) for arm in self.arms}


def _is_empty(stack: TrainedStack, text: str) -> bool:
    formatter = next(iter(stack.formatters.values()))
    return formatter.text.source_justify is None and not formatter.source.pieces(text)


def _spelled(
    formatter: Formatter, text: str, found: Beams, start: list[int], replace_unknown: bool
) -> Answer:
    """A hypothesis as text."""
    target = formatter.target
    ends = np.flatnonzero(found.tokens == target.eos_id)
    written = int(ends[0]) if len(ends) else len(found.tokens)
    shown = min(written + 1, len(found.tokens))
    weights = found.collected
    if weights is not None:
        n = len(formatter.source_ids(text))
        weights = weights[:shown, :n]
        if formatter.text.source_order == "reversed" and formatter.text.source_justify is None:
            end = [n - 1] if formatter.text.source_eos else []
            weights = weights[:, [*range(n - len(end))][::-1] + end]
    tokens = found.tokens[:written]
    given = start if formatter.text.start == "first_target" else []
    answer = formatter.read(tokens, given)
    if replace_unknown and (tokens == target.unk_id).any():
        pieces = formatter.source.pieces(text)
        best = weights[:written, : len(pieces)].argmax(axis=1)
        words = [target.symbols[i] for i in given] + [
            pieces[i] if token == target.unk_id else target.symbols[token]
            for token, i in zip(tokens, best, strict=True)
        ]
        answer = target.join(words[:: -1 if formatter.text.target_order == "reversed" else 1])
    ids = tuple(found.tokens[:shown].tolist())
    symbols = tuple(target.show(i) for i in ids)
    return Answer(answer, float(found.scores), symbols, found.log_probs[:shown], weights, ids)
