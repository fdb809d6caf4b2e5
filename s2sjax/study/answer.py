"""Parts of a report that only some experiments need: gains, sizes, lengths, alignments."""

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from statistics import mean

import numpy as np

from s2sjax.errors import UserError
from s2sjax.report.plots import Category, Heat, heat_maps, shares_by_category
from s2sjax.report.results import Results, values
from s2sjax.report.results import arms as names_of
from s2sjax.report.stats import compare
from s2sjax.report.tables import NONE, Picture, Table, difference, paired_note, quantity
from s2sjax.study.ablation import Ablation
from s2sjax.study.plan import parameter_count
from s2sjax.train.metrics import EXACT_MATCH
from s2sjax.train.progress import duration
from s2sjax.train.trained import Trained

MOST_ARMS, LONGEST_SHOWN = 3, 12  # in pictures of alignments: arms, characters of a question
MOST_LENGTHS = 10  # in pictures of scores by length: categories


def gains_table(
    results: Results, gains: Mapping[str, tuple[str, str]], metric: str, title: str, header: str
) -> Table:
    """The difference a - b of several pairs of arms, and how it differs from the first pair's.

    `gains` is ``{name: (a, b)}``; `header` says in words what a - b is. Scores are of the test set.
    """
    each = {
        name: np.subtract(values(results, a, metric), values(results, b, metric)).tolist()
        for name, (a, b) in gains.items()
    }
    first, rows = next(iter(each)), []
    for name, gain in each.items():
        alone = compare(name, "", metric, gain, [0.0] * len(gain))
        more, p = NONE, NONE
        if name != first:
            both = compare(name, first, metric, gain, each[first])
            more = difference(both.mean_difference, both.ci95, metric)
            p = NONE if both.p_sign_flip is None else f"{both.p_sign_flip:.2g}"
        shown = difference(alone.mean_difference, alone.ci95, metric)
        rows.append((name, str(alone.n), shown, more, p))
    says = ", not corrected. Where both arms are at the floor or the ceiling, a row says nothing."
    note = paired_note(says, [*map(len, each.values())], "Differences")
    return Table(title, ("arms", "n", header, f"against {first}", "p"), tuple(rows), note)


def size_table(results: Results, arms: Iterable[str]) -> Table:
    """The number of parameters of some arms."""
    runs = Ablation.from_config(results["config"]).arms
    rows = [(arm, f"{parameter_count(runs[arm]):,}") for arm in arms]
    note = "Models are not of one size: of two directions, for example, each has half of the units."
    return Table("Parameters", ("arm", "parameters"), tuple(rows), note)


def compute_table(held: Mapping[str, Results]) -> Table:
    """The time and the devices that some results took, ``{name: results}``."""
    rows = []
    for name, results in held.items():
        device, seconds = results["environment"], results.get("seconds")
        counts = (str(len(names_of(results))), str(results["config"]["seeds"]))
        took = NONE if seconds is None else duration(seconds)
        on = f"{device['device_count']} x {device['device_kind']}, jax {device['jax']}"
        rows.append((name, *counts, took, on))
    return Table("What it took", ("run", "arms", "seeds", "time", "on"), tuple(rows))


def first_questions(results: Results) -> list[tuple[str, str]]:
    """The test questions of the first arm and seed."""
    group = next(iter(Ablation.from_config(results["config"]).groups.values()))
    return [*group.rows("test")[0].pairs]


def shares_by_length(results: Results, arm: str) -> dict[int, list[float]]:
    """Exact match by the length of the source, of every seed."""
    stem = f"{EXACT_MATCH}/length_"
    found = {r["metric"] for r in results["records"] if r["metric"].startswith(stem)}
    lengths = sorted(int(metric.removeprefix(stem)) for metric in found)
    return {length: values(results, arm, f"{stem}{length}") for length in lengths}


def length_table(results: Results, note: str = "Mean over seeds.") -> Table:
    """Exact match: a row for each length, a column for each arm."""
    shares = {arm: shares_by_length(results, arm) for arm in names_of(results)}
    lengths = next(iter(shares.values()))
    rows = [
        (str(n), *(quantity(mean(of[n]), EXACT_MATCH) for of in shares.values())) for n in lengths
    ]
    return Table("Whole answers right by length", ("letters", *shares), tuple(rows), note)


def draw_lengths(results: Results, path: Path) -> None:
    """Draw exact match by length; of many lengths, neighbours are one category."""
    asked = Counter(len(source) for source, _ in first_questions(results))
    lengths, width = sorted(asked), -(-len(asked) // MOST_LENGTHS)
    bins: dict[Category, list[int]] = {}
    for first in range(0, len(lengths), width):
        of = lengths[first : first + width]
        bins[f"{of[0]}–{of[-1]}" if len(of) > 1 else of[0]] = of
    shares = {}
    for arm in names_of(results):
        seeds = shares_by_length(results, arm)
        shares[arm] = {
            label: np.average([seeds[n] for n in of], 0, [asked[n] for n in of]).tolist()
            for label, of in bins.items()
        }
    counts = {label: sum(asked[n] for n in of) for label, of in bins.items()}
    shares_by_category(
        shares, counts, path, "Whole answers right by length of the source", "characters"
    )


def alignments(results: Results, folder: Path) -> list[Picture]:
    """Draw the attention of the first seed on two test questions.

    At most `MOST_ARMS` arms are drawn, those with different kinds of attention first. Without
    attention or without checkpoints there is no picture.
    """
    config = results["config"]
    kinds = {arm: config["arms"][arm]["model"].get("attention") for arm in names_of(results)}
    first = {kind: arm for arm, kind in reversed(kinds.items())}
    looking = [arm for arm, kind in kinds.items() if kind is not None]
    looking.sort(key=lambda arm: first[kinds[arm]] != arm)
    if not looking:
        return []
    try:
        trained = Trained.load(folder, looking[:MOST_ARMS], [config["first_seed"]])
    except UserError:  # there are no checkpoints
        return []
    pairs = first_questions(results)
    pairs = ([p for p in pairs if 4 <= len(p[0]) <= LONGEST_SHOWN] or pairs)[:2]
    panels: dict[str, dict[str, Heat]] = {}
    for arm, scored in trained.score(pairs, align=True).items():
        formatter, panels[arm] = trained.formatters[arm], {}
        for (question, answer), matrix in zip(pairs, scored.alignment[0], strict=True):
            read = [formatter.source.show(int(i)) for i in formatter.source_ids(question)]
            written = [formatter.target.show(int(i)) for i in formatter.target_ids(answer)[1:]]
            heat = Heat(matrix[: len(written), : len(read)], written, read)
            panels[arm][f"{question} → {answer}"] = heat
    path = folder / "alignments.png"
    note = f"seed {trained.seeds[0]}, right answers given"
    heat_maps(panels, path, "Where each output looks", "share of the attention", note)
    return [Picture(path, "Alignments of a few test questions")]
