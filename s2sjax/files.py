"""Files that are written in one step, and errors of one line for files that cannot be read."""

import json
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from s2sjax.errors import UserError

PARTIAL = ".partial"  # ending of a file that a kill left unfinished


@contextmanager
def reading(path: Path | str) -> Iterator[None]:
    """Turn an OSError while reading `path` into a UserError; refuse what can be read only once."""
    if Path(path).exists() and not Path(path).is_file():
        raise UserError(f"{path} is no regular file: it is read more than once")
    try:
        yield
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error


def write_atomically(path: Path, content: str | bytes) -> None:
    """Replace a file's content in one step: no reader, and no kill, leaves half of it."""
    mine = f"{platform.node()}-{os.getpid()}"  # each process of each machine has its own
    partial = path.with_name(f"{path.name}.{mine}{PARTIAL}")
    partial.unlink(missing_ok=True)  # of an earlier kill, or a link, which must not be followed
    with partial.open("xb") as file:
        file.write(content.encode() if isinstance(content, str) else content)
    os.replace(partial, path)


def write_json(path: Path, value: Any) -> None:
    """Replace a JSON file in one step; ValueError for NaN and infinities."""
    write_atomically(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def read_json(path: Path, remedy: str) -> Any:
    """A JSON file's value; UserError for a damaged file, which ends in the remedy."""
    try:
        return json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse)
    except (ValueError, RecursionError) as error:  # no UTF-8, no JSON, or too deep
        raise UserError(f"{path} is damaged ({error}): {remedy}") from error


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no number of JSON")
