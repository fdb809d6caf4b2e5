"""What was claimed against what happened: published figures, predictions, times to a threshold.

A published figure is one run's, so it is held against where one more of our seeds would fall; of a
preset without results it is "not run yet". A prediction is about a paired difference and is held
against that difference's interval and, where it tells a direction, a test corrected for how many
there are.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from s2sjax.report import (
    NONE,
    Table,
    difference,
    is_loss,
    metric_name,
    number,
    quantity,
    score,
)
from s2sjax.results import Results, by_seed, series
from s2sjax.stats import Comparison, caution, compare, holm, prediction, smallest_p

Split = Literal["train", "dev", "test"]
Verdict = Literal["held", "failed", "open"]
Expect = Literal["equal", "greater", "less"]

LATER = "not run yet"
LEVEL = 0.05
"""Largest p, corrected, with which a predicted direction has held or failed."""


# --- published figures ------------------------------------------------------------------------


class Published(NamedTuple):
    """A figure that somebody printed, and which of our numbers it is the like of.

    Attributes:
        label: whose figure, of what.
        value: a fraction, or nats if the metric is a loss; None where nobody published one, so
            that there is no source.
        arm: our arm.
        metric: our metric.
        split: where ours is measured.
        epoch: when; None is the last epoch, "best" each seed's best (of a loss, the least).
        source: where it was printed, in short words.
        setting: under which settings, theirs or both, in short words.
        reason: the likely reason if it lies outside, in short words.
        decimals: as many as were printed, of a per cent or of nats. The figure stands for
            everything that rounds to it.
    """

    label: str
    value: float | None
    arm: str
    metric: str
    split: Split = "test"
    epoch: int | Literal["best"] | None = None
    source: str = ""
    setting: str = ""
    reason: str = ""
    decimals: int = 2


def published_table(
    pairs: Sequence[tuple[Results | None, Published]], title: str = "Published figures and ours"
) -> Table:
    """Published figures beside our seeds: a row each, of one results file or of several.

    Args:
        pairs: a figure, and the results it is held against (None: there are none yet).
        title: of the table; the metric is added to it if there is but one, else to the rows.

    Raises:
        ValueError: the arm lacks the metric or the epoch, or ends at different epochs.
    """
    metrics = [p.metric for _, p in pairs]
    rows = []
    for results, p in pairs:
        known = p.source and p.value is not None
        what = f"{p.label} ({p.source})" if known else p.label
        where = [p.setting, f"{p.split} set" if p.split != "test" else ""]
        if p.epoch is not None:
            where.append("best epoch" if p.epoch == "best" else f"epoch {p.epoch}")
        seeds = _ours(results, p)
        more = prediction(seeds) if len(seeds) > 1 else None
        rows.append(
            (
                _words(what, p.metric, metrics),
                _printed(p),
                score(seeds, p.metric) if seeds else NONE,
                str(len(seeds)) if seeds else NONE,
                NONE if more is None else _possible(*more, p.metric),
                ", ".join(filter(None, where)) or NONE,
                _against(p, more) if seeds else LATER,
            )
        )
    return Table(
        title=_title(title, metrics),
        headers=("what", "published", "ours", "n", "one more seed (95 %)", "setting", "verdict"),
        rows=tuple(rows),
        note=(
            "Ours: mean over n seeds [95 % bootstrap interval of the mean]. A published figure is "
            "one run's, so it is inside or outside of the range that one more of our seeds would "
            "fall in; above and below say where the published figure lies."
        ),
    )


def _ours(results: Results | None, p: Published) -> list[float]:
    """Our values, in seed order; none where there are no results."""
    if results is None:
        return []
    if p.epoch is None:
        return [*by_seed(results, p.arm, p.metric, p.split).values()]
    curves = series(results, p.arm, p.metric, p.split)
    if p.epoch == "best":
        best = min if is_loss(p.metric) else max
        return [best(curve.values()) for curve in curves.values()]
    lacking = [seed for seed, curve in curves.items() if p.epoch not in curve]
    if lacking:
        raise ValueError(
            f"Seeds {lacking} of arm {p.arm!r} have no {p.metric!r} on {p.split!r} at epoch "
            f"{p.epoch}; there are epochs {sorted(set().union(*curves.values()))}."
        )
    return [curve[p.epoch] for curve in curves.values()]


def _printed(p: Published) -> str:
    """A figure with as many decimals as were printed."""
    if p.value is None:
        return NONE
    if is_loss(p.metric):
        return f"{p.value:.{p.decimals}f}"
    return quantity(p.value, p.metric, decimals=p.decimals)


def _against(p: Published, more: tuple[float, float] | None) -> str:
    """The verdict on a figure, given where one more seed would fall (None: one seed)."""
    if p.value is None:
        return "new"
    if more is None:
        return "one seed: no spread"
    rounding = 0.5 * 10.0 ** -(p.decimals if is_loss(p.metric) else p.decimals + 2)
    low, high = more
    if low - rounding <= p.value <= high + rounding:
        return "inside the seed spread"
    side = "above" if p.value > high else "below"
    return f"outside: {side}" + (f"; {p.reason}" if p.reason else "")


def _possible(low: float, high: float, metric: str) -> str:
    """A range, cut off where no value can lie: normal theory knows of neither 0 nor 100 %."""
    top = high if is_loss(metric) else min(high, 1.0)
    return f"{number(max(low, 0.0), metric)} to {number(top, metric)}"


# --- predictions ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Prediction:
    """What was expected of a paired difference ``a - b``.

    Attributes:
        claim: in words.
        a: the arm that the claim is about.
        b: the arm it is compared with.
        metric: at the last epoch, on the test split.
        expect: how ``a`` compares with ``b``.
        margin: of "equal": the difference lies within -+margin, a fraction (nats if the metric is a
            loss), not negative. A direction has none.
    """

    claim: str
    a: str
    b: str
    metric: str
    expect: Expect
    margin: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.margin < float("inf"):
            raise ValueError(f"A margin is a number from 0 on, but {self.claim!r}: {self.margin}.")
        if self.margin and self.expect != "equal":
            raise ValueError(f"A direction has no margin, but {self.claim!r}: {self.margin}.")


class Judgement(NamedTuple):
    """What came of a prediction; p is a direction's, corrected, and `told` the verdict in words."""

    comparison: Comparison
    p: float | None
    verdict: Verdict
    told: str


