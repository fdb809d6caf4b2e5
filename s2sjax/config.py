"""Every setting there is: frozen dataclasses, validated when built, to and from JSON, hashed.

A config decides shapes and programs; a seed decides everything random. Both together decide every
number a run produces.
"""

import dataclasses
import hashlib
import json
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, TypeVar

import tyro

from s2sjax.errors import UserError

SourceOrder = Literal["forward", "reversed"]
Initialiser = Literal["keras", "flax", "torch", "sutskever"]
Precision = Literal["float32", "bfloat16"]

T = TypeVar("T")


LARGEST = 10**8
"""Most of anything that can be counted: beyond it no run here would end."""


def _at_least(minimum: int, config: object, *names: str, most: int = LARGEST) -> None:
    """Raise UserError unless every named field is a number from `minimum` to `most`."""
    for name in names:
        value = getattr(config, name)
        where = f"{type(config).__name__}.{name}"
        if not value >= minimum:  # also where it is not a number
            raise UserError(f"{where} must be at least {minimum}, not {value}")
        if value > most:
            raise UserError(f"{where} must be at most {most:,}, not {value}")


@dataclass(frozen=True)
class Addition:
    """Sums written out in decimal: '27+5' -> '32'."""

    digits: int = 3
    """Most digits an operand has; operands are uniform in 0 .. 10^digits - 1."""
    terms: int = 2
    """Operands in a question."""
    operator: Literal["+", "-"] = "+"
    """What stands between them; '-' subtracts every further operand from the first."""
    train: int = 5_000
    """Training questions."""
    dev: int = 1_000
    """Questions for the curves drawn while training."""
    test: int = 1_000
    """Questions scored once, at the end."""
    splits: Literal["independent", "leak_free"] = "leak_free"
    """independent: each seed draws all its questions with replacement (the notebook's way).
    leak_free: no question twice, also not with exchangeable operands swapped; dev and test are
    shared by every seed, training questions are each seed's own."""

    def __post_init__(self) -> None:
        """Refuse sizes that cannot be; how many distinct questions exist is the task's to check."""
        _at_least(1, self, "train", "dev", "test")
        _at_least(1, self, "digits", most=1_000)
        _at_least(2, self, "terms", most=1_000)


@dataclass(frozen=True)
class Toy:
    """Strings to copy, reverse or sort, all distinct: 'bca' -> 'bca' | 'acb' | 'abc'."""

    kind: Literal["copy", "reverse", "sort"] = "copy"
    """What the answer is."""
    symbols: int = 8
    """Size of the alphabet, from 'a' on."""
    min_length: int = 1
    """Shortest string, in characters."""
    max_length: int = 6
    """Longest string, in characters."""
    train: int = 2_000
    """Training strings."""
    dev: int = 200
    """Strings for the curves drawn while training."""
    test: int = 200
    """Strings scored once, at the end."""

    def __post_init__(self) -> None:
        """Refuse sizes that cannot be."""
        _at_least(1, self, "symbols", "min_length", "train", "dev", "test")
        if self.symbols > 26:
            raise UserError(f"Toy.symbols must be at most 26 (a to z), not {self.symbols}")
        if self.max_length < self.min_length:
            raise UserError(
                f"Toy.max_length must be at least Toy.min_length = {self.min_length}, "
                f"not {self.max_length}"
            )


@dataclass(frozen=True)
class Text:
    """How a pair of strings becomes two rows of ids."""

    source_order: Annotated[SourceOrder, tyro.conf.Suppress] = "forward"
    """Order of the source's characters; the justified string is what is reversed. Set by the arms
    of an experiment, so it is no option of the command line."""
    justify: Literal["right"] | None = None
    """right: both strings are filled with spaces on the left to full width; a space is an ordinary
    character, read, predicted and scored. None: rows are filled with padding, never read or
    scored."""
    source_eos: bool = True
    """End the source with the end-of-sequence symbol, after any reversal."""
    start: Literal["bos", "first_target"] = "bos"
    """bos: decoding starts from the begin symbol. first_target: the answer's first character is
    given to the decoder and never predicted."""


@dataclass(frozen=True)
class Model:
    """The encoder-decoder: LSTM -> state -> LSTM -> softmax."""

    hidden_size: int = 128
    """Units of the encoder and of the decoder."""
    embed_dim: int | None = None
    """Width of the learned input embedding; None reads one-hot inputs."""
    init: Initialiser = "keras"
    """Initial weights as that library (or paper) draws them, forget bias included; embeddings are
    drawn as input weights are."""
    precision: Precision = "float32"
    """Inputs of matrix products; accumulation, carry and parameters stay float32."""
    unroll: int = 1
    """Time steps an iteration of the compiled loop does."""

    def __post_init__(self) -> None:
        """Refuse sizes that cannot be."""
        _at_least(1, self, "hidden_size", "unroll")
        if self.embed_dim is not None:
            _at_least(1, self, "embed_dim")


@dataclass(frozen=True)
class Optimiser:
    """Adam (Kingma & Ba, 2015)."""

    learning_rate: float = 1e-3
    """Step size."""
    epsilon: float = 1e-7
    """Added to the root of the bias-corrected second moment. 1e-7 is Keras' value, which adds it
    before the correction."""

    def __post_init__(self) -> None:
        """Refuse a step that cannot be."""
        _at_least(0, self, "learning_rate", "epsilon")


@dataclass(frozen=True)
class Training:
    """The budget, and how often to look."""

    epochs: int = 200
    """Passes over the training questions."""
    batch_size: int = 128
    """Examples an update; the last, partial batch of an epoch is kept."""
    eval_every: int = 5
    """Epochs from one evaluation on dev to the next; the last epoch is always evaluated."""
    checkpoint_every: int = 10
    """Epochs from one checkpoint to the next; the last epoch is always saved."""
    show_every: int = 25
    """Epochs from one look at a few answered dev questions to the next."""

    def __post_init__(self) -> None:
        """Refuse sizes that cannot be."""
        _at_least(1, self, "epochs", "batch_size", "eval_every", "checkpoint_every", "show_every")


@dataclass(frozen=True)
class Run:
    """One run: with a seed, this decides every number."""

    task: Addition | Toy = field(default_factory=Addition)
    text: Text = field(default_factory=Text)
    model: Model = field(default_factory=Model)
    optim: Optimiser = field(default_factory=Optimiser)
    train: Training = field(default_factory=Training)


# --- to and from JSON ------------------------------------------------------------------------


def to_json(config: Any) -> dict[str, Any]:
    """A config as nested dicts of JSON values."""
    return dataclasses.asdict(config)


def from_json(kind: type[T], values: Any, where: str = "config") -> T:
    """Rebuild a config of type `kind`; unknown, missing and ill-typed fields raise UserError."""
    if not isinstance(values, Mapping):
        raise UserError(f"{where} must be an object of settings, not {values!r}")
    hints = typing.get_type_hints(kind)
    names = {f.name for f in dataclasses.fields(typing.cast(Any, kind))}
    for problem, found in (("unknown", set(values) - names), ("missing", names - set(values))):
        if found:
            raise UserError(f"{where} has {problem} settings: {', '.join(sorted(found))}")
    return kind(**{n: _value(hints[n], values[n], f"{where}.{n}") for n in names})


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
        if {f.name for f in dataclasses.fields(kind)} == set(value):
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
            found.append(f"{prefix}{name}: {a} -> {b}")
    return found
