"""Whether tests and intervals of paired differences keep their word, on a pool of differences.

The pool holds the difference of two arms in each of many seeds. Studies of n seeds are drawn from
it; a method says of each whether it rejects 0. That is a false alarm where nothing differs, and
power where something does; where the pool's own mean has been subtracted, it is an interval that
misses this mean. Studies share seeds: a rate's Monte Carlo error is not all its error.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from scipy.special import ndtr, ndtri, stdtrit

from s2sjax.report import canvas
from s2sjax.report.stats import DRAWN, LEVEL, ROUNDING, SEED, smallest_p

Pool = Float[np.ndarray, " seeds"]
Studies = Float[np.ndarray, "studies n"]
Each = Float[np.ndarray, " studies"]
Rejected = Bool[np.ndarray, " studies"]
Rates = Mapping[str, Sequence[float | None]]  # of a method, at each size

RESAMPLES = 1_999  # of BCa
CHUNK = 250  # studies at once: 20 MB


def draw_studies(pool: Pool, n: int, studies: int, *, replace: bool = True) -> Studies:
    """Studies of n seeds. With `replace` the pool stands for all seeds there are.

    Without, n of its seeds lie closer to its mean than n new seeds would.
    """
    rng = np.random.default_rng([SEED, n])
    if replace:
        return rng.choice(pool, (studies, n))
    return np.stack([rng.choice(pool, n, replace=False) for _ in range(studies)])


def _in_chunks(of: Callable[[Studies], Any], x: Studies) -> Any:
    return np.concatenate([of(x[i : i + CHUNK]) for i in range(0, len(x), CHUNK)])


def sign_flip_ps(x: Studies) -> Each:
    """`stats.sign_flip_p` of each study; from 14 seeds on the flips are drawn, not enumerated."""
    n = x.shape[1]
    if exact := 2**n <= DRAWN:
        parts = np.array([*product((0, 1), repeat=n - 1)])  # the last sign always stays
        parts = np.pad(parts, ((0, 0), (0, 1)))
    else:
        parts = np.random.default_rng(SEED).integers(2, size=(DRAWN, n))
    signs = 1.0 - 2 * parts

    def count(x: Studies) -> Each:
        least = np.abs(x.sum(axis=1)) - ROUNDING * np.abs(x).sum(axis=1)
        return (np.abs(x @ signs.T) >= least[:, None]).sum(axis=1, dtype=float)

    counts = _in_chunks(count, x)
    return counts / len(parts) if exact else (1 + counts) / (1 + len(parts))


def student_rejects(x: Studies) -> Rejected:
    """Whether Student's t interval of the mean leaves out 0."""
    n = x.shape[1]
    half = stdtrit(n - 1, 1 - LEVEL / 2) * x.std(axis=1, ddof=1) / np.sqrt(n)
    return np.abs(x.mean(axis=1)) > half


def bca_rejects(x: Studies) -> Rejected:
    """Whether the BCa bootstrap interval of the mean leaves out 0 (Efron 1987).

    All studies resample the same places. An end is the resampled mean of a certain rank, so it is
    enough to count those on either side of 0.
    """
    n = x.shape[1]
    weights = np.random.default_rng(SEED).multinomial(n, np.full(n, 1 / n), RESAMPLES) / n

    def rejects(x: Studies) -> Rejected:
        mean = x.mean(axis=1, keepdims=True)
        spread = np.sqrt(((x - mean) ** 2).sum(axis=1, keepdims=True))
        acceleration = (((x - mean) / np.where(spread > 0, spread, 1)) ** 3).sum(axis=1) / 6
        means = x @ weights.T
        middle = ((means < mean).mean(axis=1) + (means <= mean).mean(axis=1)) / 2
        bias = ndtri(np.clip(middle, 1 / RESAMPLES, 1 - 1 / RESAMPLES))
        z = bias + ndtri([[LEVEL / 2], [1 - LEVEL / 2]])
        low, high = ndtr(bias + z / (1 - acceleration * z))  # shares of the means below the ends
        return ((means <= 0).mean(axis=1) < low) | ((means < 0).mean(axis=1) > high)

    return _in_chunks(rejects, x)


OURS = "sign-flip (ours)"
METHODS: Mapping[str, Callable[[Studies], Rejected]] = {
    OURS: lambda x: sign_flip_ps(x) <= LEVEL,
    "BCa bootstrap": bca_rejects,
    "Student's t": student_rejects,
}
"""By name, whether a method rejects 0 in each study: whether 0 lies outside of its interval."""


def rejection(pool: Pool, sizes: Sequence[int], studies: int, *, replace: bool = True) -> Rates:
    """The share of studies of each size in which each method rejects 0.

    None: a sign-flip test of so few seeds never can, or the pool has fewer seeds than a study.
    """
    rates: dict[str, list[float | None]] = {method: [] for method in METHODS}
    for n in sizes:
        x = draw_studies(pool, n, studies, replace=replace) if replace or n <= len(pool) else None
        for method, rejects in METHODS.items():
            never = method == OURS and smallest_p(n) > LEVEL
            rates[method].append(None if x is None or never else float(rejects(x).mean()))
    return rates


def until_decided(x: Studies, looks: Sequence[int], level: float) -> tuple[float, float]:
    """Studies that grow look by look, until the sign-flip p is at most `level`.

    Returns the share that ends so, and the mean number of seeds used. With a level of .05 divided
    by the number of looks, at most .05 end so where nothing differs (Bonferroni).
    """
    used, open_ = np.full(len(x), looks[-1]), np.ones(len(x), bool)
    for n in looks:
        decided = open_ & (sign_flip_ps(x[:, :n]) <= level)
        used[decided], open_ = n, open_ & ~decided
    return float(1 - open_.mean()), float(used.mean())


def draw_rates(panels: Mapping[str, tuple[float, Rates]], sizes: Sequence[int], path: Path) -> None:
    """Draw ``{title: (promised rate, rates)}``, a panel each."""
    title = "What tests and intervals promise, and what they give"
    note = "Dashed: what is promised. Below six seeds a sign-flip test has no interval."
    with canvas.page(path, 4.4, title, note) as figure:
        row, lines = figure.subplots(1, len(panels), squeeze=False)[0], []
        for axes, (title, (promised, rates)) in zip(row, panels.items(), strict=True):
            axes.axhline(promised, color=canvas.GREY, linewidth=1.3, linestyle=canvas.FLOORS[0])
            lines = []
            for i, (method, of) in enumerate(rates.items()):
                known = {n: rate for n, rate in zip(sizes, of, strict=True) if rate is not None}
                style = canvas.line_of(i) | {"marker": "o", "clip_on": False, "zorder": 5 - i}
                lines += axes.plot([*known], [*known.values()], **style, label=method)
            axes.set(title=title, xlabel="paired seeds of a study", xscale="log")
            axes.set_xticks(sizes, map(str, sizes))
            axes.minorticks_off()
            axes.grid(axis="y")
            canvas.show_unit(axes.yaxis, "")
        canvas.legend(figure, lines, "outside lower left")
