"""Do our tests and intervals keep their word? Measured on a pool of real trainings.

The question: a test at .05 and an interval of 95 % are promises about seeds, whose scores need not
be normally distributed. Here each of 400 seeds trains three arms. *Operands swapped* cannot differ
from *forward*, because operands are drawn alike: a difference that is found there is a false
positive. *Reversed* can differ. Studies of n seeds are then drawn from the 400, thousands of times:
how often is a false positive found, how often does the interval cover the difference, how often is
the difference found?

The command: ``python experiments/calibration.py pool``. Committed is its workdir's ``pool.json``:
the results without the metrics that no table shows.

Time on two CPU cores: 1 h 13 min at low priority, beside much other work. The second 200 seeds had
11 minutes of processor time.

What to expect: a false positive in one study of twenty; intervals that cover in nineteen.
"""

from terminal import main

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from reverse_vs_forward import both_orders
from rich.console import Console

from s2sjax.analysis.calibration import Rates, draw_rates, draw_studies, rejection, until_decided
from s2sjax.config import Model, Optimiser, Training
from s2sjax.data.addition import Addition
from s2sjax.files import write_atomically
from s2sjax.report.claims import paired_values
from s2sjax.report.results import Results, dump_results, series
from s2sjax.report.stats import LEVEL, compare
from s2sjax.report.tables import MINUS, NONE, Picture, Table, difference
from s2sjax.study.experiment import Experiment, Study
from s2sjax.train.metrics import EXACT_MATCH
from s2sjax.train.run import Run

# Cheap, and far from floor and ceiling: chosen on the seeds 0 to 5, which are not in the pool.
POOL = Run(
    Addition(digits=2, train=1_500, dev=500, test=1_000),
    model=Model(hidden_size=32),
    optim=Optimiser(learning_rate=0.02, clip=1.0, schedule="cosine"),
    train=Training(epochs=48, batch_size=32, eval_every=12, checkpoint_every=6, show_every=48),
)
SMOKE = replace(
    POOL,
    task=Addition(digits=2, train=64, dev=20, test=40),
    model=Model(hidden_size=8),
    train=replace(POOL.train, epochs=2, eval_every=1),
)
PRESETS = {
    "pool": ("400 seeds on two digits, 32 units, 2,256 updates", Study(POOL, 400, first_seed=100)),
    "smoke": ("the same, tiny: 20 seeds, 2 epochs", Study(SMOKE, 20)),
}
SWAPPED = "operands swapped"
SIZES, LOOKS = (5, 10, 20, 40), (10, 20, 40, 80)  # paired seeds of a study
STUDIES = 2_000  # of each size
POSITIVES, COVERAGE = "false positives", "coverage"
KNOWN = "swapped + {} s.d."
DRAWN = (
    f"Per cent of {STUDIES:,} studies of n paired seeds, drawn from the pool (two standard errors "
    "of the drawing: 1 near 5 and 95, 2 near 50)."
)
FEW = " A dash: below six pairs a sign-flip test rejects nothing and has no interval."


def arms(_: str, study: Study) -> Mapping[str, Run]:
    """Both orders, and the one that cannot matter."""
    text = replace(study.run.text, source_order="operands_swapped")
    return {**both_orders(study.run), SWAPPED: replace(study.run, text=text)}


def pool(results: Results, arm: str) -> np.ndarray:
    """An arm's difference to forward in every seed, test set."""
    return np.subtract(*paired_values(results, arm, "forward", EXACT_MATCH))


def null(results: Results) -> np.ndarray:
    """Every pair of operands swapped and forward in both orders: their true difference is 0.

    The mean over the seeds is not 0, and moves the rates of large studies.
    """
    return np.concatenate([pool(results, SWAPPED), -pool(results, SWAPPED)])


def promises(results: Results) -> dict[str, Rates]:
    """False-positive rates and coverage."""
    effect = pool(results, "reversed")
    missed = rejection(effect - effect.mean(), SIZES, STUDIES)
    return {
        POSITIVES: rejection(null(results), SIZES, STUDIES),
        f"{POSITIVES}, as trained": rejection(
            pool(results, SWAPPED), SIZES, STUDIES, replace=False
        ),
        COVERAGE: {method: [rate and 1 - rate for rate in of] for method, of in missed.items()},
    }


