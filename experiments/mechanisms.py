"""Why does reversing the source help on addition? The controls that separate the explanations.

The question: five explanations fit "reversed beats forward". *Time lag*: the first symbols to be
written stand closer to the symbols they depend on (Sutskever, Vinyals & Le, 2014). *Digit order*:
`reverse(a+b)` is each operand least significant digit first, the direction carries travel, and the
operands are exchangeable. *Padding*: what fills a question stands between it and the decoder, or
not. *Given away*: in the notebook the answer's first character is given. *Overfitting*: both learn
the training questions, one generalises. Each predicts something that the others do not.

The command: ``python experiments/mechanisms.py quick``. ``sizes`` is the training sets of 1,000 to
50,000 questions; ``full`` is everything on three digits with the README's clean setting.

Time on two CPU cores, measured: quick 24 min 38 s, from its third program on beside other work,
which slowed it; sizes 14 minutes, beside other work. full takes a day there.

What to expect; the report marks each as held, failed or open (`PREDICTIONS`: exact match,
free-running). The four with a * were not in the first version of this list:

* the effect: reversed is above forward;
* digit order: reversing each operand's digits in place equals full reversal, swapping the operands
  equals forward (both within 10 points); with the source forward, writing the answer's last digit
  first beats writing it last;
* time lag: with the answer written last digit first, the forward source, whose last digits stand
  next to the decoder, beats the reversed one; eight fillers behind the question hurt the forward
  and the reversed arm, and reversal helps behind them (*); copying gains from reversal, copying
  backwards loses by it; writing the source twice helps;
* padding: spaces between question and decoder hurt, and not reading them heals it; reversal helps
  with spaces on the right (*), on the left (*), and on the right but not read (*);
* anything else: reversal helps when the answer's first character is given, in subtraction, whose
  operands are not exchangeable, when the decoder is fed its own symbols in training, and at a third
  and at three times the learning rate.

Of ``sizes`` (`SIZED`): reversal helps with 1,000, with 5,000, with 20,000 and with 50,000 training
questions.
"""

import signal
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Literal

if __name__ == "__main__":  # until training starts, Ctrl-C has nothing to save
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from s2sjax.cli import Study, main
from s2sjax.config import Model, Optimiser, Run, Training
from s2sjax.experiment import Experiment, refuse_changed
from s2sjax.metrics import HEADLINE
from s2sjax.pictures import Contrast, forest, scores_by_arm
from s2sjax.report import Picture, Table, score, score_table
from s2sjax.results import Results, values
from s2sjax.results import arms as ran
from s2sjax.taskconfig import Addition, Toy
from s2sjax.verdicts import Prediction, judge, prediction_table, threshold_table

QUICK = Run(
    Addition(digits=2, train=3_000, dev=500, test=1_000),
    model=Model(hidden_size=64),
    optim=Optimiser(learning_rate=3e-3, clip=1.0),
    train=Training(epochs=80, batch_size=32, eval_every=4, checkpoint_every=8, show_every=40),
)
SIZES = replace(
    QUICK,
    task=Addition(train=10_000, test=2_000),
    model=Model(),
    optim=Optimiser(learning_rate=2e-3, clip=1.0),
)
UPDATES = 12_500
"""Of every arm of the preset sizes, whatever its training set: a small one is seen more often."""

PRESETS = {
    "quick": ("every control on two digits: 64 units, 80 epochs of 3,000", Study(QUICK)),
    "sizes": (
        "training sets of 1,000 to 50,000 on three digits, as many updates each",
        Study(SIZES),
    ),
    "full": (
        "every control on three digits, in the README's clean setting",
        Study(Run(Addition(test=5_000))),
    ),
    "smoke": (
        "quick, tiny: 2 seeds, 2 epochs",
        Study(
            replace(
                QUICK,
                task=replace(QUICK.task, train=200, dev=50, test=50),
                model=Model(hidden_size=8),
                train=replace(QUICK.train, epochs=2, eval_every=1),
            ),
            seeds=2,
        ),
    ),
}


def _both(name: str, run: Run) -> dict[str, Run]:
    """A run in both orders of the source: 'NAME forward' and 'NAME reversed'."""
    return {
        f"{name} {order}".strip(): replace(run, text=replace(run.text, source_order=order))
        for order in ("forward", "reversed")
    }


