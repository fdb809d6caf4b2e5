"""Beam search: all sequences enumerated, a plain search that never stops early, greedy answers."""

from functools import cache, cached_property, partial

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

from s2sjax.config import Model
from s2sjax.errors import UserError
from s2sjax.model.beam import Beam, beam_search, tile
from s2sjax.model.decode import Greedy, decode
from s2sjax.model.seq2seq import Seq2Seq

NO_SYMBOL = -1
EOS, BATCH = 2, 12
same = partial(jax.tree.map, np.testing.assert_array_equal)
near = partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5)


def log_softmax(logits):
    logits = np.float64(logits)
    return logits - np.log(np.exp(logits - logits.max()).sum()) - logits.max()


class Recurrent:
    """A small recurrent network: its logits depend on all symbols read, in their order."""

    vocab = 3

    @staticmethod
    def params(seed):
        rng = np.random.default_rng(seed)
        return {
            "a": rng.normal(0, 1, (4, 4)).astype("float32"),
            "read": rng.normal(0, 1, (3, 4)).astype("float32"),
            "write": rng.normal(0, 2, (4, 3)).astype("float32"),
        }

    @staticmethod
    def start(seed):
        rng = np.random.default_rng(seed + 1000)
        return rng.normal(0, 1, (BATCH, 4)).astype("float32"), rng.integers(0, 3, BATCH)

    @staticmethod
    def step(xp, p, state, token):
        state = xp.tanh(state @ p["a"] + p["read"][token])
        return state, state @ p["write"]


class Table:
    """A look-up by state and symbol: no rounding, so that what is equal is exactly equal.

    Symbols 3 and 4 are twins: equal logits, and equal states behind them.
    """

    vocab = 6

    @staticmethod
    def params(seed):
        table = np.random.default_rng(seed).normal(0, 1.5, (11, 6, 6)).astype("float32")
        table[..., 4] = table[..., 3]
        return table

    @staticmethod
    def start(seed):
        rng = np.random.default_rng(seed + 1000)
        return rng.integers(0, 11, BATCH), rng.integers(0, 6, BATCH)

    @staticmethod
    def step(xp, table, state, token):
        token = xp.where(token == 4, 3, token)
        state = (5 * state + token + 1) % 11
        return state, table[state, token]


@partial(jax.jit, static_argnums=(0, 1, 2, 3))
def compiled(kind, beam, length, eos_id, params, state, start):
    step = partial(kind.step, jnp, params)
    return beam_search(
        step,
        state,
        start,
        beam=beam,
        eos_id=eos_id,
        max_decode_len=length,
        collect=lambda state: {"state": state},
    )


def run(kind, beam, length, seed, eos_id=EOS, rows=slice(None)):
    state, start = (jnp.asarray(x)[rows] for x in kind.start(seed))
    params = jax.tree.map(jnp.asarray, kind.params(seed))
    return jax.device_get(
        compiled(kind, beam, length, eos_id, params, state, start.astype(jnp.int32))
    )


class Hypothesis:
    """A sequence with its log probabilities and the states they came from, in Python."""

    def __init__(self, state, token, tokens=(), log_probs=(), states=()):
        self.state, self.token = state, token
        self.tokens, self.log_probs, self.states = tokens, log_probs, states

    def continued(self, kind, params):
        """By every symbol."""
        state, logits = kind.step(np, params, self.state, self.token)
        return [
            Hypothesis(
                state, v, (*self.tokens, v), (*self.log_probs, log_prob), (*self.states, state)
            )
            for v, log_prob in enumerate(log_softmax(logits))
        ]

    @property
    def total(self):
        return sum(self.log_probs)

    def score(self, alpha):
        return self.total / ((5 + len(self.tokens)) / 6) ** alpha


def best(hypotheses, size, score):
    return sorted(hypotheses, key=score, reverse=True)[:size]  # stable


def starts(kind, seed):
    states, tokens = kind.start(seed)
    return [Hypothesis(s, t) for s, t in zip(states, tokens.tolist(), strict=True)]


def assert_rows(beams, expected, alpha, length):
    """Each row's hypotheses, best first, are those expected, to the last symbol."""
    for i, row in enumerate(expected):
        for j, hypothesis in enumerate(row):
            rest = length - len(hypothesis.tokens)
            assert beams.tokens[i, j].tolist() == [*hypothesis.tokens] + [EOS] * rest
            near(beams.log_probs[i, j], [*hypothesis.log_probs] + [0] * rest)
            near(beams.scores[i, j], hypothesis.score(alpha))
            states = beams.collected["state"][i, j]
            near(states[: length - rest], hypothesis.states)
            assert not states[length - rest :].any()


