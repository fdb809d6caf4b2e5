"""Why does reversing the source help on addition? The controls that separate the explanations.

The question: five explanations fit "reversed beats forward". *Time lag*: the first symbols to be
written stand closer to the symbols they depend on (Sutskever, Vinyals & Le, 2014). *Digit order*:
`reverse(a+b)` is each operand least significant digit first, the direction carries travel, and the
operands are exchangeable. *Padding*: what fills a question stands between it and the decoder, or
not. *Given away*: in the notebook the answer's first character is given. *Overfitting*: both learn
the training questions, one generalises. Each predicts something that the others do not.

The command: ``python experiments/mechanisms.py quick``. ``sizes`` is the training sets of 1,000 to
50,000 questions; ``full`` is everything on three digits, set as ``reverse_vs_forward.py clean``.

Time on two CPU cores: quick 25 minutes, sizes 14, both beside other work; full takes a day there.

What to expect: `PREDICTIONS` and `SIZED`, of exact match; the report marks each held, failed, open.
"""

from terminal import main

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

from reverse_vs_forward import FORCED, both_orders

from s2sjax.config import Justify, Model, Optimiser, Training
from s2sjax.data.addition import Addition
from s2sjax.data.toys import Toy
from s2sjax.report.claims import Expect, Prediction
from s2sjax.study.experiment import Experiment, Study, refuse_changed
from s2sjax.train.metrics import EXACT_MATCH
from s2sjax.train.run import Run

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
SMOKE = replace(
    QUICK,
    task=Addition(digits=2, train=200, dev=50, test=50),
    model=Model(hidden_size=8),
    train=replace(QUICK.train, epochs=2, eval_every=1),
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
        "every control on three digits, in the setting of reverse_vs_forward.py clean",
        Study(Run(Addition(test=5_000))),
    ),
    "smoke": ("quick, tiny: 2 seeds, 2 epochs", Study(SMOKE, seeds=2)),
}
LATE, BACK = ", answer reversed", "copy backwards"
RIGHT, LEFT, SKIPPED = "spaces right", "spaces left", "skipped spaces right"


