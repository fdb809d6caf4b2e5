"""Sweeps: stable names, cells as if alone, a job for one worker at a time, tables with holes."""

import csv
import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
import reverse_vs_forward
import sweep as script
from rich.console import Console

from s2sjax import cli
from s2sjax.config import Model, Optimiser, Training
from s2sjax.data.addition import Addition
from s2sjax.errors import BusyError, Interrupted, UserError
from s2sjax.report.results import load_results
from s2sjax.study import ablation as ablation_module
from s2sjax.study import cells as cells_module
from s2sjax.study import leases
from s2sjax.study.cells import run_job
from s2sjax.study.collect import collect
from s2sjax.study.experiment import Study
from s2sjax.study.leases import Claim, Claims
from s2sjax.study.slurm import submit
from s2sjax.study.sweep import Sweep, grid_of, load, make_plan, name_of
from s2sjax.study.worker import Worker, states, status_table
from s2sjax.train.workdir import Workdir

TINY = replace(
    reverse_vs_forward.SMOKE,
    task=Addition(digits=2, train=48, dev=16, test=16, splits="independent"),
    model=Model(hidden_size=4),
    train=Training(epochs=2, batch_size=16, eval_every=1, checkpoint_every=1),
)
EXPERIMENT = reverse_vs_forward.EXPERIMENT
RATES, SIZES = "optim.learning_rate=1e-3,3e-3", "model.hidden_size=4,6"
QUIET = Console(quiet=True)
SCRIPT = Path(script.__file__)


def plan(folder, *grid, run=TINY, seeds=2, first=100, pack=8, lease=60.0) -> Sweep:
    return make_plan(folder, EXPERIMENT, "smoke", Study(run, seeds, first), grid, pack, lease)


def take(sweep, job, after=0) -> Claim:
    claim = Claims(sweep.claims_folder, sweep.lease).take(job, after)
    assert claim is not None
    return claim


# --- the plan -------------------------------------------------------------------------------------


def test_a_cell_is_named_by_its_settings_alone():
    cells = grid_of([SIZES, "optim.learning_rate=0.001,1e-3,3"], TINY)
    assert list(cells) == [
        "model.hidden_size=4,optim.learning_rate=0.001",
        "model.hidden_size=4,optim.learning_rate=3.0",
        "model.hidden_size=6,optim.learning_rate=0.001",
        "model.hidden_size=6,optim.learning_rate=3.0",
    ]
    assert {*grid_of(["optim.learning_rate=3,1e-3", SIZES], TINY)} == {*cells}
    assert list(grid_of([], TINY)) == ["all"]
    names = {name_of({"task.train": path}) for path in ("../b c:d", "../b_c:d", "x" * 200)}
    assert len(names) == 3
    assert all(re.fullmatch(r"task\.train=[\w.]+-\w{8}", n) and len(n) < 150 for n in names)
    assert grid_of(["optim.clip=None", "text.source_eos=False"], TINY) == {
        "optim.clip=null,text.source_eos=false": {"optim.clip": None, "text.source_eos": False}
    }


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        (["model.hiden_size=4"], "there is no 'hiden_size'; model has cell, hidden_size,"),
        (["modl.hidden_size=4"], "there is no 'modl'; a run has task, text, model, optim, train"),
        (["model.cell.x=4"], "there is no 'x'; cell has no settings of its own"),
        (["model=4"], "name one of its settings: cell, hidden_size,"),
        (["model.hidden_size"], "must be NAME=VALUE,VALUE"),
        ([SIZES, SIZES], "is there twice"),
        (["model.hidden_size=4,x"], "=x: run.model.hidden_size cannot be 'x'; it must be int"),
        (["model.hidden_size=4,0"], "=0: Model.hidden_size must be at least 1, not 0"),
        (["text.source_order=forward,reversed"], "have the same arms: the arms of this experiment"),
    ],
)
def test_what_cannot_be_is_one_line_and_writes_nothing(tmp_path, grid, message):
    with pytest.raises(UserError, match=r"\A[^\n]*\Z") as refused:
        plan(tmp_path / "sweep", *grid)
    assert message in str(refused.value)
    assert not [*tmp_path.iterdir()]