def effects(results: Results) -> dict[str, np.ndarray]:
    """Differences to find: what reversal does on dev while training, and some of a known size."""
    ends = [series(results, arm, EXACT_MATCH, "dev") for arm in ("reversed", "forward")]
    a, b = (np.array([[*curve.values()] for curve in of.values()]) for of in ends)
    none, epochs = null(results), next(iter(ends[0].values()))
    found = {f"reversed, epoch {e}": x for e, x in zip(epochs, (a - b).T, strict=True)}
    return found | {KNOWN.format(d): none + d * none.std() for d in (0.5, 1.0)}


def rows(rates: Rates, *head: str) -> list[tuple[str, ...]]:
    """A row for each method."""
    shown = {m: [NONE if r is None else f"{100 * r:.1f}" for r in of] for m, of in rates.items()}
    return [(*head, method, *cells) for method, cells in shown.items()]


def looks_table(results: Results) -> Table:
    """Studies that grow until they are decided."""
    plans = {
        "one, at 80 seeds, p ≤ .05": ((80,), LEVEL),
        "10, 20, 40, 80 seeds, p ≤ .05": (LOOKS, LEVEL),
        "10, 20, 40, 80 seeds, p ≤ .05 / 4": (LOOKS, LEVEL / len(LOOKS)),
    }
    drawn = [
        draw_studies(x, LOOKS[-1], STUDIES)
        for x in (null(results), effects(results)[KNOWN.format(0.5)])
    ]
    shown = []
    for plan, (looks, level) in plans.items():
        ended = [until_decided(x, looks, level) for x in drawn]
        shown.append((plan, *(f"{x:.1f}" for share, used in ended for x in (100 * share, used))))
    found = f"power: {KNOWN.format(0.5)}"
    headers = ("looks", POSITIVES, "seeds used", found, "seeds used")
    return Table("Stopping as soon as p is small enough", headers, tuple(shown), DRAWN)


class Calibration(Experiment):
    """A pool of seeds, from which studies are drawn."""

    def tables(self, results: Results) -> dict[str, Table]:
        """The tables of the report, by name; hundreds of seeds are not listed."""
        made = super().tables(results)
        del made["seeds"]
        power, sizes = [], ("method", *(f"n = {n}" for n in SIZES))
        kept = [row for what, rates in promises(results).items() for row in rows(rates, what)]
        for what, x in effects(results).items():
            c = compare(what, "forward", EXACT_MATCH, [*x], [0.0] * len(x))
            d_z = NONE if c.d_z is None else f"{c.d_z:.2f}".replace("-", MINUS)
            head = (what, difference(c.mean_difference, None, EXACT_MATCH), d_z)
            power += rows(rejection(x, SIZES, STUDIES), *head)
        headers = ("− forward", "difference", "d_z", *sizes)
        return made | {
            "rates": Table("What is promised, measured", ("", *sizes), tuple(kept), DRAWN + FEW),
            "power": Table("Power: how often it is found", headers, tuple(power), DRAWN + FEW),
            "looks": looks_table(results),
        }

    def draw_main_figure(self, results: Results, path: Path) -> None:
        """Draw the picture that is shown with committed results."""
        rates = promises(results)
        panels = {POSITIVES: (LEVEL, rates[POSITIVES]), COVERAGE: (1 - LEVEL, rates[COVERAGE])}
        draw_rates(panels, SIZES, path)

    def draw(self, results: Results, folder: Path) -> list[Picture]:
        """Draw all pictures of the report to a folder."""
        path = folder / "calibration.png"
        self.draw_main_figure(results, path)
        return [Picture(path, "What is promised, measured"), *super().draw(results, folder)]

    def write_report(self, results: Results, folder: Path, console: Console) -> None:
        """Write the report, and the part of the results that is committed."""
        kept = {("test", EXACT_MATCH), ("dev", EXACT_MATCH), ("train", "epoch_loss")}
        records = [r for r in results["records"] if (r["split"], r["metric"]) in kept]
        write_atomically(folder / "pool.json", dump_results({**results, "records": records}))
        super().write_report(results, folder, console)


EXPERIMENT = Calibration(
    "calibration", __doc__ or "", PRESETS, arms,
    pairs=lambda _: [("reversed", "forward"), (SWAPPED, "forward")],
    metrics=(EXACT_MATCH,), scores={"sums right": EXACT_MATCH},
    meaning="Sums right, free-running",
)  # fmt: skip

if __name__ == "__main__":
    main(EXPERIMENT.run)
