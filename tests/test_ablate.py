"""One's own ablation: the README's ten lines and its patch, the notebook, a task and a cell."""

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, replace
from operator import attrgetter
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from conftest import UNOPTIMISED

import s2sjax
from s2sjax import Addition, Model, Outcome, Run, Task, Training, UserError, ablate
from s2sjax.model.cells import CELLS, Cell
from s2sjax.serial import to_json
from s2sjax.train.metrics import EXACT_MATCH
from s2sjax.train.run import make_trainer

pytestmark = pytest.mark.usefixtures("compiled_quickly")

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
NOTEBOOK = json.loads((ROOT / "experiments/first_ablation.ipynb").read_text(encoding="utf-8"))

DERIVED = Cell(4, CELLS["lstm"].step, has_c=True, forget_gate=1)
"""An LSTM whose gradient JAX derives."""


@dataclass(frozen=True)
class Doubled(Task):
    """Strings of two letters, each written twice: ab becomes aabb."""

    letters: str = "abcdefgh"

    def pairs(self, key):
        strings = [a + b for a in self.letters for b in self.letters]
        rows = [(s, self.answers(s)[0]) for s in np.random.default_rng(0).permutation(strings)]
        return {"train": rows[:40], "dev": rows[40:50], "test": rows[50:]}

    def answers(self, source):
        return ("".join(2 * letter for letter in source),)


def quick(code: str) -> str:
    """The same code with few questions, epochs and seeds."""
    code = re.sub(r"train=\d_000", "train=200", code)
    return re.sub(r"seeds=\d+", "seeds=2", re.sub(r"epochs=\d+", "epochs=1", code))


