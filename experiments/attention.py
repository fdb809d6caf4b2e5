"""Attention, two directions, depth: how much of the gain from reversing the source do they leave?

The question: a decoder that looks back at the source, or an encoder that reads it both ways, has
every symbol near. Folklore says that the order of the source then no longer matters; Luong, Pham &
Manning (2015) gained 1.3 BLEU from reversal without attention and report no arm with it; Britz et
al. (2017) gained 0.6 and 0.8 BLEU with attention over one and two layers, and lost 0.15 over four.

The command: ``python experiments/attention.py addition`` (every score, one and two directions);
``depth`` (2 and 4 layers); ``copy`` and ``backwards`` (20 symbols); ``dates`` (written by
people, to ISO; needs the extra `text`); ``lengths`` (trained on short strings, tested on longer).

Time on two CPU cores: see README.md in this folder.

What to expect: without attention and in one direction reversal helps addition; with attention, or
with two directions, both orders are equal (within 5 points). ``addition`` and ``depth`` have the
seeds to mark each as held, failed or open; with three, all stay open. With attention, forward,
99.5 % of unseen dates should be right after 5 epochs, and 99.9 % of strings of up to 20 symbols.
"""

from terminal import main

from collections.abc import Mapping
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

from mechanisms import PRESETS as CONTROLS
from mechanisms import QUICK
from reverse_vs_forward import FORCED, both_orders

from s2sjax.config import Attention, Model, Optimiser, Training
from s2sjax.data.dates import Dates
from s2sjax.data.toys import Toy
from s2sjax.report.claims import Prediction
from s2sjax.report.results import Results
from s2sjax.report.tables import Picture, Table
from s2sjax.study.ablation import Ablation
from s2sjax.study.answer import draw_lengths, length_table, size_table
from s2sjax.study.experiment import Experiment, Study, refuse_changed
from s2sjax.train.metrics import EXACT_MATCH
from s2sjax.train.run import Run

NEAR = 0.05  # how close two orders are that count as equal, as a fraction
SCORES: tuple[Attention | None, ...] = (None, "dot", "general", "additive")
GRIDS = {  # scores, directions, layers: every combination, in both orders of the source
    "addition": (SCORES, (1, 2), (1,)),
    "depth": (SCORES, (1, 2), (2, 4)),
    "copy": (SCORES[:2], (1,), (1,)),
    "backwards": (SCORES[:2], (1,), (1,)),
    "dates": (SCORES[:2], (1,), (1,)),
    "lengths": ((None, "dot", "additive"), (1,), (1,)),
    "smoke": (SCORES[:2], (2,), (1,)),
}
ONE_ORDER = "lengths"  # the preset whose sources are only read forward

LETTERS = Toy("copy", symbols=26, min_length=3, max_length=20, train=10_000, dev=500, test=1_000)
STRINGS = Run(
    LETTERS,
    model=Model(hidden_size=128),
    optim=Optimiser(learning_rate=3e-3, clip=1.0, schedule="cosine"),
    train=Training(epochs=15, eval_every=1, checkpoint_every=3, show_every=15),
)
WRITTEN = replace(
    STRINGS,
    task=Dates(),
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


def model_of(attention: Attention | None, directions: int, layers: int) -> dict[str, Any]:
    """Settings of a model: Bahdanau's decoder with the additive score, Luong's with the others."""
    return {
        "attention": attention,
        "attend": "before" if attention == "additive" else "after",
        "directions": directions,
        "encoder_layers": layers,
        "decoder_layers": layers,
    }


def cells(preset: str) -> dict[str, dict[str, Any]]:
    """Every combination of a preset's grid, by name: settings of the model."""
    found: dict[str, dict[str, Any]] = {}
    scores, directions, layers = GRIDS[preset]
    for depth, ways, score in product(layers, directions, scores):
        parts = [score or "no attention"]
        parts += ["two directions"] if ways == 2 else []
        parts += [f"{depth} layers"] if depth > 1 else []
        found[", ".join(parts)] = model_of(score, ways, depth)  # pyrefly: ignore[bad-argument-type]
    return found


def grid(run: Run, own: Run, models: Mapping[str, Mapping[str, Any]]) -> dict[str, Run]:
    """Every model in both orders of the source; refuses what was changed of what they set."""
    refuse_changed(run, own, *(f"model.{name}" for name in next(iter(models.values()))))
    found = {}
    for name, settings in models.items():
        found |= both_orders(replace(run, model=replace(run.model, **settings)), f"{name},")
    return found


def arms(preset: str, study: Study) -> Mapping[str, Run]:
    """Every cell of the grid, its source in each order."""
    found = grid(study.run, PRESETS[preset][1].run, cells(preset))
    return {a: r for a, r in found.items() if preset != ONE_ORDER or a.endswith("forward")}


def gains(preset: str) -> dict[str, tuple[str, str]]:
    """Reversed against forward in every cell; nothing where there is one order."""
    names = () if preset == ONE_ORDER else cells(preset)
    return {name: (f"{name}, reversed", f"{name}, forward") for name in names}


def pairs(preset: str) -> list[tuple[str, str]]:
    """Reversed against forward; where there is one order, attention against none."""
    first, *others = (f"{name}, forward" for name in cells(preset))
    return [*gains(preset).values()] or [(arm, first) for arm in others]


def predictions(preset: str) -> dict[str, list[Prediction]]:
    """That there is a gap to leave, and the folklore, a line a cell that attends or reads twice."""
    found = []
    for name, (a, b) in gains(preset).items():
        settings = cells(preset)[name]
        if not found:
            found.append(Prediction(f"{name}: reversal helps", a, b, EXACT_MATCH, "greater"))
        elif settings["attention"] is not None or settings["directions"] == 2:
            claim = f"{name}: order does not matter"
            found.append(Prediction(claim, a, b, EXACT_MATCH, "equal", NEAR))
    return {"": found} if found else {}


class Attending(Experiment):
    """Scores by length, which is what the preset `lengths` is about."""

    def tables(self, results: Results) -> dict[str, Table]:
        """The tables of the answer, by name."""
        made = super().tables(results)
        made["sizes"] = size_table(results, [b for _, b in self.pairs(results["preset"])])
        if results["preset"] == ONE_ORDER:
            task, note = Ablation.from_config(results["config"]).run.task, "Mean over seeds."
            if isinstance(task, Toy) and task.longer:
                note += f" Trained on lengths up to {task.max_length}"
                note += "; half of all test strings are longer."
            made["lengths"] = length_table(results, note)
        return made

    def draw_main_figure(self, results: Results, path: Path) -> None:
        """Every arm's score, or where one order was run, its score by length."""
        if results["preset"] == ONE_ORDER:
            draw_lengths(results, path)
        else:
            super().draw_main_figure(results, path)

    def draw(self, results: Results, folder: Path) -> list[Picture]:
        """Every picture, and scores by length."""
        draw_lengths(results, folder / "lengths.png")
        lengths = Picture(folder / "lengths.png", "Whole answers right by length")
        return [*super().draw(results, folder), lengths]


EXPERIMENT = Attending(
    "attention", __doc__ or "", PRESETS, arms, pairs,
    scores={"whole answers": EXACT_MATCH, "characters, forced": FORCED, "loss": "loss"},
    meaning="Whole answers right", predictions=predictions, gains=gains, picture="scores",
)  # fmt: skip

if __name__ == "__main__":
    main(EXPERIMENT.run)
