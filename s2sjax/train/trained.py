"""The trained models of a run: answer, score, align, for every arm and seed.

trained = Trained.load("runs/reverse_vs_forward/notebook")
trained.answer(["123+456"])["reversed"][0][0][0].text  # first seed, first text, best answer
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Float, Int

from s2sjax.data.rows import Formatter
from s2sjax.errors import UserError
from s2sjax.model.decode import Greedy
from s2sjax.train.answering import (
    Hypotheses,
    Policy,
    Questions,
    Replicas,
    align_program,
    forced_program,
    greedy_program,
    joined,
)
from s2sjax.train.evaluate import gold_symbols
from s2sjax.train.metrics import is_exact_match
from s2sjax.train.run import Run
from s2sjax.train.saved import read_run


class Answer(NamedTuple):
    """One answer to a text.

    Attributes:
        text: what was written.
        score: log probability of all its symbols, in nats; of a beam's divided by its penalty.
        symbols: the same as symbols, the end symbol last if the model came to an end.
        log_probs: of each of them, in nats.
        alignment: attention weights of each over the source's symbols in the order of the text, the
            end symbol last; None without attention.
        ids: of the symbols.
    """

    text: str
    score: float
    symbols: tuple[str, ...]
    log_probs: Float[np.ndarray, " written"]
    alignment: Float[np.ndarray, "written read"] | None = None
    ids: tuple[int, ...] = ()


class Decoded(NamedTuple):
    """Greedy answers of some replicas to questions with a known answer, on the host.

    Attributes:
        tokens: the symbols written, the end symbol included.
        log_probs: log probability of each, in nats.
        right: whether all that is scored of an answer is right.
    """

    tokens: Int[np.ndarray, "seeds n time"]
    log_probs: Float[np.ndarray, "seeds n time"]
    right: Bool[np.ndarray, "seeds n"]


class Scores(NamedTuple):
    """Log probabilities of given targets.

    Attributes:
        log_probs: of each target, its symbols given one by one, in nats.
        symbols: how many symbols that is the sum of; the end symbol counts.
    """

    log_probs: Float[np.ndarray, "seeds n"]
    symbols: Int[np.ndarray, " n"]


@dataclass(frozen=True, eq=False)
class Trained:
    """The trained models of a run, whichever programs they are of.

    A text longer than any that was trained on is read whole; how well is not known. A text without
    symbols becomes an empty answer, and the model is not asked.

    Attributes:
        programs: their replicas.
        arms: settings of the arms, in the order of the run.
        seeds: of every arm.
    """

    programs: tuple[Replicas, ...]
    arms: Mapping[str, Run]
    seeds: tuple[int, ...]

    @classmethod
    def load(
        cls,
        workdir: Path | str,
        arms: Collection[str] | None = None,
        seeds: Collection[int] | None = None,
    ) -> "Trained":
        """The models of a workdir, or some of them; of an unfinished run, the last checkpoint.

        Raises:
            UserError: the folder is no workdir, has no such arm or seed, or no checkpoint yet.
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
        programs: dict[tuple[str, ...], Replicas] = {}
        for entry in entries:
            wanted = [arm for arm in entry.formatters if arm in arms]
            if not wanted or not {*entry.seeds} & {*seeds}:
                continue
            loaded = entry.load(workdir, runs).only(wanted, seeds)
            same = tuple(loaded.runs)
            programs[same] = joined(programs[same], loaded) if same in programs else loaded
        chosen = {arm: run for arm, run in runs.items() if arm in arms}
        return cls(tuple(programs.values()), chosen, tuple(s for s in every if s in seeds))

    @cached_property
    def formatters(self) -> dict[str, Formatter]:
        """How each arm lays out its text."""
        known = {
            arm: formatter
            for program in self.programs
            for arm, formatter in program.formatters.items()
        }
        return {arm: known[arm] for arm in self.arms}

    def only(self, arms: Collection[str], seeds: Collection[int] | None = None) -> "Trained":
        """The same without other arms, and other seeds, than these."""
        kept_seeds = tuple(s for s in self.seeds if seeds is None or s in seeds)
        programs = [p.only(arms, kept_seeds) for p in self.programs if {*p.runs} & {*arms}]
        kept = {arm: run for arm, run in self.arms.items() if arm in arms}
        return Trained(tuple(programs), kept, kept_seeds)

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
        """Answer texts; what becomes of one does not depend on the others.

        Args:
            texts: as people write them. An arm whose decoder is given the first symbol can only
                answer what its task knows the answer of.
            policy: greedy where none is given.
            align: attention weights too, which take memory with the square of a text's length.
            replace_unknown: put the source symbol with the most attention where the unknown symbol
                was written (Luong et al., 2015; Jean et al., 2015).
            ensemble: the seeds of an arm answer as one model.
            seed: of `Sampling`.
            numbers: of the texts, from 0, which decide their draws; by default their places.

        Returns:
            By arm, for every seed (one, of an ensemble), for every text its answers, best first: a
            beam has several, of different texts.

        Raises:
            UserError: unknown symbols cannot be replaced, because an arm has no attention.
        """
        if replace_unknown or align:
            for arm, run in self.arms.items():
                if run.model.attention is None:
                    raise UserError(f"arm {arm!r} has no attention, which alignments are made of")
        members = 1 if ensemble else len(self.seeds)
        empty: tuple[Answer, ...] = (Answer("", 0.0, (), np.zeros(0, np.float32)),)
        answers = {arm: [[empty] * len(texts) for _ in range(members)] for arm in self.arms}
        for program in self.programs:
            asked = [n for n, text in enumerate(texts) if not _is_empty(program, text)]
            some = [texts[n] for n in asked]
            starts = {arm: self._first_symbols(arm, some) for arm in program.runs}
            settings: Any = {"align": align or replace_unknown, "ensemble": ensemble}
            settings |= {
                "seed": seed,
                "numbers": [n if numbers is None else numbers[n] for n in asked],
            }
            for n, arm, of_seeds in program.search(some, starts, policy or Greedy(), **settings):
                formatter, text = self.formatters[arm], some[n]
                for member, hypotheses in enumerate(of_seeds):
                    found: dict[str, Answer] = {}
                    for one in _ranked(hypotheses):
                        answer = _spelled(formatter, text, one, starts[arm][n], replace_unknown)
                        found.setdefault(answer.text, answer)
                    answers[arm][member][asked[n]] = tuple(found.values())
        return answers

    def is_right(self, arm: str, answer: Answer, references: Sequence[str]) -> bool:
        """Whether an answer is one of several right ones (`metrics.is_exact_match`)."""
        formatter = self.formatters[arm]
        for gold in gold_symbols(formatter, references):
            written = np.array(answer.ids[: len(gold)], np.int32)
            ones = np.ones(len(gold), np.float32)
            if written.shape == gold.shape and is_exact_match(
                written, gold, ones, formatter.target.unk_id
            ):
                return True
        return False

    def _first_symbols(self, arm: str, texts: Sequence[str]) -> list[int]:
        """What the decoder reads first."""
        formatter = self.formatters[arm]
        match formatter.text.start:
            case "bos":
                return [formatter.target.bos_id] * len(texts)
            case "nothing":
                return [0] * len(texts)
            case "first_target":
                task = self.arms[arm].task
                return [formatter.given(task.answers(text)[0])[0] for text in texts]

    def score(self, pairs: Sequence[tuple[str, str]]) -> dict[str, Scores]:
        """Log probability of given targets, by arm; unknown symbols as the unknown symbol."""
        found = {}
        for program in self.programs:
            questions = {arm: [pairs] * len(self.seeds) for arm in program.runs}
            log_probs = program.on_pairs(forced_program(program.programs), questions)
            for arm, values in program.by_arm(log_probs).items():
                formatter = self.formatters[arm]
                symbols = [len(formatter.target_ids(target)) - 1 for _, target in pairs]
                found[arm] = Scores(values, np.array(symbols))
        return {arm: found[arm] for arm in self.arms}

    def align(self, pairs: Sequence[tuple[str, str]]) -> dict[str, Float[np.ndarray, "..."]]:
        """Attention weights of each step to given targets, ``[seeds, n, target, source]`` by arm.

        Sources are in the order in which the arm reads them; arms have attention.
        """
        found: dict[str, Any] = {}
        for program in self.programs:
            questions = {arm: [pairs] * len(self.seeds) for arm in program.runs}
            weights = program.on_pairs(align_program(program.programs), questions)
            found |= program.by_arm(weights)
        return {arm: found[arm] for arm in self.arms}

    def decode(self, questions: Questions) -> dict[str, Decoded]:
        """Greedy answers of the arms that are asked to questions with known answers."""
        found: dict[str, Decoded] = {}
        for program in self.only(questions).programs:
            most = max(
                formatter.row_widths[1]
                if formatter.row_widths
                else max(w[1] for w in program.widths)
                for formatter in program.formatters.values()
            )
            decoded = program.on_pairs(greedy_program(program.programs, most - 1), questions)
            found |= {arm: Decoded(*x) for arm, x in program.by_arm(decoded).items()}
        return {arm: found[arm] for arm in questions}

    def same(self, pairs: Sequence[tuple[str, str]]) -> Questions:
        """The same questions for every arm and seed."""
        return {arm: [pairs] * len(self.seeds) for arm in self.arms}


