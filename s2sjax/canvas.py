"""The page that pictures are drawn on: its size, colours and letters, its title and margins.

Lengths are in inches throughout: room is made for texts, and texts do not scale with axes.
matplotlib is imported only when a picture is drawn, for it costs a second or two; its global state
is never touched.
"""

import io
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from s2sjax.files import write_atomically
from s2sjax.report import is_loss

if TYPE_CHECKING:
    import matplotlib.axis
    import matplotlib.figure
    import matplotlib.text

# Okabe & Ito's colours, told apart with any colour vision; an arm has the one of its place.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
INK, GREY, SILVER, PALE = "#222222", "#666666", "#C0C0C0", "#E0E0E0"
DASHED = {"color": GREY, "linewidth": 1.2, "linestyle": (0, (5, 4)), "zorder": 2}

WIDTH, DPI = 8.0, 150  # 1200 px
EDGE = 0.15  # white round the picture
LINE = 0.25  # a line of text
TICKS = 0.5  # the labels of an axis and its name
STYLE = {
    "figure.dpi": DPI,
    "savefig.dpi": DPI,
    "font.size": 11,
    "text.color": INK,
    "text.parse_math": False,  # an arm's name may hold a dollar
    "axes.edgecolor": GREY,
    "axes.labelcolor": GREY,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "grid.color": PALE,
    "grid.linewidth": 0.8,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "lines.solid_capstyle": "round",
}


@contextmanager
def picture(path: str | os.PathLike[str], height: float) -> Iterator["matplotlib.figure.Figure"]:
    """A figure, `WIDTH` x ``height``, that is written when the block is left."""
    import matplotlib.style
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.style.context(["default", STYLE]):  # whatever the user's matplotlibrc says
        figure = Figure(figsize=(WIDTH, height))
        FigureCanvasAgg(figure)
        yield figure
        png = io.BytesIO()
        # Without the software's name the bytes depend on the drawing alone.
        figure.savefig(png, format="png", metadata={"Software": None})
    write_atomically(Path(path), png.getvalue())


def header(
    figure: "matplotlib.figure.Figure", title: str, words: Sequence[tuple[str, str]]
) -> float:
    """A title, and below it coloured words, ``(word, colour)``, in as many lines as they need.

    Returns:
        Where axes may begin, from the top.
    """
    height = figure.get_figheight()
    title = title[:1].upper() + title[1:]
    figure.text(EDGE / WIDTH, 1 - EDGE / height, title, va="top", fontsize=14, fontweight="bold")
    x, y = EDGE, EDGE + 0.33
    for word, colour in words:
        weight = "normal" if colour == GREY else "bold"
        text = figure.text(0, 0, word, va="top", color=colour, fontweight=weight)
        if x > EDGE and x + width(text) > WIDTH - EDGE:
            x, y = EDGE, y + LINE
        text.set_position((x / WIDTH, 1 - y / height))
        x += width(text) + 0.25
    return y + LINE + 0.1


def margins(
    figure: "matplotlib.figure.Figure", *, left: float, right: float, top: float, bottom: float
) -> None:
    """Room round the axes."""
    height = figure.get_figheight()
    figure.subplots_adjust(
        left=left / WIDTH, right=1 - right / WIDTH, top=1 - top / height, bottom=bottom / height
    )


def width(text: "matplotlib.text.Text") -> float:
    """Width of a text as drawn."""
    return text.get_window_extent().width / DPI


def colours(names: Sequence[str]) -> list[str]:
    """A colour for each arm, by its place."""
    return [COLOURS[i % len(COLOURS)] for i in range(len(names))]


def per_cent(axis: "matplotlib.axis.Axis", metric: str = "") -> None:
    """Tick labels in per cent; those of a loss stay."""
    if not is_loss(metric):
        axis.set_major_formatter(lambda value, _: f"{100 * value:.4g} %".replace("-", "−"))
