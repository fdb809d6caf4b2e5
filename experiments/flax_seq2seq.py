"""Flax' seq2seq example, scored on newly drawn questions, and what its sampled feedback does.

The question: Flax' example adds a number of up to two digits to one of up to three, smaller first,
with an LSTM of 512 units, and feeds the decoder draws from its own softmax in training. Its README
gives a sequence accuracy of 1.0 after 1,800 updates, of the training batch. What is it on 5,000
newly drawn questions, and what with the gold symbols fed?

Newly drawn is not unseen: there are 95,050 questions, and the 230,400 that it is trained on are
draws from them. About nine in ten of the test questions were trained on, some 470 of 5,000 never.
``explain.py runs/flax_seq2seq/published`` scores every question there is, those never trained on
apart: 98.6 % of them right, fed its own symbols, and 39.0 %, fed the gold ones.

The command: ``python experiments/flax_seq2seq.py published``.

Time: 14 minutes on two CPU cores.

What to expect: its own symbols fed, all but one or two in a hundred newly drawn sums right; fed the
gold symbols, less than half of them after as many updates.
"""

import signal
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path

if __name__ == "__main__":  # until training starts, Ctrl-C has nothing to save
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from s2sjax.cli import Study, main
from s2sjax.config import Model, Optimiser, Run, Training
from s2sjax.experiment import Experiment, refuse_changed
from s2sjax.group import seed_keys
from s2sjax.metrics import HEADLINE
from s2sjax.plots import score_distribution
from s2sjax.report import Picture, Table, comparison_table, per_seed_table, score, score_table
from s2sjax.results import Results, values
from s2sjax.results import arms as ran
from s2sjax.serial import from_json
from s2sjax.taskconfig import Addition
from s2sjax.tasks import make_task
from s2sjax.verdicts import Published, published_table

UPDATES, BATCH = 1_800, 128
FLAX = Run(
    Addition(
        operands="short_first",
        train=UPDATES * BATCH,  # the example draws every batch anew: one epoch of them all
        dev=1_000,
        test=5_000,
        splits="independent",
    ),
    model=Model(hidden_size=512, init="flax"),
    optim=Optimiser(learning_rate=3e-3, epsilon=1e-8),
    train=Training(epochs=1, batch_size=BATCH, teacher_forcing=0.0),
)
METRICS = {"sums right": HEADLINE, "characters, forced": "teacher_forced/all", "loss": "loss"}

PRESETS = {
    "published": ("the example as it stands, 1,800 updates, 4 seeds", Study(FLAX, seeds=4)),
    "smoke": (
        "the same, tiny: 2 seeds, 40 updates",
        Study(
            replace(
                FLAX,
                task=replace(FLAX.task, train=40 * BATCH, dev=100, test=200),
                model=Model(hidden_size=16, init="flax"),
            ),
            seeds=2,
        ),
    ),
}


def arms(preset: str, study: Study) -> Mapping[str, Run]:
    """As published, and with the gold symbols fed."""
    refuse_changed(study.run, PRESETS[preset][1].run, "train.teacher_forcing")
    gold = replace(study.run.train, teacher_forcing=1.0)
    return {"own symbols fed": study.run, "gold symbols fed": replace(study.run, train=gold)}


def pairs(*_: object) -> list[tuple[str, str]]:
    """Gold against own symbols."""
    return [("gold symbols fed", "own symbols fed")]


def published(preset: str) -> list[Published]:
    """The figure of its README: of one batch that was being trained on."""
    if preset != "published":
        return []
    setting = (
        "published on a training batch; ours newly drawn, about nine in ten of them trained on"
    )
    return [
        Published("own symbols fed: sums right", 1.0, "own symbols fed", HEADLINE,
                  source="Flax' README", setting=setting, decimals=0),
        Published("gold symbols fed: sums right", None, "gold symbols fed", HEADLINE,
                  setting=setting),
    ]  # fmt: skip


@cache
def trained_on(run: Run) -> str:
    """How many of the test questions were trained on, in words: from one draw of questions."""
    split = make_task(run.task).splits(seed_keys([0])[0])
    known = set(split["train"])
    share = sum(question in known for question in split["test"]) / len(split["test"])
    return f"newly drawn, {100 * share:.0f} % of them trained on"


def drawn(results: Results) -> str:
    """The same of results."""
    return trained_on(from_json(Run, next(iter(results["config"]["arms"].values()))))


def headline(results: Results) -> str:
    """The answer in a sentence."""
    said = [f"{arm} {score(values(results, arm, HEADLINE), HEADLINE)}" for arm in ran(results)]
    n = len(values(results, ran(results)[0], HEADLINE))
    return f"Sums right ({drawn(results)}), mean of {n} seeds [95 % interval]: {'; '.join(said)}."


def tables(results: Results) -> dict[str, Table]:
    """The tables of the answer, by name."""
    told = {
        "scores": replace(
            score_table(results, METRICS), title=f"Scores on questions {drawn(results)}"
        ),
        "paired": replace(
            comparison_table(results),
            title=f"Gold against own symbols, on questions {drawn(results)}",
        ),
        "seeds": per_seed_table(results, HEADLINE),
    }
    if figures := EXPERIMENT.figures(results):
        told = {"published": published_table([(results, f) for f in figures])} | told
    return told


def cover(results: Results, path: Path) -> None:
    """Every seed's score."""
    score_distribution(results, {"sums right": HEADLINE}, path, {})


def draw(results: Results, folder: Path) -> list[Picture]:
    """The picture of the answer."""
    cover(results, folder / "scores.png")
    return [Picture(folder / "scores.png", f"Sums right, every seed ({drawn(results)})")]


EXPERIMENT = Experiment(
    "flax_seq2seq", __doc__ or "", PRESETS, arms, pairs, ("loss", HEADLINE), headline, tables,
    cover, draw, published=published,
)  # fmt: skip

if __name__ == "__main__":
    main(EXPERIMENT.run)