def sized(run: Run, size: int) -> Run:
    """A run on `size` training questions with `UPDATES` updates, evaluated ten times."""
    epochs = -(-UPDATES // -(-size // run.train.batch_size))
    train = replace(run.train, epochs=epochs, eval_every=max(1, epochs // 10))
    train = replace(train, checkpoint_every=train.eval_every, show_every=epochs)
    assert isinstance(run.task, Addition)
    return replace(run, task=replace(run.task, train=size), train=train)


def arms(preset: str, study: Study) -> Mapping[str, Run]:
    """The controls, each in the setting of the study's run but for what its name says."""
    run = study.run
    if preset == "sizes":
        own = ("epochs", "eval_every", "checkpoint_every", "show_every")
        refuse_changed(run, SIZES, "task.train", *(f"train.{setting}" for setting in own))
        sizes = (1_000, 5_000, 20_000, 50_000)
        return {a: r for n in sizes for a, r in both_orders(sized(run, n), f"{n:,}").items()}

    task, rate = run.task, run.optim.learning_rate

    def text(**settings) -> Run:
        return replace(run, text=replace(run.text, **settings))

    def justified(side: Justify, mask_spaces: bool = False) -> Run:
        sides = {"source_justify": side, "target_justify": side}
        return text(**sides, justify_when="after", mask_spaces=mask_spaces)

    def paced(factor: float) -> Run:
        return replace(run, optim=replace(run.optim, learning_rate=factor * rate))

    def toy(kind: Literal["copy", "reverse"]) -> Run:
        sizes = dict(task.sizes or {})
        return replace(run, task=Toy(kind, symbols=10, min_length=4, max_length=6, **sizes))

    late = both_orders(text(target_order="reversed"))
    minus = replace(task, operator="-") if isinstance(task, Addition) else task
    own = replace(run, train=replace(run.train, teacher_forcing_end=0.0))
    return {
        **both_orders(run),
        **{f"{order}{LATE}": r for order, r in late.items()},
        "digits reversed": text(source_order="digits_reversed"),
        "operands swapped": text(source_order="operands_swapped"),
        **both_orders(replace(run, task=minus), "subtraction"),
        **both_orders(paced(1 / 3), "rate / 3,"),
        **both_orders(paced(3), "rate x 3,"),
        **both_orders(text(lag=2), "lag 2"),
        **both_orders(text(lag=4), "lag 4"),
        **both_orders(text(lag=8), "lag 8"),
        **both_orders(justified("left"), RIGHT),
        **both_orders(justified("right"), LEFT),
        **both_orders(justified("left", mask_spaces=True), SKIPPED),
        **both_orders(text(start="first_target"), "given"),
        **both_orders(own, "own symbols fed"),
        "doubled": text(source_order="doubled"),
        **both_orders(toy("copy"), "copy"),
        **both_orders(toy("reverse"), BACK),
    }


NEAR = 0.10  # how close two arms are that count as equal, as a fraction
SIGNS: dict[str, Expect] = {"=": "equal", ">": "greater", "<": "less"}


def expect(claim: str, a: str, sign: str, b: str) -> Prediction:
    """A prediction about exact match, free-running: a against b."""
    return Prediction(claim, a, b, EXACT_MATCH, SIGNS[sign], NEAR if sign == "=" else 0.0)


def helps(name: str = "", where: str = "") -> Prediction:
    """The prediction that reversal helps the arms of a name."""
    a, b = (f"{name} {order}".strip() for order in ("reversed", "forward"))
    return expect(f"reversal helps{where}", a, ">", b)


PREDICTIONS = {
    "the effect": [helps()],
    "digit order": [
        expect("digits reversed in place = reversed", "digits reversed", "=", "reversed"),
        expect("operands swapped = forward", "operands swapped", "=", "forward"),
        expect("an answer written last digit first is easier", f"forward{LATE}", ">", "forward"),
    ],
    "time lag": [  # the last digits then stand next to the decoder
        expect(
            "answer reversed: the forward source wins", f"forward{LATE}", ">", f"reversed{LATE}"
        ),
        expect("8 fillers hurt forward", "lag 8 forward", "<", "forward"),
        expect("8 fillers hurt reversed", "lag 8 reversed", "<", "reversed"),
        helps("lag 8", " behind 8 fillers"),
        expect("copying gains by reversal", "copy reversed", ">", "copy forward"),
        expect("copying backwards loses by it", f"{BACK} reversed", "<", f"{BACK} forward"),
        expect("doubling the source helps", "doubled", ">", "forward"),
    ],
    "padding": [
        expect("spaces before the decoder hurt", f"{RIGHT} forward", "<", f"{LEFT} forward"),
        expect("skipping them heals", f"{SKIPPED} forward", ">", f"{RIGHT} forward"),
        helps(RIGHT, ", spaces right"),
        helps(LEFT, ", spaces left"),
        helps(SKIPPED, ", spaces skipped"),
    ],
    "anything else": [
        helps("given", ", first character given"),
        helps("subtraction", " subtraction"),  # its operands are not exchangeable
        helps("own symbols fed", ", own symbols fed"),
        helps("rate / 3,", " at a third of the rate"),
        helps("rate x 3,", " at three times the rate"),
    ],
}
"""By explanation, what it predicts.

Four were not in the first version of this list: that reversal helps behind fillers, and with spaces
right, left and skipped.
"""

SIZED = {"more data": [helps(n, f" with {n}") for n in ("1,000", "5,000", "20,000", "50,000")]}


def predictions(preset: str) -> dict[str, list[Prediction]]:
    """What was predicted of a preset's arms, by explanation."""
    return SIZED if preset == "sizes" else PREDICTIONS


EXPERIMENT = Experiment(
    "mechanisms", __doc__ or "", PRESETS, arms,
    pairs=lambda preset: [(p.a, p.b) for of in predictions(preset).values() for p in of],
    metrics=(EXACT_MATCH,),
    scores={"sums right": EXACT_MATCH, "characters, forced": FORCED},
    meaning="Sums right, free-running", named=("forward", "reversed"),
    thresholds=(0.1, 0.5, 0.9), predictions=predictions, picture="contrasts",
)  # fmt: skip

if __name__ == "__main__":
    main(EXPERIMENT.run)
