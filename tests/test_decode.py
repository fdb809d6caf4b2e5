"""Decoding: a plain loop, rows that are strangers, draws from the softmax that `keep` cuts."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from s2sjax.config import Model, Optimiser, Training
from s2sjax.data import Examples
from s2sjax.decode import Decoded, Greedy, Sampling, decode
from s2sjax.dropout import Rates
from s2sjax.errors import UserError
from s2sjax.models import Seq2Seq
from s2sjax.train import Trainer
from s2sjax.vocab import NO_SYMBOL

VOCAB, EOS, STATES, LENGTH, BATCH = 6, 2, 11, 9, 16
rng = np.random.default_rng(0)
TABLE = rng.normal(0, 1.5, (STATES, VOCAB, VOCAB)).astype("float32")
STATE = jnp.array(rng.integers(0, STATES, BATCH), jnp.int32)
START = jnp.array(rng.integers(0, VOCAB, BATCH), jnp.int32)
KEYS = jax.random.split(jax.random.key(0), BATCH)
POLICIES = (Greedy(), Sampling(), Sampling(temperature=0.7, top_k=4, top_p=0.9))
each_policy = pytest.mark.parametrize("policy", POLICIES, ids=["greedy", "sampling", "cut"])


def step(state, token):
    """A model whose logits depend on all symbols read so far, through a state of its own."""
    state = (5 * state + token + 1) % STATES
    return state, jnp.asarray(TABLE)[state, token]


@partial(jax.jit, static_argnums=(0, 1))
def compiled(policy, step, state, start, keys):
    return decode(step, state, start, policy=policy, eos_id=EOS, max_decode_len=LENGTH, keys=keys)


def run(state=STATE, start=START, keys=KEYS, policy=Greedy(), step=step):
    return compiled(policy, step, state, start, keys)


def log_softmax(logits):
    logits = np.float64(logits)
    return logits - scipy.special.logsumexp(logits, axis=-1, keepdims=True)


def plain_loop(state, token, choose):
    """One row at a time, in Python: symbols and log probabilities up to the end symbol."""
    tokens, log_probs = [], []
    for time in range(LENGTH):
        state = (5 * state + token + 1) % STATES
        logits = TABLE[state, token]
        token = choose(logits, time)
        tokens.append(token)
        log_probs.append(log_softmax(logits)[token])
        if token == EOS:
            break
    return tokens, log_probs


def assert_rows(decoded, rows):
    lengths = [len(tokens) for tokens, _ in rows]
    assert min(lengths) < LENGTH == max(lengths)  # both ends are in play
    for i, (tokens, log_probs) in enumerate(rows):
        rest = LENGTH - len(tokens)
        assert decoded.tokens[i].tolist() == tokens + [EOS] * rest
        np.testing.assert_allclose(decoded.log_probs[i], log_probs + [0.0] * rest, atol=1e-5)


# --- the loop ------------------------------------------------------------------------------


def test_greedy_is_a_plain_loop_over_the_likeliest_symbols():
    likeliest = lambda logits, time: int(np.argmax(logits))
    rows = [
        plain_loop(s, t, likeliest) for s, t in zip(STATE.tolist(), START.tolist(), strict=True)
    ]
    assert_rows(run(), rows)


@pytest.mark.parametrize("policy", POLICIES[1:], ids=["sampling", "cut"])
def test_sampling_is_a_plain_loop_of_choices_with_a_key_a_step(policy):
    choose = jax.jit(policy.choose)
    rows = []
    for key, s, t in zip(KEYS, STATE.tolist(), START.tolist(), strict=True):
        chosen = lambda logits, time, key=key: int(choose(logits, jax.random.fold_in(key, time)))
        rows.append(plain_loop(s, t, chosen))
    assert_rows(run(policy=policy), rows)


@each_policy
def test_after_its_end_a_row_holds_end_symbols_at_log_probability_zero(policy):
    decoded = jax.device_get(run(policy=policy))
    ended = np.cumsum(decoded.tokens == EOS, axis=1) - (decoded.tokens == EOS) > 0
    assert ended.any()
    assert (decoded.tokens[ended] == EOS).all()
    assert (decoded.log_probs[ended] == 0).all()
    assert (decoded.log_probs[~ended] < 0).all()


def countdown(calls, steps, token):
    """Says symbol 1 until its steps are used up, then the end symbol; counts its own calls."""
    jax.debug.callback(lambda: calls.append(1))
    token = jnp.where(steps > 0, 1, EOS)
    return steps - 1, 9 * jax.nn.one_hot(token, VOCAB)


@pytest.mark.parametrize(
    ("steps", "calls"),
    [([0, 0], 1), ([0, 3], 4), ([2, 2], 3), ([LENGTH - 1, 0], LENGTH), ([99, 0], LENGTH)],
)
def test_decoding_stops_when_the_last_row_has_ended(steps, calls):
    made = []
    both = {"state": jnp.array(steps, jnp.int32), "start": START[:2], "keys": KEYS[:2]}
    decoded = run(**both, step=partial(countdown, made))
    jax.effects_barrier()
    assert len(made) == calls
    for tokens, n in zip(decoded.tokens.tolist(), steps, strict=True):
        assert tokens == ([1] * n + [EOS] * LENGTH)[:LENGTH]


@each_policy
def test_where_no_symbol_ends_a_row_every_row_has_full_length(policy):
    @jax.jit
    def endless(state, start, keys):
        settings = {"policy": policy, "eos_id": NO_SYMBOL, "max_decode_len": LENGTH}
        return decode(step, state, start, keys=keys, **settings)

    tokens, log_probs, _ = jax.device_get(endless(STATE, START, KEYS))
    ended = np.cumsum(tokens == EOS, axis=1) - (tokens == EOS) > 0
    assert (log_probs < 0).all()
    assert set(tokens[ended]) - {EOS, NO_SYMBOL}  # goes on behind what ends others
    np.testing.assert_array_equal(np.where(ended, EOS, tokens), run(policy=policy).tokens)


@each_policy
def test_what_is_watched_is_the_carry_behind_every_step_until_the_end(policy):
    @jax.jit
    def watched(state, start, keys):
        settings = {"policy": policy, "eos_id": EOS, "max_decode_len": LENGTH}
        watch = lambda state: {"state": state, "pair": jnp.stack([state, -state], axis=1)}
        return decode(step, state, start, keys=keys, watch=watch, **settings)

    decoded, plain = jax.device_get((watched(STATE, START, KEYS), run(policy=policy)))
    assert plain.watched is None
    jax.tree.map(np.testing.assert_array_equal, decoded._replace(watched=None), plain)
    state, seen = np.asarray(STATE), decoded.watched
    read = np.concatenate([START[:, None], plain.tokens[:, :-1]], axis=1)
    for time in range(LENGTH):
        state = (5 * state + read[:, time] + 1) % STATES
        done = (plain.tokens[:, :time] == EOS).any(axis=1)
        np.testing.assert_array_equal(seen["state"][:, time], np.where(done, 0, state))
    np.testing.assert_array_equal(seen["pair"], np.stack([seen["state"], -seen["state"]], axis=2))


@each_policy
def test_a_row_does_not_depend_on_the_batch_it_rides_in(policy):
    whole = run(policy=policy)
    order = np.random.default_rng(1).permutation(BATCH)
    shuffled = run(STATE[order], START[order], KEYS[order], policy)
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b[order]), shuffled, whole)
    rows = np.array([7, 1, 12])
    few = run(STATE[rows], START[rows], KEYS[rows], policy)
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b[rows]), few, whole)


def test_vmap_over_stacks_of_batches_is_each_batch_alone():
    policy = Sampling()
    halves = [x.reshape(2, BATCH // 2) for x in (STATE, START, KEYS)]
    stacked = jax.vmap(partial(run, policy=policy))(*halves)
    whole = run(policy=policy)
    jax.tree.map(
        lambda a, b: np.testing.assert_array_equal(a.reshape(BATCH, LENGTH), b), stacked, whole
    )


def test_only_sampling_reads_the_keys():
    other = jax.random.split(jax.random.key(1), BATCH)
    np.testing.assert_array_equal(run().tokens, run(keys=other).tokens)
    one, two, again = (run(policy=Sampling(), keys=k).tokens for k in (KEYS, other, KEYS))
    np.testing.assert_array_equal(one, again)
    assert (one != two).any(axis=1).mean() > 0.5


def test_equal_policies_share_one_compiled_program():
    traces = []

    def counted(state, token):
        traces.append(1)
        return step(state, token)

    run(policy=Sampling(top_k=2), step=counted)
    once = len(traces)
    run(policy=Sampling(top_k=2), step=counted)
    assert len(traces) == once > 0
    run(policy=Sampling(top_k=3), step=counted)
    assert len(traces) > once


@each_policy
def test_shapes_and_types(policy):
    decoded = jax.eval_shape(partial(run, policy=policy))
    assert isinstance(decoded, Decoded)
    assert (decoded.tokens.shape, decoded.tokens.dtype) == ((BATCH, LENGTH), jnp.int32)
    assert (decoded.log_probs.shape, decoded.log_probs.dtype) == ((BATCH, LENGTH), jnp.float32)


# --- choices -------------------------------------------------------------------------------

NAMED_GREEDY = {
    "cold": Sampling(temperature=1e-6),
    "coldest": Sampling(temperature=1e-39),  # below the smallest normal float32
    "top_p smallest": Sampling(top_p=1e-46),  # zero in float32
    "hot, top_k 1": Sampling(temperature=50.0, top_k=1),
}


@pytest.mark.parametrize("policy", NAMED_GREEDY.values(), ids=NAMED_GREEDY.keys())
def test_sampling_at_its_limits_is_greedy(policy):
    jax.tree.map(np.testing.assert_array_equal, run(policy=policy), run())


def test_of_equals_greedy_takes_the_smallest_id():
    assert Greedy().choose(jnp.array([0.0, 3, 1, 3, 3]), KEYS[0]) == 1


def keep_by_hand(policy, logits):
    """Which symbols stay: sorted by likelihood, then by id, then cut twice."""
    order = sorted(range(len(logits)), key=lambda i: (-logits[i], i))
    order = order[: policy.top_k]
    weights = np.exp((np.float64(logits)[order] - max(logits)) / policy.temperature)
    probabilities = weights / weights.sum()
    stay = set()
    for symbol, before in zip(order, np.cumsum(probabilities) - probabilities, strict=True):
        if policy.top_p == 1 or before < policy.top_p:
            stay.add(symbol)
    return stay


kept = jax.jit(Sampling.keep, static_argnums=0)


def stay(policy, logits):
    return set(np.flatnonzero(np.isfinite(kept(policy, jnp.array(logits, jnp.float32)))).tolist())


# Logits are multiples of log 2 and few, so that sums of probabilities fall on no decimal top_p.
@given(
    halvings=st.lists(st.integers(-3, 3), min_size=VOCAB, max_size=VOCAB),
    policy=st.sampled_from(
        [
            Sampling(top_k=3),
            Sampling(top_k=100, top_p=0.9003),
            Sampling(top_p=0.5003),
            Sampling(temperature=0.5, top_p=0.9003),
            Sampling(temperature=0.5, top_k=4, top_p=0.5003),
        ]
    ),
)
@settings(deadline=None, max_examples=150, derandomize=True)
def test_keep_is_its_reference_by_hand(halvings, policy):
    logits = np.log(2) * np.array(halvings)
    assert stay(policy, logits) == keep_by_hand(policy, logits.tolist())


@pytest.mark.parametrize(
    ("cut", "stays"),
    [
        ({"top_k": 2}, {0, 1}),  # of equals the smallest ids
        ({"top_k": 4}, {0, 1, 2, 3}),
        ({"top_k": 400}, {0, 1, 2, 3}),
        ({"top_p": 0.5}, {0, 1}),  # reached exactly: the fewest that do
        ({"top_p": 0.51}, {0, 1, 2}),
        ({"top_p": 0.25}, {0}),
        ({"top_p": 1.0}, {0, 1, 2, 3}),
        ({"top_k": 2, "top_p": 0.5}, {0}),  # top_p counts what top_k left
        ({"top_k": 2, "top_p": 0.51}, {0, 1}),
        ({"top_k": 3, "top_p": 0.99}, {0, 1, 2}),
    ],
)
def test_ties_and_boundaries_of_the_cuts(cut, stays):
    assert stay(Sampling(**cut), [1.0, 1.0, 1.0, 1.0]) == stays


def test_temperature_comes_before_top_p():
    logits = np.log([0.5, 0.3, 0.2])
    assert stay(Sampling(top_p=0.6), logits) == {0, 1}
    assert stay(Sampling(top_p=0.6, temperature=0.25), logits) == {0}
    assert stay(Sampling(top_p=0.6, temperature=1e9), logits) == {0, 1}
    assert stay(Sampling(top_p=0.7, temperature=1e9), logits) == {0, 1, 2}


def test_what_stays_keeps_its_odds_sharpened():
    logits = jnp.array([2.0, -1.0, 0.5, 1.0])
    out = np.asarray(kept(Sampling(temperature=0.5, top_k=3), logits))
    assert out[1] == -np.inf
    np.testing.assert_allclose(np.diff(out[[0, 2, 3]]), np.diff([4.0, 1.0, 2.0]), rtol=1e-6)


# --- frequencies ---------------------------------------------------------------------------

DRAWS = 4_000


@pytest.mark.parametrize(
    "policy",
    [
        Sampling(),
        Sampling(temperature=2.0, top_k=4),
        Sampling(temperature=0.8, top_p=0.8),
    ],
)
def test_draws_follow_the_softmax_of_what_stays_and_steps_are_independent(policy):
    logits = jnp.array([0.3, 1.2, -30.0, 0.8, -0.9, 0.1])  # hardly ever the end symbol
    same = lambda carry, token: (carry, jnp.broadcast_to(logits, (*token.shape, VOCAB)))
    keys = jax.random.split(jax.random.key(3), DRAWS)
    zeros = jnp.zeros(DRAWS, jnp.int32)
    tokens = np.asarray(run(zeros, zeros, keys, policy, same).tokens[:, :2])
    out = np.float64(kept(policy, logits))
    probabilities = np.exp(out - scipy.special.logsumexp(out))
    expected = np.outer(probabilities, probabilities) * DRAWS
    seen = np.zeros((VOCAB, VOCAB))
    np.add.at(seen, (tokens[:, 0], tokens[:, 1]), 1)
    likely = expected > 1e-3
    assert not seen[~likely].any()
    scale = DRAWS / expected[likely].sum()
    assert scipy.stats.chisquare(seen[likely], expected[likely] * scale).pvalue > 1e-3


# --- settings ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"temperature": 0.0}, "temperature must be above 0, not 0.0"),
        ({"temperature": -1.0}, "temperature must be above 0, not -1.0"),
        ({"temperature": float("nan")}, "temperature must be above 0, not nan"),
        ({"top_k": 0}, "top_k must be at least 1, not 0"),
        ({"top_p": 0.0}, "top_p must be above 0 and at most 1, not 0.0"),
        ({"top_p": 1.01}, "top_p must be above 0 and at most 1, not 1.01"),
        ({"top_p": float("nan")}, "top_p must be above 0 and at most 1, not nan"),
    ],
)
def test_settings_that_cannot_be_are_refused_by_name(wrong, message):
    with pytest.raises(UserError) as refused:
        Sampling(**wrong)
    assert str(refused.value) == message


# --- with the true model -------------------------------------------------------------------

TRAINER = Trainer(
    Seq2Seq(VOCAB, 0, Model(hidden_size=8)), Optimiser(), Training(batch_size=BATCH), 1, EOS
)


@pytest.fixture(scope="module")
def params():
    """Weights so large that every answer differs, and some end."""
    weights = jax.jit(TRAINER.init)(jax.random.key(5), jnp.float32(0), Rates()).params
    return jax.tree.map(lambda w: 4 * w, weights)


EXAMPLES = Examples(
    jnp.array(rng.integers(0, VOCAB, (BATCH, 5)), jnp.int32),  # padding, id 0, among them
    jnp.array(rng.integers(1, VOCAB, (BATCH, LENGTH + 1)), jnp.int32),
)


@partial(jax.jit, static_argnums=0)
def answer(policy, params, examples, keys):
    return TRAINER.decode(params, examples, policy, keys)


forced_logits = jax.jit(TRAINER.model.apply)


@each_policy
def test_log_probabilities_are_the_forced_score_of_what_was_decoded(params, policy):
    decoded = answer(policy, params, EXAMPLES, KEYS)
    read = jnp.concatenate([EXAMPLES.target[:, :1], decoded.tokens[:, :-1]], axis=1)
    logits = forced_logits({"params": params}, EXAMPLES.source, read)
    forced = np.take_along_axis(log_softmax(logits), np.asarray(decoded.tokens)[..., None], 2)[
        ..., 0
    ]
    ended = np.asarray((read == EOS).at[:, 0].set(False)).cumsum(axis=1) > 0
    assert 0 < ended.any(axis=1).sum() < BATCH
    np.testing.assert_allclose(decoded.log_probs, np.where(ended, 0, forced), atol=1e-4)
    if policy == Greedy():
        best = np.asarray(logits.argmax(-1))
        np.testing.assert_array_equal(decoded.tokens, np.where(ended, EOS, best))
        assert len(np.unique(decoded.tokens, axis=0)) > BATCH / 2


@each_policy
def test_an_answer_depends_on_the_source_and_the_start_and_on_no_other_target_symbol(
    params, policy
):
    tokens = answer(policy, params, EXAMPLES, KEYS).tokens
    blind = EXAMPLES._replace(target=EXAMPLES.target.at[:, 1:].set(1))
    np.testing.assert_array_equal(answer(policy, params, blind, KEYS).tokens, tokens)
    for other in (
        EXAMPLES._replace(source=EXAMPLES.source[::-1]),
        EXAMPLES._replace(target=EXAMPLES.target.at[:, 0].set(EXAMPLES.target[:, 0] % 5 + 1)),
    ):
        assert (answer(policy, params, other, KEYS).tokens != tokens).any(axis=1).mean() > 0.3


def test_an_answer_does_not_depend_on_the_batch_it_rides_in(params):
    policy, rows = Sampling(), np.array([5, 0, 9])
    whole = answer(policy, params, EXAMPLES, KEYS)
    few = answer(policy, params, jax.tree.map(lambda x: x[rows], EXAMPLES), KEYS[rows])
    np.testing.assert_array_equal(few.tokens, whole.tokens[rows])
    np.testing.assert_allclose(few.log_probs, whole.log_probs[rows], atol=1e-5)


@pytest.mark.parametrize(
    "settings",
    [
        {"decoder": "repeat", "cell": "gru"},
        {"peeky": True, "cell": "rnn", "encoder_layers": 2, "decoder_layers": 3},
        {"hand_over": "hidden", "decoder_layers": 2, "embed_dim": 3},
    ],
)
def test_greedy_answers_of_every_kind_are_the_best_of_their_own_forced_logits(settings):
    model = Seq2Seq(VOCAB, 0, Model(hidden_size=8, **settings))
    trainer = replace(TRAINER, model=model, eos_id=NO_SYMBOL)
    params = jax.jit(trainer.init)(jax.random.key(5), jnp.float32(0), Rates()).params
    params = jax.tree.map(lambda w: 4 * w, params)

    @jax.jit
    def greedy_and_forced(params):
        tokens = trainer.decode(params, EXAMPLES, Greedy(), KEYS).tokens
        read = jnp.concatenate([EXAMPLES.target[:, :1], tokens[:, :-1]], axis=1)
        return tokens, trainer.apply(params, EXAMPLES.source, read)

    tokens, logits = greedy_and_forced(params)
    np.testing.assert_array_equal(tokens, logits.argmax(-1))
    assert len(np.unique(tokens, axis=0)) > 3
