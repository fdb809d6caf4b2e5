"""Claims against results: published figures, predictions, times to a threshold.

A published figure is one run's, so it is compared with the range in which one more of our seeds
would lie. A prediction is about a paired difference: sign-flip tests decide, those of directions
corrected for their number. A ValueError names what is missing.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import inf
from typing import Literal, NamedTuple

import numpy as np

from s2sjax.report import stats, tables
from s2sjax.report.results import Results, by_seed, series
from s2sjax.report.stats import LEVEL, Comparison, compare, holm, next_seed_range
from s2sjax.report.tables import NONE, Table, difference, number, quantity, score, unit

Verdict = Literal["held", "failed", "open"]
Expect = Literal["equal", "greater", "less"]
Ends = tuple[float, float] | None  # of an interval

LATER = "not run yet"
MEDIAN = "Median: the epoch by which half of the seeds reached it; a dash: fewer than half did."


class Published(NamedTuple):
    """A published figure, and which of our numbers measures the same."""

    label: str  # whose figure it is, and of what
    value: float | None  # in the unit in which our metric is stored; None: nobody published one
    arm: str
    metric: str
    split: Literal["train", "dev", "test"] = "test"
    epoch: int | Literal["best"] | None = None  # None: the last one; "best": each seed's best
    source: str = ""  # where it was printed
    setting: str = ""  # in which it was measured
    reason: str = ""  # why it may lie outside of our range
    decimals: int = 2  # as printed, in the unit that we show: it stands for all that rounds to it


def published_table(pairs: Sequence[tuple[Results | None, Published]]) -> Table:
    """A row for each published figure, with our seeds; without results it says "not run yet"."""
    rows = []
    for results, p in pairs:
        seeds = _seeds_of(results, p)
        more = next_seed_range(seeds) if len(seeds) > 1 else None
        # A normal distribution has no ends, but our metrics do: 0, and for many of them 100 %.
        ends = more and (max(more[0], 0.0), min(more[1], unit(p.metric).highest))
        epoch = "" if p.epoch is None else "best epoch" if p.epoch == "best" else f"epoch {p.epoch}"
        where = [p.setting, f"{p.split} set" if p.split != "test" else "", epoch]
        row = (
            f"{p.label} ({p.source})" if p.source and p.value is not None else p.label,
            NONE if p.value is None else quantity(p.value, p.metric, p.decimals),
            score(seeds, p.metric) if seeds else NONE,
            str(len(seeds)) if seeds else NONE,
            tables.span(*ends, p.metric) if ends else NONE,
            ", ".join(filter(None, where)) or NONE,
            _against(p, more) if seeds else LATER,
        )
        rows.append(row)
    headers = ("what", "published", "ours", "n", "one more seed (95 %)", "setting", "verdict")
    note = (
        "Ours: mean over n seeds [95 % interval, Student's t]. A published figure is one run's, so "
        "it is inside or outside of the range that one more of our seeds would fall in; above and "
        "below say where the published figure lies."
    )
    table = Table("Published figures and ours", headers, tuple(rows), note)
    return _named(table, [p.metric for _, p in pairs])


def _seeds_of(results: Results | None, p: Published) -> list[float]:
    if results is None:
        return []
    if p.epoch is None:
        return [*by_seed(results, p.arm, p.metric, p.split).values()]
    curves = series(results, p.arm, p.metric, p.split)
    if p.epoch == "best":
        best = min if tables.lower_is_better(p.metric) else max
        return [best(curve.values()) for curve in curves.values()]
    if lacking := [seed for seed, curve in curves.items() if p.epoch not in curve]:
        where = f"{p.metric!r} on {p.split!r} at epoch {p.epoch}"
        there = f"there are epochs {sorted(set().union(*curves.values()))}"
        raise ValueError(f"Seeds {lacking} of arm {p.arm!r} have no {where}; {there}.")
    return [curve[p.epoch] for curve in curves.values()]


def _against(p: Published, more: tuple[float, float] | None) -> str:
    if p.value is None:
        return "new"
    if more is None:
        return "one seed: no spread"
    rounding = 0.5 * 10.0**-p.decimals / unit(p.metric).scale
    low, high = more
    if low - rounding <= p.value <= high + rounding:
        return "inside the seed spread"
    side = "above" if p.value > high else "below"
    return "; ".join(filter(None, (f"outside: {side}", p.reason)))


@dataclass(frozen=True)
class Prediction:
    """What was expected of a paired difference ``a - b``, on the test set at the last epoch."""

    claim: str  # in words
    a: str  # the arm that the claim is about
    b: str  # the arm it is compared with
    metric: str
    expect: Expect
    margin: float = 0.0  # "equal" means a difference of less than so much, as stored

    def __post_init__(self) -> None:
        if not 0 <= self.margin < inf or (self.margin > 0) != (self.expect == "equal"):
            says = f"{self.claim!r} has {self.margin}"
            raise ValueError(f"A margin is 0 or, of an equality, a positive number, but {says}.")


class Judgement(NamedTuple):
    """The result of a prediction."""

    comparison: Comparison
    p: float | None  # corrected; None for an equality
    verdict: Verdict
    sentence: str


def judge(results: Results, predictions: Sequence[Prediction]) -> list[Judgement]:
    """Judges predictions by the seeds that both of their arms have.

    A direction has held or failed if its interval says so and its sign-flip p, after Holm
    correction for all directions given, is at most .05. For an equality see `verdict_of`.
    """
    compared = [paired(results, p.a, p.b, p.metric) for p in predictions]
    directions = [i for i, p in enumerate(predictions) if p.expect != "equal"]
    ps = {i: p for i in directions if (p := compared[i].p_sign_flip) is not None}
    corrected = dict(zip(ps, holm([*ps.values()]), strict=True))
    judged = []
    for i, (p, c) in enumerate(zip(predictions, compared, strict=True)):
        differences = np.subtract(*paired_values(results, p.a, p.b, p.metric))
        ci90 = stats.sign_flip_interval(differences, 2 * LEVEL)
        verdict = verdict_of(p.expect, p.margin, c.ci95, ci90)
        if p.expect == "equal":
            place = f"within ±{number(p.margin, p.metric)}"
            inner = f", 90 %{tables.ends(ci90, p.metric, '+')}"
            few = ci90 is None
        else:
            place, inner = {"greater": "above 0", "less": "below 0"}[p.expect], ""
            few = stats.smallest_p(c.n) * max(1, len(ps)) > LEVEL
            verdict = "open" if corrected.get(i, 0.0) > LEVEL else verdict
        words = {"held": place, "failed": f"not {place}", "open": f"{place} or not"}[verdict]
        words = "too few seeds" if verdict == "open" and few else words + inner
        judged.append(Judgement(c, corrected.get(i), verdict, f"{verdict}: {words}"))
    return judged


def paired(results: Results, a: str, b: str, metric: str) -> Comparison:
    """Compares two arms over the seeds that both have, on the test split at their last epoch."""
    return compare(a, b, metric, *paired_values(results, a, b, metric))


def paired_values(results: Results, a: str, b: str, metric: str) -> tuple[list[float], list[float]]:
    """The values that `paired` compares: ``a[i]`` and ``b[i]`` are of the same seed."""
    values_a, values_b = by_seed(results, a, metric), by_seed(results, b, metric)
    shared = sorted(values_a.keys() & values_b.keys())
    return [values_a[s] for s in shared], [values_b[s] for s in shared]


def verdict_of(expect: Expect, margin: float, ci95: Ends, ci90: Ends) -> Verdict:
    """What the intervals of ``a - b`` say, before any correction; None has no ends.

    Held: all of an interval lies where it was expected; failed: none of it. That an equality has
    held takes two one-sided tests, which is the 90 % interval; all else takes the 95 % one.
    """
    low, high = ci95 or (-inf, inf)
    held, failed = (low > 0, high < 0) if expect == "greater" else (high < 0, low > 0)
    if expect == "equal":
        inner_low, inner_high = ci90 or (-inf, inf)
        # 0.52 - 0.50 is not exactly the float 0.02, but is meant to be.
        ends = max(-inner_low, inner_high), margin, max(low, -high)
        farthest, margin, nearest = (round(end, 12) for end in ends)
        held, failed = farthest < margin, nearest > margin
    return "held" if held else "failed" if failed else "open"


def prediction_table(results: Results, predictions: Sequence[Prediction]) -> Table:
    """Predictions and what happened, a row each."""
    judged = judge(results, predictions)
    rows = [
        (
            p.claim,
            f"{p.a}, {quantity(c.mean_a, p.metric)}",
            f"{p.b}, {quantity(c.mean_b, p.metric)}",
            difference(c.mean_difference, c.ci95, p.metric),
            str(c.n),
            *(NONE if x is None else f"{x:.2g}" for x in (c.p_sign_flip, corrected)),
            sentence,
        )
        for p, (c, corrected, _, sentence) in zip(predictions, judged, strict=True)
    ]
    directions = sum(p.expect != "equal" for p in predictions)
    note = (
        f", and the same after Holm correction for the {directions} direction"
        f"{'s' * (directions != 1)} predicted here. Held: all of the interval lies where it was "
        "predicted; failed: none of it does; open: the seeds cannot decide. A direction also needs "
        f"a Holm p of at most {LEVEL:g}."
    )
    if directions < len(predictions):
        note += (
            " A prediction within ± a margin has held if two one-sided sign-flip tests, each at "
            f"{LEVEL:g}, say so: then the 90 % interval lies inside."
        )
    headers = ("prediction", "a", "b", "difference", "n", "p", "p, Holm", "verdict")
    note = tables.paired_note(note, [judgement.comparison.n for judgement in judged])
    table = Table("What was predicted", headers, tuple(rows), note)
    return _named(table, [p.metric for p in predictions])


def _named(table: Table, metrics: Sequence[str]) -> Table:
    """The table with its metric in the title or, if there are several, in every row."""
    names, title, rows = [tables.metric_name(metric) for metric in metrics], table.title, table.rows
    if len({*names}) == 1:
        title = f"{title}: {names[0]}"
    if len({*metrics}) > 1:
        rows = tuple((f"{r[0]}: {name}", *r[1:]) for r, name in zip(rows, names, strict=True))
    return replace(table, title=title, rows=rows)


def epochs_to(results: Results, arm: str, metric: str, threshold: float) -> dict[int, int | None]:
    """``{seed: epoch}``: the first epoch evaluated on dev that reached a threshold, or None."""
    sign = -1 if tables.lower_is_better(metric) else 1
    return {
        seed: next((e for e, value in curve.items() if sign * value >= sign * threshold), None)
        for seed, curve in series(results, arm, metric, "dev").items()
    }


def threshold_table(
    results: Results, metric: str, thresholds: Sequence[float], arms: Sequence[str]
) -> Table:
    """When each arm reached each threshold: a row for each threshold and arm."""
    rows = [
        (arm, quantity(t, metric), *times([*epochs_to(results, arm, metric, t).values()]))
        for t in thresholds
        for arm in arms
    ]
    return Table(
        f"Epochs to a threshold: {tables.metric_name(metric)}, dev set",
        ("arm", "threshold", "n", "seeds that reached it", "median epoch [lowest to highest]"),
        tuple(rows),
        f"The first evaluated epoch at which the threshold was reached. {MEDIAN}",
    )


def times(epochs: Sequence[int | None]) -> tuple[str, str, str]:
    """Cells of a table: how many seeds, how many reached a threshold, their median and range.

    Seeds that never reached it count as later than all others.
    """
    n, reached = len(epochs), sorted(epoch for epoch in epochs if epoch is not None)
    if not reached:
        return str(n), "0", "never"
    median = str(reached[(n - 1) // 2]) if 2 * len(reached) >= n else NONE
    highest = reached[-1] if len(reached) == n else "never"
    return str(n), str(len(reached)), median if n == 1 else f"{median} [{reached[0]} to {highest}]"
