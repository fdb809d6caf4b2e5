"""The encoder-decoder: its equations, teacher forcing step by step, what it must never read."""

import functools

import addition_rnn
import jax
import jax.numpy as jnp
import numpy as np
import peeky
import pytest
import reverse_vs_forward

from s2sjax.config import Model
from s2sjax.initialisers import GATES
from s2sjax.models import Encoding, Seq2Seq
from s2sjax.plan import parameter_count
from s2sjax.vocab import NO_SYMBOL

BATCH, SOURCE, TARGET, VOCAB, HIDDEN, EMBED = 3, 5, 4, 7, 6, 2  # all different
PAD = 0
rng = np.random.default_rng(0)
FULL = jnp.array(rng.integers(1, VOCAB, (BATCH, SOURCE)), jnp.int32)
PADDED = FULL.at[1, 2:].set(PAD).at[2, 4:].set(PAD)
TARGET_IN = jnp.array(rng.integers(1, VOCAB, (BATCH, TARGET)), jnp.int32)

one_hot_and_embedded = pytest.mark.parametrize("embed", [None, EMBED], ids=["one-hot", "embedded"])
with_and_without_padding = pytest.mark.parametrize("pad_id", [None, PAD], ids=["full", "padded"])

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
        "hand_over": ("carry", "learned", "zero")[(2 * i + j) % 3],
    }
    for i, score in enumerate(("dot", "general", "additive"))
    for j, attend in enumerate(("after", "feeding", "before"))
}
KINDS |= ATTENTION
KINDS["two directions"] = {"directions": 2, **LAYERS[1]}
KINDS["residual"] = {"residual": True, **LAYERS[2], "directions": 2}
KINDS["tied"] = {"tied_output": True, "embed": HIDDEN, "attention": "dot"}
KINDS["hidden handed over"] = {"hand_over": "hidden", "embed": EMBED}
KINDS["hidden handed over peeky"] = {"hand_over": "hidden", "peeky": True, **LAYERS[1]}


def of_kinds(*names):
    return pytest.mark.parametrize("settings", [KINDS[name] for name in names], ids=names)


def make(embed=None, pad_id=PAD, **settings):
    return Seq2Seq(VOCAB, pad_id, Model(hidden_size=HIDDEN, embed_dim=embed, **settings))


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

    _, logits = jax.lax.scan(step, encoding.carry, target_in.T)
    return model.apply(params, source, target_in), logits.swapaxes(0, 1)


def source_of(pad_id):
    return FULL if pad_id is None else PADDED


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
    for i, cells in enumerate(zip(*directions, strict=True)):
        last, hidden = [], []
        for turn, cell in zip((1, -1), cells, strict=False):
            state, seen = (blank, blank), []
            for x in outputs[::turn]:
                state = one_step(config.cell, cell, x, state)
                seen.append(state[1])
            last.append(state)
            hidden.append(seen[::turn])
        states.append(tuple(np.concatenate(parts) for parts in zip(*last, strict=True)))
        new = [np.concatenate(parts) for parts in zip(*hidden, strict=True)]
        outputs = (
            [a + b for a, b in zip(new, outputs, strict=True)] if config.residual and i else new
        )
    return states, np.stack(outputs)


def look(config, p, query, memory):
    """Context and alignment."""
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
        one_hot = np.eye(VOCAB)[symbol]
        return one_hot @ p[side]["embedding"] if "embedding" in p[side] else one_hot

    zero = (np.zeros(HIDDEN), np.zeros(HIDDEN))
    decoder = layers_of(p["decoder"])
    states, memory = encode_by_hand(config, p["encoder"], [token("encoder", s) for s in source])
    context = states[-1][1]
    if config.decoder == "repeat" or config.hand_over == "zero":
        states = []
    if config.hand_over == "hidden":
        states = [(zero[0], h) for _, h in states]
    if config.hand_over == "learned":
        bridges = [p[f"bridges_{i}"] for i in range(len(decoder))]
        states = [(zero[0], np.tanh(context @ b["w"] + b["b"])) for b in bridges]
    states = ([zero] * len(decoder) + states)[-len(decoder) :]  # the top layers meet
    logits, alignments, fed = [], [], zero[0]
    for symbol in target:
        inputs = [] if config.decoder == "repeat" else [token("decoder", symbol)]
        if config.decoder == "repeat" or config.peeky:
            inputs.append(context)
        if config.attend == "before":
            seen, weights = look(config, p["attention"], states[-1][1], memory)
            inputs.append(seen)
        if config.attend == "feeding":
            inputs.append(fed)
        x = np.concatenate(inputs)
        for i, cell in enumerate(decoder):
            states[i] = one_step(config.cell, cell, x, states[i])
            x = states[i][1] + (x if config.residual and i else 0)
        if config.attention:
            if config.attend != "before":
                seen, weights = look(config, p["attention"], x, memory)
            x = fed = np.tanh(np.concatenate([seen, x]) @ p["attention"]["wc"])
            alignments.append(weights)
        hidden = np.concatenate([x, context]) if config.peeky else x
        w = p["decoder"]["embedding"].T if config.tied_output else p["output"]["w"]
        logits.append(hidden @ w + p["output"]["b"])
    return np.stack(logits), alignments


