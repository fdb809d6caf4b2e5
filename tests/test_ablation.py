"""Arms x seeds: paired, one program, the same results however often the run is broken off."""

import json
import os
import signal
from dataclasses import replace

import pytest
from rich.console import Console

from s2sjax import ablation as ablation_module
from s2sjax.ablation import Ablation, run
from s2sjax.config import Addition, Model, Run, Text, Toy, Training
from s2sjax.errors import Interrupted, UserError
from s2sjax.metrics import HEADLINE
from s2sjax.plan import parameter_table, plan_table
from s2sjax.results import load_results
from s2sjax.runlog import Workdir

RUN = Run(
    Toy(symbols=4, max_length=4, train=50, dev=20, test=20),
    model=Model(hidden_size=8),
    train=Training(epochs=4, batch_size=16, eval_every=2, checkpoint_every=2, show_every=2),
)


def two_arms(run: Run = RUN, seeds: int = 2, first_seed: int = 5) -> Ablation:
    arms = {
        order: replace(run, text=replace(run.text, source_order=order))
        for order in ("forward", "reversed")
    }
    return Ablation(arms, seeds, first_seed)


def complete(folder, ablation=None):
    ablation = ablation or two_arms()
    config = {"experiment": "test", "preset": "tiny", **ablation.config}
    console = Console(quiet=True)
    with Workdir(folder, config) as workdir:
        return run("test", "tiny", ablation, workdir, console, ["loss", HEADLINE])


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished") / "run"
    return folder, complete(folder)


def test_results_say_what_was_measured(finished):
    folder, results = finished
    assert load_results(folder / "results.json") == json.loads(json.dumps(results))
    records = results["records"]
    assert {r["arm"] for r in records} == {"forward", "reversed"}
    assert {r["seed"] for r in records} == {5, 6}
    assert {r["epoch"] for r in records if r["split"] == "dev"} == {2, 4}
    assert {r["epoch"] for r in records if r["split"] == "test"} == {4}
    metrics = {r["metric"] for r in records if r["split"] == "test"}
    assert {"loss", "teacher_forced/all", HEADLINE, "free_running/position_4"} <= metrics
    assert all(0 <= r["value"] <= 1 for r in records if "loss" not in r["metric"])
    assert [(c["a"], c["b"], c["metric"], c["n"]) for c in results["comparisons"]] == [
        ("reversed", "forward", "loss", 2),
        ("reversed", "forward", HEADLINE, 2),
    ]
    assert Ablation.from_config(results["config"]) == two_arms()


@pytest.mark.parametrize("stopped_in", [1, 3])
def test_a_stopped_run_writes_the_same_results_bit_for_bit(
    finished, tmp_path, monkeypatch, stopped_in
):
    advance = ablation_module.EpochProgress.advance

    def advance_then_stop(self, epoch, scores):
        advance(self, epoch, scores)
        if epoch == stopped_in:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(ablation_module.EpochProgress, "advance", advance_then_stop)
    with pytest.raises(Interrupted):
        complete(tmp_path)
    assert not (tmp_path / "results.json").exists()
    monkeypatch.undo()
    complete(tmp_path)
    assert (tmp_path / "results.json").read_bytes() == (finished[0] / "results.json").read_bytes()


def test_a_finished_run_is_not_run_again_and_a_damaged_result_not_overwritten(
    finished, tmp_path, monkeypatch
):
    folder, results = finished
    monkeypatch.setattr(ablation_module, "fit", None)  # calling it would fail
    assert json.loads(json.dumps(complete(folder))) == json.loads(json.dumps(results))
    held = (folder / "results.json").read_text()
    (folder / "results.json").write_text(held[:1000])
    with pytest.raises(UserError, match=r"results\.json"):
        complete(folder)
    assert (folder / "results.json").read_text() == held[:1000]
    (folder / "results.json").write_text(held)


def test_seeds_are_the_users_to_choose_and_each_means_the_same_run(finished, tmp_path):
    other = complete(tmp_path, two_arms(seeds=1, first_seed=6))
    of_seed_six = [r for r in finished[1]["records"] if r["seed"] == 6]
    assert other["records"] == of_seed_six


def test_arms_must_share_their_program_and_their_data():
    arms = {"a": RUN, "b": replace(RUN, model=Model(hidden_size=9))}
    with pytest.raises(UserError, match=r"may differ in text\.source_order only"):
        Ablation(arms, 2, 0)
    with pytest.raises(UserError, match="seeds must be at least 1 and at most 10,000, not 0"):
        two_arms(seeds=0)
    with pytest.raises(UserError, match="first_seed must be from 0"):
        two_arms(first_seed=-1)


def test_the_plan_and_the_notebooks_parameters():
    notebook = Run(Addition(splits="independent"), Text(justify="right", start="first_target"))
    table = parameter_table(two_arms(notebook, seeds=10))
    assert table.rows[-1] == ("all", "", "147,085")
    assert ("encoder/cell/wx", "13 x 512", "6,656") in table.rows
    plan = dict(plan_table(two_arms(notebook, seeds=10, first_seed=0)).rows)
    assert plan["updates"] == "200 epochs x 40 = 8,000 each"
    assert plan["replicas"] == "20 = arms x seeds"
    assert plan["programs"] == "1 to train, 2 to evaluate, for all arms and seeds"
    assert plan["devices"] == "2 x cpu, of 2"
    assert plan["seeds"].startswith("10 (0 to 9)")
