"""The page that pictures are drawn on: its size, colours and letters, its title, margins, rows.

Lengths are in inches throughout: room is made for texts, and texts do not scale with axes.
matplotlib is imported only when a picture is drawn, for it costs a second or two; its global state
is never touched.
"""

import io
import os
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from s2sjax.files import write_atomically
from s2sjax.report import is_loss

if TYPE_CHECKING:
    import matplotlib.axes
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
ROW = 0.3  # a row of numbers
LETTERS = 32  # of a name, before it is broken into lines
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
    top = figure.text(EDGE / WIDTH, 1 - EDGE / height, title, va="top", fontsize=14)
    top.set_fontweight("bold")
    top.set_fontsize(14 * min(1, (WIDTH - 2 * EDGE) / width(top)))  # a long one is not cut off
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


def seed_count(counts: Iterable[int]) -> str:
    """How many seeds there are, in words."""
    low, *_, high = sorted({*counts}) * 2
    return f"{low} to {high} seeds" if low < high else f"{low} seeds" if low > 1 else "one seed"


def wrapped(name: str, letters: int) -> str:
    """A name in as few lines of at most so many letters as will do, about equally long."""
    lines = textwrap.wrap(name, letters)
    shortest = min(letters, max(map(len, name.split()), default=letters))
    tries = (textwrap.wrap(name, n) for n in range(shortest, letters + 1))
    return "\n".join(next((t for t in tries if len(t) == len(lines)), lines))


def per_cent(axis: "matplotlib.axis.Axis", metric: str = "") -> None:
    """Tick labels in per cent; those of a loss stay."""
    if not is_loss(metric):
        axis.set_major_formatter(lambda value, _: f"{100 * value:.4g} %".replace("-", "−"))


def points(axis: "matplotlib.axis.Axis", metric: str) -> None:
    """Tick labels of differences: signed points of per cent, or nats for a loss."""
    scale = 1 if is_loss(metric) else 100

    def signed(value: float, _: object) -> str:
        return f"{scale * value:+.4g}".replace("-", "−") if abs(value) > 1e-9 else "0"

    axis.set_major_formatter(signed)


# --- rows of numbers --------------------------------------------------------------------------


class Strip(NamedTuple):
    """A row of numbers: its name, a dot a seed, their mean and interval, what is written behind."""

    label: str
    dots: list[float]
    mean: float
    ci95: tuple[float, float] | None
    told: str
    colour: str
    group: str
    remark: str = ""


