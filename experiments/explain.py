"""Why: what the arms of a finished run get wrong, when they learned it, what they look at.

The question: a score says how many answers are right. Which are wrong? Those with long chains of
carries, with long numbers; the first place or the last; questions never trained on; numbers longer
than any trained on? And which symbols of the question does each symbol of the answer depend on,
from the first weights to the last?

The command: ``python experiments/explain.py runs/peeky/saitoh``. It takes the first five arms;
``--arms forward reversed`` chooses others. ``--no-exhaustive`` does not ask every question there
is, ``--no-gradients`` does not train a seed of two arms once more to look inside.

Time: a minute, and what these two take, which is told while they run. For peeky's five arms and ten
seeds it was 7 minutes on two CPU cores, beside other work: half of it for every question of three
digits, half for the gradients, which take what a seed of each arm took to train.

What to expect: tables here, and explain.md with pictures in the run's folder, of which nothing else
is touched. Only what makes sense is told: toy tasks have no carries.
"""

import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import NamedTuple

if __name__ == "__main__":  # there is nothing to save
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import numpy as np
import tyro
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from s2sjax import probes
from s2sjax.cli import main, make_console, parse
from s2sjax.errors import Interrupted, UserError
from s2sjax.experiment import Section
from s2sjax.metrics import HEADLINE
from s2sjax.pictures import Heat, heat_maps, share_by, step_curves
from s2sjax.probes import Shares, Written
from s2sjax.progress import EpochProgress, duration
from s2sjax.replicas import use_all_cores
from s2sjax.report import Picture, Table, provenance, quantity, write_report
from s2sjax.results import Results, load_results, series, values
from s2sjax.sensitivity import Look, can_look, deviation, lag_table, look, snapshots
from s2sjax.taskconfig import Addition, TaskConfig
from s2sjax.trained import Models, load, load_ablation
from s2sjax.verdicts import epochs_to, threshold_table

MOST_ARMS, MOST_LOOKS = 5, 2
"""Arms that are explained, and arms that are trained once more, unless they are chosen."""
MOST_CATEGORIES = 16
"""Beyond so many, a table by category says nothing."""
LONGER = 1_000
"""Questions with a digit more than was trained on."""
THRESHOLDS = (0.5, 0.9, 0.99)
SAME = 1e-3
"""Losses closer than this, relatively, are those of one run."""
MEANING = (
    "Norm of d(logit of the right symbol at an output step) / d(one-hot vector of the symbol at an "
    "input step): all entries of the vector count, at the symbols that were read; the right "
    "symbols before the output step are given. The mean over full-length dev questions whose "
    "answers are equally long. Inputs are in the order in which the arm reads them."
)


@dataclass(frozen=True)
class Explain:
    """What was asked for on the command line."""

    workdir: tyro.conf.Positional[Path]
    """Folder of a finished run."""
    arms: tuple[str, ...] = ()
    """Names of arms; the default is the run's first five, and for the gradients the first two."""
    exhaustive: bool = True
    """Ask every sum of two numbers of up to three digits."""
    gradients: bool = True
    """Train the first seed of the arms once more, to see what each output depends on."""


class Kind(NamedTuple):
    """Arms that were tested on the same questions, whose these are, and what the arms wrote."""

    task: TaskConfig
    written: dict[str, Written]

    @property
    def name(self) -> str:
        """The questions in words."""
        return self.task.questions


@dataclass(frozen=True)
class Finished:
    """A finished run: its folder, what it measured, and what it trained."""

    folder: Path
    results: Results
    models: Models

    @cached_property
    def kinds(self) -> list[Kind]:
        """The arms by the questions of their test sets, and what they answered to them."""
        models = self.models
        tests = {arm: [own["test"] for own in models.pairs(arm)] for arm in models.arms}
        found: list[Kind] = []
        for arm, written in probes.ask(models, tests).items():
            for kind in found:
                if next(iter(kind.written.values())).pairs == written.pairs:
                    kind.written[arm] = written
                    break
            else:
                found.append(Kind(models.arms[arm].task, {arm: written}))
        return found

    def suffix(self, kind: Kind) -> str:
        """What titles end in: the kind of questions, unless there is one alone."""
        return f", {kind.name}" if len(self.kinds) > 1 else ""

    def sums(self) -> Iterator[tuple[str, Addition, Models]]:
        """Kinds of questions that add or subtract: what titles end in, task, models of the arms."""
        for kind in self.kinds:
            if isinstance(kind.task, Addition):
                yield self.suffix(kind), kind.task, self.models.only(kind.written)


