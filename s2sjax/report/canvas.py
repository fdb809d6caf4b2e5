"""What all pictures share: the page with its title, note and legend; colours; units of an axis.

matplotlib is imported only to draw, because the import takes a second or two. Its global settings
are not changed.
"""

import io
import re
import textwrap
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from s2sjax.files import write_atomically
from s2sjax.report.tables import MINUS, quantity, unit

# The colours of Okabe & Ito (2008), which people with any colour vision can tell apart.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
LINES = ("-", "--", ":", "-.")
INK, GREY, PALE = "#222222", "#666666", "#E0E0E0"

WIDTH, DPI = 8.0, 150  # inches; 1200 px
LABEL_WIDTH = 34  # characters in a line of a label
LINE = 0.21  # inches: the height of a line in a legend
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
# Line styles of the floors: each has its own, so that a legend can name it.
FLOORS = ((0, (5, 3)), (0, (1, 1.5)), (0, (6, 2, 1, 2)), (0, (9, 3)), (0, (3, 1, 1, 1, 1, 1)))
EAST_ASIAN = "CJK|Hei|Gothic|Hiragino|PingFang|Song|Ming|Unicode MS"  # fonts, where installed


@contextmanager
def page(path: Path, height: float, title: str, note: str) -> Iterator[Any]:
    """A figure of `WIDTH` x ``height`` inches with a title above and a note below.

    The file is written at the end of the ``with`` block.
    """
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
        caption = figure.supxlabel(textwrap.fill(note, 110), **left, fontsize=9.5, color=GREY)
        yield figure.subfigures()
        png, metadata = io.BytesIO(), {"Software": None}  # the bytes depend on the drawing alone
        with warnings.catch_warnings():
            try:
                warnings.filterwarnings("error", "Glyph ")
                figure.savefig(png, format="png", metadata=metadata)
            except UserWarning:
                note = f"{note} Boxes: characters that no installed font has."
                caption.set_text(textwrap.fill(note, 110))
                warnings.filterwarnings("ignore", "Glyph ")
                figure.savefig(png, format="png", metadata=metadata)
    write_atomically(path, png.getvalue())


def legend(figure: Any, handles: Sequence[Any], place: str = "outside right upper") -> None:
    """Draws a legend outside of all axes; on the right, its labels are broken into lines."""
    for handle in handles if place == "outside right upper" else ():
        handle.set_label(wrapped(str(handle.get_label())))
    figure.legend(handles=handles, loc=place, handlelength=2.4, alignment="left")


def height_for(labels: Iterable[str], least: float) -> float:
    """The height in inches of a picture that has a legend with those labels on its right."""
    return max(least, 1.5 + LINE * sum(1.2 + wrapped(label).count("\n") for label in labels))


def line_of(i: int) -> dict[str, Any]:
    """The colour of arm number ``i`` and its line style, which changes when colours repeat."""
    rounds, place = divmod(i, len(COLOURS))
    return {"color": COLOURS[place], "linestyle": LINES[rounds % len(LINES)]}


def wrapped(text: str) -> str:
    """A text in lines of at most `LABEL_WIDTH` characters."""
    return textwrap.fill(text, LABEL_WIDTH)


def seed_note(counts: Iterable[int], marks: str) -> str:
    """How many seeds there are and, for several, what the marks mean; ValueError for no count."""
    if not (counts := [*counts]):
        raise ValueError("There is nothing to draw.")
    low, high = min(counts), max(counts)
    if high == 1:
        return "One seed."
    return f"{low} to {high} seeds. {marks}" if low < high else f"{low} seeds. {marks}"


def show_unit(axis: Any, metric: str, sign: str = "") -> None:
    """Labels an axis in the unit of a metric; the sign "+" makes them labels of a difference."""
    of = unit(metric)

    def text(value: float, _: object) -> str:
        shown = round(of.scale * value, 9)
        digits = f"{shown:{sign}.4g}".replace("-", MINUS) if shown else "0"
        return digits if sign else digits + of.symbol

    axis.set_major_formatter(text)


def draw_floors(draw: Any, floors: Mapping[str, float], metric: str) -> list[Any]:
    """Draws floors with `draw`, an axes' `axhline` or `axvline`; returns the lines, labelled."""
    style = {"color": GREY, "linewidth": 1.3, "zorder": 2}
    return [
        draw(v, **style, linestyle=FLOORS[i % len(FLOORS)], label=f"{name}: {quantity(v, metric)}")
        for i, (name, v) in enumerate(floors.items())
    ]
