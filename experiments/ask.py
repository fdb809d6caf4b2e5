"""Ask the trained models of any run: sums, dates or sentences, typed, given or piped.

    python experiments/ask.py runs/reverse_vs_forward/notebook 123+456 999+1
    python experiments/ask.py runs/translation/help --arm "attention, 1 layer, forward" < in > out
    python experiments/ask.py runs/translation/help --arm "..." --beam 5 --n-best 3 "un fichier"
    python experiments/ask.py runs/translation/help --arm "..." --score < pairs.tsv

Without ``--arm`` all arms answer, in a table: the symbols that a seed wrote with their probability,
and, where the right answer is known, how many seeds are right. With ``--arm`` every line has its
answer on a line of its own, in order, as soon as the input pauses. With ``--n-best`` a row is LINE,
SCORE, TEXT. ``--score`` reads SOURCE, tab, TARGET and gives the log probability of the target in
nats and its number of symbols. A line that cannot be answered is reported on stderr, the others go
on, and the exit code is 1; unknown symbols are named there, too, each once. A run that still trains
answers from its last checkpoint.
"""

from terminal import main

import queue
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro
from rich.table import Table
from rich.text import Text

from s2sjax.cli import make_console, parse
from s2sjax.data.vocab import visible
from s2sjax.errors import UserError
from s2sjax.model.beam import Beam
from s2sjax.model.decode import Greedy, Sampling
from s2sjax.report.tables import NONE, printable
from s2sjax.train.progress import RIGHT, WRONG
from s2sjax.train.replicas import use_all_cores
from s2sjax.train.step import Policy
from s2sjax.train.trained import Answer, Trained

PAUSE = 0.05  # seconds without a new line after which what was read is answered
MOST = 4_096  # lines that are answered together
MOST_NAMED = 20  # unknown symbols that are named together


@dataclass(frozen=True)
class Ask:
    """What was asked for on the command line."""

    workdir: tyro.conf.Positional[Path]  # Folder of a run
    texts: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="TEXT")] = ()
    """What is asked; without any it is read line by line."""
    arm: str | None = None  # The arm that answers; None: all, in a table
    seed: int | None = None  # The seed whose answers are shown; the default is the run's first
    ensemble: bool = False  # All seeds of an arm answer as one model
    score: bool = False  # Score given pairs instead: SOURCE, tab, TARGET
    beam: int | None = None
    """Search with so many hypotheses; None always takes the likeliest symbol."""
    length_penalty: float = 1.0  # Of the beam (Wu et al., 2016): 0 favours short answers
    n_best: int = 1  # Answers to each line
    temperature: float | None = None  # Draw symbols instead; the draw is sharper towards 0
    top_k: int | None = None  # Draw among the k likeliest
    top_p: float = 1.0  # Draw among the likeliest that make up this share
    draw: int = 0  # Seed of the draws
    replace_unknown: bool = False  # Write the source word with the most attention instead of <unk>

    def policy(self) -> Policy:
        """How to search; raises UserError for options that do not go together."""
        if self.beam is not None and self.temperature is not None:
            raise UserError("--beam and --temperature exclude each other")
        if not 1 <= self.n_best <= (self.beam or 1):
            raise UserError(
                f"--n-best must be from 1 to --beam, which is {self.beam or 'not given'}"
            )
        if self.temperature is None and (self.top_k, self.top_p, self.draw) != (None, 1.0, 0):
            raise UserError("--top-k, --top-p and --draw need --temperature: nothing is drawn")
        if self.arm is None and (self.score or self.n_best > 1 or self.ensemble):
            raise UserError("--score, --n-best and --ensemble need --arm")
        if not 0 <= self.draw < 2**31:
            raise UserError(f"--draw must be from 0 to 2^31 - 1, not {self.draw}")
        if self.beam is None and self.length_penalty != 1.0:
            raise UserError("--length-penalty needs --beam")
        if self.beam is not None:
            return Beam(self.beam, self.length_penalty)
        if self.temperature is not None:
            return Sampling(self.temperature, self.top_k, self.top_p)
        return Greedy()


