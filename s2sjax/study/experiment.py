"""What every experiment script does: read the command line, show the plan, run, report.

A report has a headline, tables and pictures. An experiment declares what they show; one that has
more to show overrides `headline`, `tables`, `draw` or `draw_main_figure`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Annotated, Literal

import tyro
from rich.console import Console

from s2sjax.cli import make_console, parse_preset
from s2sjax.data.addition import Addition
from s2sjax.data.sentences import Sentences
from s2sjax.errors import UserError
from s2sjax.report import claims, tables
from s2sjax.report.plots import Contrast, forest, learning_curves, scores_by_arm
from s2sjax.report.results import Results, series, values
from s2sjax.report.results import arms as names_of
from s2sjax.report.stats import caution
from s2sjax.report.tables import Picture, Table, metric_name
from s2sjax.serial import from_json
from s2sjax.study.ablation import Ablation, is_extension, run
from s2sjax.study.answer import alignments, gains_table
from s2sjax.study.plan import pairs_table, parameter_table, plan_table, program_table
from s2sjax.train.metrics import EXACT_MATCH
from s2sjax.train.processes import Distributed, leads
from s2sjax.train.progress import duration
from s2sjax.train.replicas import make_mesh, use_all_cores
from s2sjax.train.run import Run
from s2sjax.train.stopping import stop_requests
from s2sjax.train.workdir import open_workdir

Section = str | Table | Picture
Kind = Literal["curves", "scores", "contrasts"]
MOST_CURVES = 16  # more arms than this are too many for a picture of learning curves
MOST_COLUMNS = 18  # wider tables are in the report only, not on the terminal


@dataclass(frozen=True)
class Study:
    """A run and the seeds it is repeated with."""

    run: Annotated[Run, tyro.conf.arg(name="")] = field(default_factory=Run)
    seeds: int = 10
    """Paired seeds: how often every arm is run. A finished workdir can be given more of them."""
    first_seed: int = 0
    """Seeds count up from here. Another one means other weights and training questions."""


@dataclass(frozen=True)
class Command:
    """The command line."""

    preset: tyro.conf.Suppress[str]
    study: Annotated[Study, tyro.conf.arg(name="")]
    workdir: Path | None = None
    """Folder of the run; the default is runs/EXPERIMENT/PRESET. The same command resumes it."""
    devices_per_replica: int | None = None
    """Devices that share the batches of a replica: by default one on CPUs, else as many as are
    left. Results depend on it in last digits."""
    distributed: Annotated[Distributed, tyro.conf.arg(name="")] = field(default_factory=Distributed)


@dataclass(frozen=True)
class Experiment:
    """A question, its arms, and what its report shows.

    Functions with one argument of type str are given the name of a preset.
    """

    name: str  # of the script
    description: str  # the beginning of --help
    presets: Mapping[str, tuple[str, Study]]  # by name: a description, and the settings
    arms: Callable[[str, Study], Mapping[str, Run]]  # of a preset, with these settings
    pairs: Callable[[str], Sequence[tuple[str, str]]]  # arms (a, b) to compare, a with b
    metrics: Sequence[str] = ("loss", EXACT_MATCH)  # of the test set, to compare them by
    scores: Mapping[str, str] = field(default_factory=lambda: {"whole answers": EXACT_MATCH})
    """Columns of the table of scores, ``{header: metric}``."""
    primary: str = EXACT_MATCH  # the metric that the answer is about
    meaning: str = "Whole answers right, free-running"  # this metric in words
    named: Sequence[str] = ()  # arms in the headline; if empty, all
    curve: str | None = None  # metric of learning curves and thresholds; None: the primary one
    thresholds: Sequence[float] = ()  # a table shows when each arm reached these values
    predictions: Callable[[str], Mapping[str, Sequence[claims.Prediction]]] = lambda _: {}
    """What was predicted of the arms, by heading."""
    published: Callable[[str], Sequence[claims.Published]] = lambda _: ()  # see `figures`
    any_file: bool = False  # whether published figures are also about runs on other files
    floors: Callable[[Results], Mapping[str, Mapping[str, float]]] = lambda _: {}
    """Scores of predictors with little knowledge, ``{predictor: {metric: value}}``."""
    gains: Callable[[str], Mapping[str, tuple[str, str]]] = lambda _: {}
    """Pairs (a, b) by name. The headline, a table and a picture show the differences a - b."""
    gain: str = "reversed − forward"  # these differences in words
    picture: Kind = "curves"  # the one beside committed results, and the first of a report
    prepare: Callable[[str, Study], None] = lambda preset, study: None  # called before all else

    def ablation(self, preset: str, study: Study | None = None) -> Ablation:
        """The arms and seeds of a study, its files pinned; None: the preset's own study."""
        study = self.presets[preset][1] if study is None else study
        study = replace(study, run=study.run.pinned())
        return Ablation(self.arms(preset, study), study.seeds, study.first_seed)

    def suited(self, run: Run) -> "Experiment":
        """The same, about exact match where BLEU, of four words in a row, has little to count.

        That is where most targets have fewer than four words.
        """
        if self.primary != "BLEU" or not isinstance(run.task, Sentences):
            return self
        targets = (target for _, target in run.task.corpus().splits["test"])
        if median(len(run.formatter.reference(target).split()) for target in targets) >= 4:
            return self
        leading = {"exact": EXACT_MATCH, "symbol errors": "symbol_error_rate"}
        return replace(
            self,
            primary=EXACT_MATCH,
            meaning=Experiment.meaning,
            metrics=[*dict.fromkeys((*leading.values(), *self.metrics))],
            scores=leading | dict(self.scores),
            predictions=lambda _: {},  # which are about BLEU
        )

    def figures(self, results: Results) -> list[claims.Published]:
        """The published figures to compare results with: none if an arm was changed."""
        preset = results["preset"]
        ran, own = runs_of(results), self.arms(preset, self.presets[preset][1])
        if self.any_file:
            ran, own = ({arm: _without_files(r) for arm, r in arms.items()} for arms in (ran, own))
        return [*self.published(preset)] if ran == own else []

    def predicted(self, results: Results) -> list[claims.Prediction]:
        """All predictions about the arms of results."""
        return [p for of in self.predictions(results["preset"]).values() for p in of]

    def headline(self, results: Results) -> str:
        """The answer in a sentence or two."""
        preset, metric, arms = results["preset"], self.primary, names_of(results)

        def gap(a: str, b: str) -> str:
            c = claims.paired(results, a, b, metric)
            return tables.difference(c.mean_difference, c.ci95, metric)

        what, shown, said = "", [], [arm for arm in self.named or arms if arm in arms]
        if gains := self.gains(preset):
            n = min(claims.paired(results, a, b, metric).n for a, b in gains.values())
            ends = "" if caution(n) else " [95 % interval]"
            what = f"{self.gain}{ends}, {n} paired seeds"
            shown = [f"{name} {gap(a, b)}" for name, (a, b) in gains.items()]
        elif said:
            what = f"mean of {len(values(results, said[0], metric))} seeds [95 % interval]"
            shown = [f"{arm} {tables.score(values(results, arm, metric), metric)}" for arm in said]
            if len(pairs := self.pairs(preset)) == 1:
                shown += [f"{a} − {b} {gap(a, b)}" for a, b in pairs]
        parts = [f"{self.meaning}, {what}: {'; '.join(shown)}."] if shown else []
        if predicted := self.predicted(results):
            verdicts = [judged.verdict for judged in claims.judge(results, predicted)]
            counts = ", ".join(f"{verdicts.count(v)} {v}" for v in ("held", "failed", "open"))
            parts.append(f"Of {len(predicted)} predictions: {counts}.")
        return " ".join(parts)

    def tables(self, results: Results) -> dict[str, Table]:
        """The tables of the report, by name."""
        made: dict[str, Table] = {}
        if figures := self.figures(results):
            made["published"] = claims.published_table([(results, f) for f in figures])
        if predicted := self.predicted(results):
            made["predictions"] = claims.prediction_table(results, predicted)
        floors = [(f"floor: {who}", known) for who, known in self.floors(results).items()]
        test = tables.score_table(results, self.scores, floors)
        made["scores"] = replace(test, title="Scores on the test set")
        made["paired"] = replace(tables.comparison_table(results), title="What each change does")
        if any((r["split"], r["metric"]) == ("train", "loss") for r in results["records"]):
            train = tables.score_table(results, self.scores, split="train")
            made["fit"] = replace(train, title="The same scores on the training set")
        if gains := self.gains(results["preset"]):
            title = f"What is left of the gain, {metric_name(self.primary)}"
            made["left"] = gains_table(results, gains, self.primary, title, self.gain)
        if self.thresholds:
            curve, arms = self.curve or self.primary, names_of(results)
            made["thresholds"] = claims.threshold_table(results, curve, self.thresholds, arms)
        return made | {"seeds": tables.per_seed_table(results, self.primary)}

    def draw_main_figure(self, results: Results, path: Path) -> None:
        """Draw the picture that is shown with committed results."""
        self._draw(self.picture, results, path)

    def draw(self, results: Results, folder: Path) -> list[Picture]:
        """Draw all pictures of the report to a folder."""
        curve, arms = self.curve or self.primary, names_of(results)
        epochs = next(iter(series(results, arms[0], curve, "dev").values()))
        captions: dict[Kind, str] = {
            "curves": f"{metric_name(curve)}, dev set, while training",
            "scores": f"{metric_name(self.primary)}, test set, every arm and seed",
            "contrasts": "What each change does, every pair and seed",
        }
        if len(epochs) < 2 or len(arms) > MOST_CURVES:
            del captions["curves"]
        drawn = []
        for kind in sorted(captions, key=lambda kind: kind != self.picture):
            path = folder / f"{kind}.png"
            self._draw(kind, results, path)
            drawn.append(Picture(path, captions[kind]))
        return drawn + alignments(results, folder)

    def _draw(self, kind: Kind, results: Results, path: Path) -> None:
        preset, curve = results["preset"], self.curve or self.primary
        metric = curve if kind == "curves" else self.primary
        floors = {who: known[metric] for who, known in self.floors(results).items()}
        if kind == "curves":
            figures = [p for p in self.figures(results) if p.metric == metric and p.epoch is None]
            ends = {p.arm: p.value for p in figures if p.value is not None}
            learning_curves(results, metric, floors, path, ends)
        elif kind == "scores":
            gains = {name: [b, a] for name, (a, b) in self.gains(preset).items()}
            scores_by_arm(results, metric, path, gains or {"": names_of(results)}, floors)
        else:
            rows = [Contrast(f"{a} {tables.MINUS} {b}", a, b) for a, b in self.pairs(preset)]
            if predicted := self.predicted(results):
                headings = [h for h, of in self.predictions(preset).items() for _ in of]
                judged = zip(predicted, claims.judge(results, predicted), headings, strict=True)
                rows = [Contrast(p.claim, p.a, p.b, j.verdict, under) for p, j, under in judged]
            forest(results, rows, metric, path)

    def run(self) -> None:
        """Read ``PRESET [--setting value ...]`` from the command line, run, and report."""
        commands = {n: (what, Command(n, study)) for n, (what, study) in self.presets.items()}
        command = parse_preset(self.description, commands)
        preset, study = command.preset, command.study
        folder = command.workdir or Path("runs") / self.name / preset
        command.distributed.join()
        use_all_cores()
        make_mesh(1, command.devices_per_replica)  # refuses too many before anything is written
        console = make_console(quiet=not leads())
        with stop_requests() as stop:
            self.prepare(preset, study)
            ablation = self.ablation(preset, study)
            ablation = replace(ablation, devices_per_replica=command.devices_per_replica)
            config = {"experiment": self.name, "preset": preset, **ablation.config}
            with open_workdir(folder, config, is_extension) as workdir:
                for table in (pairs_table, parameter_table, plan_table, program_table):
                    if (made := table(ablation)) is not None:
                        console.print(made.rich())
                suited = self.suited(ablation.run)
                compared = suited.metrics, self.pairs(preset)
                results = run(self.name, preset, ablation, workdir, console, *compared, stop)
                if not leads():
                    return
                console.print("drawing ...")
                suited.write_report(results, folder, console)

    def write_report(self, results: Results, folder: Path, console: Console) -> None:
        """Write the report and its pictures, and print it.

        It says which arms and seeds were left out, and why. Where arms were, it shows the others'
        scores alone: what is told of arms by name would miss them.
        """
        sections: list[Section]
        left_out = results.get("left_out", {})
        answer = "; ".join(f"left out: {what} ({why})" for what, why in left_out.items())
        if {*left_out} & {*runs_of(results)}:
            sections = [
                tables.score_table(results, self.scores),
                tables.comparison_table(results),
                tables.per_seed_table(results, self.primary),
            ]
        else:
            pictures = self.draw(results, folder)
            answer = "; ".join(filter(None, [self.headline(results), answer]))
            sections = [*self.tables(results).values(), *pictures]
        title = f"# {self.name}, {results['preset']}"
        made = f"{tables.provenance(results)} It took {duration(results.get('seconds', 0))}."
        tables.write_report(folder / "report.md", [title, answer, *sections, made])
        for section in sections:
            if isinstance(section, Table) and len(section.headers) <= MOST_COLUMNS:
                console.print(section.rich())
        console.print(answer, style="bold", highlight=False)
        console.print(f"report and pictures: {folder / 'report.md'}", soft_wrap=True)


def runs_of(results: Results) -> dict[str, Run]:
    """The settings of every arm; unlike those of an `Ablation`, they need no files."""
    return {arm: from_json(Run, run, arm) for arm, run in results["config"]["arms"].items()}


def _without_files(run: Run) -> Run:
    """The same run, whichever files its pairs are from."""
    if isinstance(run.task, Addition):
        return replace(run, task=replace(run.task, file=None, sha256=None))
    return replace(run, task=Sentences()) if isinstance(run.task, Sentences) else run


def refuse_changed(asked: Run, own: Run, *settings: str) -> None:
    """Raise UserError if one of some settings, such as "train.epochs", is not the preset's own.

    These settings are set by every arm, so a value from the command line would be lost.
    """
    for setting in settings:
        part, name = setting.split(".")
        given, kept = (getattr(getattr(run, part), name) for run in (asked, own))
        if given != kept:
            where = f"{type(getattr(own, part)).__name__}.{name}"
            raise UserError(f"{where} is set by the arms of this preset, so it cannot be {given}")
