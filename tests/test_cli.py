"""The command line: presets, settings, and one clear line for what cannot be."""

import os
import signal
import sys
import typing
from dataclasses import fields, is_dataclass
from pathlib import Path

import pytest

from s2sjax import cli
from s2sjax.data.addition import Addition
from s2sjax.errors import BusyError, Interrupted, UserError
from s2sjax.study.experiment import Command, Study
from s2sjax.train.run import Run

SMALL = Study(Run(Addition(digits=2, train=100, dev=10, test=10)), seeds=3)
PRESETS = {
    "small": ("two digits", Command("small", SMALL)),
    "large": ("five digits", Command("large", Study(Run(Addition(digits=5))))),
}


def parsed(monkeypatch, *arguments: str) -> Command:
    monkeypatch.setattr(sys, "argv", ["experiments/script.py", *arguments])
    return cli.parse_preset("what it is", PRESETS)


def test_a_preset_and_what_is_changed_in_it(monkeypatch):
    asked = parsed(monkeypatch, "small", "--task.terms", "3", "--seeds", "5", "--first-seed", "7")
    task = Addition(digits=2, terms=3, train=100, dev=10, test=10)
    assert asked == Command("small", Study(Run(task), 5, 7))
    assert parsed(monkeypatch, "large", "--workdir", "here").workdir == Path("here")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "{first}, not ''; {top}"),
        (["medium"], "{first}, not 'medium'; {top}"),
        (["--seeds", "3"], "{first}, not '--seeds'; {top}"),
        (
            ["small", "--task.digts", "3"],
            "Unrecognized options: --task.digts, 3; perhaps --task.digits; {own}",
        ),
        (
            ["small", "--task.digits", "three"],
            "Error parsing --task.digits: invalid literal for int() with base 10: 'three'; {own}",
        ),
        (
            ["small", "--task.operator", "*"],
            "invalid choice '*' for argument '--task.operator'. Expected one of ('+', '-'); {own}",
        ),
        (["small", "--task.digits", "0"], "Addition.digits must be at least 1, not 0"),
        (
            ["small", "--text.source-order", "reversed"],
            "Unrecognized options: --text.source-order, reversed; perhaps --text.source-eos; {own}",
        ),
        (["small", "--seeds"], "Missing value for argument '--seeds'. Expected 1 values; {own}"),
        (["small", "--seeds", "1", "2"], "Unrecognized options: 2; {own}"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("columns", [40, 200])
def test_a_command_line_that_cannot_be_is_one_clear_line(
    monkeypatch, arguments, message, columns, capsys
):
    monkeypatch.setenv("COLUMNS", str(columns))
    with pytest.raises(UserError) as caught:
        parsed(monkeypatch, *arguments)
    words = {
        "first": "the first word must be a preset, one of small, large",
        "top": "for help: script.py --help",
        "own": "for help: script.py small --help",
    }
    assert str(caught.value) == message.format(**words)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(("rule", "edge"), [("───────", "│"), ("-------", " ")])
def test_colours_and_frames_are_left_out(rule, edge):
    title = f"\x1b[91m╭─ Title {rule}╮\x1b[0m" if edge == "│" else f" Title\n {rule}"
    rows = ["wrong.", rule, "Perhaps you meant:", "  --a, --b", "what it is", rule, "For help"]
    box = "\n".join([title, *(f"{edge} {row} {edge}" for row in rows)])
    assert cli._one_line(box, "s.py") == "wrong; perhaps --a; for help: s.py --help"


def test_help_lists_presets_and_the_settings_of_each(monkeypatch, capsys):
    for arguments, shown in (
        (["--help"], ["what it is", "two digits", "five digits"]),
        (["small", "--help"], ["script.py small", "two digits", "--task.digits", "Paired seeds"]),
    ):
        with pytest.raises(SystemExit) as ended:
            parsed(monkeypatch, *arguments)
        assert ended.value.code == 0
        out = capsys.readouterr().out
        assert all(words in out for words in shown)


def test_help_is_wrapped_to_the_terminal_and_nowhere_else(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        parsed(monkeypatch, "small", "--help")
    lines = [line.strip("│ ") for line in capsys.readouterr().out.splitlines()]
    first = next(n for n, line in enumerate(lines) if line.startswith("uniform: each in"))
    assert lines[first + 1].startswith("digits is drawn, then every digit, leading zeros dropped")
    assert "Sums written out in decimal: '27+5' -> '32'." in lines
    assert "How a pair of strings becomes two rows of ids." in lines


def missing_file():
    Path("nowhere/at/all").read_text()


def raising(error: BaseException):
    def body():
        raise error

    return body


@pytest.mark.parametrize(
    ("body", "code", "said"),
    [
        (lambda: None, 0, ""),
        (raising(UserError("this is\nwrong")), 78, "error: this is wrong\n"),
        (raising(BusyError("another process")), 75, "error: another process\n"),
        (raising(Interrupted("stopped", signal.SIGTERM)), 75, "stopped\n"),
        (raising(Interrupted("stopped", signal.SIGINT)), 130, "stopped\n"),
        (raising(KeyboardInterrupt()), 130, "stopped; the same command goes on"),
        (raising(MemoryError("9 TB")), 78, "error: this does not fit into memory (9 TB)"),
        (missing_file, 1, "error: nowhere/at/all: No such file or directory: check the path"),
        (
            raising(UserError("Model.hidden_size must be at least 1")),
            78,
            "error: --model.hidden-size must be at least 1\n",
        ),
    ],
)
def test_every_end_has_its_code_and_its_line(body, code, said, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(body)
    assert ended.value.code == code
    assert capsys.readouterr().err.startswith(said)


def test_streams_that_are_closed_and_a_bad_backend_stop_nothing(monkeypatch):
    def body():
        assert sys.stdin.read() == ""
        print("one", file=sys.stdout)
        cli.make_console().print("two")
        assert os.environ["MPLBACKEND"] == "agg"

    monkeypatch.setenv("MPLBACKEND", "nowhere")
    for name in ("stdin", "stdout", "stderr"):
        monkeypatch.setattr(sys, name, None)
    with pytest.raises(SystemExit) as ended:
        cli.main(body)
    assert ended.value.code == 0
    for name in ("stdin", "stdout", "stderr"):
        getattr(sys, name).close()


def test_brackets_and_colons_in_a_name_are_shown_as_they_are(capsys):
    cli.make_console().print("runs/x[/]y [bold] :warning:")
    assert capsys.readouterr().out == "runs/x[/]y [bold] :warning:\n"


def test_the_settings_of_every_config_have_a_prefix():
    hints = typing.get_type_hints(Run)
    kinds = {f.name: typing.get_args(hints[f.name]) or (hints[f.name],) for f in fields(Run)}
    known = [(k.__name__, name) for name, of in kinds.items() for k in of if is_dataclass(k)]
    assert dict(known) == cli.OPTIONS


def test_a_bug_still_shows_where_it_is():
    with pytest.raises(ZeroDivisionError):
        cli.main(lambda: 1 // 0)


def test_output_that_nobody_reads_ends_a_script_with_a_line(monkeypatch, capsys):
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w") as unread:
        monkeypatch.setattr(sys, "stdout", unread)
        with pytest.raises(SystemExit) as ended:
            cli.main(lambda: cli.make_console().print("epoch 1"))
    assert ended.value.code == 128 + signal.SIGPIPE
    assert capsys.readouterr().err == "stopped: nobody reads the output any more\n"
