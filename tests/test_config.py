"""Settings: their ranges, what does not go together, and in which words it is refused."""

import itertools
import re
import typing
from dataclasses import replace
from typing import Any

import pytest

from s2sjax.config import Model, Optimiser, Text, Training
from s2sjax.data.tasks import Addition, Dates, Sentences, TaskConfig, Toy
from s2sjax.errors import LARGEST, UserError
from s2sjax.train.run import Run

KINDS = [*typing.get_args(TaskConfig)[:-1], Text, Model, Optimiser, Training, Run]
SIZES = ("train", "dev", "test")

# --- ranges ----------------------------------------------------------------------------------

RANGES: dict[type, dict[str, tuple[float, float | None]]] = {
    Addition: {**dict.fromkeys(SIZES, (1, None)), "digits": (1, 1_000), "terms": (2, 1_000)},
    Toy: {
        **dict.fromkeys(SIZES, (1, None)),
        "symbols": (1, 26),
        "min_length": (1, None),
        "max_length": (1, 1_000),
        "longer": (0, 1_000),
    },
    Dates: {
        **dict.fromkeys(SIZES, (1, None)),
        **dict.fromkeys(("first_year", "last_year"), (1_000, 9_999)),
    },
    Sentences: {},
    Text: {
        "lag": (0, 1_000),
        "min_count": (1, LARGEST),
        "max_length": (1, LARGEST),
        "source_size": (5, LARGEST),
        "target_size": (5, LARGEST),
    },
    Model: {
        **dict.fromkeys(("hidden_size", "embed_dim", "unroll"), (1, LARGEST)),
        **dict.fromkeys(("encoder_layers", "decoder_layers"), (1, 100)),
        **dict.fromkeys(("dropout", "recurrent_dropout"), (0.0, 0.99)),
    },
    Optimiser: {
        **dict.fromkeys(("learning_rate", "epsilon"), (0.0, 1.0 * LARGEST)),
        "warmup": (0, LARGEST),
        "clip": (0.0, 1.0 * LARGEST),
    },
    Training: {
        **dict.fromkeys(("epochs", "batch_size", "eval_every", "checkpoint_every"), (1, LARGEST)),
        **dict.fromkeys(("show_every", "patience", "tokens_per_batch"), (1, LARGEST)),
        **dict.fromkeys(("teacher_forcing", "teacher_forcing_end", "label_smoothing"), (0.0, 1.0)),
        "shown": (1, 1_000),
        "buckets": (1, 100),
    },
    Run: {},
}  # fmt: skip
EVERY = [(kind, name, *ends) for kind, names in RANGES.items() for name, ends in names.items()]
LOOSE: dict[tuple[type, str], dict[str, Any]] = {
    (Addition, "digits"): dict.fromkeys(SIZES, 1),
    (Toy, "symbols"): dict.fromkeys(SIZES, 1) | {"max_length": 3},
    (Toy, "max_length"): dict.fromkeys(SIZES, 1),
    (Dates, "first_year"): dict.fromkeys(SIZES, 1) | {"last_year": 9_999},
    (Dates, "last_year"): dict.fromkeys(SIZES, 1) | {"first_year": 1_000},
}
"""Settings that let another go to its ends."""


def test_every_number_has_a_range():
    for kind in KINDS:
        hints = typing.get_type_hints(kind)
        numbers = {n for n, hint in hints.items() if {hint, *typing.get_args(hint)} & {int, float}}
        assert numbers - set(RANGES[kind]) == ({"dev_share", "test_share"} & numbers)


@pytest.mark.parametrize(("kind", "name", "least", "most"), EVERY)
def test_the_ends_of_a_range_are_allowed_and_what_is_beyond_is_refused(kind, name, least, most):
    beside = LOOSE.get((kind, name), {})
    for end in (least, most):
        if end is not None and (name, end) != ("clip", 0):
            assert getattr(kind(**beside, **{name: end}), name) == end
    where, wrong = f"{kind.__name__}.{name}", [least - 1, least - 10]
    wrong += [float("nan"), float("-inf"), -1e-9] if isinstance(least, float) else []
    for value in wrong:
        with pytest.raises(UserError, match=f"^{where} must be at least .*, not {value}$"):
            kind(**beside, **{name: value})
    if most is None:
        with pytest.raises(UserError, match=f"^{where} must be at most |exist"):
            kind(**beside, **{name: LARGEST + 1})
        return
    for value in (most + 1, 10 * most, *([float("inf")] if isinstance(most, float) else [])):
        with pytest.raises(
            UserError, match=f"^{where} must be at most .*, not {value}".replace("+", ".")
        ):
            kind(**beside, **{name: value})  # fmt: skip


# --- what does not go together ---------------------------------------------------------------

