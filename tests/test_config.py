"""Configs: to JSON and back, the hash, what is refused and in which words."""

import contextlib
import dataclasses
import itertools
import json
import re
import typing
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from s2sjax.config import Model, Optimiser, Run, Text, Training
from s2sjax.errors import LARGEST, UserError
from s2sjax.serial import config_hash, differences, from_json, to_json
from s2sjax.taskconfig import Addition, Dates, NumberWords, Sentences, Toy

KINDS = [Addition, Toy, Dates, NumberWords, Sentences, Text, Model, Optimiser, Training, Run]

ANOTHER = {
    "operands": "any_length",
    "operator": "-",
    "splits": "independent",
    "file": "questions.txt",
    "sha256": 64 * "0",
    "kind": "sort",
    "source_order": "reversed",
    "target_order": "reversed",
    "justify": "right",
    "justify_when": "after",
    "start": "first_target",
    "cell": "gru",
    "decoder": "repeat",
    "hand_over": "hidden",
    "directions": 2,
    "attention": "dot",
    "attend": "feeding",
    "dropout": 0.25,
    "context_dropout": 0.25,
    "recurrent_dropout": 0.25,
    "locales": "de,fr",
    "formats": "full",
    "direction": "to_words",
    "language": "fr",
    "embed_dim": 16,
    "init": "torch",
    "precision": "bfloat16",
    "clip": 5.0,
    "schedule": "cosine",
    "teacher_forcing": 0.5,
    "teacher_forcing_end": 0.25,
    "patience": 3,
}


def other(name: str, value: Any) -> Any:
    """A value of a setting that is not `value`."""
    if name in ANOTHER:
        return ANOTHER[name]
    return not value if isinstance(value, bool) else value + 1


def neighbours(config: Any) -> Iterator[tuple[str, Any]]:
    """Every config that differs from `config` in one setting, with that setting's dotted name.

    Those that are refused, because settings go together, are left out.
    """
    for name, value in ((f.name, getattr(config, f.name)) for f in dataclasses.fields(config)):
        if dataclasses.is_dataclass(value):
            others = [(f"{name}.{inner}", part) for inner, part in neighbours(value)]
        else:
            others = [(name, other(name, value))]
        for dotted, changed in others:
            with contextlib.suppress(UserError):
                yield dotted, dataclasses.replace(config, **{name: changed})


RUNS = {
    "addition": Run(),
    "toy": Run(task=Toy()),
    "dates": Run(task=Dates()),
    "numbers": Run(task=NumberWords()),
    "attention": Run(model=Model(attention="general", embed_dim=128, encoder_layers=2)),
    "justified": Run(text=Text(justify="left", lag=3)),
}
REPEAT = Run(text=Text(start="nothing"), model=Model(decoder="repeat"))
NEIGHBOURS = [(base, *found) for base in RUNS.values() for found in neighbours(base)]
each_setting = pytest.mark.parametrize(
    ("base", "name", "other"),
    NEIGHBOURS,
    ids=[f"{case}-{name}" for case, base in RUNS.items() for name, _ in neighbours(base)],
)


def test_every_setting_is_varied():
    def names(config: Any) -> Iterator[str]:
        for name, value in ((f.name, getattr(config, f.name)) for f in dataclasses.fields(config)):
            inside = names(value) if dataclasses.is_dataclass(value) else ()
            yield from [f"{name}.{inner}" for inner in inside] or [name]

    every = {name for base in RUNS.values() for name in names(base)}
    together = {"model.decoder"}  # repeat goes with text.start nothing only
    assert {name for _, name, _ in NEIGHBOURS} == every - together


def lookup(values: Mapping[str, Any], dotted: str) -> Any:
    for name in dotted.split("."):
        values = values[name]
    return values


def changed(dotted: str, value: Any) -> dict[str, Any]:
    """The default run as JSON with one value put in another's place."""
    values = to_json(Run())
    *path, last = dotted.split(".")
    lookup(values, ".".join(path))[last] = value if path else None
    return values


def through_json(config: Any) -> Any:
    return json.loads(json.dumps(to_json(config)))


