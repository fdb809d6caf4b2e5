"""Arms x seeds: programs one after another, the same results however often the run is broken."""

import io
import json
import os
import shutil
import signal
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from s2sjax.config import Model, Optimiser, Text, Training
from s2sjax.data.tasks import Toy
from s2sjax.errors import Interrupted, UserError
from s2sjax.report.results import by_seed, load_results, values
from s2sjax.report.tables import score
from s2sjax.study import ablation as ablation_module
from s2sjax.study.ablation import Ablation, comparisons, in_order, is_extension, run
from s2sjax.study.group import Group
from s2sjax.study.records import evaluate_split, record
from s2sjax.train import replicas
from s2sjax.train.loop import DivergedError, resume
from s2sjax.train.metrics import EXACT_MATCH
from s2sjax.train.replicas import spread
from s2sjax.train.run import Run
from s2sjax.train.stopping import stop_requests
from s2sjax.train.workdir import Workdir

RUN = Run(
    Toy(symbols=4, max_length=4, train=50, dev=20, test=20),
    model=Model(hidden_size=8),
    train=Training(epochs=4, batch_size=16, eval_every=2, checkpoint_every=2, show_every=2),
)
BACKWARD = replace(RUN, text=Text(source_order="reversed"), optim=Optimiser(3e-3))
PATIENT = replace(RUN.train, epochs=9, eval_every=1, patience=1)
ARMS = {
    "forward": RUN,
    "stops": replace(RUN, optim=Optimiser(0.3), train=PATIENT),
    "reversed": BACKWARD,
    "sorted": replace(RUN, task=replace(RUN.task, kind="sort")),
}
PAIRS = [("reversed", "forward"), ("stops", "sorted")]

TRACED: Counter = Counter()


@pytest.fixture(autouse=True, scope="module")
def count_traces():
    """Count how often each function of each program is traced."""
    real = replicas.lift

    def lift(function, *settings):
        def traced(*arguments):
            trainer = function.func.__self__
            name = (function.func.__name__, *function.keywords.values())
            TRACED[trainer, name] += 1
            return function(*arguments)

        return real(traced, *settings)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(replicas, "lift", lift)
        yield


def complete(folder, arms=ARMS, seeds=2, first_seed=5, pairs=PAIRS, console=None):
    ablation = Ablation(arms, seeds, first_seed)
    config = {"experiment": "test", "preset": "tiny", **ablation.config}
    console = console or Console(quiet=True)
    metrics = ["loss", EXACT_MATCH]
    with stop_requests() as stop, Workdir(folder, config, is_extension) as workdir:
        return run("test", "tiny", ablation, workdir, console, metrics, pairs, stop)


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

        def on_epoch_and_break(this):
            on_epoch(this)
            if (len(begun), this.epoch) == (program, epoch):
                how()

        return real(*arguments, on_epoch=on_epoch_and_break, **settings)

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
    assert {r["arm"] for r in records} == set(ARMS)
    assert {r["seed"] for r in records} == {5, 6}
    of_equal_budget = [r for r in records if r["arm"] != "stops"]
    assert {r["epoch"] for r in of_equal_budget if r["split"] == "dev"} == {2, 4}
    assert {r["epoch"] for r in of_equal_budget if r["split"] == "test"} == {4}
    metrics = {r["metric"] for r in records if r["split"] == "test"}
    assert {"loss", "teacher_forced/all", EXACT_MATCH, "free_running/position_4"} <= metrics
    assert all(0 <= r["value"] <= 1 for r in records if "loss" not in r["metric"])
    assert [(c["a"], c["b"], c["metric"], c["n"]) for c in results["comparisons"]] == [
        (a, b, metric, 2) for a, b in PAIRS for metric in ("loss", EXACT_MATCH)
    ]
    assert Ablation.from_config(results["config"]) == Ablation(ARMS, 2, 5)
    assert results["seconds"] > 0


def test_scores_by_length_add_up_to_the_score_of_all(finished):
    results = finished[1]
    group = Ablation(ARMS, 2, 5).groups["1"]
    for arm in group.arms:
        for seed, pairs in enumerate(group.pairs(arm), start=group.first_seed):
            lengths = Counter(len(question) for question, _ in pairs["test"])
            by_length = {
                n: by_seed(results, arm, f"{EXACT_MATCH}/length_{n}")[seed] for n in lengths
            }
            mean = sum(n * by_length[length] for length, n in lengths.items()) / lengths.total()
            assert mean == pytest.approx(by_seed(results, arm, EXACT_MATCH)[seed])


