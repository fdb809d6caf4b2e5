"""Records to tables and Markdown: what the terminal, report.md and the README say is one object.

Fractions become per cent here and nowhere earlier; losses are nats per scored token and stay so.
"""

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import rich.box
import rich.table
from rich.console import Group
from rich.text import Text

from s2sjax.files import write_atomically
from s2sjax.results import Results, arms, by_seed, values
from s2sjax.stats import caution, interval, prediction

NONE = "–"  # a cell without a number
MINUS = "−"  # as wide as a plus sign, and never broken from its number


# --- words and numbers ------------------------------------------------------------------------


def is_loss(metric: str) -> bool:
    """Whether a metric is in nats, not a fraction between 0 and 1."""
    return metric.endswith("loss")


def metric_name(metric: str) -> str:
    """A metric in words: ``free_running/exact_match`` is "exact match, free-running"."""
    if is_loss(metric):
        return "loss, nats per token"
    mode, _, what = metric.partition("/")
    position = what.removeprefix("position_")
    words = {
        "all": "token accuracy",
        "content": "token accuracy without the end token",
        "exact_match": "exact match",
        f"position_{position}": f"accuracy at position {position}",
    }
    return f"{words[what]}, {mode.replace('_', '-')}" if what in words else metric


def number(value: float, metric: str, sign: str = "", decimals: int = 1) -> str:
    """A value as the tables show it: a loss with four decimals, anything else as per cent.

    Args:
        value: the value, a fraction unless the metric is a loss.
        metric: decides which of the two it is.
        sign: "+" shows the sign of positive numbers too, as differences want it.
        decimals: of a per cent; more than one only where the value has no spread.
    """
    if not is_loss(metric):
        text = f"{100 * value:{sign}z.{decimals}f}"
    else:
        text = f"{value:{sign}z.4f}" if abs(value) < 10_000 else f"{value:{sign}.1e}"
    return text.replace("-", MINUS)


def quantity(value: float, metric: str, decimals: int = 1) -> str:
    """A value with its unit: ``65.1 %``; a loss has none."""
    return number(value, metric, decimals=decimals) + ("" if is_loss(metric) else " %")


def score(seeds: Sequence[float], metric: str) -> str:
    """Mean over seeds with its 95 % interval: ``65.1 % [63.2, 66.9]``."""
    mean, low, high = interval(seeds)
    if low is None or high is None:
        return quantity(mean, metric)
    return f"{quantity(mean, metric)} [{number(low, metric)}, {number(high, metric)}]"


def difference(mean: float, ci95: Sequence[float] | None, metric: str) -> str:
    """Mean difference with its interval, fractions in points: ``+34.5 [+33.8, +35.2]``."""
    text = number(mean, metric, "+")
    if ci95 is None:
        return text
    low, high = (number(end, metric, "+") for end in ci95)
    return f"{text} [{low}, {high}]"


def provenance(results: Results) -> str:
    """One sentence: what was run, with which software, on which hardware."""
    environment = results["environment"]
    software = ", ".join(
        f"{name} {environment[name]}"
        for name in ("python", "jax", "jaxlib", "flax", "numpy")
        if name in environment
    )
    return (
        f"Experiment {results['experiment']}, preset {results['preset']}, config "
        f"{results['config_hash']}; {software}; {environment.get('device_count', '?')} x "
        f"{environment.get('device_kind', 'unknown device')}."
    )


