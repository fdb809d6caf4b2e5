"""Flax' seq2seq example, scored on questions it has not seen, and what its sampled feedback does.

The question: Flax' example adds a number of up to two digits to one of up to three, smaller first,
with an LSTM of 512 units, and feeds the decoder draws from its own softmax in training. Its README
gives a sequence accuracy of 1.0 after 1,800 updates, of the training batch. What is it on 5,000
fresh questions, and what with the gold symbols fed?

The command: ``python experiments/flax_seq2seq.py published``.

Time: not measured yet.

What to expect: at least 99 % of fresh questions right.
"""

import signal
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

if __name__ == "__main__":  # until training starts, Ctrl-C has nothing to save
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from s2sjax.cli import Study, main
from s2sjax.config import Model, Optimiser, Run, Training
from s2sjax.experiment import Experiment
from s2sjax.metrics import HEADLINE
from s2sjax.plots import score_distribution
from s2sjax.report import Picture, Table, comparison_table, per_seed_table, score, score_table
from s2sjax.results import Results, values
from s2sjax.results import arms as ran
from s2sjax.taskconfig import Addition
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


def arms(_: str, study: Study) -> Mapping[str, Run]:
    """As published, and with the gold symbols fed."""
    gold = replace(study.run.train, teacher_forcing=1.0)
    return {"own symbols fed": study.run, "gold symbols fed": replace(study.run, train=gold)}


def pairs(*_: object) -> list[tuple[str, str]]:
    """Gold against own symbols."""
    return [("gold symbols fed", "own symbols fed")]


def published(results: Results) -> list[Published]:
    """The figure of its README: of one batch that was being trained on."""
    if results["preset"] != "published":
        return []
    source, setting = "Flax' README", "published on a training batch, ours on 5,000 fresh questions"
    return [
        Published("own symbols fed: sums right", 1.0, "own symbols fed", HEADLINE,
                  source=source, setting=setting, decimals=0),
        Published("gold symbols fed: sums right", None, "gold symbols fed", HEADLINE,
                  source=source, setting=setting),
    ]  # fmt: skip


def headline(results: Results) -> str:
    """The answer in a sentence."""
    said = [f"{arm} {score(values(results, arm, HEADLINE), HEADLINE)}" for arm in ran(results)]
    n = len(values(results, ran(results)[0], HEADLINE))
    return f"Fresh sums right after 1,800 updates, {n} seeds: {'; '.join(said)}."


def tables(results: Results) -> dict[str, Table]:
    """The tables of the answer, by name."""
    told = {
        "scores": replace(score_table(results, METRICS), title="Scores on fresh questions"),
        "paired": replace(comparison_table(results), title="Gold against own symbols"),
        "seeds": per_seed_table(results, HEADLINE),
    }
    if figures := published(results):
        told = {"published": published_table([(results, f) for f in figures])} | told
    return told


def cover(results: Results, path: Path) -> None:
    """Every seed's score."""
    score_distribution(results, {"sums right": HEADLINE}, path, {})


def draw(results: Results, folder: Path) -> list[Picture]:
    """The picture of the answer."""
    cover(results, folder / "scores.png")
    return [Picture(folder / "scores.png", "Fresh sums right, every seed")]


EXPERIMENT = Experiment(
    "flax_seq2seq", __doc__ or "", PRESETS, arms, pairs, ("loss", HEADLINE), headline, tables,
    cover, draw,
)  # fmt: skip

if __name__ == "__main__":
    main(EXPERIMENT.run)
