"""Attention: its equations, what it must never look at, and that all at once is step by step."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_models import FULL, PAD, PADDED, TARGET_IN, by_hand, close, make, parameters, rng

from s2sjax.config import Model
from s2sjax.model.attention import Attention, Memory

every_way = pytest.mark.parametrize(
    ("score", "attend"),
    [("dot", "after"), ("general", "feeding"), ("additive", "before"), ("additive", "after")],
)


def kind(score, attend, **settings):
    """A model and its parameters."""
    settings |= {"attention": score, "attend": attend, "cell": "gru", "embed": 2}
    return make(**settings), parameters(**settings)


@functools.partial(jax.jit, static_argnums=0)
def at_once(model, params, source, target_in):
    """Logits and attention weights."""
    encoding = model.apply(params, source, method="encode")
    return model.apply(params, encoding, target_in, method="decode_forced")


@functools.partial(jax.jit, static_argnums=0)
def stepped(model, params, source, target_in):
    encoding = model.apply(params, source, method="encode")

    def step(state, token):
        state, logits = model.apply(params, state, token, encoding, method="step")
        return state, (logits, state.alignment)

    _, outputs = jax.lax.scan(step, encoding.initial_state, target_in.T)
    return jax.tree.map(lambda x: x.swapaxes(0, 1), outputs)


@pytest.mark.parametrize("score", ["dot", "general", "additive"])
def test_contexts_and_weights_of_every_query_are_those_of_the_papers(score):
    draw = lambda *shape: jnp.array(rng.normal(size=shape), jnp.float32)
    p = {"wk": draw(3, 3), "wq": draw(3, 3), "v": draw(3, 1), "wc": draw(6, 3)}
    q, m = draw(2, 4, 3), draw(2, 5, 3)
    mask = jnp.array([[True] * 5, [True, True, False, True, False]])
    layer = Attention(Model(hidden_size=3, attention=score)).bind({"params": p})
    memory = layer.memory(m, mask)
    assert isinstance(memory, Memory)
    contexts, weights = layer.attend(q, memory)
    energy = {
        "dot": lambda q, m: q @ m,
        "general": lambda q, m: q @ (m @ p["wk"]),
        "additive": lambda q, m: p["v"][:, 0] @ jnp.tanh(q @ p["wq"] + m @ p["wk"]),
    }[score]
    for b in range(2):
        real = np.flatnonzero(mask[b])
        for t in range(4):
            e = np.exp(np.array([energy(q[b, t], m[b, s]) for s in real]))
            close(weights[b, t, real], e / e.sum())
            assert weights[b, t].sum() == pytest.approx(weights[b, t, real].sum())
            close(contexts[b, t], sum(a * m[b, s] for a, s in zip(e / e.sum(), real, strict=True)))
    one_context, one_weights = layer.attend(q[:, 1], memory)
    close(one_context, contexts[:, 1])
    close(one_weights, weights[:, 1])
    close(layer.readout(contexts, q), jnp.tanh(jnp.concatenate([contexts, q], -1) @ p["wc"]))


@every_way
def test_alignments_are_those_of_the_textbook(score, attend):
    model, p = kind(score, attend)
    _, alignment = at_once(model, p, PADDED, TARGET_IN)
    for row, source, target in zip(alignment, PADDED.tolist(), TARGET_IN.tolist(), strict=True):
        real = [symbol for symbol in source if symbol != PAD]
        close(row[:, : len(real)], by_hand(model.config, p, real, target)[1])


@every_way
def test_alignments_are_distributions_over_real_symbols_at_once_and_step_by_step(score, attend):
    model, p = kind(score, attend, directions=2, encoder_layers=2, decoder_init="learned")
    logits, alignment = at_once(model, p, PADDED, TARGET_IN)
    close(alignment.sum(-1), np.ones(alignment.shape[:2]))
    padding = np.broadcast_to((PADDED == PAD)[:, None], alignment.shape)
    assert (np.array(alignment)[padding] == 0).all()
    assert (alignment[0] > 0).all()
    jax.tree.map(close, stepped(model, p, PADDED, TARGET_IN), (logits, alignment))
    longer = jnp.pad(PADDED, ((0, 0), (0, 2)))
    more_logits, more_alignment = at_once(model, p, longer, TARGET_IN)
    close(logits, more_logits)
    close(jnp.pad(alignment, ((0, 0), (0, 0), (0, 2))), more_alignment)


def test_rows_of_padding_alone_give_numbers():
    model, p = kind("dot", "after")
    for numbers in at_once(model, p, jnp.zeros_like(FULL), TARGET_IN):
        assert np.isfinite(numbers).all()
