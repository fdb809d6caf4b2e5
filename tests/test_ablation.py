"""Arms x seeds: programs one after another, the same results however often the run is broken."""

import io
import json
import os
import shutil
import signal
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from s2sjax import ablation as ablation_module
from s2sjax import checkpoint, replicas
from s2sjax.ablation import Ablation, in_order, run
from s2sjax.config import Model, Optimiser, Run, Text, Training
from s2sjax.errors import Interrupted, UserError
from s2sjax.fit import Programs, evaluate
from s2sjax.metrics import HEADLINE
from s2sjax.report import score
from s2sjax.results import by_seed, load_results, values
from s2sjax.runlog import Workdir
from s2sjax.taskconfig import Toy

RUN = Run(
    Toy(symbols=4, max_length=4, train=50, dev=20, test=20),
    model=Model(hidden_size=8),
    train=Training(epochs=4, batch_size=16, eval_every=2, checkpoint_every=2, show_every=2),
)
BACKWARD = replace(RUN, text=Text(source_order="reversed"), optim=Optimiser(3e-3))
PATIENT = replace(RUN.train, epochs=9, eval_every=1, patience=1)
THREE = {
    "forward": RUN,
    "small": replace(RUN, model=Model(hidden_size=4, cell="rnn")),
    "reversed": BACKWARD,
    "stops": replace(RUN, optim=Optimiser(0.3), train=PATIENT),
    "sorted": replace(RUN, task=replace(RUN.task, kind="sort")),
}
PAIRS = [("reversed", "forward"), ("small", "forward"), ("stops", "small")]

TRACED: Counter = Counter()


@cache
def programs_of(trainer, mesh) -> Programs:
    """What `make_programs` makes, compiled once for all tests; counts what is traced."""

    def counted(name, **donate):
        def traced(*arguments):
            TRACED[trainer.model.config.hidden_size, trainer.training.patience, name] += 1
            return getattr(trainer, name)(*arguments)

        return replicas.lift(traced, mesh, **donate)

    state = {"donate": (0,)}
    return Programs(
        counted("init"),
        counted("train_epoch", **state),
        counted("evaluate"),
        counted("watch", **state),
    )


@pytest.fixture(autouse=True, scope="module")
def compiled_once():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ablation_module, "make_programs", programs_of)
        yield


def complete(folder, arms=THREE, seeds=2, first_seed=5, pairs=PAIRS, console=None):
    ablation = Ablation(arms, seeds, first_seed)
    config = {"experiment": "test", "preset": "tiny", **ablation.config}
    console = console or Console(quiet=True)
    with Workdir(folder, config) as workdir:
        return run("test", "tiny", ablation, workdir, console, ["loss", HEADLINE], pairs)


def shown() -> tuple[Console, io.StringIO]:
    stream = io.StringIO()
    return Console(file=stream, width=200), stream


def kill():
    raise KeyboardInterrupt


def terminate():
    os.kill(os.getpid(), signal.SIGTERM)


def breaking(program: int, epoch: int, how: Callable[[], None]):
    """`fit`, broken off in an epoch of a program, after its records and before its checkpoint."""
    real, begun = ablation_module.fit, []

    def fit(*arguments, on_epoch, **settings):
        begun.append(1)

        def told(this):
            on_epoch(this)
            if (len(begun), this.epoch) == (program, epoch):
                how()

        return real(*arguments, on_epoch=told, **settings)

    return fit


def failing(function, at: int, *, done: bool):
    """A function whose call number `at` is broken off, before it does anything or after."""
    calls = []

    def called(*arguments):
        calls.append(1)
        if len(calls) == at and not done:
            kill()
        value = function(*arguments)
        if len(calls) == at:
            kill()
        return value

    return called


def in_fit(program, epoch, how):
    return ablation_module, "fit", breaking(program, epoch, how)


def at_call(where, name, at, done):
    return where, name, failing(getattr(where, name), at, done=done)


