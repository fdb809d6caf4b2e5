"""Stacks of runs: each is the single run, and programs lower for CUDA and TPU."""

import os
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import SUMS, orders, row, same, sentences

from s2sjax.config import Model, Optimiser
from s2sjax.errors import UserError
from s2sjax.study.group import Group
from s2sjax.train import replicas
from s2sjax.train.run import Run

HERE = Path(__file__).resolve().parent

SAMPLED = replace(
    SUMS,
    model=Model(hidden_size=8, cell="gru", peeky=True, dropout=0.1, recurrent_dropout=0.1),
    optim=Optimiser(clip=0.5, schedule="cosine"),
    train=replace(SUMS.train, teacher_forcing=0.5, label_smoothing=0.1, patience=2),
)


def arms(run: Run) -> dict[str, Run]:
    """Two orders of the source, two learning rates, and two chances to drop where there is one."""
    first, second = orders(run).values()
    model = replace(run.model, **{name: 2 * rate for name, rate in run.model.rates.items()})
    optim = replace(run.optim, learning_rate=0.03)
    return {"forward": first, "reversed": replace(second, model=model, optim=optim)}


def arguments(group, number=0):
    """What a chunk of the first epoch takes behind state and losses, and its compiled function."""
    runs = group.stack()
    order = np.stack([np.random.default_rng(0).permutation(50)] * len(group.replicas))
    mesh = runs.programs.mesh
    batches = runs.schedule.batches(order, number)
    batches = [replicas.stack([*x], mesh, batches=True) for x in batches]
    rows = replicas.stack([split.examples for split in runs.train], mesh)
    widths = runs.schedule.buckets[number][:2]
    return runs.programs("train_chunk", widths=widths), (rows, *batches)


def two_epochs(group):
    """State and losses after a part of two epochs, by replica."""
    runs = group.stack()
    chunk, others = arguments(group)
    state, losses = group.begin(runs)
    for _ in range(2):
        state, losses, finite = chunk(state, losses, *others, 0, 3)
        assert finite.all()
        state = runs.programs("close_epoch")(state, losses[:, 0])  # as if it were the loss on dev
    return replicas.fetch((state, losses), len(group.replicas))


@pytest.mark.parametrize(
    ("make", "seeds"),
    [
        (lambda: arms(SUMS), 3),
        (lambda: {"reversed": arms(SAMPLED)["reversed"]}, 3),  # on two devices, so one is filled up
        (lambda: arms(plain_sentences()), 2),
    ],
    ids=["two arms", "sampled, clipped, stopping", "sentences"],
)
def test_a_replica_is_the_single_run_bit_for_bit_whatever_its_arms_numbers(make, seeds):
    group = Group(make(), seeds, 0)
    assert group.programs.mesh.devices.size == 2
    together = two_epochs(group)
    for i in (0, len(group.replicas) - 1):  # on different devices
        arm, seed = group.replicas[i]
        alone = two_epochs(Group({arm: group.arms[arm]}, 1, seed))
        same(row(together, i), row(alone, 0))


def plain_sentences() -> Run:
    """Without attention, whose last digits depend on the number of devices on a CPU."""
    run = sentences()
    return replace(run, model=replace(run.model, attention=None))


def test_a_replica_with_attention_is_the_single_run_but_for_last_digits():
    group = Group(arms(sentences()), 1, 0)
    together, alone = two_epochs(group), two_epochs(Group({"only": group.run}, 1, 0))
    close = partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6)
    jax.tree.map(close, row(together, 0), row(alone, 0))


@pytest.mark.parametrize("make", [lambda: SUMS, lambda: SAMPLED, sentences], ids=["a", "b", "c"])
def test_devices_that_share_batches_change_last_digits_alone(make):
    run = arms(make())["reversed"]
    shared = Group({"reversed": run}, 1, 0, devices_per_replica=2)
    assert dict(shared.programs.mesh.shape) == {"replicas": 1, "data": 2}
    assert "all-reduce" in compiled_text(shared)  # so the rows are split
    close = partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-6)
    jax.tree.map(close, two_epochs(shared), two_epochs(Group({"reversed": run}, 1, 0)))


