"""Why: what a finished run gets wrong, when it learned the rest, which inputs matter.

The question: a score says how many answers are right. Which are wrong? Those with long chains of
carries, with long numbers; the first place or the last; questions never trained on; numbers longer
than any trained on? And which symbols of the question does each symbol of the answer depend on,
from the first weights to the last? Where numbers are added, has the encoder only remembered their
digits, or added them while it read?

The command: ``python experiments/explain.py runs/peeky/saitoh``. It takes the first five arms;
``--arms forward reversed`` chooses others. ``--no-exhaustive`` does not ask every question there
is, ``--no-gradients`` does not train a seed of two arms once more to compute gradients, and
``--no-probes`` does not train all their seeds once more to probe what the encoder knows.

Time: a minute, and what these three take: 7 minutes for the first two with peeky's five arms and
ten seeds on two CPU cores, half of it each. The gradients take what a seed of each arm took to
train, the probes what all seeds of two arms took.

What to expect: tables here, and explain.md with pictures in the run's folder. Parts that make no
sense for a task are left out: toy tasks have no carries.
"""

from terminal import main

import signal
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tyro
from rich.console import Console
from rich.progress import track

from s2sjax.analysis import gradients, knowledge, mistakes, probes
from s2sjax.cli import make_console, parse
from s2sjax.data.dataset import pairs_of, rows_of
from s2sjax.data.tasks import Addition, TaskConfig
from s2sjax.errors import Interrupted
from s2sjax.report.claims import epochs_to, prediction_table, threshold_table
from s2sjax.report.plots import Heat, heat_maps, shares_by_category, step_curves
from s2sjax.report.results import Results, load_results, series, values
from s2sjax.report.results import arms as names_of
from s2sjax.report.tables import Picture, Table, provenance, quantity, write_report
from s2sjax.study.experiment import Section
from s2sjax.study.group import Group
from s2sjax.train.metrics import EXACT_MATCH
from s2sjax.train.progress import EpochProgress
from s2sjax.train.replicas import use_all_cores
from s2sjax.train.trained import Trained

MOST_ARMS, MOST_PROBED = 5, 2  # unless arms are chosen: explained, and trained again
MOST_CATEGORIES = 16  # a longer table by category is left out
BLOCK = 8_192  # questions asked at once, where all are asked
LONGER = 1_000  # questions with one digit more than those trained on
THRESHOLDS = (0.5, 0.9, 0.99)
SAME = 1e-3  # relative difference of losses up to which two runs are called the same


@dataclass(frozen=True)
class Explain:
    """What was asked for on the command line."""

    workdir: tyro.conf.Positional[Path]  # Folder of a finished run
    arms: tuple[str, ...] = ()
    """Names of arms; the default is the run's first five, and for the gradients the first two."""
    exhaustive: bool = True  # Ask every sum of two numbers of up to three digits
    gradients: bool = True
    """Train the first seed of the arms once more, to see what each output depends on."""
    probes: bool = True
    """Train all seeds of two arms that add once more, to see what the encoder knows."""


class Kind(NamedTuple):
    """Arms that were tested on the same questions: their task, models, and answers."""

    task: TaskConfig
    trained: Trained
    answers: dict[str, mistakes.Answers]
    suffix: str  # the end of titles: the kind of questions, if there are several kinds


@dataclass(frozen=True)
class Finished:
    """A finished run: its folder, results and models."""

    folder: Path
    results: Results
    trained: Trained

    @cached_property
    def kinds(self) -> list[Kind]:
        """The arms, grouped by the questions of their test sets, and their answers."""
        arms, tests, together = self.trained.arms, {}, {}
        for arm, run in arms.items():
            splits = [rows_of(run.task, run.text, seed, "test") for seed in self.trained.seeds]
            tests[arm] = [list(split.pairs) for split in splits]
        for arm, answers in mistakes.ask(self.trained, tests).items():
            together.setdefault(tuple(map(tuple, answers.pairs)), {})[arm] = answers
        kinds = []
        for answers in together.values():
            task = arms[next(iter(answers))].task
            suffix = f", {task.questions}" if len(together) > 1 else ""
            kinds.append(Kind(task, self.trained.only(answers), answers, suffix))
        return kinds

    def about_sums(
        self, heading: str, tables: Callable[[Addition, Trained], Sequence[Table]]
    ) -> list[Section]:
        """A heading and tables of each kind of sums and differences; nothing if there is none."""
        sections = [
            replace(table, title=table.title + suffix)
            for task, trained, _, suffix in self.kinds
            if isinstance(task, Addition)
            for table in tables(task, trained)
        ]
        return [heading, *sections] if sections else []