@of_kinds(*KINDS)
def test_the_model_is_its_equations_at_once_and_step_by_step(settings):
    model, params = make(**settings), parameters(**settings)
    at_once, stepped = forced_and_stepped(model, params, PADDED, TARGET_IN)
    close(stepped, at_once)
    for row, source, target in zip(at_once, PADDED.tolist(), TARGET_IN.tolist(), strict=True):
        real = [symbol for symbol in source if symbol != PAD]
        close(row, by_hand(model.config, params, real, target)[0], rtol=1e-4, atol=1e-5)


def test_what_is_handed_over_matters():
    row = FULL[0].tolist(), TARGET_IN[0].tolist()
    layers = {"encoder_layers": 2, "decoder_layers": 2}
    carried, hidden = (
        by_hand(make(hand_over=how, **layers).config, parameters(**layers), *row)[0]
        for how in ("carry", "hidden")
    )
    assert (abs(carried - hidden).max(axis=1) > 1e-3).all()


@pytest.mark.parametrize(
    "settings",
    [
        {"peeky": True, "cell": "gru", "encoder_layers": 2, "embed": EMBED},
        {"decoder": "repeat", "decoder_layers": 2},
    ],
)
def test_gradients_at_once_and_step_by_step_are_the_same(settings):
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


@one_hot_and_embedded
@with_and_without_padding
def test_teacher_forcing_is_encode_and_then_step_after_step(embed, pad_id):
    model, params = make(embed, pad_id), parameters(embed)
    close(*forced_and_stepped(model, params, source_of(pad_id), TARGET_IN))


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


MASKED = FULL % (VOCAB - 1)  # symbol 0 is an ordinary one, and nothing is the last symbol
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
    out, back = jax.vjp(logits, jnp.zeros(width))
    np.testing.assert_array_equal(out, logits(jnp.full(width, 9.0)))
    assert (back(jnp.ones_like(out))[0] == 0).all()


def test_without_a_pad_id_symbol_zero_is_read_like_any_other():
    models = (make(pad_id=pad_id) for pad_id in (None, PAD))
    full, masked = (encode(model, parameters(), PADDED).carry.carries[0].h for model in models)
    assert (abs(full - masked) > 1e-4).any(axis=1).tolist() == [False, True, True]


@pytest.mark.parametrize("settings", DECODERS.values(), ids=DECODERS.keys())
def test_rows_do_not_influence_each_other(settings):
    model, params = make(**settings), parameters(**settings)
    logits = forced(model, params, PADDED, TARGET_IN)
    order = jnp.array([2, 0, 1])
    np.testing.assert_array_equal(
        forced(model, params, PADDED[order], TARGET_IN[order]), logits[order]
    )
    other = forced(model, params, PADDED.at[1].set(FULL[0]), TARGET_IN.at[1].set(3))
    np.testing.assert_array_equal(other[jnp.array([0, 2])], logits[jnp.array([0, 2])])
    assert (other[1] != logits[1]).any()


@pytest.mark.parametrize("settings", DECODERS.values(), ids=DECODERS.keys())
def test_every_source_symbol_and_their_order_matter(settings):
    model, params = make(**settings), parameters(**settings)
    logits = forced(model, params, FULL, TARGET_IN)
    for position in range(SOURCE):
        changed = FULL.at[:, position].set(FULL[:, position] % (VOCAB - 1) + 1)
        moved = abs(forced(model, params, changed, TARGET_IN) - logits)
        assert (moved.max(axis=(1, 2)) > 1e-4).all()
    reversed_source = forced(model, params, FULL[:, ::-1], TARGET_IN)
    assert (abs(reversed_source - logits).max(axis=(1, 2)) > 1e-2).all()