def compiled_text(group):
    chunk, others = arguments(group)
    return chunk.lower(*group.begin(group.stack()), *others, 0, 3).compile().as_text()


EIGHT = """
import jax
jax.config.update("jax_num_cpu_devices", 8)
import sys
from dataclasses import replace
from pathlib import Path
import numpy as np
from s2sjax.errors import Interrupted
from s2sjax.study.group import Group
from s2sjax.train import checkpoint, replicas
from s2sjax.train.loop import fit, resume
from s2sjax.train.stopping import Stop
from tiny import SUMS, orders, same

print([replicas.make_mesh(n).devices.size for n in (8, 11, 17)])
print([dict(replicas.make_mesh(n, 3).shape) for n in (1, 2, 3)])

def go_on(folder, share, epochs):
    group = Group(orders(replace(SUMS, train=replace(SUMS.train, epochs=3))), 1, 0, share)
    runs, stop, losses = group.stack(), Stop(), []
    loop_state, _ = resume(runs, group.begin(runs), folder)
    def on_epoch(epoch):
        losses.append(epoch.losses)
        if epoch.epoch == epochs:
            stop.signal = 15
    try:
        fit(runs, loop_state, checkpoints=folder, on_epoch=on_epoch, stop=stop)
    except Interrupted:
        print(dict(group.programs.mesh.shape))
    return losses

root = Path(sys.argv[1])
whole = go_on(root / "whole", 1, 3)
moved = go_on(root / "moved", 1, 1) + go_on(root / "moved", 4, 2) + go_on(root / "moved", 1, 3)
same(whole[0], moved[0])
np.testing.assert_allclose(np.array(whole), np.array(moved), rtol=1e-4)
"""


def test_a_run_moves_from_few_devices_to_eight_and_back(tmp_path):
    command = [sys.executable, "-c", EIGHT, tmp_path]
    path = f"{HERE.parent}{os.pathsep}{HERE}"
    environment = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    one, four = "{'replicas': 2, 'data': 1}", "{'replicas': 2, 'data': 4}"
    assert done.stdout.splitlines() == [
        "[8, 6, 6]",
        "[{'replicas': 1, 'data': 3}, {'replicas': 2, 'data': 3}, {'replicas': 2, 'data': 3}]",
        *(one, one, four, one),
    ]


@pytest.mark.parametrize("share", [-1, 0, 3])
def test_more_devices_than_there_are_are_refused(share):
    with pytest.raises(UserError, match=f"--devices-per-replica {share}: there are 2 devices"):
        replicas.make_mesh(1, share)


def test_vmapped_replicas_learn_what_those_taking_turns_learn():
    group = Group(arms(SUMS), 3, 0)
    runs = group.stack()
    chunk, others = arguments(group)
    function = partial(runs.programs.trainer.train_chunk, widths=runs.schedule.buckets[0][:2])
    vmapped = replicas.lift(function, runs.programs.mesh, shared=2, in_turns=False)
    one = vmapped(*group.begin(runs), *others, 0, 4)
    two = chunk(*group.begin(runs), *others, 0, 4)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4),
        (one[0].params, one[1]),
        (two[0].params, two[1]),
    )


def test_paired_replicas_share_weights_batches_and_questions():
    group = Group(arms(SUMS), 3, 0)
    state, _ = replicas.fetch(group.begin(group.stack()), 6)
    forward, reversed_ = row(state, slice(0, 3)), row(state, slice(3, 6))
    same((forward.params, forward.key), (reversed_.params, reversed_.key))
    train = [split.examples for split in group.rows("train")]
    for i in range(3):
        same(train[i].target, train[3 + i].target)
        same(np.sort(train[i].source), np.sort(train[3 + i].source))
        assert (train[i].source != train[3 + i].source).any()
    # ... and seeds share none of the three
    wh = state.params["encoder"]["cell"]["wh"]
    assert not (wh[0] == wh[1]).all()
    assert (train[0].target != train[1].target).any()
    assert len(np.unique(forward.key, axis=0)) == 3


