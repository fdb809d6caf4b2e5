"""The workdir: one run's alone, locked, and never half written."""

import json
import os
import shutil
from contextlib import ExitStack
from pathlib import Path

import jax
import pytest

from s2sjax.errors import UserError
from s2sjax.files import write_atomically, write_json
from s2sjax.train.replicas import NUMERICS
from s2sjax.train.workdir import LOCK, Workdir, environment

CONFIG = {"experiment": "e", "preset": "p", "arms": {"a": {"digits": 3}}, "seeds": 2}


def record(epoch: int, value: float = 0.1, arm="a", split="dev", metric="loss") -> dict:
    return {
        "arm": arm,
        "seed": 0,
        "split": split,
        "epoch": epoch,
        "metric": metric,
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
    other = CONFIG | {"arms": {"rate / 3, b": {"rate": 0.1}}}
    told = r"run \(arms.a: {…} -> \(absent\); arms.rate / 3, b: \(absent\) -> {…}\): choose"
    with pytest.raises(UserError, match=told):
        Workdir(folder, other)


def pinned(sha256="1f", name="train.tsv", **task) -> dict:
    task = {"type": "Sentences", "train": name, "dev": None, "sha256": sha256, **task}
    train = {"epochs": 2, "shown": 5, "show_every": 25}
    return {"arms": {"train": {"task": task, "train": train}}, "seeds": 2}


def test_what_decides_no_number_is_no_other_run(tmp_path):
    with Workdir(tmp_path, pinned()) as workdir:
        workdir.append([record(1)])
        workdir.results_file.write_text("{}")
    moved = pinned(name="/data/pairs.tsv")
    moved["arms"]["train"]["train"] |= {"shown": 1, "show_every": 2}
    with Workdir(tmp_path, moved, lambda *_: pytest.fail("it is the same run")) as workdir:
        assert workdir.results_file.read_text() == "{}"
        assert json.loads(workdir.config_file.read_text()).items() >= moved.items()
    with Workdir(tmp_path, moved | {"seeds": 3}, lambda held, asked: held == moved) as workdir:
        assert workdir.cohorts == (2, 1)
    moved |= {"seeds": 3}
    for other, said in (
        (pinned("2e"), r"the content of its files has changed; task\.train: /data"),
        (pinned(dev="train.tsv"), r"task\.dev: None -> train\.tsv"),
        (pinned(None, name="x.tsv"), r"the content of its files has changed; task\.train: /data"),
    ):
        with pytest.raises(UserError, match=said):
            Workdir(tmp_path, other | {"seeds": 3})
    longer = pinned()
    longer["arms"]["train"]["train"]["epochs"] = 3
    with pytest.raises(UserError, match=r"holds another run \(train.epochs: 2 -> 3\): choose"):
        Workdir(tmp_path, longer | {"seeds": 3})


def test_settings_may_change_until_something_has_been_run(tmp_path):
    other = CONFIG | {"seeds": 3}
    with Workdir(tmp_path, CONFIG):
        pass
    with Workdir(tmp_path, other) as workdir:
        assert json.loads(workdir.config_file.read_text())["seeds"] == 3
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
    (tmp_path / "config.json.17.partial").write_text("{")
    with Workdir(tmp_path, CONFIG) as workdir:
        assert json.loads(workdir.config_file.read_text())["seeds"] == 2
        assert workdir.environment_changes == []


def test_going_on_under_other_versions_is_noticed(tmp_path):
    with Workdir(tmp_path, CONFIG) as workdir:
        held = workdir.config_file.read_text()
        workdir.config_file.write_text(held.replace(jax.__version__, "0.0.1"))
    with Workdir(tmp_path, CONFIG) as workdir:
        assert f"jax: 0.0.1 -> {jax.__version__}" in workdir.environment_changes


def test_a_file_is_no_workdir(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="is a file"):
        Workdir(tmp_path / "file", CONFIG)


@pytest.mark.parametrize("name", ["a[b]", "a\\b"])
def test_a_folder_that_checkpoints_cannot_be_loaded_from_is_refused(tmp_path, name):
    with pytest.raises(UserError, match="Orbax loads from no folder"):
        Workdir(tmp_path / name / "run", CONFIG)
    assert not [*tmp_path.iterdir()]


def test_a_name_that_is_no_utf8_is_refused_before_anything_is_made(tmp_path):
    folder = Path(os.fsdecode(bytes(tmp_path / "run") + b"\xff"))
    with pytest.raises(UserError, match=r"udcff' is no UTF-8.*: choose") as caught:
        Workdir(folder, CONFIG)
    assert str(caught.value).isascii()
    assert not folder.exists()


def test_two_processes_cannot_share_a_workdir(tmp_path):
    with Workdir(tmp_path, CONFIG), pytest.raises(UserError, match="another process is running"):
        Workdir(tmp_path, CONFIG)
    with Workdir(tmp_path, CONFIG):
        pass


@pytest.mark.parametrize("anew", [False, True])
def test_a_workdir_that_was_deleted_or_made_anew_is_written_to_no_more(tmp_path, anew):
    folder = tmp_path / "run"
    with ExitStack() as both:
        old = both.enter_context(Workdir(folder, CONFIG))
        old.append([record(1)])
        shutil.rmtree(folder)
        if anew:
            both.enter_context(Workdir(folder, CONFIG)).append([record(2)])
        for write in (
            old.check,
            lambda: old.append([record(3)]),
            lambda: old.append_at_once([record(3)]),
            lambda: old.forget({("a", 0)}, 0, set()),
            lambda: old.spent(1.0),
        ):
            with pytest.raises(UserError, match=r"run was deleted or moved, or another run has it"):
                write()
        if anew:
            assert Workdir.records(old) == [record(2)]
        else:
            assert not folder.exists()


def write_to(folder):
    with Workdir(folder, CONFIG) as workdir:
        workdir.append([record(1)])
        workdir.spent(1.0)


@pytest.mark.parametrize("name", [LOCK, "metrics.jsonl", "seconds.txt"])
@pytest.mark.parametrize("there", [True, False])
def test_no_link_is_followed_out_of_a_workdir(tmp_path, name, there):
    folder, precious = tmp_path / "run", tmp_path / "precious.txt"
    with Workdir(folder, CONFIG):
        pass
    if there:
        precious.write_text("years of work")
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to(precious)
    with pytest.raises(UserError, match=f"{name} is a link"):
        write_to(folder)
    assert precious.exists() == there
    assert not there or precious.read_text() == "years of work"


def test_records_come_back_exactly_however_they_are_added(tmp_path):
    with Workdir(tmp_path, CONFIG) as workdir:
        told = [record(epoch, value) for epoch, value in ((1, 0.1 + 0.2), (2, 1 / 3), (3, 1e-17))]
        workdir.append(told[:1])
        workdir.append(told[1:])
        assert workdir.records() == told
        workdir.append_at_once([record(4), record(5, 5e-324)])
        assert workdir.records() == [*told, record(4), record(5, 5e-324)]
        workdir.forget(set(), 0, set())
        assert workdir.records() == [*told, record(4), record(5, 5e-324)]


def test_what_a_replica_has_after_its_checkpoint_is_forgotten_of_no_other(tmp_path):
    def of(arm, seed=0):
        loss = {"split": "train", "metric": "epoch_loss"}
        made = [
            record(2, arm=arm),
            record(2, arm=arm, **loss),
            record(3, arm=arm),  # of a run that was shorter: its last epoch
            record(4, arm=arm),
            record(4, arm=arm, **loss),
            record(4, arm=arm, split="train"),  # scored in the end, like test
            record(4, arm=arm, split="test"),
        ]
        return [r | {"seed": seed} for r in made]

    a, b, later = of("a"), of("b"), of("a", 1)
    with Workdir(tmp_path, CONFIG) as workdir:
        workdir.append([*a, *b, *later])
        workdir.forget({("a", 0), ("b", 0)}, 4, {2, 4})
        kept = [[rs[0], rs[1], rs[3], rs[4]] for rs in (a, b)]
        assert workdir.records() == [*kept[0], *kept[1], *later]
        workdir.forget({("b", 0)}, 2, {2})
        assert workdir.records() == [*kept[0], *kept[1][:2], *later]
        workdir.forget({("a", 0)}, 0, set())
        assert workdir.records() == [*kept[1][:2], *later]


def test_a_run_that_grew_keeps_its_records_and_its_results_under_another_name(tmp_path):
    def more(held, asked):
        return asked["seeds"] >= held["seeds"]

    with Workdir(tmp_path, CONFIG) as workdir:
        assert workdir.cohorts == ()
        workdir.append([record(1)])
        workdir.results_file.write_text("first")
    for number, (seeds, epochs, cohorts) in enumerate(
        [(5, 1, (2, 3)), (5, 9, (2, 3)), (6, 9, (2, 3, 1))], start=1
    ):
        asked = CONFIG | {"seeds": seeds, "epochs": epochs}
        with Workdir(tmp_path, asked, more) as workdir:
            assert workdir.cohorts == cohorts
            assert workdir.records() == [record(1)]
            assert not workdir.results_file.exists()
            kept = {n: tmp_path / f"results.before-{n}.json" for n in range(1, number + 1)}
            assert {*tmp_path.glob("results.before-*")} == {*kept.values()}
            told = ["first"] + ["next"] * (number - 1)
            assert [path.read_text() for path in kept.values()] == told
            workdir.results_file.write_text("next")
        with Workdir(tmp_path, asked, more) as workdir:
            assert workdir.cohorts == cohorts
            assert workdir.results_file.read_text() == "next"
            assert workdir.environment_changes == []
    with pytest.raises(UserError, match=r"run \(epochs: 9 -> .absent.; seeds: 6 -> 2"):
        Workdir(tmp_path, CONFIG, more)


def test_forgetting_before_anything_was_measured_leaves_no_file(tmp_path):
    with Workdir(tmp_path, CONFIG) as workdir:
        workdir.forget({("a", 0)}, 0, set())
        assert not workdir.metrics_file.exists()


def test_records_added_at_once_are_all_there_or_none(tmp_path, monkeypatch):
    with Workdir(tmp_path, CONFIG) as workdir:
        workdir.append([record(1)])
        with pytest.raises(ValueError, match="not JSON compliant"):
            workdir.append_at_once([record(2), record(3, float("nan"))])
        monkeypatch.setattr(os, "replace", interrupted)
        with pytest.raises(KeyboardInterrupt):
            workdir.append_at_once([record(2), record(3)])
        assert workdir.records() == [record(1)]


def interrupted(*_):
    raise KeyboardInterrupt


def test_a_line_after_one_that_a_kill_cut_short_is_found_once_that_is_forgotten(tmp_path):
    with Workdir(tmp_path, CONFIG) as workdir:
        workdir.append([record(1), record(2)])
        cut = workdir.metrics_file.read_text()[:-20]
        workdir.metrics_file.write_text(cut)
        workdir.forget(set(), 0, set())
        workdir.append([record(3)])
        assert workdir.records() == [record(1), record(3)]


# --- time spent ----------------------------------------------------------------------------


def test_time_spent_adds_up_over_starts(tmp_path):
    with Workdir(tmp_path, CONFIG) as workdir:
        assert workdir.seconds() == 0.0
        workdir.spent(1.25)
        workdir.spent(0.0004)
    with Workdir(tmp_path, CONFIG) as workdir:
        workdir.spent(100_000.5)
        assert workdir.seconds() == pytest.approx(100_001.75)


@pytest.mark.parametrize("cut", range(1, 8))
def test_a_line_of_the_clock_that_is_cut_short_costs_only_itself(tmp_path, cut):
    with Workdir(tmp_path, CONFIG) as workdir:
        workdir.spent(7.5)
        before = workdir.clock_file.stat().st_size
        workdir.spent(123.456)
        whole = workdir.clock_file.read_bytes()
        assert len(whole) == before + 8
        workdir.clock_file.write_bytes(whole[:-cut])
        assert workdir.seconds() == 7.5
        workdir.spent(2.25)
        assert workdir.seconds() == 9.75


@pytest.mark.parametrize(
    "harm",
    [
        b"",
        b"\n\n",
        b"nan\n",
        b"inf",
        b"-3.000",
        b"1e9",
        b"12.3.456",
        b"\xff\xfe\x00 1",
        b"\x00" * 9,
    ],
)
def test_a_damaged_clock_is_no_reason_to_stop(tmp_path, harm):
    with Workdir(tmp_path, CONFIG) as workdir:
        workdir.clock_file.write_bytes(b"1.500\n" + harm)
        workdir.spent(2.0)
        assert workdir.seconds() == 3.5


def test_other_settings_start_the_clock_anew(tmp_path):
    with Workdir(tmp_path, CONFIG) as workdir:
        workdir.spent(5.0)
    with Workdir(tmp_path, CONFIG | {"seeds": 3}) as workdir:
        assert workdir.seconds() == 0.0


# --- damage --------------------------------------------------------------------------------


def test_a_line_cut_by_a_kill_is_dropped_but_damage_elsewhere_is_named(tmp_path):
    with Workdir(tmp_path, CONFIG) as workdir:
        workdir.append([record(1), record(2)])
        whole = workdir.metrics_file.read_text()
        workdir.metrics_file.write_text(whole[:-5])
        assert workdir.records() == [record(1)]
        workdir.metrics_file.write_text(whole[5:])
        with pytest.raises(UserError, match=r"line 1 of .*metrics\.jsonl is damaged"):
            workdir.records()


@pytest.mark.parametrize(
    "damage",
    [
        "7",
        json.dumps(record(1, arm=1)),  # pyrefly: ignore
        json.dumps({k: v for k, v in record(1).items() if k != "split"}),
        json.dumps(record(1) | {"more": 1}),
        json.dumps(record(1) | {"value": None}),
        json.dumps(record(1) | {"value": float("nan")}),
        json.dumps(record(1) | {"value": 10**400}),
        "[" * 100_000,
    ],
)
def test_a_record_that_is_none_is_named_with_its_line(tmp_path, damage):
    with Workdir(tmp_path, CONFIG) as workdir:
        workdir.append([record(1)])
        workdir.metrics_file.write_text(f"{workdir.metrics_file.read_text()}{damage}\n")
        with pytest.raises(UserError, match=r"line 2 of .*metrics\.jsonl is damaged") as caught:
            workdir.forget({("a", 0)}, 0, set())
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "damage",
    [
        '{"experiment": ',
        "[]",
        '{"environment": 7}',
        '{"environment": []}',
        '{"cohorts": 7}',
        '{"seeds": NaN}',
        '{"a": ' * 100_000,
    ],
)
def test_a_damaged_config_is_named(tmp_path, damage):
    (tmp_path / "config.json").write_text(damage)
    with pytest.raises(UserError, match=r"config\.json is damaged") as caught:
        Workdir(tmp_path, CONFIG)
    assert "\n" not in str(caught.value)
    assert (tmp_path / "config.json").read_text() == damage


