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
        experiment, preset, _ = path.name.split(".")
        results, module = load_results(path), EXPERIMENTS[experiment]
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


def draw() -> None:
    """The learning curves of every committed result, beside it."""
    for path in sorted(RESULTS.glob("*.json")):
        module = EXPERIMENTS[path.name.split(".")[0]]
        module.draw_curves(load_results(path), path.with_suffix(".png"))


def tables() -> None:
    """Replace what changed."""
    text = README.read_text(encoding="utf-8")
    write_atomically(README, filled(text))
    draw()


if __name__ == "__main__":
    main(tables)
