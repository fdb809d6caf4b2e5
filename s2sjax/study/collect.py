"""A sweep's results in one place: a tidy table, the paired comparisons, a report, the holes."""

import csv
import importlib
import io
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from s2sjax.errors import UserError
from s2sjax.files import write_atomically
from s2sjax.report.results import Results, load_results
from s2sjax.report.tables import (
    NONE,
    OVER_SEEDS,
    Table,
    difference,
    metric_name,
    paired_note,
    score,
    write_report,
)
from s2sjax.serial import to_json
from s2sjax.study.sweep import Sweep, changed, part_of
from s2sjax.study.worker import states


class Hole(NamedTuple):
    """What a sweep lacks."""

    what: str  # a cell; of it an arm; of that a seed
    why: str


class Collected(NamedTuple):
    """What a sweep has found so far."""

    scores: list[dict[str, Any]]  # a row for each cell, arm, seed and metric of the test set
    comparisons: list[dict[str, Any]]  # a row for each cell, pair of arms and metric
    holes: list[Hole]


def gather(sweep: Sweep) -> Collected:
    """Read what is there; what is missing or damaged is a hole."""
    found = Collected([], [], [])
    state_of = states(sweep)
    names = sorted({name for settings in sweep.cells.values() for name in settings})
    for job, of in sweep.jobs.items():
        for cell in of.cells:
            path = sweep.cells_folder / cell / "results.json"
            try:
                results = load_results(path)
            except UserError as error:
                state = state_of[job]
                why = f"{state.word}: {state.why}".removesuffix(": ")
                found.holes.append(Hole(cell, str(error) if state.word == "done" else why))
                continue
            held = to_json(changed(sweep.run, sweep.cells[cell]))
            settings = {name: part_of(held, name) for name in names}
            _add(found, {"cell": cell, **settings}, results, sweep.seeds)
    return found


def _add(found: Collected, cell: Mapping[str, Any], results: Results, seeds: Sequence[int]) -> None:
    held = set()
    for r in results["records"]:
        if r["split"] == "test":
            held.add((r["arm"], r["seed"]))
            row = {name: r[name] for name in ("arm", "seed", "metric", "value")}
            found.scores.append({**cell, **row})
    for c in results["comparisons"]:
        low, high = c["ci95"] or (None, None)
        others = {name: value for name, value in c.items() if name != "ci95"}
        found.comparisons.append({**cell, **others, "ci95_low": low, "ci95_high": high})
    left_out = results.get("left_out", {})
    for arm in results["config"]["arms"]:
        lacking = [seed for seed in seeds if (arm, seed) not in held]
        if len(lacking) == len(seeds):
            what, why = f"{cell['cell']}, {arm}", left_out.get(arm, "no records")
            found.holes.append(Hole(what, why))
            continue
        for seed in lacking:
            why = left_out.get(f"{arm} seed {seed}", "no records")
            found.holes.append(Hole(f"{cell['cell']}, {arm}, seed {seed}", why))


def collect(sweep: Sweep) -> Collected:
    """Write ``scores.csv``, ``comparisons.csv`` and ``report.md``; Parquet where pyarrow is."""
    found = gather(sweep)
    for name, rows in (("scores", found.scores), ("comparisons", found.comparisons)):
        path = sweep.folder / f"{name}.csv"
        write_atomically(path, _csv(rows))
        if rows and (parquet := _parquet(rows)) is not None:
            write_atomically(path.with_suffix(".parquet"), parquet)
    write_report(sweep.folder / "report.md", _report(sweep, found))
    return found


def _csv(rows: Sequence[Mapping[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, [*rows[0]] if rows else ["cell"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _parquet(rows: Sequence[Mapping[str, Any]]) -> bytes | None:
    """The rows as a Parquet file; None where pyarrow is not installed."""
    try:
        arrow, parquet = map(importlib.import_module, ("pyarrow", "pyarrow.parquet"))
    except ImportError:
        return None
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    for name, values in columns.items():
        if len({type(v) for v in values if v is not None} - {int, float}) > 1:  # words and numbers
            columns[name] = [v if v is None else str(v) for v in values]
    file = io.BytesIO()
    parquet.write_table(arrow.table(columns), file)
    return file.getvalue()


def _report(sweep: Sweep, found: Collected) -> list[str | Table]:
    """A table of scores and one of differences, a row a cell, and what is missing."""
    experiment, plan = sweep.experiment, sweep.plan
    metric = experiment.suited(sweep.run).primary
    values: dict[str, dict[str, list[float]]] = {cell: {} for cell in sweep.cells}
    for r in found.scores:
        if r["metric"] == metric:
            values[r["cell"]].setdefault(r["arm"], []).append(r["value"])
    arms = [*dict.fromkeys(arm for of in values.values() for arm in of)]
    name, seeds = metric_name(metric), sweep.seeds
    rows = tuple(
        (cell, *(score(of[arm], metric) if arm in of else NONE for arm in arms))
        for cell, of in values.items()
    )
    own = [c for c in found.comparisons if c["metric"] == metric]
    pairs = [*dict.fromkeys((c["a"], c["b"]) for c in own)]
    gaps = {
        (c["cell"], c["a"], c["b"]): difference(
            c["mean_difference"],
            None if c["ci95_low"] is None else (c["ci95_low"], c["ci95_high"]),
            metric,
        )
        for c in own
    }
    differences = tuple(
        (cell, *(gaps.get((cell, *pair), NONE) for pair in pairs)) for cell in sweep.cells
    )
    titles = tuple(f"{a} − {b}" for a, b in pairs)
    done = len(sweep.cells) - len({hole.what for hole in found.holes} & {*sweep.cells})
    begun = f"{done} of {len(sweep.cells)} cells, seeds {seeds[0]} to {seeds[-1]}."
    parts: list[str | Table] = [f"# Sweep of {plan['experiment']}, {plan['preset']}", begun]
    if found.holes:
        parts.append(Table("What is missing", ("what", "why"), tuple(found.holes)))
    parts.append(Table(f"{name}, test set", ("cell", *arms), rows, OVER_SEEDS))
    if own:
        note = paired_note(", not corrected", [c["n"] for c in own])
        parts.append(Table(f"Differences in {name}", ("cell", *titles), differences, note))
    return parts
