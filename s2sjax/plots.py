"""Records to pictures: learning curves, accuracy by position, every seed's score.

Every seed is drawn, arms keep their colours from picture to picture, and scores stand beside the
floors they have to be read against. The same records give the same bytes. matplotlib is imported
only when a picture is drawn: it costs a second or two.
"""

import os
import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from s2sjax.canvas import (
    DASHED,
    DPI,
    EDGE,
    GREY,
    LINE,
    SILVER,
    TICKS,
    WIDTH,
    colours,
    header,
    margins,
    per_cent,
    picture,
    width,
)
from s2sjax.report import is_loss, metric_name, quantity, score
from s2sjax.results import Results, arms, by_seed, series, values
from s2sjax.stats import interval

if TYPE_CHECKING:
    import matplotlib.axes
    import matplotlib.axis
    import matplotlib.figure
    import matplotlib.text

Points = NDArray[np.float64]  # [n, 2]: x, y


def learning_curves(
    results: Results,
    metric: str,
    floors: Mapping[str, float],
    path: str | os.PathLike[str],
    published: Mapping[str, float] | None = None,
) -> None:
    """Draws a metric on the dev set against the epoch: a thin line a seed, a thick one the mean.

    Args:
        results: the content of a results.json.
        metric: a metric of the split "dev".
        floors: ``{label: value}``, dashed lines.
        path: the PNG to write.
        published: ``{arm: value}``, a diamond where somebody else's run of that arm ended.

    Raises:
        ValueError: an arm has no such records.
    """
    published = published or {}
    names = arms(results)
    seeds = {arm: series(results, arm, metric, "dev") for arm in names}
    with picture(path, height=4.5) as figure:
        axes = figure.add_subplot()
        axes.grid(axis="y")
        curves: list[Points] = []
        ends: list[_End] = []
        for arm, colour in zip(names, colours(names), strict=True):
            for curve in seeds[arm].values():
                curves.append(np.array([*curve.items()], dtype=np.float64))
                axes.plot(*curves[-1].T, color=colour, linewidth=0.8, alpha=0.4)
            mean = _mean_curve(seeds[arm])
            marker = "o" if len(mean) <= 10 else None  # few points: show that they are
            axes.plot(*mean.T, color=colour, linewidth=2.8, marker=marker, zorder=4, clip_on=False)
            ends.append(_End(arm, colour, *mean[-1].tolist(), published=published.get(arm)))
        for value in floors.values():
            axes.axhline(value, **DASHED)
        axes.set_xlim(0, max(curve[-1, 0] for curve in curves))
        axes.set_ylim(0, None if is_loss(metric) else 1.02)
        axes.locator_params(axis="x", integer=True)
        axes.set_xlabel("epoch")
        per_cent(axes.yaxis, metric)

        n = max(map(len, seeds.values()))
        note = "one seed" if n == 1 else f"{n} seeds: thin lines; their mean: thick"
        top = header(figure, f"{metric_name(metric)}, dev set", [(note, GREY)])
        margins(figure, left=0.8, right=EDGE, top=top, bottom=TICKS + EDGE)
        _label_ends(figure, axes, ends, metric)
        _label_floors(axes, floors, metric, curves)


