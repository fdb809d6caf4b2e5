"""The encoder-decoder: its equations, teacher forcing step by step, what it must never read."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from s2sjax.config import Model
from s2sjax.model.cells import CELLS
from s2sjax.model.seq2seq import Seq2Seq

NO_SYMBOL = -1
BATCH, SOURCE, TARGET, SOURCE_VOCAB, VOCAB, HIDDEN, EMBED = 3, 5, 4, 8, 7, 6, 2  # all different
PAD = 0
rng = np.random.default_rng(0)
FULL = jnp.array(rng.integers(1, SOURCE_VOCAB, (BATCH, SOURCE)), jnp.int32)
PADDED = FULL.at[1, 2:].set(PAD).at[2, 4:].set(PAD)
TARGET_IN = jnp.array(rng.integers(1, VOCAB, (BATCH, TARGET)), jnp.int32)

one_hot_and_embedded = pytest.mark.parametrize("embed", [None, EMBED], ids=["one-hot", "embedded"])

# Every decoder with every cell; every number of layers with each of both.
DECODERS = {
    "state": {},
    "peeky": {"peeky": True},
    "repeat": {"decoder": "repeat"},
    "peeky repeat": {"decoder": "repeat", "peeky": True},
}
LAYERS = [
    {"encoder_layers": encoder, "decoder_layers": decoder}
    for encoder, decoder in ((1, 1), (2, 3), (3, 2), (2, 2))
]
KINDS = {
    f"{name} {cell}": {
        **DECODERS[name],
        "cell": cell,
        **LAYERS[(i + j) % len(LAYERS)],
        "embed": EMBED if j % 2 else None,
    }
    for i, name in enumerate(DECODERS)
    for j, cell in enumerate(("lstm", "gru", "rnn"))
}
# Attention: every score with every time to attend, each with other layers, directions and bridges.
ATTENTION = {
    f"{score} {attend}": {
        "attention": score,
        "attend": attend,
        "cell": ("lstm", "gru", "rnn")[(i + j) % 3],
        **LAYERS[(i + 2 * j) % len(LAYERS)],
        "directions": 1 + (i + j) % 2,
        "embed": None if i == j else EMBED,
        "decoder_init": ("carry", "learned", "zero")[(2 * i + j) % 3],
    }
    for i, score in enumerate(("dot", "general", "additive"))
    for j, attend in enumerate(("after", "feeding", "before"))
}
KINDS |= ATTENTION
KINDS["two directions"] = {"directions": 2, **LAYERS[1]}
KINDS["hidden handed over"] = {"decoder_init": "hidden", "embed": EMBED}
KINDS["hidden handed over peeky"] = {"decoder_init": "hidden", "peeky": True, **LAYERS[1]}


def of_kinds(*names):
    return pytest.mark.parametrize("settings", [KINDS[name] for name in names], ids=names)


def make(embed=None, pad_id=PAD, **settings):
    return Seq2Seq(
        SOURCE_VOCAB, VOCAB, pad_id, Model(hidden_size=HIDDEN, embed_dim=embed, **settings)
    )


def shapes(model):
    return jax.eval_shape(model.init, jax.random.key(0), FULL, TARGET_IN)


@functools.cache
def parameters(embed=None, **settings):
    """Large, so that every symbol matters, and with biases; the same for every other setting."""
    leaves, tree = jax.tree.flatten(shapes(make(embed, **settings)))
    draw = np.random.default_rng(1)
    values = [jnp.array(draw.normal(0, 1, leaf.shape), jnp.float32) for leaf in leaves]
    return tree.unflatten(values)


@functools.partial(jax.jit, static_argnums=0)
def forced(model, params, source, target_in):
    return model.apply(params, source, target_in)


@functools.partial(jax.jit, static_argnums=0)
def encode(model, params, source):
    return model.apply(params, source, method="encode")


@functools.partial(jax.jit, static_argnums=0)
def forced_and_stepped(model, params, source, target_in):
    """All logits at once, and again from one symbol after another."""
    encoding = model.apply(params, source, method="encode")

    def step(carry, token):
        return model.apply(params, carry, token, encoding, method="step")

    _, logits = jax.lax.scan(step, encoding.initial_state, target_in.T)
    return model.apply(params, source, target_in), logits.swapaxes(0, 1)


def close(a, b, rtol=1e-5, atol=2e-6):
    np.testing.assert_allclose(a, b, rtol=rtol, atol=atol)


def equations(jaxpr, times=1):
    """Every equation with how often it runs."""
    for eqn in jaxpr.eqns:
        yield eqn, times
        runs = times * eqn.params["length"] if eqn.primitive.name == "scan" else times
        for inner in jax.tree.leaves(list(eqn.params.values())):
            if hasattr(inner, "eqns"):
                yield from equations(inner, runs)


def products(function, *arguments):
    """Matrix products that a function does."""
    jaxpr = jax.make_jaxpr(function)(*arguments)
    return sum(times for eqn, times in equations(jaxpr) if eqn.primitive.name == "dot_general")


# --- the equations -------------------------------------------------------------------------


def layers_of(side, bottom="cell", above="above_"):
    """A side's layers, from the bottom."""
    return [side[bottom], *(side[name] for name in sorted(side) if name.startswith(above))]