def judge(results: Results, predictions: Sequence[Prediction]) -> list[Judgement]:
    """Holds predictions against the seeds that both arms of each have.

    A direction has held or failed where its interval says so (`verdict_of`) and its sign-flip p,
    by Holm's correction for all directions here, is at most `LEVEL`. With so few seeds that no p
    can be, nothing is decided.

    Raises:
        ValueError: an arm has no such records, or they share no seed.
    """
    compared = [paired(results, p.a, p.b, p.metric) for p in predictions]
    directed = {
        i: c.p_sign_flip
        for i, (p, c) in enumerate(zip(predictions, compared, strict=True))
        if p.expect != "equal" and c.p_sign_flip is not None
    }
    corrected = dict(zip(directed, holm([*directed.values()]), strict=True))
    judged = []
    for i, (p, c) in enumerate(zip(predictions, compared, strict=True)):
        least, tests = smallest_p(c.n), len(directed) if i in directed else 1
        undecided = least > LEVEL or corrected.get(i, 0.0) > LEVEL
        verdict = "open" if undecided else verdict_of(c.ci95, p.expect, p.margin)
        few = verdict == "open" and least * tests > LEVEL
        told = "open: too few seeds" if few else _said(verdict, p)
        judged.append(Judgement(c, corrected.get(i), verdict, told))
    return judged


def paired(results: Results, a: str, b: str, metric: str) -> Comparison:
    """Compares two arms over the seeds that both have, on the test split at their last epoch.

    Raises:
        ValueError: an arm has no such records, or they share no seed.
    """
    values_a, values_b = by_seed(results, a, metric), by_seed(results, b, metric)
    shared = sorted(values_a.keys() & values_b.keys())
    if not shared:
        raise ValueError(
            f"Arms {a!r} and {b!r} share no seed: they have {[*values_a]} and {[*values_b]}."
        )
    return compare(a, b, metric, [values_a[s] for s in shared], [values_b[s] for s in shared])


def verdict_of(ci95: tuple[float, float] | None, expect: Expect, margin: float = 0.0) -> Verdict:
    """What an interval of ``a - b`` says about an expectation.

    Returns:
        "held" if all of the interval fulfils it, "failed" if none of it does, else "open"; so is
        it without an interval.
    """
    if ci95 is None:
        return "open"
    # A difference of .52 - .50 is not the float .02; margins are meant to the last digit.
    (low, high), margin = (round(end, 12) for end in ci95), round(margin, 12)
    if expect == "less":
        low, high = -high, -low
    if expect == "equal":
        held, failed = -margin <= low and high <= margin, low > margin or high < -margin
    else:
        held, failed = low > 0, high <= 0
    return "held" if held else "failed" if failed else "open"


