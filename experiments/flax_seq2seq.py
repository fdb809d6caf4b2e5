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

from terminal import main

from collections.abc import Mapping
from dataclasses import replace
from functools import cache

from s2sjax.config import Model, Optimiser, Training
from s2sjax.data.addition import Addition
from s2sjax.data.dataset import seed_key
from s2sjax.report.claims import Published
from s2sjax.report.results import Results
from s2sjax.study.experiment import Experiment, Study, refuse_changed, runs_of
from s2sjax.train.metrics import EXACT_MATCH
from s2sjax.train.run import Run

UPDATES, BATCH = 1_800, 128
SUMS = Addition(
    operands="short_first",
    train=UPDATES * BATCH,  # the example draws every batch anew: one epoch of them all
    dev=1_000,
    test=5_000,
    splits="independent",
)
FLAX = Run(
    SUMS,
    model=Model(hidden_size=512, init="flax"),
    optim=Optimiser(learning_rate=3e-3, epsilon=1e-8),
    train=Training(epochs=1, batch_size=BATCH, teacher_forcing=0.0),
)
SMOKE = replace(
    FLAX,
    task=replace(SUMS, train=5_120, dev=100, test=200),
    model=replace(FLAX.model, hidden_size=16),
)
PRESETS = {
    "published": ("the example as it stands, 1,800 updates, 4 seeds", Study(FLAX, seeds=4)),
    "smoke": ("the same, tiny: 2 seeds, 40 updates", Study(SMOKE, seeds=2)),
}
OWN, GOLD = "own symbols fed", "gold symbols fed"


def arms(preset: str, study: Study) -> Mapping[str, Run]:
    """As published, and with the gold symbols fed."""
    refuse_changed(study.run, PRESETS[preset][1].run, "train.teacher_forcing")
    gold = replace(study.run.train, teacher_forcing=1.0)
    return {OWN: study.run, GOLD: replace(study.run, train=gold)}


def published(preset: str) -> list[Published]:
    """The figure of its README: of one batch that was being trained on."""
    if preset != "published":
        return []
    setting = (
        "published on a training batch; ours newly drawn, about nine in ten of them trained on"
    )
    own = Published(f"{OWN}: sums right", 1.0, OWN, EXACT_MATCH, source="Flax' README", decimals=0)
    gold = Published(f"{GOLD}: sums right", None, GOLD, EXACT_MATCH)
    return [figure._replace(setting=setting) for figure in (own, gold)]


@cache
def trained_on(run: Run) -> str:
    """How many test questions were trained on, in words, estimated from one seed."""
    split = run.task.pairs(seed_key(0))
    test, known = [*split["test"]], {*split["train"]}
    return f"{100 * sum(pair in known for pair in test) / len(test):.0f} % of them trained on"


class FlaxSeq2Seq(Experiment):
    """The headline also says how many test questions were trained on."""

    def headline(self, results: Results) -> str:
        """The answer in two sentences."""
        share = trained_on(runs_of(results)[OWN])
        return f"{super().headline(results)} Questions: newly drawn, {share}."


EXPERIMENT = FlaxSeq2Seq(
    "flax_seq2seq", __doc__ or "", PRESETS, arms, pairs=lambda _: [(GOLD, OWN)],
    scores={"sums right": EXACT_MATCH, "characters, forced": "teacher_forced/all", "loss": "loss"},
    meaning="Sums right", published=published, picture="scores",
)  # fmt: skip

if __name__ == "__main__":
    main(EXPERIMENT.run)