def one_step(cell, layer, x, state):
    """A layer's step, textbook fashion; a state is (c, h), and only an LSTM has a c."""
    sigmoid = lambda x: 1 / (1 + np.exp(-x))
    c, h = state
    z, u = x @ layer["wx"] + layer["b"], h @ layer["wh"]
    if cell == "lstm":
        i, f, g, o = np.split(z + u, 4)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        return c, sigmoid(o) * np.tanh(c)
    if cell == "gru":
        (r, k, n), (u_r, u_k, u_n) = np.split(z, 3), np.split(u, 3)
        k = sigmoid(k + u_k)
        return c, (1 - k) * np.tanh(n + sigmoid(r + u_r) * (u_n + layer["bn"])) + k * h
    return c, np.tanh(z + u)


def encode_by_hand(config, side, inputs):
    """The last states of every layer, and the top layer's outputs."""
    names = [("cell", "above_"), ("back", "back_above_")][: config.directions]
    directions = [layers_of(side, *pair) for pair in names]
    blank = np.zeros(HIDDEN // config.directions)
    states, outputs = [], inputs
    for cells in zip(*directions, strict=True):
        last, hidden = [], []
        for turn, cell in zip((1, -1), cells, strict=False):
            state, written = (blank, blank), []
            for x in outputs[::turn]:
                state = one_step(config.cell, cell, x, state)
                written.append(state[1])
            last.append(state)
            hidden.append(written[::turn])
        states.append(tuple(np.concatenate(parts) for parts in zip(*last, strict=True)))
        outputs = [np.concatenate(parts) for parts in zip(*hidden, strict=True)]
    return states, np.stack(outputs)


def attend(config, p, query, memory):
    """Context and attention weights."""
    if config.attention == "additive":
        energies = np.tanh(query @ p["wq"] + memory @ p["wk"]) @ p["v"][:, 0]
    else:
        energies = (memory @ p["wk"] if config.attention == "general" else memory) @ query
    weights = np.exp(energies - energies.max())
    weights /= weights.sum()
    return weights @ memory, weights


def by_hand(config, params, source, target):
    """Logits and alignments of a row of real symbols: what is read side by side is concatenated."""
    p = jax.tree.map(lambda x: np.asarray(x, np.float64), params["params"])

    def token(side, symbol):
        one_hot = np.eye(SOURCE_VOCAB if side == "encoder" else VOCAB)[symbol]
        return one_hot @ p[side]["embedding"] if "embedding" in p[side] else one_hot

    zero = (np.zeros(HIDDEN), np.zeros(HIDDEN))
    decoder = layers_of(p["decoder"])
    states, memory = encode_by_hand(config, p["encoder"], [token("encoder", s) for s in source])
    context = states[-1][1]
    if config.decoder == "repeat" or config.decoder_init == "zero":
        states = []
    if config.decoder_init == "hidden":
        states = [(zero[0], h) for _, h in states]
    if config.decoder_init == "learned":
        bridges = [p[f"bridges_{i}"] for i in range(len(decoder))]
        states = [(zero[0], np.tanh(context @ b["w"] + b["b"])) for b in bridges]
    states = ([zero] * len(decoder) + states)[-len(decoder) :]  # the top layers meet
    logits, alignments, previous_readout = [], [], zero[0]
    for symbol in target:
        inputs = [] if config.decoder == "repeat" else [token("decoder", symbol)]
        if config.decoder == "repeat" or config.peeky:
            inputs.append(context)
        if config.attend == "before":
            context_now, weights = attend(config, p["attention"], states[-1][1], memory)
            inputs.append(context_now)
        if config.attend == "feeding":
            inputs.append(previous_readout)
        x = np.concatenate(inputs)
        for i, cell in enumerate(decoder):
            states[i] = one_step(config.cell, cell, x, states[i])
            x = states[i][1]
        if config.attention:
            if config.attend != "before":
                context_now, weights = attend(config, p["attention"], x, memory)
            x = previous_readout = np.tanh(np.concatenate([context_now, x]) @ p["attention"]["wc"])
            alignments.append(weights)
        hidden = np.concatenate([x, context]) if config.peeky else x
        logits.append(hidden @ p["output"]["w"] + p["output"]["b"])
    return np.stack(logits), alignments


@of_kinds(*KINDS)
def test_the_model_is_its_equations_at_once_and_step_by_step(settings):
    model, params = make(**settings), parameters(**settings)
    at_once, stepped = forced_and_stepped(model, params, PADDED, TARGET_IN)
    close(stepped, at_once)
    for row, source, target in zip(at_once, PADDED.tolist(), TARGET_IN.tolist(), strict=True):
        real = [symbol for symbol in source if symbol != PAD]
        close(row, by_hand(model.config, params, real, target)[0], rtol=1e-4, atol=1e-5)


def test_gradients_at_once_and_step_by_step_are_the_same():
    settings = {"peeky": True, "cell": "gru", "encoder_layers": 2, "embed": EMBED}
    model, params = make(**settings), parameters(**settings)
    weights = jnp.array(rng.normal(0, 1, (BATCH, TARGET, VOCAB)), jnp.float32)

    @jax.jit
    @jax.jacrev
    def gradients(params):
        both = forced_and_stepped(model, params, PADDED, TARGET_IN)
        return jnp.stack([(logits * weights).sum() for logits in both])

    for gradient in jax.tree.leaves(gradients(params)):
        close(gradient[0], gradient[1], rtol=1e-3, atol=1e-4)
        assert (abs(gradient[0]) > 1e-6).any()


# --- what the logits may depend on ---------------------------------------------------------


def test_where_and_how_much_padding_stands_changes_nothing():
    logits = forced(make(), parameters(), PADDED, TARGET_IN)
    for before in (0, 1, 3):
        wider = jnp.pad(PADDED, ((0, 0), (before, 3 - before)), constant_values=PAD)
        close(forced(make(), parameters(), wider, TARGET_IN), logits)
    for row, length in enumerate((SOURCE, 2, 4)):
        source, target = PADDED[row : row + 1, :length], TARGET_IN[row : row + 1]
        close(forced(make(), parameters(), source, target)[0], logits[row])


MASKED = FULL % (SOURCE_VOCAB - 1)  # symbol 0 is an ordinary one, and nothing is the last symbol
MASKED = jnp.insert(MASKED, jnp.array([0, 0, 2, 4, SOURCE]), NO_SYMBOL, axis=1)
MASKED = MASKED.at[1, -4:].set(NO_SYMBOL)


@of_kinds("state lstm", "peeky repeat gru", "hidden handed over peeky")
def test_ids_that_are_no_symbol_change_nothing_wherever_they_stand(settings):
    model, params = make(pad_id=NO_SYMBOL, **settings), parameters(**settings)
    logits, _ = forced_and_stepped(model, params, MASKED, TARGET_IN)
    for row, source, target in zip(logits, MASKED.tolist(), TARGET_IN.tolist(), strict=True):
        real = [symbol for symbol in source if symbol != NO_SYMBOL]
        close(row, by_hand(model.config, params, real, target)[0], rtol=1e-4, atol=1e-5)


@one_hot_and_embedded
def test_ids_that_are_no_symbol_get_no_gradient(embed):
    model, params = make(embed, pad_id=NO_SYMBOL), parameters(embed)

    @jax.jit
    @jax.grad
    def gradient(params, source):
        return (model.apply(params, source, TARGET_IN) ** 2).sum()

    masked = gradient(params, MASKED)
    elsewhere = jnp.concatenate([MASKED[:, 1:], MASKED[:, :1]], axis=1)
    jax.tree.map(
        functools.partial(close, rtol=1e-4, atol=1e-4), masked, gradient(params, elsewhere)
    )
    encoder = masked["params"]["encoder"]
    rows = encoder["cell"]["wx"] if embed is None else encoder["embedding"]
    assert (rows[-1] == 0).all()  # where a look-up of -1 ends
    assert (abs(rows[jnp.unique(MASKED)[1:]]).max(axis=1) > 1e-3).all()


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
    np.testing.assert_array_equal(logits(jnp.zeros(width)), logits(jnp.full(width, 9.0)))
    out, back = jax.vjp(logits, jnp.zeros(width))
    assert (back(jnp.ones_like(out))[0] == 0).all()


def test_without_a_pad_id_symbol_zero_is_read_like_any_other():
    models = (make(pad_id=pad_id) for pad_id in (None, PAD))
    full, masked = (
        encode(model, parameters(), PADDED).initial_state.carries[0].h for model in models
    )
    assert (abs(full - masked) > 1e-4).any(axis=1).tolist() == [False, True, True]


@pytest.mark.parametrize("settings", DECODERS.values(), ids=DECODERS.keys())
def test_every_source_symbol_matters_to_its_own_row(settings):
    model, params = make(**settings), parameters(**settings)
    logits = forced(model, params, PADDED, TARGET_IN)
    order = jnp.array([2, 0, 1])
    np.testing.assert_array_equal(
        forced(model, params, PADDED[order], TARGET_IN[order]), logits[order]
    )
    other = forced(model, params, PADDED.at[1].set(FULL[0]), TARGET_IN.at[1].set(3))
    np.testing.assert_array_equal(other[jnp.array([0, 2])], logits[jnp.array([0, 2])])
    assert (other[1] != logits[1]).any()

    logits = forced(model, params, FULL, TARGET_IN)
    for position in range(SOURCE):
        changed = FULL.at[:, position].set(FULL[:, position] % (SOURCE_VOCAB - 1) + 1)
        moved = abs(forced(model, params, changed, TARGET_IN) - logits)
        assert (moved.max(axis=(1, 2)) > 1e-4).all()
    reversed_source = forced(model, params, FULL[:, ::-1], TARGET_IN)
    assert (abs(reversed_source - logits).max(axis=(1, 2)) > 1e-2).all()


def test_a_logit_depends_on_the_target_so_far_never_on_what_comes():
    for position in range(TARGET):
        changed = TARGET_IN.at[:, position].set(TARGET_IN[:, position] % (VOCAB - 1) + 1)
        logits, other = (forced(make(), parameters(), PADDED, t) for t in (TARGET_IN, changed))
        np.testing.assert_array_equal(other[:, :position], logits[:, :position])
        assert (abs(other - logits)[:, position:].max(axis=2) > 1e-4).all()


@of_kinds("repeat lstm", "peeky repeat gru")
def test_a_decoder_that_repeats_reads_no_symbol(settings):
    model, params = make(**settings), parameters(**settings)
    gold, other = (
        forced_and_stepped(model, params, PADDED, target)
        for target in (TARGET_IN, jnp.full_like(TARGET_IN, NO_SYMBOL))
    )
    jax.tree.map(np.testing.assert_array_equal, gold, other)
    assert "embedding" not in params["params"]["decoder"]


# --- shapes, names and settings ------------------------------------------------------------


def test_the_published_numbers_of_parameters():
    def count(vocab, **settings):
        params = jax.eval_shape(
            Seq2Seq(vocab, vocab, None, Model(**settings)).init, jax.random.key(0), FULL, FULL
        )
        return sum(p.size for p in jax.tree.leaves(params))

    assert count(13) == 147_085  # the notebook
    assert count(13, hidden_size=1) == 146
    assert count(12, decoder="repeat") == 205_324  # Keras
    saitoh = {"embed_dim": 16, "decoder_init": "hidden"}
    assert count(13, **saitoh) == 150_573
    assert count(13, peeky=True, **saitoh) == 217_773


@of_kinds("state gru", "peeky repeat lstm", "additive feeding", "dot before", "two directions")
def test_shapes_and_types(settings):
    model = make(precision="bfloat16", **settings)
    params = shapes(model)
    logits = jax.eval_shape(model.apply, params, FULL, TARGET_IN)
    encoding = jax.eval_shape(lambda p: model.apply(p, FULL, method="encode"), params)
    assert logits.shape == (BATCH, TARGET, VOCAB)
    carries = jax.tree.leaves(encoding.initial_state.carries)
    layers = settings.get("decoder_layers", 1)
    assert len(carries) == layers * (2 if settings.get("cell", "lstm") == "lstm" else 1)
    assert {x.shape for x in carries} == {(BATCH, HIDDEN)}
    floats = jax.tree.leaves((params, logits, encoding._replace(memory=None)))
    assert {x.dtype for x in floats} == {jnp.dtype("float32")}


@of_kinds("state lstm", "state gru", "peeky rnn", "repeat gru", "hidden handed over peeky")
def test_names_and_shapes_of_the_parameters(settings):
    config = make(**settings).config
    gates, embed = CELLS[config.cell].gates * HIDDEN, config.embed_dim

    def layer(inputs):
        named = {"wx": (inputs, gates), "wh": (HIDDEN, gates), "b": (gates,)}
        return named | ({"bn": (HIDDEN,)} if config.cell == "gru" else {})

    def side(layers, vocab, context):
        above = {f"above_{i}": layer(HIDDEN) for i in range(layers - 1)}
        embedded = {"embedding": (vocab, embed)} if embed and vocab else {}
        width = (embed or vocab) if vocab else 0
        return {"cell": layer(width + HIDDEN * context), **above, **embedded}

    repeat = config.decoder == "repeat"
    named = {
        "encoder": side(config.encoder_layers, SOURCE_VOCAB, False),
        "decoder": side(config.decoder_layers, 0 if repeat else VOCAB, repeat or config.peeky),
        "output": {"w": (HIDDEN * (1 + config.peeky), VOCAB), "b": (VOCAB,)},
    }
    assert jax.tree.map(lambda p: p.shape, shapes(make(**settings))) == {"params": named}


@pytest.mark.parametrize(
    ("settings", "beyond"),
    [
        ({}, 0),
        ({"embed": EMBED}, 2),  # two tables
        ({"peeky": True}, 2),  # the context, for the decoder and for the logits
        ({"decoder": "repeat"}, 1 - 1),  # the same for the decoder; zero starts it
        ({"encoder_layers": 2}, 1 + SOURCE - 1),
        ({"decoder_layers": 2}, 1 + TARGET),
    ],
)
def test_a_target_costs_one_product_a_step_and_one_for_all_logits(settings, beyond):
    done = products(make(**settings).apply, parameters(**settings), PADDED, TARGET_IN)
    assert done == (SOURCE - 1) + TARGET + 1 + beyond


@of_kinds("state lstm", "peeky gru")
def test_settings_reach_every_loop_and_every_product(settings):
    model = make(precision="bfloat16", unroll=2, **settings)
    loss = lambda params: model.apply(params, PADDED, TARGET_IN).sum()
    jaxpr = jax.make_jaxpr(jax.grad(loss))(parameters(**settings))
    found = [eqn for eqn, _ in equations(jaxpr)]
    loops = [eqn.params["unroll"] for eqn in found if eqn.primitive.name == "scan"]
    layers = model.config.encoder_layers + model.config.decoder_layers
    assert loops == [2] * (2 * layers)  # forward and backward
    one_hot = (SOURCE_VOCAB, BATCH * SOURCE), (VOCAB, BATCH * TARGET)  # sums of rows, not rounded
    for eqn in found:
        if eqn.primitive.name == "dot_general" and eqn.invars[0].aval.shape not in one_hot:
            assert [v.aval.dtype for v in eqn.invars] == [jnp.bfloat16] * 2
            assert eqn.outvars[0].aval.dtype == jnp.float32


def test_bfloat16_and_unrolling_give_nearly_the_same_logits():
    fine = forced(make(EMBED), parameters(EMBED), PADDED, TARGET_IN)
    close(forced(make(EMBED, unroll=3), parameters(EMBED), PADDED, TARGET_IN), fine)
    coarse = forced(make(EMBED, precision="bfloat16"), parameters(EMBED), PADDED, TARGET_IN)
    assert 1e-4 < abs(coarse - fine).max() < 0.1
