"""Attention, two directions, depth: how much of the gain from reversing the source do they leave?

The question: a decoder that looks back at the source, or an encoder that reads it both ways, has
every symbol near. Folklore says that the order of the source then no longer matters; Luong, Pham &
Manning (2015) gained 1.3 BLEU from reversal without attention and report no arm with it; Britz et
al. (2017) gained 0.6 and 0.8 BLEU with attention over one and two layers, and lost 0.2 over four.

The command: ``python experiments/attention.py addition`` (every score, one and two directions);
``depth`` (2 and 4 layers); ``copy`` and ``backwards`` (20 symbols); ``dates`` (written by
people, to ISO; needs the extra `text`); ``lengths`` (trained on short strings, tested on longer).

Time on two CPU cores: see the README of this folder.

What to expect: without attention and in one direction reversal helps addition; with attention, or
with two directions, both orders are equal (within 5 points). ``addition`` and ``depth`` have the
seeds to mark each as held, failed or open; the others show scores. With attention, forward, 99.5 %
of unseen dates should be right after 5 epochs, and 99.9 % of strings of up to 20 symbols.
"""

import signal
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

if __name__ == "__main__":  # until training starts, Ctrl-C has nothing to save
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import numpy as np
from mechanisms import PRESETS as CONTROLS
from mechanisms import QUICK

from s2sjax.ablation import Ablation
from s2sjax.cli import Study, main
from s2sjax.config import Attention, Model, Optimiser, Run, SourceOrder, Training
from s2sjax.errors import UserError
from s2sjax.experiment import Experiment, refuse_changed
from s2sjax.metrics import HEADLINE
from s2sjax.pictures import Category, Contrast, Heat, forest, heat_maps, scores_by_arm, share_by
from s2sjax.plan import parameter_count
from s2sjax.report import (
    MINUS,
    NONE,
    Picture,
    Table,
    comparison_table,
    difference,
    per_seed_table,
    quantity,
    score,
    score_table,
)
from s2sjax.results import Results, values
from s2sjax.results import arms as ran
from s2sjax.stats import compare, smallest_p
from s2sjax.taskconfig import Dates, Toy
from s2sjax.tasks import Pairs
from s2sjax.trained import load
from s2sjax.verdicts import LEVEL, Prediction, prediction_table

NEAR = 0.05
"""How close two orders are that count as equal, as a fraction."""
MOST_ARMS, LONGEST_SHOWN = 3, 12
"""Of the alignments that are drawn: arms, and characters of a question."""
MOST_LENGTHS = 10
"""Of a picture of scores by length: categories."""
FORWARD: SourceOrder = "forward"
REVERSED: SourceOrder = "reversed"
METRICS = {
    "whole answers": HEADLINE,
    "characters, forced": "teacher_forced/content",
    "loss": "loss",
}


class Grid(NamedTuple):
    """What the arms of a preset are: every combination, in both orders of the source."""

    scores: Sequence[Attention | None] = (None, "dot", "general", "additive")
    directions: Sequence[int] = (1,)
    layers: Sequence[int] = (1,)
    orders: Sequence[SourceOrder] = (FORWARD, REVERSED)


GRIDS = {
    "addition": Grid(directions=(1, 2)),
    "depth": Grid(directions=(1, 2), layers=(2, 4)),
    "copy": Grid((None, "dot")),
    "backwards": Grid((None, "dot")),
    "dates": Grid((None, "dot")),
    "lengths": Grid((None, "dot", "additive"), orders=(FORWARD,)),
    "smoke": Grid((None, "dot"), (2,)),
}

LETTERS = Toy("copy", symbols=26, min_length=3, max_length=20, train=10_000, dev=500, test=1_000)
STRINGS = Run(
    LETTERS,
    model=Model(hidden_size=128),
    optim=Optimiser(learning_rate=3e-3, clip=1.0, schedule="cosine"),
    train=Training(epochs=15, eval_every=1, checkpoint_every=3, show_every=15),
)
WRITTEN = Run(
    Dates(),
    model=Model(hidden_size=128),
    optim=Optimiser(learning_rate=3e-3, clip=1.0, schedule="cosine"),
    train=Training(epochs=5, eval_every=1, checkpoint_every=1, show_every=5),
)

