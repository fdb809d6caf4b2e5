"""Errors that the user can fix: one line each, shown without a traceback."""

import importlib
from typing import Any


class UserError(Exception):
    """An input cannot be used; the message says what is wrong and what would be right."""


class Interrupted(Exception):  # noqa: N818 (not an error)
    """The run was asked to stop by a signal, and has saved its state."""

    def __init__(self, message: str, signal: int):
        super().__init__(message)
        self.signal = signal  # a shell expects the exit code 128 + signal


LARGEST = 10**8  # upper limit of every count: no larger run would end


def check_range(minimum: int, config: object, *names: str, most: int | float = LARGEST) -> None:
    """Raise UserError unless every named field is None or a number from `minimum` to `most`."""
    for name in names:
        value = getattr(config, name)
        where = f"{type(config).__name__}.{name}"
        if value is not None and not value >= minimum:  # also where it is not a number
            raise UserError(f"{where} must be at least {minimum}, not {value}")
        if value is not None and value > most:
            raise UserError(f"{where} must be at most {most:,}, not {value}")


def imported(name: str) -> Any:
    """What a dotted name stands for, None for nothing; UserError where its module fails."""
    module, _, attribute = name.rpartition(".")
    if not module or module.startswith("."):
        return None
    try:
        return getattr(importlib.import_module(module), attribute, None)
    except ImportError as error:
        raise UserError(f"{name} cannot be imported ({error}): check PYTHONPATH") from error


def require(name: str) -> Any:
    """Import a module of the extra `text`; raises UserError where it is not installed."""
    package = name.partition(".")[0]
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != package:
            raise
        how = f"pip install {package}, or in the checkout pip install '.[text]'"
        raise UserError(f"this needs the package {package} of the extra `text`: {how}") from error
