"""The page of every picture: its style, title, note and legend, the colours, the units of an axis.

matplotlib is imported only to draw, for it costs a second or two. Its global state is not changed.
"""

import io
import re
import textwrap
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from s2sjax.files import write_atomically
from s2sjax.report.stats import interval
from s2sjax.report.tables import MINUS, quantity, unit

# Okabe & Ito's colours, told apart with any colour vision.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
LINES = ("-", "--", ":", "-.")
INK, GREY, SILVER, PALE = "#222222", "#666666", "#C0C0C0", "#E0E0E0"

WIDTH, DPI = 8.0, 150  # inches; 1200 px
LETTERS = 34  # of a name, before it is broken into lines
LINE = 0.21  # inches: a line of a legend
STYLE = {
    "figure.constrained_layout.w_pad": 0.1,
    "figure.constrained_layout.h_pad": 0.1,
    "font.size": 10.5,
    "text.color": INK,
    "text.parse_math": False,  # an arm's name may hold a dollar
    **dict.fromkeys(("axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), GREY),
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": "medium",
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "grid.color": PALE,
    "legend.frameon": False,
    "legend.labelcolor": "markeredgecolor",
}
# Each floor has a line of its own, so that a legend can name it.
FLOORS = ((0, (5, 3)), (0, (1, 1.5)), (0, (6, 2, 1, 2)), (0, (9, 3)), (0, (3, 1, 1, 1, 1, 1)))
# Names of fonts that are tried, where installed, for characters that DejaVu Sans lacks.
EAST_ASIAN = "CJK|Hei|Gothic|Hiragino|PingFang|Song|Ming|Unicode MS"


@contextmanager
def picture(path: Path, height: float, title: str, note: str) -> Iterator[Any]:
    """A figure of `WIDTH` x ``height`` inches between a title and a note; writes it at the end."""
    import matplotlib.style
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.font_manager import fontManager

    installed = sorted({font.name for font in fontManager.ttflist})
    fonts = ["DejaVu Sans", *(name for name in installed if re.search(EAST_ASIAN, name))]
    with matplotlib.style.context(["default", STYLE, {"font.family": fonts}]):
        figure = Figure(figsize=(WIDTH, height), dpi=DPI, layout="constrained")
        FigureCanvasAgg(figure)
        left: dict[str, Any] = {"x": 0.1 / WIDTH, "ha": "left"}
        title = textwrap.fill(title[:1].upper() + title[1:], 72)
        figure.suptitle(title, **left, fontsize=13, fontweight="bold")
        below = figure.supxlabel(textwrap.fill(note, 110), **left, fontsize=9.5, color=GREY)
        yield figure.subfigures()
        png, without = io.BytesIO(), {"Software": None}  # the bytes depend on the drawing alone
        with warnings.catch_warnings():
            try:
                warnings.filterwarnings("error", "Glyph ")
                figure.savefig(png, format="png", metadata=without)
            except UserWarning:
                note = f"{note} Boxes: characters that no installed font has."
                below.set_text(textwrap.fill(note, 110))
                warnings.filterwarnings("ignore", "Glyph ")
                figure.savefig(png, format="png", metadata=without)
    write_atomically(path, png.getvalue())


def legend(figure: Any, handles: Sequence[Any], place: str = "outside right upper") -> None:
    """A legend outside of all axes."""
    for handle in handles if place == "outside right upper" else ():
        handle.set_label(wrapped(str(handle.get_label())))
    figure.legend(handles=handles, loc=place, handlelength=2.4, alignment="left")


def height_for(labels: Iterable[str], least: float) -> float:
    """Inches for a picture with a legend of those labels on its right."""
    return max(least, 1.5 + LINE * sum(1.2 + wrapped(label).count("\n") for label in labels))


def line_of(i: int) -> dict[str, Any]:
    """Colour and line of an arm by its place: another line where the colours begin again."""
    rounds, place = divmod(i, len(COLOURS))
    return {"color": COLOURS[place], "linestyle": LINES[rounds % len(LINES)]}


def wrapped(text: str) -> str:
    """A text in lines of at most `LETTERS`."""
    return textwrap.fill(text, LETTERS)


def seed_note(counts: Iterable[int], marks: str) -> str:
    """How many seeds there are, and what marks mean if many; ValueError if nothing is counted."""
    if not (counts := [*counts]):
        raise ValueError("There is nothing to draw.")
    low, high = min(counts), max(counts)
    if high == 1:
        return "One seed."
    return f"{low} to {high} seeds. {marks}" if low < high else f"{low} seeds. {marks}"


def show_unit(axis: Any, metric: str, sign: str = "") -> None:
    """Tick labels in the unit of a metric; with the sign "+", those of a difference."""
    of = unit(metric)

    def text(value: float, _: object) -> str:
        shown = round(of.scale * value, 9)
        digits = f"{shown:{sign}.4g}".replace("-", MINUS) if shown else "0"
        return digits if sign else digits + of.symbol

    axis.set_major_formatter(text)


def draw_floors(line: Any, floors: Mapping[str, float], metric: str, skip: int = 0) -> list[Any]:
    """Draws floors with an axes' `axhline` or `axvline`; returns what a legend names."""
    style = {"color": GREY, "linewidth": 1.3, "zorder": 2}
    return [
        line(v, **style, linestyle=FLOORS[i % len(FLOORS)], label=f"{name}: {quantity(v, metric)}")
        for i, (name, v) in enumerate(floors.items(), start=skip)
    ]


class Row(NamedTuple):
    """A row of numbers, ``{seed: value}``, between its name and a text."""

    label: str
    seeds: Mapping[int, float]
    text: str
    colour: str


class Panel(NamedTuple):
    """Rows under a heading, what they measure, and its floors."""

    heading: str
    rows: Sequence[Row]
    metric: str
    floors: Mapping[str, float]


def draw_rows(
    path: Path, title: str, panels: Sequence[Panel], *, signed: bool = False, joined: bool = False
) -> None:
    """Draws panels from the top; `signed` numbers are differences.

    In `joined` rows a line joins a seed from row to row; panels have their own scales and floors.
    """
    panels = [panel for panel in panels if panel.rows]
    rows = [row for panel in panels for row in panel.rows]
    marks = f"Dots: seeds{', joined by lines' * joined}; bars: their mean, with its 95 % interval."
    note = seed_note((len(row.seeds) for row in rows), marks)
    lines = 1 + max(max(wrapped(r.label).count("\n"), r.text.count("\n")) for r in rows)
    height = 1.4 + (0.14 + 0.17 * lines) * len(rows) + (0.6 if joined else 0.34) * len(panels)
    height += LINE * len({label for panel in panels for label in panel.floors})
    with picture(path, height, title, note) as figure:
        style: dict[str, Any] = {"height_ratios": [len(panel.rows) for panel in panels]}
        grid = figure.subplots(len(panels), sharex=not joined, squeeze=False, **style)[:, 0]
        named: dict[str, Any] = {}
        for axes, panel in zip(grid, panels, strict=True):
            axes.grid(axis="x")
            axes.set(ylim=(len(panel.rows) - 0.5, -0.5), title=panel.heading)
            axes.margins(x=0.04)
            for y, row in enumerate(panel.rows):
                axes.axhline(y, color=PALE, linewidth=0.8, zorder=1)
                style = {"color": row.colour, "zorder": 3, "solid_capstyle": "butt"}
                dots = [*row.seeds.values()]
                axes.plot(dots, [y - 0.15] * len(dots), "o", **style, alpha=0.45, mew=0, ms=5)
                mean, *ends = interval(dots)
                axes.plot(mean, y + 0.18, "|", **style, ms=8, mew=2)
                if len(dots) > 1:
                    axes.plot(ends, [y + 0.18] * 2, **style, lw=3)
                below = panel.rows[y + 1].seeds if joined and y + 1 < len(panel.rows) else {}
                for seed in row.seeds.keys() & below.keys():
                    pair = (row.seeds[seed], below[seed])
                    axes.plot(pair, (y - 0.15, y + 0.85), color=SILVER, linewidth=0.8, zorder=1)
            right = axes.secondary_yaxis("right")
            axes.set_yticks(range(len(panel.rows)), [wrapped(r.label) for r in panel.rows])
            right.set_yticks(range(len(panel.rows)), [row.text for row in panel.rows])
            for side in (axes, right):
                side.tick_params("y", length=0, labelcolor=INK)
                side.spines[["left", "right"]].set_visible(False)
            for label, row in zip(right.get_yticklabels(), panel.rows, strict=True):
                label.set_color(row.colour)
            axes.locator_params(axis="x", nbins=6)
            show_unit(axes.xaxis, panel.metric, "+" * signed)
            if signed:
                axes.axvline(0, color=GREY, linewidth=1)
                grid[-1].set_xlabel(f"difference, {unit(panel.metric).difference}".rstrip(", "))
            skip = len(named) if joined else 0  # else all panels have the same floors
            drawn = draw_floors(axes.axvline, panel.floors, panel.metric, skip)
            named |= zip(panel.floors, drawn, strict=True)
        if named:
            legend(figure, [*named.values()], "outside lower left")
