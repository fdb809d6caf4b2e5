"""Saitoh's three arms: does reversing help, and does showing the encoder's state to every step?

The question: K. Saitoh's *Deep Learning from Scratch 2*, chapter 7, gives the one published
comparison of a forward, a reversed and a "peeky" decoder on addition: 10.84, 54.32 and 98.02 % of
sums right after 25 epochs, one run each. What do ten seeds give? And what did he not run: peeky
without reversal, and padding that the encoder does not read? In his data the spaces that fill a
question stand between it and the decoder; reversing moves them away.

The command: ``python experiments/peeky.py saitoh``, or with his own 50,000 questions
``python experiments/peeky.py saitoh --data addition.txt --workdir runs/peeky/file``.

Time on two CPU cores: 19 min 16 s, measured.

What to expect: his three figures inside the spread of the seeds; reversal helps without peeky.
"""

import signal
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

if __name__ == "__main__":  # until training starts, Ctrl-C has nothing to save
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from s2sjax.cli import Study, main
from s2sjax.config import Model, Optimiser, Run, Text, Training
from s2sjax.experiment import Experiment
from s2sjax.metrics import HEADLINE
from s2sjax.pictures import Contrast, forest
from s2sjax.plots import learning_curves
from s2sjax.report import (
    MINUS,
    Picture,
    Table,
    comparison_table,
    per_seed_table,
    score,
    score_table,
)
from s2sjax.results import Results, values
from s2sjax.results import arms as ran
from s2sjax.taskconfig import Addition
from s2sjax.verdicts import Published, published_table

COMPARED = ("loss", HEADLINE)
METRICS = {"sums right, free": HEADLINE, "characters, forced": "teacher_forced/all", "loss": "loss"}

SAITOH = Run(
    Addition(operands="any_length", train=45_000, dev=1_000, test=5_000),
    Text(justify="left", source_eos=False, target_eos=False),
    Model(hand_over="hidden", embed_dim=16, init="saitoh", unroll=8),
    Optimiser(clip=5.0),
    Training(epochs=25, eval_every=1, checkpoint_every=5, show_every=5),
)

PRESETS = {
    "saitoh": (
        "chapter 7 to the letter: 50,000 questions of up to 3 digits, 25 epochs",
        Study(SAITOH),
    ),
    "smoke": (
        "the same, tiny: 2 digits, 3 seeds, seconds",
        Study(
            replace(
                SAITOH,
                task=Addition(digits=2, operands="any_length", train=1_000, dev=100, test=200),
                model=replace(SAITOH.model, hidden_size=16),
                train=replace(SAITOH.train, epochs=3, checkpoint_every=1),
            ),
            seeds=3,
        ),
    ),
}


def arms(_: str, study: Study) -> Mapping[str, Run]:
    """His three arms, then the two that he did not run."""
    run = study.run
    backward = replace(run, text=replace(run.text, source_order="reversed"))
    peeky = replace(run.model, peeky=True)
    return {
        "forward": run,
        "reversed": backward,
        "reversed peeky": replace(backward, model=peeky),
        "forward peeky": replace(run, model=peeky),
        "forward masked": replace(run, text=replace(run.text, mask_spaces=True)),
    }


def pairs(*_: object) -> list[tuple[str, str]]:
    """What reversal, peeky and the mask change."""
    return [
        ("reversed", "forward"),
        ("reversed peeky", "reversed"),
        ("reversed peeky", "forward peeky"),
        ("forward peeky", "forward"),
        ("forward masked", "forward"),
        ("reversed", "forward masked"),
    ]


def published(preset: str) -> list[Published]:
    """His figures, of one run an arm; `masked` and `forward peeky` he did not run."""
    if preset != "saitoh":
        return []
    source, setting = "Saitoh, ch. 7, a reader's log", "sums of up to 3 digits, 25 epochs"
    figures = {
        "forward": (0.10840, 0.77),
        "reversed": (0.54320, 0.28),
        "reversed peeky": (0.98020, 0.02),
        "forward peeky": (None, None),
        "forward masked": (None, None),
    }
    exact = [
        Published(f"{arm}: sums right", value, arm, HEADLINE, source=source, setting=setting)
        for arm, (value, _) in figures.items()
    ]
    first = [
        Published(
            f"{arm}, epoch 1: sums right", value, arm, HEADLINE, "dev", 1, source, setting,
            decimals=3,
        )
        for arm, value in {"forward": 0.00180, "reversed": 0.00120}.items()
    ]  # fmt: skip
    loss = [  # logged as about 0.77, 0.28 and 0.02
        Published(f"{arm}: training loss", value, arm, "epoch_loss", "train", None, source, setting)
        for arm, (_, value) in figures.items()
        if value is not None
    ]
    return exact + first + loss


def headline(results: Results) -> str:
    """The answer in two sentences."""
    said = [f"{arm} {score(values(results, arm, HEADLINE), HEADLINE)}" for arm in ran(results)]
    n = len(values(results, "forward", HEADLINE))
    return f"Sums right, free-running, mean of {n} seeds [95 % interval]: {'; '.join(said)}."


def tables(results: Results) -> dict[str, Table]:
    """The tables of the answer, by name."""
    told = {
        "scores": replace(score_table(results, METRICS), title="Scores on the test questions"),
        "paired": replace(comparison_table(results), title="What each change does"),
        "fit": replace(score_table(results, METRICS, split="train"), title="... while training on"),
        "seeds": per_seed_table(results, HEADLINE),
    }
    if figures := EXPERIMENT.figures(results):
        told = {"published": published_table([(results, f) for f in figures])} | told
    return told


def cover(results: Results, path: Path) -> None:
    """Sums right while training, with his figures where they end."""
    figures = EXPERIMENT.figures(results)
    ends = {p.arm: p.value for p in figures if p.metric == HEADLINE and p.value and not p.epoch}
    learning_curves(results, HEADLINE, {}, path, ends)


def draw(results: Results, folder: Path) -> list[Picture]:
    """The pictures of the answer."""
    curves, contrasts = folder / "learning_curves.png", folder / "contrasts.png"
    cover(results, curves)
    rows = [Contrast(f"{a} {MINUS} {b}", a, b) for a, b in pairs()]
    forest(results, rows, HEADLINE, contrasts)
    return [
        Picture(curves, "Sums right on dev questions while training"),
        Picture(contrasts, "What each change does to the sums right, every seed"),
    ]


EXPERIMENT = Experiment(
    "peeky", __doc__ or "", PRESETS, arms, pairs, COMPARED, headline, tables, cover, draw,
    published=published, any_file=True,
)  # fmt: skip

if __name__ == "__main__":
    main(EXPERIMENT.run)