def _is_empty(program: Replicas, text: str) -> bool:
    formatter = next(iter(program.formatters.values()))
    return formatter.text.source_justify is None and not formatter.source.pieces(text)


def _ranked(hypotheses: Hypotheses) -> Iterator[Hypotheses]:
    """Each hypothesis of a text; what only fills a beam up is left out."""
    for n in np.flatnonzero(np.isfinite(hypotheses.scores)):
        yield jax.tree.map(itemgetter(int(n)), hypotheses)


def _spelled(
    formatter: Formatter, text: str, found: Hypotheses, first_symbol: int, replace_unknown: bool
) -> Answer:
    """A hypothesis as text."""
    target = formatter.target
    ends = np.flatnonzero(found.tokens == target.eos_id)
    written = int(ends[0]) if len(ends) else len(found.tokens)
    shown = min(written + 1, len(found.tokens))
    weights = None
    if found.alignment is not None:
        n = len(formatter.source_ids(text))
        weights = found.alignment[:shown, :n]
        if formatter.text.source_order == "reversed" and formatter.text.source_justify is None:
            end = [n - 1] if formatter.text.source_eos else []
            weights = weights[:, [*range(n - len(end))][::-1] + end]
    tokens = found.tokens[:written]
    given = [first_symbol] if formatter.text.start == "first_target" else []
    if replace_unknown and weights is not None and (tokens == target.unk_id).any():
        pieces = formatter.source.pieces(text)
        best = weights[:written, : len(pieces)].argmax(axis=1)
        words = [target.symbols[i] for i in given] + [
            pieces[i] if token == target.unk_id else target.symbols[token]
            for token, i in zip(tokens, best, strict=True)
            if token not in (target.pad_id, target.bos_id)
        ]
        answer = target.join(words[:: -1 if formatter.text.target_order == "reversed" else 1])
    else:
        answer = formatter.read(tokens, given)
    symbols = tuple(target.show(int(i)) for i in found.tokens[:shown])
    ids = tuple(found.tokens[:shown].tolist())
    return Answer(answer, float(found.scores), symbols, found.log_probs[:shown], weights, ids)
