"""What is shown while training: lines where it is piped, a bar on a terminal."""

import io
import re

import pytest
from rich.console import Console

from s2sjax.train.progress import EpochProgress, duration


def shown(*, terminal: bool) -> str:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=terminal, width=100)
    with EpochProgress(console, 3, 6, 7_000) as progress:
        progress.move(3.1, True)
        progress.move(3.5, False)
        progress.advance(4, None)
        progress.advance(5, None)
        progress.show([("1+1", "2", [("forward", "2", True), ("reversed", "3", False)])])
        progress.advance(6, "forward 34.3 %")
    return stream.getvalue()


def test_piped_output_is_a_line_for_the_first_epoch_and_for_each_with_scores():
    lines = shown(terminal=False).splitlines()
    assert [line.split("  ")[0] for line in lines if line.startswith("epoch")] == [
        "epoch 4/6",
        "epoch 6/6",
    ]
    assert re.search(r"  [0-9,]+ updates/s, [0-9,]+ MiB  0 s left$", lines[0])
    assert lines[1] == "  1+1 = 2    forward 2 ☑  reversed 3 ☒"
    assert lines[2].startswith("epoch 6/6  forward 34.3 %  ")


def test_what_a_file_holds_is_shown_and_not_obeyed():
    """Fault 26o."""
    stream = io.StringIO()
    with EpochProgress(Console(file=stream, width=100), 0, 1) as progress:
        progress.show([("a\x1b[2Jb", "\x1b]0;title\x07", [("forward", "\u202eé\x9b", False)])])
    assert stream.getvalue() == r"  a\x1b[2Jb = \x1b]0;title\x07    forward \u202eé\x9b ☒" + "\n"


def test_a_terminal_gets_a_bar_with_the_time_left_and_colours():
    out = shown(terminal=True)
    assert "6/6" in out
    assert "left" in out
    assert "━" in out
    assert "\x1b[1;32m☑" in out
    assert "\x1b[1;31m☒" in out


def test_a_narrow_terminal_shows_the_epoch_the_time_left_and_all_scores():
    stream = io.StringIO()
    scores = "forward 62.8 % (whole answers 5.5 %)  reversed 97.3 % (whole answers 91.8 %)"
    with EpochProgress(Console(file=stream, force_terminal=True, width=80), 0, 200) as progress:
        progress.advance(150, scores)
        progress.advance(151, None)
        progress.advance(152, None)
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", stream.getvalue())
    bar, below = shown.rstrip().splitlines()[-2:]
    assert bar.startswith("epoch 152/200 ")
    assert bar.rstrip().endswith("left")
    assert below.rstrip() == scores


def test_time_left_is_told_once_it_was_measured_without_compiling_and_long_epochs_move():
    """Fault 26."""
    clock, stream = [0.0], io.StringIO()
    console = Console(file=stream, width=100, get_time=lambda: clock[0])

    def after(seconds: float, do: object, *arguments: object) -> str:
        clock[0] += seconds
        stream.seek(0)
        stream.truncate()
        do(*arguments)
        return stream.getvalue().strip()

    with EpochProgress(console, 0, 4) as progress:
        assert after(90, progress.move, 0.25, True) == "epoch 0.25/4"  # it compiled
        assert after(10, progress.move, 0.5, False) == ""
        assert after(55, progress.move, 0.75, True) == "epoch 0.75/4  2 min 10 s left"  # again
        assert after(10, progress.move, 1.0, False) == ""
        assert after(30, progress.advance, 1, "a 1 %") == "epoch 1/4  a 1 %  2 min 00 s left"
        assert after(40, progress.move, 2.0, False) == ""
        assert after(30, progress.advance, 2, "a 2 %") == "epoch 2/4  a 2 %  2 min 00 s left"


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.4, "0 s"),
        (59.4, "59 s"),
        (60.0, "1 min 00 s"),
        (3_599.0, "59 min 59 s"),
        (7_260.0, "2 h 01 min"),
    ],
)
def test_durations_are_said_as_people_say_them(seconds, said):
    assert duration(seconds) == said
