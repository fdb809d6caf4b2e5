"""Linear probes: the regression, what it recovers and what it does not, swaps, the run again."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import orders

from s2sjax.analysis import probes
from s2sjax.analysis.knowledge import heats, measured, predictions, state_table, swap_table
from s2sjax.config import Model, Text, Training
from s2sjax.data.rows import Examples
from s2sjax.data.tasks import Addition, Toy
from s2sjax.model.decode import Greedy
from s2sjax.report.results import series
from s2sjax.study.group import Group
from s2sjax.train.loop import fit
from s2sjax.train.replicas import spread
from s2sjax.train.run import Run, make_trainer

RUN = Run(
    Addition(digits=2, train=40, dev=10, test=60),
    model=Model(hidden_size=5),
    train=Training(epochs=2, batch_size=16, eval_every=2),
)
PAIRS = [("27+95", "122"), ("10+10", "20"), ("99+99", "198"), ("45+50", "95")]


def planted(n: int = 600) -> tuple[np.ndarray, np.ndarray]:
    """Digits, and features that hold their size in one direction beside noise."""
    rng = np.random.default_rng(1)
    digit, mixed = rng.integers(10, size=n), rng.normal(size=(8, 8))
    x = np.column_stack([digit + 0.05 * rng.normal(size=n), rng.normal(size=(n, 7))])
    return digit, probes._standard(x @ mixed)


def test_facts_are_those_of_the_sum_on_paper():
    found = {name: label.tolist() for name, label in probes.facts(PAIRS, 2).items()}
    assert found == {
        "first t": [2, 1, 9, 4],
        "first u": [7, 0, 9, 5],
        "second t": [9, 1, 9, 5],
        "second u": [5, 0, 9, 0],
        "sum t": [2, 2, 9, 9],
        "sum u": [2, 0, 8, 5],
        "carry t": [1, 0, 1, 0],
        "carry u": [1, 0, 1, 0],
    }


def test_the_regression_is_least_squares_with_a_penalty():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(30, 4)), rng.normal(size=(30, 3))
    added = np.sqrt(0.2 * 30) * np.eye(4)  # rows of least squares that are the penalty
    wanted = np.linalg.lstsq(np.vstack([x, added]), np.vstack([y, np.zeros((4, 3))]))[0]
    np.testing.assert_allclose(probes.ridge(x, y, 0.2), wanted)


def test_digits_in_line_are_read_and_noise_is_not():
    digit, x = planted()
    shuffled = np.random.default_rng(2).permutation(digit)
    size, noise, half = *probes.fit(x[:300], [digit[:300], shuffled[:300]]), slice(300, None)
    assert (size.read(x[half]) == digit[half]).mean() > 0.95
    assert (noise.read(x[half]) == shuffled[half]).mean() < 0.2
    (constant,) = probes.fit(np.zeros((5, 2)), [np.array([3, 3, 1, 3, 1])])
    assert constant.read(np.zeros((2, 2))).tolist() == [3, 3]


def test_a_swap_changes_what_the_probe_reads_and_nothing_beside_it():
    digit, x = planted()
    (probe,) = probes.fit(x, [digit])
    other = np.roll(x, -1, axis=0)
    new = probes.swapped(x, other, probe.directions)
    np.testing.assert_array_equal(probe.read(new), probe.read(other))
    beside = np.linalg.svd(probe.directions)[0][:, np.linalg.matrix_rank(probe.directions) :]
    np.testing.assert_allclose(new @ beside, x @ beside, atol=1e-9)


def test_the_answers_of_a_linear_decoder_follow_the_sum_and_nothing_else():
    formatter, rng = RUN.formatter, np.random.default_rng(3)
    operands = rng.integers(10, 100, size=(400, 2)).tolist()
    asked = probes.ask(formatter, [(f"{a}+{b}", f"{a + b}") for a, b in operands], 2)
    sums = np.concatenate([np.eye(10)[asked.labels[f"sum {place}"]] for place in "tu"], axis=1)
    mixed = np.linalg.qr(rng.normal(size=(24, 24)))[0]
    states = np.concatenate([sums, 0.1 * rng.normal(size=(400, 4))], axis=1) @ mixed

    def answers(starts):
        tens, units = np.split((starts[0] @ mixed.T)[:, :20], 2, axis=1)
        pairs = zip(tens.argmax(1), units.argmax(1), strict=True)
        return np.array([[formatter.target_ids(f"{t}{u}")[1:] for t, u in pairs]])

    found = probes._follow(states[None], [asked], 200, answers)
    assert found[probes.SWAPPED]["sum u"] > 0.99
    assert found[probes.SWAPPED]["sum t"] > 0.99
    assert found[probes.RANDOM]["sum u"] < 0.4
    assert found[probes.SWAPPED]["first u"] < 0.4  # what the decoder does not read
    assert not any(name.startswith("carry") for name in found[probes.SWAPPED])


@pytest.mark.parametrize(
    ("text", "columns", "at"),
    [
        (Text(), "tu", [[0, 2, 3], [0, 1, 2]]),
        (Text(target_order="reversed"), "ut", [[0, 1, 2], [0, 1, 2]]),
        (Text(start="first_target"), "tu", [[0, 1, 2], [0, 0, 1]]),  # given: no step predicts it
        (Text(target_justify="right"), "tu", [[0, 2, 3], [0, 2, 3]]),
    ],
)
def test_each_place_has_the_step_that_predicts_it(text, columns, at):
    asked = probes.ask(replace(RUN, text=text).formatter, PAIRS[:2], 2)
    assert "".join(asked.columns) == columns
    assert asked.at.tolist() == at


def test_states_are_those_of_decoding_step_by_step():
    trainer = make_trainer(RUN)
    rows = Examples(*map(jnp.asarray, RUN.formatter.examples(PAIRS)))

    @jax.jit
    def both():
        ids = jnp.ones((1, 2), jnp.int32)
        params = trainer.model.init(jax.random.key(0), ids, ids)["params"]
        found = probes.states(trainer, params, rows, jnp.tile(jnp.arange(4), (len(PAIRS), 1)))
        encoding = trainer.encode(params, rows.source)
        state, wanted = encoding.initial_state, []
        for step in range(4):
            wanted.append(probes.flat(state))
            state, _ = trainer.step(params, state, rows.target[:, step], encoding)
        keys = jax.random.split(jax.random.key(1), len(PAIRS))
        own = trainer.decode(params, rows, keys, policy=Greedy(), max_decode_len=4).tokens[:, 0]
        others = [probes.written(trainer, params, rows, x) for x in (found[:, 0], found[::-1, 0])]
        return found, jnp.stack(wanted, axis=1), own, *others

    found, wanted, own, same, turned = both()
    assert found.shape == (4, 4, 10)  # of an LSTM, c and h
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(same, own)
    np.testing.assert_array_equal(turned, own[::-1])


class Broken(Group):
    """Its first replica diverges."""

    def begin(self, runs):
        before = super().begin(runs)
        rates = np.where([True, False, False, False], np.nan, before.state.learning_rate)
        rates = spread(rates.astype(np.float32), runs.programs.mesh)
        return before._replace(state=before.state.replace(learning_rate=rates))


def test_what_is_probed_is_the_run_and_a_diverged_replica_is_left_out(tmp_path):
    group = Broken(orders(RUN), seeds=2, first_seed=4)
    called = []
    found = {"records": probes.probe(group, [0, 2], called.append)}
    assert called == [1, 2]
    losses = series(found, "reversed", "epoch_loss", "train")
    recorded = {}
    runs = group.stack()
    fit(
        runs,
        group.begin(runs),
        checkpoints=tmp_path,
        on_epoch=lambda e: recorded.update({e.epoch: e}),
    )
    for epoch, of in recorded.items():
        assert losses[5][epoch] == float(of.losses[3].mean())
    assert [*series(found, "forward", "sum u", "test")] == [5]  # of seeds 4 and 5
    assert {*series(found, "reversed", "sum u", "test")[4]} == {0, 2}
    table = state_table(found, "reversed", "forward")
    assert [row[0] for row in table.rows[:8]] == [*probes.facts(PAIRS, 2)]
    assert [row[0] for row in table.rows[8:]] == [*probes.MEANS]
    through, late = heats(found, ["forward", "reversed"]).values()
    assert through["forward"].inputs == ["0", "2"]
    assert late["reversed"].inputs == ["read", "t", "u"]
    assert late["reversed"].matrix[0, 0] == through["reversed"].matrix[0, 1]
    known = measured(found, predictions("forward", "reversed"))
    assert 5 <= len(known) <= 9
    assert swap_table(found, ["no such arm"]) is None


@pytest.mark.parametrize(
    ("run", "can"),
    [
        (RUN, True),
        (replace(RUN, task=replace(RUN.task, operator="-")), False),
        (replace(RUN, task=replace(RUN.task, terms=3)), False),
        (replace(RUN, task=Toy()), False),
        (replace(RUN, text=Text(start="nothing"), model=Model(decoder="repeat")), False),
        (replace(RUN, model=Model(attention="dot", decoder_init="zero")), False),
    ],
)
def test_what_can_be_probed(run, can):
    assert probes.can_probe(Group({"arm": run}, 1, 0), "arm") == can
