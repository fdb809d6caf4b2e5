"""Records to tables and Markdown: the terminal, report.md and the READMEs show the same objects.

The first section decides how tables and pictures show a metric: its name, unit and decimals. A
ValueError names what the results lack for a table.
"""

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import rich.box
import rich.table
from rich.console import Group
from rich.text import Text

from s2sjax.files import write_atomically
from s2sjax.report.results import Results, arms, by_seed, values
from s2sjax.report.stats import caution, interval, prediction

NONE = "–"  # a cell without a number
MINUS = "−"  # as wide as a plus sign, and never broken from its number


class Unit(NamedTuple):
    """How a metric is shown."""

    scale: float  # shown value / stored value
    decimals: int  # of the shown value
    symbol: str  # behind the shown value
    highest: float  # the largest value that can be, as stored
    difference: str  # the unit of a difference, if it has one


def unit(metric: str) -> Unit:
    """The unit of a metric: BLEU and chrF are stored as 0..100, a share or a rate as 0..1."""
    name = _whole(metric)
    if name.endswith("loss"):
        return Unit(1, 4, "", float("inf"), "nats per token")
    if name == "perplexity":
        return Unit(1, 2, "", float("inf"), "")
    if name in ("BLEU", "chrF"):
        return Unit(1, 1, "", 100.0, f"{name} points")
    return Unit(100, 1, " %", 1.0, "points")


def lower_is_better(metric: str) -> bool:
    """Whether the best value of a metric is its lowest one."""
    return _whole(metric).endswith(("loss", "perplexity", "symbol_error_rate"))


def metric_name(metric: str) -> str:
    """A metric in words: ``free_running/exact_match`` is "exact match, free-running"."""
    metric, _, length = metric.partition("/length_")
    if length:
        return f"{metric_name(metric)}, length {length}"
    if metric.endswith("loss"):
        return "loss, nats per token"
    mode, _, what = metric.rpartition("/")
    position = what.removeprefix("position_")
    words = {
        "all": "token accuracy",
        "content": "token accuracy without the end token",
        "exact_match": "exact match",
        "symbol_error_rate": "symbol error rate",
        f"position_{position}": f"accuracy at position {position}",
    }
    name = words.get(what, metric)
    return f"{name}, {mode.replace('_', '-')}" if mode and what in words else name


def _whole(metric: str) -> str:
    """The metric on all questions, of one on those of some length: ``BLEU/length_1-7``: BLEU."""
    return metric.partition("/length_")[0]


def number(value: float, metric: str, sign: str = "", decimals: int | None = None) -> str:
    """A stored value in the unit of its metric, without the symbol; "+" signs positive ones too."""
    of = unit(metric)
    shown, decimals = of.scale * value, of.decimals if decimals is None else decimals
    text = f"{shown:{sign}z.{decimals}f}" if abs(shown) < 10_000 else f"{shown:{sign}.1e}"
    return text.replace("-", MINUS)


def quantity(value: float, metric: str, decimals: int | None = None) -> str:
    """A value with the symbol of its unit: ``65.1 %``, ``27.3`` (BLEU), ``0.9939`` (a loss)."""
    return number(value, metric, decimals=decimals) + unit(metric).symbol


def score(seeds: Sequence[float], metric: str) -> str:
    """Mean over seeds with its 95 % interval: ``65.1 % [63.2, 66.9]``."""
    mean, low, high = interval(seeds)
    if low is None or high is None:
        return quantity(mean, metric)
    return f"{quantity(mean, metric)} [{number(low, metric)}, {number(high, metric)}]"


def difference(mean: float, ci95: Sequence[float] | None, metric: str) -> str:
    """Mean difference with its interval, fractions in points: ``+34.5 [+33.8, +35.2]``."""
    ends = "" if ci95 is None else f" [{', '.join(number(end, metric, '+') for end in ci95)}]"
    return number(mean, metric, "+") + ends


def provenance(results: Results) -> str:
    """One sentence: what was run, with which software, on which hardware."""
    environment = results["environment"]
    known = [name for name in ("python", "jax", "jaxlib", "flax", "numpy") if name in environment]
    software = ", ".join(f"{name} {environment[name]}" for name in known)
    device = f"{environment.get('device_count', '?')} x {environment.get('device_kind', 'device')}"
    run = f"Experiment {results['experiment']}, preset {results['preset']}"
    return f"{run}, config {results['config_hash']}; {software}; {device}."


