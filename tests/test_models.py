"""The encoder-decoder: teacher forcing is step by step, padding is not read, rows are strangers."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from s2sjax.config import Model
from s2sjax.models import Encoding, Seq2Seq

BATCH, SOURCE, TARGET, VOCAB, HIDDEN, EMBED = 3, 5, 4, 7, 6, 2  # all different
PAD = 0
rng = np.random.default_rng(0)
FULL = jnp.array(rng.integers(1, VOCAB, (BATCH, SOURCE)), jnp.int32)
PADDED = FULL.at[1, 2:].set(PAD).at[2, 4:].set(PAD)
TARGET_IN = jnp.array(rng.integers(1, VOCAB, (BATCH, TARGET)), jnp.int32)

one_hot_and_embedded = pytest.mark.parametrize("embed", [None, EMBED], ids=["one-hot", "embedded"])
with_and_without_padding = pytest.mark.parametrize("pad_id", [None, PAD], ids=["full", "padded"])


def make(embed=None, pad_id=PAD, **settings):
    return Seq2Seq(VOCAB, pad_id, Model(hidden_size=HIDDEN, embed_dim=embed, **settings))


@functools.cache
def parameters(embed=None):
    """Large, so that every symbol matters, and with biases; the same for every other setting."""
    params = jax.jit(make(embed).init)(jax.random.key(0), FULL, TARGET_IN)
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    return tree.unflatten(
        [jax.random.normal(k, x.shape) for k, x in zip(keys, leaves, strict=True)]
    )


@functools.partial(jax.jit, static_argnums=0)
def forced(model, params, source, target_in):
    return model.apply(params, source, target_in)


@functools.partial(jax.jit, static_argnums=0)
def encode(model, params, source):
    return model.apply(params, source, method="encode")


@functools.partial(jax.jit, static_argnums=0)
def step(model, params, carry, token, encoding):
    return model.apply(params, carry, token, encoding, method="step")


def source_of(pad_id):
    return FULL if pad_id is None else PADDED


def close(a, b):
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=2e-6)


def equations(jaxpr, times=1):
    """Every equation with how often it runs."""
    for eqn in jaxpr.eqns:
        yield eqn, times
        runs = times * eqn.params["length"] if eqn.primitive.name == "scan" else times
        for inner in jax.tree.leaves(list(eqn.params.values())):
            if hasattr(inner, "eqns"):
                yield from equations(inner, runs)


# --- one symbol at a time, or all at once --------------------------------------------------


@one_hot_and_embedded
@with_and_without_padding
def test_teacher_forcing_is_encode_and_then_step_after_step(embed, pad_id):
    model, params, source = make(embed, pad_id), parameters(embed), source_of(pad_id)
    logits = forced(model, params, source, TARGET_IN)
    encoding = encode(model, params, source)
    carry = encoding.carry
    for t in range(TARGET):
        carry, now = step(model, params, carry, TARGET_IN[:, t], encoding)
        close(now, logits[:, t])


def test_the_model_is_its_equations():
    params = parameters()["params"]
    p = jax.tree.map(lambda x: np.asarray(x, np.float64), params)

    def read(cell, ids, c, h):
        i, f, g, o = np.split(cell["wx"][ids] + h @ cell["wh"] + cell["b"], 4)
        sigmoid = lambda x: 1 / (1 + np.exp(-x))
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        return c, sigmoid(o) * np.tanh(c)

    logits = np.asarray(forced(make(), parameters(), PADDED, TARGET_IN))
    for row, (source, target) in enumerate(zip(PADDED.tolist(), TARGET_IN.tolist(), strict=True)):
        c = h = np.zeros(HIDDEN)
        for symbol in source:
            if symbol != PAD:
                c, h = read(p["encoder"]["cell"], symbol, c, h)
        for t, symbol in enumerate(target):
            c, h = read(p["decoder"]["cell"], symbol, c, h)
            close(logits[row, t], h @ p["output"]["w"] + p["output"]["b"])


def test_an_embedding_is_a_projection_of_one_hot_inputs():
    embedded, one_hot = (
        parameters(EMBED)["params"],
        jax.tree.map(lambda x: x, parameters()["params"]),
    )
    for side in ("encoder", "decoder"):
        cell = embedded[side]["cell"]
        one_hot[side] = {"cell": cell | {"wx": embedded[side]["embedding"] @ cell["wx"]}}
    one_hot["output"] = embedded["output"]
    close(
        forced(make(EMBED), parameters(EMBED), PADDED, TARGET_IN),
        forced(make(), {"params": one_hot}, PADDED, TARGET_IN),
    )


# --- what the logits may depend on ---------------------------------------------------------


@pytest.mark.parametrize("before", [0, 1, 3])
def test_where_and_how_much_padding_stands_changes_nothing(before):
    wider = jnp.pad(PADDED, ((0, 0), (before, 3 - before)), constant_values=PAD)
    ours = forced(make(), parameters(), wider, TARGET_IN)
    close(ours, forced(make(), parameters(), PADDED, TARGET_IN))


def test_padding_of_a_row_that_rides_alone_changes_nothing():
    logits = forced(make(), parameters(), PADDED, TARGET_IN)
    for row, length in enumerate((SOURCE, 2, 4)):
        alone = forced(
            make(), parameters(), PADDED[row : row + 1, :length], TARGET_IN[row : row + 1]
        )
        close(alone[0], logits[row])


@one_hot_and_embedded
def test_the_pad_symbols_weights_are_never_read_nor_trained_by_the_encoder(embed):
    params = parameters(embed)["params"]
    encoder = params["encoder"]

    def logits(pad_row):
        if embed is None:
            cell = encoder["cell"]
            changed = {"cell": cell | {"wx": cell["wx"].at[PAD].set(pad_row)}}
        else:
            changed = encoder | {"embedding": encoder["embedding"].at[PAD].set(pad_row)}
        return forced(make(embed), {"params": params | {"encoder": changed}}, PADDED, TARGET_IN)

    width = 4 * HIDDEN if embed is None else embed
    out, back = jax.vjp(logits, jnp.zeros(width))
    np.testing.assert_array_equal(out, logits(jnp.full(width, 9.0)))
    assert (back(jnp.ones_like(out))[0] == 0).all()


def test_without_a_pad_id_symbol_zero_is_read_like_any_other():
    full, masked = (encode(make(pad_id=p), parameters(), PADDED).carry.h for p in (None, PAD))
    assert (abs(full - masked) > 1e-4).any(axis=1).tolist() == [False, True, True]


def test_rows_do_not_influence_each_other():
    logits = forced(make(), parameters(), PADDED, TARGET_IN)
    order = jnp.array([2, 0, 1])
    np.testing.assert_array_equal(
        forced(make(), parameters(), PADDED[order], TARGET_IN[order]), logits[order]
    )
    other = forced(make(), parameters(), PADDED.at[1].set(FULL[0]), TARGET_IN.at[1].set(3))
    np.testing.assert_array_equal(other[jnp.array([0, 2])], logits[jnp.array([0, 2])])
    assert (other[1] != logits[1]).any()


def test_every_source_symbol_and_their_order_matter():
    logits = forced(make(), parameters(), FULL, TARGET_IN)
    for position in range(SOURCE):
        changed = FULL.at[:, position].set(FULL[:, position] % (VOCAB - 1) + 1)
        moved = abs(forced(make(), parameters(), changed, TARGET_IN) - logits)
        assert (moved.max(axis=(1, 2)) > 1e-4).all()
    reversed_source = forced(make(), parameters(), FULL[:, ::-1], TARGET_IN)
    assert (abs(reversed_source - logits).max(axis=(1, 2)) > 1e-2).all()


@pytest.mark.parametrize("position", range(TARGET))
def test_a_logit_depends_on_the_target_so_far_never_on_what_comes(position):
    changed = TARGET_IN.at[:, position].set(TARGET_IN[:, position] % (VOCAB - 1) + 1)
    logits, other = (forced(make(), parameters(), PADDED, t) for t in (TARGET_IN, changed))
    np.testing.assert_array_equal(other[:, :position], logits[:, :position])
    assert (abs(other - logits)[:, position:].max(axis=2) > 1e-4).all()


# --- shapes, names and settings ------------------------------------------------------------


@with_and_without_padding
def test_encoding_holds_every_hidden_state_the_mask_and_the_last_carry(pad_id):
    encoding = encode(make(pad_id=pad_id), parameters(), PADDED)
    assert isinstance(encoding, Encoding)
    if pad_id is None:
        assert encoding.mask is None
    else:
        np.testing.assert_array_equal(encoding.mask, PADDED != PAD)
    np.testing.assert_array_equal(encoding.outputs[:, -1], encoding.carry.h)


@one_hot_and_embedded
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_shapes_and_types(embed, precision):
    model = make(embed, precision=precision)
    params = jax.eval_shape(model.init, jax.random.key(0), FULL, TARGET_IN)
    logits = jax.eval_shape(model.apply, params, FULL, TARGET_IN)
    encoding = jax.eval_shape(lambda p: model.apply(p, FULL, method="encode"), params)
    assert logits.shape == (BATCH, TARGET, VOCAB)
    assert encoding.outputs.shape == (BATCH, SOURCE, HIDDEN)
    assert [x.shape for x in encoding.carry] == [(BATCH, HIDDEN)] * 2
    floats = jax.tree.leaves((params, logits, encoding.outputs, encoding.carry))
    assert {x.dtype for x in floats} == {jnp.dtype("float32")}


@one_hot_and_embedded
def test_names_and_shapes_of_the_parameters(embed):
    params = jax.eval_shape(make(embed).init, jax.random.key(0), FULL, TARGET_IN)
    inputs = VOCAB if embed is None else embed
    gates = 4 * HIDDEN
    side = {"cell": {"wx": (inputs, gates), "wh": (HIDDEN, gates), "b": (gates,)}}
    if embed is not None:
        side["embedding"] = (VOCAB, embed)
    output = {"w": (HIDDEN, VOCAB), "b": (VOCAB,)}
    names = {"params": {"encoder": side, "decoder": side, "output": output}}
    assert jax.tree.map(lambda p: p.shape, params) == names


@one_hot_and_embedded
def test_a_target_costs_one_product_a_step_and_one_for_all_logits(embed):
    jaxpr = jax.make_jaxpr(make(embed).apply)(parameters(embed), PADDED, TARGET_IN)
    products = sum(times for eqn, times in equations(jaxpr) if eqn.primitive.name == "dot_general")
    tables = 0 if embed is None else 2
    assert products == (SOURCE - 1) + TARGET + 1 + tables


@one_hot_and_embedded
def test_settings_reach_every_loop_and_every_product(embed):
    model = make(embed, precision="bfloat16", unroll=2)
    loss = lambda params: model.apply(params, PADDED, TARGET_IN).sum()
    jaxpr = jax.make_jaxpr(jax.grad(loss))(parameters(embed))
    found = [eqn for eqn, _ in equations(jaxpr)]
    loops = [eqn.params["unroll"] for eqn in found if eqn.primitive.name == "scan"]
    assert loops == [2] * 4  # encoder and decoder, forward and backward
    one_hot = (VOCAB, BATCH * SOURCE), (VOCAB, BATCH * TARGET)  # sums of rows, not rounded
    for eqn in found:
        if eqn.primitive.name == "dot_general" and eqn.invars[0].aval.shape not in one_hot:
            assert [v.aval.dtype for v in eqn.invars] == [jnp.bfloat16] * 2
            assert eqn.outvars[0].aval.dtype == jnp.float32


@one_hot_and_embedded
def test_bfloat16_and_unrolling_give_nearly_the_same_logits(embed):
    fine = forced(make(embed), parameters(embed), PADDED, TARGET_IN)
    close(forced(make(embed, unroll=3), parameters(embed), PADDED, TARGET_IN), fine)
    coarse = forced(make(embed, precision="bfloat16"), parameters(embed), PADDED, TARGET_IN)
    assert 1e-4 < abs(coarse - fine).max() < 0.1