# --- tables -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Table:
    """A table of finished strings, for Markdown and for the terminal.

    Attributes:
        title: what the numbers are.
        headers: one a column.
        rows: the cells, as many a row as there are headers.
        note: what a reader needs beside the numbers; may be empty.
    """

    title: str
    headers: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.headers):
                raise ValueError(
                    f"Table {self.title!r} has {len(self.headers)} columns, but a row has "
                    f"{len(row)} cells: {row}."
                )

    def markdown(self, *, heading: bool = False) -> str:
        """A pipe table (GitHub's Markdown), its source aligned; under its title on request."""
        lines = [[_one_line(cell) for cell in row] for row in (self.headers, *self.rows)]
        widths = [max(3, *map(len, column)) for column in zip(*lines, strict=True)]
        right = self._numeric()
        rule = [
            "-" * (width - 1) + (":" if numeric else "-")
            for width, numeric in zip(widths, right, strict=True)
        ]
        table = [
            [
                cell.rjust(width) if numeric else cell.ljust(width)
                for cell, width, numeric in zip(line, widths, right, strict=True)
            ]
            for line in (lines[0], rule, *lines[1:])
        ]
        parts = [f"### {self.title}"] if heading else []
        parts.append("\n".join(f"| {' | '.join(line)} |" for line in table))
        parts.extend([f"*{self.note}*"] if self.note else [])
        return "\n\n".join(parts)

    def rich(self) -> Group:
        """The same for a terminal. Cells are literal: brackets in them are no rich markup."""
        table = rich.table.Table(box=rich.box.SIMPLE_HEAVY, pad_edge=False, collapse_padding=True)
        for i, (header, numeric) in enumerate(zip(self.headers, self._numeric(), strict=True)):
            words = " ".join([header, *(row[i] for row in self.rows)]).split()
            table.add_column(
                Text(header),
                justify="right" if numeric else "left",
                min_width=max(map(len, words), default=0),
            )
        for row in self.rows:
            table.add_row(*map(Text, row))
        note = [Text(f"{self.note}\n")] if self.note else []
        return Group(Text(self.title, style="bold"), table, *note)

    def _numeric(self) -> list[bool]:
        """Whether a column holds numbers, and so stands on the right: one a column."""
        return [
            all(re.match(rf"[+{MINUS}]?\d|{NONE}$|$", row[i]) for row in self.rows)
            for i in range(len(self.headers))
        ]


def _one_line(cell: str) -> str:
    return " ".join(cell.split()).replace("|", "\\|")


def per_seed_table(results: Results, metric: str, split: str = "test") -> Table:
    """Every seed of every arm at the last epoch: a row a seed, a column an arm.

    Raises:
        ValueError: an arm has no such records.
    """
    columns = {arm: by_seed(results, arm, metric, split) for arm in arms(results)}
    rows = [
        (str(seed), *(number(c[seed], metric) if seed in c else NONE for c in columns.values()))
        for seed in sorted(set().union(*columns.values()))
    ]
    rows.append(("mean", *(number(interval([*c.values()])[0], metric) for c in columns.values())))
    unit = "" if is_loss(metric) else ", per cent"
    return Table(
        title=f"{metric_name(metric)}{unit}: every seed, {split} set",
        headers=("seed", *columns),
        rows=tuple(rows),
    )


def score_table(
    results: Results,
    metrics: Mapping[str, str],
    references: Sequence[tuple[str, Mapping[str, float | None]]] = (),
    split: str = "test",
    *,
    predict: bool = False,
) -> Table:
    """The arms beside what they have to be read against, such as floors and published figures.

    Args:
        results: the content of a results.json.
        metrics: ``{header: metric}``, a column each.
        references: ``(label, {metric: value})``, a row each, above the arms; a missing value or
            None is a dash.
        split: "train", "dev" or "test".
        predict: add a row an arm with the range one more seed would fall in, for published figures
            of a single run.

    Raises:
        ValueError: no arm has one of the metrics. An arm that lacks what others have gets a dash.
    """
    rows = []
    for label, reference in references:
        known = [(reference.get(metric), metric) for metric in metrics.values()]
        rows.append((label, *(NONE if v is None else quantity(v, m, decimals=2) for v, m in known)))
    measured = {(r["arm"], r["metric"]) for r in results["records"] if r["split"] == split}
    for arm in arms(results):
        scores, ranges, next_seed, n = [], [], [], 0
        for metric in metrics.values():
            if (arm, metric) not in measured and any(metric == m for _, m in measured):
                scores.append(NONE)
                ranges.append(NONE)
                next_seed.append(NONE)
                continue
            seeds = values(results, arm, metric, split)
            n = len(seeds)
            scores.append(score(seeds, metric))
            ranges.append(_range(min(seeds), max(seeds), metric))
            next_seed.append(_range(*prediction(seeds), metric) if n > 1 else NONE)
        rows.append((f"{arm}, {n} seed{'' if n == 1 else 's'}", *scores))
        if n > 1:
            rows.append((f"{arm}, lowest to highest", *ranges))
        if n > 1 and predict:
            rows.append((f"{arm}, one more seed (95 %)", *next_seed))
    return Table(
        title=f"{results['experiment']}: {split} set",
        headers=("", *metrics),
        rows=tuple(rows),
        note="Mean over seeds [95 % bootstrap interval of the mean].",
    )


def _range(low: float, high: float, metric: str) -> str:
    return f"{number(low, metric)} to {number(high, metric)}"


