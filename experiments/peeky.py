"""Saitoh's three arms: does reversing help, and does showing the encoder's state to every step?

The question: K. Saitoh's *Deep Learning from Scratch 2*, chapter 7, gives the one published
comparison of a forward, a reversed and a "peeky" decoder on addition: 10.84, 54.32 and 98.02 % of
sums right after 25 epochs, one run each. What do ten seeds give? And what did he not run: peeky
without reversal, and padding that the encoder does not read, in both orders? In his data the spaces
that fill a question stand between it and the decoder; reversing moves them away.

The command: ``python experiments/peeky.py saitoh``, or with his own 50,000 questions
``python experiments/peeky.py saitoh --data addition.txt --workdir runs/peeky/file``.

Time on two CPU cores: 19 min 16 s, measured.

What to expect: his three figures inside the spread of the seeds; reversal helps without peeky.
"""

from terminal import main

from collections.abc import Mapping
from dataclasses import replace
from functools import partial

from s2sjax.config import Model, Optimiser, Text, Training
from s2sjax.data.addition import Addition
from s2sjax.report.claims import Published
from s2sjax.study.experiment import Experiment, Study
from s2sjax.train.metrics import EXACT_MATCH
from s2sjax.train.run import Run

SAITOH = Run(
    Addition(operands="any_length", train=45_000, dev=1_000, test=5_000),
    Text(source_justify="left", target_justify="left", source_eos=False, target_eos=False),
    Model(decoder_init="hidden", embed_dim=16, init="saitoh", unroll=8),
    Optimiser(clip=5.0),
    Training(epochs=25, eval_every=1, checkpoint_every=5, show_every=5),
)

SMOKE = replace(
    SAITOH,
    task=Addition(digits=2, operands="any_length", train=1_000, dev=100, test=200),
    model=replace(SAITOH.model, hidden_size=16),
    train=replace(SAITOH.train, epochs=3, checkpoint_every=1),
)
PRESETS = {
    "saitoh": (
        "chapter 7 to the letter: 50,000 questions of up to 3 digits, 25 epochs",
        Study(SAITOH),
    ),
    "smoke": ("the same, tiny: 2 digits, 3 seeds, seconds", Study(SMOKE, seeds=3)),
}


def arms(_: str, study: Study) -> Mapping[str, Run]:
    """His three arms, then the three that he did not run."""
    run = study.run
    backward = replace(run, text=replace(run.text, source_order="reversed"))
    peeky = replace(run.model, peeky=True)
    return {
        "forward": run,
        "reversed": backward,
        "reversed peeky": replace(backward, model=peeky),
        "forward peeky": replace(run, model=peeky),
        "forward masked": replace(run, text=replace(run.text, mask_spaces=True)),
        "reversed masked": replace(backward, text=replace(backward.text, mask_spaces=True)),
    }


PAIRS = [
    ("reversed", "forward"),
    ("reversed peeky", "reversed"),
    ("reversed peeky", "forward peeky"),
    ("forward peeky", "forward"),
    ("forward masked", "forward"),
    ("reversed masked", "reversed"),
    ("reversed masked", "forward masked"),
]

# Of one run an arm: sums right after the last and the first epoch, and training loss.
RIGHT = {"forward": 0.10840, "reversed": 0.54320, "reversed peeky": 0.98020}
FIRST = {"forward": 0.00180, "reversed": 0.00120}
LOSS = {"forward": 0.77, "reversed": 0.28, "reversed peeky": 0.02}


def published(preset: str) -> list[Published]:
    """His figures; the masked arms and `forward peeky` he did not run."""
    if preset != "saitoh":
        return []
    figure = partial(
        Published,
        source="Saitoh, ch. 7, a reader's log",
        setting="sums of up to 3 digits, 25 epochs",
    )
    first = partial(figure, metric=EXACT_MATCH, split="dev", epoch=1, decimals=3)
    arms = (*RIGHT, "forward peeky", "forward masked", "reversed masked")
    return [
        *(figure(f"{arm}: sums right", RIGHT.get(arm), arm, EXACT_MATCH) for arm in arms),
        *(first(f"{arm}, epoch 1: sums right", share, arm) for arm, share in FIRST.items()),
        *(
            figure(f"{arm}: training loss", loss, arm, "epoch_loss", "train")
            for arm, loss in LOSS.items()
        ),
    ]


EXPERIMENT = Experiment(
    "peeky", __doc__ or "", PRESETS, arms, pairs=lambda _: PAIRS,
    scores={
        "sums right, free": EXACT_MATCH, "characters, forced": "teacher_forced/all", "loss": "loss",
    },
    meaning="Sums right, free-running", published=published, any_file=True,
)  # fmt: skip

if __name__ == "__main__":
    main(EXPERIMENT.run)