def accuracy_by_position(results: Results, path: str | os.PathLike[str]) -> None:
    """Draws test accuracy against the output position, teacher-forced beside free-running.

    A dot is a seed, a bar an arm's mean. A panel without records is left out.

    Args:
        results: the content of a results.json.
        path: the PNG to write.

    Raises:
        ValueError: there is no accuracy by position at all.
    """
    names = arms(results)
    found = {(r["arm"], r["metric"]) for r in results["records"] if r["split"] == "test"}
    panels = {mode: _positions(found, mode) for mode in ("teacher_forced", "free_running")}
    panels = {mode: positions for mode, positions in panels.items() if positions}
    if not panels:
        raise ValueError(f"No test records of accuracy by position; there are {sorted(found)}.")
    with picture(path, height=3.9) as figure:
        grid = {"wspace": 0.08, "width_ratios": [len(p) for p in panels.values()]}
        columns = figure.subplots(1, len(panels), sharey=True, squeeze=False, gridspec_kw=grid)[0]
        slot = 0.7 / len(names)  # arms stand side by side at a position
        for axes, (mode, positions) in zip(columns, panels.items(), strict=True):
            axes.grid(axis="y")
            for i, (arm, colour) in enumerate(zip(names, colours(names), strict=True)):
                shift = slot * (i + 0.5) - 0.35
                means = []
                for position in positions:
                    if (arm, f"{mode}/position_{position}") not in found:
                        continue
                    x, dots = position + shift, values(results, arm, f"{mode}/position_{position}")
                    axes.plot([x] * len(dots), dots, ".", color=colour, alpha=0.5, markersize=7)
                    means.append((x, float(np.mean(dots))))
                for x, mean in means:
                    axes.plot((x - 0.4 * slot, x + 0.4 * slot), (mean, mean), color=colour, lw=3)
                axes.plot(*np.array(means).T, color=colour, linewidth=1, alpha=0.5)
            axes.set_title(mode.replace("_", "-"))
            axes.set_xticks(positions)
            axes.set_xlim(positions[0] - 0.5, positions[-1] + 0.5)
            axes.set_ylim(0, 1.02)
            axes.set_xlabel("predicted character, from the left")
            per_cent(axes.yaxis)
        words = [*zip(names, colours(names), strict=True), ("dots: seeds; bars: means", GREY)]
        top = header(figure, "accuracy by position in the answer, test set", words)
        margins(figure, left=0.8, right=EDGE, top=top + LINE, bottom=TICKS + EDGE)


def score_distribution(
    results: Results,
    metrics: Mapping[str, str],
    path: str | os.PathLike[str],
    floors: Mapping[str, Mapping[str, float]],
) -> None:
    """Draws the test score of every seed: a panel a metric, a row an arm, a dot a seed.

    Grey lines join the same seed in neighbouring rows; the bar below the dots is the mean with its
    95 % interval.

    Args:
        results: the content of a results.json.
        metrics: ``{title: metric}``, a panel each.
        path: the PNG to write.
        floors: ``{metric: {label: value}}``, dashed lines; metrics may be left out.

    Raises:
        ValueError: an arm has no such records.
    """
    names = arms(results)
    row, gap = 0.6, 0.85  # an arm; an axis and the next panel's title
    heights = [row * len(names) + LINE * len(floors.get(m, {})) for m in metrics.values()]
    n = max(len(by_seed(results, arm, m)) for arm in names for m in metrics.values())
    note = "one seed" if n == 1 else f"{n} seeds: dots, joined; below: their mean, 95 % interval"
    above, below = 1.05, 0.3 + EDGE
    height = above + sum(heights) + gap * (len(metrics) - 1) + below
    with picture(path, height) as figure:
        grid = {"height_ratios": heights, "hspace": gap * len(metrics) / sum(heights)}
        panels = figure.subplots(len(metrics), squeeze=False, gridspec_kw=grid)[:, 0]
        scores: list[matplotlib.text.Text] = []
        shelves: list[matplotlib.text.Annotation] = []
        for axes, (title, metric), inches in zip(panels, metrics.items(), heights, strict=True):
            axes.set_ylim(len(names) - 0.5, len(names) - 0.5 - inches / row)
            scores += _strips(axes, results, metric)
            shelves += _shelve_floors(axes, floors.get(metric, {}), metric, LINE / row)
            axes.margins(x=0.06)
            axes.set_title(title, fontweight="bold")
            per_cent(axes.xaxis, metric)
        header(figure, "scores on the test set", [(note, GREY)])
        left = max(width(label) for axes in panels for label in axes.get_yticklabels())
        right = max(map(width, scores))
        margins(figure, left=left + 0.3, right=right + 0.3, top=above, bottom=below)
        for text in shelves:
            if text.get_window_extent().x1 > (WIDTH - EDGE) * DPI:  # no room on this side
                text.set(ha="right")
                text.xyann = (-text.xyann[0], 0)


