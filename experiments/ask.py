"""Ask the arms of a finished run: every arm's answer, and how sure it is of each character.

    python experiments/ask.py runs/reverse_vs_forward/notebook 123+456 999+1
    python experiments/ask.py runs/reverse_vs_forward/notebook        (questions typed, or piped in)

Takes about ten seconds to start. Where the run gave the answer's first character to the decoder
(the notebook does), it is given here too, and marked.
"""

import signal
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

if __name__ == "__main__":  # there is nothing to save
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import numpy as np
import tyro
from rich.console import Console
from rich.table import Table
from rich.text import Text

from s2sjax.cli import main, make_console, parse
from s2sjax.data import Formatter
from s2sjax.errors import UserError
from s2sjax.group import formatter, read_answer
from s2sjax.progress import RIGHT, WRONG
from s2sjax.replicas import use_all_cores
from s2sjax.trained import Answers, Models, load, load_ablation


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


def golds(forms: Mapping[str, Formatter], question: str) -> dict[str, str]:
    """The right answer by arm, but for arms of other tasks; raises UserError if none is left."""
    right, refusals = {}, []
    for arm, form in forms.items():
        try:
            right[arm] = form.task.answer(question)
        except UserError as error:
            refusals.append(str(error))
    if not right:
        raise UserError("; or ".join(dict.fromkeys(refusals)))
    return right


def answer_tables(
    models: Models, gold: Mapping[str, str], question: str, seed: int
) -> Iterator[Table]:
    """A table for each right answer there is: arms of one task have one.

    Args:
        models: the trained models.
        gold: the right answer by arm; arms without one are left out.
        question: what is asked.
        seed: whose probabilities are shown.
    """
    asked = {arm: [[(question, right)]] * len(models.seeds) for arm, right in gold.items()}
    answers = models.decode(asked)
    for right in dict.fromkeys(gold.values()):
        table = Table(title=f"{question} = {right}", title_justify="left")
        for header in (
            "arm",
            f"answer, seed {seed}",
            "",
            "characters as written, and their probability",
        ):
            table.add_column(header)
        table.add_column("seeds right", justify="right")
        for arm in gold:
            if gold[arm] == right:
                shown = models.seeds.index(seed)
                table.add_row(arm, *_cells(models.formatters[arm], right, answers[arm], shown))
        yield table


def _cells(form: Formatter, gold: str, answers: Answers, seed: int) -> tuple[str | Text, ...]:
    """A seed's answer, the probability of each character, and how many seeds are right."""
    tokens, log_probs = answers.tokens[:, 0], answers.log_probs[seed, 0]
    written = [read_answer(form, gold, ids) for ids in tokens]
    right = written[seed] == gold
    vocab = form.vocabulary
    characters = []
    if form.text.start == "first_target":
        first = vocab.encode(form.target(gold)[0])[0]
        characters.append(f"{vocab.show(first)} given")
    for token, log_prob in zip(tokens[seed], log_probs, strict=True):
        characters.append(f"{vocab.show(int(token))} {np.exp(log_prob):.0%}")
        if token == vocab.eos_id:
            break
    return (
        written[seed],
        Text(RIGHT if right else WRONG, style="bold green" if right else "bold red"),
        "   ".join(characters),
        f"{sum(w == gold for w in written)} of {len(written)}",
    )


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
    ablation = load_ablation(asked.workdir)
    seeds = range(ablation.first_seed, ablation.first_seed + ablation.seeds)
    seed = seeds[0] if asked.seed is None else asked.seed
    if seed not in seeds:
        raise UserError(f"seed {seed} was not run; there are {seeds[0]} to {seeds[-1]}")
    forms = {arm: formatter(run) for arm, run in ablation.arms.items()}
    for question in map(without_spaces, asked.questions):
        golds(forms, question)  # refuses a string that is none, before anything is loaded
    models = load(asked.workdir)
    interactive = not asked.questions and sys.stdin.isatty()
    for question in questions_of(asked, console):
        try:
            gold = golds(forms, question)
            for table in answer_tables(models, gold, question, seed):
                console.print(table)
        except UserError as error:
            if not interactive:
                raise
            console.print(f"error: {error}", soft_wrap=True)


if __name__ == "__main__":
    main(ask)
