"""Packages that only some rooms need: the extra `text`."""

import importlib
from types import ModuleType
from typing import Any

from s2sjax.errors import UserError


def require(name: str) -> Any:
    """Import a module of the extra `text`; raises UserError where it is not installed."""
    try:
        module: ModuleType = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != name.partition(".")[0]:
            raise
        raise UserError(
            f"this needs the package {name.partition('.')[0]}: pip install 's2sjax[text]'"
        ) from error
    return module
