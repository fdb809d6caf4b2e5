"""One run in two real processes, joined on loopback: the same numbers as in one process."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from s2sjax.errors import UserError
from s2sjax.train.processes import Distributed

SCRIPT = Path(__file__).resolve().parent.parent / "experiments" / "reverse_vs_forward.py"
TINY = "smoke --seeds 1 --task.train 400 --model.hidden-size 8 --train.epochs 4"
EVERY = "--train.eval-every 2 --train.checkpoint-every 2"


def start(folder, *options):
    """Run the script with one device; the process, its output in a pipe."""
    command = [sys.executable, SCRIPT, *TINY.split(), *EVERY.split(), "--workdir", folder, *options]
    environment = {**os.environ, "JAX_NUM_CPU_DEVICES": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(list(map(str, command)), text=True, env=environment, **pipes)


def joined(folder, *options):
    """Both processes of a run."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        where = f"127.0.0.1:{free.getsockname()[1]}"
    both = ["--coordinator", where, "--processes", 2]
    return [start(folder, *options, *both, "--process-id", i) for i in (0, 1)]


def ended(processes):
    """Exit codes and what was printed."""
    try:
        printed = [process.communicate(timeout=300) for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [process.returncode for process in processes], printed


def records(folder):
    return json.loads((folder / "results.json").read_text())["series"]


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The run in one process."""
    folder = tmp_path_factory.mktemp("processes") / "alone"
    codes, printed = ended([start(folder)])
    assert codes == [0], printed
    return folder


def test_a_run_in_two_processes_that_one_signal_stops_ends_as_one_in_one_process(alone, tmp_path):
    folder = tmp_path / "both"
    processes = joined(folder)
    seconds = folder / "seconds.txt"
    while not (seconds.exists() and seconds.read_text()) and processes[0].poll() is None:
        time.sleep(0.05)
    processes[1].send_signal(signal.SIGTERM)  # the first epoch is over: they train
    codes, printed = ended(processes)
    assert codes == [75, 75], printed
    said = [re.search(r"stopped after update (\d+) of 16 .* and saved", err) for _, err in printed]
    assert all(said), printed
    assert said[0][1] == said[1][1]  # pyrefly: ignore
    codes, printed = ended(joined(folder))
    assert codes == [0, 0], printed
    assert "going on from the checkpoint" in printed[0][0]
    assert "epoch" not in printed[1][0]  # but for what Gloo says
    assert records(folder) == records(alone)


@pytest.mark.slow
def test_two_processes_that_share_batches_differ_in_last_digits_alone(alone, tmp_path):
    codes, printed = ended(joined(tmp_path / "both", "--devices-per-replica", 2))
    assert codes == [0, 0], printed
    for one, other in zip(records(alone), records(tmp_path / "both"), strict=True):
        if one["metric"] in ("loss", "epoch_loss"):
            for seed, values in one["values"].items():
                np.testing.assert_allclose(values, other["values"][seed], rtol=1e-4)


@pytest.mark.slow
def test_where_one_of_two_processes_dies_the_other_ends_too_and_the_run_goes_on(alone, tmp_path):
    folder = tmp_path / "both"
    processes = joined(folder)
    while not (folder / "seconds.txt").exists() and processes[0].poll() is None:
        time.sleep(0.05)
    processes[1].kill()
    codes, _ = ended(processes)
    assert codes[0] not in (0, 75)
    codes, printed = ended(joined(folder))
    assert codes == [0, 0], printed
    assert records(folder) == records(alone)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"processes": 2}, "give all of --coordinator, --processes and --process-id, or none"),
        (
            {"coordinator": "a:1", "processes": 2, "process_id": 2},
            "Distributed.process_id must be at most 1, not 2",
        ),
        ({"coordinator": "a:1", "processes": 0, "process_id": 0}, "at least 1, not 0"),
    ],
)
def test_settings_of_processes_that_do_not_go_together_are_refused(settings, said):
    with pytest.raises(UserError, match=re.escape(said)):
        Distributed(**settings)


def test_processes_are_joined_where_they_are_given_or_a_launcher_started_several(monkeypatch):
    assert not Distributed().joins
    assert Distributed("on").joins
    three = Distributed(coordinator="host:1", processes=3, process_id=2)
    assert three.joins
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "2")
    assert Distributed().joins
    assert not Distributed("off").joins
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "1")
    assert not Distributed().joins
