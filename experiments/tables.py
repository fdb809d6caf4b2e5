"""Update the tables and pictures of README.md and of all pages in experiments/.

    python experiments/tables.py          (or: make tables)

They are made from the committed results, ``experiments/results/EXPERIMENT.PRESET.json``. A table
stands between ``<!-- begin EXPERIMENT.PRESET.TABLE -->`` and ``<!-- end ... -->``; ``published``,
``claims`` and ``compute`` are about all results. A test checks that the pages are up to date.
"""

from terminal import main

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import addition_rnn
import attention
import calibration
import flax_seq2seq
import mechanisms
import peeky
import reverse_vs_forward
import translation

from s2sjax.cli import parse
from s2sjax.errors import UserError
from s2sjax.files import write_atomically
from s2sjax.report.claims import LATER, published_table
from s2sjax.report.results import Results, load_results
from s2sjax.report.tables import replace_blocks
from s2sjax.study.answer import compute_table
from s2sjax.study.experiment import Experiment

HERE = Path(__file__).parent
RESULTS = HERE / "results"
PAGES = (HERE.parent / "README.md", HERE / "README.md", *sorted(RESULTS.glob("*.md")))
SCRIPTS = (
    reverse_vs_forward,
    peeky,
    addition_rnn,
    mechanisms,
    flax_seq2seq,
    attention,
    translation,
    calibration,
)
EXPERIMENTS: Mapping[str, Experiment] = {s.EXPERIMENT.name: s.EXPERIMENT for s in SCRIPTS}


def presets() -> Iterator[tuple[str, Experiment, str]]:
    """Name, experiment and preset, in the order of the scripts."""
    for name, experiment in EXPERIMENTS.items():
        for preset in experiment.presets:
            yield f"{name}.{preset}", experiment, preset


def committed() -> dict[str, Results]:
    """Results by EXPERIMENT.PRESET, in the order of the scripts and their presets."""
    paths = {name: RESULTS / f"{name}.json" for name, *_ in presets()}
    found = {name: load_results(path) for name, path in paths.items() if path.exists()}
    for path in RESULTS.glob("*.json"):
        results = found.get(path.stem)
        if results is None or f"{results['experiment']}.{results['preset']}" != path.stem:
            raise UserError(f"{path} must be named EXPERIMENT.PRESET.json after what it holds")
    return found


def with_figures(held: Mapping[str, Results]) -> Iterator[tuple[Experiment, str, Results | None]]:
    """Presets that have results or published figures, and their results (None: none yet)."""
    for name, experiment, preset in presets():
        if name in held or experiment.published(preset):
            yield experiment, preset, held.get(name)


def blocks() -> dict[str, str]:
    """Every table of the committed results as Markdown, by name."""
    held = committed()
    made: dict[str, str] = {}
    for name, results in held.items():
        experiment = EXPERIMENTS[results["experiment"]]
        made[f"{name}.headline"] = experiment.headline(results)
        for table_name, table in experiment.tables(results).items():
            made[f"{name}.{table_name}"] = table.markdown()
    rows = [*with_figures(held)]
    figures = [(results, f) for e, preset, results in rows for f in e.published(preset)]
    first, *others = (
        addition_rnn.claims_table(experiment.ablation(preset).arms, results)
        for experiment, preset, results in rows
        if experiment is addition_rnn.EXPERIMENT
    )
    claims = replace(first, rows=sum((other.rows for other in others), first.rows))
    joined = {
        "published": published_table(figures),
        "claims": claims,
        "compute": compute_table({name.replace(".", ".py ", 1): r for name, r in held.items()}),
    }
    return made | {name: table.markdown() for name, table in joined.items()}


def filled(readme: str, known: Mapping[str, str]) -> str:
    """A page with its blocks replaced by those known; a preset without results says so."""
    wanted = set(re.findall(r"<!-- begin (\S+) -->", readme))
    missing = {name for name, *_ in presets() if f"{name}.headline" not in known}
    later = {block: LATER for block in wanted if block.rpartition(".")[0] in missing}
    if unknown := wanted - {*known, *later}:
        raise UserError(f"the page shows tables that no result has: {', '.join(sorted(unknown))}")
    return replace_blocks(readme, {name: (later | {**known})[name] for name in wanted})


def draw(readme: str) -> None:
    """Draw the pictures that a page shows."""
    for name, results in committed().items():
        picture = RESULTS / f"{name}.png"
        if picture.name in readme:
            EXPERIMENTS[results["experiment"]].draw_main_figure(results, picture)


@dataclass(frozen=True)
class Nothing:
    """The command line has no settings."""


def tables() -> None:
    """Update all pages."""
    parse(Nothing, __doc__ or "")
    known = blocks()
    for path in PAGES:
        text = path.read_text(encoding="utf-8")
        try:
            write_atomically(path, filled(text, known))
        except ValueError as error:
            raise UserError(f"{path}: {error}") from error
        draw(text)


if __name__ == "__main__":
    main(tables)