# --- to and from JSON ------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_defaults_survive_json(kind):
    assert from_json(kind, through_json(kind())) == kind()


@each_setting
def test_every_setting_survives_json(base, name, other):
    assert other != base
    assert from_json(Run, through_json(other)) == other


def test_none_is_a_value_and_not_an_absence():
    values = through_json(Run())
    assert (values["text"]["justify"], values["model"]["embed_dim"]) == (None, None)
    assert from_json(Run, values).model.embed_dim is None


@pytest.mark.parametrize("task", [Addition(), Toy(train=5_000, dev=1_000, test=1_000)])
def test_a_task_comes_back_as_the_task_it_was(task):
    assert type(from_json(Run, through_json(Run(task=task))).task) is type(task)


def test_a_whole_number_is_a_float_where_a_float_belongs():
    rate = from_json(Run, through_json(Run()) | {"optim": {"learning_rate": 1, "epsilon": 0}})
    assert type(rate.optim.learning_rate) is float
    assert config_hash(to_json(rate)) == config_hash(
        to_json(Run(optim=Optimiser(learning_rate=1.0, epsilon=0.0)))
    )


@pytest.mark.parametrize(
    ("kind", "where", "extra", "message"),
    [
        (Model, "config.model", {"width": 3, "depth": 2}, "unknown settings: depth, width"),
        (Addition, "here", {"digit": 3}, "unknown settings: digit"),
    ],
)
def test_unknown_settings_are_refused_by_name(kind, where, extra, message):
    with pytest.raises(UserError, match=f"^{where} has {message}$"):
        from_json(kind, to_json(kind()) | extra, where)


@pytest.mark.parametrize("part", ["text", "model", "optim", "train"])
def test_unknown_settings_are_refused_with_their_dotted_place(part):
    values = through_json(Run())
    with pytest.raises(UserError, match=f"^config.{part} has unknown settings: nonsense$"):
        from_json(Run, {**values, part: values[part] | {"nonsense": 1}})
    with pytest.raises(UserError, match=r"^config has unknown settings: nonsense$"):
        from_json(Run, values | {"nonsense": 1})


@each_setting
def test_a_missing_setting_takes_its_default_and_leaves_the_others(base, name, other):
    values, (part, last) = through_json(other), name.split(".")
    del values[part][last]
    ours = getattr(other, part)
    default = {last: getattr(type(ours)(), last)}
    expected = dataclasses.replace(other, **{part: dataclasses.replace(ours, **default)})
    assert from_json(Run, values) == expected


def test_what_a_missing_setting_means_is_validated():
    values = through_json(REPEAT)
    del values["text"]["start"]
    with pytest.raises(UserError, match=r"go together: not bos and repeat$"):
        from_json(Run, values)


def test_missing_parts_take_their_defaults():
    assert from_json(Run, {}) == Run()
    assert from_json(Run, {"model": {"hidden_size": 3}}) == Run(model=Model(hidden_size=3))


BEFORE = {  # a config as it was committed when there were fewer settings
    "task": {
        "digits": 3,
        "terms": 2,
        "operator": "+",
        "train": 5_000,
        "dev": 1_000,
        "test": 1_000,
        "splits": "independent",
    },
    "text": {
        "source_order": "reversed",
        "justify": "right",
        "source_eos": True,
        "start": "first_target",
    },
    "model": {
        "hidden_size": 128,
        "embed_dim": None,
        "init": "keras",
        "precision": "float32",
        "unroll": 1,
    },
    "optim": {"learning_rate": 0.001, "epsilon": 1e-07},
    "train": {
        "epochs": 200,
        "batch_size": 128,
        "eval_every": 5,
        "checkpoint_every": 10,
        "show_every": 25,
    },
}


