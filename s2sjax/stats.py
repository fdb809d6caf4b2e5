"""Intervals over seeds and the paired comparison of two arms.

The unit of replication is the seed, never the test question: what is estimated is what the *next*
seed would give. Two arms that share their seeds are compared by the differences within seeds
(Bouthillier et al. 2021, "Accounting for variance in machine learning benchmarks"), reported as a
mean with its interval, an exact test, and two effect sizes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]

CONFIDENCE = 0.95
RESAMPLES = 9_999  # of the bootstrap, and of the sign flips where they are too many to enumerate
ENUMERABLE = 20  # up to 2^20 sign flips are enumerated
SEED = 0  # statistics are functions of the data: the same results.json gives the same report
ROUNDING = 1e-12  # relative: differences closer than this differ by the rounding of a subtraction


@dataclass(frozen=True)
class Comparison:
    """Arm ``a`` (the treatment) against arm ``b``, paired by seed; differences are ``a - b``.

    Attributes:
        a: name of the treatment.
        b: name of the arm it is compared with.
        metric: what was measured; the means, their difference and its interval are in its unit.
        n: number of paired seeds.
        mean_a: mean of ``a`` over the seeds.
        mean_b: mean of ``b`` over the seeds.
        mean_difference: mean of ``a - b``.
        ci95: 95 % bootstrap interval of ``mean_difference`` over seeds; None for one seed.
        p_sign_flip: two-sided p of the sign-flip permutation test; None for one seed.
        d_z: mean difference in standard deviations of the differences. None where it does not
            exist: one seed, or differences that are all the same and not zero.
        p_superiority: share of seeds in which ``a`` is above ``b``, ties counted one half.
    """

    a: str
    b: str
    metric: str
    n: int
    mean_a: float
    mean_b: float
    mean_difference: float
    ci95: tuple[float, float] | None
    p_sign_flip: float | None
    d_z: float | None
    p_superiority: float


def compare(
    a_name: str, b_name: str, metric: str, a: Sequence[float], b: Sequence[float]
) -> Comparison:
    """Compares arm ``a`` with arm ``b``, paired: ``a[i]`` and ``b[i]`` come from the same seed.

    Raises:
        ValueError: the arms have different numbers of seeds, or none, or a value is not finite.
    """
    if len(a) != len(b):
        raise ValueError(
            f"Paired arms need the same seeds, but {a_name!r} has {len(a)} values of {metric!r} "
            f"and {b_name!r} has {len(b)}."
        )
    values_a = _finite(a, f"{a_name!r}, {metric!r}")
    values_b = _finite(b, f"{b_name!r}, {metric!r}")
    differences = _settle(values_a - values_b, scale=np.abs([values_a, values_b]).max())
    mean, low, high = interval(differences)
    return Comparison(
        a=a_name,
        b=b_name,
        metric=metric,
        n=len(differences),
        mean_a=float(values_a.mean()),
        mean_b=float(values_b.mean()),
        mean_difference=mean,
        ci95=None if low is None or high is None else (low, high),
        p_sign_flip=_p_sign_flip(differences) if len(differences) > 1 else None,
        d_z=_d_z(differences),
        p_superiority=float(np.mean(0.5 + 0.5 * np.sign(differences))),
    )


def interval(values: Sequence[float] | Values) -> tuple[float, float | None, float | None]:
    """Mean over seeds with its 95 % interval, the BCa bootstrap's (Efron 1987).

    The interval does what its data do: it moves, scales and changes sign with them.

    Args:
        values: one number a seed.

    Returns:
        ``(mean, low, high)``. Equal values give ``low == high == mean``; one value gives
        ``(value, None, None)``, for it says nothing about its own spread.

    Raises:
        ValueError: there are no values, or one is not finite.
    """
    x = _finite(values, "the values of an interval")
    if len(x) == 1:
        return float(x[0]), None, None
    x = _settle(x, scale=np.abs(x).max())
    mean, width = float(x.mean()), float(np.ptp(x))
    if width == 0:
        return float(x[0]), float(x[0]), float(x[0])

    from scipy.stats import bootstrap  # a second's import, which a training run need not pay

    def rounded_mean(sample: Values, axis: int) -> Values | np.float64:
        # A resample with the same values in another order is a tie with the data, whatever its
        # last bit says; the bias correction counts ties.
        return np.round(np.mean(sample, axis=axis), 12)

    standardised = (x - mean) / width  # so that rounding means the same in every unit
    ci = bootstrap(
        (standardised,),
        rounded_mean,
        n_resamples=RESAMPLES,
        confidence_level=CONFIDENCE,
        method="BCa",
        rng=np.random.default_rng(SEED),
    ).confidence_interval
    low, high = np.clip(mean + width * np.array([ci.low, ci.high]), x.min(), x.max())
    return mean, float(low), float(high)


def prediction(values: Sequence[float] | Values) -> tuple[float, float]:
    """Where one more seed would fall, 95 %: what a single published run is to be held against.

    Normal theory: mean -+ t(n - 1) sd sqrt(1 + 1/n).

    Raises:
        ValueError: there are fewer than two values, or one is not finite.
    """
    x = _finite(values, "the values of a prediction")
    if len(x) < 2:
        raise ValueError(f"A prediction needs at least two seeds, but there is only {x.tolist()}.")

    from scipy.stats import t

    half = t.ppf((1 + CONFIDENCE) / 2, len(x) - 1) * x.std(ddof=1) * np.sqrt(1 + 1 / len(x))
    return float(x.mean() - half), float(x.mean() + half)


def smallest_p(n: int) -> float:
    """The smallest two-sided p of a sign-flip test of ``n`` pairs: 2 / 2^n, all signs the same."""
    if n < 1:
        raise ValueError(f"A paired test needs at least one seed, but n = {n}.")
    return 2 / 2**n


def holm(ps: Sequence[float]) -> list[float]:
    """The p of several tests, corrected: by chance one family in 20 has one of at most .05.

    Holm (1979): the smallest times their number, the next times one less, none below one before it.
    """
    corrected, highest = [0.0] * len(ps), 0.0
    for rank, i in enumerate(sorted(range(len(ps)), key=lambda i: ps[i])):
        highest = max(highest, min(1.0, (len(ps) - rank) * ps[i]))
        corrected[i] = highest
    return corrected


def caution(n: int) -> str | None:
    """A sentence for the report where ``n`` paired seeds are too few for a claim, else None."""
    if n == 1:
        return "One seed: no interval, no test, and another seed may say the opposite."
    if smallest_p(n) > 1 - CONFIDENCE:
        return (
            f"{n} paired seeds: the smallest possible p is {smallest_p(n):.2g}, so no difference, "
            "however large, reaches .05, and the intervals are weak."
        )
    if n < 10:
        return f"{n} paired seeds: bootstrap intervals are weak below 10, so look at every seed."
    return None


def _finite(values: Sequence[float] | Values, what: str) -> Values:
    """The values as an array ``[n]``, n > 0, all finite."""
    x = np.asarray(values, dtype=np.float64)
    if x.ndim != 1 or x.size == 0:
        raise ValueError(f"Statistics need a list of at least one number, but {what}: {values!r}.")
    if not np.isfinite(x).all():
        raise ValueError(f"Statistics need finite numbers, but {what}: {x.tolist()}.")
    return x


def _settle(x: Values, scale: float) -> Values:
    """Values ``[n]``, made exactly equal or zero where they are so but for rounding at ``scale``.

    0.9 - 0.6 and 0.4 - 0.1 are the same difference, yet not the same float; a standard deviation
    of 1e-17 made of that would pass for an enormous effect.
    """
    x = np.where(np.abs(x) <= ROUNDING * scale, 0.0, x)
    return np.full_like(x, x[0]) if np.ptp(x) <= ROUNDING * scale else x


def _p_sign_flip(differences: Values) -> float:
    """Two-sided p: the share of sign assignments whose sum is at least as far from 0 as observed.

    If the arms do the same, each difference is as likely with the other sign: nothing else is
    assumed.
    """
    n = len(differences)
    if n <= ENUMERABLE:
        sums = np.zeros(1)
        for difference in differences:  # doubles: [1], [2], ... [2^n]
            sums = np.concatenate([sums + difference, sums - difference])
        return float(np.mean(_as_extreme(sums, differences)))
    rng = np.random.default_rng(SEED)
    sums = rng.choice([-1.0, 1.0], size=(RESAMPLES, n)) @ differences
    # The observed assignment is a possible one. Counting it, p is never 0 (Phipson & Smyth 2010).
    return float((np.sum(_as_extreme(sums, differences)) + 1) / (RESAMPLES + 1))


def _as_extreme(sums: Values, differences: Values) -> NDArray[np.bool_]:
    rounding = ROUNDING * np.abs(differences).sum()  # equal sums differ by the order of their terms
    return np.abs(sums) >= np.abs(differences.sum()) - rounding


def _d_z(differences: Values) -> float | None:
    """Cohen's d_z: mean / sd (n - 1); 0 where all differences are 0, None where undefined."""
    if not differences.any():
        return 0.0 if len(differences) > 1 else None
    if len(differences) == 1 or np.ptp(differences) == 0:
        return None
    return float(differences.mean() / differences.std(ddof=1))