def finished(asked: Explain) -> Finished:
    """Load what was asked for; raises UserError where it is not there."""
    results, ablation = load_results(asked.workdir / "results.json"), load_ablation(asked.workdir)
    for arm in asked.arms:
        if arm not in ablation.arms:
            there = ", ".join(ablation.arms)
            raise UserError(f"{asked.workdir} has no arm {arm!r}; there are {there}")
    arms = asked.arms or [*ablation.arms][:MOST_ARMS]
    return Finished(asked.workdir, results, load(asked.workdir, arms))


# --- what is told, in order -------------------------------------------------------------------


def test_set(run: Finished) -> list[Section]:
    """Scores by what a question asks."""
    told: list[Section] = []
    for n, kind in enumerate(run.kinds):
        told += [
            f"## The test set: {kind.name}",
            probes.score_table(kind.written, _agreement(run, kind)),
        ]
        for name, (what, header, of) in _by_category(kind).items():
            path = run.folder / f"explain_{name}{f'_{n + 1}' if n else ''}.png"
            told += _shares(of, what + run.suffix(kind), header, path)
    return told


def _agreement(run: Finished, kind: Kind) -> str:
    """Whether the models score what the run's records say."""
    off = max(
        abs(float(right.mean()) - recorded)
        for arm, written in kind.written.items()
        for right, recorded in zip(written.right, values(run.results, arm, HEADLINE), strict=True)
    )
    if off < 1e-6:
        return "These are the scores in the run's records."
    more = quantity(off, HEADLINE, decimals=2)
    return f"WARNING: the run's records differ by up to {more}: other code, versions or hardware?"


def _by_category(kind: Kind) -> dict[str, tuple[str, str, dict[str, Shares]]]:
    """By name of its picture: title, what the categories are, and shares by arm."""

    def of(share: Callable[[Written], Shares]) -> dict[str, Shares]:
        return {arm: share(written) for arm, written in kind.written.items()}

    exact = "exact match, free-running"
    length = partial(probes.by, category=probes.answer_length)
    found = {"length": (f"By answer length: {exact}", "characters of the answer", of(length))}
    if isinstance(kind.task, Addition):
        operator = kind.task.operator
        chain = partial(probes.by, category=probes.carry_chain(operator))
        operands = partial(probes.by, category=probes.operand_lengths(operator))
        word = "carries" if operator == "+" else "borrows"
        found = {
            "carries": (f"By chain of {word}: {exact}", f"longest run of {word}", of(chain)),
            "operands": (f"By operand lengths: {exact}", "digits of the operands", of(operands)),
            **found,
            "places": ("By place: the right character", "place in the answer", of(probes.by_place)),
        }
    return found


def _shares(of: Mapping[str, Shares], title: str, header: str, path: Path) -> list[Section]:
    """A table and a picture, unless there is but one category, or too many."""
    counts = next(iter(of.values())).counts
    if not 1 < len(counts) <= MOST_CATEGORIES:
        return []
    share_by({arm: shares.shares for arm, shares in of.items()}, counts, path, title, header)
    return [probes.share_table(of, title, header), Picture(path, title)]


def edges(run: Finished) -> list[Section]:
    """The fixed set of sums."""
    told: list[Section] = []
    for of, task, models in run.sums():
        if (task.operator, task.terms) == ("+", 2):
            named = probes.edge_cases(task)
            written = probes.ask(models, models.same([*named.values()]))
            table = probes.edge_table(named, written)
            told.append(replace(table, title=table.title + of))
    return ["## Edge cases", *told] if told else []