@dataclass(frozen=True)
class Table:
    """A table of finished strings, for Markdown and for the terminal."""

    title: str  # what the numbers are
    headers: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]  # as many cells a row as there are headers
    note: str = ""  # what a reader needs to know about the numbers

    def __post_init__(self) -> None:
        n = len(self.headers)
        for row in self.rows:
            if len(row) != n:
                raise ValueError(f"{self.title!r} has {n} columns, but a row has {len(row)}.")

    def markdown(self, *, heading: bool = False) -> str:
        """A pipe table (GitHub's Markdown) with aligned columns; `heading` puts its title above."""
        lines = [
            [" ".join(cell.split()).replace("|", "\\|") for cell in row]
            for row in (self.headers, *self.rows)
        ]
        columns = []
        for column, numeric in zip(zip(*lines, strict=True), self._numeric(), strict=True):
            width = max(3, *map(len, column))
            rule = "-" * (width - 1) + (":" if numeric else "-")
            align = str.rjust if numeric else str.ljust
            columns.append([align(cell, width) for cell in (column[0], rule, *column[1:])])
        parts = [f"### {self.title}"] if heading else []
        parts.append("\n".join(f"| {' | '.join(line)} |" for line in zip(*columns, strict=True)))
        parts.extend([f"*{self.note}*"] if self.note else [])
        return "\n\n".join(parts)

    def rich(self) -> Group:
        """The same for a terminal; brackets in cells are no rich markup."""
        table = rich.table.Table(box=rich.box.SIMPLE_HEAVY, pad_edge=False, collapse_padding=True)
        for i, (header, numeric) in enumerate(zip(self.headers, self._numeric(), strict=True)):
            words = " ".join([header, *(row[i] for row in self.rows)]).split()
            side, width = "right" if numeric else "left", max(map(len, words), default=0)
            table.add_column(Text(header), justify=side, min_width=width)
        for row in self.rows:
            table.add_row(*map(Text, row))
        note = [Text(f"{self.note}\n")] if self.note else []
        return Group(Text(self.title, style="bold"), table, *note)

    def _numeric(self) -> list[bool]:
        """Whether each column holds numbers, and is aligned on the right."""
        shape = re.compile(rf"[+{MINUS}]?\d|{NONE}$|$")
        return [all(shape.match(row[i]) for row in self.rows) for i in range(len(self.headers))]


def per_seed_table(results: Results, metric: str, split: str = "test") -> Table:
    """Every seed of every arm at the last epoch: a row a seed, a column an arm."""
    columns = {arm: by_seed(results, arm, metric, split) for arm in arms(results)}
    rows = [
        (str(seed), *(number(c[seed], metric) if seed in c else NONE for c in columns.values()))
        for seed in sorted(set().union(*columns.values()))
    ]
    rows.append(("mean", *(number(interval([*c.values()])[0], metric) for c in columns.values())))
    per_cent = ", per cent" if unit(metric).symbol else ""
    title = f"{metric_name(metric)}{per_cent}: every seed, {split} set"
    return Table(title, ("seed", *columns), tuple(rows))


def score_table(
    results: Results,
    metrics: Mapping[str, str],
    references: Sequence[tuple[str, Mapping[str, float | None]]] = (),
    split: str = "test",
    *,
    predict: bool = False,
) -> Table:
    """A row an arm with its scores, and one with their range; above them what to compare with.

    `metrics` is ``{header: metric}``; `references`, ``(label, {metric: value})``, such as floors,
    may lack some. `predict` adds a row an arm: the range of one more seed.
    """
    rows = []
    for label, reference in references:
        known = [(reference.get(metric), metric) for metric in metrics.values()]
        shown = (NONE if v is None else quantity(v, m, max(2, unit(m).decimals)) for v, m in known)
        rows.append((label, *shown))
    measured = {(r["arm"], r["metric"]) for r in results["records"] if r["split"] == split}
    for arm in arms(results):
        columns, n = [], 0
        for metric in metrics.values():
            if (arm, metric) not in measured and any(metric == m for _, m in measured):
                columns.append((NONE, NONE, NONE))
                continue
            seeds = values(results, arm, metric, split)
            n = len(seeds)
            more = span(*prediction(seeds), metric) if n > 1 else NONE
            columns.append((score(seeds, metric), span(min(seeds), max(seeds), metric), more))
        count = f"{n} seed{'' if n == 1 else 's'}"
        labels = [f"{arm}, {x}" for x in (count, "lowest to highest", "one more seed (95 %)")]
        rows += [*zip(labels, *columns, strict=True)][: 1 if n <= 1 else 3 if predict else 2]
    note = "Mean over seeds [95 % bootstrap interval of the mean]."
    return Table(f"{results['experiment']}: {split} set", ("", *metrics), tuple(rows), note)


