"""Parts of an answer that only some experiments need: gains, claims, lengths, sizes, alignments."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import NamedTuple

import numpy as np

from s2sjax.errors import UserError
from s2sjax.report.claims import LATER, MEDIAN, epochs_to, times
from s2sjax.report.plots import Category, Heat, heat_maps, shares_by_category
from s2sjax.report.results import Results, values
from s2sjax.report.results import arms as names_of
from s2sjax.report.stats import compare
from s2sjax.report.tables import NONE, Picture, Table, difference, quantity
from s2sjax.study.ablation import Ablation
from s2sjax.study.plan import parameter_count
from s2sjax.train.metrics import EXACT_MATCH
from s2sjax.train.progress import duration
from s2sjax.train.trained import Trained

MOST_ARMS, LONGEST_SHOWN = 3, 12  # arms, and characters of a question, of drawn alignments
MOST_LENGTHS = 10  # categories of a picture of scores by length


def gains_table(
    results: Results, gains: Mapping[str, tuple[str, str]], metric: str, title: str, header: str
) -> Table:
    """The difference of each pair (a, b) of arms, and how it differs from the first pair's.

    `gains` is ``{name: (a, b)}``, and `header` says what the differences are, on the test set.
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
    note = (
        "Paired by seed, in points [95 % bootstrap interval]; two-sided sign-flip p, not "
        "corrected. Where both arms of a row are at the floor or at the ceiling, it says nothing."
    )
    return Table(title, ("arms", "n", header, f"against {first}", "p"), tuple(rows), note)


class Claim(NamedTuple):
    """That an arm reaches a threshold by an epoch."""

    label: str  # the arm in words
    claimed: str  # the claim in words
    epoch: int | None  # by which the arm was to be there; None: nothing was claimed
    ours: str  # our setting in words
    last: int  # the last epoch that we ran


def claims_table(
    claims: Mapping[str, Claim], results: Results | None, metric: str, threshold: float
) -> Table:
    """Claims by arm, beside the epochs that our seeds took (None: no results yet).

    The threshold is one of `metric` on dev, and after the last epoch on the training questions.
    """
    rows = []
    for arm, claim in claims.items():
        cells = (NONE, NONE, NONE, LATER)
        if results is not None:
            reached = [*epochs_to(results, arm, metric, threshold).values()]
            n, there, when = times(reached)
            learned = [share >= threshold for share in values(results, arm, metric, "train")]
            verdict = NONE if claim.epoch is None else held(reached, claim.epoch, claim.last)
            cells = (f"{there} of {n}", when, f"{sum(learned)} of {n}", verdict)
        rows.append((claim.label, claim.claimed, claim.ours, f"{claim.last}", *cells))
    headers = (
        "what", "claimed: examples, epochs", "ours: examples", "epochs run", "seeds that got there",
        "median epoch [range]", "of the training questions, in the end", "the claim",
    )  # fmt: skip
    note = (
        "The claim has held where all seeds were there by its epoch, failed where none was; on the "
        f"training questions seeds are scored after their last epoch. {MEDIAN}"
    )
    return Table("Claims", headers, tuple(rows), note)


def held(reached: Sequence[int | None], claimed: int, last: int) -> str:
    """What came of a claim, given each seed's epoch (or None) of those up to the last one run."""
    there, n = sum(e is not None and e <= claimed for e in reached), len(reached)
    verdict = "held" if there == n else "failed" if there == 0 and last >= claimed else "open"
    return f"{verdict}: {there} of {n} seeds by epoch {min(claimed, last)}"


def size_table(results: Results, arms: Iterable[str]) -> Table:
    """Parameters of some arms."""
    runs = Ablation.from_config(results["config"]).arms
    rows = [(arm, f"{parameter_count(runs[arm]):,}") for arm in arms]
    note = "Models are not of one size: of two directions, for example, each has half of the units."
    return Table("Parameters", ("arm", "parameters"), tuple(rows), note)


def compute_table(held: Mapping[str, Results]) -> Table:
    """What some results took, by their name."""
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
    return [*group.pairs(next(iter(group.arms)))[0]["test"]]


def by_length(results: Results, arm: str) -> dict[int, list[float]]:
    """Whole answers right by the length of the source: a share a seed."""
    stem = f"{EXACT_MATCH}/length_"
    found = {r["metric"] for r in results["records"] if r["metric"].startswith(stem)}
    lengths = sorted(int(metric.removeprefix(stem)) for metric in found)
    return {length: values(results, arm, f"{stem}{length}") for length in lengths}


def length_table(results: Results, note: str = "Mean over seeds.") -> Table:
    """Whole answers right: a row a length, a column an arm."""
    shares = {arm: by_length(results, arm) for arm in names_of(results)}
    lengths = next(iter(shares.values()))
    rows = [
        (str(n), *(quantity(mean(of[n]), EXACT_MATCH) for of in shares.values())) for n in lengths
    ]
    return Table("Whole answers right by length", ("letters", *shares), tuple(rows), note)


def draw_lengths(results: Results, path: Path) -> None:
    """Draw the same; where there are many lengths, neighbours are taken together."""
    asked = Counter(len(source) for source, _ in first_questions(results))
    lengths, together = sorted(asked), -(-len(asked) // MOST_LENGTHS)
    bins: dict[Category, list[int]] = {}
    for first in range(0, len(lengths), together):
        of = lengths[first : first + together]
        bins[f"{of[0]}–{of[-1]}" if len(of) > 1 else of[0]] = of
    shares = {}
    for arm in names_of(results):
        seeds = by_length(results, arm)
        shares[arm] = {
            label: np.average([seeds[n] for n in of], 0, [asked[n] for n in of]).tolist()
            for label, of in bins.items()
        }
    counts = {label: sum(asked[n] for n in of) for label, of in bins.items()}
    shares_by_category(
        shares, counts, path, "Whole answers right by length of the source", "characters"
    )


def alignments(results: Results, folder: Path) -> list[Picture]:
    """Draw where the first seed looks in a few test questions; nothing without attention.

    Drawn is one arm of each kind of attention, then others; none without their checkpoints.
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
    except UserError:  # results without their checkpoints: the tables stand alone
        return []
    pairs = first_questions(results)
    pairs = ([p for p in pairs if 4 <= len(p[0]) <= LONGEST_SHOWN] or pairs)[:2]
    panels: dict[str, dict[str, Heat]] = {}
    for arm, weights in trained.align(pairs).items():
        formatter, panels[arm] = trained.formatters[arm], {}
        for (question, answer), matrix in zip(pairs, weights[0], strict=True):
            read = [formatter.source.show(int(i)) for i in formatter.source_ids(question)]
            written = [formatter.target.show(int(i)) for i in formatter.target_ids(answer)[1:]]
            heat = Heat(matrix[: len(written), : len(read)], written, read)
            panels[arm][f"{question} → {answer}"] = heat
    path = folder / "alignments.png"
    note = f"seed {trained.seeds[0]}, right answers given"
    heat_maps(panels, path, "Where each output looks", "share of the attention", note)
    return [Picture(path, "Alignments of a few test questions")]
