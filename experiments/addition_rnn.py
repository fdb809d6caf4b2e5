"""Keras' addition_rnn, both orders: how much of its well-known table is true?

The question: Keras' example adds numbers of 2 to 5 digits with a reversed question and says in its
docstring how many examples and epochs 99 % take: 5k and 55, 50k and 100, 400k and 20, 550k and 30.
The text is older than the model it heads, and the forward arm was never reported. How many epochs
does 99 % take, over seeds, and what does reversal do?

The command: ``python experiments/addition_rnn.py digits3``; the other sizes are ``digits2``,
``digits4`` and ``digits5``, and ``cells`` compares LSTM, GRU and simple RNN on two digits.

Time on two CPU cores: see the README of this folder.

What to expect: with 50k questions of three digits both orders get to 99 % of the characters,
reversed in about half the epochs.
"""

import signal
from collections.abc import Mapping
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from statistics import median

if __name__ == "__main__":  # until training starts, Ctrl-C has nothing to save
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from s2sjax.cli import Study, main
from s2sjax.config import Model, Run, Text, Training
from s2sjax.experiment import Experiment
from s2sjax.group import seed_keys
from s2sjax.metrics import HEADLINE
from s2sjax.pictures import step_curves
from s2sjax.plots import learning_curves
from s2sjax.report import (
    NONE,
    Picture,
    Table,
    comparison_table,
    per_seed_table,
    score,
    score_table,
)
from s2sjax.results import Results, values
from s2sjax.results import arms as ran
from s2sjax.serial import from_json
from s2sjax.taskconfig import Addition
from s2sjax.tasks import make_task
from s2sjax.tasks.floors import prior
from s2sjax.verdicts import Published, epochs_to, published_table, threshold_table

TEXT = Text(justify="left", source_eos=False, target_eos=False, start="nothing")
KERAS = "free_running/all"
"""Keras' accuracy, spaces counted; the decoder reads no symbols, so forced and free are one."""
METRICS = {"characters": KERAS, "whole sums": HEADLINE, "loss": "loss"}
COMPARED = ("loss", KERAS, HEADLINE)

CLAIM = 0.99
CLAIMED = {2: ("5k", 55), 3: ("50k", 100), 4: ("400k", 20), 5: ("550k", 30)}
"""Keras' docstring: examples and epochs to 99 % of train and test characters, by digits."""


def keras(digits: int, train: int, held_out: int, epochs: int, batch_size: int) -> Run:
    """The example's model and data for a number of digits.

    Keras scores its 90/10 split's tenth after every epoch: here that is dev, and test is scored
    once.
    """
    return Run(
        Addition(digits=digits, operands="any_length", train=train, dev=held_out, test=held_out),
        TEXT,
        Model(decoder="repeat"),
        train=Training(
            epochs=epochs,
            batch_size=batch_size,
            eval_every=1,
            checkpoint_every=1,
            show_every=10,
            shown=10,
        ),
    )


PRESETS = {
    "digits3": (
        "the example as it stands: 3 digits, 45,000 training questions, batch 32, 29 epochs",
        Study(keras(3, 45_000, 2_500, 29, 32)),
    ),
    "digits2": (
        "2 digits, 4,500 training questions, batch 32, 100 epochs",
        Study(keras(2, 4_500, 250, 100, 32)),
    ),
    "digits4": (
        "4 digits, 360,000 training questions, batch 128, 20 epochs, 3 seeds",
        Study(keras(4, 360_000, 2_500, 20, 128), seeds=3),
    ),
    "digits5": (
        "5 digits, 495,000 training questions, batch 128, 30 epochs, 3 seeds",
        Study(keras(5, 495_000, 2_500, 30, 128), seeds=3),
    ),
    "cells": (
        "2 digits: LSTM, GRU, simple RNN, two decoder layers, batch 128; 60 epochs, 3 seeds",
        Study(keras(2, 4_500, 250, 60, 32), seeds=3),
    ),
    "smoke": (
        "2 digits, tiny: 3 seeds, seconds",
        Study(
            replace(keras(2, 1_000, 100, 3, 32), model=Model(decoder="repeat", hidden_size=16)),
            seeds=3,
        ),
    ),
}


def arms(preset: str, study: Study) -> Mapping[str, Run]:
    """Forward, which was never published, and reversed; of every model in the preset cells."""
    run = study.run
    models = {"": run}
    if preset == "cells":
        models = {
            "LSTM ": run,
            "GRU ": replace(run, model=replace(run.model, cell="gru")),
            "RNN ": replace(run, model=replace(run.model, cell="rnn")),
            "2 layers ": replace(run, model=replace(run.model, decoder_layers=2)),
            "batch 128 ": replace(run, train=replace(run.train, batch_size=128)),
        }
    return {
        f"{name}{order}": replace(model, text=replace(model.text, source_order=order))
        for name, model in models.items()
        for order in ("forward", "reversed")
    }


