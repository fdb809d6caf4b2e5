"""What every experiment script does: read the command line, plan, run, report."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from s2sjax.ablation import Ablation, run
from s2sjax.cli import Study, make_console, parse_study
from s2sjax.config import Run
from s2sjax.errors import UserError
from s2sjax.plan import parameter_table, plan_table, program_table
from s2sjax.progress import duration
from s2sjax.replicas import use_all_cores
from s2sjax.report import Picture, Table, provenance, write_report
from s2sjax.results import Results
from s2sjax.runlog import Workdir
from s2sjax.serial import from_json
from s2sjax.taskconfig import Addition
from s2sjax.tasks.questions import file_hash
from s2sjax.verdicts import Published

Section = str | Table | Picture


@dataclass(frozen=True)
class Experiment:
    """A question, its arms, and how its answer is told.

    Attributes:
        name: of the script; the default workdir is runs/NAME/PRESET.
        description: what ``--help`` opens with.
        presets: by name, what it is and its settings.
        arms: a preset's name and its study to the arms, by name.
        pairs: the same to the pairs (a, b) of arms to compare, a with b.
        metrics: test metrics on which they are compared.
        headline: results to the answer in a sentence or two.
        tables: results to the tables of the answer, by name.
        cover: draws the one picture that tells the story; stands beside committed results.
        draw: draws every picture to a folder.
        sections: the report under its headline, in order; None: all tables, then all pictures.
        published: a preset's name to the figures that its results are held against; see `figures`.
        any_file: they are also about the preset's runs on a file of questions.
    """

    name: str
    description: str
    presets: Mapping[str, tuple[str, Study]]
    arms: Callable[[str, Study], Mapping[str, Run]]
    pairs: Callable[[str, Study], Sequence[tuple[str, str]]]
    metrics: Sequence[str]
    headline: Callable[[Results], str]
    tables: Callable[[Results], Mapping[str, Table]]
    cover: Callable[[Results, Path], None]
    draw: Callable[[Results, Path], Sequence[Picture]]
    sections: Callable[[Results, Sequence[Picture]], Sequence[Section]] | None = None
    published: Callable[[str], Sequence[Published]] = lambda _: ()
    any_file: bool = False

    def ablation(self, preset: str, study: Study | None = None) -> Ablation:
        """Arms and seeds of a study, its file pinned; of the preset's own where none is given."""
        study = self.presets[preset][1] if study is None else study
        return Ablation(self.arms(preset, _pinned(study)), study.seeds, study.first_seed)

    def figures(self, results: Results) -> list[Published]:
        """The published figures that results are held against: none where an arm was changed."""
        return [*self.published(results["preset"])] if self.unchanged(results) else []

    def unchanged(self, results: Results) -> bool:
        """Whether results are of their preset's own arms; which seeds does not matter."""
        ran = {arm: from_json(Run, run) for arm, run in results["config"]["arms"].items()}
        if self.any_file:
            ran = {arm: _without_file(run) for arm, run in ran.items()}
        return ran == self.ablation(results["preset"]).arms

    def report(self, results: Results, folder: Path) -> Sequence[Section]:
        """What stands under the headline; its pictures are drawn to the folder."""
        pictures = self.draw(results, folder)
        if self.sections is not None:
            return self.sections(results, pictures)
        return [*self.tables(results).values(), *pictures]

    def run(self) -> None:
        """Parse, run, report."""
        preset, study, folder = parse_study(self.name, self.description, self.presets)
        use_all_cores()
        console = make_console()
        ablation = self.ablation(preset, study)
        config = {"experiment": self.name, "preset": preset, **ablation.config}
        with Workdir(folder, config) as workdir:
            for table in (parameter_table, plan_table, program_table):
                console.print(table(ablation).rich())
            pairs = self.pairs(preset, study)
            results = run(self.name, preset, ablation, workdir, console, self.metrics, pairs)
            console.print("drawing ...")
            title = f"# {self.name}, {preset}"
            answer, told = self.headline(results), self.report(results, folder)
            made = f"{provenance(results)} It took {duration(results.get('seconds', 0))}."
            write_report(folder / "report.md", [title, answer, *told, made])
            for section in told:
                if isinstance(section, Table):
                    console.print(section.rich())
                elif isinstance(section, str):
                    console.print(section, highlight=False)
                    console.print()
            console.print(answer, style="bold", highlight=False)
            console.print(f"report and pictures: {folder / 'report.md'}", soft_wrap=True)


def _pinned(study: Study) -> Study:
    """A study with the hash of its file of questions, so that a run goes on with that one only."""
    task = study.run.task
    if not isinstance(task, Addition) or task.file is None:
        return study
    return replace(study, run=replace(study.run, task=replace(task, sha256=file_hash(task.file))))


def _without_file(run: Run) -> Run:
    """The same run on questions drawn by their recipe."""
    if not isinstance(run.task, Addition):
        return run
    return replace(run, task=replace(run.task, file=None, sha256=None))


def refuse_changed(asked: Run, own: Run, *settings: str) -> None:
    """Raise UserError where a setting differs from the preset's that each of its arms sets itself.

    Args:
        asked: what was asked for.
        own: the preset's.
        settings: such as "train.epochs".
    """
    for setting in settings:
        part, name = setting.split(".")
        given, kept = (getattr(getattr(run, part), name) for run in (asked, own))
        if given != kept:
            where = f"{type(getattr(own, part)).__name__}.{name}"
            raise UserError(f"{where} is set by the arms of this preset, so it cannot be {given}")
