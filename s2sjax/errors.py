"""Errors that the user can fix: one line each, shown without a traceback. Their exit codes.

====  ============================================================================================
code  what a batch job does
====  ============================================================================================
   0  nothing: the run is finished
  75  starts the same command again: it was asked to stop and goes on from its checkpoint
  78  never starts it again: settings or files are wrong
   1  may start it again: the machine failed (no room, no rights), or the code did
 130  nothing: a person pressed Ctrl-C
 134  may start it again: of several processes, one did not come or has died
====  ============================================================================================
"""

import importlib
import signal
from typing import Any

FAULT, AGAIN, REFUSED = 1, 75, 78
"""Exit codes; 75 and 78 are EX_TEMPFAIL and EX_CONFIG of ``sysexits.h``."""


def stopped_by(number: int) -> int:
    """Exit code of a run that a signal has stopped."""
    return 128 + number if number == signal.SIGINT else AGAIN


class UserError(Exception):
    """An input cannot be used; the message says what is wrong and what would be right."""

    code = REFUSED


class BusyError(UserError):
    """Another process has what this one needs."""

    code = AGAIN


class MachineError(UserError):
    """The settings are right, but the machine lacks room or rights."""

    code = FAULT


class Interrupted(Exception):  # noqa: N818 (not an error)
    """The run was asked to stop by a signal, and has saved its state."""

    def __init__(self, message: str, signal: int):
        super().__init__(message)
        self.code = stopped_by(signal)


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