def test_a_config_from_before_there_were_more_settings_is_what_was_done_then():
    text = Text("reversed", justify="right", start="first_target")
    run = from_json(Run, BEFORE)
    assert run == Run(Addition(splits="independent"), text)
    # one setting each: what every later one has to mean where it is not set
    assert run.task.operands == "uniform"
    assert run.task.file is run.task.sha256 is None
    assert (run.text.target_order, run.text.justify_when) == ("forward", "before")
    assert (run.text.mask_spaces, run.text.lag, run.text.target_eos) == (False, 0, True)
    assert (run.model.cell, run.model.encoder_layers, run.model.decoder_layers) == ("lstm", 1, 1)
    assert (run.model.decoder, run.model.peeky, run.model.hand_over) == ("state", False, "carry")
    assert (run.optim.clip, run.optim.schedule, run.optim.warmup) == (None, "constant", 0)
    assert (run.train.shown, run.train.patience, run.train.label_smoothing) == (5, None, 0)
    assert run.train.always_forced


@pytest.mark.parametrize(
    ("task", "read"),
    [
        ({}, Addition()),
        ({"digits": 2}, Addition(digits=2)),
        ({"train": 7}, Addition(train=7)),
        ({"kind": "sort"}, Toy(kind="sort")),
        ({"train": 7, "symbols": 3}, Toy(train=7, symbols=3)),
    ],
)
def test_a_task_is_known_by_the_settings_it_has_and_is_addition_where_both_have_them(task, read):
    assert from_json(Run, {"task": task}).task == read


@pytest.mark.parametrize(
    "task", [{"nonsense": 3}, {"digits": 3, "kind": "sort"}, to_json(Addition()) | to_json(Toy())]
)
def test_settings_of_no_task_are_refused_with_the_tasks_there_are(task):
    message = r"^config.task has the settings of none of: Addition, Toy, Dates, NumberWords$"
    with pytest.raises(UserError, match=message):
        from_json(Run, through_json(Run()) | {"task": task})


ORDERS = "'forward' or 'reversed' or 'digits_reversed' or 'operands_swapped' or 'doubled'"


@pytest.mark.parametrize(
    ("name", "value", "right"),
    [
        ("train.epochs", "200", "int"),
        ("train.epochs", 1.5, "int"),
        ("train.epochs", True, "int"),
        ("train.epochs", None, "int"),
        ("task.digits", 3.0, "int"),
        ("task.operator", "*", "'+' or '-'"),
        ("optim.learning_rate", "1e-3", "float"),
        ("optim.learning_rate", True, "float"),
        ("optim.learning_rate", None, "float"),
        ("text.source_eos", 1, "bool"),
        ("text.source_order", "sideways", ORDERS),
        ("text.source_order", ["forward"], ORDERS),
        ("text.source_order", None, ORDERS),
        ("text.target_order", "doubled", "'forward' or 'reversed'"),
        ("text.justify", "middle", "'left' or 'right' or None"),
        ("text.justify", {}, "'left' or 'right' or None"),
        ("text.justify", False, "'left' or 'right' or None"),
        ("text.start", None, "'bos' or 'first_target' or 'nothing'"),
        ("text.lag", 0.0, "int"),
        ("task.file", 3, "str or None"),
        ("model.cell", "LSTM", "'lstm' or 'gru' or 'rnn'"),
        ("optim.clip", "5", "float or None"),
        ("optim.clip", False, "float or None"),
        ("train.patience", 2.5, "int or None"),
        ("model.embed_dim", "wide", "int or None"),
        ("model.embed_dim", 16.0, "int or None"),
        ("model.embed_dim", {"width": 3}, "int or None"),
    ],
)
def test_an_ill_typed_value_is_refused_with_its_dotted_name_and_what_would_be_right(
    name, value, right
):
    message = f"config.{name} cannot be {value!r}; it must be {right}"
    with pytest.raises(UserError, match=f"^{re.escape(message)}$"):
        from_json(Run, changed(name, value))


@pytest.mark.parametrize("part", ["task", "text", "model", "optim", "train"])
@pytest.mark.parametrize("value", [None, 3, "clean", []])
def test_what_is_no_object_is_refused(part, value):
    message = f"config.{part} must be an object of settings, not {value!r}"
    with pytest.raises(UserError, match=f"^{re.escape(message)}$"):
        from_json(Run, through_json(Run()) | {part: value})
    with pytest.raises(UserError, match=r"^config must be an object of settings"):
        from_json(Run, value)


