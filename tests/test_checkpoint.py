"""Checkpoints: what is saved comes back, damage is named, only the last two stay."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from s2sjax import checkpoint
from s2sjax.dropout import Rates
from s2sjax.errors import UserError
from s2sjax.replicas import make_mesh, spread
from s2sjax.train import Best, TrainState

with_and_without_best = pytest.mark.parametrize("stops", [False, True], ids=["plain", "stops"])


def state(mesh, value: float, stops: bool = False) -> TrainState:
    params = {"w": np.full((2, 3), value, np.float32), "b": np.arange(2, dtype=np.float32)}
    moments = optax.adam(1e-3).init(jax.tree.map(jnp.asarray, params))
    moments = jax.tree.map(lambda x: np.broadcast_to(x, (2, *x.shape)).copy(), moments)
    keys = jax.random.split(jax.random.key(3), 2)
    rates = np.array([value, 1e-3], np.float32)
    drops = Rates(dropout=np.array([0.25, value], np.float32))
    updates, epochs = np.array([28, 28], np.int32), np.array([4, 4], np.int32)
    kept = {"w": params["w"] - 1, "b": params["b"]}
    best = Best(kept, np.array([value, np.inf], np.float32), np.array([3, 0], np.int32))
    best = best if stops else None
    return spread(TrainState(params, moments, rates, drops, keys, updates, epochs, best), mesh)


def equal(a, b) -> bool:
    def same(x, y):
        if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            x, y = jax.random.key_data(x), jax.random.key_data(y)
        alike = x.dtype == y.dtype and x.sharding.is_equivalent_to(y.sharding, x.ndim)
        return alike and bool((x == y).all())

    return all(jax.tree.leaves(jax.tree.map(same, a, b)))


@with_and_without_best
def test_what_is_saved_comes_back_on_one_device_or_two(tmp_path, stops):
    two, one = make_mesh(2), make_mesh(1)
    checkpoint.save(tmp_path, 4, state(two, 0.1, stops))
    assert equal(checkpoint.restore(tmp_path, 4, state(two, 9.0, stops)), state(two, 0.1, stops))
    assert equal(checkpoint.restore(tmp_path, 4, state(one, 9.0, stops)), state(one, 0.1, stops))


def test_what_is_scored_are_the_best_parameters_where_they_are_kept():
    plain, stops = (state(make_mesh(2), 0.1, kept) for kept in (False, True))
    assert equal(plain.scored, plain.params)
    assert equal(stops.scored, stops.best.params)
    assert not equal(stops.scored, stops.params)


def test_the_last_two_checkpoints_stay(tmp_path):
    mesh = make_mesh(2)
    assert checkpoint.latest(tmp_path / "none") is None
    for epoch in (1, 2, 5):
        checkpoint.save(tmp_path, epoch, state(mesh, epoch))
    assert checkpoint.latest(tmp_path) == 5
    assert sorted(p.name for p in tmp_path.iterdir()) == ["2", "5"]
    assert equal(checkpoint.restore(tmp_path, 2, state(mesh, 0)), state(mesh, 2))


def truncated(path):
    path.write_bytes(path.read_bytes()[:-7])


def flipped(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(bytes(data))


@pytest.mark.parametrize("harm", [truncated, flipped, lambda path: path.unlink()])
def test_a_damaged_checkpoint_is_named_and_left_alone(tmp_path, harm):
    mesh = make_mesh(2)
    checkpoint.save(tmp_path, 4, state(mesh, 0.1))
    files = [p for p in tmp_path.rglob("*") if p.is_file() and p.parent.name == "d"]
    for path in files:
        harm(path)
    before = sorted(p for p in tmp_path.rglob("*"))
    with pytest.raises(UserError, match=r"4 is damaged .*deleting that folder") as caught:
        checkpoint.restore(tmp_path, 4, state(mesh, 9.0))
    assert "\n" not in str(caught.value)
    assert sorted(p for p in tmp_path.rglob("*")) == before


def test_a_checkpoint_of_another_shape_is_refused(tmp_path):
    mesh = make_mesh(2)
    checkpoint.save(tmp_path, 4, state(mesh, 0.1))
    other = state(mesh, 0.1)
    other.params["w"] = spread(np.zeros((2, 4), np.float32), mesh)
    with pytest.raises(UserError, match="is damaged or of another run or version"):
        checkpoint.restore(tmp_path, 4, other)


def test_a_checkpoint_that_cannot_be_written_is_one_line(tmp_path, capfd):
    mesh = make_mesh(2)
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="checkpoint 4 cannot be written") as caught:
        checkpoint.save(tmp_path / "file" / "inside", 4, state(mesh, 0.1))
    assert "\n" not in str(caught.value)
    assert capfd.readouterr().err == ""