# --- every sequence ------------------------------------------------------------------------


def every(first, kind, params, length):
    """All that a row may say, the end symbol last or nowhere."""
    going, ended = [first], []
    for _ in range(length):
        grown = [h for before in going for h in before.continued(kind, params)]
        ended += [h for h in grown if h.token == EOS]
        going = [h for h in grown if h.token != EOS]
    return ended + going


@pytest.mark.parametrize(("alpha", "length"), [(0.0, 4), (0.6, 4), (3.0, 4), (0.6, 1)])
def test_a_wide_beam_is_exhaustive_search(alpha, length):
    size = 2 ** (length + 1) - 1  # ended after 1, 2, ... symbols, or never
    for seed in range(3):
        expected = []
        for first in starts(Recurrent, seed):
            found = every(first, Recurrent, Recurrent.params(seed), length)
            assert len(found) == size
            expected.append(best(found, size, lambda h: h.score(alpha)))
        beams = run(Recurrent, Beam(size, alpha), length, seed)
        assert_rows(beams, expected, alpha, length)
        np.testing.assert_allclose(np.exp(beams.log_probs.sum(-1)).sum(-1), 1, rtol=1e-5)


def test_places_that_no_sequence_can_fill_are_last_and_blank():
    beams, full = (run(Recurrent, Beam(size, 0.6), 4, 0) for size in (40, 31))
    same(jax.tree.map(lambda x: x[:, :31], beams), full)
    assert (beams.scores[:, 31:] == -np.inf).all()
    assert (beams.tokens[:, 31:] == EOS).all()
    assert not beams.log_probs[:, 31:].any()
    assert not beams.collected["state"][:, 31:].any()


# --- the search ----------------------------------------------------------------------------


def search(first, kind, params, size, alpha, length):
    """One row in Python, never stopping early.

    Besides the hypotheses it gives, after every step, those kept and whether one that goes on could
    still become better than the worst of them.
    """
    score, going, kept, history = lambda h: h.score(alpha), [first], [], []
    for _ in range(length):
        grown = [h for before in going for h in before.continued(kind, params)]
        grown = best(grown, len(grown), lambda h: h.total)
        kept = best(kept + [h for h in grown[:size] if h.token == EOS], size, score)
        going = [h for h in grown if h.token != EOS][:size]
        hope = going[0].total / ((5 + length) / 6) ** alpha
        history.append((kept, len(kept) < size or hope > score(kept[-1])))
    return best(kept + going, size, score), history


LENGTH = 8
BEAMS = [Beam(1, 0.7), Beam(2, 0.0), Beam(3, 1.0), Beam(5, 0.6), Beam(4, 10.0)]


@cache
def searched(beam, seed):
    params = Table.params(seed)
    settings = (Table, params, beam.size, beam.length_penalty, LENGTH)
    return [search(first, *settings) for first in starts(Table, seed)]


@pytest.mark.parametrize("beam", BEAMS, ids=str)
def test_it_is_a_plain_search_that_never_stops_early(beam):
    for seed in range(3):
        beams = run(Table, beam, LENGTH, seed)
        assert_rows(beams, [row for row, _ in searched(beam, seed)], beam.length_penalty, LENGTH)
        assert (np.diff(beams.scores, axis=1) <= 0).all()
        if beam.size > 1:
            assert (np.diff(beams.scores, axis=1) == 0).any()  # twins: ties were told apart


@pytest.mark.parametrize("beam", [BEAMS[1], BEAMS[3], BEAMS[4]], ids=str)
def test_it_stops_when_nothing_better_can_come_and_no_sooner(beam):
    made = []

    def counted(state, token):
        jax.debug.callback(lambda: made.append(1))
        return Table.step(jnp, jnp.asarray(Table.params(0)), state, token)

    @jax.jit
    def alone(state, start):
        settings = {"beam": beam, "eos_id": EOS, "max_decode_len": LENGTH}
        return beam_search(counted, state, start, **settings).tokens

    taken, due = [], []
    for i, (row, history) in enumerate(searched(beam, 0)):
        made.clear()
        state, start = (jnp.asarray(x[i : i + 1], jnp.int32) for x in Table.start(0))
        tokens = alone(state, start)
        jax.effects_barrier()
        assert tokens[0, 0, : len(row[0].tokens)].tolist() == [*row[0].tokens]
        taken.append(len(made))
        steps = [n for n, (_, hope) in enumerate(history, start=1) if not hope]
        due.append(min([*steps, LENGTH]))
    assert taken == due
    assert (min(due) < LENGTH) == (beam.length_penalty < 10)


