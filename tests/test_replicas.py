"""Stacks of runs: each is the single run, programs are traced once and lower for CUDA and TPU."""

from collections import Counter
from dataclasses import replace
from functools import cache

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

from s2sjax import replicas
from s2sjax.config import Model, Optimiser, Run, Text, Training
from s2sjax.dropout import Rates
from s2sjax.fit import Programs, make_programs
from s2sjax.group import Group, seed_keys
from s2sjax.taskconfig import Toy

RUN = Run(
    Toy(symbols=4, max_length=4, train=50, dev=20, test=20),
    model=Model(hidden_size=8),
    train=Training(epochs=2, batch_size=16),
)
SAMPLED = replace(
    RUN,
    model=Model(hidden_size=8, cell="gru", peeky=True, dropout=0.1, recurrent_dropout=0.1),
    optim=Optimiser(clip=0.5, schedule="cosine"),
    train=replace(RUN.train, teacher_forcing=0.5, label_smoothing=0.1, patience=2),
)


def two_arms(run: Run = RUN, seeds: int = 3) -> Group:
    """Two orders of the source, two learning rates, and two chances to drop where there is one."""
    model = replace(run.model, **{name: 2 * rate for name, rate in run.model.rates.items()})
    backward = replace(run, text=Text(source_order="reversed"), model=model, optim=fast(run.optim))
    return Group({"forward": run, "reversed": backward}, seeds, 0)


def fast(optim: Optimiser) -> Optimiser:
    return replace(optim, learning_rate=0.03)


@cache
def programs_of(run: Run, seeds: int) -> Programs:
    """Compiled once for all tests."""
    group = two_arms(run, seeds)
    return make_programs(group.trainer, group.mesh)


def first(tree, index):
    return jax.tree.map(lambda x: x[index], tree)


def same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


@cache
def single(run: Run):
    """The functions of a run without replicas, compiled with the same options."""
    trainer = two_arms(run).trainer
    functions = trainer.init, trainer.train_epoch, trainer.evaluate, trainer.watch
    return Programs(*(jax.jit(f, compiler_options=replicas.CPU_OPTIONS) for f in functions))


@pytest.mark.parametrize("run", [RUN, SAMPLED], ids=["plain", "sampled, clipped, stopping"])
def test_a_replica_is_the_single_run_bit_for_bit_whatever_its_arms_numbers(run):
    group, programs, alone = two_arms(run), programs_of(run, 3), single(run)
    train, dev = group.examples("train"), group.examples("dev")
    state = group.init(programs)
    rates = np.float32([0.001] * 3 + [0.03] * 3)
    np.testing.assert_array_equal(state.learning_rate, rates)
    keys = jax.vmap(lambda key: jax.random.fold_in(key, 1))(seed_keys([0, 1, 2] * 2))
    chosen = (0, 4)  # one of each arm, on different devices
    models = [arm.model for arm in group.arms.values() for _ in range(3)]
    singles = {i: alone.init(keys[i], rates[i], Rates.of(models[i])) for i in chosen}
    data = {i: jax.device_get((first(train, i), first(dev, i))) for i in chosen}
    for _ in range(2):
        state, losses = programs.train_epoch(state, train)
        watched = np.asarray(losses.mean(axis=1))  # as if it were the loss on dev
        state = programs.watch(state, watched)
        for i in chosen:
            singles[i], single_losses = alone.train_epoch(singles[i], data[i][0])
            np.testing.assert_array_equal(losses[i], single_losses)
            singles[i] = alone.watch(singles[i], watched[i])
    for i, own in singles.items():
        for part in ("params", "opt_state", "learning_rate", "rates", "update", "epoch", "best"):
            same(first(getattr(state, part), i), getattr(own, part))
        if run == RUN:
            scores = first(programs.evaluate(state.scored, dev), i)
            same(scores, alone.evaluate(own.scored, data[i][1]))


def test_vmapped_replicas_learn_what_those_taking_turns_learn():
    group, programs = two_arms(), programs_of(RUN, 3)
    train = group.examples("train")
    vmapped = replicas.lift(group.trainer.train_epoch, group.mesh, in_turns=False)
    state, losses = vmapped(group.init(programs), train)
    in_turns, alike = programs.train_epoch(group.init(programs), train)
    np.testing.assert_allclose(losses, alike, rtol=1e-4)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), state.params, in_turns.params
    )