def test_cells_that_share_programs_are_packed_and_a_plan_only_grows(tmp_path):
    first = plan(tmp_path, RATES, SIZES)
    a, b = (f"model.hidden_size={n},optim.learning_rate=0.001" for n in (4, 6))
    third = a.replace("0.001", "0.003")
    assert list(first.jobs) == [f"{a}+1", f"{b}+1"]
    assert first.jobs[f"{a}+1"].cells == [a, third]
    grown = plan(tmp_path, SIZES, "optim.learning_rate=0.02,1e-3,3e-3,0.01,0.04", pack=2)
    assert list(grown.jobs)[:2] == list(first.jobs)
    assert [len(job.cells) for job in grown.jobs.values()] == [2, 2, 2, 1, 2, 1]
    assert plan(tmp_path, RATES).plan == json.loads(json.dumps(grown.plan))  # the size is 4
    loaded = load(tmp_path, lambda name: {"reverse_vs_forward": EXPERIMENT}[name])
    assert loaded.jobs.keys() == grown.jobs.keys()
    early = replace(TINY, train=replace(TINY.train, patience=1))
    assert len(plan(tmp_path / "early", RATES, run=early).jobs) == 2


def test_another_sweep_in_the_folder_is_refused_with_the_difference(tmp_path):
    plan(tmp_path, SIZES)
    before = (tmp_path / "sweep.json").read_bytes()
    longer = replace(TINY, train=replace(TINY.train, epochs=9))
    for changes, message in (
        ({"run": longer}, "run.train.epochs: 2 -> 9"),
        ({"seeds": 3}, "seeds: 2 -> 3"),
        ({"first": 7}, "first_seed: 100 -> 7"),
    ):
        with pytest.raises(UserError, match=f"another sweep.*{message}"):
            plan(tmp_path, SIZES, **changes)
    assert (tmp_path / "sweep.json").read_bytes() == before
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.txt").touch()
    with pytest.raises(UserError, match="holds no sweep"):
        plan(other, SIZES)
    with pytest.raises(UserError, match=r"no sweep\.json"):
        load(other, script.find)


# --- one job --------------------------------------------------------------------------------------


def alone(folder: Path, sweep: Sweep, cell: str):
    """The cell as an experiment of its own."""
    ablation = sweep.ablation(sweep.cells[cell])
    config = {"experiment": EXPERIMENT.name, "preset": "smoke", **ablation.config}
    compared = EXPERIMENT.metrics, EXPERIMENT.pairs("smoke")
    with Workdir(folder, config) as workdir:
        ablation_module.run(EXPERIMENT.name, "smoke", ablation, workdir, QUIET, *compared)
    return found(folder)


def found(folder: Path):
    results = json.loads((folder / "results.json").read_text())
    assert results.pop("seconds") >= 0
    return results, (folder / "metrics.jsonl").read_bytes(), (folder / "config.json").read_text()


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    """A sweep of two cells that were trained in one job, and what they find alone."""
    folder = tmp_path_factory.mktemp("sweep")
    sweep = plan(folder / "sweep", RATES)
    (job,) = sweep.jobs
    claim = take(sweep, job)
    run_job(sweep, claim, QUIET)
    claim.end("done")
    return sweep, {cell: alone(folder / cell, sweep, cell) for cell in sweep.cells}


def test_packed_is_alone_bit_for_bit(packed):
    sweep, own = packed
    assert sweep.finished() == {*sweep.cells}
    for cell, expected in own.items():
        assert found(sweep.cells_folder / cell) == expected
    rates = [results["config"]["arms"]["forward"]["optim"] for results, *_ in own.values()]
    assert [rate["learning_rate"] for rate in rates] == [1e-3, 3e-3]
    assert load_results(sweep.cells_folder / next(iter(own)) / "results.json")["comparisons"]


def test_a_cell_that_diverges_leaves_those_it_is_packed_with(packed, tmp_path, monkeypatch):
    (cell, expected), *_ = packed[1].items()
    monkeypatch.setattr(Optimiser, "__post_init__", lambda self: None)  # any rate
    sweep = plan(tmp_path, "optim.learning_rate=1e-3,3e38")
    (job,) = sweep.jobs
    for attempt in (1, 2):
        claim = take(sweep, job, attempt - 1)
        with pytest.raises(UserError, match=r"=3e\+38: a loss or parameter of forward seed 100 is"):
            run_job(sweep, claim, QUIET)
    assert sweep.finished() == {cell}
    assert found(sweep.cells_folder / cell) == expected