def read_lines() -> Iterator[list[bytes]]:
    """The lines of the standard input, as many at once as have come until it pauses."""
    lines: queue.Queue[bytes | None] = queue.Queue(2 * MOST)

    def read() -> None:
        try:
            for line in sys.stdin.buffer:
                lines.put(line)
        finally:
            lines.put(None)

    threading.Thread(target=read, daemon=True).start()
    while (first := lines.get()) is not None:
        some = [first]
        while len(some) < MOST:
            try:
                line = lines.get(timeout=PAUSE)
            except queue.Empty:
                break
            if line is None:
                lines.put(None)
                break
            some.append(line)
        yield some


def text_of(line: bytes, trained: Trained, score: bool) -> str:
    """A line as its tasks know it; raises UserError for what no arm can answer."""
    try:
        text = line.decode("utf-8-sig").strip("\r\n")
    except UnicodeDecodeError as error:
        raise UserError(f"no UTF-8 text ({error.reason}): save it as UTF-8") from error
    if score:
        if text.count("\t") != 1:
            raise UserError("--score reads SOURCE, one tab, TARGET")
        source, _, target = text.partition("\t")
        for arm, formatter in trained.formatters.items():
            formatter.filled([trained.row(arm, source, target)])  # refuses what cannot be read
        return text
    text, errors = text.strip(), []
    if not text:
        return text
    for one in dict.fromkeys((text, "".join(text.split()))):  # '12 + 3' means '12+3'
        for arm, run in trained.arms.items():
            try:
                known = one == text if run.task.sizes is None else run.task.answers(one)
                if known and trained.row(arm, one):
                    return one
            except UserError as error:
                errors.append(str(error))
    raise UserError("; or ".join(dict.fromkeys(errors)))


def name_unknown(
    ask: Ask, trained: Trained, lines: Sequence[tuple[int, str]], told: set[str]
) -> None:
    """Say on stderr which symbols of some lines no model knows, each once."""
    new: dict[str, int] = {}
    for number, text in lines:
        for formatter in trained.formatters.values():
            sides = text.split("\t") if ask.score else [text]
            for side, vocabulary in zip(sides, (formatter.source, formatter.target), strict=False):
                for piece in vocabulary.unknown(side):
                    new.setdefault(piece, number)
    if named := [f"{visible(s[:40])} (line {n:,})" for s, n in new.items() if s not in told]:
        told |= {*new}
        more = f" and {len(named) - MOST_NAMED:,} more" if len(named) > MOST_NAMED else ""
        print(f"note: read as unknown: {', '.join(named[:MOST_NAMED])}{more}", file=sys.stderr)


def rows(ask: Ask, trained: Trained, lines: Sequence[tuple[int, str]]) -> Iterator[str]:
    """Output rows of numbered lines, of the one arm and seed or ensemble."""
    (arm,), texts = trained.arms, [text for _, text in lines]
    if ask.score:
        pairs = [(source, target) for source, _, target in (text.partition("\t") for text in texts)]
        log_probs, symbols, _ = trained.score(pairs)[arm]
        yield from (f"{x:.4f}\t{n}" for x, n in zip(log_probs[0], symbols, strict=True))
        return
    settings: Any = {"replace_unknown": ask.replace_unknown, "ensemble": ask.ensemble}
    settings["seed"] = ask.draw
    asked = {number - 1: text for number, text in lines if text}
    settings["numbers"] = [*asked]
    answers = iter(trained.answer([*asked.values()], ask.policy(), **settings)[arm][0])
    for number, text in lines:
        best = (
            [(one.score, " ".join(one.text.splitlines())) for one in next(answers)] if text else []
        )
        for score, answer in best[: ask.n_best] or [(0.0, "")]:
            yield answer if ask.n_best == 1 else f"{number}\t{score:.4f}\t{answer}"