def span(low: float, high: float, metric: str) -> str:
    """From a lowest to a highest value: ``63.2 to 66.9``."""
    return f"{number(low, metric)} to {number(high, metric)}"


def comparison_table(results: Results, metrics: Mapping[str, str] | None = None) -> Table:
    """The paired comparisons, of all metrics or of some, ``{label: metric}``."""
    comparisons = results["comparisons"]
    compared = list(dict.fromkeys(c["metric"] for c in comparisons))
    metrics = {metric_name(m): m for m in compared} if metrics is None else metrics
    pairs = {(c["a"], c["b"]) for c in comparisons}
    a, b = next(iter(pairs)) if len(pairs) == 1 else ("a", "b")
    if missing := [metric for metric in metrics.values() if metric not in compared]:
        raise ValueError(f"No comparison of metric {missing[0]!r}; compared were {compared}.")
    chosen = [(label, c) for label, m in metrics.items() for c in comparisons if c["metric"] == m]
    rows = [
        (
            f"{c['a']} {MINUS} {c['b']}: {label}" if len(pairs) > 1 else label,
            str(c["n"]),
            quantity(c["mean_a"], c["metric"]),
            quantity(c["mean_b"], c["metric"]),
            difference(c["mean_difference"], c["ci95"], c["metric"]),
            NONE if c["p_sign_flip"] is None else f"{c['p_sign_flip']:.2g}",
            NONE if c["d_z"] is None else f"{c['d_z']:+z.2f}".replace("-", MINUS),
            f"{c['p_superiority']:.2f}",
        )
        for label, c in chosen
    ]
    note = paired_note(
        "; d_z: difference in standard deviations of the paired differences; P(a > b): share of "
        "seeds in which a is above b.",
        [c["n"] for _, c in chosen],
    )
    title = f"{results['experiment']}: paired comparisons"
    headers = (f"{a} {MINUS} {b}", "n", a, b, "difference", "p", "d_z", "P(a > b)")
    return Table(title, headers, tuple(rows), note)


def paired_note(columns: str, seeds: Sequence[int]) -> str:
    """The note under paired differences, with a caution where a row has few seeds."""
    what = "of the means, of percentages in points, [95 % bootstrap interval]"
    note = f"Paired by seed. Difference a − b {what}; two-sided sign-flip p{columns}"
    return f"{note} {caution(min(seeds))}".rstrip() if seeds else note


class Picture(NamedTuple):
    """A picture that a report shows: its file, and a caption."""

    path: Path
    caption: str


def write_report(path: Path, sections: Iterable[str | Table | Picture]) -> None:
    """Writes a Markdown file, whole or not at all; strings are Markdown, pictures are linked."""
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


def replace_blocks(text: str, blocks: Mapping[str, str]) -> str:
    """Replaces what stands between ``<!-- begin NAME -->`` and ``<!-- end NAME -->``.

    A ValueError names markers that are missing, doubled, in the wrong order or in a block.
    """
    marker = re.compile(r"(<!-- (?:begin|end) \S+ -->)")
    parts = marker.split(text)
    for name, block in blocks.items():
        if marker.search(block):
            raise ValueError(f"Block {name!r} holds a marker itself, so it could not be replaced.")
        pair = [f"<!-- begin {name} -->", f"<!-- end {name} -->"]
        places = [i for i, part in enumerate(parts) if part in pair]
        if [parts[i] for i in places] != pair or places[0] + 2 != places[1]:
            once = f"'{pair[0]}' once, and as the next marker '{pair[1]}'"
            raise ValueError(f"Block {name!r} needs {once}.")
        parts[places[0] + 1] = "\n\n" + block.strip("\n") + "\n\n"
    return "".join(parts)