def test_an_attempt_that_was_overtaken_writes_no_more_and_the_next_one_goes_on(
    packed, tmp_path, monkeypatch
):
    (cell, expected), *_ = packed[1].items()
    sweep = plan(tmp_path / "sweep", "optim.learning_rate=1e-3")
    first = take(sweep, cell)
    real = Workdir.append

    def overtaken(self, records):
        if not first.lost and self.records():  # in the second epoch
            second = take(sweep, cell, after=1)
            monkeypatch.setattr(Workdir, "append", real)
            cells_module._taken_over(sweep.work_folder, second)
            with pytest.raises(UserError, match="deleted or moved"):
                Workdir.check(self)
        real(self, records)

    monkeypatch.setattr(Workdir, "append", overtaken)
    with pytest.raises(BusyError, match="taken"):
        run_job(sweep, first, QUIET)
    assert not sweep.finished()
    assert [path.name for path in sweep.work_folder.iterdir()] == [f"{cell}.2"]
    run_job(sweep, Claim(sweep.claims_folder, cell, 2), QUIET)
    assert found(sweep.cells_folder / cell) == expected
    with pytest.raises(BusyError):
        run_job(sweep, first, QUIET)


# --- claims ---------------------------------------------------------------------------------------


def test_one_of_many_workers_gets_a_job(tmp_path):
    got = []
    threads = [
        threading.Thread(target=lambda: got.append(Claims(tmp_path).take("a.b", 0)))
        for _ in range(20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (claim,) = [claim for claim in got if claim is not None]
    assert Claims(tmp_path).attempts() == {"a.b": 1}
    claim.check()
    assert Claims(tmp_path).take("a.b", 1) is not None
    with pytest.raises(BusyError, match=r"another worker has taken a\.b over"):
        claim.check()


def test_a_lease_ends_by_the_clock_of_who_watches(tmp_path, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(leases.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(leases.time, "time", lambda: 1 / 0)  # never asked
    monkeypatch.setattr(leases, "_machine", lambda: None)  # the worker is on another machine
    claim = Claims(tmp_path, 60.0).take("a", 0)
    watcher = Claims(tmp_path, 60.0)
    assert not watcher.is_abandoned("a", 1)
    now[0] += 59
    assert not watcher.is_abandoned("a", 1)
    claim.beat()
    now[0] += 59
    assert not watcher.is_abandoned("a", 1)
    os.utime(tmp_path / "a.1", (0, 2**33))  # a clock jumps
    now[0] += 61
    assert watcher.is_abandoned("a", 1)
    assert not Claims(tmp_path, 60.0).is_abandoned("a", 1)  # who comes later watches, too


def test_a_worker_of_this_machine_that_has_ended_is_seen_at_once(tmp_path):
    code = f"from s2sjax.study.leases import *; Claims(Path({str(tmp_path)!r})).take('a', 0)"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert Claims(tmp_path).is_abandoned("a", 1)
    Claims(tmp_path).take("b", 0)
    assert not Claims(tmp_path).is_abandoned("b", 1)
    (tmp_path / "c.1").touch()  # killed before it had said who it is
    assert not Claims(tmp_path).is_abandoned("c", 1)
    assert Claims(tmp_path).read("c", 1) == {"state": "running"}


# --- workers --------------------------------------------------------------------------------------

FAKE = """
import os, pathlib, signal, sys, time
folder, job, attempt = sys.argv[1:]
words = pathlib.Path(folder, "script").read_text().split() if int(attempt) == 1 else ["0"]
word = words[int(job.partition("=")[2].partition("+")[0].rstrip(".0") or 0) % len(words)]
print("begun", flush=True)
if word == "wait":
    signal.signal(signal.SIGTERM, lambda *_: (print("saved"), sys.exit(75)))
    pathlib.Path(folder, "ready").touch()
    time.sleep(60)
if word == "kill":
    os.kill(os.getpid(), 9)
if word == "0":
    (pathlib.Path(folder, "cells") / job).mkdir(exist_ok=True)
print("error: it is so")
sys.exit(int(word))
"""
"""Does for each job what a word of the file `script` says, the next attempt ends well."""


def worker(sweep: Sweep, words: str = "0") -> Worker:
    (sweep.folder / "script").write_text(words)
    return Worker(sweep, [sys.executable, "-c", FAKE], QUIET)


def sizes(folder, **settings) -> Sweep:
    return plan(folder, "model.hidden_size=1,2,3,4", **settings)


def words_of(sweep) -> list[str]:
    return [state.word for state in states(sweep).values()]


def test_a_job_that_fails_costs_only_its_cells_and_is_done_again(tmp_path):
    sweep = sizes(tmp_path)
    assert worker(sweep, "0 78 0 kill").run() == 1
    assert words_of(sweep) == ["failed", "done", "failed", "done"]
    state = states(sweep)["model.hidden_size=1"]
    assert state.why == "error: it is so (exit code 78)"
    assert "(exit code -9)" in states(sweep)["model.hidden_size=3"].why
    assert worker(sweep).run() == 0
    assert words_of(sweep) == ["done"] * 4
    tried = sorted(path.name for path in sweep.claims_folder.iterdir())
    assert tried == [f"model.hidden_size={n}" for n in ("1.1", "1.2", "2.1", "3.1", "3.2", "4.1")]
    assert worker(sweep, "1").run() == 0


def test_a_signal_is_passed_on_and_the_same_command_goes_on(tmp_path):
    sweep = sizes(tmp_path)

    def stop():
        while not (tmp_path / "ready").exists():
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=stop).start()
    with pytest.raises(Interrupted) as stopped:
        worker(sweep, "0 0 wait 0").run()
    assert stopped.value.code == 75
    assert words_of(sweep) == ["done", "stopped", "waiting", "waiting"]
    assert states(sweep)["model.hidden_size=2"].why == "saved"
    assert worker(sweep).run() == 0


def test_workers_share_a_folder_and_the_job_of_a_dead_one_returns(tmp_path, monkeypatch):
    sweep = sizes(tmp_path, lease=1.0)
    dead, alive = (f"model.hidden_size={n}" for n in (2, 3))
    take(sweep, dead)  # by a worker that is never heard of again
    with take(sweep, alive) as claim:
        monkeypatch.setattr(leases, "_machine", lambda: None)  # on another machine

        def end():
            time.sleep(3)
            (sweep.cells_folder / alive).mkdir()
            claim.end("done")

        threading.Thread(target=end).start()
        assert worker(sweep).run() == 0
    attempts = Claims(sweep.claims_folder).attempts()
    assert (attempts[dead], attempts[alive]) == (2, 1)
    assert words_of(sweep) == ["done"] * 4


def test_what_others_fail_is_not_tried_again_by_those_who_were_there(tmp_path):
    sweep = sizes(tmp_path)
    present = worker(sweep)
    claim = take(sweep, "model.hidden_size=1")
    claim.end("failed", "no room")
    assert present.run() == 1
    assert words_of(sweep) == ["failed", "done", "done", "done"]


def test_a_job_that_ended_since_it_was_listed_is_not_taken_again(tmp_path):
    sweep = sizes(tmp_path)
    job, other, *_ = sweep.jobs
    claim = take(sweep, job)
    (sweep.cells_folder / job).mkdir()
    claim.end("done")
    assert not worker(sweep)._is_free(job, 1)
    take(sweep, other).end("done")  # but its cell was deleted since
    assert worker(sweep)._is_free(other, 1)


# --- what there is --------------------------------------------------------------------------------


def test_status_shows_every_job_and_what_is_damaged(tmp_path):
    sweep = sizes(tmp_path)
    running, damaged, failed, waiting = sweep.jobs
    record = {
        "arm": "reversed",
        "seed": 100,
        "split": "dev",
        "epoch": 1,
        "metric": "loss",
        "value": 1,
    }
    for job, text in ((running, json.dumps(record)), (damaged, "{?")):
        take(sweep, job)
        folder = sweep.work_folder / f"{job}.1"
        folder.mkdir()
        (folder / "metrics.jsonl").write_text(f"{text}\n{{cut")
        (folder / "seconds.txt").write_text("\n2.000\n1.000")
        (sweep.logs_folder / f"{job}.1").write_text("drawing\nepoch 1/2\n")
    take(sweep, failed).end("failed", "the loss\nis nan")
    shown = states(sweep)
    assert shown[running] == ("running", "", 1, 2, 3.0)
    assert shown[damaged].why.startswith("damaged: JSONDecodeError")
    assert shown[waiting] == ("waiting", "", 0, 2, None)
    table = status_table(sweep)
    assert table.title.endswith("4 cells in 4 jobs: 2 running, 1 failed, 1 waiting")
    assert table.rows[0][2:] == ("running", "1/2", "3 s", "epoch 1/2")
    assert table.rows[2][-1] == "the loss is nan"


def test_collect_gives_one_tidy_table_and_names_the_holes(packed, tmp_path):
    sweep = plan(tmp_path, "optim.learning_rate=1e-3,3e-3,0.01", "model.hidden_size=4", pack=1)
    one, two, three = sweep.cells
    for cell, own in zip((one, two), packed[0].cells, strict=True):
        (sweep.cells_folder / cell).mkdir()
        results = (packed[0].cells_folder / own / "results.json").read_text()
        (sweep.cells_folder / cell / "results.json").write_text(results)
    take(sweep, three).end("failed", "no room")
    collect(sweep)
    with (tmp_path / "scores.csv").open() as file:
        rows = [*csv.DictReader(file)]
    names = ["cell", "model.hidden_size", "optim.learning_rate", "arm", "seed", "metric", "value"]
    assert list(rows[0]) == names
    loss = [row for row in rows if row["metric"] == "loss"]
    assert [(r["optim.learning_rate"], r["arm"], r["seed"]) for r in loss] == [
        (rate, arm, seed)
        for rate in ("0.001", "0.003")
        for arm in ("forward", "reversed")
        for seed in ("100", "101")
    ]
    results = load_results(sweep.cells_folder / one / "results.json")
    expected = {
        r["value"] for r in results["records"] if (r["split"], r["metric"]) == ("test", "loss")
    }
    assert {float(r["value"]) for r in loss[:4]} == expected
    report = (tmp_path / "report.md").read_text()
    assert "2 of 3 cells, seeds 100 to 101." in report
    assert f"| {three} | failed: no room |" in report
    with (tmp_path / "comparisons.csv").open() as file:
        assert {row["a"] for row in csv.DictReader(file)} == {"reversed"}

    (sweep.cells_folder / two / "results.json").write_text("{")
    lost = json.loads((sweep.cells_folder / one / "results.json").read_text())
    lost["series"] = [x for x in lost["series"] if x["arm"] == "forward"]
    for series in lost["series"]:
        series["values"].pop("101")
    lost |= {"comparisons": [], "left_out": {"reversed": "it is nan", "forward seed 101": "inf"}}
    (sweep.cells_folder / one / "results.json").write_text(json.dumps(lost))
    holes = dict(collect(sweep).holes)
    assert "is damaged" in holes.pop(two)
    assert holes == {
        f"{one}, reversed": "it is nan",
        f"{one}, forward, seed 101": "inf",
        three: "failed: no room",
    }


def test_collect_writes_parquet_where_pyarrow_is(packed):
    parquet = pytest.importorskip("pyarrow.parquet")
    collect(packed[0])
    table = parquet.read_table(packed[0].folder / "scores.parquet")
    assert table.num_rows == len((packed[0].folder / "scores.csv").read_text().splitlines()) - 1


# --- Slurm ----------------------------------------------------------------------------------------


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """Commands that note how they were called, and a queue that is a file."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "queue").touch()
    (folder / "calls").touch()
    for name, body in {
        "squeue": f"cat {folder}/queue",
        "scontrol": "echo 'MaxArraySize            = 3'",
        "sbatch": f'echo "$@" >> {folder}/calls; wc -l < {folder}/calls',
    }.items():
        (folder / name).write_text(f"#!/bin/sh\n{body}\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder


def test_arrays_are_split_and_what_waits_is_not_submitted_twice(tmp_path, slurm):
    sweep = sizes(tmp_path / "sweep")
    (sweep.cells_folder / "model.hidden_size=1").mkdir()
    said = [*submit(sweep, SCRIPT, ["--partition=main", "--time=10:00"])]
    assert len(said) == 3
    first, second, last = (slurm / "calls").read_text().splitlines()
    name = first.partition("--job-name=")[2].partition("-1 ")[0]
    root, options = SCRIPT.parents[1], "--partition=main --time=10:00"
    listed = sweep.folder / "slurm"
    for n, call in ((1, first), (2, second)):
        array = f"--array=1-{3 - n} --job-name={name}-{n}"
        words = f"{SCRIPT.parent}/jobs/sweep.sbatch {sweep.folder} {listed}/{n}.txt"
        where = f"--chdir={root} --output={listed}/%j.out"
        assert call == f"--parsable {where} {options} {array} {words}"
    assert (listed / "1.txt").read_text() == "model.hidden_size=2\nmodel.hidden_size=3\n"
    assert ((listed / "1.id").read_text(), (listed / "2.id").read_text()) == ("1\n", "2\n")
    assert f"{options} --dependency=afterany:1:2 --job-name={name}-collect --wrap" in last
    assert last.endswith(f"collect {sweep.folder}")

    # One task is left in the queue; the others have ended without a result.
    (slurm / "queue").write_text(f"1|2|{name}-1\n7|N/A|{name}-collect\n9|1|other\n")
    said = [*submit(sweep, SCRIPT, [])]
    assert said[0] == "1 jobs wait or run already"
    assert (listed / "3.txt").read_text() == "model.hidden_size=2\nmodel.hidden_size=4\n"
    assert "--dependency=afterany:1:4 " in (slurm / "calls").read_text().splitlines()[-1]


def test_without_slurm_or_with_wrong_options_it_says_so(tmp_path, slurm, monkeypatch):
    sweep = sizes(tmp_path / "sweep")
    (slurm / "sbatch").write_text("#!/bin/sh\necho 'invalid partition' >&2\nexit 1\n")
    with pytest.raises(UserError, match="sbatch failed: invalid partition"):
        [*submit(sweep, SCRIPT, [])]
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match=r"squeue cannot be run .* is Slurm here\?"):
        [*submit(sweep, SCRIPT, [])]


# --- the script -----------------------------------------------------------------------------------

WORDS = (
    "reverse_vs_forward smoke --task.digits 2 --task.train 48 --task.dev 16 --task.test 16 "
    "--model.hidden-size 4 --train.batch-size 16 --train.epochs 2 --train.eval-every 1 "
    "--train.checkpoint-every 1 --train.show-every 25 --seeds 100..101 --lease 4 --pack 1 "
    f"--grid {RATES} --on files --out"
).split()
"""The sweep of `packed`, each cell alone."""


def ran(monkeypatch, *words) -> int:
    """The exit code of the script, run in this process."""
    monkeypatch.setattr(sys, "argv", ["experiments/sweep.py", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        cli.main(script.main_of_sweep)
    return ended.value.code


def test_the_command_line(packed, tmp_path, monkeypatch, capfd):
    assert ran(monkeypatch, "--help") == 0
    assert "reverse_vs_forward: notebook, one_unit, clean, smoke" in capfd.readouterr().out
    folder, finished = packed[0].folder, "optim.learning_rate=0.001+1"
    assert ran(monkeypatch, "status", folder) == 0
    assert "2 cells in 1 jobs: 1 done" in capfd.readouterr().out
    assert ran(monkeypatch, "collect", folder) == 0
    assert "2 of 2 cells" in (folder / "report.md").read_text()
    assert ran(monkeypatch, "work", folder) == 0
    assert ran(monkeypatch, "work", folder, finished) == 0
    for words, message in (
        (["work", folder, "none"], "has no job 'none'; sweep.json names them"),
        (["status"], "after status give the folder of a sweep"),
        (["status", tmp_path], "holds no sweep.json"),
        (["nonsense", "smoke"], "no experiment 'nonsense'; there are addition_rnn, attention,"),
        (["peeky", "nonsense"], "peeky has no preset 'nonsense'; it has"),
        ([*WORDS, tmp_path / "x", "--seeds", "9..3"], "--seeds must be FIRST..LAST"),
        ([*WORDS, tmp_path / "x", "--lease", "0"], "--lease above 0"),
    ):
        capfd.readouterr()
        assert ran(monkeypatch, *words) == 78
        assert message in capfd.readouterr().err
    assert not [*tmp_path.iterdir()]


def test_a_job_by_its_name_as_slurm_starts_it(packed, tmp_path):
    expected, *_ = packed[1].values()
    run = replace(TINY, optim=Optimiser(1e-3))
    sweep = plan(tmp_path, "optim.epsilon=1e-7,0", run=run, lease=1.0)  # 0: diverges
    done, fails = sweep.jobs
    command = [sys.executable, SCRIPT, "work", tmp_path]
    with take(sweep, done), pytest.raises(BusyError, match="another worker runs"):
        script._work(sweep, done)
    take(sweep, fails).end("stopped")
    pipes = {"capture_output": True, "text": True}
    started = [subprocess.run([*command, job], **pipes) for job in sweep.jobs]
    assert [ended.returncode for ended in started] == [0, 78], started
    assert found(sweep.cells_folder / done) == expected
    assert "attempt 2, log" in started[0].stdout
    assert "scoring" in (sweep.logs_folder / f"{done}.2").read_text()
    state = states(sweep)[fails]
    assert state.word == "failed"
    assert "may help" in state.why
    assert fails in started[1].stderr


@pytest.fixture
def start(tmp_path):
    """Start the script with a cache of compiled programs; what still runs is ended."""
    cache = {
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    started = []

    def begin(*words) -> subprocess.Popen:
        command, null = [sys.executable, SCRIPT, *words], subprocess.DEVNULL
        process = subprocess.Popen(command, env={**os.environ, **cache}, stdout=null)
        started.append(process)
        return process

    yield begin
    for process in started:
        signal_all(process, signal.SIGKILL)
        process.wait()


def family(process: subprocess.Popen) -> list[int]:
    """A process and those that it has started, one of a job at most."""
    found = [process.pid]
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == process.pid and fields[0] != "Z":
            found.append(int(stat.parent.name))
    return found


def signal_all(process: subprocess.Popen, number: int) -> None:
    if process.poll() is None:
        for pid in family(process):
            os.kill(pid, number)


@pytest.mark.slow
def test_killed_at_random_moments_it_ends_in_the_same_bits(packed, tmp_path, start):
    folder = tmp_path / "sweep"
    for number in range(8):
        worker = start(*WORDS, folder)
        time.sleep(random.uniform(1, 25))
        if number % 2:
            signal_all(worker, signal.SIGKILL)
        else:
            worker.kill()  # the process of its job goes on, until the job is taken over
        worker.wait()
    both = [start(*WORDS, folder) for _ in range(2)]
    assert [worker.wait() for worker in both] == [0, 0]
    for cell, expected in packed[1].items():
        assert found(folder / "cells" / cell) == expected
    table = (folder / "scores.csv").read_bytes()
    for _ in range(5):
        collecting = start("collect", folder)
        time.sleep(random.uniform(2, 6))
        collecting.kill()
        collecting.wait()
        assert (folder / "scores.csv").read_bytes() == table
    assert start("collect", folder).wait() == 0


@pytest.mark.slow
def test_a_worker_that_was_frozen_beyond_its_lease_wakes_up(packed, tmp_path, start):
    folder = tmp_path / "sweep"
    frozen = start(*WORDS, folder)
    (first, _) = packed[0].cells
    while not (folder / "jobs" / f"{first}.1" / "metrics.jsonl").exists():
        time.sleep(0.05)
    signal_all(frozen, signal.SIGSTOP)
    assert not (folder / "cells" / first).exists()
    assert start(*WORDS, folder).wait() == 0
    assert (folder / "claims" / f"{first}.2").exists()
    signal_all(frozen, signal.SIGCONT)
    assert frozen.wait() == 0
    for cell, expected in packed[1].items():
        assert found(folder / "cells" / cell) == expected
    assert "writes no more" in (folder / "logs" / f"{first}.1").read_text()
