"""Configs to and from JSON, their hash, and their differences."""

import hashlib
import json
import types
import typing
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any, Literal, TypeVar

from s2sjax.errors import UserError, imported

T = TypeVar("T")

TYPE = "type"  # key that names the class where a setting can be of several classes, as a task can


def _members(hint: Any) -> tuple[Any, ...]:
    """The members of a union type; any other type alone."""
    is_union = typing.get_origin(hint) in (types.UnionType, typing.Union)
    return typing.get_args(hint) if is_union else (hint,)


def _settings(kind: type) -> dict[str, Any]:
    """The types of a dataclass's fields, by name."""
    hints = typing.get_type_hints(kind)
    return {field.name: hints[field.name] for field in fields(kind)}


def to_json(config: Any) -> dict[str, Any]:
    """A config as nested dicts of JSON values."""
    values: dict[str, Any] = {}
    for name, hint in _settings(type(config)).items():
        value = values[name] = getattr(config, name)
        if is_dataclass(value):
            known = [member for member in _members(hint) if is_dataclass(member)]
            kind = type(value)
            named = kind.__name__ if kind in known else f"{kind.__module__}.{kind.__qualname__}"
            values[name] = ({TYPE: named} if len(known) > 1 else {}) | to_json(value)
    return values


def from_json(kind: type[T], values: Any, where: str = "config") -> T:
    """Rebuild a config of type `kind`; unknown and ill-typed settings raise UserError.

    Missing settings take their defaults, so that old results can be read when settings are added.
    """
    if not isinstance(values, Mapping):
        raise UserError(f"{where} must be an object of settings, not {values!r}")
    hints = _settings(kind)
    if unknown := set(values) - set(hints):
        raise UserError(f"{where} has unknown settings: {', '.join(sorted(unknown))}")
    return kind(**{n: _value(hints[n], value, f"{where}.{n}") for n, value in values.items()})


def _value(hint: Any, value: Any, where: str) -> Any:
    """Check a value against a type hint, and rebuild dataclasses."""
    members = _members(hint)
    classes = {m.__name__: m for m in members if is_dataclass(m)}
    if len(classes) > 1 and isinstance(value, Mapping):
        name = value.get(TYPE)
        chosen = classes.get(str(name)) or imported(str(name))
        if not (isinstance(chosen, type) and is_dataclass(chosen)):
            known = f"{', '.join(classes)}, or such as my_module.MyTask"
            raise UserError(f"{where}.{TYPE} must be {known}, not {name!r}")
        built = from_json(chosen, {k: v for k, v in value.items() if k != TYPE}, where)
        if not isinstance(built, members):
            raise UserError(f"{where} cannot be a {name}: it lacks what {members[-1].__name__} has")
        return built
    if classes:
        return from_json(next(iter(classes.values())), value, where)
    for member in members:
        if _fits(member, value):
            return float(value) if member is float else value
    right = " or ".join(_describe(member) for member in members)
    raise UserError(f"{where} cannot be {value!r}; it must be {right}")


def _fits(hint: Any, value: Any) -> bool:
    """Whether a JSON value is of a plain type, or one of a Literal's values; True is not 1."""
    if typing.get_origin(hint) is Literal:
        return any(type(v) is type(value) and v == value for v in typing.get_args(hint))
    if hint is float and type(value) is int:
        return abs(value) <= 2**53  # what a float holds exactly
    return type(value) is hint


def _describe(hint: Any) -> str:
    if typing.get_origin(hint) is Literal:
        return " or ".join(repr(v) for v in typing.get_args(hint))
    return "None" if hint is type(None) else hint.__name__


def config_hash(values: Mapping[str, Any]) -> str:
    """Twelve hexadecimal digits that change with any setting of a JSON config and nothing else."""
    text = json.dumps(values, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def differences(ours: Mapping[str, Any], theirs: Mapping[str, Any], prefix: str = "") -> list[str]:
    """The settings in which two JSON configs differ, each as 'a.b: ours -> theirs'."""
    found: list[str] = []
    for name in sorted(set(ours) | set(theirs)):
        a, b = ours.get(name, "(absent)"), theirs.get(name, "(absent)")
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            found += differences(a, b, f"{prefix}{name}.")
        elif a != b:
            here, there = ("{…}" if isinstance(x, Mapping) else x for x in (a, b))  # one line
            found.append(f"{prefix}{name}: {here} -> {there}")
    return found