def known_answers(trained: Trained, text: str) -> dict[str, tuple[str, ...]]:
    """The right answers by arm; none where only files have answers, and not to this text."""
    known = {}
    for arm, run in trained.arms.items():
        try:
            known[arm] = run.task.answers(text)
        except UserError:
            if run.task.sizes is None:
                known[arm] = ()
    return known


def tables(ask: Ask, trained: Trained, text: str) -> Iterator[Table]:
    """What every arm answers: a table for each right answer there is."""
    known = known_answers(trained, text)
    able = trained.only([*known])
    answers = able.answer([text], ask.policy(), replace_unknown=ask.replace_unknown, seed=ask.draw)
    for right in dict.fromkeys(known.values()):
        title = " = ".join([text, *right[:1]])
        table = Table(title=Text(printable(title)), title_justify="left")
        for header in ("arm", f"answer, seed {able.seeds[0]}", "", "symbols and probabilities"):
            table.add_column(header)
        table.add_column("seeds right", justify="right")
        for arm in (arm for arm, own in known.items() if own == right):
            best = [of_seed[0][0] for of_seed in answers[arm]]
            marks = [able.is_right(arm, one, right) for one in best] if right else None
            formatter = able.formatters[arm]
            given = [
                f"{formatter.target.show(i)} given" for r in right[:1] for i in formatter.given(r)
            ]
            row = cells(arm, best, marks, given)
            table.add_row(*(Text(printable(c)) if isinstance(c, str) else c for c in row))
        yield table


def cells(
    arm: str, best: Sequence[Answer], right: Sequence[bool] | None, given: Sequence[str]
) -> tuple[str | Text, ...]:
    """The first seed's answer, its symbols, and how many seeds are right."""
    probabilities = np.exp(best[0].log_probs)
    symbols = zip(best[0].symbols, probabilities, strict=True)
    spelled = "   ".join([*given, *(f"{symbol} {p:.0%}" for symbol, p in symbols)])
    if right is None:
        return arm, best[0].text, "", spelled, NONE
    mark = Text(RIGHT, "bold green") if right[0] else Text(WRONG, "bold red")
    return arm, best[0].text, mark, spelled, f"{sum(right)} of {len(right)}"


def ask_models() -> None:
    """Parse, load, answer."""
    ask = parse(Ask, __doc__ or "")
    ask.policy()
    use_all_cores()
    console = make_console()
    arms = None if ask.arm is None else [ask.arm]
    trained = Trained.load(ask.workdir, arms, None if ask.seed is None else [ask.seed])
    if ask.arm is not None and not ask.ensemble:
        trained = trained.only([ask.arm], trained.seeds[:1])
    typed = not ask.texts and sys.stdin.isatty()
    if typed:
        console.print("Type a line and Enter; Ctrl-D ends.")
    given = [[text.encode("utf-8", "surrogateescape") for text in ask.texts]]
    number, refused, told = 0, 0, set[str]()
    for chunk in given if ask.texts else read_lines():
        good: list[tuple[int, str]] = []
        for line in chunk:
            number += 1
            try:
                good.append((number, text_of(line, trained, ask.score)))
            except UserError as error:
                refused += not typed
                print(f"error: line {number:,}: {error}", file=sys.stderr)
        name_unknown(ask, trained, good, told)
        if ask.arm is not None and good:
            for row in rows(ask, trained, good):
                print(printable(row) if sys.stdout.isatty() else row)
            sys.stdout.flush()
        elif ask.arm is None:
            for table in (t for _, text in good if text for t in tables(ask, trained, text)):
                console.print(table)
        if sys.stderr.isatty() and not sys.stdout.isatty():
            print(f"\r{number:,} lines", end="", file=sys.stderr, flush=True)
    if refused:
        raise SystemExit(1)


if __name__ == "__main__":
    main(ask_models)