PRESETS = {
    "addition": (
        "two digits as in mechanisms.py quick: four scores, one and two directions, 6 seeds",
        Study(QUICK, seeds=6),
    ),
    "depth": ("the same with 2 and 4 layers, 6 seeds", Study(QUICK, seeds=6)),
    "copy": ("strings of up to 20 letters to copy, 3 seeds", Study(STRINGS, seeds=3)),
    "backwards": (
        "the same strings to write backwards, 3 seeds",
        Study(replace(STRINGS, task=replace(LETTERS, kind="reverse")), seeds=3),
    ),
    "dates": ("50,000 dates in 17 languages to ISO, 5 epochs, 3 seeds", Study(WRITTEN, seeds=3)),
    "lengths": (
        "strings of up to 10 letters to copy, tested on up to 20, 3 seeds",
        Study(replace(STRINGS, task=replace(LETTERS, max_length=10, longer=10)), seeds=3),
    ),
    "smoke": ("addition, tiny: 2 seeds, 2 epochs", CONTROLS["smoke"][1]),
}


def cells(preset: str) -> dict[str, dict[str, Any]]:
    """Every combination of a preset's grid but for the order: its name, and settings of the model.

    "additive" is Bahdanau's decoder: the state before attends, and the step reads the context. The
    others are Luong's.
    """
    grid, found = GRIDS[preset], {}
    for layers in grid.layers:
        for directions in grid.directions:
            for attention in grid.scores:
                parts = [attention or "no attention"]
                parts += ["two directions"] if directions == 2 else []
                parts += [f"{layers} layers"] if len(grid.layers) > 1 and layers > 1 else []
                found[", ".join(parts)] = {
                    "attention": attention,
                    "attend": "before" if attention == "additive" else "after",
                    "directions": directions,
                    "encoder_layers": layers,
                    "decoder_layers": layers,
                }
    return found


def arms(preset: str, study: Study) -> Mapping[str, Run]:
    """Every cell of the grid, its source in each order."""
    run, found = study.run, {}
    own = PRESETS[preset][1].run
    names = ("attention", "directions", "encoder_layers", "decoder_layers")
    refuse_changed(run, own, *(f"model.{name}" for name in names))
    for name, settings in cells(preset).items():
        model = replace(run.model, **settings)
        for order in GRIDS[preset].orders:
            text = replace(run.text, source_order=order)
            found[f"{name}, {order}"] = replace(run, model=model, text=text)
    return found


def pairs(preset: str, _: Study | None = None) -> list[tuple[str, str]]:
    """Reversed against forward; where there is one order, attention against none."""
    names = list(cells(preset))
    if len(GRIDS[preset].orders) > 1:
        return [(f"{name}, {REVERSED}", f"{name}, {FORWARD}") for name in names]
    return [(f"{name}, {FORWARD}", f"{names[0]}, {FORWARD}") for name in names[1:]]


def predictions(preset: str) -> list[Prediction]:
    """That there is a gap to leave, and the folklore, a line a cell that attends or reads twice."""
    (first, *_), found = pairs(preset), []
    if len(GRIDS[preset].orders) == 1:
        return []
    for (name, settings), (a, b) in zip(cells(preset).items(), pairs(preset), strict=True):
        if (a, b) == first:
            found.append(Prediction(f"{name}: reversal helps", a, b, HEADLINE, "greater"))
        elif settings["attention"] is not None or settings["directions"] == 2:
            claim = f"{name}: order does not matter"
            found.append(Prediction(claim, a, b, HEADLINE, "equal", NEAR))
    return found


