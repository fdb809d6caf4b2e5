"""More records to pictures: many arms at once, what a question depends on, what a model looks at.

As in `plots`, every seed is drawn, a picture says how many there are, names stand beside what they
name, and the same records give the same bytes. Where there are more arms than colours, a colour is
a group or a verdict, and the name in front of the row tells the arm.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from s2sjax.canvas import (
    COLOURS,
    DPI,
    EDGE,
    GREY,
    INK,
    LETTERS,
    LINE,
    TICKS,
    WIDTH,
    Strip,
    colours,
    draw_strips,
    header,
    margins,
    per_cent,
    picture,
    points,
    seed_count,
    width,
    wrapped,
)
from s2sjax.plots import spread_out
from s2sjax.report import difference, is_loss, metric_name, quantity, score
from s2sjax.results import Results, by_seed
from s2sjax.stats import interval
from s2sjax.verdicts import paired

if TYPE_CHECKING:
    import matplotlib.axes
    import matplotlib.figure
    import matplotlib.ticker

VERDICTS = {"held": COLOURS[0], "failed": COLOURS[1], "open": GREY}

Category = int | str


# --- rows: a forest of differences, scores of many arms ---------------------------------------


class Contrast(NamedTuple):
    """A row of `forest`: arm ``a`` minus arm ``b``, what was made of it, under which heading."""

    label: str
    a: str
    b: str
    verdict: str = ""
    group: str = ""


def forest(
    results: Results, rows: Sequence[Contrast], metric: str, path: str | os.PathLike[str]
) -> None:
    """Draws paired differences, a row each: a dot a seed, the mean, and its 95 % interval.

    Args:
        results: the content of a results.json.
        rows: from the top; rows of a group follow each other. A verdict that begins with "held",
            "failed" or "open" has its colour.
        metric: a metric of the split "test".
        path: the PNG to write.

    Raises:
        ValueError: there are no rows, an arm has no such records, or a pair shares no seed.
    """
    strips = []
    for row in rows:
        c = paired(results, row.a, row.b, metric)
        a, b = by_seed(results, row.a, metric), by_seed(results, row.b, metric)
        dots = [a[seed] - b[seed] for seed in sorted(a.keys() & b.keys())]
        told = difference(c.mean_difference, c.ci95, metric)
        colour = VERDICTS.get(row.verdict.partition(":")[0], INK if row.verdict else COLOURS[0])
        strip = Strip(row.label, dots, c.mean_difference, c.ci95, told, colour, row.group)
        strips.append(strip._replace(remark=row.verdict))
    draw_strips(
        path,
        strips,
        title=f"{metric_name(metric)}: paired differences, test set",
        floors={"": 0.0},
        xlabel="difference, nats per token" if is_loss(metric) else "difference, points",
        ticks=lambda axis: points(axis, metric),
    )


def scores_by_arm(
    results: Results,
    metric: str,
    path: str | os.PathLike[str],
    groups: Mapping[str, Sequence[str]],
    floors: Mapping[str, float] | None = None,
) -> None:
    """Draws the test scores of many arms, a row each: a dot a seed, the mean, its 95 % interval.

    Args:
        results: the content of a results.json.
        metric: a metric of the split "test".
        path: the PNG to write.
        groups: ``{heading: arms}``, from the top; a group has a colour.
        floors: ``{label: value}``, dashed lines.

    Raises:
        ValueError: there are no arms, or one has no such records.
    """
    floors = floors or {}
    strips = []
    for (group, names), colour in zip(groups.items(), colours([*groups]), strict=True):
        for arm in names:
            dots = [*by_seed(results, arm, metric).values()]
            mean, low, high = interval(dots)
            ci95 = None if low is None or high is None else (low, high)
            strips.append(Strip(arm, dots, mean, ci95, score(dots, metric), colour, group))
    draw_strips(
        path,
        strips,
        title=f"{metric_name(metric)}, test set",
        floors={f"{label}  {quantity(v, metric)}": v for label, v in floors.items()},
        xlabel="",
        ticks=lambda axis: per_cent(axis, metric),
    )


# --- what a question depends on, and when a threshold is reached ------------------------------


def share_by(
    groups: Mapping[str, Mapping[Category, Sequence[float]]],
    counts: Mapping[Category, int],
    path: str | os.PathLike[str],
    title: str,
    xlabel: str,
) -> None:
    """Draws a share by category of question: a dot a seed, a bar an arm's mean.

    Args:
        groups: ``{arm: {category: [share of each seed]}}``; an arm may lack categories.
        counts: ``{category: number of questions}``, from the left.
        path: the PNG to write.
        title: what is shown.
        xlabel: what the categories are.

    Raises:
        ValueError: there is no arm, or one has no category or one that is not counted.
    """
    for arm, shares in groups.items():
        if not shares or not shares.keys() <= counts.keys():
            raise ValueError(f"Arm {arm!r} has categories {[*shares]}, counted are {[*counts]}.")
    if not groups:
        raise ValueError(f"There is no arm to draw: {title}.")
    places = {category: i for i, category in enumerate(counts)}
    slot = 0.76 / len(groups)  # arms stand side by side at a category
    ends = []
    with picture(path, height=_height([*groups])) as figure:
        axes = figure.add_subplot()
        axes.grid(axis="y")
        for i, (arm, colour) in enumerate(zip(groups, colours([*groups]), strict=True)):
            means = []
            for category in sorted(groups[arm], key=places.__getitem__):
                dots = groups[arm][category]
                x, mean = places[category] + slot * (i + 0.5) - 0.38, float(np.mean(dots))
                whole = {"color": colour, "clip_on": False, "zorder": 3}  # at 0 too
                axes.plot([x] * len(dots), dots, ".", alpha=0.5, ms=6, mew=0, **whole)
                axes.plot((x - 0.42 * slot, x + 0.42 * slot), (mean, mean), lw=3, **whole)
                means.append((x, mean))
            axes.plot(*np.array(means).T, color=colour, linewidth=1, alpha=0.5)
            ends.append((arm, colour, *means[-1]))
        axes.set_xticks(range(len(counts)), [f"{c}\n{n:,}" for c, n in counts.items()])
        axes.tick_params("x", labelsize=11 if len(counts) <= 8 else 9)
        axes.set_xlim(-0.5, len(counts) - 0.5)
        axes.set_ylim(0, 1.02)
        axes.set_xlabel(f"{xlabel}; below: number of questions")
        per_cent(axes.yaxis)
        n = seed_count(len(dots) for shares in groups.values() for dots in shares.values())
        note = n if n == "one seed" else f"{n}: dots; their means: bars"
        top = header(figure, title, [(note, GREY)])
        margins(figure, left=0.8, right=EDGE, top=top, bottom=TICKS + 0.2 + EDGE)
        _name_ends(figure, axes, ends)


def step_curves(
    epochs: Mapping[str, Mapping[int, int | None]],
    last: int,
    path: str | os.PathLike[str],
    title: str,
) -> None:
    """Draws which share of an arm's seeds has reached a threshold by which epoch: a step a seed.

    Args:
        epochs: ``{arm: {seed: epoch, or None if never}}``, as `verdicts.epochs_to` tells them.
        last: the epoch where training ended.
        path: the PNG to write.
        title: what is reached.

    Raises:
        ValueError: there is no arm, or one has no seed or reaches it after the last epoch.
    """
    for arm, seeds in epochs.items():
        if not seeds or max((e for e in seeds.values() if e is not None), default=0) > last:
            raise ValueError(f"Arm {arm!r} has no seed, or one beyond epoch {last}: {seeds}.")
    if not epochs:
        raise ValueError(f"There is no arm to draw: {title}.")
    times = {arm: sorted(e for e in epochs[arm].values() if e is not None) for arm in epochs}
    names = [f"{arm}  {len(times[arm])} of {len(epochs[arm])}" for arm in epochs]
    ends = []
    with picture(path, height=_height(names)) as figure:
        axes = figure.add_subplot()
        axes.grid(axis="y")
        axes.set_xlim(0, last)
        axes.set_ylim(-0.03, 1.03)
        axes.locator_params(axis="x", integer=True)
        axes.set_xlabel("epoch")
        per_cent(axes.yaxis)
        n = seed_count(len(arm) for arm in epochs.values())
        top = header(figure, title, [(f"share of an arm's seeds, {n} an arm: a step a seed", GREY)])
        margins(figure, left=0.8, right=EDGE, top=top, bottom=TICKS + EDGE)
        # Lines that coincide are drawn side by side: apart by their width, but by 2 % at most.
        apart = min(0.012, 0.04 / len(epochs))
        for i, (arm, colour) in enumerate(zip(epochs, colours(names), strict=True)):
            aside = apart * (i - (len(epochs) - 1) / 2)
            y = [k / len(epochs[arm]) + aside for k in range(len(times[arm]) + 1)]
            style = {"color": colour, "linewidth": 2.2, "linestyle": _dashes(i), "clip_on": False}
            axes.step([0, *times[arm], last], [*y, y[-1]], where="post", **style)
            ends.append((names[i], colour, float(last), y[-1]))
        _name_ends(figure, axes, ends)


def _dashes(i: int) -> str:
    """The line of an arm by its place: dashed when the colours begin anew."""
    return "--" if i // len(COLOURS) % 2 else "-"


def _height(names: Sequence[str]) -> float:
    """Inches for axes with those names beside them, in as many lines as they need."""
    lines = [wrapped(name, LETTERS).count("\n") + 1 for name in names]
    return max(4.2, 1.7 + 0.9 * LINE * len(lines) * max(lines))


def _name_ends(
    figure: "matplotlib.figure.Figure",
    axes: "matplotlib.axes.Axes",
    ends: Sequence[tuple[str, str, float, float]],
) -> None:
    """Names lines on the right, ``(name, colour, x, y)`` of their ends, and makes room for it."""
    from matplotlib.transforms import offset_copy

    beside = offset_copy(axes.get_yaxis_transform(), figure, x=0.2, units="inches")
    low, high = axes.get_ylim()
    names = [wrapped(name, LETTERS) for name, *_ in ends]
    lines = max(name.count("\n") + 1 for name in names)
    gap = 0.9 * LINE * lines * (high - low) / (axes.get_window_extent().height / DPI)
    heights = spread_out([y for *_, y in ends], gap, high)
    heights = [-y for y in spread_out([-y for y in heights], gap, -low)]
    texts = []
    for i, ((_, colour, x, y), name, height) in enumerate(zip(ends, names, heights, strict=True)):
        style = {"va": "center", "color": colour, "fontsize": 10.5, "fontweight": "bold"}
        texts.append(axes.text(1, height, name, transform=beside, **style))
        axes.annotate(
            "",
            (x, y),
            xytext=(1, height),
            textcoords=beside,
            annotation_clip=False,
            arrowprops={
                "arrowstyle": "-",
                "color": colour,
                "linestyle": _dashes(i),
                "shrinkA": 2,
                "shrinkB": 4,
            },
        )
    figure.subplots_adjust(right=1 - (0.2 + max(map(width, texts)) + EDGE) / WIDTH)


# --- what a model looks at --------------------------------------------------------------------


@dataclass(frozen=True)
class Heat:
    """A matrix ``[outputs, inputs]``, not negative, and the characters along its sides."""

    matrix: NDArray[np.floating]
    outputs: Sequence[str]
    inputs: Sequence[str]

    def __post_init__(self) -> None:
        shape = (len(self.outputs), len(self.inputs))
        if self.matrix.shape != shape or not self.matrix.size:
            raise ValueError(f"A heat map is {shape} characters, its matrix {self.matrix.shape}.")
        if not (np.isfinite(self.matrix) & (self.matrix >= 0)).all():
            raise ValueError("A heat map has finite numbers from 0 on, but one is not.")


def heat_maps(
    panels: Mapping[str, Mapping[str, Heat]],
    path: str | os.PathLike[str],
    title: str,
    label: str,
    note: str,
    *,
    log: bool = False,
) -> None:
    """Draws matrices on one scale of colours: a row of panels an arm, a column an epoch.

    Args:
        panels: ``{row: {column: heat}}``; a row may lack columns, and sizes may differ.
        path: the PNG to write.
        title: what is shown.
        label: what the colours count.
        note: over what the matrices are means, and over how many of it.
        log: a logarithmic scale, of four decades at most; below it is the lowest colour.

    Raises:
        ValueError: there is no panel.
    """
    heats = [(row, column, heat) for row in panels for column, heat in panels[row].items()]
    columns = [*dict.fromkeys(column for _, column, _ in heats)]
    if not columns:
        raise ValueError(f"There is no panel to draw: {title}.")
    from matplotlib.cm import ScalarMappable

    # Inches: a cell, and then where each row of panels and each column begins.
    inputs = [max(len(h.inputs) for _, c, h in heats if c == column) for column in columns]
    outputs = [max((len(h.outputs) for h in panels[row].values()), default=0) for row in panels]
    longest = max(len(word) for *_, heat in heats for word in heat.outputs)
    left, gap, over, bar = EDGE + 0.5 + 0.09 * (longest - 1), 0.3, 0.32, 1.8
    right = EDGE + 0.9 + 0.17 * wrapped(label, 20).count("\n")
    wide = min(0.45, (WIDTH - left - right - gap * len(columns)) / sum(inputs))
    high = max(wide, 0.17)
    letters = max(len(character) for *_, heat in heats for character in heat.inputs)
    under = 0.25 if letters <= 2 else 0.15 + 0.08 * letters
    xs = left + np.cumsum([0, *(wide * n + gap for n in inputs)])
    ys = 1.1 + np.cumsum([0, *(over + high * n + under for n in outputs)])
    height = max(ys[-1] + 0.25, ys[0] + over + bar) + EDGE
    low, scale, ticks = _scale([heat.matrix for *_, heat in heats], log)
    with picture(path, height) as figure:

        def add(x: float, y: float, inches: tuple[float, float]) -> "matplotlib.axes.Axes":
            x, y, (w, h) = x / WIDTH, y / height, inches
            return figure.add_axes((x, 1 - y - h / height, w / WIDTH, h / height))

        header(figure, title, [(note, GREY)])
        for column, x in zip(columns, xs, strict=False):
            figure.text(x / WIDTH, 1 - 1.05 / height, column, va="bottom", color=GREY, fontsize=10)
        for row, y in zip(panels, ys, strict=False):
            figure.text(EDGE / WIDTH, 1 - y / height, row, va="top", fontweight="bold")
        for row, column, heat in heats:
            x, y = xs[columns.index(column)], ys[[*panels].index(row)] + over
            axes = add(x, y, (wide * len(heat.inputs), high * len(heat.outputs)))
            seen = np.maximum(heat.matrix, low)
            axes.imshow(seen, aspect="auto", interpolation="nearest", **scale)
            axes.set_xticks(range(len(heat.inputs)), _visible(heat.inputs))
            axes.set_yticks(range(len(heat.outputs)), _visible(heat.outputs))
            axes.tick_params(length=0, pad=2, labelsize=min(10.0, 0.8 * 72 * wide))
            axes.tick_params("x", rotation=0 if letters <= 2 else 90)
            axes.spines[:].set_visible(False)
            if column == next(iter(panels[row])):
                axes.set_ylabel("output", fontsize=10)
            if row == [*panels][-1]:
                axes.set_xlabel("input", fontsize=10, loc="left")
        key = add(xs[-1], ys[0] + over, (0.18, bar))
        shown = figure.colorbar(ScalarMappable(**scale), key, ticks=ticks, format="%.4g")
        shown.minorticks_off()
        shown.set_label(wrapped(label, 20), fontsize=10)
        key.tick_params(labelsize=9.5)


def _scale(
    matrices: Sequence[NDArray[np.floating]], log: bool
) -> tuple[float, dict[str, Any], "matplotlib.ticker.Locator | None"]:
    """The scale of colours that all matrices share: its lowest number, itself, and its ticks."""
    from matplotlib.colors import LogNorm, Normalize
    from matplotlib.ticker import LogLocator

    values = np.concatenate([matrix.ravel() for matrix in matrices])
    high = float(values.max()) or 1.0
    if not log:
        return 0.0, {"norm": Normalize(0, high), "cmap": "viridis"}, None
    low = float(values.min(where=values > 0, initial=high))  # zero has no logarithm
    low = min(max(low, 1e-4 * high), 0.1 * high)
    ticks = LogLocator(subs=[1.0, 2.0, 5.0] if high < 30 * low else [1.0])
    return low, {"norm": LogNorm(low, high), "cmap": "viridis"}, ticks


def _visible(characters: Sequence[str]) -> list[str]:
    return ["␣" if character == " " else character for character in characters]