def test_set(run: Finished) -> list[Section]:
    """Scores by what a question asks."""
    sections: list[Section] = []
    for n, kind in enumerate(run.kinds, start=1):
        table = mistakes.exact_match_table(kind.answers, _agreement(run, kind))
        sections += [f"## The test set: {kind.task.questions}", table]
        for name, title, header, of in _by_category(kind):
            counts = {category: count for category, (_, count) in next(iter(of.values())).items()}
            if 1 < len(counts) <= MOST_CATEGORIES:
                title += kind.suffix
                path = run.folder / f"explain_{name}{f'_{n}' if n > 1 else ''}.png"
                seeds = {a: {c: share.seeds for c, share in own.items()} for a, own in of.items()}
                shares_by_category(seeds, counts, path, title, header)
                sections += [mistakes.share_table(of, title, header), Picture(path, title)]
    return sections


def _agreement(run: Finished, kind: Kind) -> str:
    """Whether the models have the scores that the run recorded."""
    off = max(
        abs(float(right.mean()) - recorded)
        for arm, answers in kind.answers.items()
        for right, recorded in zip(
            answers.right, values(run.results, arm, EXACT_MATCH), strict=True
        )
    )
    if off < 1e-6:
        return "These are the scores in the run's records."
    more = quantity(off, EXACT_MATCH, decimals=2)
    return f"WARNING: the run's records differ by up to {more}: other code, versions or hardware?"


def _by_category(kind: Kind) -> Iterator[tuple[str, str, str, dict[str, mistakes.Shares]]]:
    """Name of the picture, title, what the categories are, and shares by arm."""

    def by(category: Callable[[str, str], mistakes.Category]) -> dict[str, mistakes.Shares]:
        return {arm: mistakes.shares_by(own, category) for arm, own in kind.answers.items()}

    exact = "exact match, free-running"
    if isinstance(kind.task, Addition):
        word, chains = "carries" if kind.task.operator == "+" else "borrows", by(mistakes.carries)
        yield "carries", f"By chain of {word}: {exact}", f"longest run of {word}", chains
        lengths = by(mistakes.operand_lengths)
        yield "operands", f"By operand lengths: {exact}", "digits of the operands", lengths
    lengths = by(lambda question, gold: len(gold))
    yield "length", f"By answer length: {exact}", "characters of the answer", lengths
    if isinstance(kind.task, Addition):
        places = {arm: mistakes.shares_by_place(own) for arm, own in kind.answers.items()}
        yield "places", "By place: the right character", "place in the answer", places


def edges(task: Addition, trained: Trained) -> list[Table]:
    """The fixed set of extreme sums."""
    if (task.operator, task.terms) != ("+", 2):
        return []
    cases = mistakes.edge_cases(task)
    return [mistakes.edge_table(cases, mistakes.ask(trained, trained.same([*cases.values()])))]


def every_sum(task: Addition, trained: Trained, console: Console) -> list[Table]:
    """All sums, whether trained on or not."""
    pairs, trained_on = mistakes.all_sums(task), {}
    if not pairs:
        return []
    for arm, own in trained.arms.items():
        train = [pairs_of(own.task, seed)["train"] for seed in trained.seeds]
        trained_on[arm] = np.stack([mistakes.which_sums(pairs, [*of_seed]) for of_seed in train])
    console.print(f"asking all {len(pairs):,} {task.questions} ...", highlight=False)
    blocks = [pairs[i : i + BLOCK] for i in range(0, len(pairs), BLOCK)]
    shown = track(blocks, "", console=console, disable=not console.is_interactive)
    return [mistakes.all_sums_table(mistakes.ask_in_blocks(trained, shown), trained_on)]