def draw_strips(
    path: str | os.PathLike[str],
    strips: Sequence[Strip],
    *,
    title: str,
    floors: Mapping[str, float],
    xlabel: str,
    ticks: Callable[["matplotlib.axis.Axis"], None],
) -> None:
    """Rows under headings; names on the left, numbers on the right. The y axis is in inches."""
    if not strips:
        raise ValueError(f"There is no row to draw: {title}.")
    names = [wrapped(strip.label, LETTERS) for strip in strips]
    remarks = [wrapped(strip.remark, LETTERS // 2) for strip in strips]
    centres: list[float] = []
    headings: dict[float, str] = {}
    bottom = 0.0
    group = ""
    for strip, name, remark in zip(strips, names, remarks, strict=True):
        if strip.group != group:
            group = strip.group
            bottom += 0.12 if centres else 0
            headings[bottom + ROW / 2] = group
            bottom += ROW
        inches = ROW + 0.17 * max(name.count("\n"), remark.count("\n"))
        centres.append(bottom + inches / 2)
        bottom += inches
    bottom += 0.05
    n = seed_count(len(strip.dots) for strip in strips)
    note = n if n == "one seed" else f"{n}: dots; their mean, 95 % interval: bars"
    above, below = 0.85 + LINE * sum(map(bool, floors)), EDGE + (TICKS if xlabel else 0.3)
    with picture(path, height=above + bottom + below) as figure:
        axes = figure.add_subplot()
        axes.grid(axis="x")
        axes.set_ylim(bottom, 0)
        axes.margins(x=0.04)
        for strip, centre in zip(strips, centres, strict=True):
            _draw_strip(axes, strip, centre)
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        axes.set_xlabel(xlabel)
        ticks(axes.xaxis)
        header(figure, title, [(note, GREY)])

        label = Column(figure, axes, centres, names, [INK] * len(names))
        told, verdict = (
            Column(figure, axes, centres, texts, [strip.colour for strip in strips])
            for texts in ([strip.told for strip in strips], remarks)
        )
        ink = [INK] * len(headings)
        heading = Column(figure, axes, [*headings], [*headings.values()], ink, bold=True)
        indent = 0.12 if headings else 0
        heading.put(EDGE)
        label.put(EDGE + indent)
        right = WIDTH - EDGE
        for column in (verdict, told):
            right -= column.width
            column.put(right)
            right -= 0.15 if column.width else 0
        left = EDGE + max(heading.width, indent + label.width) + 0.15
        margins(figure, left=left, right=WIDTH - right, top=above, bottom=below)
        axes.tick_params("x", labelsize=9.5)
        axes.locator_params(axis="x", nbins=max(2, int(2.5 * (right - left))))
        shelve(axes, floors, bottom)


def _draw_strip(axes: "matplotlib.axes.Axes", strip: Strip, centre: float) -> None:
    """Dots, and below them the mean on its interval."""
    axes.axhline(centre, color=PALE, linewidth=0.8, zorder=1)
    above, below = [centre - 0.055] * len(strip.dots), centre + 0.065
    axes.plot(strip.dots, above, "o", color=strip.colour, ms=4.5, alpha=0.4, mew=0, zorder=3)
    if strip.ci95 is not None:
        bar = {"color": strip.colour, "lw": 3, "solid_capstyle": "butt", "zorder": 3}
        axes.plot(strip.ci95, (below, below), **bar)
    axes.plot(strip.mean, below, "|", color=strip.colour, ms=8, mew=2, zorder=4)


class Column:
    """Texts in rows, left-aligned at a place in inches from the left of the figure."""

    def __init__(
        self,
        figure: "matplotlib.figure.Figure",
        axes: "matplotlib.axes.Axes",
        heights: Sequence[float],
        texts: Sequence[str],
        colour: Sequence[str],
        *,
        bold: bool = False,
    ) -> None:
        from matplotlib.transforms import blended_transform_factory

        place = blended_transform_factory(figure.dpi_scale_trans, axes.transData)
        style = {"transform": place, "va": "center_baseline", "fontsize": 10, "linespacing": 1.1}
        weight = "bold" if bold else "normal"
        self.texts = [
            axes.text(0, y, text, color=c, fontweight=weight, **style)
            for y, text, c in zip(heights, texts, colour, strict=True)
        ]
        self.width = max(map(width, self.texts), default=0.0)

    def put(self, x: float) -> None:
        """Moves the column."""
        for text in self.texts:
            text.set_x(x)


def shelve(axes: "matplotlib.axes.Axes", floors: Mapping[str, float], bottom: float) -> None:
    """Upright lines, and their names above axes whose y is in inches from their top.

    The leftmost has the highest place, so that no line crosses a name on its left. A line without
    a name ends at the top.
    """
    falling = sorted(floors.items(), key=lambda floor: -floor[1])
    places = {label: -LINE * (i + 0.5) for i, (label, _) in enumerate(f for f in falling if f[0])}
    for label, value in falling:
        axes.plot((value, value), (bottom, places.get(label, 0)), **DASHED, clip_on=False)
    axes.set_xlim(axes.get_xlim())  # as the lines need it, before anything is measured
    for label, y in places.items():
        style = {"va": "center", "fontsize": 10, "annotation_clip": False}
        place = (floors[label], y)
        text = axes.annotate(label, place, (6, 0), textcoords="offset points", **style)
        if text.get_window_extent().x1 > (WIDTH - EDGE) * DPI:  # no room on this side
            text.set(ha="right")
            text.xyann = (-6, 0)