def test_json_is_validated_like_python():
    with pytest.raises(UserError, match=r"^Model.hidden_size must be at least 1, not 0$"):
        from_json(Run, changed("model.hidden_size", 0))


# --- what cannot be --------------------------------------------------------------------------

RANGES = [
    *((Addition, name, 1, LARGEST) for name in ("train", "dev", "test")),
    (Addition, "digits", 1, 1_000),
    (Addition, "terms", 2, 1_000),
    (Toy, "symbols", 1, 26),
    (Toy, "min_length", 1, None),
    (Toy, "max_length", 1, 1_000),
    *((Toy, name, 1, LARGEST) for name in ("train", "dev", "test")),
    (Toy, "longer", 0, 1_000),
    *((Dates, name, 1, LARGEST) for name in ("train", "dev", "test")),
    *((Dates, name, 1_000, 9_999) for name in ("first_year", "last_year")),
    *((NumberWords, name, 1, LARGEST) for name in ("train", "dev", "test")),
    (NumberWords, "largest", 100, 999_999),
    *((Sentences, name, 1, LARGEST) for name in ("min_count", "longest", "tokens_per_batch")),
    *((Sentences, name, 5, LARGEST) for name in ("source_size", "target_size")),
    (Sentences, "buckets", 1, 100),
    (Text, "lag", 0, 1_000),
    *((Model, name, 0.0, 0.99) for name in ("dropout", "recurrent_dropout")),
    (Model, "context_dropout", 0.0, 0.99),
    *((Model, name, 1, LARGEST) for name in ("hidden_size", "embed_dim", "unroll")),
    *((Model, name, 1, 100) for name in ("encoder_layers", "decoder_layers")),
    *((Optimiser, name, 0.0, 1.0 * LARGEST) for name in ("learning_rate", "epsilon")),
    (Optimiser, "warmup", 0, LARGEST),
    *(
        (Training, name, 1, LARGEST)
        for name in (
            *("epochs", "batch_size", "eval_every", "checkpoint_every", "show_every"),
            "patience",
        )
    ),
    (Training, "shown", 1, 1_000),
    *(
        (Training, name, 0.0, 1.0)
        for name in ("teacher_forcing", "teacher_forcing_end", "label_smoothing")
    ),
]


BESIDE = {
    "first_year": {"last_year": 9_999},
    "last_year": {"first_year": 1_000},
    "context_dropout": {"attention": "dot"},
}
"""Settings without which a number cannot go as far as it may."""


def with_number(kind: type, name: str, value: float) -> Any:
    return kind(**BESIDE.get(name, {}), **{name: value})


def test_every_number_has_a_range():
    hints = {kind: typing.get_type_hints(kind) for kind in KINDS}
    numbers = {
        (kind, name)
        for kind in KINDS
        for name, hint in hints[kind].items()
        if {hint, *typing.get_args(hint)} & {int, float}
    }
    above_zero = {(Optimiser, "clip"), (Sentences, "dev_share"), (Sentences, "test_share")}
    assert numbers == {(kind, name) for kind, name, _, _ in RANGES} | above_zero


@pytest.mark.parametrize(("kind", "name", "least", "most"), RANGES)
def test_the_least_is_allowed_and_less_is_refused(kind, name, least, most):
    assert getattr(with_number(kind, name, least), name) == least
    for value in (least - 1, least - 10):
        with pytest.raises(UserError) as error:
            with_number(kind, name, value)
        start, rest = f"{kind.__name__}.{name} must be at least ", f"{least:g}, not {value}"
        if name == "max_length":
            rest = f"Toy.min_length = {rest}"
        assert str(error.value) == start + rest


@pytest.mark.parametrize(
    ("kind", "name", "most"), [(kind, name, most) for kind, name, _, most in RANGES if most]
)
def test_the_most_is_allowed_and_more_is_refused(kind, name, most):
    assert getattr(with_number(kind, name, most), name) == most
    named = f"{most:,.0f}" if most >= 1 else str(most)
    named += " (a to z)" if name == "symbols" else ""
    for value in (most + 1, 10 * most):
        with pytest.raises(UserError) as error:
            with_number(kind, name, value)
        assert str(error.value) == (f"{kind.__name__}.{name} must be at most {named}, not {value}")