@pytest.mark.parametrize("cut", [quick, pytest.param(str, marks=pytest.mark.slow)])
def test_the_ten_lines_of_the_readme_run_as_printed(cut, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(code.splitlines()) <= 10
    names = {}
    exec(cut(code), names)
    seeds = names["study"].comparison("large", "small").comparison.n
    shown = capsys.readouterr().out
    assert re.search(rf"large − small: \S+( \[.*\])?, p = [\d.e-]+, {seeds} paired seeds", shown)
    assert len(re.findall(r"  seed \d+: ", shown)) == seeds
    assert (tmp_path / "runs/batch/comparison.png").stat().st_size > 5_000


def test_the_notebook_runs_and_its_outputs_are_small(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    names = {}
    for cell in NOTEBOOK["cells"]:
        if cell["cell_type"] == "code":
            exec(quick("".join(cell["source"])), names)
            assert not any(output["output_type"] == "error" for output in cell["outputs"])
    assert len(names["study"].results["comparisons"]) == 2  # loss, exact match
    assert len(json.dumps(NOTEBOOK)) < 100_000


def test_the_patch_of_the_readme_adds_a_task_and_a_cell(tmp_path):
    shutil.copytree(ROOT / "s2sjax", tmp_path / "s2sjax", ignore=shutil.ignore_patterns("*.pyc"))
    (patch,) = re.findall(r"```diff\n(.*?)```", README, re.DOTALL)
    subprocess.run(["git", "apply", "-"], input=patch, text=True, cwd=tmp_path, check=True)
    code = """
from s2sjax import Model, Run, Training, ablate
from s2sjax.data.repeat import Repeat
model = Model(cell="peephole", hidden_size=8)
run = Run(Repeat(), model=model, train=Training(epochs=2, batch_size=100))
study = ablate("?", {"one": run}, seeds=1, workdir="run", progress=False)
print(study.trained.answer(["abcda"])["one"][0][0][0].score <= 0)
print([*study.trained.stacks[0].params["encoder"]["cell"]])
"""
    own = os.environ | {"PYTHONPATH": str(tmp_path), "XLA_FLAGS": UNOPTIMISED}
    command = [sys.executable, "-c", code]
    ran = subprocess.run(command, cwd=tmp_path, env=own, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    right, names = ran.stdout.splitlines()
    assert right == "True"
    assert "peephole" in names


def test_a_cell_without_a_gradient_learns_as_the_same_one_with_it(tmp_path, capsys):
    model = Model(hidden_size=8)
    own = Run(Doubled(), model=model, train=Training(epochs=3, batch_size=10))
    derived = replace(own, model=replace(model, cell=f"{__name__}.DERIVED"))
    arms = {"by hand": own, "derived": derived}
    study = ablate("derived?", arms, seeds=2, workdir=tmp_path / "run", progress=False)
    assert not any(capsys.readouterr())
    loss = study.comparison("derived", "by hand", "loss")
    assert abs(loss.comparison.mean_difference) < 1e-5
    assert "derived − by hand: " in str(loss)
    again = ablate("derived?", arms, seeds=2, workdir=tmp_path / "run", progress=False)
    assert again.results == study.results
    assert study.plot()._repr_png_()[:4] == b"\x89PNG"
    assert "| derived, 2 seeds" in study.scores()._repr_markdown_()
    assert len(study.comparisons().rows) == 2
    with pytest.raises(UserError, match=r"^there is no arm 'lstm'; there are by hand, derived$"):
        study.comparison("lstm", "derived")
    with pytest.raises(UserError, match="holds another run"):
        ablate("something else?", arms, seeds=2, workdir=tmp_path / "run", progress=False)


@dataclass(frozen=True)
class Sized(Doubled):
    """Its seeds draw their own pairs, and it does not say how long they are."""

    sizes: ClassVar = {"train": 40, "dev": 10, "test": 14}


@dataclass(frozen=True)
class Listed(Doubled):
    """JSON has no tuples: it would give back a list."""

    letters: tuple[str, ...] = ("a", "b", "c", "d", "e", "f", "g", "h")


@pytest.mark.parametrize(
    ("arms", "message"),
    [
        ({}, r"^arms must be runs by name, not \[\]$"),
        ({"a": Run(), "b": Run()}, "^arms 'a' and 'b' have the same settings: change one"),
        ({"a": Run(Sized())}, "^Sized.sizes needs Sized.source_width and Sized.target_width$"),
        ({"a": Run(Listed())}, "^a: JSON cannot hold its settings; a task of your own is a froz"),
    ],
)
def test_arms_that_cannot_be_are_refused_before_anything_is_made(arms, message, tmp_path):
    with pytest.raises(UserError, match=message):
        ablate("?", arms, workdir=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_an_arm_that_diverged_is_named_and_the_others_are_compared(tmp_path):
    arms = {name: to_json(Run(train=Training(epochs=n))) for n, name in enumerate("abc", start=1)}
    records = [
        {"arm": arm, "seed": seed, "split": "test", "epoch": 1, "metric": EXACT_MATCH, "value": 0.5}
        for arm in "ab"
        for seed in range(2)
    ]
    results = {"config": {"arms": arms}, "records": records, "left_out": {"c": "loss is NaN"}}
    study = Outcome(results | {"experiment": "?"}, tmp_path)
    assert study.arms == ["a", "b", "c"]
    assert study.comparison("b", "a").comparison.mean_difference == 0
    assert study.plot().path.exists()
    with pytest.raises(UserError, match=r"^arm 'c' was left out: loss is NaN$"):
        study.comparison("c", "a")
    study.results["left_out"] = {"a": "loss is NaN"}
    with pytest.raises(UserError, match=r"^arm 'a' was left out"):
        study.plot()


def test_a_cell_that_is_defined_anew_is_another_program():
    run = Run(Doubled(), model=Model(cell=f"{__name__}.DERIVED"))
    before = make_trainer(run)
    assert before == make_trainer(run)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(globals(), "DERIVED", replace(DERIVED))
        assert make_trainer(run) != before


@pytest.mark.parametrize("cell", ["lstmm", f"{__name__}.README", "", ".x.y"])
def test_what_is_no_cell_is_refused_in_a_line(cell):
    with pytest.raises(UserError, match=r"^Model.cell must be lstm, gru, rnn, or such as my_modu"):
        Run(model=Model(cell=cell))
    with pytest.raises(UserError, match=r"^no_such.CELL cannot be imported \(No module named 'no_"):
        Run(model=Model(cell="no_such.CELL"))
    with pytest.raises(UserError, match="leave it out with weights"):
        replace(CELLS["lstm"], weights={"peephole": 3})


def test_what_a_notebook_needs_is_imported_from_the_package():
    assert {name for name in s2sjax.__all__ if getattr(s2sjax, name).__name__ != name} == set()
    assert s2sjax.Addition is Addition
    with pytest.raises(AttributeError, match="no attribute 'adition'"):
        attrgetter("adition")(s2sjax)
    with pytest.raises(TypeError, match="abstract"):  # at once, not when it is trained
        type("Unfinished", (Task,), {})()
