"""The command line: presets, settings, and one clear line for what cannot be."""

import dataclasses
import signal
import sys
from pathlib import Path
from typing import get_args

import pytest

from s2sjax import cli
from s2sjax.config import Run, Translation
from s2sjax.errors import Interrupted, UserError
from s2sjax.taskconfig import Addition

PRESETS = {
    "small": ("two digits", cli.Study(Run(Addition(digits=2)), seeds=3)),
    "large": ("five digits", cli.Study(Run(Addition(digits=5)))),
}


def parsed(monkeypatch, *arguments: str):
    monkeypatch.setattr(sys, "argv", ["script.py", *arguments])
    return cli.parse_study("experiment", "what it is", PRESETS)


def test_a_preset_and_what_is_changed_in_it(monkeypatch):
    preset, study, workdir = parsed(
        monkeypatch, "small", "--task.terms", "3", "--seeds", "5", "--first-seed", "7"
    )
    assert preset == "small"
    assert study == cli.Study(Run(Addition(digits=2, terms=3)), 5, 7)
    assert workdir == Path("runs/experiment/small")
    assert parsed(monkeypatch, "large", "--workdir", "here")[2] == Path("here")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "small"),
        (["medium"], "medium"),
        (["small", "--task.digts", "3"], "--task.digts"),
        (["small", "--task.digits", "three"], "three"),
        (["small", "--task.operator", "*"], "('+', '-')"),
        (["small", "--task.digits", "0"], "Addition.digits must be at least 1, not 0"),
        (["small", "--text.source-order", "reversed"], "--text.source-order"),
        (["small", "--seeds"], "--seeds"),
    ],
)
def test_a_command_line_that_cannot_be_is_one_clear_line(monkeypatch, arguments, said, capsys):
    with pytest.raises(UserError) as caught:
        parsed(monkeypatch, *arguments)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not set("╭│╰") & set(str(caught.value))
    assert capsys.readouterr() == ("", "")


def test_help_teaches(monkeypatch, capsys):
    with pytest.raises(SystemExit) as ended:
        parsed(monkeypatch, "--help")
    assert ended.value.code == 0
    assert "two digits" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        parsed(monkeypatch, "small", "--help")
    shown = capsys.readouterr().out
    assert "--task.digits" in shown
    assert "Paired seeds" in shown


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
        (raising(UserError("this is\nwrong")), 2, "error: this is wrong\n"),
        (raising(Interrupted("stopped", signal.SIGTERM)), 143, "stopped\n"),
        (raising(Interrupted("stopped", signal.SIGINT)), 130, "stopped\n"),
        (raising(KeyboardInterrupt()), 130, "stopped; the same command goes on"),
        (missing_file, 2, "error: nowhere/at/all: No such file or directory: check the path"),
    ],
)
def test_every_end_has_its_code_and_its_line(body, code, said, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(body)
    assert ended.value.code == code
    assert capsys.readouterr().err.startswith(said)


def test_settings_are_named_as_options_and_every_config_has_a_prefix(capsys):
    with pytest.raises(SystemExit):
        cli.main(raising(UserError("Model.hidden_size must be at least 1, not 0")))
    assert capsys.readouterr().err == "error: --model.hidden-size must be at least 1, not 0\n"
    fields = [*dataclasses.fields(Run), *dataclasses.fields(Translation)]
    parts = {f.name: get_args(f.type) or (f.type,) for f in fields if f.name != "seed"}
    assert {kind.__name__: name for name, kinds in parts.items() for kind in kinds} == cli.OPTIONS


def test_a_bug_still_shows_where_it_is():
    with pytest.raises(ZeroDivisionError):
        cli.main(lambda: 1 // 0)