def pairs(preset: str, study: Study) -> list[tuple[str, str]]:
    """Reversed against forward."""
    names = list(arms(preset, study))
    return list(zip(names[1::2], names[::2], strict=True))


def published(results: Results) -> list[Published]:
    """The one measured log there is: three digits, reversed, batch 32; validation is our dev."""
    if results["preset"] != "digits3":
        return []
    row = partial(
        Published,
        metric=KERAS,
        split="dev",
        source="Keras' log",
        setting="sums of 3 digits, batch 32",
    )
    return [
        row("reversed, epoch 1", 0.4116, "reversed", epoch=1),
        row("reversed, epoch 5", 0.7436, "reversed", epoch=5),
        row("reversed, epoch 10", 0.9774, "reversed", epoch=10),
        row("reversed, epoch 14", 0.9970, "reversed", epoch=14),
        row("reversed, epoch 20", 0.9791, "reversed", epoch=20),
        row("reversed, last epoch", 0.9883, "reversed", reason="their last epochs are a saw-tooth"),
        row("reversed, best epoch", 0.9985, "reversed", epoch="best"),
        row("forward, last epoch", None, "forward"),
        row("forward, best epoch", None, "forward", epoch="best"),
    ]


def claims_table(results: Results) -> Table:
    """The docstring's claim for as many digits, beside the epochs our seeds took."""
    rows = []
    for arm in ran(results):
        run = from_json(Run, results["config"]["arms"][arm])
        assert isinstance(run.task, Addition)
        examples, epochs = CLAIMED.get(run.task.digits, (NONE, NONE))
        reached = epochs_to(results, arm, KERAS, CLAIM)
        times = sorted(e for e in reached.values() if e is not None)
        rows.append(
            (
                f"{arm}, {run.task.digits} digits",
                f"{examples}, {epochs} epochs" if arm == "reversed" else NONE,
                f"{run.task.train:,}, batch {run.train.batch_size}",
                f"{len(times)} of {len(reached)}",
                f"{median(times):g} [{times[0]} to {times[-1]}]" if times else "never",
                f"{run.train.epochs}",
            )
        )
    return Table(
        title="Epochs to 99 % of the characters of unseen questions",
        headers=(
            "what",
            "claimed: examples, epochs",
            "ours: examples",
            "seeds that got there",
            "median epoch [range]",
            "epochs run",
        ),
        rows=tuple(rows),
        note="Median of the seeds that got there; spaces that fill an answer count as characters.",
    )


@cache
def blind(run: Run) -> tuple[str, Mapping[str, float]]:
    """What a model scores at best that never reads the question, from one draw of questions."""
    split = make_task(run.task).splits(seed_keys([0])[0])
    best = prior(run.task, run.text, split["train"], split["test"]).unfed
    scored = {KERAS: best.all, HEADLINE: best.exact_match, "loss": best.loss}
    return "floor: question never read", scored


def headline(results: Results) -> str:
    """The answer in a sentence."""
    said = [f"{arm} {score(values(results, arm, HEADLINE), HEADLINE)}" for arm in ran(results)]
    n = results["config"]["seeds"]
    return (
        f"Whole sums right after the last epoch, mean of {n} seeds [95 % interval]: "
        f"{'; '.join(said)}."
    )


def tables(results: Results) -> dict[str, Table]:
    """The tables of the answer, by name."""
    first = next(iter(results["config"]["arms"].values()))
    told = {
        "claims": claims_table(results),
        "scores": replace(
            score_table(results, METRICS, [blind(from_json(Run, first))]),
            title="Scores on the test questions",
        ),
        "paired": replace(comparison_table(results), title="What each change does"),
        "fit": replace(
            score_table(results, METRICS, split="train"),
            title="The same scores on the training questions",
        ),
        "thresholds": threshold_table(results, KERAS, (0.9, 0.95, CLAIM), ran(results)),
        "seeds": per_seed_table(results, HEADLINE),
    }
    if figures := published(results):
        told = {"published": published_table([(results, f) for f in figures])} | told
    return told


def cover(results: Results, path: Path) -> None:
    """The example's accuracy while training, with its published end."""
    ends = {p.arm: p.value for p in published(results) if p.value and p.epoch is None}
    learning_curves(results, KERAS, {}, path, ends)


def draw(results: Results, folder: Path) -> list[Picture]:
    """The pictures of the answer."""
    curves, steps = folder / "learning_curves.png", folder / "epochs_to_99.png"
    cover(results, curves)
    times = {arm: epochs_to(results, arm, KERAS, CLAIM) for arm in ran(results)}
    last = max(r["epoch"] for r in results["records"])
    step_curves(times, last, steps, "99 % of characters right on dev questions")
    return [
        Picture(curves, "Characters right on dev questions while training"),
        Picture(steps, "Epochs to 99 % of characters, every seed"),
    ]


EXPERIMENT = Experiment(
    "addition_rnn", __doc__ or "", PRESETS, arms, pairs, COMPARED, headline, tables, cover, draw
)

if __name__ == "__main__":
    main(EXPERIMENT.run)