def prediction_table(
    results: Results, predictions: Sequence[Prediction], title: str = "What was predicted"
) -> Table:
    """Predictions beside what happened, a row each.

    Args:
        results: the content of a results.json.
        predictions: in the order of the rows.
        title: of the table; the metric is added to it if there is but one, else to the rows.

    Raises:
        ValueError: an arm lacks the metric, or two arms share no seed.
    """
    metrics = [p.metric for p in predictions]
    judged = judge(results, predictions)
    rows = [
        (
            _words(p.claim, p.metric, metrics),
            f"{p.a}, {quantity(c.mean_a, p.metric)}",
            f"{p.b}, {quantity(c.mean_b, p.metric)}",
            difference(c.mean_difference, c.ci95, p.metric),
            str(c.n),
            *(NONE if x is None else f"{x:.2g}" for x in (c.p_sign_flip, corrected)),
            told,
        )
        for p, (c, corrected, _, told) in zip(predictions, judged, strict=True)
    ]
    directions = sum(p.expect != "equal" for p in predictions)
    note = (
        "Paired by seed. Difference a − b of the means, of percentages in points, [95 % bootstrap "
        "interval]; two-sided sign-flip p, and the same by Holm's correction for the "
        f"{directions} direction{'s' * (directions != 1)} predicted here. Held: the interval lies "
        "wholly where it was predicted; failed: no part of it does; a direction needs a corrected "
        f"p of at most {LEVEL:g} as well. Open: the seeds cannot tell."
    )
    warning = caution(min(j.comparison.n for j in judged)) if judged else None
    return Table(
        title=_title(title, metrics),
        headers=("prediction", "a", "b", "difference", "n", "p", "p, Holm", "verdict"),
        rows=tuple(rows),
        note=f"{note} {warning}" if warning else note,
    )


def _said(verdict: Verdict, p: Prediction) -> str:
    """A verdict and what it is about: ``held: within ±2.0``, ``failed: not above 0``."""
    if p.expect == "equal":
        place = f"within ±{number(p.margin, p.metric)}"
    else:
        place = "above 0" if p.expect == "greater" else "below 0"
    told = {"held": place, "failed": f"not {place}", "open": f"{place} or not"}
    return f"{verdict}: {told[verdict]}"


# --- time to a threshold ----------------------------------------------------------------------

MEDIAN = (
    "Median: the epoch by which half of the seeds had it; a dash in its place: fewer than half "
    "ever did."
)
"""What `times` tells, for the note under a table."""


def epochs_to(
    results: Results, arm: str, metric: str, threshold: float, split: Split = "dev"
) -> dict[int, int | None]:
    """``{seed: epoch}``: the first evaluated epoch at which a threshold was reached, or None.

    An accuracy reaches it from below, a loss from above; that it stays there is not asked.

    Raises:
        ValueError: there are no such records.
    """
    sign = -1 if is_loss(metric) else 1
    return {
        seed: next((e for e, value in curve.items() if sign * value >= sign * threshold), None)
        for seed, curve in series(results, arm, metric, split).items()
    }


def threshold_table(
    results: Results,
    metric: str,
    thresholds: Sequence[float],
    arms: Sequence[str],
    split: Split = "dev",
) -> Table:
    """How soon each arm reaches each threshold: a row a threshold and arm.

    Raises:
        ValueError: an arm has no such records.
    """
    rows = []
    for threshold in thresholds:
        for arm in arms:
            reached = epochs_to(results, arm, metric, threshold, split).values()
            rows.append((arm, quantity(threshold, metric), *times([*reached])))
    return Table(
        title=f"Epochs to a threshold: {metric_name(metric)}, {split} set",
        headers=(
            "arm",
            "threshold",
            "n",
            "seeds that reached it",
            "median epoch [lowest to highest]",
        ),
        rows=tuple(rows),
        note=f"The first evaluated epoch at which the threshold was reached. {MEDIAN}",
    )


def times(epochs: Sequence[int | None]) -> tuple[str, str, str]:
    """Cells: n, how many reached it, the median with its range; those that never did come last."""
    n, reached = len(epochs), sorted(epoch for epoch in epochs if epoch is not None)
    if not reached:
        return str(n), "0", "never"
    median = str(reached[(n - 1) // 2]) if 2 * len(reached) >= n else NONE
    highest = reached[-1] if len(reached) == n else "never"
    times = median if n == 1 else f"{median} [{reached[0]} to {highest}]"
    return str(n), str(len(reached)), times


# --- both -------------------------------------------------------------------------------------


def _title(title: str, metrics: Collection[str]) -> str:
    """The title of a table, with the metric if all rows have the same one."""
    names = {metric_name(metric) for metric in metrics}
    return f"{title}: {names.pop()}" if len(names) == 1 else title


def _words(words: str, metric: str, metrics: Collection[str]) -> str:
    """The words of a row, with the metric unless all rows have the same one."""
    return words if len({*metrics}) == 1 else f"{words}: {metric_name(metric)}"