def left_table(results: Results) -> Table:
    """The gain from reversal in every cell, and how it differs from the first cell's."""
    gains = {
        name: np.subtract(values(results, a, HEADLINE), values(results, b, HEADLINE)).tolist()
        for name, (a, b) in zip(cells(results["preset"]), pairs(results["preset"]), strict=True)
    }
    first, rows = next(iter(gains)), []
    for name, gain in gains.items():
        alone = compare(name, "", HEADLINE, gain, [0.0] * len(gain))
        cells_of = [name, str(alone.n), difference(alone.mean_difference, alone.ci95, HEADLINE)]
        if name == first:
            rows.append((*cells_of, NONE, NONE))
            continue
        both = compare(name, first, HEADLINE, gain, gains[first])
        p = NONE if both.p_sign_flip is None else f"{both.p_sign_flip:.2g}"
        rows.append((*cells_of, difference(both.mean_difference, both.ci95, HEADLINE), p))
    note = (
        "Paired by seed, points of whole answers right [95 % bootstrap interval]; two-sided "
        "sign-flip p, not corrected. A cell whose orders both are at the floor or at the ceiling "
        "says nothing."
    )
    headers = ("cell", "n", "reversed − forward", f"against {first}", "p")
    return Table("What is left of the gain from reversal", headers, tuple(rows), note)


def headline(results: Results) -> str:
    """The answer in a sentence or two."""
    preset = results["preset"]
    n = len(values(results, ran(results)[0], HEADLINE))
    said = []
    for name in cells(preset):
        shares = [
            f"{order} {score(values(results, f'{name}, {order}', HEADLINE), HEADLINE)}"
            for order in GRIDS[preset].orders
        ]
        said.append(f"{name}: {', '.join(shares)}")
    return f"Whole answers right, mean of {n} seeds [95 % interval]. {'; '.join(said)}."


def tables(results: Results) -> dict[str, Table]:
    """The tables of the answer, by name."""
    preset = results["preset"]
    told = {"scores": replace(score_table(results, METRICS), title="Scores on the test set")}
    if len(GRIDS[preset].orders) > 1:
        title = "What reversing the source does"
        told["paired"] = replace(comparison_table(results), title=title)
        told["left"] = left_table(results)
        if smallest_p(len(values(results, ran(results)[0], HEADLINE))) <= LEVEL:
            told["folklore"] = prediction_table(results, predictions(preset), "The folklore")
    else:
        told["paired"] = replace(comparison_table(results), title="What attention does")
        told["lengths"] = length_table(results)
    return told | {"sizes": size_table(results), "seeds": per_seed_table(results, HEADLINE)}


def size_table(results: Results) -> Table:
    """Parameters of every cell."""
    runs = Ablation.from_config(results["config"]).arms
    first = GRIDS[results["preset"]].orders[0]
    rows = [
        (name, f"{parameter_count(runs[f'{name}, {first}']):,}")
        for name in cells(results["preset"])
    ]
    note = (
        "Cells are not of one size: a score and a readout come on top, and of two directions each "
        "has half of the units."
    )
    return Table("Parameters", ("arms", "parameters"), tuple(rows), note)


def by_length(results: Results, arm: str) -> dict[int, list[float]]:
    """Whole answers right by the length of the source: a share a seed."""
    stem = f"{HEADLINE}/length_"
    found = {r["metric"] for r in results["records"] if r["metric"].startswith(stem)}
    found = sorted(int(metric.removeprefix(stem)) for metric in found)
    return {length: values(results, arm, f"{stem}{length}") for length in found}


def length_table(results: Results) -> Table:
    """Mean over seeds of the whole answers right, by length: a row a length, a column an arm."""
    shares = {arm: by_length(results, arm) for arm in ran(results)}
    lengths = next(iter(shares.values()))
    rows = [(str(n), *(quantity(mean(of[n]), HEADLINE) for of in shares.values())) for n in lengths]
    longest = Ablation.from_config(results["config"]).run.task
    note = "Mean over seeds."
    if isinstance(longest, Toy) and longest.longer:
        note += (
            f" Trained on lengths up to {longest.max_length}; half of all test strings are longer."
        )
    return Table("Whole answers right by length", ("letters", *shares), tuple(rows), note)


