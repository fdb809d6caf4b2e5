"""Ask the arms of a finished run: every arm's answer, and how sure it is of each character.

    python experiments/ask.py runs/reverse_vs_forward/notebook 123+456 999+1
    python experiments/ask.py runs/reverse_vs_forward/notebook        (questions typed, or piped in)

Takes about ten seconds to start. Where the run gave the answer's first character to the decoder
(the notebook does), it is given here too, and marked.
"""

import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

if __name__ == "__main__":  # there is nothing to save
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import jax
import numpy as np
import tyro
from rich.console import Console
from rich.table import Table
from rich.text import Text

from s2sjax import checkpoint
from s2sjax.ablation import Ablation, read_answer
from s2sjax.cli import main, make_console, parse
from s2sjax.data import Examples
from s2sjax.decode import Decoded, Greedy
from s2sjax.errors import UserError
from s2sjax.fit import make_programs
from s2sjax.progress import RIGHT, WRONG
from s2sjax.replicas import lift, spread, stack, use_all_cores
from s2sjax.results import load_results
from s2sjax.train import Params


@dataclass(frozen=True)
class Ask:
    """What was asked for on the command line."""

    workdir: tyro.conf.Positional[Path]
    """Folder of a finished run."""
    questions: Annotated[
        tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="QUESTION")
    ] = ()
    """Questions such as 123+456; without any they are read line by line."""
    seed: int | None = None
    """Whose probabilities are shown; the default is the run's first seed."""


class Arms:
    """The trained replicas of a finished run."""

    def __init__(self, ablation: Ablation, workdir: Path):
        """Load the last checkpoint of `workdir`, where `ablation` ran."""
        self.ablation = ablation
        epochs = ablation.run.train.epochs
        if checkpoint.latest(workdir / "checkpoints") != epochs:
            raise UserError(f"{workdir} has no checkpoint of its last epoch, {epochs}")
        like = ablation.init(make_programs(ablation.trainer, ablation.mesh))
        state = checkpoint.restore(workdir / "checkpoints", epochs, like)
        self._params: Params = state.params
        self._decode = lift(self._greedy, ablation.mesh)

    def _greedy(self, params: Params, examples: Examples) -> Decoded:
        keys = jax.random.split(jax.random.key(0), 1)  # greedy draws nothing
        return self.ablation.trainer.decode(params, examples, Greedy(), keys)

    def answers(self, question: str, gold: str) -> Decoded:
        """Every replica's answer to a question, ``[replicas, time]``."""
        ablation = self.ablation
        rows = [
            ablation.formatter(arm).examples([(question, gold)]) for arm, _ in ablation.replicas
        ]
        decoded = self._decode(self._params, spread(stack(rows), ablation.mesh))
        return jax.tree.map(lambda x: x[:, 0], jax.device_get(decoded))


def answer_table(arms: Arms, question: str, seed: int) -> Table:
    """One row an arm: its answer, each character's probability, and how many seeds are right."""
    ablation = arms.ablation
    gold = ablation.task.answer(question)
    decoded = arms.answers(question, gold)
    table = Table(title=f"{question} = {gold}", title_justify="left")
    for header in (
        "arm",
        f"answer, seed {seed}",
        "",
        "characters as written, and their probability",
    ):
        table.add_column(header)
    table.add_column("seeds right", justify="right")
    for index, arm in enumerate(ablation.arms):
        formatter = ablation.formatter(arm)
        rows = range(index * ablation.seeds, (index + 1) * ablation.seeds)
        written = [read_answer(formatter, gold, decoded.tokens[row]) for row in rows]
        shown = seed - ablation.first_seed
        right = written[shown] == gold
        given = formatter.text.start == "first_target"
        vocab = formatter.vocabulary
        first = vocab.encode(formatter.target(gold)[0])[0]
        characters = [f"{vocab.show(first)} given"] if given else []
        tokens, log_probs = (x[rows[shown]] for x in decoded)
        for token, log_prob in zip(tokens, log_probs, strict=True):
            characters.append(f"{vocab.show(int(token))} {np.exp(log_prob):.0%}")
            if token == vocab.eos_id:
                break
        table.add_row(
            arm,
            written[shown],
            Text(RIGHT if right else WRONG, style="bold green" if right else "bold red"),
            "   ".join(characters),
            f"{sum(w == gold for w in written)} of {len(written)}",
        )
    return table


def without_spaces(question: str) -> str:
    """A question as it is meant, '12 + 3' being '12+3'."""
    return "".join(question.split())


def questions_of(asked: Ask, console: Console) -> Iterator[str]:
    """The questions given, else lines as they are typed or piped."""
    if asked.questions:
        yield from map(without_spaces, asked.questions)
        return
    if sys.stdin.isatty():
        console.print("Type a question and Enter; Ctrl-D ends.")
    for line in sys.stdin:
        if line.strip():
            yield without_spaces(line)


def ask() -> None:
    """Parse, load, answer."""
    asked = parse(Ask, __doc__ or "")
    use_all_cores()
    console = make_console()
    results = load_results(asked.workdir / "results.json")
    ablation = Ablation.from_config(results["config"])
    seed = ablation.first_seed if asked.seed is None else asked.seed
    last = ablation.first_seed + ablation.seeds - 1
    if not ablation.first_seed <= seed <= last:
        raise UserError(f"seed {seed} was not run; there are {ablation.first_seed} to {last}")
    for question in map(without_spaces, asked.questions):
        ablation.task.answer(question)  # refuses a string that is none
    arms = Arms(ablation, asked.workdir)
    interactive = not asked.questions and sys.stdin.isatty()
    for question in questions_of(asked, console):
        try:
            console.print(answer_table(arms, question, seed))
        except UserError as error:
            if not interactive:
                raise
            console.print(f"error: {error}", soft_wrap=True)


if __name__ == "__main__":
    main(ask)