REPEAT = Run(text=Text(start="nothing"), model=Model(decoder="repeat"))
FILE = {"train": 900, "dev": 10, "test": 100, "file": "questions.txt"}
LETTERS = Toy(max_length=1, symbols=9, train=5, dev=2, test=2)
IMPOSSIBLE = [
    (
        lambda: Addition(operands="short_first", operator="-"),
        "Addition.operands short_first sorts them: Addition.operator must be +",
    ),
    *(
        (
            lambda settings=settings: Addition(**FILE, **settings),
            "Addition.file holds distinct sums: Addition.splits must be leak_free, "
            "Addition.operator +",
        )
        for settings in ({"splits": "independent"}, {"operator": "-"})
    ),
    (
        lambda: Toy(min_length=4, max_length=3),
        "Toy.max_length must be at least 4, not 3",
    ),
    (
        lambda: Text(mask_spaces=True, target_justify="right"),
        "Text.mask_spaces needs Text.source_justify",
    ),
    (
        lambda: Text(justify_when="after"),
        "Text.justify_when 'after' needs Text.source_justify or Text.target_justify",
    ),
    (
        lambda: Text(target_eos=False, source_justify="right"),
        "Text.target_eos False needs Text.target_justify",
    ),
    *(
        (
            lambda side=side, unit=unit: Text(**{f"{side}_unit": unit, f"{side}_justify": "left"}),
            f"Text.{side}_justify needs Text.{side}_unit 'characters'",
        )
        for side in ("source", "target")
        for unit in ("words", "subwords")
    ),
    (
        lambda: Text(source_unit="words", lag=1),
        "Text.lag needs Text.source_unit 'characters'",
    ),
    (
        lambda: Text(source_unit="words", source_order="digits_reversed"),
        "Text.source_order 'digits_reversed' needs Text.source_unit 'characters'",
    ),
    (
        lambda: Text(source_unit="subwords", source_size=259),
        "Text.source_size must be at least 260, not 259",
    ),
    *(
        (
            lambda settings=settings: Text(**settings),
            "Text.cut and Text.lower_case need Text.source_unit or Text.target_unit 'words'",
        )
        for settings in ({"cut": "whitespace"}, {"lower_case": False, "target_unit": "subwords"})
    ),
    *(
        (
            lambda cell=cell: Run(model=Model(cell=cell, decoder_init="hidden")),
            "Model.decoder_init 'hidden' needs a Model.cell with a state c, such as 'lstm'",
        )
        for cell in ("gru", "rnn")
    ),
    (
        lambda: Model(decoder="repeat", decoder_init="hidden"),
        "Model.decoder 'repeat' cannot use Model.decoder_init",
    ),
    (
        lambda: Model(decoder_init="zero"),
        "Model.decoder_init 'zero' needs Model.attention or Model.peeky",
    ),
    (
        lambda: Model(directions=2, hidden_size=3),
        "Model.directions 2 needs an even Model.hidden_size, not 3",
    ),
    (lambda: Model(attend="before"), "Model.attend 'before' needs Model.attention"),
    (
        lambda: Model(attention="dot", peeky=True),
        "Model.attention cannot use Model.decoder 'repeat' or Model.peeky",
    ),
    (
        lambda: Optimiser(clip=0.0),
        "Optimiser.clip must be above 0",
    ),
    (
        lambda: Optimiser(schedule="inverse_sqrt"),
        "Optimiser.schedule 'inverse_sqrt' needs Optimiser.warmup above 0",
    ),
    *(
        (
            lambda start=start: Run(text=Text(start=start), model=Model(decoder="repeat")),
            f"Text.start nothing and Model.decoder repeat go together: not {start} and repeat",
        )
        for start in ("bos", "first_target")
    ),
    (
        lambda: Run(text=Text(start="nothing")),
        "Text.start nothing and Model.decoder repeat go together: not nothing and state",
    ),
    *(
        (
            lambda settings=settings: replace(REPEAT, train=Training(**settings)),
            "Training.teacher_forcing: Model.decoder repeat reads no symbols",
        )
        for settings in ({"teacher_forcing": 0.5}, {"teacher_forcing_end": 0.0})
    ),
    *(
        (
            lambda order=order, task=task: Run(task, Text(source_order=order)),
            f"Text.source_order {order}: {type(task).__name__} has no operands",
        )
        for order in ("digits_reversed", "operands_swapped")
        for task in (Toy(), Dates(), Sentences())
    ),
    (
        lambda: Run(LETTERS, Text(start="first_target")).formatter,
        "Text.start 'first_target' needs answers of more than one symbol",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("build", "message"), IMPOSSIBLE, ids=[text for _, text in IMPOSSIBLE])
def test_what_does_not_go_together_is_refused_with_the_reason(build, message):
    with pytest.raises(UserError, match=f"^{re.escape(message)}$"):
        build()


def test_what_goes_together_is_allowed():
    Addition(operands="short_first", terms=3)
    Addition(**FILE, operands="any_length", sha256="0")
    for source, target, when, mask in itertools.product(
        ("left", "right"), (None, "left", "right"), ("before", "after"), (True, False)
    ):
        text = Text(
            source_justify=source,
            target_justify=target,
            justify_when=when,
            mask_spaces=mask,
            target_eos=target is None,
        )
        for start in ("bos", "first_target"):
            Run(text=replace(text, start=start))
        nothing = replace(text, start="nothing")
        Run(text=nothing, model=Model(decoder="repeat", peeky=True, embed_dim=3, cell="gru"))
    Text(source_unit="words", target_unit="subwords", source_order="doubled", cut="whitespace")
    Text(source_unit="words", target_justify="left", target_eos=False)
    Model(encoder_layers=2, decoder_layers=3, peeky=True, decoder_init="hidden")
    Model(decoder_init="zero", attention="additive", attend="before")
    Optimiser(schedule="inverse_sqrt", warmup=1)
    Run(task=Toy(), text=Text(source_order="doubled"))


@pytest.mark.parametrize(
    ("first", "last", "always"),
    [(1.0, None, True), (1.0, 1.0, True), (1.0, 0.0, False), (0.9, None, False), (0.0, 1.0, False)],
)
def test_gold_symbols_are_always_fed_where_their_chance_is_one_throughout(first, last, always):
    training = Training(teacher_forcing=first, teacher_forcing_end=last)
    assert training.always_forced is always