def every_question(run: Finished, console: Console) -> list[Section]:
    """Every sum there is, trained on or not."""
    told: list[Section] = []
    for of, task, models in run.sums():
        if not probes.can_exhaust(task):
            continue
        trained_on = {
            arm: np.stack([probes.seen(task, own["train"]) for own in models.pairs(arm)])
            for arm in models.arms
        }
        n = next(iter(trained_on.values())).shape[1]
        with _bar(console, "asking every question", n) as advance:
            right = probes.ask_every(models, task, advance)
        table = probes.exhaustive_table(right, trained_on)
        told.append(replace(table, title=table.title + of))
    return ["## Every question", *told] if told else []


@contextmanager
def _bar(console: Console, what: str, of: int) -> Iterator[Callable[[int], None]]:
    """A bar with the time left on a terminal, else lines."""
    live = console.is_terminal and not console.is_dumb_terminal
    columns = (TextColumn(what), BarColumn(None), TimeRemainingColumn(), TextColumn("left"))
    with Progress(*columns, console=console, disable=not live, expand=True) as progress:
        task, started, told = progress.add_task("", total=of), progress.get_time(), of / 8

        def advance(done: int) -> None:
            nonlocal told
            progress.update(task, completed=done)
            if not live and done >= told:
                left = duration((progress.get_time() - started) / done * (of - done))
                console.print(f"{what}: {done:,} of {of:,}, {left} left", highlight=False)
                told = max(2 * told, done + 1)

        yield advance


def longer(run: Finished) -> list[Section]:
    """Numbers with a digit more than any trained on."""
    told: list[Section] = []
    for of, task, models in run.sums():
        wider, digits = models.relaid(probes.longer), task.digits + 1
        pairs = probes.longer_questions(replace(task, digits=digits), LONGER)
        written = probes.ask(wider, wider.same(pairs))
        shares = {arm: probes.overall(w) for arm, w in written.items()}
        lengths = partial(probes.by, category=probes.operand_lengths(task.operator))
        by_length = {arm: lengths(w) for arm, w in written.items()}
        if len(next(iter(by_length.values())).counts) <= MOST_CATEGORIES:
            shares = {arm: every.plus(by_length[arm]) for arm, every in shares.items()}
        title = f"Trained on {task.digits} digits, asked {digits}"
        note = "At least one operand has the new digit; rows are as wide as that takes."
        told += [
            probes.share_table(shares, f"{title}: exact match{of}", "digits of the operands", note),
            probes.share_table(
                {arm: probes.by_place(w) for arm, w in written.items()},
                f"{title}: the right character{of}",
                "place in the answer",
            ),
        ]
    return ["## A digit more", *told] if told else []


def learning(run: Finished) -> list[Section]:
    """When thresholds were reached."""
    arms = list(run.models.arms)
    path = run.folder / "explain_learning.png"
    told: list[Section] = ["## When", threshold_table(run.results, HEADLINE, THRESHOLDS, arms)]
    for threshold in reversed(THRESHOLDS):
        epochs = {arm: epochs_to(run.results, arm, HEADLINE, threshold) for arm in arms}
        if any(epoch is not None for seeds in epochs.values() for epoch in seeds.values()):
            last = max(_last_epoch(run, arm) for arm in arms)
            title = f"Epoch at which {quantity(threshold, HEADLINE, 0)} of dev answers were right"
            step_curves(epochs, last, path, title)
            return [*told, Picture(path, title)]
    return told


def _last_epoch(run: Finished, arm: str) -> int:
    return max(max(curve) for curve in series(run.results, arm, HEADLINE, "dev").values())