def sized(run: Run, size: int) -> Run:
    """A run on `size` training questions with `UPDATES` updates, evaluated ten times."""
    epochs = -(-UPDATES // -(-size // run.train.batch_size))
    train = replace(run.train, epochs=epochs, eval_every=max(1, epochs // 10))
    train = replace(train, checkpoint_every=train.eval_every, show_every=epochs)
    return replace(run, task=replace(run.task, train=size), train=train)


def arms(preset: str, study: Study) -> Mapping[str, Run]:
    """The controls, each in the setting of the study's run but for what its name says."""
    run = study.run
    if preset == "sizes":
        own = ("epochs", "eval_every", "checkpoint_every", "show_every")
        refuse_changed(run, SIZES, "task.train", *(f"train.{setting}" for setting in own))
        sizes = (1_000, 5_000, 20_000, 50_000)
        return {a: r for n in sizes for a, r in _both(f"{n:,}", sized(run, n)).items()}

    def text(**settings) -> Run:
        return replace(run, text=replace(run.text, **settings))

    def rate(factor: float) -> Run:
        return replace(run, optim=replace(run.optim, learning_rate=factor * rate_of_run))

    def toy(kind: Literal["copy", "reverse"]) -> Run:
        task = run.task
        sizes = {"train": task.train, "dev": task.dev, "test": task.test}
        return replace(run, task=Toy(kind, symbols=10, min_length=4, max_length=6, **sizes))

    rate_of_run = run.optim.learning_rate
    subtraction = run
    if isinstance(run.task, Addition):
        subtraction = replace(run, task=replace(run.task, operator="-"))
    return {
        **_both("", run),
        **{f"{a}, answer reversed": r for a, r in _both("", text(target_order="reversed")).items()},
        "digits reversed": text(source_order="digits_reversed"),
        "operands swapped": text(source_order="operands_swapped"),
        **_both("subtraction", subtraction),
        **_both("rate / 3,", rate(1 / 3)),
        **_both("rate x 3,", rate(3)),
        **{a: r for lag in (2, 4, 8) for a, r in _both(f"lag {lag}", text(lag=lag)).items()},
        **_both("spaces right", text(justify="left", justify_when="after")),
        **_both("spaces left", text(justify="right", justify_when="after")),
        **_both(
            "skipped spaces right", text(justify="left", justify_when="after", mask_spaces=True)
        ),
        **_both("given", text(start="first_target")),
        **_both("own symbols fed", replace(run, train=replace(run.train, teacher_forcing_end=0.0))),
        "doubled": text(source_order="doubled"),
        **_both("copy", toy("copy")),
        **_both("copy backwards", toy("reverse")),
    }


def expect(
    claim: str, a: str, b: str, how: Literal["equal", "greater", "less"], margin: float = 0.0
) -> Prediction:
    """A prediction about exact match, free-running: a against b."""
    return Prediction(claim, a, b, HEADLINE, how, margin)


LATE = ", answer reversed"
NEAR = 0.10
"""How close two arms are that count as equal, as a fraction."""

PREDICTIONS = {
    "the effect": [expect("reversal helps", "reversed", "forward", "greater")],
    "digit order": [
        expect("digits reversed in place = reversed", "digits reversed", "reversed", "equal", NEAR),
        expect("operands swapped = forward", "operands swapped", "forward", "equal", NEAR),
        expect(
            "an answer written last digit first is easier", f"forward{LATE}", "forward", "greater"
        ),
    ],
    "time lag": [
        expect(
            "answer reversed: the forward source wins",
            f"forward{LATE}",
            f"reversed{LATE}",
            "greater",
        ),
        expect("8 fillers hurt forward", "lag 8 forward", "forward", "less"),
        expect("8 fillers hurt reversed", "lag 8 reversed", "reversed", "less"),
        expect("reversal helps behind 8 fillers", "lag 8 reversed", "lag 8 forward", "greater"),
        expect("copying gains by reversal", "copy reversed", "copy forward", "greater"),
        expect(
            "copying backwards loses by it",
            "copy backwards reversed",
            "copy backwards forward",
            "less",
        ),
        expect("doubling the source helps", "doubled", "forward", "greater"),
    ],
    "padding": [
        expect(
            "spaces before the decoder hurt", "spaces right forward", "spaces left forward", "less"
        ),
        expect(
            "skipping them heals", "skipped spaces right forward", "spaces right forward", "greater"
        ),
        expect(
            "reversal helps, spaces right",
            "spaces right reversed",
            "spaces right forward",
            "greater",
        ),
        expect(
            "reversal helps, spaces left", "spaces left reversed", "spaces left forward", "greater"
        ),
        expect(
            "reversal helps, spaces skipped",
            "skipped spaces right reversed",
            "skipped spaces right forward",
            "greater",
        ),
    ],
    "anything else": [
        expect(
            "reversal helps, first character given", "given reversed", "given forward", "greater"
        ),
        expect(
            "reversal helps subtraction", "subtraction reversed", "subtraction forward", "greater"
        ),
        expect(
            "reversal helps, own symbols fed",
            "own symbols fed reversed",
            "own symbols fed forward",
            "greater",
        ),
        expect(
            "reversal helps at a third of the rate",
            "rate / 3, reversed",
            "rate / 3, forward",
            "greater",
        ),
        expect(
            "reversal helps at three times the rate",
            "rate x 3, reversed",
            "rate x 3, forward",
            "greater",
        ),
    ],
}
"""By explanation, what it predicts; the opening of this file has them in words too."""

SIZED = {
    "more data": [
        expect(f"reversal helps with {n}", f"{n} reversed", f"{n} forward", "greater")
        for n in ("1,000", "5,000", "20,000", "50,000")
    ]
}


def predictions(preset: str) -> dict[str, list[Prediction]]:
    """What was predicted of a preset's arms, by explanation."""
    return SIZED if preset == "sizes" else PREDICTIONS


def pairs(preset: str, _: Study) -> list[tuple[str, str]]:
    """The pairs that the predictions are about."""
    return [(p.a, p.b) for told in predictions(preset).values() for p in told]


def headline(results: Results) -> str:
    """How many predictions held."""
    told = [p for group in predictions(results["preset"]).values() for p in group]
    verdicts = [judged.verdict for judged in judge(results, told)]
    said = ", ".join(f"{verdicts.count(v)} {v}" for v in ("held", "failed", "open"))
    gap = comparison_sentence(results) if results["preset"] != "sizes" else ""
    return f"{gap}Of {len(told)} predictions: {said}."


def comparison_sentence(results: Results) -> str:
    """The effect in the setting of the controls."""
    both = (score(values(results, arm, HEADLINE), HEADLINE) for arm in ("forward", "reversed"))
    return "Sums right, free-running: forward {}, reversed {}. ".format(*both)


def tables(results: Results) -> dict[str, Table]:
    """The tables of the answer, by name."""
    metrics = {"sums right": HEADLINE, "characters, forced": "teacher_forced/content"}
    told = [p for group in predictions(results["preset"]).values() for p in group]
    return {
        "predictions": prediction_table(results, told),
        "scores": replace(score_table(results, metrics), title="Every arm, test set"),
        "fit": replace(score_table(results, metrics, split="train"), title="... training set"),
        "thresholds": threshold_table(results, HEADLINE, (0.1, 0.5, 0.9), ran(results)),
    }


def cover(results: Results, path: Path) -> None:
    """Every prediction's paired difference."""
    told = [(p, group) for group, of in predictions(results["preset"]).items() for p in of]
    rows = [
        Contrast(p.claim, p.a, p.b, judged.verdict, group)
        for (p, group), judged in zip(told, judge(results, [p for p, _ in told]), strict=True)
    ]
    forest(results, rows, HEADLINE, path)


def draw(results: Results, folder: Path) -> list[Picture]:
    """The pictures of the answer."""
    contrasts, scores = folder / "predictions.png", folder / "arms.png"
    cover(results, contrasts)
    scores_by_arm(results, HEADLINE, scores, {"": ran(results)})
    return [
        Picture(contrasts, "What was predicted and what happened"),
        Picture(scores, "Sums right, every arm and seed"),
    ]


EXPERIMENT = Experiment(
    "mechanisms", __doc__ or "", PRESETS, arms, pairs, (HEADLINE,), headline, tables, cover, draw
)

if __name__ == "__main__":
    main(EXPERIMENT.run)