def test_clipping_to_nothing_is_refused():
    assert Optimiser(clip=1e-9).clip == 1e-9
    with pytest.raises(UserError, match=r"^Optimiser.clip must be above 0"):
        Optimiser(clip=0.0)


FRACTIONS = [
    *((Optimiser, name) for name in ("learning_rate", "epsilon", "clip")),
    *((Model, name) for name in ("dropout", "recurrent_dropout", "context_dropout")),
    *((Training, n) for n in ("teacher_forcing", "teacher_forcing_end", "label_smoothing")),
]


@pytest.mark.parametrize(("kind", "name"), FRACTIONS)
@pytest.mark.parametrize("value", [float("nan"), -1e-9, float("-inf")])
def test_what_is_no_share_and_no_size_is_refused(kind, name, value):
    with pytest.raises(
        UserError, match=rf"^{kind.__name__}.{name} must be at least 0, not {value}$"
    ):
        kind(**{name: value})


@pytest.mark.parametrize(("kind", "name"), FRACTIONS)
def test_endless_steps_and_shares_are_refused(kind, name):
    with pytest.raises(UserError, match=rf"^{kind.__name__}.{name} must be at most .*, not inf$"):
        kind(**{name: float("inf")})


def test_the_longest_string_is_no_shorter_than_the_shortest():
    assert Toy(min_length=4, max_length=4).max_length == 4
    message = r"^Toy.max_length must be at least Toy.min_length = 4, not 3$"
    with pytest.raises(UserError, match=message):
        Toy(min_length=4, max_length=3)


IMPOSSIBLE = [
    (
        lambda: Addition(operands="short_first", operator="-"),
        "Addition.operands short_first sorts them: Addition.operator must be +",
    ),
    *(
        (
            lambda settings=settings: Addition(file="questions.txt", **settings),
            "Addition.file holds distinct sums: Addition.splits must be leak_free, "
            "Addition.operator +",
        )
        for settings in ({"splits": "independent"}, {"operator": "-"})
    ),
    (
        lambda: Text(mask_spaces=True),
        "Text.mask_spaces needs Text.justify: nothing else writes the spaces",
    ),
    (
        lambda: Text(justify_when="after"),
        "Text.justify_when needs Text.justify: nothing is justified",
    ),
    (
        lambda: Text(target_eos=False),
        "Text.target_eos False needs Text.justify: answers of several lengths need an end",
    ),
    *(
        (
            lambda cell=cell: Model(cell=cell, hand_over="hidden"),
            f"Model.hand_over hidden: Model.cell {cell} has nothing else",
        )
        for cell in ("gru", "rnn")
    ),
    (
        lambda: Model(decoder="repeat", hand_over="hidden"),
        "Model.hand_over: Model.decoder repeat starts from zero",
    ),
    (
        lambda: Optimiser(schedule="inverse_sqrt"),
        "Optimiser.schedule inverse_sqrt falls from Optimiser.warmup on: set it",
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
            lambda settings=settings: dataclasses.replace(REPEAT, train=Training(**settings)),
            "Training.teacher_forcing: Model.decoder repeat reads no symbols",
        )
        for settings in ({"teacher_forcing": 0.5}, {"teacher_forcing_end": 0.0})
    ),
    *(
        (
            lambda order=order: Run(task=Toy(), text=Text(source_order=order)),
            f"Text.source_order {order}: Toy has no operands",
        )
        for order in ("digits_reversed", "operands_swapped")
    ),
    (
        lambda: Run(task=Toy(max_length=1), text=Text(start="first_target")),
        "Text.start first_target gives all away where Toy.max_length is 1",
    ),
]


@pytest.mark.parametrize(("build", "message"), IMPOSSIBLE, ids=[text for _, text in IMPOSSIBLE])
def test_what_does_not_go_together_is_refused_with_the_reason(build, message):
    with pytest.raises(UserError, match=f"^{re.escape(message)}$"):
        build()