def gradients(run: Finished, console: Console, most: int) -> list[Section]:
    """What each output depends on, from the first weights to the last."""
    models = run.models
    groups = {arm: p.group for p in models.programs for arm in p.group.arms}
    arms = [arm for arm in models.arms if can_look(groups[arm], arm)][:most]
    looks: dict[str, Look] = {}
    for program in models.only(arms).programs:
        group = replace(program.group, seeds=1)
        last = max(_last_epoch(run, arm) for arm in group.arms)
        what = f"training a seed of {', '.join(group.arms)} once more, to look inside ..."
        console.print(what, soft_wrap=True, markup=False, highlight=False)
        with EpochProgress(console, 0, last) as progress:
            looks |= look(group, snapshots(last), lambda epoch: progress.advance(epoch, None))
    if not looks:
        return []
    looks = {arm: looks[arm] for arm in arms}
    asked = " or ".join(sorted({f"{of.questions}" for of in looks.values()}))
    note = f"mean over {asked} dev questions, one seed; u units, t tens, h hundreds, k thousands"
    pictures = []
    for name, what, change in (
        ("gradients", "norm of the gradient", lambda m: m),
        ("gradient_shares", "share of the output's norms", _shares_of_rows),
    ):
        panels = {
            arm: {f"epoch {e}": Heat(change(m), of.outputs, of.inputs) for e, m in of.norms.items()}
            for arm, of in looks.items()
        }
        pictures.append(Picture(run.folder / f"explain_{name}.png", f"Gradients: {what}"))
        title = "What each output depends on"
        heat_maps(panels, pictures[-1].path, title, what, note, log=name == "gradients")
    return ["## Gradients", MEANING, _same_run(run, looks), *pictures, lag_table(looks)]


def _shares_of_rows(matrix: np.ndarray) -> np.ndarray:
    return matrix / np.maximum(matrix.sum(axis=1, keepdims=True), np.finfo(np.float32).tiny)


def _same_run(run: Finished, looks: Mapping[str, Look]) -> str:
    """Whether what was looked into is the run whose scores are known."""
    off = {
        arm: deviation(of, series(run.results, arm, "epoch_loss", "train")[of.seed])
        for arm, of in looks.items()
    }
    arm = max(off, key=lambda arm: off[arm])
    if off[arm] < SAME:
        how = f"within {off[arm]:.0e}" if off[arm] else "to the last digit"
        return f"The run was made once more: its training losses equal the recorded ones {how}."
    return (
        f"WARNING: the run was made once more, but the losses of {arm} differ from the recorded "
        f"ones by up to {off[arm]:.1%}: other code, versions or hardware. What is shown is another "
        "run of the same config and seed."
    )


def worst(run: Finished) -> list[Section]:
    """The questions that are hardest for each arm."""
    told: list[Section] = ["## The worst questions"]
    for kind in run.kinds:
        models = run.models.only(kind.written)
        pairs = next(iter(kind.written.values())).pairs
        written, questions = kind.written, models.same(pairs[0])
        if any(own != pairs[0] for own in pairs):
            told.append("Test questions of the first seed; others may have trained on some.")
            written = probes.ask(models, questions)
        log_probs = models.force(questions)
        told += [
            probes.worst_table(arm, written[arm], log_probs[arm], models.seeds[0])
            for arm in models.arms
        ]
    return told


def explain() -> None:
    """Parse, load, probe, tell."""
    asked = parse(Explain, __doc__ or "")
    use_all_cores()
    console = make_console()
    run = finished(asked)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # bars give the cursor back
    try:
        told = [*test_set(run), *edges(run)]
        if asked.exhaustive:
            told += every_question(run, console)
        told += [*longer(run), *learning(run)]
        if asked.gradients:
            told += gradients(run, console, len(asked.arms) or MOST_LOOKS)
        told += worst(run)
    except KeyboardInterrupt:
        message = "stopped; explain.md was not written, and the same command starts again"
        raise Interrupted(message, signal.SIGINT) from None
    results, report = run.results, run.folder / "explain.md"
    of = f"{len(run.models.seeds)} seeds of {', '.join(run.models.arms)}"
    title = f"# Why: {results['experiment']}, {results['preset']}"
    write_report(report, [title, of, *told, provenance(results)])
    for section in told:
        if isinstance(section, Table):
            console.print(section.rich())
        elif isinstance(section, str):
            console.print(f"{section.lstrip('# ')}\n", highlight=False, markup=False)
    console.print(f"report and pictures: {report}", soft_wrap=True)


if __name__ == "__main__":
    main(explain)