def test_writing_replaces_a_file_whole(tmp_path):
    path = tmp_path / "a.json"
    write_atomically(path, "[1]")
    write_atomically(path, "[2]")
    assert json.loads(path.read_text()) == [2]
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, float("nan"))
    assert json.loads(path.read_text()) == [2]


def test_two_processes_that_write_one_file_leave_one_whole(tmp_path, monkeypatch):
    path, real = tmp_path / "a.tsv", os.replace

    def replaced_later(partial, target):
        with monkeypatch.context() as other:
            other.setattr(os, "replace", real)
            other.setattr(os, "getpid", lambda: 1)
            write_atomically(path, "theirs")
        assert path.read_text() == "theirs"
        real(partial, target)

    monkeypatch.setattr(os, "replace", replaced_later)
    write_atomically(path, "ours")
    assert path.read_text() == "ours"
    assert [p.name for p in tmp_path.iterdir()] == ["a.tsv"]


def test_the_environment_tells_devices_and_versions():
    assert environment()["device_count"] == 2
    assert environment()["jax"] == jax.__version__


def test_flags_and_settings_that_decide_numbers_are_compared_when_a_run_goes_on(
    tmp_path, monkeypatch
):
    with Workdir(tmp_path, CONFIG) as workdir:
        assert not {*environment()} & {"XLA_FLAGS", *NUMERICS}
    monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_enable_fast_math=true")
    with jax.enable_x64(True), Workdir(tmp_path, CONFIG) as workdir:
        assert workdir.environment_changes == [
            "XLA_FLAGS: (absent) -> --xla_cpu_enable_fast_math=true",
            "jax_enable_x64: (absent) -> True",
        ]