def test_every_arm_has_every_score_in_the_order_of_splits(finished):
    records = finished[1]["records"]
    splits = ["dev" if r["metric"] == "epoch_loss" else r["split"] for r in records]
    assert splits == sorted(splits, key=["dev", "train", "test"].index)
    assert in_order(records) == records
    counts = Counter((r["arm"], r["seed"], r["metric"]) for r in records if r["split"] == "test")
    assert set(counts.values()) == {1}
    assert len({metric for _, _, metric in counts}) * len(ARMS) * 2 == len(counts)


def test_programs_run_one_after_another_with_their_own_checkpoints(finished):
    folder, _, said = finished
    lines = [line.split(":")[0] for line in said.splitlines() if "compiling" in line]
    assert lines == ["program 1 of 2", "program 2 of 2"]
    assert "program 1 of 2: forward, reversed, sorted" in said
    assert {path.name for path in (folder / "checkpoints").iterdir()} == {"1", "2"}
    assert all(any(path.iterdir()) for path in (folder / "checkpoints").iterdir())


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
    group = Ablation(ARMS, 2, 5).groups["2"]
    runs = group.stack()
    loop_state, found = resume(runs, group.begin(runs), folder / "checkpoints" / "2")
    assert found
    state = loop_state.state
    best, last = (evaluate_split(group, runs, p, "test") for p in (state.best.params, state.params))
    for metric in ("loss", EXACT_MATCH):
        assert values(results, "stops", metric) == [best.values(i)[metric] for i in (0, 1)]
    assert all(best.values(i)["loss"] != last.values(i)["loss"] for i in (0, 1))


def test_arms_are_shown_with_their_own_questions(finished):
    told = [line.split(" = ") for line in finished[2].splitlines() if " = " in line]
    seen = set()
    for question, rest in told:
        gold, *written = rest.split()
        arms = frozenset(ARMS) & set(written)
        seen.add(arms)
        if "sorted" in arms:
            assert gold == "".join(sorted(question.strip()))
        if arms != {"sorted"}:
            assert gold == question.strip()
    # Of one question all arms are told in a line; two tasks have different questions.
    assert {frozenset({"forward", "reversed"}), frozenset({"sorted"})} < seen
    assert len(told) > 2 * RUN.train.shown


def test_every_function_is_traced_once_a_program_however_often_a_run_is_begun_again(
    finished, tmp_path
):
    break_off(tmp_path, in_fit(1, 3, kill))
    complete(tmp_path)
    programs = [group.programs.trainer for group in Ablation(ARMS, 2, 5).groups.values()]
    for trainer in programs:
        counts = {name: n for (who, name), n in TRACED.items() if who == trainer}
        names = {name[0] for name in counts}
        assert names == {"init", "order", "train_chunk", "evaluate", "close_epoch"}
        # Training questions are scored in more batches at once than dev and test questions.
        assert {n for name, n in counts.items() if name[0] != "evaluate"} == {1}
        assert sum(n for name, n in counts.items() if name[0] == "evaluate") == 2


# --- broken off and begun again -------------------------------------------------------------


