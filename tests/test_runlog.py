"""The workdir: one run's alone, locked, and never half written."""

import json

import jax
import pytest

from s2sjax.errors import UserError
from s2sjax.files import write_atomically, write_json
from s2sjax.results import dump_results
from s2sjax.runlog import LOCK, Workdir, environment

CONFIG = {"experiment": "e", "preset": "p", "arms": {"a": {"digits": 3}}, "seeds": (1, 2)}


def record(epoch: int, value: float = 0.1) -> dict:
    return {
        "arm": "a",
        "seed": 0,
        "split": "dev",
        "epoch": epoch,
        "metric": "loss",
        "value": value,
    }


def test_the_same_run_goes_on_and_another_is_refused_with_the_difference(tmp_path):
    folder = tmp_path / "deep" / "run"
    with Workdir(folder, CONFIG) as workdir:
        workdir.append([record(1)])
    with Workdir(folder, CONFIG) as workdir:
        assert workdir.records() == [record(1)]
    before = (folder / "config.json").read_text()
    other = CONFIG | {"arms": {"a": {"digits": 4}}}
    with pytest.raises(UserError, match=r"holds another run \(digits: 3 -> 4\)"):
        Workdir(folder, other)
    assert (folder / "config.json").read_text() == before


def test_settings_may_change_until_something_has_been_run(tmp_path):
    other = CONFIG | {"seeds": [3]}
    with Workdir(tmp_path, CONFIG):
        pass
    with Workdir(tmp_path, other) as workdir:
        assert json.loads(workdir.config_file.read_text())["seeds"] == [3]
        workdir.results_file.write_text("{}")
    with pytest.raises(UserError, match="holds another run"):
        Workdir(tmp_path, CONFIG)


def test_a_folder_with_something_else_in_it_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(UserError, match="not empty and holds no run"):
        Workdir(tmp_path, CONFIG)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_what_a_kill_while_starting_leaves_is_no_other_run(tmp_path):
    (tmp_path / LOCK).touch()
    (tmp_path / "config.json.partial").write_text("{")
    with Workdir(tmp_path, CONFIG) as workdir:
        assert json.loads(workdir.config_file.read_text())["seeds"] == [1, 2]
        assert workdir.moved == []


def test_going_on_under_other_versions_is_noticed(tmp_path):
    with Workdir(tmp_path, CONFIG) as workdir:
        held = workdir.config_file.read_text()
        workdir.config_file.write_text(held.replace(jax.__version__, "0.0.1"))
    with Workdir(tmp_path, CONFIG) as workdir:
        assert f"jax: 0.0.1 -> {jax.__version__}" in workdir.moved


def test_a_file_is_no_workdir(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="is a file"):
        Workdir(tmp_path / "file", CONFIG)


def test_two_processes_cannot_share_a_workdir(tmp_path):
    with Workdir(tmp_path, CONFIG), pytest.raises(UserError, match="another process is running"):
        Workdir(tmp_path, CONFIG)
    with Workdir(tmp_path, CONFIG):
        pass


def test_records_come_back_exactly_and_those_after_the_checkpoint_are_dropped(tmp_path):
    with Workdir(tmp_path, CONFIG) as workdir:
        told = [record(epoch, value) for epoch, value in ((1, 0.1 + 0.2), (2, 1 / 3), (3, 1e-17))]
        workdir.append(told[:2])
        workdir.append(told[2:])
        assert workdir.records() == told
        workdir.forget_after(2)
        assert workdir.records() == told[:2]


def test_a_line_cut_by_a_kill_is_dropped_but_damage_elsewhere_is_named(tmp_path):
    with Workdir(tmp_path, CONFIG) as workdir:
        workdir.append([record(1), record(2)])
        whole = workdir.metrics_file.read_text()
        workdir.metrics_file.write_text(whole[:-5])
        assert workdir.records() == [record(1)]
        workdir.metrics_file.write_text(whole[5:])
        with pytest.raises(UserError, match=r"line 1 of .*metrics\.jsonl is damaged"):
            workdir.records()


def test_a_damaged_config_is_named(tmp_path):
    (tmp_path / "config.json").write_text('{"experiment": ')
    with pytest.raises(UserError, match=r"config\.json is damaged"):
        Workdir(tmp_path, CONFIG)


def test_writing_replaces_a_file_whole(tmp_path):
    path = tmp_path / "a.json"
    write_atomically(path, "[1]")
    write_atomically(path, "[2]")
    assert json.loads(path.read_text()) == [2]
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, float("nan"))
    assert json.loads(path.read_text()) == [2]


def test_results_are_json_with_a_record_a_line():
    results = {"experiment": "e", "environment": environment(), "records": [record(1), record(2)]}
    text = dump_results(results)
    assert json.loads(text) == results
    assert sum(line.startswith('{"arm"') for line in text.splitlines()) == 2
    assert environment()["device_count"] == 2