def test_paired_replicas_share_weights_batches_and_questions():
    group = two_arms()
    state = group.init(programs_of(RUN, 3))
    forward, reversed_ = first(state, slice(0, 3)), first(state, slice(3, 6))
    same(forward.params, reversed_.params)
    np.testing.assert_array_equal(
        jax.random.key_data(forward.key), jax.random.key_data(reversed_.key)
    )
    train = group.examples("train")
    np.testing.assert_array_equal(train.target[:3], train.target[3:])
    assert (train.source[:3] != train.source[3:]).any()
    np.testing.assert_array_equal(np.sort(train.source[:3]), np.sort(train.source[3:]))
    # ... and seeds share none of the three
    wh = state.params["encoder"]["cell"]["wh"]
    assert not (wh[0] == wh[1]).all()
    assert (train.target[0] != train.target[1]).any()
    assert len(np.unique(jax.random.key_data(forward.key), axis=0)) == 3


def test_each_program_is_traced_once_for_all_arms_and_seeds():
    group = two_arms(SAMPLED, seeds=2)
    traced = Counter()

    def counting(function):
        def traced_function(*arguments):
            traced[function.__name__] += 1
            return function(*arguments)

        return replicas.lift(traced_function, group.mesh)

    trainer = group.trainer
    functions = trainer.init, trainer.train_epoch, trainer.evaluate, trainer.watch
    programs = Programs(*map(counting, functions))
    state = group.init(programs)
    train, dev = group.examples("train"), group.examples("dev")
    for _ in range(3):
        state, _ = programs.train_epoch(state, train)
        counts, _ = jax.device_get(programs.evaluate(state.params, dev))
        state = programs.watch(state, counts["loss"].right / counts["loss"].of)
    programs.evaluate(state.scored, dev)
    assert traced == {"init": 1, "train_epoch": 1, "evaluate": 1, "watch": 1}


def test_replicas_are_laid_out_over_the_devices_evenly():
    assert replicas.make_mesh(6).devices.size == 2
    assert replicas.make_mesh(3).devices.size == 1
    mesh = replicas.make_mesh(4)
    stack = replicas.spread(replicas.stack([np.full(2, i) for i in range(4)]), mesh)
    assert [shard.data.shape for shard in stack.addressable_shards] == [(2, 2), (2, 2)]
    doubled = replicas.lift(lambda x: 2 * x, mesh)(stack)
    np.testing.assert_array_equal(doubled[:, 0], [0, 2, 4, 6])
    assert doubled.sharding == stack.sharding


def test_no_replica_depends_on_which_others_ride_along():
    ends = []
    for seeds in (3, 1):
        group, programs = two_arms(seeds=seeds), programs_of(RUN, seeds)
        ends.append(programs.train_epoch(group.init(programs), group.examples("train"))[0])
    same(first(ends[0].params, np.array([0, 3])), ends[1].params)


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
@pytest.mark.parametrize("run", [RUN, SAMPLED], ids=["plain", "sampled, clipped, stopping"])
def test_train_and_decode_programs_lower_for_accelerators(run, platform):
    group = two_arms(run, seeds=1)
    trainer = group.trainer
    keys, rates = jax.random.split(jax.random.key(0), 2), jnp.zeros(2)
    drops = replicas.stack([Rates.of(arm.model) for arm in group.arms.values()])
    state = jax.eval_shape(jax.vmap(trainer.init), keys, rates, drops)
    data = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, jnp.int32), group.examples("train"))

    def exported(function, *arguments):
        lifted = replicas.lift(function, group.mesh, in_turns=False)  # as on an accelerator
        return jax.export.export(lifted, platforms=[platform])(*arguments)

    trained = exported(trainer.train_epoch, state, data)
    assert trained.platforms == (platform,)
    assert trained.nr_devices == 2
    assert trained.out_avals[-1].shape == (2, 4)  # losses
    assert len(trained.out_avals) == len(jax.tree.leaves(state)) + 1
    assert exported(trainer.evaluate, state.params, data).platforms == (platform,)