BREAKS = {  # and how many programs are then left to train
    "asked to in program 1": (2, in_fit, 1, 1, terminate),
    "killed before any checkpoint": (2, in_fit, 1, 1, kill),
    "asked to in program 2": (1, in_fit, 2, 3, terminate),
    "killed in program 2": (1, in_fit, 2, 3, kill),
    "killed before program 1 is scored": (2, at_call, ablation_module, "final_records", 1, False),
    "killed after program 1 is scored": (2, at_call, ablation_module, "final_records", 1, True),
    "killed before the scores of 2 are written": (1, at_call, Workdir, "append_at_once", 2, False),
    "killed after the scores of 1 are written": (1, at_call, Workdir, "append_at_once", 1, True),
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
    assert (said.count("compiling"), said.count("finished before")) == (left, 2 - left)


@pytest.mark.parametrize("cut", [1, 40, 400])
def test_records_that_a_kill_cut_short_are_measured_again(finished, tmp_path, cut):
    break_off(tmp_path, in_fit(2, 4, kill))
    written = (tmp_path / "metrics.jsonl").read_bytes()
    (tmp_path / "metrics.jsonl").write_bytes(written[:-cut])
    complete(tmp_path)
    assert_ends_alike(tmp_path, finished)


def test_a_record_lost_from_before_the_checkpoint_is_noticed(tmp_path):
    break_off(tmp_path, in_fit(2, 3, terminate))
    held = (tmp_path / "metrics.jsonl").read_text().splitlines(keepends=True)
    (one,) = [n for n, of in enumerate(held) if all(part in of for part in LOST)]
    for harmed in (held[:one] + held[one + 1 :], [*held, held[-1]], [*held[:-1], held[-1][:-9]]):
        (tmp_path / "metrics.jsonl").write_text("".join(harmed))
        with pytest.raises(UserError, match="does not hold the records of the 3 epochs"):
            complete(tmp_path)


LOST = '"stops"', '"seed": 6', '"epoch": 2', '"teacher_forced/content"'


def test_a_lost_score_is_measured_again_and_a_lost_epoch_of_a_finished_program_noticed(
    finished, tmp_path
):
    folder = shutil.copytree(finished[0], tmp_path / "copy")
    lines = (folder / "metrics.jsonl").read_text().splitlines(keepends=True)
    place = next(n for n, line in enumerate(lines) if f"{EXACT_MATCH}/length_" in line)
    for lost, harmed in (("score", lines[:place] + lines[place + 1 :]), ("end", lines[:-1])):
        (folder / "results.json").unlink()
        (folder / "metrics.jsonl").write_text("".join(harmed))
        complete(folder)
        assert load_results(folder / "results.json")["comparisons"] == finished[1]["comparisons"]
        again = sorted((folder / "metrics.jsonl").read_text().splitlines(keepends=True))
        assert again == sorted(lines), lost
    (folder / "results.json").unlink()
    (folder / "metrics.jsonl").write_text("".join(lines[1:]))
    with pytest.raises(UserError, match="does not hold the records of the 4 epochs"):
        complete(folder)


def test_the_scores_of_every_program_but_the_last_are_shown_when_it_is_through(finished):
    _, results, said = finished
    first, last = said.split("compiling")[1:]
    shown = first.partition("Program 1, test set")[2]
    assert "Program 2" not in last  # the report is next
    exact = values(results, "sorted", EXACT_MATCH)
    (row,) = [line for line in shown.splitlines() if "sorted, 2 seeds" in line]
    assert score(exact, EXACT_MATCH) in row
    assert "stops" not in shown.partition("program 2")[0]


def test_time_adds_up_over_starts(finished, tmp_path):
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
    (folder / "results.json").unlink()
    monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_enable_fast_math=true")
    told = complete(folder)["environment"]["changes"]
    assert told == ["XLA_FLAGS: (absent) -> --xla_cpu_enable_fast_math=true"]


def test_arms_of_a_program_that_diverges_are_left_out_and_the_others_finish(
    finished, tmp_path, monkeypatch
):
    real, begun = ablation_module.fit, []

    def fit(runs, *arguments, **settings):
        begun.append(len(runs.labels))
        if len(begun) in diverging:
            found = dict.fromkeys(range(len(runs.labels)), 1)
            raise DivergedError("the loss of sorted seed 5 is nan at update 1", 1, found)
        return real(runs, *arguments, **settings)

    monkeypatch.setattr(ablation_module, "fit", fit)
    console, stream = shown()
    diverging = {1, 2}
    with pytest.raises(DivergedError, match="the loss of sorted seed 5"):
        complete(tmp_path / "all")
    diverging = {3}
    results = complete(tmp_path / "one", console=console)
    assert begun == [6, 2] * 2
    assert "left out: the loss of sorted seed 5 is nan" in stream.getvalue()
    assert [*results["left_out"]] == ["forward", "reversed", "sorted"]
    why = "a loss or parameter of forward seed 5 is not finite from update 1 on"
    assert results["left_out"]["forward"] == why
    assert results["records"] == [r for r in finished[1]["records"] if r["arm"] == "stops"]
    assert results["comparisons"] == []  # each pair has an arm that was left out
    assert complete(tmp_path / "one") == results


def test_a_replica_that_diverges_is_left_out_and_named_and_all_others_finish(
    finished, tmp_path, monkeypatch
):
    true = Group.begin

    def begin(self, runs):
        loop_state = true(self, runs)
        rates = np.array(loop_state.state.learning_rate)
        if ("sorted", 6) in self.replicas:
            rates[self.replicas.index(("sorted", 6))] = np.nan
        state = loop_state.state.replace(learning_rate=spread(rates, runs.programs.mesh))
        return loop_state._replace(state=state)

    monkeypatch.setattr(Group, "begin", begin)
    console, stream = shown()
    with monkeypatch.context() as patch:
        patch.setattr(*in_fit(1, 3, terminate))
        with pytest.raises(Interrupted):
            complete(tmp_path, console=console)
    results = complete(tmp_path, console=console)
    why = "a loss or parameter of sorted seed 6 is not finite from update 1 on"
    assert results["left_out"] == {"sorted seed 6": why}
    assert stream.getvalue().count(f"left out: {why}") == 1
    lost = [r for r in finished[1]["records"] if (r["arm"], r["seed"]) == ("sorted", 6)]
    assert results["records"] == [r for r in finished[1]["records"] if r not in lost]
    assert [c["n"] for c in results["comparisons"]] == [2, 2, 1, 1]
    assert complete(tmp_path) == results


def test_arms_that_share_no_seed_are_not_compared():
    records = [record(arm, seed, "test", 1, "loss", 0.5) for arm, seed in (("a", 0), ("b", 1))]
    assert comparisons(records, [("a", "b")], ["loss"]) == []
    records.append(record("b", 0, "test", 1, "loss", 0.25))
    assert [c["n"] for c in comparisons(records, [("a", "b")], ["loss"])] == [1]


# --- what is refused ------------------------------------------------------------------------


def test_arms_that_are_one_run_twice_are_refused():
    with pytest.raises(UserError, match="arms 'forward' and 'again' have the same settings"):
        Ablation({**ARMS, "again": replace(RUN)}, 2, 5)


def test_a_config_that_is_no_ablations_is_refused():
    whole = Ablation(ARMS, 2, 5).config
    others = [{"arms": []}, {"arms": {}}, {"seeds": "3"}, {"seeds": 1.5}, {"first_seed": None}]
    for wrong in [{}, *(whole | other for other in others)]:
        with pytest.raises(UserError, match="not that of an ablation"):
            Ablation.from_config(wrong)
    assert Ablation.from_config(json.loads(json.dumps(whole))).arms == ARMS


# --- more of it ----------------------------------------------------------------------------


def test_more_seeds_and_epochs_later_are_what_they_would_have_been_from_the_start(
    finished, tmp_path
):
    short = replace(BACKWARD, train=replace(RUN.train, epochs=3))
    first = complete(tmp_path, {"reversed": short}, seeds=1, pairs=[])
    whole = complete(tmp_path, {"reversed": BACKWARD}, seeds=2, pairs=[])
    key = lambda r: (r["split"], r["metric"], r["epoch"], r["seed"])
    expected = [r for r in finished[1]["records"] if r["arm"] == "reversed"]
    assert sorted(whole["records"], key=key) == sorted(expected, key=key)
    assert load_results(tmp_path / "results.before-1.json") == first
    assert Ablation.from_config(whole["config"]) == Ablation({"reversed": BACKWARD}, 2, 5)


def having(**parts):
    """Two arms with other settings."""
    arms = {"forward": RUN, "small": replace(RUN, model=Model(hidden_size=4))}
    return {arm: replace(run, **parts) for arm, run in arms.items()}


def longer(train=RUN.train, epochs=9, **parts):
    """The same, and more epochs."""
    return having(train=replace(train, epochs=epochs), **parts)


def config(arms=None, seeds=2, first_seed=5, **others):
    ablation = Ablation(arms or having(), seeds, first_seed)
    return {"experiment": "e", "preset": "p", **ablation.config, **others}


def test_a_run_grows_by_seeds_and_where_it_goes_on_the_same_way_by_epochs():
    cosine = having(optim=Optimiser(schedule="cosine"))
    ends = {"small": cosine["small"]}
    for held, asked in (
        (config(), config(seeds=3)),
        (config(), config(longer())),
        (config(), config(longer(), seeds=9)),
        (config(), config(having() | {"small": longer()["small"]})),
        (config(cosine), config(cosine, seeds=3)),
        (config(having() | ends), config(longer() | ends)),
    ):
        assert is_extension(held, asked)


@pytest.mark.parametrize(
    ("held", "asked"),
    [
        (config(), config(seeds=1)),
        (config(), config(first_seed=4, seeds=3)),
        (config(), config({"forward": RUN})),
        (config(), config(longer(replace(RUN.train, batch_size=17)))),
        (config(longer()), config()),
        (config(longer()), config(seeds=3)),
        (config({"stops": ARMS["stops"]}), config({"stops": ARMS["stops"]}, seeds=3)),
        (config(), config(seeds=3, experiment="other")),
        (config(), config(seeds=3, preset="other")),
        (config(), config(seeds=3, more=1)),
        (config() | {"seeds": "2"}, config(seeds=3)),
        (config() | {"arms": {}}, config(seeds=3)),
        *(
            (config(having(**ending)), config(longer(**ending)))
            for ending in (
                {"optim": Optimiser(1e-2, schedule="cosine")},
                {"optim": Optimiser(1e-2, schedule="halving")},
                {"train": replace(RUN.train, patience=3)},
                {"train": replace(RUN.train, teacher_forcing_end=0.5)},
            )
        ),
    ],
)
def test_another_run_is_no_longer_one(held, asked):
    assert not is_extension(held, asked)


def test_a_workdir_of_another_run_is_refused(finished):
    with pytest.raises(UserError, match="holds another run"):
        complete(finished[0], seeds=1)