def longer_numbers(task: Addition, trained: Trained) -> list[Table]:
    """Numbers with a digit more than any trained on."""
    more, wider = mistakes.with_longer_numbers(task), mistakes.widened(trained)
    pairs = mistakes.longer_questions(more, LONGER)
    shares, places = {}, {}
    for arm, answers in mistakes.ask(wider, wider.same(pairs)).items():
        by_length = mistakes.shares_by(answers, mistakes.operand_lengths)
        few = len(by_length) <= MOST_CATEGORIES
        shares[arm] = {**mistakes.overall(answers), **(by_length if few else {})}
        places[arm] = mistakes.shares_by_place(answers)
    title = f"Trained on {task.digits} digits, asked {more.digits}"
    note = "At least one operand has the new digit; rows are as wide as that takes."
    return [
        mistakes.share_table(shares, f"{title}: exact match", "digits of the operands", note),
        mistakes.share_table(places, f"{title}: the right character", "place in the answer"),
    ]


def learning(run: Finished) -> list[Section]:
    """When each arm reached each threshold."""
    arms = list(run.trained.arms)
    sections: list[Section] = [
        "## When",
        threshold_table(run.results, EXACT_MATCH, THRESHOLDS, arms),
    ]
    for threshold in reversed(THRESHOLDS):
        epochs = {arm: epochs_to(run.results, arm, EXACT_MATCH, threshold) for arm in arms}
        if any(epoch is not None for seeds in epochs.values() for epoch in seeds.values()):
            title = (
                f"Epoch at which {quantity(threshold, EXACT_MATCH, 0)} of dev answers were right"
            )
            picture = Picture(run.folder / "explain_learning.png", title)
            step_curves(epochs, _last_epoch(run, arms), picture.path, title)
            return [*sections, picture]
    return sections


def _last_epoch(run: Finished, arms: Iterable[str]) -> int:
    curves = [series(run.results, arm, EXACT_MATCH, "dev") for arm in arms]
    return max(max(curve) for seeds in curves for curve in seeds.values())


def depends_on(run: Finished, console: Console, most: int) -> list[Section]:
    """The inputs that each output depends on, from the first weights to the last."""
    trained, seed = run.trained, run.trained.seeds[0]
    alone = {arm: Group({arm: own}, 1, seed) for arm, own in trained.arms.items()}
    arms = [arm for arm, group in alone.items() if gradients.questions_of(group, arm)][:most]
    probed: dict[str, gradients.Gradients] = {}
    for stack in trained.only(arms).stacks:
        group = Group(stack.runs, 1, seed)
        last = _last_epoch(run, group.arms)
        what = f"training a seed of {', '.join(group.arms)} once more, for its gradients ..."
        console.print(what, soft_wrap=True, highlight=False)
        with EpochProgress(console, 0, last) as progress:
            at = gradients.snapshots(last)
            probed |= gradients.probe(group, at, lambda epoch: progress.advance(epoch, None))
    if not probed:
        return []
    probed = {arm: probed[arm] for arm in arms}
    asked = " or ".join(sorted({f"{of.questions}" for of in probed.values()}))
    note = f"mean over {asked} dev questions, one seed; u units, t tens, h hundreds, k thousands"
    losses = ((arm, of.seed, of.losses) for arm, of in probed.items())
    sections: list[Section] = ["## Gradients", gradients.MEANING, _same_run(run, losses)]
    shares = "share of the output's norms"
    pictures = {"gradients": "norm of the gradient", "gradient_shares": shares}
    for name, what in pictures.items():
        log, panels = name == "gradients", {}
        for arm, of in probed.items():
            heats = {e: m if log else m / (m.sum(1)[:, None] + 1e-30) for e, m in of.norms.items()}
            panels[arm] = {f"epoch {e}": Heat(m, of.outputs, of.inputs) for e, m in heats.items()}
        picture = Picture(run.folder / f"explain_{name}.png", f"Gradients: {what}")
        heat_maps(panels, picture.path, "What each output depends on", what, note, log=log)
        sections.append(picture)
    return [*sections, gradients.lag_table(probed)]


def _same_run(run: Finished, made: Iterable[tuple[str, int, Mapping[int, float]]]) -> str:
    """Whether training again, arms and seeds with these losses, gave the same run."""
    off, arm = max(
        (gradients.deviation(losses, series(run.results, arm, "epoch_loss", "train")[seed]), arm)
        for arm, seed, losses in made
    )
    if off < SAME:
        how = f"within {off:.0e}" if off else "to the last digit"
        return f"The run was made once more: its training losses equal the recorded ones {how}."
    return (
        f"WARNING: the run was made once more, but the losses of {arm} differ from the recorded "
        f"ones by up to {off:.1%}: other code, versions or hardware. This is another run, then."
    )


