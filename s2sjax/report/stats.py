"""Intervals over seeds and the paired comparison of two arms.

The unit of replication is the seed, never the test question: intervals are about the seeds that one
could have drawn. Two arms are compared by the differences within seeds (Bouthillier et al. 2021,
"Accounting for variance in machine learning benchmarks"): their mean with an interval, a sign-flip
test, and two effect sizes. A ValueError names values that cannot be used.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]
CONFIDENCE = 0.95
RESAMPLES = 9_999  # of the bootstrap, and of sign flips that are too many to enumerate
ENUMERABLE = 20  # the most seeds whose 2^n sign flips are enumerated
SEED = 0  # of the resampling: the same results.json gives the same report
ROUNDING = 1e-12  # relative: numbers closer than this differ by rounding only


@dataclass(frozen=True)
class Comparison:
    """Arm ``a`` (the treatment) against arm ``b``, paired by seed, in the unit of the metric."""

    a: str
    b: str
    metric: str
    n: int  # paired seeds
    mean_a: float  # over the seeds
    mean_b: float
    mean_difference: float  # mean of a - b
    ci95: tuple[float, float] | None  # bootstrap interval of mean_difference; None for one seed
    p_sign_flip: float | None  # two-sided, of the sign-flip permutation test; None for one seed
    d_z: float | None  # mean / standard deviation of the differences; None where undefined
    p_superiority: float  # share of seeds in which a is above b; ties count one half


def compare(
    a_name: str, b_name: str, metric: str, a: Sequence[float], b: Sequence[float]
) -> Comparison:
    """Compares arm ``a`` with arm ``b``; ``a[i]`` and ``b[i]`` are of the same seed."""
    if len(a) != len(b):
        counts = f"{a_name!r} has {len(a)} values of {metric!r} and {b_name!r} has {len(b)}"
        raise ValueError(f"Paired arms need the same seeds, but {counts}.")
    values_a = _finite(a, f"{a_name!r}, {metric!r}")
    values_b = _finite(b, f"{b_name!r}, {metric!r}")
    differences = _without_rounding(values_a - values_b, scale=np.abs([values_a, values_b]).max())
    mean, low, high = interval(differences)
    means = float(values_a.mean()), float(values_b.mean())
    ci95 = None if low is None or high is None else (low, high)
    n = len(differences)
    d_z = None if n == 1 or differences.any() else 0.0
    if np.ptp(differences) > 0:
        d_z = float(differences.mean() / differences.std(ddof=1))
    p = _p_sign_flip(differences) if n > 1 else None
    above = float(np.mean(0.5 + 0.5 * np.sign(differences)))
    return Comparison(a_name, b_name, metric, n, *means, mean, ci95, p, d_z, above)


def interval(values: Sequence[float] | Values) -> tuple[float, float | None, float | None]:
    """Mean over seeds, and its 95 % interval by the BCa bootstrap (Efron 1987): mean, low, high.

    Equal values give ``low == high == mean``; one value gives ``(value, None, None)``.
    """
    x = _finite(values, "the values of an interval")
    if len(x) == 1:
        return float(x[0]), None, None
    x = _without_rounding(x, scale=np.abs(x).max())
    mean, width = float(x.mean()), float(np.ptp(x))
    if width == 0:
        return float(x[0]), float(x[0]), float(x[0])
    from scipy.stats import bootstrap  # imported here, because it takes a second

    def rounded_mean(sample: Values, axis: int) -> Values | np.float64:
        # The bias correction counts ties: the mean must not depend on the order of the values.
        return np.round(np.mean(sample, axis=axis), 12)

    standardised = (x - mean) / width  # rounding then means the same in every unit
    rng = np.random.default_rng(SEED)
    options = {"n_resamples": RESAMPLES, "confidence_level": CONFIDENCE, "method": "BCa"}
    ci = bootstrap((standardised,), rounded_mean, rng=rng, **options).confidence_interval
    low, high = np.clip(mean + width * np.array([ci.low, ci.high]), x.min(), x.max())
    return mean, float(low), float(high)


def next_seed_range(values: Sequence[float] | Values) -> tuple[float, float]:
    """The 95 % prediction interval of one more seed, if seeds are normally distributed."""
    x = _finite(values, "the values of a prediction")
    if len(x) < 2:
        raise ValueError(f"A prediction needs at least two seeds, but there is only {x.tolist()}.")
    from scipy.stats import t

    half = t.ppf((1 + CONFIDENCE) / 2, len(x) - 1) * x.std(ddof=1) * np.sqrt(1 + 1 / len(x))
    return float(x.mean() - half), float(x.mean() + half)


def smallest_p(n: int) -> float:
    """The smallest two-sided p of a sign-flip test of ``n`` pairs, where all signs are equal."""
    return 2 / 2**n


def holm(ps: Sequence[float]) -> list[float]:
    """Holm's (1979) correction of several p-values, which controls the family-wise error rate."""
    corrected, highest = [0.0] * len(ps), 0.0
    for rank, i in enumerate(sorted(range(len(ps)), key=lambda i: ps[i])):
        highest = max(highest, min(1.0, (len(ps) - rank) * ps[i]))
        corrected[i] = highest
    return corrected


def caution(n: int) -> str:
    """A sentence of warning if ``n`` paired seeds are too few for a claim, else an empty string."""
    if n == 1:
        return "One seed: no interval, no test, and another seed may say the opposite."
    if (least := smallest_p(n)) > 1 - CONFIDENCE:
        why = "so no difference, however large, reaches .05, and the intervals are weak"
        return f"{n} paired seeds: the smallest possible p is {least:.2g}, {why}."
    weak = f"{n} paired seeds: bootstrap intervals are weak below 10, so look at every seed."
    return weak if n < 10 else ""


def _finite(values: Sequence[float] | Values, what: str) -> Values:
    x = np.asarray(values, dtype=np.float64)
    if x.ndim != 1 or x.size == 0:
        raise ValueError(f"Statistics need a list of at least one number, but {what}: {values!r}.")
    if not np.isfinite(x).all():
        raise ValueError(f"Statistics need finite numbers, but {what}: {x.tolist()}.")
    return x


def _without_rounding(x: Values, scale: float) -> Values:
    """Values ``[n]``, made exactly zero, or equal, where only rounding at ``scale`` differs.

    0.9 - 0.6 and 0.4 - 0.1 are different floats: dividing by their deviation gives a huge d_z.
    """
    x = np.where(np.abs(x) <= ROUNDING * scale, 0.0, x)
    return np.full_like(x, x[0]) if np.ptp(x) <= ROUNDING * scale else x


def _p_sign_flip(differences: Values) -> float:
    """Two-sided p: the share of sign assignments whose sum is at least as far from 0 as observed.

    The null hypothesis is that each difference is equally likely with either sign.
    """
    n, observed = len(differences), differences.sum()
    if n <= ENUMERABLE:
        sums = np.zeros(1)
        for difference in differences:  # doubles: [1], [2], ... [2^n]
            sums = np.concatenate([sums + difference, sums - difference])
    else:
        signs = np.random.default_rng(SEED).choice([-1.0, 1.0], size=(RESAMPLES, n))
        # The observed signs are counted too, so p is never 0 (Phipson & Smyth 2010).
        sums = np.append(signs @ differences, observed)
    rounding = ROUNDING * np.abs(differences).sum()  # sums differ by the order of their terms
    return float(np.mean(np.abs(sums) >= np.abs(observed) - rounding))