# --- learning curves --------------------------------------------------------------------------


class _End(NamedTuple):
    """Where the mean curve of an arm ends."""

    arm: str
    colour: str
    epoch: float
    value: float
    published: float | None


def _mean_curve(seeds: Mapping[int, Mapping[int, float]]) -> Points:
    """Mean over seeds at the epochs that every seed has."""
    epochs = sorted(set.intersection(*(set(curve) for curve in seeds.values())))
    return np.array([[e, np.mean([curve[e] for curve in seeds.values()])] for e in epochs])


def _label_ends(
    figure: "matplotlib.figure.Figure",
    axes: "matplotlib.axes.Axes",
    ends: Sequence[_End],
    metric: str,
) -> None:
    """Names the curves on the right, where they end, and makes room for the names.

    What was published is a diamond at the end of the curve, and a line of text below the name.
    """
    from matplotlib.transforms import offset_copy

    # x: 0.2 inches right of the axes; y: in data
    beside = offset_copy(axes.get_yaxis_transform(), figure, x=0.2, units="inches")
    per_inch = axes.get_ylim()[1] / (axes.get_window_extent().height / DPI)
    gap = LINE * per_inch * (2 if any(end.published is not None for end in ends) else 1)
    heights = spread_out([end.value for end in ends], gap, axes.get_ylim()[1])
    texts = []
    for end, height in zip(ends, heights, strict=True):
        name = axes.text(
            1,
            height,
            f"{end.arm}  {quantity(end.value, metric)}",
            transform=beside,
            va="center",
            color=end.colour,
            fontsize=12,
            fontweight="bold",
        )
        texts.append(name)
        axes.annotate(
            "",
            (end.epoch, end.value),
            xytext=(1, height),
            textcoords=beside,
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": end.colour, "shrinkA": 2, "shrinkB": 4},
        )
        if end.published is not None:
            diamond = {"marker": "D", "ms": 8, "mfc": "white", "mec": end.colour, "mew": 1.6}
            axes.plot(end.epoch, end.published, **diamond, clip_on=False, zorder=5)
            below = axes.annotate(
                f"◇ published {quantity(end.published, metric)}",
                (0, 0),
                xycoords=name,
                xytext=(0, -2),
                textcoords="offset points",
                va="top",
                color=GREY,
                fontsize=10,
                annotation_clip=False,
            )
            texts.append(below)
    room = 0.2 + max(map(width, texts)) + EDGE
    figure.subplots_adjust(right=1 - room / WIDTH)


def spread_out(heights: Sequence[float], gap: float, top: float) -> list[float]:
    """Heights of labels moved apart, and below ``top``, until neighbours are ``gap`` apart."""
    order = np.argsort(heights, kind="stable")
    y = np.array(heights, dtype=np.float64)[order]
    for _ in range(200):  # neighbours that are too close share the way they have to go
        short = np.maximum(gap - np.diff(y), 0) / 2
        y[:-1] -= short
        y[1:] += short
        y = np.minimum(y, top)
    spread = np.empty_like(y)
    spread[order] = y
    return spread.tolist()


def _label_floors(
    axes: "matplotlib.axes.Axes",
    floors: Mapping[str, float],
    metric: str,
    curves: Sequence[Points],
) -> None:
    """Writes each floor's name along its line, where it covers the least of everything else."""
    grid = np.linspace(*axes.get_xlim(), 500)
    lines = [np.column_stack([grid, np.interp(grid, *curve.T)]) for curve in curves]
    lines += [np.column_stack([grid, np.full_like(grid, value)]) for value in floors.values()]
    ink = axes.transData.transform(np.concatenate(lines))  # [points, 2], in pixels
    spots = [
        (x, ha, dy, va)
        for dy, va in ((3.0, "bottom"), (-4.0, "top"))
        for x, ha in ((0.985, "right"), (0.015, "left"), (0.5, "center"))
    ]
    for label, value in floors.items():
        text = axes.annotate(
            f"{label}  {quantity(value, metric)}",
            (0, value),
            xycoords=axes.get_yaxis_transform(),
            xytext=(0, 0),
            textcoords="offset points",
            fontsize=10.5,
            zorder=6,
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.7, "pad": 0},
        )
        covered = {spot: _inside(ink, _place(text, spot)) for spot in spots}
        low, high = _place(text, min(spots, key=covered.__getitem__))
        taken = np.meshgrid(*np.linspace(low, high, 30).T)  # by this name, for the next ones
        ink = np.concatenate([ink, np.stack(taken, axis=-1).reshape(-1, 2)])


