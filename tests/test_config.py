"""Configs: to JSON and back, the hash, what is refused and in which words."""

import dataclasses
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from s2sjax.config import (
    Addition,
    Model,
    Optimiser,
    Run,
    Text,
    Toy,
    Training,
    config_hash,
    differences,
    from_json,
    to_json,
)
from s2sjax.errors import UserError

KINDS = [Addition, Toy, Text, Model, Optimiser, Training, Run]

ANOTHER = {
    "operator": "-",
    "splits": "independent",
    "kind": "sort",
    "source_order": "reversed",
    "justify": "right",
    "source_eos": False,
    "start": "first_target",
    "embed_dim": 16,
    "init": "torch",
    "precision": "bfloat16",
}


def neighbours(config: Any) -> Iterator[tuple[str, Any]]:
    """Every config that differs from `config` in one setting, with that setting's dotted name."""
    for name, value in ((f.name, getattr(config, f.name)) for f in dataclasses.fields(config)):
        if dataclasses.is_dataclass(value):
            for inner, other in neighbours(value):
                yield f"{name}.{inner}", dataclasses.replace(config, **{name: other})
        else:
            other = ANOTHER[name] if name in ANOTHER else value + 1
            yield name, dataclasses.replace(config, **{name: other})


RUNS = [Run(), Run(task=Toy())]
NEIGHBOURS = [(base, name, other) for base in RUNS for name, other in neighbours(base)]
each_setting = pytest.mark.parametrize(
    ("base", "name", "other"),
    NEIGHBOURS,
    ids=[f"{type(base.task).__name__}-{name}" for base, name, _ in NEIGHBOURS],
)


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
def test_missing_and_unknown_settings_are_refused_with_their_dotted_place(part):
    values = through_json(Run())
    lacking, name = {**values, part: dict(values[part])}, sorted(values[part])[0]
    del lacking[part][name]
    with pytest.raises(UserError, match=f"^config.{part} has missing settings: {name}$"):
        from_json(Run, lacking)
    with pytest.raises(UserError, match=f"^config.{part} has unknown settings: nonsense$"):
        from_json(Run, {**values, part: values[part] | {"nonsense": 1}})


def test_a_missing_part_is_refused_by_name():
    values = through_json(Run())
    del values["model"], values["task"]
    with pytest.raises(UserError, match=r"^config has missing settings: model, task$"):
        from_json(Run, values)


@pytest.mark.parametrize("task", [{}, {"digits": 3}, to_json(Addition()) | to_json(Toy())])
def test_settings_of_no_task_are_refused_with_the_tasks_there_are(task):
    with pytest.raises(UserError, match=r"^config.task has the settings of none of: Addition, Toy"):
        from_json(Run, through_json(Run()) | {"task": task})


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
        ("text.source_order", "sideways", "'forward' or 'reversed'"),
        ("text.source_order", ["forward"], "'forward' or 'reversed'"),
        ("text.source_order", None, "'forward' or 'reversed'"),
        ("text.justify", "left", "'right' or None"),
        ("text.justify", {}, "'right' or None"),
        ("text.justify", False, "'right' or None"),
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

MINIMA = [
    *((Addition, name, 1) for name in ("digits", "train", "dev", "test")),
    (Addition, "terms", 2),
    *((Toy, name, 1) for name in ("symbols", "min_length", "max_length", "train", "dev", "test")),
    *((Model, name, 1) for name in ("hidden_size", "embed_dim", "unroll")),
    *((Optimiser, name, 0.0) for name in ("learning_rate", "epsilon")),
    *(
        (Training, name, 1)
        for name in ("epochs", "batch_size", "eval_every", "checkpoint_every", "show_every")
    ),
]


def test_every_number_has_a_minimum():
    numbers = {(k, f.name) for k in KINDS for f in dataclasses.fields(k) if _is_number(f.default)}
    assert numbers | {(Model, "embed_dim")} == {(kind, name) for kind, name, _ in MINIMA}


def _is_number(value: Any) -> bool:
    return type(value) in (int, float)


@pytest.mark.parametrize(("kind", "name", "minimum"), MINIMA)
def test_the_minimum_is_allowed_and_less_is_refused(kind, name, minimum):
    assert getattr(kind(**{name: minimum}), name) == minimum
    for value in (minimum - 1, minimum - 10):
        with pytest.raises(UserError) as error:
            kind(**{name: value})
        start, rest = f"{kind.__name__}.{name} must be at least ", f"{minimum:g}, not {value}"
        if name == "max_length":
            rest = f"Toy.min_length = {rest}"
        assert str(error.value) == start + rest


@pytest.mark.parametrize("name", ["learning_rate", "epsilon"])
@pytest.mark.parametrize("value", [float("nan"), -1e-9])
def test_a_step_that_is_no_number_is_refused(name, value):
    with pytest.raises(UserError, match=rf"^Optimiser.{name} must be at least 0, not {value}$"):
        Optimiser(**{name: value})


def test_an_alphabet_has_26_letters():
    assert Toy(symbols=26).symbols == 26
    with pytest.raises(UserError, match=r"^Toy.symbols must be at most 26 \(a to z\), not 27$"):
        Toy(symbols=27)


def test_the_longest_string_is_no_shorter_than_the_shortest():
    assert Toy(min_length=4, max_length=4).max_length == 4
    message = r"^Toy.max_length must be at least Toy.min_length = 4, not 3$"
    with pytest.raises(UserError, match=message):
        Toy(min_length=4, max_length=3)


# --- values ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_configs_are_frozen_and_equal_ones_hash_equally(kind):
    config = kind()
    for field in dataclasses.fields(config):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(config, field.name, getattr(config, field.name))
    assert len({config, kind(), from_json(kind, to_json(config))}) == 1


def test_configs_that_differ_are_different_keys():
    configs = [config for base in RUNS for config in (base, *(c for _, c in neighbours(base)))]
    assert len(set(configs)) == len(configs)


# --- the hash --------------------------------------------------------------------------------


def test_the_hash_changes_with_every_setting():
    configs = [config for base in RUNS for config in (base, *(c for _, c in neighbours(base)))]
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
        "c: {'z': 0} -> None",
    ]