def knows(run: Finished, console: Console, most: int) -> list[Section]:
    """What linear probes read from the encoder's last state, from the first weights to the last."""
    trained, seeds = run.trained, run.trained.seeds
    alone = {arm: Group({arm: own}, 1, seeds[0]) for arm, own in trained.arms.items()}
    arms = [arm for arm, group in alone.items() if probes.can_probe(group, arm)]
    arms = [a for a in arms if alone[a].run.task.questions == alone[arms[0]].run.task.questions]
    arms = arms[:most]
    if len(arms) < 2:
        return []
    records = []
    for stack in trained.only(arms).stacks:
        group, last = Group(stack.runs, len(seeds), seeds[0]), _last_epoch(run, stack.runs)
        what = f"training all seeds of {', '.join(group.arms)} once more, for the probes ..."
        console.print(what, soft_wrap=True, highlight=False)
        with EpochProgress(console, 0, last) as progress:
            at = gradients.snapshots(last)
            records += probes.probe(group, at, lambda epoch: progress.advance(epoch, None))
    probed = {"records": records}
    losses = [
        (arm, seed, curve)
        for arm in arms
        for seed, curve in series(probed, arm, "epoch_loss", "train").items()
    ]
    title = "What the encoder knows"
    picture = Picture(run.folder / "explain_probes.png", f"{title}: read by linear probes")
    heat_maps(knowledge.heats(probed, arms), picture.path, title, *knowledge.SCALE, sides=("", ""))
    tables = [knowledge.state_table(probed, arm, arms[0]) for arm in arms[1:]]
    orders = {trained.arms[arm].text.source_order: arm for arm in reversed(arms)}
    if {*orders} >= {"forward", "reversed"}:
        predicted = knowledge.predictions(orders["forward"], orders["reversed"])
        tables.append(prediction_table(probed, knowledge.measured(probed, predicted)))
    if swaps := knowledge.swap_table(probed, arms):
        tables.append(swaps)
    return [f"## {title}", knowledge.MEANING, _same_run(run, losses), picture, *tables]


def worst(run: Finished) -> list[Section]:
    """The questions that are hardest for each arm."""
    sections: list[Section] = ["## The worst questions"]
    for _, trained, answers, _ in run.kinds:
        pairs, *others = next(iter(answers.values())).pairs
        if any(own != pairs for own in others):
            sections.append("Test questions of the first seed; others may have trained on some.")
            answers = mistakes.ask(trained, trained.same(pairs))
        for arm, (log_probs, *_) in trained.score(pairs).items():
            seed, own = trained.seeds[0], answers[arm]
            sections.append(mistakes.worst_table(arm, own, log_probs, seed))
    return sections


def explain() -> None:
    """Parse, load, ask, report."""
    asked = parse(Explain, __doc__ or "")
    use_all_cores()
    console, results = make_console(), load_results(asked.workdir / "results.json")
    trained = Trained.load(asked.workdir, asked.arms or names_of(results))
    trained = trained.only(asked.arms or [*trained.arms][:MOST_ARMS])
    run = Finished(asked.workdir, results, trained)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # bars give the cursor back
    try:
        sections = [*test_set(run), *run.about_sums("## Edge cases", edges)]
        if asked.exhaustive:
            every = partial(every_sum, console=console)
            sections += run.about_sums("## Every question", every)
        sections += [*run.about_sums("## A digit more", longer_numbers), *learning(run)]
        if asked.gradients:
            sections += depends_on(run, console, len(asked.arms) or MOST_PROBED)
        if asked.probes:
            sections += knows(run, console, len(asked.arms) or MOST_PROBED)
        sections += worst(run)
    except KeyboardInterrupt:
        why = "stopped; explain.md was not written, and the same command starts again"
        raise Interrupted(why, signal.SIGINT) from None
    report = run.folder / "explain.md"
    of = f"{len(trained.seeds)} seeds of {', '.join(trained.arms)}"
    title = f"# Why: {results['experiment']}, {results['preset']}"
    write_report(report, [title, of, *sections, provenance(results)])
    for section in sections:
        if isinstance(section, Table):
            console.print(section.rich())
        elif isinstance(section, str):
            console.print(f"{section.lstrip('# ')}\n", highlight=False)
    console.print(f"report and pictures: {report}", soft_wrap=True)


if __name__ == "__main__":
    main(explain)