def _place(text: "matplotlib.text.Annotation", spot: tuple[float, str, float, str]) -> Points:
    """Moves a text to ``(x, ha, dy, va)`` along its line; returns its box: two corners, pixels."""
    x, ha, dy, va = spot
    text.set(ha=ha, va=va)
    text.xy, text.xyann = (x, text.xy[1]), (0, dy)
    return text.get_window_extent().get_points()


def _inside(points: Points, box: Points) -> int:
    """How many points lie in a box."""
    return int(((points >= box[0]) & (points <= box[1])).all(axis=1).sum())


# --- accuracy by position, scores -------------------------------------------------------------


def _positions(found: set[tuple[str, str]], mode: str) -> list[int]:
    """Output positions at which some arm has an accuracy of that mode."""
    matches = (re.fullmatch(rf"{mode}/position_(\d+)", metric) for _, metric in found)
    return sorted({int(match[1]) for match in matches if match})


def _strips(
    axes: "matplotlib.axes.Axes", results: Results, metric: str
) -> list["matplotlib.text.Text"]:
    """Every seed of every arm, a row an arm; returns the scores written on the right."""
    names = arms(results)
    scores = [by_seed(results, arm, metric) for arm in names]
    for row, (upper, lower) in enumerate(pairwise(scores)):
        for seed in upper.keys() & lower.keys():
            pair = (upper[seed], lower[seed])
            axes.plot(pair, (row, row + 1), color=SILVER, linewidth=0.8, zorder=1)
    texts = []
    for row, (seeds, colour) in enumerate(zip(scores, colours(names), strict=True)):
        dots = [*seeds.values()]
        axes.plot(dots, [row] * len(dots), "o", color=colour, ms=6.5, mec="white", mew=0.7)
        mean, low, high = interval(dots)
        if low is not None and high is not None:
            beside = (row + 0.27, row + 0.27)
            axes.plot((low, high), beside, color=colour, lw=6, alpha=0.4, solid_capstyle="butt")
            axes.plot(mean, beside[0], "|", color=colour, markersize=9, mew=2.2)
        text = axes.text(
            1.02,
            row,
            score(dots, metric),
            transform=axes.get_yaxis_transform(),
            va="center",
            color=colour,
            fontweight="bold",
        )
        texts.append(text)
    axes.set_yticks(range(len(names)), names)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    for tick, colour in zip(axes.get_yticklabels(), colours(names), strict=True):
        tick.set(color=colour, fontweight="bold")
    return texts


def _shelve_floors(
    axes: "matplotlib.axes.Axes", floors: Mapping[str, float], metric: str, shelf: float
) -> list["matplotlib.text.Annotation"]:
    """Floors as upright lines, each as high as the shelf above the rows that holds its name.

    The leftmost has the highest shelf, so that no line crosses a name on its left.
    """
    bottom, top = axes.get_ylim()
    texts = []
    for i, (label, value) in enumerate(sorted(floors.items(), key=lambda floor: floor[1])):
        axes.plot((value, value), (bottom, top + shelf * i), **DASHED)
        text = axes.annotate(
            f"{label}  {quantity(value, metric)}",
            (value, top + shelf * (i + 0.5)),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            fontsize=10,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
        )
        texts.append(text)
    return texts
