"""What every experiment script shares: presets, settings from the command line, clean endings."""

import contextlib
import io
import os
import re
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn, TypeVar
from unittest.mock import patch

import jax
import tyro
from rich.console import Console

from s2sjax.errors import AGAIN, FAULT, REFUSED, Interrupted, UserError

T = TypeVar("T")

OPTIONS = dict.fromkeys(("Addition", "Toy", "Dates", "Sentences"), "task")
OPTIONS |= {"Text": "text", "Model": "model", "Optimiser": "optim", "Training": "train"}
"""Prefix of the options that set a config's fields."""


def parse_preset(description: str, commands: Mapping[str, tuple[str, Any]]) -> Any:
    """Read `PRESET [--setting value ...]`; `commands` is ``{preset: (description, settings)}``."""
    script, name, *rest = [*sys.argv, ""][: max(2, len(sys.argv))]
    script = Path(script).name
    if name in commands:
        what, settings = commands[name]
        return parse(type(settings), what, prog=f"{script} {name}", args=rest, default=settings)
    if name in ("-h", "--help"):
        tyro.extras.overridable_config_cli({**commands}, description=description)
    raise UserError(
        f"the first word must be a preset, one of {', '.join(commands)}, not {name!r}; "
        f"for help: {script} --help"
    )


def parse(kind: type[T], description: str, **settings: Any) -> T:
    """Read the settings of the dataclass `kind` from the command line; wrong ones are UserError."""
    stderr, config = io.StringIO(), (tyro.conf.AvoidSubcommands,)
    unwrapped = patch.object(tyro._docstrings, "get_field_docstring", _on_one_line)
    try:
        with unwrapped, contextlib.redirect_stderr(stderr):
            return tyro.cli(kind, description=description, config=config, **settings)
    except SystemExit as ended:
        if not ended.code:
            raise
    raise UserError(_one_line(stderr.getvalue(), settings.get("prog", Path(sys.argv[0]).name)))


_of_field = tyro._docstrings.get_field_docstring


def _on_one_line(*field: Any) -> str | None:
    """A field's docstring as one line, to be wrapped: tyro keeps the breaks of indented ones."""
    text = _of_field(*field)
    return text and " ".join(text.split())


def _one_line(framed: str, program: str) -> str:
    """One line of tyro's framed sections: a title, what is wrong, and what may have been meant."""
    plain = re.sub(r"\x1b\[[0-9;]*m|│", "", framed)
    _, wrong, *others = [*re.split(r"(?m)^.*[─-]{5,}.*$", plain), ""]
    parts = [" ".join(wrong.split()).rstrip(".")]
    parts += [f"perhaps {s.split()[3].rstrip(',')}" for s in others if s.split()[:1] == ["Perhaps"]]
    return "; ".join([*parts, f"for help: {program} --help"])


class _Console(Console):
    def on_broken_pipe(self) -> None:
        raise BrokenPipeError  # Rich would end the process without a word


def make_console(*, quiet: bool = False) -> Console:
    """The terminal, or plain lines wide enough for tables; brackets are shown as they are."""
    width = None if sys.stdout.isatty() else 120
    return _Console(width=width, quiet=quiet, markup=False, emoji=False)


def main(body: Callable[[], None]) -> NoReturn:
    """Run a script's body; an error that the user can fix is one line on stderr.

    The exit codes are those of `errors`.
    """
    os.environ["MPLBACKEND"] = "agg"  # pictures are drawn to files, whatever is asked for
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # it was closed
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115 (as long as the process)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # '?' for what the terminal's encoding lacks
    try:
        body()
    except UserError as error:
        _end(f"error: {_with_options(str(error))}", error.code)
    except Interrupted as stopped:
        _end(str(stopped), stopped.code)
    except KeyboardInterrupt:
        _end("stopped; the same command goes on from the last checkpoint", 130)
    except MemoryError as error:
        _end(f"error: this does not fit into memory ({error}): choose smaller sizes", REFUSED)
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error) and "out of memory" not in str(error).lower():
            raise
        _end("error: this does not fit into the device's memory: choose smaller sizes", REFUSED)
    except BrokenPipeError:  # the reader, such as head, has ended
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        _end("stopped: nobody reads the output any more", 128 + signal.SIGPIPE)
    except OSError as error:
        where = "" if error.filename is None else f"{error.filename}: "
        check = "check the path, your rights, and the room left"
        _end(f"error: {where}{error.strerror}: {check}", FAULT)
    sys.exit(0)


def _with_options(message: str) -> str:
    """Name settings as the command line does: 'Model.hidden_size' to '--model.hidden-size'."""
    named = rf"\b({'|'.join(OPTIONS)})\.(\w+)"
    return re.sub(named, lambda m: f"--{OPTIONS[m[1]]}.{m[2].replace('_', '-')}", message)


def _end(message: str, code: int) -> NoReturn:
    print(" ".join(message.split()), file=sys.stderr)
    if jax.distributed.is_initialized() and code != AGAIN:
        os._exit(code)  # else the other processes would be waited for
    sys.exit(code)