def cover(results: Results, path: Path) -> None:
    """Every arm's score, or where one order was run, its score by length."""
    preset = results["preset"]
    if len(GRIDS[preset].orders) == 1:
        _draw_lengths(results, path)
        return
    groups = {
        name: [f"{name}, {order}" for order in GRIDS[preset].orders] for name in cells(preset)
    }
    scores_by_arm(results, HEADLINE, path, groups)


def _draw_lengths(results: Results, path: Path) -> None:
    """Scores by length, neighbouring lengths together where there are many."""
    asked = Counter(len(source) for source, _ in _test_pairs(results))
    together = -(-len(asked) // MOST_LENGTHS)
    bins: dict[Category, list[int]] = {}
    for lengths in zip_longest(*[iter(sorted(asked))] * together):
        kept = [n for n in lengths if n is not None]
        bins[f"{kept[0]}–{kept[-1]}" if len(kept) > 1 else kept[0]] = kept
    shares = {}
    for arm in ran(results):
        seeds = by_length(results, arm)
        shares[arm] = {
            label: np.average([seeds[n] for n in kept], 0, [asked[n] for n in kept]).tolist()
            for label, kept in bins.items()
        }
    counts = {label: sum(asked[n] for n in kept) for label, kept in bins.items()}
    share_by(shares, counts, path, "Whole answers right by length of the source", "characters")


def _test_pairs(results: Results) -> Pairs:
    """The test questions of the first arm and seed."""
    group = Ablation.from_config(results["config"]).groups[0]
    return group.pairs(next(iter(group.arms)))[0]["test"]


def draw(results: Results, folder: Path) -> list[Picture]:
    """Every picture; alignments where the trained models are at hand."""
    preset = results["preset"]
    cover(results, folder / "scores.png")
    told = [Picture(folder / "scores.png", "Whole answers right, test set")]
    if len(GRIDS[preset].orders) > 1:
        rows = [Contrast(f"{a} {MINUS} {b}", a, b) for a, b in pairs(preset)]
        forest(results, rows, HEADLINE, folder / "contrasts.png")
        told.append(Picture(folder / "contrasts.png", "What reversing the source does"))
        _draw_lengths(results, folder / "lengths.png")
        told.append(Picture(folder / "lengths.png", "Whole answers right by length"))
    return told + alignments(results, folder)


def alignments(results: Results, folder: Path) -> list[Picture]:
    """How the first seed looks at a few test questions: one arm of every score, then others."""
    runs = Ablation.from_config(results["config"]).arms
    scores = {arm: runs[arm].model.attention for arm in ran(results)}
    first = {attention: arm for arm, attention in reversed(scores.items())}
    looking = [arm for arm, attention in scores.items() if attention is not None]
    looking.sort(key=lambda arm: first[scores[arm]] != arm)
    try:
        models = load(folder, looking[:MOST_ARMS])
    except UserError:  # results without their checkpoints: the tables stand alone
        return []
    pairs = _shown(_test_pairs(results))
    asked = models.align(models.same(pairs))
    panels: dict[str, dict[str, Heat]] = {}
    for arm, seeds in asked.items():
        form = models.formatters[arm]
        for n, (question, answer) in enumerate(pairs):
            source = form.source(question) + "⏎" * form.text.source_eos
            target = form.target(answer) + "⏎" * form.text.target_eos
            matrix = seeds[0, n, : len(target), : len(source)]
            panels.setdefault(arm, {})[f"{question} → {answer}"] = Heat(matrix, target, source)
    path = folder / "alignments.png"
    note = f"seed {results['config']['first_seed']}, right answers given"
    heat_maps(panels, path, "Where each output looks", "share of the attention", note)
    return [Picture(path, "Alignments of a few test questions")]


def _shown(pairs: Pairs) -> Pairs:
    """Two questions of middling length, so that their alignments can be read."""
    fitting = [pair for pair in pairs if 4 <= len(pair[0]) <= LONGEST_SHOWN]
    return (fitting or pairs)[:2]


EXPERIMENT = Experiment(
    "attention", __doc__ or "", PRESETS, arms, pairs, ("loss", HEADLINE), headline, tables,
    cover, draw,
)  # fmt: skip

if __name__ == "__main__":
    main(EXPERIMENT.run)
