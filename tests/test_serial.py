"""Settings to JSON and back, the hash, and how two configs differ."""

import dataclasses
import json
import re
import typing
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from s2sjax.config import Model, Optimiser, Text, Training
from s2sjax.data.tasks import Addition, Dates, Sentences, TaskConfig, Toy
from s2sjax.errors import UserError
from s2sjax.serial import config_hash, differences, from_json, to_json
from s2sjax.train.run import Run

TASKS = typing.get_args(TaskConfig)[:-1]  # the last is any other one
ANOTHER = {
    "cell": "rnn",
    "locales": "de,fr",
    "formats": "full",
    "train": "pairs.tsv",
    "dev": "dev.tsv",
    "test": "test.tsv",
    "columns": "1,3",
    "file": "questions.txt",
    "sha256": 64 * "0",
    "clip": 5.0,
    "embed_dim": 16,
    "patience": 3,
    "tokens_per_batch": 512,
    "teacher_forcing_end": 0.25,
}
"""Another value of settings that are names, or not set by default."""


def another(kind: type, field: dataclasses.Field) -> Any:
    """A value of a setting that is not its default."""
    hint, default = typing.get_type_hints(kind)[field.name], field.default
    choices = {v for m in (hint, *typing.get_args(hint)) for v in typing.get_args(m)} - {default}
    if literals := sorted(v for v in choices if isinstance(v, str | int)):
        return literals[-1]
    match default:
        case bool():
            return not default
        case int():
            return default + 1
        case float():
            return default / 2 or 0.25
    return ANOTHER[field.name]


def built(data: Any, kind: type, most: int = 3) -> Any:
    """Settings of a kind, a few of them not the default; built here, outside of a strategy."""
    names = st.lists(st.sampled_from(fields(kind)), max_size=most, unique_by=lambda f: f.name)
    try:
        return kind(**{field.name: another(kind, field) for field in data.draw(names)})
    except UserError:
        assume(False)


def through_json(config: Any) -> Any:
    return json.loads(json.dumps(to_json(config)))


def changed(dotted: str, value: Any, run: Run | None = None) -> dict[str, Any]:
    """A run as JSON with one value put in another's place."""
    values = through_json(run or Run())
    part, _, name = dotted.partition(".")
    (values[part] if name else values)[name or part] = value
    return values


# --- to JSON and back ------------------------------------------------------------------------


@given(st.sampled_from(TASKS), st.data())
def test_a_run_survives_json(kind, data):
    parts = [built(data, k, most=1) for k in (kind, Text, Model, Optimiser, Training)]
    try:
        run = Run(*parts)
    except UserError:
        assume(False)
    values = through_json(run)
    again = from_json(Run, values)
    assert again == run
    assert hash(again) == hash(run)
    assert config_hash(through_json(again)) == config_hash(values)
    assert differences(to_json(run), values) == []


@given(st.sampled_from(TASKS), st.data())
def test_a_task_comes_back_as_what_it_was_however_few_of_its_settings_are_left(kind, data):
    task = built(data, kind)
    values = through_json(Run(task))
    assert values["task"]["type"] == type(task).__name__
    names = [f.name for f in fields(task)]
    left = data.draw(st.lists(st.sampled_from(names), unique=True))
    values["task"] = {name: values["task"][name] for name in ("type", *left)}
    with suppress(UserError):  # a default may not go with what is left
        expected = type(task)(**{name: getattr(task, name) for name in left})
        again = from_json(Run, values).task
        assert (type(again), again) == (type(task), expected)


@pytest.mark.parametrize("name", [None, "Sums", 3, ["Toy"], {}])
def test_a_task_without_its_type_is_refused_in_a_line(name):
    task = {"train": 10, "dev": 5, "test": 5} | ({} if name is None else {"type": name})
    message = "config.task.type must be Addition, Toy, Dates, Sentences, or such as "
    message += f"my_module.MyTask, not {name!r}"
    with pytest.raises(UserError, match=f"^{re.escape(message)}$"):
        from_json(Run, {"task": task})


def test_a_new_kind_needs_no_more_than_to_be_in_the_union():
    @dataclass(frozen=True)
    class Small:
        size: int = 1

    @dataclass(frozen=True)
    class Large:
        size: int = 1
        more: float | None = None

    @dataclass(frozen=True)
    class Holder:
        one: Small | Large = Small()
        only: Small = Small()

    for holder in (Holder(), Holder(Large(2, 0.5)), Holder(Small(2), Small(3))):
        assert from_json(Holder, through_json(holder)) == holder
    assert to_json(Holder())["only"] == {"size": 1}


def each_setting() -> Iterator[tuple[type, str, Any]]:
    for kind in (*TASKS, Text, Model, Optimiser, Training):
        for field in fields(kind):
            yield kind, field.name, another(kind, field)


NAMES = [f"{kind.__name__}.{name}" for kind, name, _ in each_setting()]


TOGETHER = {
    "source_justify": {"target_justify": "right"},
    "justify_when": {"target_justify": "right"},
    "mask_spaces": {"source_justify": "right"},
    "target_eos": {"target_justify": "right"},
    "cut": {"target_unit": "words"},
    "lower_case": {"target_unit": "words"},
    "attend": {"attention": "dot"},
    "decoder_init": {"attention": "dot"},
    "schedule": {"warmup": 9},
}
"""Settings that one setting needs."""


