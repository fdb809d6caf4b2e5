"""Packages that only some files need: the extra `text`."""

import importlib
from typing import Any

from s2sjax.errors import UserError


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
