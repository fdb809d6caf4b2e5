"""Decoding: a plain loop, rows that are strangers, draws from the softmax that is truncated."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from s2sjax.config import Model
from s2sjax.errors import UserError
from s2sjax.model.beam import Beam, beam_search
from s2sjax.model.decode import Greedy, Sampling, argmax, decode
from s2sjax.model.seq2seq import Seq2Seq

NO_SYMBOL = -1
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


@pytest.mark.parametrize("policy", [*POLICIES, Beam(3, 0.5)], ids=str)
def test_what_is_never_written_keeps_its_probability(policy):
    """The log probabilities are the model's; of what is written they are lower than its share."""
    never = int(np.bincount(np.ravel(run().tokens)).argmax())
    never = never if never != EOS else (EOS + 1) % VOCAB
    own = {"eos_id": EOS, "max_decode_len": LENGTH, "never": (never,)}
    if isinstance(policy, Beam):
        found = jax.jit(partial(beam_search, step, beam=policy, **own))(STATE, START)
        tokens, log_probs = found.tokens[:, 0], found.log_probs[:, 0]
    else:
        drawing = partial(decode, step, policy=policy, keys=KEYS, **own)
        tokens, log_probs, _ = jax.jit(drawing)(STATE, START)
    assert not (tokens == never).any()
    for row in range(BATCH):
        forced = partial(lambda own, logits, time: own[time], np.asarray(tokens)[row].tolist())
        wanted = plain_loop(int(STATE[row]), int(START[row]), forced)[1]
        np.testing.assert_allclose(log_probs[row, : len(wanted)], wanted, atol=1e-4)


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
def test_what_is_collected_is_the_carry_behind_every_step_until_the_end(policy):
    @jax.jit
    def collected(state, start, keys):
        settings = {"policy": policy, "eos_id": EOS, "max_decode_len": LENGTH}
        collect = lambda state: {"state": state, "pair": jnp.stack([state, -state], axis=1)}
        return decode(step, state, start, keys=keys, collect=collect, **settings)

    decoded, plain = jax.device_get((collected(STATE, START, KEYS), run(policy=policy)))
    assert plain.collected is None
    jax.tree.map(np.testing.assert_array_equal, decoded._replace(collected=None), plain)
    state, found = np.asarray(STATE), decoded.collected
    read = np.concatenate([START[:, None], plain.tokens[:, :-1]], axis=1)
    for time in range(LENGTH):
        state = (5 * state + read[:, time] + 1) % STATES
        done = (plain.tokens[:, :time] == EOS).any(axis=1)
        np.testing.assert_array_equal(found["state"][:, time], np.where(done, 0, state))
    np.testing.assert_array_equal(found["pair"], np.stack([found["state"], -found["state"]], 2))


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
    logits = jnp.array([0.0, 3, 1, 3, 3])
    assert Greedy().choose(logits, KEYS[0]) == argmax(logits) == 1
    assert argmax(jnp.stack([logits, -logits])).tolist() == [1, 0]


def truncate_by_hand(policy, logits):
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


truncate = jax.jit(Sampling.truncate, static_argnums=0)


def stay(policy, logits):
    return set(
        np.flatnonzero(np.isfinite(truncate(policy, jnp.array(logits, jnp.float32)))).tolist()
    )


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
@settings(deadline=None, max_examples=60, derandomize=True)
def test_truncation_is_its_reference_by_hand(halvings, policy):
    logits = np.log(2) * np.array(halvings)
    assert stay(policy, logits) == truncate_by_hand(policy, logits.tolist())


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
    out = np.float64(truncate(policy, logits))
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

SOURCE = jnp.array(rng.integers(0, VOCAB, (BATCH, 5)), jnp.int32)  # padding, id 0, among them
FIRST = jnp.array(rng.integers(1, VOCAB, BATCH), jnp.int32)


@partial(jax.jit, static_argnums=0)
def initial(model):
    """Weights so large that every answer differs, and some end."""
    ids = jnp.ones((1, 2), jnp.int32)
    return jax.tree.map(lambda w: 4 * w, model.init(jax.random.key(5), ids, ids))


@partial(jax.jit, static_argnums=(0, 1, 2))
def answer(model, policy, eos_id, params, source, start, keys):
    encoding = model.apply(params, source, method="encode")
    return decode(
        lambda state, token: model.apply(params, state, token, encoding, method="step"),
        encoding.initial_state,
        start,
        policy=policy,
        eos_id=eos_id,
        max_decode_len=LENGTH,
        keys=keys,
    )


@pytest.mark.parametrize(
    ("settings", "policy", "eos_id"),
    [
        ({}, Greedy(), EOS),
        ({}, Sampling(), EOS),
        ({}, POLICIES[2], EOS),
        ({"decoder": "repeat", "cell": "gru"}, Greedy(), NO_SYMBOL),
        ({"peeky": True, "cell": "rnn", "encoder_layers": 2, "decoder_layers": 3}, Greedy(), EOS),
        ({"decoder_init": "hidden", "decoder_layers": 2, "embed_dim": 3}, Greedy(), NO_SYMBOL),
    ],
)
def test_answers_and_log_probabilities_are_those_of_the_forced_scores(settings, policy, eos_id):
    model = Seq2Seq(VOCAB, VOCAB, 0, Model(hidden_size=8, **settings))
    params = initial(model)
    decoded = answer(model, policy, eos_id, params, SOURCE, FIRST, KEYS)
    read = jnp.concatenate([FIRST[:, None], decoded.tokens[:, :-1]], axis=1)
    logits = jax.jit(model.apply)(params, SOURCE, read)
    chosen = np.asarray(decoded.tokens)[..., None]
    forced = np.take_along_axis(log_softmax(logits), chosen, 2)[..., 0]
    ended = np.asarray((read == eos_id).at[:, 0].set(False)).cumsum(axis=1) > 0
    np.testing.assert_allclose(decoded.log_probs, np.where(ended, 0, forced), atol=1e-4)
    if policy == Greedy():
        best = np.asarray(logits.argmax(-1))
        np.testing.assert_array_equal(decoded.tokens, np.where(ended, EOS, best))
    assert len(np.unique(decoded.tokens, axis=0)) > 3
    if not settings:
        assert 0 < ended.any(axis=1).sum() < BATCH


def test_an_answer_depends_on_source_and_start_and_not_on_the_batch_it_rides_in():
    model = Seq2Seq(VOCAB, VOCAB, 0, Model(hidden_size=8))
    run = partial(answer, model, Sampling(), EOS, initial(model))
    whole = run(SOURCE, FIRST, KEYS)
    for source, start in ((SOURCE[::-1], FIRST), (SOURCE, FIRST % 5 + 1)):
        assert (run(source, start, KEYS).tokens != whole.tokens).any(axis=1).mean() > 0.3
    rows = np.array([5, 0, 9])
    few = run(SOURCE[rows], FIRST[rows], KEYS[rows])
    np.testing.assert_array_equal(few.tokens, whole.tokens[rows])
    np.testing.assert_allclose(few.log_probs, whole.log_probs[rows], atol=1e-5)