@pytest.mark.parametrize(("kind", "name", "value"), [*each_setting()], ids=NAMES)
def test_every_setting_is_kept_hashed_named_and_has_a_default(kind, name, value):
    beside = TOGETHER.get(name, {})
    default, other = kind(**beside), kind(**beside, **{name: value})
    assert other != default
    assert from_json(kind, through_json(other)) == other
    assert config_hash(to_json(other)) != config_hash(to_json(default))
    kept = getattr(default, name)
    assert differences(to_json(default), to_json(other)) == [f"{name}: {kept} -> {value}"]
    values = through_json(other)
    del values[name]
    assert from_json(kind, values) == default
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(other, name, value)


def test_missing_parts_take_their_defaults_and_are_validated():
    assert from_json(Run, {}) == Run()
    assert from_json(Run, {"model": {"hidden_size": 3}}) == Run(model=Model(hidden_size=3))
    assert from_json(Run, through_json(Run())).model.embed_dim is None
    with pytest.raises(UserError, match=r"go together: not bos and repeat$"):
        from_json(Run, {"model": {"decoder": "repeat"}})
    with pytest.raises(UserError, match=r"^Model.hidden_size must be at least 1, not 0$"):
        from_json(Run, changed("model.hidden_size", 0))


def test_a_whole_number_is_a_float_where_a_float_belongs():
    optim = from_json(Run, {"optim": {"learning_rate": 1, "epsilon": 0}}).optim
    assert type(optim.learning_rate) is float
    assert config_hash(to_json(optim)) == config_hash(to_json(Optimiser(1.0, 0.0)))


# --- what is refused -------------------------------------------------------------------------


@pytest.mark.parametrize("part", ["task", "text", "model", "optim", "train"])
@pytest.mark.parametrize("run", [Run(), Run(Toy()), Run(Dates()), Run(Sentences())])
def test_what_is_unknown_or_no_object_is_refused_with_its_place(run, part):
    values = through_json(run)
    extra = values[part] | {"width": 3, "depth": 2}
    with pytest.raises(UserError, match=f"^config.{part} has unknown settings: depth, width$"):
        from_json(Run, values | {part: extra})
    for value in (None, 3, "clean", []):
        message = f"config.{part} must be an object of settings, not {value!r}"
        with pytest.raises(UserError, match=f"^{re.escape(message)}$"):
            from_json(Run, values | {part: value})


def test_a_whole_that_is_unknown_or_no_object_is_refused():
    with pytest.raises(UserError, match=r"^config has unknown settings: nonsense$"):
        from_json(Run, {"nonsense": 1})
    with pytest.raises(UserError, match=r"^here must be an object of settings, not 3$"):
        from_json(Addition, 3, "here")


ORDERS = "'forward' or 'reversed' or 'digits_reversed' or 'operands_swapped' or 'doubled'"


@pytest.mark.parametrize(
    ("name", "values", "right"),
    [
        ("train.epochs", ["200", 1.5, True, None], "int"),
        ("task.digits", [3.0], "int"),
        ("task.operator", ["*"], "'+' or '-'"),
        ("task.file", [3], "str or None"),
        ("optim.learning_rate", ["1e-3", True, None, 10**400], "float"),
        ("optim.clip", ["5", False], "float or None"),
        ("text.source_eos", [1, None], "bool"),
        ("text.source_order", ["sideways", ["forward"], None], ORDERS),
        ("text.target_order", ["doubled"], "'forward' or 'reversed'"),
        ("text.source_justify", ["middle", {}, False], "'left' or 'right' or None"),
        ("model.directions", [True, 1.0, 3], "1 or 2"),
        ("model.embed_dim", ["wide", 16.0, {"width": 3}], "int or None"),
        ("train.patience", [2.5], "int or None"),
    ],
)
def test_an_ill_typed_value_is_refused_with_its_place_and_what_would_be_right(name, values, right):
    for value in values:
        message = f"config.{name} cannot be {value!r}; it must be {right}"
        with pytest.raises(UserError, match=f"^{re.escape(message)}$"):
            from_json(Run, changed(name, value))


# --- the hash, and differences ---------------------------------------------------------------


def test_the_hash_does_not_depend_on_order_and_stays_what_it_was():
    assert config_hash({"a": 1, "b": {"c": None, "d": [True, 0.5]}}) == "c801198b1c76"
    assert config_hash({"b": {"d": [True, 0.5], "c": None}, "a": 1}) == "c801198b1c76"


def test_differences_are_named_from_the_top_in_order_and_show_what_is_absent():
    runs = Run(), Run(text=Text(start="first_target"))
    ours, theirs = ({"arms": {"clean": to_json(run)}} for run in runs)
    assert differences(ours, theirs) == ["arms.clean.text.start: bos -> first_target"]
    changed_task = differences(to_json(Run()), to_json(replace(Run(), task=Dates())))
    assert "task.type: Addition -> Dates" in changed_task
    ours = {"b": {"x": 1, "y": 2}, "a": 1, "c": {"z": 0}}
    theirs = {"b": {"y": 3, "w": 4}, "a": 1, "c": None}
    assert differences(ours, theirs) == [
        "b.w: (absent) -> 4",
        "b.x: 1 -> (absent)",
        "b.y: 2 -> 3",
        "c: {…} -> None",
    ]
