"""Keras' addition_rnn, both orders: how much of its well-known table is true?

The question: Keras' example adds numbers of 2 to 5 digits with a reversed question and says in its
docstring how many examples and epochs 99 % take: 5k and 55, 50k and 100, 400k and 20, 550k and 30.
The text is older than the model it heads, and the forward arm was never reported. How many epochs
does 99 % take, over seeds, and what does reversal do?

The command: ``python experiments/addition_rnn.py digits3``; the other sizes are ``digits2``,
``digits4`` and ``digits5``, and ``cells`` compares LSTM, GRU and simple RNN on two digits, in fewer
epochs than reversed needs for 99 % there.

Time on two CPU cores, measured beside other work: cells 8 minutes, digits2 5, digits3 31, digits4
64 and digits5 81.

What to expect: from three digits on both orders get to 99 % of the characters, reversed in about
half the epochs.
"""

from terminal import main

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

from reverse_vs_forward import both_orders

from s2sjax.analysis.floors import prior
from s2sjax.config import Model, Text, Training
from s2sjax.data.addition import Addition
from s2sjax.data.dataset import seed_key
from s2sjax.report.claims import LATER, MEDIAN, Published, epochs_to, times
from s2sjax.report.plots import step_curves
from s2sjax.report.results import Results, values
from s2sjax.report.results import arms as ran
from s2sjax.report.tables import NONE, Picture, Table
from s2sjax.study.experiment import Experiment, Study, runs_of
from s2sjax.train.metrics import EXACT_MATCH
from s2sjax.train.run import Run

TEXT = Text(
    source_justify="left",
    target_justify="left",
    source_eos=False,
    target_eos=False,
    start="nothing",
)
KERAS = "free_running/all"
"""Keras' accuracy, which counts spaces. The decoder reads no symbols: forced and free are equal."""
CLAIM = 0.99
CLAIMED = {2: ("5k", 55), 3: ("50k", 100), 4: ("400k", 20), 5: ("550k", 30)}
"""Keras' docstring: examples and epochs to 99 % of train and test characters, by digits."""

LOG = {
    1: 0.4116, 2: 0.5708, 3: 0.6534, 5: 0.7436, 7: 0.8573, 8: 0.9228, 9: 0.9665, 10: 0.9774,
    14: 0.9970, 17: 0.9711, 18: 0.9565, 20: 0.9791, 21: 0.9982, 25: 0.9752, 28: 0.9754,
}  # fmt: skip
"""Keras' log of three digits, reversed: accuracy on its validation questions by epoch, of 29."""


def keras(
    digits: int, train: int, held_out: int, epochs: int, batch: int, seeds: int = 10, **model: Any
) -> tuple[str, Study]:
    """A description and the settings of Keras' example with numbers of so many digits.

    Keras scores a tenth of its questions after every epoch: here they are dev. Test is scored once.
    """
    sizes = {"train": train, "dev": held_out, "test": held_out}
    task = Addition(digits=digits, operands="any_length", **sizes)
    looks = Training(epochs, batch, eval_every=1, checkpoint_every=1, show_every=1, shown=10)
    what = f"{digits} digits, {train:,} training questions, batch {batch}, {epochs} epochs"
    run = Run(task, TEXT, Model(decoder="repeat", **model), train=looks)
    return f"{what}, {seeds} seeds", Study(run, seeds)


PRESETS = {
    "digits3": keras(3, 45_000, 2_500, 29, 32),  # the example as it stands
    "digits2": keras(2, 4_500, 250, 100, 32),
    "digits4": keras(4, 360_000, 2_500, 20, 128, seeds=3),
    "digits5": keras(5, 495_000, 2_500, 30, 128, seeds=3),
    "cells": (
        "2 digits, 60 epochs: LSTM, GRU, simple RNN, 2 decoder layers; LSTM at batch 128",
        keras(2, 4_500, 250, 60, 32)[1],
    ),
    "smoke": keras(2, 1_000, 100, 3, 32, seeds=3, hidden_size=16),
}


def arms(preset: str, study: Study) -> Mapping[str, Run]:
    """Forward, which was never published, and reversed; in the preset cells, for each model."""
    run = study.run
    models = {"": run}
    if preset == "cells":
        models = {
            "LSTM": run,
            "GRU": replace(run, model=replace(run.model, cell="gru")),
            "RNN": replace(run, model=replace(run.model, cell="rnn")),
            "2 layers": replace(run, model=replace(run.model, decoder_layers=2)),
            "batch 128": replace(run, train=replace(run.train, batch_size=128)),
        }
    return {arm: r for name, model in models.items() for arm, r in both_orders(model, name).items()}


def pairs(preset: str) -> list[tuple[str, str]]:
    """Reversed against forward."""
    names = [*arms(preset, PRESETS[preset][1])]
    return [*zip(names[1::2], names[::2], strict=True)]