@pytest.mark.parametrize(
    ("size", "logits", "scores"),
    [
        (1, [0.0, 0.0, 0.0, 0.0], [-np.log(4)]),  # what goes on could at most come to the same
        (3, [0.0, -np.inf, -np.inf, -np.inf], [0, -np.inf, -np.inf]),  # nothing goes on
    ],
)
def test_it_does_not_go_on_for_an_equal_or_for_nothing(size, logits, scores):
    made = []

    @jax.jit
    def alone(start):
        def step(state, token):
            jax.debug.callback(lambda: made.append(1))
            return state, jnp.broadcast_to(jnp.array(logits), (*token.shape, 4))

        return beam_search(step, (), start, beam=Beam(size, 0.0), eos_id=0, max_decode_len=5)

    beams = alone(jnp.zeros(1, jnp.int32))
    jax.effects_barrier()
    assert len(made) == 1
    near(beams.scores[0], scores)
    assert not beams.tokens.any()


def test_of_equals_the_one_that_ended_first_then_the_smallest_ids():
    @partial(jax.jit, static_argnums=0)
    def flat(eos_id):
        step = lambda state, token: (state, jnp.zeros((*token.shape, 4)))
        settings = {"beam": Beam(3, 0.0), "eos_id": eos_id, "max_decode_len": 2}
        return beam_search(step, (), jnp.zeros(2, jnp.int32), **settings).tokens

    assert flat(NO_SYMBOL).tolist() == [[[0, 0], [0, 1], [0, 2]]] * 2
    assert flat(1).tolist() == [[[1, 1], [0, 1], [0, 0]]] * 2


# --- greedy --------------------------------------------------------------------------------


# --- strangers -----------------------------------------------------------------------------


def test_a_row_does_not_depend_on_the_batch_it_rides_in():
    whole = run(Table, BEAMS[3], LENGTH, 1)
    for rows in (np.array([7, 1, 11]), np.random.default_rng(0).permutation(BATCH)):
        part = run(Table, BEAMS[3], LENGTH, 1, rows=rows)
        same(part, jax.tree.map(lambda x, rows=rows: x[rows], whole))


def test_vmap_over_stacks_of_batches_is_each_batch_alone():
    beam = Beam(3, 0.6)
    state, start = (jnp.asarray(x, jnp.int32).reshape(2, -1) for x in Table.start(1))
    stacked = jax.vmap(partial(compiled, Table, beam, LENGTH, EOS, Table.params(1)))(state, start)
    stacked = jax.tree.map(lambda x: x.reshape(BATCH, *x.shape[2:]), stacked)
    same(jax.device_get(stacked), run(Table, beam, LENGTH, 1))


def test_tiled_rows_stand_side_by_side():
    tree = {"a": jnp.array([[1, 2], [3, 4]]), "none": None}
    assert tile(tree, 2)["a"].tolist() == [[1, 2], [1, 2], [3, 4], [3, 4]]


# --- settings ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"size": 0}, "Beam.size must be at least 1, not 0"),
        ({"length_penalty": -0.1}, "Beam.length_penalty must be at least 0, not -0.1"),
        ({"length_penalty": float("nan")}, "Beam.length_penalty must be at least 0, not nan"),
        ({"length_penalty": 10.5}, "Beam.length_penalty must be at most 10, not 10.5"),
    ],
)
def test_settings_that_cannot_be_are_refused_by_name(wrong, message):
    with pytest.raises(UserError) as refused:
        Beam(**({"size": 3, "length_penalty": 0.6} | wrong))
    assert str(refused.value) == message


def test_the_size_is_a_whole_number():
    beam = Beam(3)
    object.__setattr__(beam, "size", 2.5)  # the tests' type checks would refuse it first
    with pytest.raises(UserError, match=r"^Beam.size must be a whole number, not 2.5$"):
        beam.__post_init__()


def test_the_penalty_is_that_of_the_paper():
    assert Beam(1, 0.0).penalty(7) == 1
    assert Beam(1, 1.0).penalty(7) == 2
    assert Beam(1) == Beam(1, 1.0)
    assert Beam(1, 0.5).penalty(19) == 2
    assert Beam(1, 3.0).penalty(1) == 1


# --- with the true model -------------------------------------------------------------------

VOCAB, TIME = 7, 6
PLAIN = Model(hidden_size=8)
ATTENTIVE = Model(hidden_size=8, attention="general", attend="before")
each_model = pytest.mark.parametrize("config", [PLAIN, ATTENTIVE], ids=["plain", "attentive"])