def comparison_table(results: Results, metrics: Mapping[str, str] | None = None) -> Table:
    """The paired comparisons: size of the difference, its interval, the test, the effect sizes.

    Args:
        results: the content of a results.json.
        metrics: ``{label: metric}``, which comparisons to show and how to call them; without it all
            of them, called by `metric_name`.

    Raises:
        ValueError: one of the metrics was not compared.
    """
    compared = list(dict.fromkeys(c["metric"] for c in results["comparisons"]))
    metrics = {metric_name(m): m for m in compared} if metrics is None else metrics
    pairs = {(c["a"], c["b"]) for c in results["comparisons"]}
    a, b = pairs.pop() if len(pairs) == 1 else ("a", "b")
    rows, counts = [], set()
    for label, metric in metrics.items():
        if metric not in compared:
            raise ValueError(f"No comparison of metric {metric!r}; compared were {compared}.")
        for c in results["comparisons"]:
            if c["metric"] == metric:
                pair = f"{c['a']} {MINUS} {c['b']}: " if pairs else ""
                rows.append((pair + label, *_comparison_cells(c)))
                counts.add(c["n"])
    note = (
        "Paired by seed. Difference a − b of the means, of percentages in points, [95 % bootstrap "
        "interval]; two-sided sign-flip p; d_z: difference in standard deviations of the paired "
        "differences; P(a > b): share of seeds in which a is above b."
    )
    warning = caution(min(counts)) if counts else None
    return Table(
        title=f"{results['experiment']}: paired comparisons",
        headers=(f"{a} {MINUS} {b}", "n", a, b, "difference", "p", "d_z", "P(a > b)"),
        rows=tuple(rows),
        note=f"{note} {warning}" if warning else note,
    )


def _comparison_cells(c: Mapping[str, Any]) -> tuple[str, ...]:
    metric = c["metric"]
    return (
        str(c["n"]),
        quantity(c["mean_a"], metric),
        quantity(c["mean_b"], metric),
        difference(c["mean_difference"], c["ci95"], metric),
        NONE if c["p_sign_flip"] is None else f"{c['p_sign_flip']:.2g}",
        NONE if c["d_z"] is None else f"{c['d_z']:+z.2f}".replace("-", MINUS),
        f"{c['p_superiority']:.2f}",
    )


# --- writing ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Picture:
    """A picture that a report shows: its file, and what it says in words."""

    path: Path
    caption: str


def write_report(path: str | os.PathLike[str], sections: Iterable[str | Table | Picture]) -> None:
    """Writes a Markdown file, whole or not at all.

    Args:
        path: the file; its folder exists.
        sections: in order: strings are Markdown (headings, paragraphs), tables come under their
            titles, pictures are linked relative to the report.
    """
    path = Path(path)
    parts = []
    for section in sections:
        if isinstance(section, Table):
            parts.append(section.markdown(heading=True))
        elif isinstance(section, Picture):
            link = Path(os.path.relpath(section.path, path.parent)).as_posix()
            parts.append(f"![{section.caption}]({quote(link)})")
        else:
            parts.append(section.strip("\n"))
    write_atomically(path, "\n\n".join(parts) + "\n")


MARKER = re.compile(r"<!-- (begin|end) (\S+) -->")


def replace_blocks(text: str, blocks: Mapping[str, str]) -> str:
    """Replaces what stands between ``<!-- begin NAME -->`` and ``<!-- end NAME -->``.

    Blocks of the text that are not named stay as they are; doing it again changes nothing.

    Raises:
        ValueError: a marker is missing, stands there twice or in the wrong order, or a block
            holds a marker itself.
    """
    for name, block in blocks.items():
        if MARKER.search(block):
            raise ValueError(f"Block {name!r} holds a marker itself, so it could not be replaced.")
        markers = list(MARKER.finditer(text))
        places = [i for i, marker in enumerate(markers) if marker[2] == name]
        found = [markers[i][1] for i in places]
        if found != ["begin", "end"]:
            raise ValueError(
                f"Block {name!r} needs one '<!-- begin {name} -->' and after it one "
                f"'<!-- end {name} -->', but the text has {found or 'neither'}."
            )
        if places[1] != places[0] + 1:
            inside = markers[places[0] + 1][0]
            raise ValueError(f"Block {name!r} has another block's marker inside: {inside!r}.")
        begin, end = markers[places[0]].end(), markers[places[1]].start()
        content = block.strip("\n")
        text = f"{text[:begin]}\n\n{content}\n\n{text[end:]}"
    return text