@pytest.mark.parametrize("position", range(TARGET))
def test_a_logit_depends_on_the_target_so_far_never_on_what_comes(position):
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
    assert parameter_count(addition_rnn.PRESETS["digits3"][1].run) == 205_324  # Keras
    saitoh = peeky.arms("saitoh", peeky.PRESETS["saitoh"][1])
    counts = {arm: parameter_count(run) for arm, run in saitoh.items()}
    assert counts == {arm: 217_773 if "peeky" in arm else 150_573 for arm in saitoh}
    assert len(set(counts.values())) == 2
    assert parameter_count(reverse_vs_forward.PRESETS["notebook"][1].run) == 147_085
    assert parameter_count(reverse_vs_forward.PRESETS["one_unit"][1].run) == 146


@with_and_without_padding
def test_encoding_holds_every_hidden_state_the_mask_and_the_last_carries(pad_id):
    layers = {"encoder_layers": 2, "decoder_layers": 2}
    encoding = encode(make(pad_id=pad_id, **layers), parameters(**layers), PADDED)
    assert isinstance(encoding, Encoding)
    if pad_id is None:
        assert encoding.mask is None
    else:
        np.testing.assert_array_equal(encoding.mask, PADDED != PAD)
    np.testing.assert_array_equal(encoding.outputs[:, -1], encoding.carry.carries[1].h)
    assert (encoding.carry.carries[0].h != encoding.carry.carries[1].h).all()
    assert (encoding.drive, encoding.offset) == (None, None)


@of_kinds(*KINDS)
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_shapes_and_types(settings, precision):
    model = make(precision=precision, **settings)
    params = shapes(model)
    logits = jax.eval_shape(model.apply, params, FULL, TARGET_IN)
    encoding = jax.eval_shape(lambda p: model.apply(p, FULL, method="encode"), params)
    assert logits.shape == (BATCH, TARGET, VOCAB)
    assert encoding.outputs.shape == (BATCH, SOURCE, HIDDEN)
    carries = jax.tree.leaves(encoding.carry.carries)
    layers = settings.get("decoder_layers", 1)
    assert len(carries) == layers * (2 if settings.get("cell", "lstm") == "lstm" else 1)
    assert {x.shape for x in carries} == {(BATCH, HIDDEN)}
    floats = jax.tree.leaves((params, logits, encoding._replace(mask=None, memory=None)))
    assert {x.dtype for x in floats} == {jnp.dtype("float32")}


@of_kinds("state lstm", "state gru", "peeky rnn", "repeat gru", "hidden handed over peeky")
def test_names_and_shapes_of_the_parameters(settings):
    config = make(**settings).config
    gates, embed = GATES[config.cell] * HIDDEN, config.embed_dim

    def layer(inputs):
        named = {"wx": (inputs, gates), "wh": (HIDDEN, gates), "b": (gates,)}
        return named | ({"bn": (HIDDEN,)} if config.cell == "gru" else {})

    def side(layers, tokens, context):
        above = {f"above_{i}": layer(HIDDEN) for i in range(layers - 1)}
        embedded = {"embedding": (VOCAB, embed)} if embed and tokens else {}
        width = (embed or VOCAB) if tokens else 0
        return {"cell": layer(width + HIDDEN * context), **above, **embedded}

    repeat = config.decoder == "repeat"
    named = {
        "encoder": side(config.encoder_layers, True, False),
        "decoder": side(config.decoder_layers, not repeat, repeat or config.peeky),
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
    one_hot = (VOCAB, BATCH * SOURCE), (VOCAB, BATCH * TARGET)  # sums of rows, not rounded
    for eqn in found:
        if eqn.primitive.name == "dot_general" and eqn.invars[0].aval.shape not in one_hot:
            assert [v.aval.dtype for v in eqn.invars] == [jnp.bfloat16] * 2
            assert eqn.outvars[0].aval.dtype == jnp.float32


def test_bfloat16_and_unrolling_give_nearly_the_same_logits():
    fine = forced(make(EMBED), parameters(EMBED), PADDED, TARGET_IN)
    close(forced(make(EMBED, unroll=3), parameters(EMBED), PADDED, TARGET_IN), fine)
    coarse = forced(make(EMBED, precision="bfloat16"), parameters(EMBED), PADDED, TARGET_IN)
    assert 1e-4 < abs(coarse - fine).max() < 0.1
