"""Curves for TensorBoard and Weights & Biases: a run a seed, grouped by arm, nothing else."""

import json
import struct
import sys
from types import SimpleNamespace

import export
import pytest

from s2sjax import cli
from s2sjax.study.ablation import COUNT
from s2sjax.study.records import record
from s2sjax.train.workdir import DIVERGED

ARMS = ("forward", "rate / 3")


@pytest.fixture
def workdir(tmp_path):
    records = [
        record(arm, seed, "dev", epoch, "loss", seed + epoch / 4)
        for arm in ARMS
        for seed in (5, 6)
        for epoch in (2, 4)
    ]
    records += [record("forward", 5, "test", 4, COUNT, 2.0)]
    records += [record("forward", 6, "train", 4, DIVERGED, 9.0)]
    lines = "".join(json.dumps(r) + "\n" for r in records)
    (tmp_path / "metrics.jsonl").write_text(lines + '{"arm": "forw')
    arms = {arm: {"model": {"hidden_size": 8}} for arm in ARMS}
    (tmp_path / "config.json").write_text(json.dumps({"arms": arms}))
    return tmp_path


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["export.py", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        cli.main(export.export)
    return ended.value.code


def scalars(path):
    """Tag, step and value of every point of an event file."""
    from tensorboardX.proto.event_pb2 import Event

    data, found = path.read_bytes(), []
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        event = Event.FromString(data[12 : 12 + length])
        found += [(value.tag, event.step, value.simple_value) for value in event.summary.value]
        data = data[16 + length :]
    return found


def test_tensorboard_has_a_folder_an_arm_and_in_it_one_a_seed(workdir, monkeypatch, capsys):
    for _ in range(2):  # made anew
        assert run(monkeypatch, workdir, "tensorboard") == 0
    files = sorted(path for path in workdir.rglob("*") if "tfevents" in path.name)
    folders = [str(path.parent.relative_to(workdir / "tensorboard")) for path in files]
    assert folders == [f"{arm}/seed {seed}" for arm in ("forward", "rate _ 3") for seed in (5, 6)]
    assert scalars(files[1]) == [("dev/loss", 2, 6.5), ("dev/loss", 4, 7.0)]
    assert f"tensorboard --logdir {workdir / 'tensorboard'}" in capsys.readouterr().out


def test_it_follows_a_run_until_it_is_finished_and_writes_every_point_once(workdir, monkeypatch):
    def later(seconds):
        with (workdir / "metrics.jsonl").open("a") as file:
            file.write('ard", "seed": 5, "split": "dev", "epoch": 6, "metric": "loss", ')
            file.write('"value": 3.0}\n')
        (workdir / "results.json").write_text("{}")

    monkeypatch.setattr(export.time, "sleep", later)
    assert run(monkeypatch, workdir, "tensorboard", "--follow") == 0
    (file,) = (workdir / "tensorboard" / "forward" / "seed 5").iterdir()
    assert [step for _, step, _ in scalars(file)] == [2, 4, 6]


def test_wandb_has_an_offline_run_a_seed_in_a_group_an_arm(workdir, monkeypatch):
    begun, logged = [], []
    started = SimpleNamespace(log=lambda v, step: logged.append((v, step)), finish=lambda: None)
    init = lambda **settings: begun.append(settings) or started
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=init))
    assert run(monkeypatch, workdir, "wandb", "--project", "mine") == 0
    assert [(s["group"], s["name"]) for s in begun] == [
        (arm, f"{arm} seed {seed}") for arm in ARMS for seed in (5, 6)
    ]
    assert {(s["mode"], s["project"], s["dir"]) for s in begun} == {
        ("offline", "mine", str(workdir))
    }
    assert begun[0]["config"] == {"model": {"hidden_size": 8}}
    assert logged[:2] == [({"dev/loss": 5.5}, 2), ({"dev/loss": 6.0}, 4)]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere", "tensorboard"], "config.json does not exist: give the workdir of a run"),
        (["{}", "wandb", "--follow"], "--follow is for tensorboard"),
        (["{}", "wandb"], "this needs the package wandb: pip install wandb, or"),
        (["{}", "mlflow"], "mlflow"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(workdir, monkeypatch, capsys, arguments, said):
    monkeypatch.setitem(sys.modules, "wandb", None)
    before = sorted(workdir.rglob("*"))
    assert run(monkeypatch, *(word.format(workdir) for word in arguments)) == 78
    err = capsys.readouterr().err
    assert said in err
    assert err.count("\n") == 1
    assert sorted(workdir.rglob("*")) == before
