"""Write the tables of the READMEs and their pictures anew from the committed results.

    python experiments/tables.py          (or: make tables)

A table stands between ``<!-- begin NAME -->`` and ``<!-- end NAME -->`` in README.md or in
experiments/README.md, NAME being EXPERIMENT.PRESET.TABLE; a test holds it equal to
``experiments/results/EXPERIMENT.PRESET.json``. (Of sentence pairs it is translate.CORPUS.TABLE.)
Three tables join all results: ``published`` and ``claims``, in which a preset without results is
"not run yet", and ``compute``.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import addition_rnn
import attention
import flax_seq2seq
import mechanisms
import peeky
import reverse_vs_forward
import translate

from s2sjax.cli import main, parse
from s2sjax.errors import UserError
from s2sjax.experiment import Experiment
from s2sjax.files import read_json, write_atomically
from s2sjax.progress import duration
from s2sjax.report import Table, replace_blocks
from s2sjax.results import Results, arms, load_results
from s2sjax.verdicts import published_table

HERE = Path(__file__).parent
RESULTS = HERE / "results"
READMES = (HERE.parent / "README.md", HERE / "README.md")
SCRIPTS = (reverse_vs_forward, peeky, addition_rnn, mechanisms, flax_seq2seq, attention)
EXPERIMENTS: Mapping[str, Experiment] = {s.EXPERIMENT.name: s.EXPERIMENT for s in SCRIPTS}
TRANSLATED = sorted(RESULTS.glob("translate.*.json"))


def committed() -> dict[str, Results]:
    """Results by EXPERIMENT.PRESET, in the order of the scripts and their presets."""
    found = {}
    for name, experiment in EXPERIMENTS.items():
        for preset in experiment.presets:
            path = RESULTS / f"{name}.{preset}.json"
            if path.exists():
                found[path.stem] = load_results(path)
    for path in {*RESULTS.glob("*.json")} - {*TRANSLATED}:
        results = found.get(path.stem)
        if results is None or f"{results['experiment']}.{results['preset']}" != path.stem:
            raise UserError(f"{path} must be named EXPERIMENT.PRESET.json after what it holds")
    return found


def translated() -> dict[str, Results]:
    """Results on sentence pairs by translate.CORPUS: presets know of no files."""
    return {path.stem: read_json(path, "restore it") for path in TRANSLATED}


def teller_of(results: Results) -> Any:
    """What tells of results: an experiment, or of sentence pairs the script itself."""
    return EXPERIMENTS.get(results["experiment"], translate)


def blocks() -> dict[str, str]:
    """Every table of the committed results as Markdown, by name."""
    found, everything, pairs = {}, committed(), translated()
    for name, results in (everything | pairs).items():
        teller = teller_of(results)
        found[f"{name}.headline"] = teller.headline(results)
        for table_name, table in teller.tables(results).items():
            found[f"{name}.{table_name}"] = table.markdown()
    joined_tables = {
        "published": published_table(
            [
                (results, figure)
                for experiment, preset, results in published(everything)
                for figure in experiment.published(preset)
            ]
        ),
        "claims": joined(
            addition_rnn.claims_table(experiment.ablation(preset).arms, results)
            for experiment, preset, results in published(everything)
            if experiment.name == addition_rnn.EXPERIMENT.name
        ),
        "compute": compute_table(everything | pairs),
    }
    return found | {name: table.markdown() for name, table in joined_tables.items()}


def published(
    everything: Mapping[str, Results],
) -> Iterator[tuple[Experiment, str, Results | None]]:
    """Presets with results or with published figures, and their results (None: none yet)."""
    for name, experiment in EXPERIMENTS.items():
        for preset in experiment.presets:
            results = everything.get(f"{name}.{preset}")
            if results is not None or experiment.published(preset):
                yield experiment, preset, results


def joined(several: Iterable[Table]) -> Table:
    """One table of several."""
    first, *others = several
    return replace(first, rows=sum((other.rows for other in others), first.rows))


def compute_table(everything: Mapping[str, Results]) -> Table:
    """What every committed result took."""
    rows = []
    for name, results in everything.items():
        environment = results["environment"]
        seconds = results.get("seconds")
        rows.append(
            (
                name.replace(".", ".py ", 1),
                str(len(arms(results))),
                str(results["config"].get("seeds", 1)),
                "–" if seconds is None else duration(seconds),
                f"{environment['device_count']} x {environment['device_kind']}, "
                f"jax {environment['jax']}",
            )
        )
    return Table("What it took", ("run", "arms", "seeds", "time", "on"), tuple(rows))


def filled(readme: str, known: Mapping[str, str]) -> str:
    """A README with its blocks replaced by what the results say."""
    wanted = set(re.findall(r"<!-- begin (\S+) -->", readme))
    if unknown := wanted - set(known):
        raise UserError(f"the README shows tables that no result has: {', '.join(sorted(unknown))}")
    return replace_blocks(readme, {name: known[name] for name in wanted})


def draw(text: str) -> None:
    """The pictures that a README shows, beside their results."""
    for name, results in (committed() | translated()).items():
        picture = RESULTS / f"{name}.png"
        if picture.name in text:
            teller_of(results).cover(results, picture)


@dataclass(frozen=True)
class Nothing:
    """There is nothing to choose on the command line."""


def tables() -> None:
    """Replace what changed."""
    parse(Nothing, __doc__ or "")
    known = blocks()
    for path in READMES:
        text = path.read_text(encoding="utf-8")
        try:
            write_atomically(path, filled(text, known))
        except ValueError as error:
            raise UserError(f"{path}: {error}") from error
        draw(text)


if __name__ == "__main__":
    main(tables)
