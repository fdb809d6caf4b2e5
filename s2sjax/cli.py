"""What every experiment script shares: presets, settings from the command line, clean endings."""

import contextlib
import io
import os
import re
import signal
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, NoReturn

import jax
import tyro
from rich.console import Console

from s2sjax.config import Run
from s2sjax.errors import Interrupted, UserError

OPTIONS = {
    "Addition": "task",
    "Toy": "task",
    "Dates": "task",
    "NumberWords": "task",
    "Sentences": "sentences",
    "Text": "text",
    "Model": "model",
    "Optimiser": "optim",
    "Training": "train",
}
"""Prefix of the options that set a config's fields."""

PIPED_WIDTH = 120
"""Columns of tables where output is no terminal."""


@dataclass(frozen=True)
class Study:
    """A run and the seeds it is repeated with."""

    run: Annotated[Run, tyro.conf.arg(name="")] = field(default_factory=Run)
    seeds: int = 10
    """Paired seeds: how often every arm is run."""
    first_seed: int = 0
    """Seeds count up from here; other ones repeat the study on fresh weights and questions."""


@dataclass(frozen=True)
class Command:
    """What was asked for on the command line."""

    preset: tyro.conf.Suppress[str]
    study: Annotated[Study, tyro.conf.arg(name="")]
    workdir: Path | None = None
    """Folder of the run; the default is runs/EXPERIMENT/PRESET. The same command goes on there."""


def parse_study(experiment: str, description: str, presets: Mapping[str, tuple[str, Study]]):
    """Read `PRESET [--setting value ...]` from the command line.

    Args:
        experiment: name of the default workdir.
        description: what `--help` opens with.
        presets: by name, what it is and its settings.

    Returns:
        The preset's name, its study with the given settings, and the workdir.

    Raises:
        UserError: the command line cannot be used; says what is wrong in one line.
    """
    commands = {name: (what, Command(name, study)) for name, (what, study) in presets.items()}
    command = parse_preset(description, commands)
    workdir = command.workdir or Path("runs") / experiment / command.preset
    return command.preset, command.study, workdir


def parse_preset(description: str, commands: Mapping[str, tuple[str, Any]]) -> Any:
    """Read `PRESET [--setting value ...]` as one of `commands`; errors as `parse_study`.

    Args:
        description: what `--help` opens with.
        commands: by name of a preset, what it is and a dataclass of its settings.
    """
    return _one_line_errors(
        lambda: tyro.extras.overridable_config_cli(
            {**commands}, description=description, config=(tyro.conf.AvoidSubcommands,)
        )
    )


def parse(kind: type, description: str):
    """Read the settings of the dataclass `kind` from the command line; errors as `parse_study`."""
    return _one_line_errors(lambda: tyro.cli(kind, description=description))


def _one_line_errors(read: Callable):
    """Call tyro; what it would print as a framed error becomes a UserError of one line."""
    stderr = io.StringIO()
    try:
        with contextlib.redirect_stderr(stderr):
            return read()
    except SystemExit as ended:
        if not ended.code:
            raise
    raise UserError(_one_line(stderr.getvalue()))


def _one_line(framed: str) -> str:
    """The gist of what tyro frames and wraps."""
    text = re.sub(r"\x1b\[[0-9;]*m|[╭╮╰╯│─]|-{3,}", " ", framed)
    text = " ".join(re.sub(r"(?m)^ *[+|]|[+|] *$", " ", text).split())
    text = re.sub(r"(?i)^(.{5,40}?):? (?=\1)", "", text)  # a title that the text repeats
    text = re.sub(r"(Perhaps you meant:?) (--[\w.-]+).*?(?=For full)", r"\1 \2? ", text)
    text = re.sub(r"Argument helptext:.*?(?=For full)", "", text)
    return re.sub(r"For full helptext, (run|see):?", "For help:", text)


def make_console() -> Console:
    """The terminal, or a stream of plain lines wide enough for tables."""
    return Console(width=None if sys.stdout.isatty() else PIPED_WIDTH)


def main(body: Callable[[], None]) -> NoReturn:
    """Run a script's body; what the user can mend ends in one line on stderr and exit code 2.

    Ctrl-C and SIGTERM end with a shell's codes, 130 and 143. A character that the terminal's
    encoding lacks is shown as '?'.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        body()
    except UserError as error:
        _end(f"error: {_with_options(str(error))}", 2)
    except Interrupted as stopped:
        _end(str(stopped), 128 + stopped.signal)
    except KeyboardInterrupt:
        _end("stopped; the same command goes on from the last checkpoint", 130)
    except MemoryError as error:
        _end(f"error: this does not fit into memory ({error}): choose smaller sizes", 2)
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error) and "out of memory" not in str(error).lower():
            raise
        _end("error: this does not fit into the device's memory: choose smaller sizes", 2)
    except BrokenPipeError:  # whoever read has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)
    except OSError as error:
        where = "" if error.filename is None else f"{error.filename}: "
        _end(f"error: {where}{error.strerror}: check the path, your rights, and the room left", 2)
    sys.exit(0)


def _with_options(message: str) -> str:
    """Settings as the command line names them: 'Model.hidden_size' to '--model.hidden-size'."""
    named = rf"\b({'|'.join(OPTIONS)})\.(\w+)"
    return re.sub(named, lambda m: f"--{OPTIONS[m[1]]}.{m[2].replace('_', '-')}", message)


def _end(message: str, code: int) -> NoReturn:
    print(" ".join(message.split()), file=sys.stderr)
    sys.exit(code)
