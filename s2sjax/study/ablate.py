"""A person's own ablation: arms by name, one call, and what it found."""

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from s2sjax.cli import make_console
from s2sjax.errors import UserError
from s2sjax.report.claims import paired
from s2sjax.report.plots import Contrast, forest, scores_by_arm
from s2sjax.report.results import Results, by_seed
from s2sjax.report.stats import Comparison
from s2sjax.report.tables import (
    Picture,
    Table,
    comparison_table,
    difference,
    metric_name,
    quantity,
    score_table,
)
from s2sjax.study.ablation import Ablation, is_extension, run
from s2sjax.study.plan import pairs_table
from s2sjax.train.metrics import EXACT_MATCH
from s2sjax.train.replicas import use_all_cores
from s2sjax.train.run import Run
from s2sjax.train.trained import Trained
from s2sjax.train.workdir import Workdir


class Paired(NamedTuple):
    """Two arms compared seed by seed; printed, it says everything."""

    comparison: Comparison
    seeds: Mapping[int, tuple[float, float]]  # {seed: (value of a, value of b)}

    def __str__(self) -> str:
        """The difference, its interval, p, and every seed."""
        c = self.comparison
        p = "" if c.p_sign_flip is None else f", p = {c.p_sign_flip:.2g}"
        gap = difference(c.mean_difference, c.ci95, c.metric)
        lines = [
            f"{metric_name(c.metric)}, test set: {c.a} {quantity(c.mean_a, c.metric)}, "
            f"{c.b} {quantity(c.mean_b, c.metric)}",
            f"{c.a} − {c.b}: {gap}{p}, {c.n} paired seeds",
        ]
        for seed, (a, b) in self.seeds.items():
            values = f"{quantity(a, c.metric)} − {quantity(b, c.metric)}"
            lines.append(f"  seed {seed}: {values} = {difference(a - b, None, c.metric)}")
        return "\n".join(lines)


class Outcome:
    """What an ablation found.

    Attributes:
        results: the content of ``results.json``: settings, environment, every record.
        workdir: the folder of the run.
    """

    def __init__(self, results: Results, workdir: Path):
        """Hold the results of a finished run, and its folder."""
        self.results, self.workdir = results, workdir

    @property
    def arms(self) -> list[str]:
        """Names of the arms; the first is the baseline."""
        return [*self.results["config"]["arms"]]

    @property
    def left_out(self) -> Mapping[str, str]:
        """Arms, and seeds ("ARM seed 3"), whose training diverged, and why: they have no scores."""
        return self.results.get("left_out", {})

    def _require(self, *arms: str) -> None:
        for arm in arms:
            if arm not in self.arms:
                raise UserError(f"there is no arm {arm!r}; there are {', '.join(self.arms)}")
            if arm in self.left_out:
                raise UserError(f"arm {arm!r} was left out: {self.left_out[arm]}")

    def comparison(self, a: str, b: str, metric: str = EXACT_MATCH) -> Paired:
        """Arm `a` against arm `b` on the test set, paired by seed: the difference is a − b."""
        self._require(a, b)
        of_a, of_b = (by_seed(self.results, arm, metric) for arm in (a, b))
        seeds = {seed: (value, of_b[seed]) for seed, value in of_a.items()}
        return Paired(paired(self.results, a, b, metric), seeds)

    def scores(self, **columns: str) -> Table:
        """Scores of every arm on the test set; `columns` are ``header=metric``."""
        return score_table(self.results, columns or {"exact_match": EXACT_MATCH, "loss": "loss"})

    def comparisons(self) -> Table:
        """Every other arm against the first one."""
        return comparison_table(self.results)

    def plot(self, metric: str = EXACT_MATCH, path: str | Path | None = None) -> Picture:
        """Draw every arm against the first one, seed by seed; a notebook shows the picture.

        It is written to `path`, by default ``comparison.png`` in the workdir. With one arm it shows
        the scores of its seeds.
        """
        path = self.workdir / "comparison.png" if path is None else Path(path)
        first, *others = self.arms
        self._require(first)
        if others := [arm for arm in others if arm not in self.left_out]:
            rows = [Contrast(f"{arm} − {first}", arm, first) for arm in others]
            forest(self.results, rows, metric, path)
        else:
            scores_by_arm(self.results, metric, path, {"": [first]})
        return Picture(path, str(self.results["experiment"]))

    @cached_property
    def trained(self) -> Trained:
        """The trained models of every arm and seed: they answer, score and align."""
        return Trained.load(self.workdir, [arm for arm in self.arms if arm not in self.left_out])


def ablate(
    question: str,
    arms: Mapping[str, Run],
    *,
    workdir: str | Path,
    seeds: int = 10,
    first_seed: int = 0,
    progress: bool = True,
) -> Outcome:
    """Train every arm with every seed, and compare the arms, paired by seed.

    Seed i means the same test questions in every arm, and the same training questions, initial
    weights (where shapes agree) and order of batches. Made again, the call goes on from the last
    checkpoint, adds seeds that are missing, or returns what was found.

    It starts JAX with `use_all_cores`: float32, and the random numbers of JAX's defaults.

    Args:
        question: what is asked, in words; a workdir answers one question.
        arms: settings by name. The first arm is the baseline that the others are compared with.
        workdir: folder of the run.
        seeds: how many times each arm is trained; they count up from `first_seed`.
        first_seed: other seeds repeat the study with other weights and training questions.
        progress: print what happens, with the time left.

    Raises:
        UserError: settings that do not go together, or a workdir that holds another run.
    """
    use_all_cores()
    ablation = Ablation({name: arm.pinned() for name, arm in arms.items()}, seeds, first_seed)
    baseline, *others = ablation.arms
    pairs = [(arm, baseline) for arm in others]
    console, metrics = make_console(quiet=not progress), ("loss", EXACT_MATCH)
    config = {"experiment": question, "preset": "", **ablation.config}
    with Workdir(Path(workdir), config, is_extension) as folder:
        if (read := pairs_table(ablation)) is not None:
            console.print(read.rich())
        results = run(question, "", ablation, folder, console, metrics, pairs)
    return Outcome(results, Path(workdir))
