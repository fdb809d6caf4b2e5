"""Configs to and from JSON, hashed, and told apart."""

import dataclasses
import hashlib
import json
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal, TypeVar

from s2sjax.errors import UserError

T = TypeVar("T")


def to_json(config: Any) -> dict[str, Any]:
    """A config as nested dicts of JSON values."""
    return dataclasses.asdict(config)


def from_json(kind: type[T], values: Any, where: str = "config") -> T:
    """Rebuild a config of type `kind`; unknown and ill-typed settings raise UserError.

    Missing ones take their defaults: a setting's default means what was done before there was the
    setting, so that results stay readable when settings are added.
    """
    if not isinstance(values, Mapping):
        raise UserError(f"{where} must be an object of settings, not {values!r}")
    hints = typing.get_type_hints(kind)
    names = {f.name for f in dataclasses.fields(typing.cast(Any, kind))}
    if unknown := set(values) - names:
        raise UserError(f"{where} has unknown settings: {', '.join(sorted(unknown))}")
    return kind(**{n: _value(hints[n], values[n], f"{where}.{n}") for n in names & set(values)})


def _value(hint: Any, value: Any, where: str) -> Any:
    """Check `value` against a type hint; dataclasses are rebuilt."""
    union = typing.get_origin(hint) in (types.UnionType, typing.Union)
    members = typing.get_args(hint) if union else (hint,)
    if dataclasses.is_dataclass(members[0]):
        return from_json(_kind(members, value, where), value, where)
    for member in members:
        if _fits(member, value):
            return float(value) if member is float else value
    right = " or ".join(_describe(member) for member in members)
    raise UserError(f"{where} cannot be {value!r}; it must be {right}")


def _kind(kinds: tuple[type, ...], value: Any, where: str) -> type:
    """The dataclass with the fields of `value`; where there is no choice, the only one."""
    if len(kinds) == 1 or not isinstance(value, Mapping):
        return kinds[0]
    for kind in kinds:
        if {f.name for f in dataclasses.fields(kind)} >= set(value):
            return kind
    names = ", ".join(kind.__name__ for kind in kinds)
    raise UserError(f"{where} has the settings of none of: {names}")


def _fits(hint: Any, value: Any) -> bool:
    """Whether a JSON value is of a plain type, or among a Literal's."""
    if typing.get_origin(hint) is Literal:
        return value in typing.get_args(hint)
    return type(value) in (int, float) if hint is float else type(value) is hint


def _describe(hint: Any) -> str:
    """A plain type or a Literal in words."""
    if typing.get_origin(hint) is Literal:
        return " or ".join(repr(v) for v in typing.get_args(hint))
    return "None" if hint is type(None) else hint.__name__


def config_hash(values: Mapping[str, Any]) -> str:
    """Twelve hexadecimal digits that change with any setting of a JSON config and nothing else."""
    text = json.dumps(values, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def differences(ours: Mapping[str, Any], theirs: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Dotted settings on which two JSON configs differ, each as 'a.b: here -> there'."""
    found: list[str] = []
    for name in sorted(set(ours) | set(theirs)):
        a, b = ours.get(name, "(absent)"), theirs.get(name, "(absent)")
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            found += differences(a, b, f"{prefix}{name}.")
        elif a != b:
            here, there = ("{…}" if isinstance(x, Mapping) else x for x in (a, b))  # one line
            found.append(f"{prefix}{name}: {here} -> {there}")
    return found
