"""The job files of experiments/jobs/ on a real Slurm, which is started here."""

import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import slurm_cluster
from reverse_vs_forward import EXPERIMENT

from s2sjax.cli import make_console
from s2sjax.study.cells import run_job
from s2sjax.study.collect import collect
from s2sjax.study.leases import Claims
from s2sjax.study.sweep import load

ROOT = Path(__file__).parents[1]
JOBS = Path("experiments/jobs")
PATIENCE = 240  # seconds; a machine may have much else to do

SMALL = shlex.split(
    "--task.digits 2 --task.train 64 --task.dev 16 --task.test 16 --train.batch-size 16 "
    "--train.epochs 60 --train.eval-every 20 --train.checkpoint-every 1"
)
TINY = ["experiments/reverse_vs_forward.py", "smoke", "--seeds=2", "--model.hidden-size=8", *SMALL]
SIZES, RATES, SEEDS = (4, 6, 8), (1e-3, 3e-3), range(100, 110)  # of a sweep

pytestmark = pytest.mark.skipif(bool(slurm_cluster.missing()), reason=slurm_cluster.missing())


class Cluster:
    """Commands of a cluster, as a user types them in the checkout."""

    def __init__(self, environment):
        self.environment = environment

    def __call__(self, *command) -> str:
        words = [str(word) for word in command]
        done = subprocess.run(
            words, cwd=ROOT, env=self.environment, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, (words, done.stdout, done.stderr)
        return done.stdout.strip()

    def submit(self, folder, *words) -> str:
        return self("sbatch", "--parsable", f"--output={folder}/slurm-%j.out", *words)

    def tasks(self, number) -> list[dict[str, str]]:
        """What Slurm knows of a job, or of every task of an array."""
        shown = self("scontrol", "show", "job", number, "--oneliner").splitlines()
        return [dict(re.findall(r"(\w+)=(\S*)", line)) for line in shown]

    def job(self, number) -> dict[str, str]:
        (found,) = self.tasks(number)
        return found

    def until(self, number, seconds=PATIENCE, **wanted):
        """Wait until a job is described so; fail where it has ended in another way."""
        until = time.monotonic() + seconds
        while not wanted.items() <= (job := self.job(number)).items():
            told = {name: job[name] for name in ("JobState", "ExitCode", "Restarts", "Reason")}
            assert time.monotonic() < until, told
            assert job["JobState"] not in {"FAILED", "TIMEOUT", "NODE_FAIL"}, told
            time.sleep(0.3)

    def start_again_at_once(self, number):
        """Slurm waits two minutes before it starts a job again; in the same second it cannot."""
        self("scontrol", "update", f"JobId={number}", "StartTime=now+3")


@pytest.fixture(scope="module")
def slurm(tmp_path_factory):
    folder = tmp_path_factory.mktemp("slurm")
    with slurm_cluster.cluster(folder / "cluster") as environment:
        compiled = {
            "JAX_COMPILATION_CACHE_DIR": str(folder / "compiled"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        }
        yield Cluster(
            {**environment, **compiled, "PYTHON": sys.executable, "PYTHONPATH": str(ROOT)}
        )


def wait_for(ready, seconds=PATIENCE):
    until = time.monotonic() + seconds
    while not (found := ready()):
        assert time.monotonic() < until
        time.sleep(0.1)
    return found


def newest(workdir) -> int:
    """Number of the newest checkpoint, 0 where there is none."""
    there = (path.name for path in workdir.glob("checkpoints/1/*"))
    return max((int(name) for name in there if name.isdecimal()), default=0)


def python_of(slurm, number) -> int:
    """The process of a running job that trains."""

    def found():
        listed = slurm("scontrol", "listpids", number).split("\n")[1:]
        pids = [line.split()[0] for line in listed]
        names = {pid: Path(f"/proc/{pid}/cmdline") for pid in pids}
        return [
            int(pid) for pid, path in names.items()
            if path.exists() and path.read_bytes().split(b"\0")[0] == sys.executable.encode()
        ]  # fmt: skip

    return wait_for(found)[0]


def is_pending(pid, number) -> bool:
    """Whether a signal has been sent to a process that is frozen."""
    status = Path(f"/proc/{pid}/status").read_text()
    return any(
        int(mask, 16) >> (number - 1) & 1 for mask in re.findall(r"(?:Shd|Sig)Pnd:\s(\w+)", status)
    )


def processes() -> list[str]:
    """The commands of all that run on this machine, and where Slurm's configuration is."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            found.append(
                " ".join(
                    (path / name).read_bytes().decode(errors="replace")
                    for name in ("cmdline", "environ")
                )
            )
    return found


def outcome(workdir):
    """What a run has found, but not how long it took, or on what."""
    results = json.loads((workdir / "results.json").read_text())
    for name in ("seconds", "environment"):
        assert results.pop(name)
    return results, (workdir / "metrics.jsonl").read_bytes()


@pytest.fixture(scope="module")
def undisturbed(slurm, tmp_path_factory):
    """What the run finds in one process that nothing stops."""
    folder = tmp_path_factory.mktemp("undisturbed")
    number = slurm.submit(folder, JOBS / "run.sbatch", *TINY, "--workdir", folder / "run")
    slurm.until(number, JobState="COMPLETED", ExitCode="0:0", Restarts="0")
    return outcome(folder / "run")


def preempt(slurm, folder):
    """Take all CPUs from the jobs that run."""
    options = ["--partition=preempting", "--ntasks=2", "--wrap=true"]
    slurm.until(slurm.submit(folder, *options), JobState="COMPLETED")


def test_cancelled_preempted_and_out_of_time_a_run_ends_as_if_undisturbed(
    slurm, undisturbed, tmp_path
):
    run = tmp_path / "run"
    command = [JOBS / "run.sbatch", *TINY, "--workdir", run]
    cancelled = slurm.submit(tmp_path, *command)
    wait_for(lambda: newest(run))
    slurm("scancel", cancelled)
    slurm.until(cancelled, JobState="CANCELLED", Restarts="0")

    # Another submission goes on.
    saved, number = newest(run), slurm.submit(tmp_path, *command)
    wait_for(lambda: newest(run) > saved)
    preempt(slurm, tmp_path)
    slurm.until(number, JobState="PENDING", Restarts="1")

    # About a minute is left: the warning comes when Slurm looks next, every half minute. The run
    # sleeps until it is there: it would have ended before.
    saved = newest(run)
    slurm.start_again_at_once(number)
    wait_for(lambda: newest(run) > saved)
    python = python_of(slurm, number)
    os.kill(python, signal.SIGSTOP)
    hours, minutes, seconds = map(int, slurm.job(number)["RunTime"].split(":"))
    limit = 60 * hours + minutes + (1 if seconds < 15 else 2)
    slurm("scontrol", "update", f"JobId={number}", f"TimeLimit={limit}")
    wait_for(lambda: is_pending(python, signal.SIGUSR1))
    os.kill(python, signal.SIGCONT)
    slurm.until(number, JobState="PENDING", Restarts="2")
    slurm.start_again_at_once(number)
    slurm.until(number, JobState="COMPLETED", Restarts="2", ExitCode="0:0")
    assert outcome(run) == undisturbed
    log = (tmp_path / f"slurm-{number}.out").read_text()
    assert log.count("going on from the checkpoint") == 3, log


def test_a_run_in_two_processes_finds_them_and_ends_as_one_that_is_undisturbed(
    slurm, undisturbed, tmp_path
):
    run = tmp_path / "run"
    options = ["--nodes=1", "--ntasks-per-node=2", "--cpus-per-task=1", "--mem-per-cpu=1G"]
    options += ["--export=ALL,JAX_NUM_CPU_DEVICES=1"]
    command = [*options, JOBS / "distributed.sbatch", *TINY, "--workdir", run]
    number = slurm.submit(tmp_path, *command)
    wait_for(lambda: newest(run))
    preempt(slurm, tmp_path)
    slurm.until(number, JobState="PENDING", Restarts="1")
    slurm.start_again_at_once(number)
    slurm.until(number, JobState="COMPLETED", Restarts="1", ExitCode="0:0")
    log = (tmp_path / f"slurm-{number}.out").read_text()
    assert log.count("and saved; the same command goes on") == 2, log  # said by both processes
    assert log.count("going on from the checkpoint") == 1, log
    assert outcome(run) == undisturbed


def test_a_sweep_that_is_preempted_twice_ends_in_the_table_of_one_process(slurm, tmp_path):
    folder, reference = tmp_path / "sweep", tmp_path / "reference"
    grid = [f"model.hidden_size={','.join(map(str, SIZES))}",
            f"optim.learning_rate={','.join(map(str, RATES))}"]  # fmt: skip
    command = ["experiments/sweep.py", "reverse_vs_forward", "smoke", *SMALL]
    command += [word for setting in grid for word in ("--grid", setting)]
    command += [f"--seeds={SEEDS[0]}..{SEEDS[-1]}", f"--out={folder}", "--on=slurm"]
    command += ["--slurm=--mem=2G --cpus-per-task=1"]

    # Cells that differ in the learning rate share a job: three jobs, too many for one array.
    said = slurm(sys.executable, *command)
    assert len(SIZES) == slurm_cluster.LARGEST + 1
    arrays = re.findall(r"array (\d+): (\d) jobs", said)
    assert [int(jobs) for _, jobs in arrays] == [slurm_cluster.LARGEST, 1], said
    (collecting,) = re.findall(r"job (\d+): collects", said)
    again = slurm(sys.executable, *command)
    assert "3 jobs wait or run already" in again
    assert "array" not in again

    def tasks():
        return [task for number, _ in arrays for task in slurm.tasks(number)]

    for _ in range(2):
        before = {path: newest(path) for path in folder.glob("jobs/*")}
        wait_for(lambda b=before: [p for p in folder.glob("jobs/*") if newest(p) > b.get(p, 0)])
        preempt(slurm, tmp_path)
        for task in tasks():
            if task["JobState"] == "PENDING" and int(task["Restarts"]) > 0:
                slurm.start_again_at_once(task["JobId"])

    for name in ("cells", "claims", "jobs", "logs"):
        (reference / name).mkdir(parents=True)
    shutil.copy(folder / "sweep.json", reference)
    alone = load(reference, lambda _: EXPERIMENT)
    for job in alone.jobs:
        run_job(alone, Claims(alone.claims_folder).take(job, 0), make_console(quiet=True))
    collect(alone)

    slurm.until(collecting, JobState="COMPLETED", ExitCode="0:0")
    assert {task["JobState"] for task in tasks()} == {"COMPLETED"}
    assert sum(int(task["Restarts"]) for task in tasks()) >= 2
    for name in ("scores.csv", "comparisons.csv"):
        table = (folder / name).read_text()
        assert table == (reference / name).read_text()
    assert len(table.splitlines()) > len(SIZES) * len(RATES)


def test_wrong_settings_fail_and_are_not_tried_again(slurm, tmp_path):
    number = slurm.submit(tmp_path, JOBS / "run.sbatch", *TINY, "--train.batch-size", "0")
    wait_for(lambda: slurm.job(number)["JobState"] == "FAILED")
    job = slurm.job(number)
    assert (job["ExitCode"], job["Restarts"]) == ("78:0", "0")
    log = (tmp_path / f"slurm-{number}.out").read_text()
    assert log == "error: --train.batch-size must be at least 1, not 0\n"


def test_no_daemon_and_no_job_outlives_tests_that_are_killed(tmp_path):
    code = (
        "import pathlib, subprocess, sys, time, slurm_cluster\n"
        f"with slurm_cluster.cluster(pathlib.Path({str(tmp_path)!r})) as environment:\n"
        "    job = ['sbatch', '--output=/dev/null', '--wrap=exec sleep 98765']\n"
        "    subprocess.run(job, env=environment, check=True, stdout=subprocess.DEVNULL)\n"
        "    print('started', flush=True)\n"
        "    time.sleep(1000)\n"
    )
    command, environment = [sys.executable, "-c", code], {**os.environ, "PYTHONPATH": "tests"}
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"started\n"
        wait_for(lambda: any("98765" in one for one in processes()))
        assert sum(str(tmp_path) in one for one in processes()) > 1
        process.kill()
    wait_for(lambda: not any(str(tmp_path) in one or "98765" in one for one in processes()))
