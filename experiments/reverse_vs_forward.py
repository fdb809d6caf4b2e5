"""Does reversing the source help a recurrent encoder-decoder?

The question: the 'Learning seq2seq' notebook got 65 % forward and 97 % reversed, one unseeded run
each. Is the gap there in every seed, and what do these numbers count?

The command: ``python experiments/reverse_vs_forward.py notebook``, or ``make reproduce``.

Time: notebook 10 minutes on two CPU cores, clean 12, smoke a minute, one_unit seconds.

What to expect: the gap is there in every seed. The tables also show the accuracy of a model that
never reads the question, which is not zero.

``reverse_vs_forward.py PRESET --help`` lists all settings; other seeds, another model:
``reverse_vs_forward.py clean --first-seed 100 --model.hidden-size 256 --workdir runs/wide``.
"""

from terminal import main

from dataclasses import replace
from functools import cache
from pathlib import Path

from s2sjax.analysis.floors import enumerable, floor
from s2sjax.config import Model, Optimiser, Text, Training
from s2sjax.data.addition import Addition
from s2sjax.report.claims import Published
from s2sjax.report.plots import accuracy_by_position
from s2sjax.report.results import Results
from s2sjax.report.tables import Picture, Table, per_seed_table, score_table
from s2sjax.study.experiment import Experiment, Study, runs_of
from s2sjax.train.metrics import EXACT_MATCH
from s2sjax.train.run import Run

NOTEBOOK_TEXT = Text(source_justify="right", target_justify="right", start="first_target")

ONE_UNIT = Run(
    Addition(digits=2, train=7_000, test=3_000, splits="independent"),
    NOTEBOOK_TEXT,
    Model(hidden_size=1),
    train=Training(epochs=30, eval_every=2),
)
SMOKE = Run(
    Addition(train=4_000, dev=200, test=500, splits="independent"),
    NOTEBOOK_TEXT,
    Model(hidden_size=64),
    Optimiser(learning_rate=8e-3),
    Training(epochs=80, checkpoint_every=20, show_every=40),
)
PRESETS = {
    "notebook": (
        "the 'Learning seq2seq' notebook to the letter: 3 digits, 5,000 questions, 200 epochs",
        Study(Run(Addition(splits="independent"), NOTEBOOK_TEXT)),
    ),
    "one_unit": (
        "the notebook's first experiment: 2 digits, 7,000 + 3,000 questions, 1 unit, 30 epochs",
        Study(ONE_UNIT),
    ),
    "clean": (
        "the question as it should be asked: nothing given away, nothing leaked, padding unscored",
        Study(Run(Addition(test=5_000))),
    ),
    "smoke": ("the notebook's experiment in small: 3 seeds, a minute", Study(SMOKE, 3)),
}

NOTEBOOK, FORCED = "teacher_forced/all", "teacher_forced/content"
NOTEBOOK_METRICS = {"loss": "loss", "accuracy": NOTEBOOK}
HONEST_METRICS = {
    "characters, forced": FORCED,
    "characters, free": "free_running/content",
    "whole answer, forced": "teacher_forced/exact_match",
    "whole answer, free": EXACT_MATCH,
}

# What the notebook printed (experiments 2 and 3; of experiment 1 only "about 43 %" is known): one
# unseeded run an arm, with Keras and TensorFlow 1.14 to 2.1.
PUBLISHED = {
    "notebook": {
        "forward": {"loss": 0.9939, NOTEBOOK: 0.6507},
        "reversed": {"loss": 0.1018, NOTEBOOK: 0.9737},
    },
    "one_unit": {"forward": {NOTEBOOK: 0.43}},
}
SETTINGS = {
    "notebook": "sums of 3 digits, 5,000 questions, 200 epochs",
    "one_unit": "sums of 2 digits, 1 unit, 30 epochs",
}

COUNTS = (
    " Accuracy: single characters predicted right while the right ones before them are given, the "
    "end symbol counted; not the share of sums answered correctly."
)