def break_off(folder, broken) -> None:
    """Begin the run, and stop it or kill it where it is broken: (where, name, what is there)."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(*broken)
        with pytest.raises((Interrupted, KeyboardInterrupt)):
            complete(folder)
    assert not (folder / "results.json").exists()


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished") / "run"
    console, stream = shown()
    return folder, complete(folder, console=console), stream.getvalue()


def but_seconds(folder) -> dict[str, Any]:
    results = dict(load_results(folder / "results.json"))
    assert results.pop("seconds") >= 0
    return results


def assert_ends_alike(folder, finished):
    assert but_seconds(folder) == but_seconds(finished[0])
    measured = (folder / "metrics.jsonl").read_bytes()
    assert measured == (finished[0] / "metrics.jsonl").read_bytes()


def test_results_say_what_was_measured(finished):
    folder, results, _ = finished
    assert load_results(folder / "results.json") == json.loads(json.dumps(results))
    records = results["records"]
    assert {r["arm"] for r in records} == set(THREE)
    assert {r["seed"] for r in records} == {5, 6}
    of_equal_budget = [r for r in records if r["arm"] != "stops"]
    assert {r["epoch"] for r in of_equal_budget if r["split"] == "dev"} == {2, 4}
    assert {r["epoch"] for r in of_equal_budget if r["split"] == "test"} == {4}
    metrics = {r["metric"] for r in records if r["split"] == "test"}
    assert {"loss", "teacher_forced/all", HEADLINE, "free_running/position_4"} <= metrics
    assert all(0 <= r["value"] <= 1 for r in records if "loss" not in r["metric"])
    assert [(c["a"], c["b"], c["metric"], c["n"]) for c in results["comparisons"]] == [
        (a, b, metric, 2) for a, b in PAIRS for metric in ("loss", HEADLINE)
    ]
    assert Ablation.from_config(results["config"]) == Ablation(THREE, 2, 5)
    assert results["seconds"] > 0


def test_scores_by_length_add_up_to_the_score_of_all(finished):
    results = finished[1]
    group = Ablation(THREE, 2, 5).groups[0]
    for arm in group.arms:
        for seed, pairs in enumerate(group.pairs(arm), start=group.first_seed):
            lengths = Counter(len(question) for question, _ in pairs["test"])
            by_length = {n: by_seed(results, arm, f"{HEADLINE}/length_{n}")[seed] for n in lengths}
            mean = sum(n * by_length[length] for length, n in lengths.items()) / lengths.total()
            assert mean == pytest.approx(by_seed(results, arm, HEADLINE)[seed])


def test_every_arm_has_every_score_in_the_order_of_splits(finished):
    records = finished[1]["records"]
    splits = ["dev" if r["metric"] == "epoch_loss" else r["split"] for r in records]
    assert splits == sorted(splits, key=["dev", "train", "test"].index)
    assert in_order(records) == records
    counts = Counter((r["arm"], r["seed"], r["metric"]) for r in records if r["split"] == "test")
    assert set(counts.values()) == {1}
    assert len({metric for _, _, metric in counts}) * len(THREE) * 2 == len(counts)


def test_programs_run_one_after_another_with_their_own_checkpoints(finished):
    folder, results, said = finished
    lines = [line.split(":")[0] for line in said.splitlines() if "compiling" in line]
    assert lines == ["program 1 of 3", "program 2 of 3", "program 3 of 3"]
    assert "program 1 of 3: forward, reversed, sorted" in said
    last = max(r["epoch"] for r in results["records"] if r["arm"] == "stops")
    found = {
        p.name: sorted(c.name for c in p.iterdir()) for p in (folder / "checkpoints").iterdir()
    }
    assert set(found) == {"1", "2", "3"}
    assert found["1"] == found["2"] == ["2", "4"]
    assert str(last) in found["3"]


def test_each_program_stops_by_itself(finished):
    losses: dict[int, list[float]] = {}
    ended = set()
    for r in finished[1]["records"]:
        if r["arm"] == "stops" and (r["split"], r["metric"]) == ("dev", "loss"):
            losses.setdefault(r["seed"], []).append(r["value"])
        if r["arm"] == "stops" and r["split"] == "test":
            ended.add(r["epoch"])
    assert {len(curve) for curve in losses.values()} == ended
    assert max(ended) < PATIENT.epochs
    rose = [next(i for i in range(1, 9) if c[i] >= min(c[:i])) + 1 for c in losses.values()]
    assert ended == {max(rose)}


def test_what_is_scored_in_the_end_are_the_best_parameters_not_the_last(finished):
    folder, results, _ = finished
    group, checkpoints = Ablation(THREE, 2, 5).groups[2], folder / "checkpoints" / "3"
    programs = programs_of(group.trainer, group.mesh)
    last = checkpoint.latest(checkpoints)
    state = checkpoint.restore(checkpoints, last, group.init(programs))
    test = group.examples("test")
    best, ended = (evaluate(programs, p, test).counts for p in (state.best.params, state.params))
    for metric in ("loss", HEADLINE):
        right, of = map(np.float64, best[metric])
        assert values(results, "stops", metric) == (right / of).tolist()
    assert (best["loss"].right != ended["loss"].right).all()


def test_arms_are_shown_with_their_own_questions(finished):
    told = [line.split(" = ") for line in finished[2].splitlines() if " = " in line]
    seen = set()
    for question, rest in told:
        gold, *written = rest.split()
        arms = frozenset(THREE) & set(written)
        seen.add(arms)
        if "sorted" in arms:
            assert gold == "".join(sorted(question.strip()))
        if arms != {"sorted"}:
            assert gold == question.strip()
    # Of one question all arms are told in a line; two tasks have different questions.
    assert {frozenset({"forward", "reversed"}), frozenset({"sorted"})} < seen
    assert len(told) > 2 * RUN.train.shown


def test_every_function_is_traced_once_a_program_however_often_a_run_is_taken_up(
    finished, tmp_path
):
    break_off(tmp_path, in_fit(1, 3, kill))
    complete(tmp_path)
    once = {"init": 1, "train_epoch": 1, "evaluate": 2}  # two sizes: of train, of dev and test
    counts = {(size, None, name): n for size in (8, 4) for name, n in once.items()}
    counts |= {(8, 1, name): n for name, n in (once | {"watch": 1}).items()}
    assert counts == {key: n for key, n in TRACED.items() if key in counts}
    assert {name for *_, name in TRACED} == {"init", "train_epoch", "evaluate", "watch"}


# --- broken off and taken up again ---------------------------------------------------------


BREAKS = {  # and how many programs are then left to train
    "asked to in program 1": (3, in_fit, 1, 1, terminate),
    "killed before any checkpoint": (3, in_fit, 1, 1, kill),
    "asked to in program 2": (2, in_fit, 2, 3, terminate),
    "killed in program 2": (2, in_fit, 2, 3, kill),
    "killed in program 3": (1, in_fit, 3, 2, kill),
    "killed before program 2 is scored": (2, at_call, ablation_module, "evaluate", 3, False),
    "killed after program 2 is scored": (2, at_call, ablation_module, "evaluate", 4, True),
    "killed before the scores of 3 are written": (1, at_call, Workdir, "append_at_once", 3, False),
    "killed after the scores of 2 are written": (1, at_call, Workdir, "append_at_once", 2, True),
    "killed before the results are": (0, at_call, ablation_module, "write_atomically", 1, False),
}


@pytest.mark.parametrize("broken", BREAKS.values(), ids=BREAKS.keys())
def test_a_run_broken_off_anywhere_ends_bit_for_bit_like_one_that_was_not(
    finished, tmp_path, broken
):
    left, where, *place = broken
    break_off(tmp_path, where(*place))
    console, stream = shown()
    complete(tmp_path, console=console)
    assert_ends_alike(tmp_path, finished)
    said = stream.getvalue()
    assert (said.count("compiling"), said.count("finished before")) == (left, 3 - left)


@pytest.mark.parametrize("cut", [1, 40, 400])
def test_records_that_a_kill_cut_short_are_measured_again(finished, tmp_path, cut):
    break_off(tmp_path, in_fit(2, 4, kill))
    written = (tmp_path / "metrics.jsonl").read_bytes()
    (tmp_path / "metrics.jsonl").write_bytes(written[:-cut])
    complete(tmp_path)
    assert_ends_alike(tmp_path, finished)


def test_records_lost_from_before_the_checkpoint_are_named(tmp_path):
    break_off(tmp_path, in_fit(2, 3, terminate))
    held = (tmp_path / "metrics.jsonl").read_text().splitlines(keepends=True)
    lost = [line for line in held if not ('"small"' in line and HEADLINE in line)]
    (tmp_path / "metrics.jsonl").write_text("".join(lost))
    with pytest.raises(UserError, match="does not hold the records of the 3 epochs"):
        complete(tmp_path)


def test_the_scores_of_every_program_but_the_last_are_shown_when_it_is_through(finished):
    _, results, said = finished
    first, *others = said.split("compiling")[1:]
    assert "Program 1, test set" in first
    assert "Program 2, test set" in others[0]
    assert "Program 3" not in said  # the report is next
    exact = values(results, "sorted", HEADLINE)
    (row,) = [line for line in first.splitlines() if "sorted, 2 seeds" in line]
    assert score(exact, HEADLINE) in row
    assert "small" not in first.partition("Program 1")[2].partition("program 2")[0]


def test_time_adds_up_over_sittings(finished, tmp_path):
    break_off(tmp_path, in_fit(2, 3, kill))
    clock = tmp_path / "seconds.txt"
    clock.write_text(clock.read_text() + "\n1000.000\nhalf a l")
    assert complete(tmp_path)["seconds"] > 1000
    assert_ends_alike(tmp_path, finished)


def test_a_finished_run_is_not_run_again_and_a_damaged_result_not_overwritten(
    finished, tmp_path, monkeypatch
):
    folder = shutil.copytree(finished[0], tmp_path / "copy")
    monkeypatch.setattr(ablation_module, "fit", None)  # calling it would fail
    assert json.loads(json.dumps(complete(folder))) == json.loads(json.dumps(finished[1]))
    held = (folder / "results.json").read_text()
    (folder / "results.json").write_text(held[:1000])
    with pytest.raises(UserError, match=r"results\.json"):
        complete(folder)
    assert (folder / "results.json").read_text() == held[:1000]
    (folder / "results.json").unlink()  # the scores are still there
    complete(folder)
    assert_ends_alike(folder, finished)


# --- what an arm and a seed mean -----------------------------------------------------------


def test_a_seed_and_an_arm_are_the_same_run_whatever_runs_with_them(finished, tmp_path):
    arms = {arm: THREE[arm] for arm in ("sorted", "reversed")}
    pairs = [("reversed", "sorted")]
    other = complete(tmp_path, arms, seeds=1, first_seed=6, pairs=pairs)

    def of(results):
        return [r for arm in arms for r in results["records"] if (r["arm"], r["seed"]) == (arm, 6)]

    assert of(other) == of(finished[1])
    assert len(of(other)) > 50


def test_arms_that_are_one_run_twice_are_refused():
    with pytest.raises(UserError, match="arms 'forward' and 'again' have the same settings"):
        Ablation({**THREE, "again": replace(RUN)}, 2, 5)


def test_a_config_that_is_no_ablations_is_refused():
    whole = Ablation(THREE, 2, 5).config
    for wrong in ({}, {**whole, "arms": []}, {**whole, "arms": {}}):
        with pytest.raises(UserError, match="not that of an ablation"):
            Ablation.from_config(wrong)
    assert Ablation.from_config(json.loads(json.dumps(whole))).groups[0].arms["forward"] == RUN