def draw_source():
    source = np.random.default_rng(0).integers(3, VOCAB, (BATCH, TIME)).astype(np.int32)
    lengths = np.random.default_rng(1).integers(1, TIME, BATCH)
    return np.where(np.arange(TIME) < lengths[:, None], source, 0)  # padded


SOURCE = jnp.asarray(draw_source())
START = jnp.ones(BATCH, jnp.int32)


class Searched:
    """A model with weights so large that every answer differs, and what it says."""

    def __init__(self, config):
        self.model = Seq2Seq(VOCAB, VOCAB, 0, config)
        weights = jax.jit(self.model.init)(jax.random.key(5), SOURCE, SOURCE)
        self.params = jax.tree.map(lambda w: 4 * w, weights)

    def search(self, beam, params, source):
        apply = partial(self.model.apply, params)
        encoding = apply(source, method="encode")
        tiled = tile(encoding, beam.size)
        return beam_search(
            lambda state, token: apply(state, token, tiled, method="step"),
            encoding.initial_state,
            jnp.ones(source.shape[0], jnp.int32),
            beam=beam,
            eos_id=EOS,
            max_decode_len=LENGTH,
            collect=lambda state: state.alignment,
        )

    def run(self, beam=Beam(4, 0.6), source=SOURCE):
        return jax.device_get(jax.jit(partial(self.search, beam))(self.params, source))

    @cached_property
    def beams(self):
        return self.run()


results = cache(Searched)


@each_model
def test_log_probabilities_are_the_forced_scores_of_what_was_found(config):
    result = results(config)
    beams = result.beams
    ended = (beams.tokens == EOS).any(-1)
    assert ended.any()
    assert not ended.all()
    tokens = jnp.asarray(beams.tokens.reshape(-1, LENGTH))
    read = jnp.concatenate([jnp.ones((len(tokens), 1), jnp.int32), tokens[:, :-1]], axis=1)
    logits = jax.jit(result.model.apply)(result.params, jnp.repeat(SOURCE, 4, axis=0), read)
    written = np.cumsum(tokens == EOS, axis=1) - (tokens == EOS) == 0
    scores = np.take_along_axis(jax.nn.log_softmax(logits), tokens[..., None], 2)[..., 0]
    forced = np.where(written, scores, 0).reshape(BATCH, 4, LENGTH)
    np.testing.assert_allclose(beams.log_probs, forced, atol=1e-4)
    lengths = written.sum(1).reshape(BATCH, 4)
    penalties = np.array([Beam(4, 0.6).penalty(n) for n in range(LENGTH + 1)])[lengths]
    np.testing.assert_allclose(beams.scores, forced.sum(-1) / penalties, atol=1e-4)


@each_model
def test_a_beam_of_one_is_the_greedy_answer(config):
    result = results(config)

    @jax.jit
    def greedy(params, source):
        apply = partial(result.model.apply, params)
        encoding = apply(source, method="encode")
        return decode(
            lambda state, token: apply(state, token, encoding, method="step"),
            encoding.initial_state,
            START,
            policy=Greedy(),
            eos_id=EOS,
            max_decode_len=LENGTH,
            keys=jax.random.split(jax.random.key(0), BATCH),
            collect=lambda state: state.alignment,
        )

    one, plain = result.run(Beam(1, 0.0)), greedy(result.params, SOURCE)
    np.testing.assert_array_equal(one.tokens[:, 0], plain.tokens)
    near(one.log_probs[:, 0], plain.log_probs)
    jax.tree.map(lambda a, b: near(a[:, 0], b), one.collected, plain.collected)


@each_model
def test_an_answer_depends_on_neither_its_batch_nor_its_padding(config):
    whole, rows = results(config).beams, np.array([5, 0, 9])
    part = results(config).run(source=jnp.pad(SOURCE[rows], ((0, 0), (0, 3))))
    np.testing.assert_array_equal(part.tokens, whole.tokens[rows])
    near(part.log_probs, whole.log_probs[rows])
    near(part.scores, whole.scores[rows])
    if part.collected is not None:
        near(part.collected[..., :TIME], whole.collected[rows])
        assert not part.collected[..., TIME:].any()


def test_the_search_lowers_for_accelerators():
    result = results(ATTENTIVE)
    search = jax.jit(partial(result.search, Beam(4, 0.6)))
    exported = jax.export.export(search, platforms=["cuda", "tpu"])(result.params, SOURCE)
    assert exported.platforms == ("cuda", "tpu")
    assert [x.shape for x in exported.out_avals] == [
        (BATCH, 4, LENGTH),
        (BATCH, 4, LENGTH),
        (BATCH, 4),
        (BATCH, 4, LENGTH, TIME),
    ]
