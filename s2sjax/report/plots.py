"""Pictures of the records, as PNG files.

A picture shows every seed and every floor, and says how many seeds there are and what its marks
mean. An arm has the colour of its place among the arms. The same records give the same bytes.
Where there is nothing to draw, a ValueError says so and no file is written.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from s2sjax.report import canvas
from s2sjax.report.canvas import COLOURS, GREY, INK, PALE, line_of, page, seed_note, wrapped
from s2sjax.report.claims import paired, paired_values
from s2sjax.report.results import Results, arms, series, values
from s2sjax.report.stats import interval
from s2sjax.report.tables import difference, metric_name, quantity, score, unit

VERDICTS = {"held": COLOURS[0], "failed": COLOURS[1], "open": GREY}
Category = int | str
Numbers = Mapping[str, float]
Groups = Mapping[str, Sequence[str]]
Shares = Mapping[str, Mapping[Category, Sequence[float]]]


def learning_curves(
    results: Results, metric: str, floors: Numbers, path: Path, published: Numbers | None = None
) -> None:
    """Draws a metric on the dev set by epoch: a thin line for each seed, a thick one for the mean.

    `floors`, ``{label: value}``, are grey lines; `published`, ``{arm: value}``, are diamonds.
    """
    names, published = arms(results), published or {}
    seeds = {arm: series(results, arm, metric, "dev") for arm in names}
    last = max(epoch for curves in seeds.values() for curve in curves.values() for epoch in curve)
    note = seed_note(map(len, seeds.values()), "Thin lines: seeds; thick, and numbers: their mean.")
    height = canvas.height_for([*names, *published, *floors], 4.5)
    with page(path, height, f"{metric_name(metric)}, dev set", note) as figure:
        axes = figure.add_subplot()
        means, diamonds = [], []
        for i, arm in enumerate(names):
            for curve in seeds[arm].values():
                axes.plot([*curve], [*curve.values()], **line_of(i), linewidth=0.8, alpha=0.4)
            epochs = sorted(set.intersection(*map(set, seeds[arm].values())))
            mean = [float(np.mean([c[e] for c in seeds[arm].values()])) for e in epochs]
            style = line_of(i) | {"linewidth": 2.6, "clip_on": False, "zorder": 4}
            style["marker"] = "o" if len(epochs) <= 10 else ""  # few points: show that they are
            label = f"{arm}: {quantity(mean[-1], metric)}" if mean else arm
            means += axes.plot(epochs, mean, **style, label=label)
            if arm in published:
                style = {"mec": line_of(i)["color"], "mfc": "white", "mew": 1.6, "clip_on": False}
                label = f"{arm}, published: {quantity(published[arm], metric)}"
                diamonds += axes.plot(last, published[arm], "D", **style, zorder=5, label=label)
        axes.set_ylim(0, 1.02 if unit(metric).highest == 1 else None)
        _against_epochs(axes, last, metric)
        canvas.legend(figure, means + diamonds + canvas.draw_floors(axes.axhline, floors, metric))


def step_curves(
    epochs: Mapping[str, Mapping[int, int | None]], last: int, path: Path, title: str
) -> None:
    """Draws the share of an arm's seeds that has reached a threshold, by epoch.

    `epochs` is ``{arm: {seed: epoch, or None if never}}``; training ended at epoch `last`.
    """
    note = seed_note(map(len, epochs.values()), "A step is a seed.")
    with page(path, canvas.height_for(epochs, 4.2), title, note) as figure:
        axes = figure.add_subplot()
        lines: list[Any] = []
        # Equal curves are drawn side by side, a line width apart, moved by 2 % at most.
        apart = min(0.012, 0.04 / len(epochs))
        for i, (arm, seeds) in enumerate(epochs.items()):
            reached = sorted(epoch for epoch in seeds.values() if epoch is not None)
            shift = apart * (i - (len(epochs) - 1) / 2)
            y = [k / len(seeds) + shift for k in range(len(reached) + 1)]
            style = line_of(i) | {"linewidth": 2.2, "clip_on": False, "where": "post"}
            label = f"{arm}: {len(reached)} of {len(seeds)}"
            lines += axes.step([0, *reached, last], [*y, y[-1]], **style, label=label)
        axes.set(ylim=(-0.03, 1.03), ylabel="share of the seeds")
        _against_epochs(axes, last, "")
        canvas.legend(figure, lines)


def _against_epochs(axes: Any, last: int, metric: str) -> None:
    axes.grid(axis="y")
    axes.set(xlim=(0, last), xlabel="epoch")
    axes.locator_params(axis="x", integer=True)
    canvas.show_unit(axes.yaxis, metric)


def accuracy_by_position(results: Results, path: Path) -> None:
    """Draws test accuracy against the output position, teacher-forced and free-running."""
    of_position = r"(teacher_forced|free_running)/position_(\d+)"
    panels: dict[str, dict[str, dict[int, list[float]]]] = {}
    for arm, metric, split in {(r["arm"], r["metric"], r["split"]) for r in results["records"]}:
        if split == "test" and (match := re.fullmatch(of_position, metric)):
            groups = panels.setdefault(match[1], {name: {} for name in arms(results)})
            groups[arm][int(match[2])] = values(results, arm, metric)
    drawn = [
        (of, {p: str(p) for p in sorted(set().union(*of.values()))}, mode.replace("_", "-"))
        for mode, of in sorted(panels.items(), reverse=True)
    ]
    _draw_categories(path, "accuracy by position in the answer, from the left, test set", drawn)


def shares_by_category(
    groups: Shares, counts: Mapping[Category, int], path: Path, title: str, xlabel: str
) -> None:
    """Draws a share by category of questions: a dot for each seed, a bar for an arm's mean.

    `groups` is ``{arm: {category: [share of each seed]}}``; `counts` is the number of questions by
    category.
    """
    labels = {category: f"{category}\n{count:,}" for category, count in counts.items()}
    _draw_categories(path, title, [(groups, labels, f"{xlabel}; below: number of questions")])


def _draw_categories(path: Path, title: str, panels: Sequence[tuple[Any, Any, str]]) -> None:
    """Draws panels, ``(groups, {category: label}, xlabel)``; arms are side by side."""
    seeds = [len(dots) for groups, *_ in panels for of in groups.values() for dots in of.values()]
    note = seed_note(seeds, "Dots: seeds; bars: the mean of an arm.")
    widths = [max(map(len, t.split("\n"))) + 1 for _, labels, _ in panels for t in labels.values()]
    crowded = sum(widths) > 45
    height = canvas.height_for(panels[0][0], 4.2) + 0.08 * max(widths) * crowded
    with page(path, height, title, note) as figure:
        style: dict[str, Any] = {"width_ratios": [len(labels) for _, labels, _ in panels]}
        row = figure.subplots(1, len(panels), sharey=True, squeeze=False, **style)[0]
        for axes, (groups, labels, xlabel) in zip(row, panels, strict=True):
            lines: list[Any] = []
            slot = 0.76 / len(groups)
            for i, (arm, of) in enumerate(groups.items()):
                style = {"color": line_of(i)["color"], "clip_on": False, "zorder": 3}  # at 0 too
                first = slot * (i + 0.5) - 0.38
                shares = {first + k: of[c] for k, c in enumerate(labels) if c in of}
                for x, dots in shares.items():
                    axes.plot([x] * len(dots), dots, ".", **style, ms=6, mew=0, alpha=0.5)
                    ends = (x - 0.42 * slot, x + 0.42 * slot)
                    axes.plot(ends, [np.mean(dots)] * 2, **style, lw=3)
                means = [np.mean(dots) for dots in shares.values()]
                lines += axes.plot([*shares], means, **line_of(i), lw=1.2, alpha=0.6, label=arm)
            axes.grid(axis="y")
            axes.set(xlim=(-0.5, len(labels) - 0.5), ylim=(0, 1.02), xlabel=xlabel)
            axes.set_xticks(range(len(labels)), labels.values(), rotation=90 * crowded)
            canvas.show_unit(axes.yaxis, "")
        canvas.legend(figure, lines)


class Row(NamedTuple):
    """A row of a picture: a name, the value of every seed, and a text on the right."""

    label: str
    seeds: Sequence[float]
    ends: tuple[float, float] | None  # of the interval of their mean
    text: str
    colour: str


class Contrast(NamedTuple):
    """A row of `forest`: arm ``a`` minus arm ``b``, with a verdict, under a heading."""

    label: str
    a: str
    b: str
    verdict: str = ""
    heading: str = ""


def forest(results: Results, contrasts: Sequence[Contrast], metric: str, path: Path) -> None:
    """Draws paired differences of a test metric: every seed, the mean, its 95 % interval.

    A verdict that begins with "held", "failed" or "open" sets the colour of its row.
    """
    panels: dict[str, list[Row]] = {}
    for contrast in contrasts:
        c = paired(results, contrast.a, contrast.b, metric)
        seeds = np.subtract(*paired_values(results, contrast.a, contrast.b, metric)).tolist()
        verdict = contrast.verdict
        text = f"{difference(c.mean_difference, c.ci95, metric)}\n{verdict}".rstrip()
        colour = VERDICTS.get(verdict.partition(":")[0], INK if verdict else COLOURS[0])
        row = Row(contrast.label, seeds, c.ci95, text, colour)
        panels.setdefault(contrast.heading, []).append(row)
    title = f"{metric_name(metric)}: paired differences, test set"
    _draw_rows(path, title, panels, metric, {}, differences=True)


def scores_by_arm(
    results: Results, metric: str, path: Path, groups: Groups, floors: Numbers | None = None
) -> None:
    """Draws the test scores of many arms, a row each: every seed, the mean, its 95 % interval.

    `groups` is ``{heading: arms}``, from the top; `floors` are those of `learning_curves`.
    """
    panels: dict[str, list[Row]] = {heading: [] for heading in groups}
    for i, (heading, names) in enumerate(groups.items()):
        for arm in names:
            seeds = values(results, arm, metric)
            _, ends = interval(seeds)
            row = Row(arm, seeds, ends, score(seeds, metric), line_of(i)["color"])
            panels[heading].append(row)
    _draw_rows(path, f"{metric_name(metric)}, test set", panels, metric, floors or {})


def _draw_rows(
    path: Path,
    title: str,
    panels: Mapping[str, Sequence[Row]],
    metric: str,
    floors: Numbers,
    *,
    differences: bool = False,
) -> None:
    """Draws panels of rows under their headings, with one scale and the same floors."""
    panels = {heading: rows for heading, rows in panels.items() if rows}
    every = [row for rows in panels.values() for row in rows]
    marks = "Dots: seeds; bars: their mean"
    if any(row.ends for row in every):
        by = "of the sign-flip test" if differences else "by Student's t"
        marks += f", with its 95 % interval {by}"
    note = seed_note((len(row.seeds) for row in every), f"{marks}.")
    lines = 1 + max(max(wrapped(r.label).count("\n"), r.text.count("\n")) for r in every)
    height = 1.4 + (0.14 + 0.17 * lines) * len(every) + 0.34 * len(panels)
    with page(path, height + canvas.LINE * len(floors), title, note) as figure:
        heights = {"height_ratios": [len(rows) for rows in panels.values()]}
        grid = figure.subplots(len(panels), sharex=True, squeeze=False, **heights)[:, 0]
        legend: list[Any] = []
        for axes, (heading, rows) in zip(grid, panels.items(), strict=True):
            axes.grid(axis="x")
            axes.set(ylim=(len(rows) - 0.5, -0.5), title=heading)
            axes.margins(x=0.04)
            for y, row in enumerate(rows):
                axes.axhline(y, color=PALE, linewidth=0.8, zorder=1)
                style: dict[str, Any] = {"color": row.colour, "zorder": 3}
                dots = {"alpha": 0.45, "markeredgewidth": 0, "markersize": 5}
                axes.plot(row.seeds, [y - 0.15] * len(row.seeds), "o", **style, **dots)
                mean = np.mean(row.seeds)
                axes.plot(mean, y + 0.18, "|", **style, markersize=8, markeredgewidth=2)
                if row.ends is not None:
                    axes.plot(row.ends, [y + 0.18] * 2, **style, solid_capstyle="butt", linewidth=3)
            right = axes.secondary_yaxis("right")
            axes.set_yticks(range(len(rows)), [wrapped(row.label) for row in rows])
            right.set_yticks(range(len(rows)), [row.text for row in rows])
            for side in (axes, right):
                side.tick_params("y", length=0, labelcolor=INK)
                side.spines[["left", "right"]].set_visible(False)
            for label, row in zip(right.get_yticklabels(), rows, strict=True):
                label.set_color(row.colour)
            axes.locator_params(axis="x", nbins=6)
            canvas.show_unit(axes.xaxis, metric, "+" * differences)
            if differences:
                axes.axvline(0, color=GREY, linewidth=1)
            legend = canvas.draw_floors(axes.axvline, floors, metric)
        if differences:
            grid[-1].set_xlabel(f"difference, {unit(metric).difference}".rstrip(", "))
        if legend:
            canvas.legend(figure, legend, "outside lower left")


class Heat(NamedTuple):
    """A matrix of finite numbers from 0 on, and the characters along its sides."""

    matrix: NDArray[np.floating]  # [outputs, inputs]
    outputs: Sequence[str]
    inputs: Sequence[str]


Heats = Mapping[str, Mapping[str, Heat]]


def heat_maps(
    panels: Heats,
    path: Path,
    title: str,
    label: str,
    note: str,
    *,
    log: bool = False,
    sides: tuple[str, str] = ("output", "input"),
) -> None:
    """Draws matrices on one scale of colours; panels are ``{row: {column: heat}}``.

    A row may lack columns, and matrices may differ in size. `label` says what the colours mean,
    `note` over what the matrices are means, `sides` what their rows and columns are. A logarithmic
    scale has four decades; smaller numbers have its lowest colour.
    """
    heats = [(row, column, heat) for row in panels for column, heat in panels[row].items()]
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LogNorm, Normalize
    from matplotlib.ticker import LogLocator

    rows, columns = ([*dict.fromkeys(names)] for names in list(zip(*heats, strict=True))[:2])
    inputs = [max(len(h.inputs) for _, c, h in heats if c == column) for column in columns]
    outputs = [max(len(h.outputs) for r, _, h in heats if r == row) for row in rows]
    letters = max(len(character) for *_, heat in heats for character in heat.inputs)
    cell = min(0.45, 6 / sum(inputs))  # inches, about
    blank = 6 / cell - sum(inputs)  # cells that stay empty on the right, where there are few
    height = 1.4 + sum(max(cell, 0.17) * n + 0.7 + 0.08 * letters for n in outputs)
    numbers = np.concatenate([heat.matrix.ravel() for *_, heat in heats])
    high = float(numbers.max()) or 1.0
    low = float(numbers.min(where=numbers > 0, initial=high))  # zero has no logarithm
    low = min(max(low, 1e-4 * high), 0.1 * high) if log else 0.0
    scale = ScalarMappable(LogNorm(low, high) if log else Normalize(low, high), "viridis")
    with page(path, max(height, 3.4), title, f"{note[:1].upper()}{note[1:]}.") as figure:
        style = {"width_ratios": [*inputs, max(blank, 0.01)], "height_ratios": outputs}
        grid = figure.subplots(len(rows), len(columns) + 1, squeeze=False, **style)
        for axes in grid.flat:
            axes.set_axis_off()
        for row, column, heat in heats:
            axes = grid[rows.index(row), columns.index(column)]
            axes.set_axis_on()
            rgba = scale.to_rgba(np.maximum(heat.matrix, low))
            axes.imshow(rgba, aspect="auto", interpolation="nearest")
            axes.set_xticks(range(len(heat.inputs)), [c.replace(" ", "␣") for c in heat.inputs])
            axes.set_yticks(range(len(heat.outputs)), [c.replace(" ", "␣") for c in heat.outputs])
            axes.tick_params(length=0, pad=2, labelsize=min(10.0, 0.8 * 72 * cell))
            axes.tick_params("x", rotation=90 * (letters > 2))
            axes.spines[:].set_visible(False)
            small = {"fontsize": 9.5, "fontweight": "normal", "color": GREY}
            axes.set_title(f"\n{column}", loc="center", **small)
            if column == next(iter(panels[row])):
                # One line above `column`. A long name may cover several panels, so it is no title:
                # the layout would make the first panel narrower.
                place = {"xycoords": "axes fraction", "textcoords": "offset points"}
                name = axes.annotate(f"{row}\n", (0, 1), (0, 6), **place, fontweight="bold")
                name.set_in_layout(False)
                axes.set_ylabel(sides[0])
            if row == rows[-1]:
                axes.set_xlabel(sides[1])
        ticks = LogLocator(subs=(1, 2, 5)) if log else None
        bar = figure.colorbar(scale, ax=grid, ticks=ticks, format="%.4g", label=label, aspect=30)
        bar.minorticks_off()