@pytest.mark.parametrize(("runs", "devices"), [(1, 1), (2, 2), (3, 2), (4, 2), (11, 2)])
def test_replicas_are_laid_out_evenly_and_filled_up_where_the_devices_do_not_share(runs, devices):
    mesh = replicas.make_mesh(runs)
    assert mesh.devices.size == devices
    stack = replicas.stack([np.full(2, i) for i in range(runs)], mesh)
    turns = -(-runs // devices)
    assert [s.data.shape for s in stack.addressable_shards] == [(turns, 2)] * devices
    doubled = replicas.lift(lambda x: 2 * x, mesh)(stack)
    assert doubled.sharding == stack.sharding
    np.testing.assert_array_equal(replicas.fetch(doubled, runs)[:, 0], 2 * np.arange(runs))


@pytest.mark.parametrize("make", [lambda: SUMS, lambda: SAMPLED, sentences], ids=["a", "b", "c"])
def test_programs_that_train_and_score_lower_for_accelerators(make):
    group = Group(arms(make()), 1, 0)
    runs = group.stack()
    trainer, mesh = group.programs.trainer, group.programs.mesh
    widths = runs.schedule.buckets[-1][:2]
    state, losses = group.begin(runs)
    _, others = arguments(group, len(runs.schedule.buckets) - 1)
    shapes = partial(jax.tree.map, lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype))
    number = jax.ShapeDtypeStruct((), jnp.int32)

    def exported(function, *given, shared=0):
        lifted = replicas.lift(function, mesh, shared=shared, in_turns=False)  # as there
        found = jax.export.export(lifted, platforms=["cuda", "tpu"])(*shapes(given))
        assert found.platforms == ("cuda", "tpu")
        assert found.nr_devices == 2
        return found

    chunk = partial(trainer.train_chunk, widths=widths)
    trained = exported(chunk, state, losses, *others, number, number, shared=2)
    assert len(trained.out_avals) == len(jax.tree.leaves(state)) + 2
    batches = jax.tree.map(lambda x: jnp.zeros((2, 1, 4, x), jnp.int32), widths)
    batches = type(others[0])(*batches)
    evaluate = partial(trainer.evaluate, max_decode_len=widths[1] - 1)
    exported(evaluate, state.params, batches, jnp.ones((2, 1, 4)))


def test_where_jax_has_started_it_goes_on_with_the_devices_there_are(monkeypatch):
    jax.devices()
    monkeypatch.delenv("JAX_NUM_CPU_DEVICES")
    monkeypatch.setattr(replicas.os, "sched_getaffinity", lambda _: range(9), raising=False)
    with pytest.warns(UserWarning, match="started before with 2 of 9 CPU cores"):
        replicas.use_all_cores()
    monkeypatch.setattr(replicas.os, "sched_getaffinity", lambda _: range(2))
    replicas.use_all_cores()  # no warning


def test_devices_that_are_not_there_are_one_clear_line(monkeypatch):
    def absent():
        raise AssertionError

    monkeypatch.setenv("JAX_NUM_CPU_DEVICES", "0")
    with pytest.raises(UserError, match="JAX_NUM_CPU_DEVICES must be at least 1, not 0"):
        replicas.use_all_cores()
    monkeypatch.undo()
    monkeypatch.setattr(jax, "devices", absent)
    with pytest.raises(UserError, match=r"cannot start the platform .* unset JAX_PLATFORMS"):
        replicas.use_all_cores()


def test_what_decides_numbers_is_set_whatever_the_environment_says():
    before = {name: getattr(jax.config, name) for name in replicas.NUMERICS}
    assert before == replicas.NUMERICS
    for name, other in zip(replicas.NUMERICS, ("highest", True, "strict", 7, False), strict=True):
        jax.config.update(name, other)
    replicas.use_all_cores()
    assert {name: getattr(jax.config, name) for name in replicas.NUMERICS} == before
