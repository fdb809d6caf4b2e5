"""Stacks of runs: each is the single run, programs are traced once and lower for CUDA and TPU."""

from collections import Counter
from dataclasses import replace

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

from s2sjax import replicas
from s2sjax.ablation import Ablation
from s2sjax.config import Model, Run, Text, Toy, Training
from s2sjax.fit import make_programs

RUN = Run(
    Toy(symbols=4, max_length=4, train=50, dev=20, test=20),
    model=Model(hidden_size=8),
    train=Training(epochs=2, batch_size=16),
)


def two_arms(run: Run = RUN, seeds: int = 3) -> Ablation:
    arms = {o: replace(run, text=Text(source_order=o)) for o in ("forward", "reversed")}
    return Ablation(arms, seeds, 0)


def first(tree, index: int):
    return jax.tree.map(lambda x: x[index], tree)


@pytest.mark.parametrize("replica", [0, 4])
def test_a_replica_is_the_single_run_bit_for_bit(replica):
    ablation = two_arms()
    programs = make_programs(ablation.trainer, ablation.mesh)
    train, dev = ablation.examples("train"), ablation.examples("dev")
    state = ablation.init(programs)
    alone = jax.device_get(first(state, replica).replace(key=None))
    alone = alone.replace(key=state.key[replica])
    single_train, single_dev = jax.device_get((first(train, replica), first(dev, replica)))
    for _ in range(2):
        state, losses = programs.train_epoch(state, train)
        alone, single_losses = jax.jit(ablation.trainer.train_epoch)(alone, single_train)
        np.testing.assert_array_equal(losses[replica], single_losses)
    jax.tree.map(np.testing.assert_array_equal, first(state.params, replica), alone.params)
    counts, answers = programs.evaluate(state.params, dev)
    single_counts, single_answers = jax.jit(ablation.trainer.evaluate)(alone.params, single_dev)
    np.testing.assert_array_equal(answers[replica], single_answers)
    jax.tree.map(np.testing.assert_array_equal, first(counts, replica), single_counts)


def test_vmapped_replicas_learn_what_those_taking_turns_learn():
    ablation = two_arms()
    programs = make_programs(ablation.trainer, ablation.mesh)
    train = ablation.examples("train")
    vmapped = replicas.lift(ablation.trainer.train_epoch, ablation.mesh, in_turns=False)
    state, losses = vmapped(ablation.init(programs), train)
    in_turns, same = programs.train_epoch(ablation.init(programs), train)
    np.testing.assert_allclose(losses, same, rtol=1e-5)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), state.params, in_turns.params
    )


def test_paired_replicas_share_weights_batches_and_questions():
    ablation = two_arms()
    state = ablation.init(make_programs(ablation.trainer, ablation.mesh))
    forward, reversed_ = first(state, slice(0, 3)), first(state, slice(3, 6))
    jax.tree.map(np.testing.assert_array_equal, forward.params, reversed_.params)
    np.testing.assert_array_equal(
        jax.random.key_data(forward.key), jax.random.key_data(reversed_.key)
    )
    train = ablation.examples("train")
    np.testing.assert_array_equal(train.target[:3], train.target[3:])
    assert (train.source[:3] != train.source[3:]).any()
    np.testing.assert_array_equal(np.sort(train.source[:3]), np.sort(train.source[3:]))
    # ... and seeds share none of the three
    wh = state.params["encoder"]["cell"]["wh"]
    assert not (wh[0] == wh[1]).all()
    assert (train.target[0] != train.target[1]).any()
    assert len(np.unique(jax.random.key_data(forward.key), axis=0)) == 3


def test_each_program_is_traced_once_for_all_arms_and_seeds():
    ablation = two_arms(seeds=2)
    traced = Counter()

    def counting(function):
        def traced_function(*arguments):
            traced[function.__name__] += 1
            return function(*arguments)

        return replicas.lift(traced_function, ablation.mesh)

    train_epoch = counting(ablation.trainer.train_epoch)
    evaluate = counting(ablation.trainer.evaluate)
    state = ablation.init(make_programs(ablation.trainer, ablation.mesh))
    train, dev = ablation.examples("train"), ablation.examples("dev")
    for _ in range(3):
        state, _ = train_epoch(state, train)
        evaluate(state.params, dev)
    assert traced == {"train_epoch": 1, "evaluate": 1}


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
    wide, narrow = two_arms(seeds=2), two_arms(seeds=1)
    ends = []
    for ablation in (wide, narrow):
        programs = make_programs(ablation.trainer, ablation.mesh)
        ends.append(programs.train_epoch(ablation.init(programs), ablation.examples("train"))[0])
    jax.tree.map(
        lambda a, b: np.testing.assert_array_equal(a[::2], b), ends[0].params, ends[1].params
    )


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_train_and_decode_programs_lower_for_accelerators(platform):
    ablation = two_arms(seeds=1)
    trainer = ablation.trainer
    state = jax.eval_shape(jax.vmap(trainer.init), jax.random.split(jax.random.key(0), 2))
    data = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, jnp.int32), ablation.examples("train")
    )

    def exported(function, *arguments):
        lifted = replicas.lift(function, ablation.mesh, in_turns=False)  # as on an accelerator
        return jax.export.export(lifted, platforms=[platform])(*arguments)

    trained = exported(trainer.train_epoch, state, data)
    assert trained.platforms == (platform,)
    assert trained.nr_devices == 2
    assert trained.out_avals[-1].shape == (2, 4)  # losses
    assert len(trained.out_avals) == len(jax.tree.leaves(state)) + 1
    assert exported(trainer.evaluate, state.params, data).platforms == (platform,)
