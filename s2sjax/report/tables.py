"""Tables of the records, and how a metric is shown: its name, unit and decimals.

The terminal, report.md and the READMEs show the same tables. Where results lack what a table needs,
a ValueError names it.
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
from s2sjax.report.stats import caution, interval, next_seed_range

NONE = "–"  # a cell without a number
MINUS = "−"  # as wide as a plus sign; no line is broken after it
OVER_SEEDS = "Mean over seeds [95 % interval, Student's t]."


def printable(text: str) -> str:
    """A text whose control characters are visible escapes: a terminal obeys none of it."""
    odd = r"[^\n -~\xa0-\u2029\u202f-\u2065\u206a-\U0010ffff]"
    return re.sub(odd, lambda found: repr(found[0])[1:-1], text)


def as_markdown(text: str) -> str:
    """A text in one line of Markdown, in which it is no HTML, no link and no picture."""
    text = printable(" ".join(text.split())).replace("&", "&amp;").replace("<", "&lt;")
    return text.replace("](", "]\\(").replace("|", "\\|")


class Unit(NamedTuple):
    """How a metric is shown."""

    scale: float  # shown value / stored value
    decimals: int  # of the shown value
    symbol: str  # after the shown value
    highest: float  # the largest possible value, as stored
    difference: str  # the unit of a difference; "" if it has none


def unit(metric: str) -> Unit:
    """The unit of a metric: BLEU and chrF are stored as 0 to 100, shares and rates as 0 to 1."""
    name = _without_length(metric)
    if name.endswith("loss"):
        return Unit(1, 4, "", float("inf"), "nats per token")
    if name == "perplexity":
        return Unit(1, 2, "", float("inf"), "")
    if name in ("BLEU", "chrF"):
        return Unit(1, 1, "", 100.0, f"{name} points")
    return Unit(100, 1, " %", 1.0, "points")


def lower_is_better(metric: str) -> bool:
    """Whether a lower value of a metric is a better one."""
    return _without_length(metric).endswith(("loss", "perplexity", "symbol_error_rate"))


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


def _without_length(metric: str) -> str:
    """The metric without the length of its questions: ``BLEU/length_1-7`` gives BLEU."""
    return metric.partition("/length_")[0]


def number(value: float, metric: str, sign: str = "", decimals: int | None = None) -> str:
    """A stored value in the unit of its metric, without the symbol.

    With the sign "+" positive numbers have a sign too.
    """
    of = unit(metric)
    shown, decimals = of.scale * value, of.decimals if decimals is None else decimals
    text = f"{shown:{sign}z.{decimals}f}" if abs(shown) < 10_000 else f"{shown:{sign}.1e}"
    return text.replace("-", MINUS)


def quantity(value: float, metric: str, decimals: int | None = None) -> str:
    """A value with the symbol of its unit: ``65.1 %``, ``27.3`` (BLEU), ``0.9939`` (a loss)."""
    return number(value, metric, decimals=decimals) + unit(metric).symbol


def score(seeds: Sequence[float], metric: str) -> str:
    """Mean over seeds with its 95 % interval: ``65.1 % [63.2, 66.9]``."""
    mean, ci95 = interval(seeds)
    return quantity(mean, metric) + ends(ci95, metric)


def difference(mean: float, ci95: Sequence[float] | None, metric: str) -> str:
    """Mean difference with its interval, shares in points: ``+34.5 [+33.8, +35.2]``."""
    return number(mean, metric, "+") + ends(ci95, metric, "+")


def ends(ci: Sequence[float] | None, metric: str, sign: str = "") -> str:
    """The ends of an interval, in brackets after a blank; nothing if it has none."""
    return f" [{', '.join(number(end, metric, sign) for end in ci)}]" if ci else ""


def provenance(results: Results) -> str:
    """A sentence that says what was run, with which software, on which hardware."""
    environment = results["environment"]
    known = [name for name in ("python", "jax", "jaxlib", "flax", "numpy") if name in environment]
    software = ", ".join(f"{name} {environment[name]}" for name in known)
    device = f"{environment.get('device_count', '?')} x {environment.get('device_kind', 'device')}"
    run = f"Experiment {results['experiment']}, preset {results['preset']}"
    return f"{run}, config {results['config_hash']}; {software}; {device}."


@dataclass(frozen=True)
class Table:
    """A table of strings, for Markdown and for the terminal."""

    title: str
    headers: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]  # each with one cell for each header
    note: str = ""  # what a reader must know about the numbers

    def markdown(self, *, heading: bool = False) -> str:
        """A pipe table (GitHub's Markdown) with aligned columns; `heading` puts its title above."""
        lines = [[as_markdown(cell) for cell in row] for row in (self.headers, *self.rows)]
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
        """The table for a terminal; brackets in cells are shown as they are."""
        table = rich.table.Table(box=rich.box.SIMPLE_HEAVY, pad_edge=False, collapse_padding=True)
        for i, (header, numeric) in enumerate(zip(self.headers, self._numeric(), strict=True)):
            words = " ".join([header, *(row[i] for row in self.rows)]).split()
            side, width = "right" if numeric else "left", max(map(len, words), default=0)
            table.add_column(Text(printable(header)), justify=side, min_width=width)
        for row in self.rows:
            table.add_row(*(Text(printable(cell)) for cell in row))
        note = [Text(f"{self.note}\n")] if self.note else []
        return Group(Text(self.title, style="bold"), table, *note)

    def _repr_markdown_(self) -> str:  # what a notebook shows
        return self.markdown()

    def _numeric(self) -> list[bool]:
        """Whether each column holds numbers, and is aligned on the right."""
        shape = re.compile(rf"[+{MINUS}]?\d|{NONE}$|$")
        return [all(shape.match(row[i]) for row in self.rows) for i in range(len(self.headers))]


def per_seed_table(results: Results, metric: str) -> Table:
    """Every seed of every arm, on the test set at the last epoch: a row a seed, a column an arm."""
    columns = {arm: by_seed(results, arm, metric) for arm in arms(results)}
    rows = [
        (str(seed), *(number(c[seed], metric) if seed in c else NONE for c in columns.values()))
        for seed in sorted(set().union(*columns.values()))
    ]
    rows.append(("mean", *(number(interval([*c.values()])[0], metric) for c in columns.values())))
    per_cent = ", per cent" if unit(metric).symbol else ""
    title = f"{metric_name(metric)}{per_cent}: every seed, test set"
    return Table(title, ("seed", *columns), tuple(rows))


def score_table(
    results: Results,
    metrics: Mapping[str, str],
    references: Sequence[tuple[str, Mapping[str, float | None]]] = (),
    split: str = "test",
    *,
    next_seed: bool = False,
) -> Table:
    """The scores of every arm, and the range of its seeds; above them what to compare with.

    `metrics` is ``{header: metric}``; `references`, ``(label, {metric: value})``, such as floors,
    may lack metrics. With `next_seed`, a row an arm says where one more seed would lie.
    """
    rows = []
    for label, reference in references:
        known = [(reference.get(metric), metric) for metric in metrics.values()]
        shown = (NONE if v is None else quantity(v, m, max(2, unit(m).decimals)) for v, m in known)
        rows.append((label, *shown))
    for arm in arms(results):
        columns = [(values(results, arm, metric, split), metric) for metric in metrics.values()]
        n = len(columns[0][0])
        rows.append((f"{arm}, {n} seed{'s' * (n > 1)}", *(score(*column) for column in columns)))
        if n > 1:
            ranges = [(min(seeds), max(seeds), metric) for seeds, metric in columns]
            rows.append((f"{arm}, lowest to highest", *(span(*of) for of in ranges)))
        if n > 1 and next_seed:
            ranges = [(*next_seed_range(seeds), metric) for seeds, metric in columns]
            rows.append((f"{arm}, one more seed (95 %)", *(span(*of) for of in ranges)))
    return Table(f"{results['experiment']}: {split} set", ("", *metrics), tuple(rows), OVER_SEEDS)


def span(low: float, high: float, metric: str) -> str:
    """From a lowest to a highest value: ``63.2 to 66.9``."""
    return f"{number(low, metric)} to {number(high, metric)}"


def comparison_table(results: Results) -> Table:
    """The paired comparisons, metric by metric."""
    metrics = list(dict.fromkeys(c["metric"] for c in results["comparisons"]))
    comparisons = sorted(results["comparisons"], key=lambda c: metrics.index(c["metric"]))
    pairs = {(c["a"], c["b"]) for c in comparisons}
    a, b = next(iter(pairs)) if len(pairs) == 1 else ("a", "b")
    rows = [
        (
            f"{c['a']} {MINUS} {c['b']}: " * (len(pairs) > 1) + metric_name(c["metric"]),
            str(c["n"]),
            quantity(c["mean_a"], c["metric"]),
            quantity(c["mean_b"], c["metric"]),
            difference(c["mean_difference"], c["ci95"], c["metric"]),
            NONE if c["p_sign_flip"] is None else f"{c['p_sign_flip']:.2g}",
            NONE if c["d_z"] is None else f"{c['d_z']:+z.2f}".replace("-", MINUS),
            f"{c['p_superiority']:.2f}",
        )
        for c in comparisons
    ]
    note = paired_note(
        "; d_z: difference in standard deviations of the paired differences; P(a > b): share of "
        "seeds in which a is above b.",
        [c["n"] for c in comparisons],
    )
    title = f"{results['experiment']}: paired comparisons"
    headers = (f"{a} {MINUS} {b}", "n", a, b, "difference", "p", "d_z", "P(a > b)")
    return Table(title, headers, tuple(rows), note)


def paired_note(columns: str, seeds: Sequence[int], what: str = "Difference a − b") -> str:
    """The note under paired differences, with a caution where there are few seeds."""
    note = f"Paired by seed. {what} of the means, of percentages in points"
    if seeds and not caution(max(seeds)):
        note += " [95 % interval: the shifts that the sign-flip test does not reject]"
    note += f"; two-sided sign-flip p{columns}"
    return f"{note} {caution(min(seeds))}".rstrip() if seeds else note


class Picture(NamedTuple):
    """A picture that a report shows: its file, and a caption."""

    path: Path
    caption: str

    def _repr_png_(self) -> bytes:  # what a notebook shows
        return self.path.read_bytes()


def write_report(path: Path, sections: Iterable[str | Table | Picture]) -> None:
    """Writes a Markdown file; strings are Markdown, pictures are links.

    If anything fails, an old file stays as it is.
    """
    parts = []
    for section in sections:
        if isinstance(section, Table):
            parts.append(section.markdown(heading=True))
        elif isinstance(section, Picture):
            link = Path(os.path.relpath(section.path, path.parent)).as_posix()
            parts.append(f"![{as_markdown(section.caption)}]({quote(link)})")
        else:
            parts.append(section.strip("\n"))
    write_atomically(path, "\n\n".join(parts) + "\n")


def replace_blocks(text: str, blocks: Mapping[str, str]) -> str:
    """Replaces what is between ``<!-- begin NAME -->`` and ``<!-- end NAME -->``.

    A ValueError names a block whose two markers are not there once, one directly after the other.
    """
    for name, block in blocks.items():
        begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
        pair = re.search(f"{begin}((?!<!-- (begin|end) ).)*{end}", text, re.DOTALL)
        if pair is None or text.count(begin) + text.count(end) > 2:
            raise ValueError(f"Block {name!r} needs '{begin}' and '{end}' as the next marker.")
        lines = (text[: pair.start()] + begin, block.strip("\n"), end + text[pair.end() :])
        text = "\n\n".join(lines)
    return text