def published(preset: str) -> list[Published]:
    """Keras' log of three digits, on validation questions (our dev), and its docstring's claims."""
    if not preset.startswith("digits"):
        return []
    task, batch = PRESETS[preset][1].run.task, PRESETS[preset][1].run.train.batch_size
    assert isinstance(task, Addition)
    figure = partial(
        Published,
        metric=KERAS,
        split="dev",
        source="Keras' log",
        setting=f"sums of {task.digits} digits, {task.train:,} questions, batch {batch}",
    )
    if preset == "digits3":  # of the docstring's 100 epochs we run 29
        saw = "their last epochs are a saw-tooth"
        return [
            *(figure(f"reversed, epoch {e}", x, "reversed", epoch=e) for e, x in LOG.items()),
            figure("reversed, last epoch", 0.9883, "reversed", reason=saw),
            figure("reversed, best epoch", 0.9985, "reversed", epoch="best"),
            figure("forward, last epoch", None, "forward"),
            figure("forward, best epoch", None, "forward", epoch="best"),
        ]
    epoch = CLAIMED[task.digits][1]
    mark = {"source": "Keras' docstring", "reason": "a mark that was passed, no score"}
    return [
        figure(f"reversed, epoch {epoch}", CLAIM, "reversed", epoch=epoch, decimals=0, **mark),
        figure(f"forward, epoch {epoch}", None, "forward", epoch=epoch),
    ]


def claims_table(runs: Mapping[str, Run], results: Results | None) -> Table:
    """The docstring's claims, and the epochs that our seeds took (None: there are no results)."""
    rows = []
    for arm, run in runs.items():
        assert isinstance(run.task, Addition)
        examples, epoch = CLAIMED.get(run.task.digits, ("", None))
        epoch = epoch if arm.endswith("reversed") else None
        cells = (NONE, NONE, NONE, LATER)
        if results is not None:
            reached = [*epochs_to(results, arm, KERAS, CLAIM).values()]
            n, count, median = times(reached)
            learned = sum(share >= CLAIM for share in values(results, arm, KERAS, "train"))
            verdict = NONE if epoch is None else claim_verdict(reached, epoch, run.train.epochs)
            cells = (f"{count} of {n}", median, f"{learned} of {n}", verdict)
        claimed = NONE if epoch is None else f"{examples}, {epoch} epochs"
        ours = f"{run.task.train:,}, batch {run.train.batch_size}"
        what = f"{arm}, {run.task.digits} digits"
        rows.append((what, claimed, ours, str(run.train.epochs), *cells))
    headers = (
        "what", "claimed: examples, epochs", "ours: examples", "epochs run", "seeds that got there",
        "median epoch [range]", "of the training questions, in the end", "the claim",
    )  # fmt: skip
    note = (
        "Spaces that fill an answer count as characters. The claim has held where all seeds were "
        "there by its epoch, failed where none was; on the training questions seeds are scored "
        f"after their last epoch. {MEDIAN}"
    )
    title = "Epochs to 99 % of the characters of unseen questions"
    return Table(title, headers, tuple(rows), note)


def claim_verdict(reached: Sequence[int | None], claimed: int, last: int) -> str:
    """Whether a claim held, by the epoch of each seed (None: never) until the last epoch run."""
    count, n = sum(e is not None and e <= claimed for e in reached), len(reached)
    verdict = "held" if count == n else "failed" if count == 0 and last >= claimed else "open"
    return f"{verdict}: {count} of {n} seeds by epoch {min(claimed, last)}"


@cache
def never_read(run: Run) -> dict[str, dict[str, float]]:
    """The best scores without reading the question, estimated from the questions of one seed."""
    assert isinstance(run.task, Addition)
    split = run.task.pairs(seed_key(0))
    best = prior(run.task, run.text, [*split["train"]], [*split["test"]])
    scored = {KERAS: best.all, EXACT_MATCH: best.exact_match, "loss": best.loss}
    return {"question never read": scored}


class AdditionRnn(Experiment):
    """Keras' claims, and when each seed got there."""

    def tables(self, results: Results) -> dict[str, Table]:
        """The tables of the answer, by name."""
        return {"claims": claims_table(runs_of(results), results)} | super().tables(results)

    def draw(self, results: Results, folder: Path) -> list[Picture]:
        """The pictures of the answer."""
        reached = {arm: epochs_to(results, arm, KERAS, CLAIM) for arm in ran(results)}
        last = max(r["epoch"] for r in results["records"])
        path = folder / "epochs_to_99.png"
        step_curves(reached, last, path, "99 % of characters right on dev questions")
        drawn = Picture(path, "Epochs to 99 % of characters, every seed")
        return [*super().draw(results, folder), drawn]


EXPERIMENT = AdditionRnn(
    "addition_rnn", __doc__ or "", PRESETS, arms, pairs, metrics=("loss", KERAS, EXACT_MATCH),
    scores={"characters": KERAS, "whole sums": EXACT_MATCH, "loss": "loss"},
    meaning="Whole sums right after the last epoch", curve=KERAS, thresholds=(0.9, 0.95, CLAIM),
    published=published, floors=lambda results: never_read(next(iter(runs_of(results).values()))),
)  # fmt: skip

if __name__ == "__main__":
    main(EXPERIMENT.run)
