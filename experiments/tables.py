"""Write the README's tables and its picture anew from the committed results.

    python experiments/tables.py          (or: make tables)

A table stands in the README between ``<!-- begin NAME -->`` and ``<!-- end NAME -->``, NAME being
EXPERIMENT.PRESET.TABLE; a test holds it equal to ``experiments/results/EXPERIMENT.PRESET.json``.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

import reverse_vs_forward

from s2sjax.cli import main
from s2sjax.errors import UserError
from s2sjax.files import write_atomically
from s2sjax.report import replace_blocks
from s2sjax.results import load_results

RESULTS = Path(__file__).parent / "results"
README = Path(__file__).parent.parent / "README.md"
EXPERIMENTS: Mapping[str, ModuleType] = {reverse_vs_forward.EXPERIMENT: reverse_vs_forward}


def blocks() -> dict[str, str]:
    """Every table of the committed results as Markdown, by name."""
    found = {}
    for path in sorted(RESULTS.glob("*.json")):
        results = load_results(path)
        experiment, preset = results["experiment"], results["preset"]
        module = EXPERIMENTS.get(experiment)
        if module is None or path.name != f"{experiment}.{preset}.json":
            raise UserError(f"{path} must be named EXPERIMENT.PRESET.json after what it holds")
        found[f"{experiment}.{preset}.headline"] = module.headline(results)
        for name, table in module.tables(results).items():
            found[f"{experiment}.{preset}.{name}"] = table.markdown()
    return found


def filled(readme: str) -> str:
    """The README with its blocks replaced by what the results say."""
    wanted, known = set(re.findall(r"<!-- begin (\S+) -->", readme)), blocks()
    if unknown := wanted - set(known):
        raise UserError(f"the README shows tables that no result has: {', '.join(sorted(unknown))}")
    return replace_blocks(readme, {name: known[name] for name in wanted})


def draw(readme: str) -> None:
    """The learning curves that the README shows, beside their results."""
    for path in sorted(RESULTS.glob("*.json")):
        picture = path.with_suffix(".png")
        if picture.name in readme:
            results = load_results(path)
            EXPERIMENTS[results["experiment"]].draw_curves(results, picture)


def tables() -> None:
    """Replace what changed."""
    text = README.read_text(encoding="utf-8")
    try:
        write_atomically(README, filled(text))
    except ValueError as error:
        raise UserError(f"{README}: {error}") from error
    draw(text)


if __name__ == "__main__":
    main(tables)
