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
LEVEL = 0.05  # of a two-sided test; an interval holds what such a test does not reject
ENUMERABLE = 20  # the most seeds whose 2^n sign flips are enumerated
DRAWN = 9_999  # sign flips that are drawn where there are more
SEED = 0  # of the drawing: the same results.json gives the same report
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
    ci95: tuple[float, float] | None  # of the difference; None: unbounded, below six seeds
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
    x = _without_rounding(values_a - values_b, scale=np.abs([values_a, values_b]).max())
    n, (mean_a, mean_b, mean) = len(x), (float(v.mean()) for v in (values_a, values_b, x))
    d_z = None if n == 1 or x.any() else 0.0
    if np.ptp(x) > 0:
        d_z = float(mean / x.std(ddof=1))
    ci95, p = sign_flip_interval(x), sign_flip_p(x) if n > 1 else None
    above = float(np.mean(0.5 + 0.5 * np.sign(x)))
    return Comparison(a_name, b_name, metric, n, mean_a, mean_b, mean, ci95, p, d_z, above)


def sign_flip_p(differences: Values) -> float:
    """Two-sided p: the share of sign flips whose sum is at least as far from 0 as observed.

    The null hypothesis is that each difference is equally likely with either sign. The observed
    signs are counted too, so p is never 0 (Phipson & Smyth 2010).
    """
    lower, higher = _parts(differences)
    return float(1 + min(np.sum(lower <= 0), np.sum(higher >= 0))) / (1 + len(lower))


def sign_flip_interval(differences: Values, level: float = LEVEL) -> tuple[float, float] | None:
    """The inverted test: the ends of all shifts d whose p, of differences - d, is above a level.

    So 0 lies outside exactly if `sign_flip_p` is at most the level. None: no shift is rejected.
    """
    lower, higher = _parts(differences)
    k = int(level * (1 + len(lower)))  # a shift below the mean needs k lower means up to it
    if k == 0:
        return None
    return float(np.partition(lower, k - 1)[k - 1]), float(np.partition(higher, -k)[-k])


def _parts(x: Values) -> tuple[Values, Values]:
    """Of all ways to part values in two, or of many drawn ones, the lower and the higher mean.

    For d below the mean of x, flipping the signs of a part of x - d leaves its sum as far from 0
    exactly if the lower mean is at most d; for d above it, if the higher is at least d (Hartigan
    1969, "Using subsample values as typical values").
    """
    n, columns = len(x), np.stack([x, np.ones(len(x))], axis=1)
    if n <= ENUMERABLE:
        sums = np.zeros((1, 2))  # and the number of their terms
        for column in columns[:-1]:  # doubles; the last value is always in the other part
            sums = np.concatenate([sums, sums + column])
    else:
        sums = np.random.default_rng(SEED).integers(2, size=(DRAWN, n)) @ columns
    sums = sums[(sums[:, 1] > 0) & (sums[:, 1] < n)]
    sums, sizes = np.moveaxis(np.stack([sums, columns.sum(axis=0) - sums]), -1, 0)
    sums[np.abs(sums) <= ROUNDING * np.abs(x).sum()] = 0.0  # they differ by the order of terms
    means = sums / sizes
    return means.min(axis=0), means.max(axis=0)


def interval(values: Sequence[float] | Values) -> tuple[float, tuple[float, float] | None]:
    """Mean over seeds, and its 95 % interval by Student's t: None for one or two seeds."""
    x = _finite(values, "the values of an interval")
    return float(x.mean()), _student(x, 1 / len(x)) if len(x) > 2 else None


def next_seed_range(values: Sequence[float] | Values) -> tuple[float, float]:
    """The 95 % prediction interval of one more seed, if seeds are normally distributed."""
    x = _finite(values, "the values of a prediction")
    return _student(x, 1 + 1 / len(x))


def _student(x: Values, variance: float) -> tuple[float, float]:
    from scipy.special import stdtrit  # imported here, because it takes half a second

    half = stdtrit(len(x) - 1, 1 - LEVEL / 2) * x.std(ddof=1) * np.sqrt(variance)
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
    if (least := smallest_p(n)) <= LEVEL:
        return ""
    why = "so no difference, however large, reaches .05 or has a 95 % interval: see every seed"
    return f"{n} paired seeds: the smallest possible p is {least:.2g}, {why}."


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
