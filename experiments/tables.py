"""Write the tables of the READMEs and their pictures anew from the committed results.

    python experiments/tables.py          (or: make tables)

A table stands between ``<!-- begin NAME -->`` and ``<!-- end NAME -->`` in README.md or in
experiments/README.md, NAME being EXPERIMENT.PRESET.TABLE; a test holds it equal to
``experiments/results/EXPERIMENT.PRESET.json``. Three tables join all results: ``published``,
``claims`` and ``compute``.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import addition_rnn
import flax_seq2seq
import mechanisms
import peeky
import reverse_vs_forward

from s2sjax.cli import main
from s2sjax.errors import UserError
from s2sjax.experiment import Experiment
from s2sjax.files import write_atomically
from s2sjax.progress import duration
from s2sjax.report import Table, replace_blocks
from s2sjax.results import Results, arms, load_results
from s2sjax.verdicts import Published, published_table

HERE = Path(__file__).parent
RESULTS = HERE / "results"
READMES = (HERE.parent / "README.md", HERE / "README.md")
SCRIPTS = (reverse_vs_forward, peeky, addition_rnn, mechanisms, flax_seq2seq)
EXPERIMENTS: Mapping[str, Experiment] = {s.EXPERIMENT.name: s.EXPERIMENT for s in SCRIPTS}
PUBLISHED: Mapping[str, Callable[[Results], list[Published]]] = {
    s.EXPERIMENT.name: s.published for s in (reverse_vs_forward, peeky, addition_rnn, flax_seq2seq)
}


def committed() -> dict[str, Results]:
    """Results by EXPERIMENT.PRESET, in the order of the scripts and their presets."""
    found = {}
    for name, experiment in EXPERIMENTS.items():
        for preset in experiment.presets:
            path = RESULTS / f"{name}.{preset}.json"
            if path.exists():
                found[path.stem] = load_results(path)
    for path in RESULTS.glob("*.json"):
        results = found.get(path.stem)
        if results is None or f"{results['experiment']}.{results['preset']}" != path.stem:
            raise UserError(f"{path} must be named EXPERIMENT.PRESET.json after what it holds")
    return found


def blocks() -> dict[str, str]:
    """Every table of the committed results as Markdown, by name."""
    found, everything = {}, committed()
    for name, results in everything.items():
        experiment = EXPERIMENTS[results["experiment"]]
        found[f"{name}.headline"] = experiment.headline(results)
        for table_name, table in experiment.tables(results).items():
            found[f"{name}.{table_name}"] = table.markdown()
    held = [(r, p) for r in everything.values() for p in of_results(r)]
    if "flax_seq2seq.published" not in everything:  # its rows stand there, and say so
        held += [(None, p) for p in flax_seq2seq.published({"preset": "published"})]
    joined_tables = {
        "published": published_table(held),
        "claims": joined(everything, addition_rnn.EXPERIMENT.name, addition_rnn.claims_table),
        "compute": compute_table(everything),
    }
    return found | {name: table.markdown() for name, table in joined_tables.items()}


def of_results(results: Results) -> list[Published]:
    """The published figures that results are held against."""
    tell = PUBLISHED.get(results["experiment"])
    return [] if tell is None else tell(results)


def joined(
    everything: Mapping[str, Results], experiment: str, tell: Callable[[Results], Table]
) -> Table:
    """One table of all committed presets of an experiment."""
    first, *others = [tell(r) for r in everything.values() if r["experiment"] == experiment]
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
                str(results["config"]["seeds"]),
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
    for name, results in committed().items():
        picture = RESULTS / f"{name}.png"
        if picture.name in text:
            EXPERIMENTS[results["experiment"]].cover(results, picture)


def tables() -> None:
    """Replace what changed."""
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