def both_orders(run: Run, name: str = "") -> dict[str, Run]:
    """A run with its source read forward and reversed; a name is put before the orders."""
    return {
        f"{name} {order}".strip(): replace(run, text=replace(run.text, source_order=order))
        for order in ("forward", "reversed")
    }


def published(preset: str) -> list[Published]:
    """The notebook's figures: one unseeded run each."""
    reason = "the figure belongs to an earlier model than the notebook prints"
    of = {"source": "the notebook", "setting": SETTINGS.get(preset, ""), "reason": reason}
    found = []
    for arm, figures in PUBLISHED.get(preset, {}).items():
        for metric, value in figures.items():
            what = "loss" if metric == "loss" else "accuracy"
            decimals = 0 if preset == "one_unit" else 4 if metric == "loss" else 2
            found.append(Published(f"{arm}: {what}", value, arm, metric, decimals=decimals, **of))
    return found


@cache
def enumerated(run: Run) -> dict[str, dict[str, float]]:
    """Scores of the best predictors that know nothing, or two digits, of each operand."""
    task = run.task
    if not isinstance(task, Addition) or not enumerable(task):
        return {}
    known = {"source never read": 0}
    if task.digits > 2:
        known["top two digits known"] = 2
    best = {who: floor(task, digits, run.text) for who, digits in known.items()}
    whole = ("teacher_forced/exact_match", EXACT_MATCH)
    return {
        who: {"loss": of.loss, NOTEBOOK: of.all, FORCED: of.content}
        | dict.fromkeys(whole, of.exact_match)
        for who, of in best.items()
    }


class ReverseVsForward(Experiment):
    """Two tables of scores, the notebook's and ours, and their floors."""

    def tables(self, results: Results) -> dict[str, Table]:
        """The tables of the report, by name; the README shows them too."""
        printed: dict[str, dict[str, float | None]] = {}
        for figure in self.figures(results):
            row = printed.setdefault(f"notebook, {figure.arm}, one run", {})
            row[figure.metric] = figure.value
        floors = ((f"floor: {who}", known) for who, known in self.floors(results).items())
        rows = [*printed.items(), *floors]
        scores = score_table(results, NOTEBOOK_METRICS, rows, next_seed=bool(printed))
        train = {**NOTEBOOK_METRICS, "whole answer, free": EXACT_MATCH}
        made = super().tables(results)
        title = "The notebook's metric"
        both = {"accuracy as the notebook counts": NOTEBOOK, "whole sums right": EXACT_MATCH}
        answer = score_table(results, both, rows, next_seed=bool(printed))
        short = (row for row in answer.rows if "lowest" not in row[0])
        return {
            "answer": replace(answer, title="The answer in short", rows=tuple(short), note=""),
            "notebook": replace(scores, title=title, note=scores.note + COUNTS),
            **made,
            "fit": score_table(results, train, split="train"),
            "seeds_notebook": per_seed_table(results, NOTEBOOK),
            "seeds_loss": per_seed_table(results, "loss"),
        }

    def draw(self, results: Results, folder: Path) -> list[Picture]:
        """Draw all pictures of the report to a folder."""
        accuracy_by_position(results, folder / "by_position.png")
        drawn = Picture(folder / "by_position.png", "Accuracy by position in the answer")
        return [*super().draw(results, folder), drawn]


EXPERIMENT = ReverseVsForward(
    "reverse_vs_forward", __doc__ or "", PRESETS,
    arms=lambda _, study: both_orders(study.run),
    pairs=lambda _: [("reversed", "forward")],
    metrics=("loss", NOTEBOOK, *HONEST_METRICS.values()),
    scores=HONEST_METRICS, meaning="Whole sums right, free-running",
    curve=NOTEBOOK, picture="scores",
    published=published, floors=lambda results: enumerated(runs_of(results)["forward"]),
)  # fmt: skip

if __name__ == "__main__":
    main(EXPERIMENT.run)
