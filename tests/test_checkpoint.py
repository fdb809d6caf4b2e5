"""Checkpoints: what is saved comes back, damage is named, only the last two stay."""

import jax
import numpy as np
import pytest

from s2sjax.errors import UserError
from s2sjax.train import checkpoint

STATE = {"w": np.arange(600, dtype=np.float32).reshape(2, 300), "n": [np.int32(7), np.zeros(3)]}
STATE["n"][1] = STATE["n"][1].astype(np.float32)


def other(value):
    return {**STATE, "w": np.full((2, 300), value, np.float32)}


def same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)
    assert jax.tree.structure(a) == jax.tree.structure(b)
    assert [x.dtype for x in jax.tree.leaves(a)] == [x.dtype for x in jax.tree.leaves(b)]


def test_what_is_saved_comes_back_and_the_last_two_stay(tmp_path):
    assert checkpoint.latest(tmp_path / "none") is None
    for number in (1, 9, 10):
        checkpoint.save(tmp_path, number, other(number))
    assert checkpoint.latest(tmp_path) == 10
    assert sorted(p.name for p in tmp_path.iterdir()) == ["10", "9"]
    for number in (9, 10):
        same(checkpoint.restore(tmp_path, number, STATE), other(number))
    like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), STATE)
    same(checkpoint.restore(tmp_path, 10, like), other(10))


def truncated(path):
    path.write_bytes(path.read_bytes()[:-7])


def flipped(path):
    data = bytearray(path.read_bytes())
    data[len(data) * 4 // 5] ^= 0x01
    path.write_bytes(bytes(data))


@pytest.mark.parametrize("harm", [truncated, flipped, lambda path: path.unlink()])
def test_a_damaged_checkpoint_is_named_with_its_cause_and_left_alone(tmp_path, harm, capfd):
    checkpoint.save(tmp_path, 4, STATE)
    for path in (p for p in tmp_path.rglob("*") if p.is_file() and p.parent.name == "d"):
        harm(path)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UserError, match=r"4 is damaged .*\(.+\)$") as caught:
        checkpoint.restore(tmp_path, 4, STATE)
    assert "\n" not in str(caught.value)
    assert sorted(tmp_path.rglob("*")) == before
    log = tmp_path.with_name(f"{tmp_path.name}.error.txt")
    assert str(log) in str(caught.value)
    assert log.read_text().startswith("Traceback (most recent call last)")
    assert capfd.readouterr() == ("", "")


def test_the_last_checkpoint_that_is_whole_is_used_and_a_line_names_each_after_it(tmp_path, capfd):
    assert checkpoint.restore_last(tmp_path, STATE) is None
    for number in (3, 4):
        checkpoint.save(tmp_path, number, other(number))
    truncated(tmp_path / "4" / "state" / "_METADATA")
    truncated(tmp_path / "4" / "state" / "manifest.ocdbt")
    for set_aside in (False, True):
        assert checkpoint.latest(tmp_path) == 4
        same(checkpoint.restore_last(tmp_path, STATE, set_aside=set_aside), other(3))
        said = capfd.readouterr().err
        assert said.startswith(f"warning: checkpoint {tmp_path / '4'} is damaged")
        assert said.endswith("; the one before it is used\n")
        assert said.count("\n") == 1
    assert checkpoint.latest(tmp_path) == 3
    checkpoint.save(tmp_path, 4, other(5))
    same(checkpoint.restore_last(tmp_path, STATE), other(5))
    assert [path.name[:10] for path in sorted(tmp_path.iterdir())] == ["3", "4", "4.damaged-"]
    assert capfd.readouterr() == ("", "")
    for number in "34":
        flipped(tmp_path / number / "state" / "manifest.ocdbt")
    with pytest.raises(UserError, match=r"4 is damaged .*\): choose another --workdir, or delete"):
        checkpoint.restore_last(tmp_path, STATE)


@pytest.mark.parametrize("like", [{**STATE, "w": np.zeros((2, 4), np.float32)}, {"w": STATE["w"]}])
def test_a_checkpoint_of_another_run_is_refused(tmp_path, like):
    checkpoint.save(tmp_path, 4, STATE)
    with pytest.raises(UserError, match="is damaged or of another run or version"):
        checkpoint.restore(tmp_path, 4, like)


def test_a_renamed_checkpoint_and_changed_content_are_refused(tmp_path, monkeypatch):
    checkpoint.save(tmp_path, 4, STATE)
    (tmp_path / "4").rename(tmp_path / "5")
    with pytest.raises(UserError, match=r"5 is damaged .*it is not what was saved as 5"):
        checkpoint.restore(tmp_path, 5, STATE)
    with monkeypatch.context() as patch:
        seal = checkpoint._seal(6, STATE)
        patch.setattr(checkpoint, "_seal", lambda number, state: seal)
        checkpoint.save(tmp_path, 6, other(1))  # as if a bit of it had flipped since
    with pytest.raises(UserError, match="it is not what was saved as 6"):
        checkpoint.restore(tmp_path, 6, STATE)


def test_a_checkpoint_that_cannot_be_written_is_one_line(tmp_path, capfd):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="checkpoint 4 cannot be written") as caught:
        checkpoint.save(tmp_path / "file" / "inside", 4, STATE)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr().err == ""