def test_what_goes_together_is_allowed():
    Addition(operands="short_first", terms=3)
    Addition(file="questions.txt", operands="any_length", sha256="0")
    for justify, when, mask in itertools.product(
        ("left", "right"), ("before", "after"), (True, False)
    ):
        text = Text(justify=justify, justify_when=when, mask_spaces=mask, target_eos=False)
        for start in ("bos", "first_target"):
            Run(text=dataclasses.replace(text, start=start))
        nothing = dataclasses.replace(text, start="nothing")
        Run(text=nothing, model=Model(decoder="repeat", peeky=True, embed_dim=3, cell="gru"))
    Model(encoder_layers=2, decoder_layers=3, peeky=True, hand_over="hidden")
    Optimiser(schedule="inverse_sqrt", warmup=1)
    Run(task=Toy(), text=Text(source_order="doubled"))
    Run(task=Toy(max_length=1))


@pytest.mark.parametrize(
    ("first", "last", "always"),
    [
        (1.0, None, True),
        (1.0, 1.0, True),
        (1.0, 0.0, False),
        (0.9, None, False),
        (0.0, 1.0, False),
    ],
)
def test_gold_symbols_are_always_fed_where_their_chance_is_one_throughout(first, last, always):
    training = Training(teacher_forcing=first, teacher_forcing_end=last)
    assert training.always_forced is always


# --- values ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_configs_are_frozen_and_equal_ones_hash_equally(kind):
    config = kind()
    for field in dataclasses.fields(config):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(config, field.name, getattr(config, field.name))
    assert len({config, kind(), from_json(kind, to_json(config))}) == 1


def test_configs_that_differ_are_different_keys():
    configs = [
        config for base in RUNS.values() for config in (base, *(c for _, c in neighbours(base)))
    ]
    assert len(set(configs)) == len(configs)


# --- the hash --------------------------------------------------------------------------------


def test_the_hash_changes_with_every_setting():
    configs = [
        config for base in RUNS.values() for config in (base, *(c for _, c in neighbours(base)))
    ]
    hashes = {config_hash(to_json(config)) for config in configs}
    assert len(hashes) == len(configs)
    assert all(re.fullmatch("[0-9a-f]{12}", name) for name in hashes)


def test_the_hash_does_not_change_with_the_order_of_settings():
    def turned(values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        return {name: turned(values[name]) for name in reversed(values)}

    values = to_json(Run())
    assert list(turned(values)) != list(values)
    assert config_hash(turned(values)) == config_hash(values) == config_hash(through_json(Run()))


def test_the_hash_stays_what_it_was():  # committed results are known by it
    assert config_hash({"a": 1, "b": {"c": None, "d": [True, 0.5]}}) == "c801198b1c76"


# --- differences -----------------------------------------------------------------------------


@each_setting
def test_the_one_setting_that_differs_is_named_with_both_values(base, name, other):
    ours, theirs = to_json(base), to_json(other)
    expected = f"{name}: {lookup(ours, name)} -> {lookup(theirs, name)}"
    assert differences(ours, theirs) == [expected]


def test_equal_configs_do_not_differ():
    assert differences(to_json(Run()), through_json(Run())) == []


def test_settings_are_named_from_the_top_however_deep_they_are():
    runs = Run(), Run(text=Text(start="first_target"))
    ours, theirs = ({"arms": {"clean": to_json(run)}} for run in runs)
    assert differences(ours, theirs) == ["arms.clean.text.start: bos -> first_target"]


def test_differences_come_in_order_and_show_what_is_absent():
    ours = {"b": {"x": 1, "y": 2}, "a": 1, "c": {"z": 0}}
    theirs = {"b": {"y": 3, "w": 4}, "a": 1, "c": None}
    assert differences(ours, theirs) == [
        "b.w: (absent) -> 4",
        "b.x: 1 -> (absent)",
        "b.y: 2 -> 3",
        "c: {…} -> None",
    ]
