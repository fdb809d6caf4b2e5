"""Initial weights: what each preset promises, and that keys decide all of it."""

from functools import cache, partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from s2sjax.config import Model
from s2sjax.model.cells import CELLS
from s2sjax.model.initialisers import Initialisers, initialisers
from s2sjax.model.seq2seq import Seq2Seq

INPUTS, HIDDEN = 50, 64
PRESETS = ("keras", "flax", "torch", "sutskever", "saitoh")
BOUNDS = {"torch": HIDDEN**-0.5, "sutskever": 0.08}

of_every_preset = pytest.mark.parametrize("preset", PRESETS)
of_every_cell = pytest.mark.parametrize("cell", CELLS)


def shapes(cell):
    gates = CELLS[cell].gates * HIDDEN
    return Initialisers(
        kernel=(INPUTS, gates),
        recurrent=(HIDDEN, gates),
        gate_bias=(gates,),
        bias=(HIDDEN,),
        embedding=(INPUTS, HIDDEN),
    )


@cache
def draw(preset, cell="lstm", seed=0):
    """One array of each kind."""
    keys = jax.random.split(jax.random.key(seed), len(Initialisers._fields))
    kinds = zip(initialisers(preset, HIDDEN, CELLS[cell]), keys, shapes(cell), strict=True)
    return Initialisers(*[np.asarray(init(key, shape)) for init, key, shape in kinds])


def assert_uniform(weights, bound):
    assert abs(weights).max() <= bound
    assert scipy.stats.kstest(weights.ravel() / bound, "uniform", (-1, 2)).pvalue > 0.01


def assert_normal(weights, deviation):
    assert scipy.stats.kstest(weights.ravel() / deviation, "norm").pvalue > 0.01


def assert_orthonormal_rows(matrix):
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(len(matrix)), atol=1e-5)


@of_every_cell
def test_keras_kernels_are_glorot_uniform_and_orthogonal_over_all_gates(cell):
    drawn = draw("keras", cell)
    assert_uniform(drawn.kernel, np.sqrt(6 / (INPUTS + CELLS[cell].gates * HIDDEN)))
    assert_orthonormal_rows(drawn.recurrent)
    one_gate = drawn.recurrent[:, :HIDDEN]
    apart = abs(one_gate @ one_gate.T - np.eye(HIDDEN)).max()
    assert (apart > 0.1) == (CELLS[cell].gates > 1)  # and not gate by gate


@pytest.mark.parametrize(
    ("cell", "biases"), [("lstm", [0, 1, 0, 0]), ("gru", [0] * 3), ("rnn", [0])]
)
def test_keras_biases_are_zero_but_for_an_lstms_forget_gate(cell, biases):
    drawn = draw("keras", cell)
    np.testing.assert_array_equal(drawn.gate_bias, np.repeat(biases, HIDDEN))
    assert not drawn.bias.any()


@of_every_cell
def test_flax_recurrent_kernel_is_orthogonal_gate_by_gate_and_no_two_gates_are_equal(cell):
    gates = np.split(draw("flax", cell).recurrent, CELLS[cell].gates, axis=1)
    for i, gate in enumerate(gates):
        assert_orthonormal_rows(gate)
        assert all(abs(gate - other).max() > 0.1 for other in gates[:i])


@of_every_cell
@pytest.mark.parametrize("preset", ["flax", "saitoh"])
def test_flax_and_saitoh_biases_are_zero(preset, cell):
    assert not draw(preset, cell).gate_bias.any()
    assert not draw(preset, cell).bias.any()


@pytest.mark.parametrize(
    ("cell", "theirs", "gates"),
    [("lstm", nn.LSTMCell, "ifgo"), ("gru", nn.GRUCell, "rzn"), ("rnn", nn.SimpleCell, [""])],
)
def test_flax_weights_are_distributed_as_those_of_its_own_cell(cell, theirs, gates):
    theirs = theirs(HIDDEN)
    start = theirs.initialize_carry(jax.random.key(0), (1, INPUTS))
    params = jax.jit(theirs.init)(jax.random.key(1), start, jnp.zeros((1, INPUTS)))["params"]
    kernels = np.concatenate([params[f"i{gate}"]["kernel"] for gate in gates], axis=1)
    ours = draw("flax", cell)
    assert scipy.stats.ks_2samp(ours.kernel.ravel(), kernels.ravel()).pvalue > 0.01
    assert ours.kernel.std() == pytest.approx(INPUTS**-0.5, rel=0.03)  # LeCun
    assert abs(ours.kernel).max() <= abs(kernels).max() * 1.01  # both cut at two deviations
    recurrent = np.concatenate([params[f"h{gate}"]["kernel"] for gate in gates], axis=1)
    assert scipy.stats.ks_2samp(ours.recurrent.ravel(), recurrent.ravel()).pvalue > 0.01
    for gate in gates:
        assert_orthonormal_rows(np.asarray(params[f"h{gate}"]["kernel"]))
    assert not any(p["bias"].any() for p in params.values() if "bias" in p)


@of_every_cell
@pytest.mark.parametrize("preset", BOUNDS)
def test_uniform_presets_draw_every_parameter_biases_too(preset, cell):
    for weights in draw(preset, cell)[:-1]:
        assert_uniform(weights, BOUNDS[preset])


@of_every_cell
def test_saitohs_kernels_are_normal_by_their_rows(cell):
    drawn = draw("saitoh", cell)
    assert_normal(drawn.kernel, INPUTS**-0.5)
    assert_normal(drawn.recurrent, HIDDEN**-0.5)


def test_embeddings_have_the_size_that_each_library_gives_them():
    assert_uniform(draw("keras").embedding, 0.05)
    assert_uniform(draw("sutskever").embedding, 0.08)
    assert_normal(draw("flax").embedding, HIDDEN**-0.5)
    assert_normal(draw("torch").embedding, 1)
    assert_normal(draw("saitoh").embedding, 0.01)
    ids = jnp.zeros(1, jnp.int32)
    flax = nn.Embed(INPUTS, HIDDEN).init(jax.random.key(1), ids)["params"]["embedding"]
    assert scipy.stats.ks_2samp(draw("flax").embedding.ravel(), flax.ravel()).pvalue > 0.01


@of_every_preset
@of_every_cell
def test_everything_is_float32_of_the_asked_shape(preset, cell):
    for weights, shape in zip(draw(preset, cell), shapes(cell), strict=True):
        assert weights.dtype == np.float32
        assert weights.shape == shape


@of_every_preset
def test_keys_decide(preset):
    first, again, other = draw(preset), draw.__wrapped__(preset), draw(preset, seed=1)
    jax.tree.map(np.testing.assert_array_equal, first, again)
    for kind in ("kernel", "recurrent", "embedding"):
        assert (getattr(other, kind) != getattr(first, kind)).mean() > 0.99


# --- the whole model -----------------------------------------------------------------------


def model_params(hidden_size, key=0, **settings):
    model = Seq2Seq(13, 13, None, Model(hidden_size=hidden_size, **settings))
    ids = jnp.zeros((1, 2), jnp.int32)
    return partial(model.init, jax.random.key(key), ids, ids)


@pytest.mark.parametrize(
    ("preset", "cell"),
    [
        *((preset, "lstm") for preset in PRESETS),
        ("keras", "gru"),
        ("keras", "rnn"),
        ("torch", "gru"),
    ],
)
def test_every_parameter_of_a_model_is_drawn_as_the_preset_says(preset, cell):
    params = model_params(8, init=preset, embed_dim=6, cell=cell)()["params"]
    bounds = {"sutskever": 0.08, "torch": 8**-0.5}
    for side in (params["encoder"], params["decoder"]):
        layer = side["cell"]
        if preset in bounds:
            everything = np.concatenate([p.ravel() for p in jax.tree.leaves(layer)])
            assert (abs(side["embedding"]).max() > 1) == (preset == "torch")
            assert 0.9 * bounds[preset] < abs(everything).max() <= bounds[preset]
            assert all(layer[name].any() for name in {"b", "bn"} & set(layer))
            continue
        biases = np.zeros((CELLS[cell].gates, 8))
        if (preset, cell) == ("keras", "lstm"):
            biases[1] = 1
        np.testing.assert_array_equal(layer["b"], biases.ravel())
        assert cell != "gru" or not layer["bn"].any()
        if preset == "saitoh":
            assert abs(side["embedding"]).max() < 0.06
        else:
            whole = layer["wh"] if preset == "keras" else layer["wh"][:, :8]
            assert_orthonormal_rows(np.asarray(whole))
    assert params["output"]["b"].any() == (preset in bounds)


def test_a_models_key_decides_its_weights_and_encoder_and_decoder_differ():
    one, again, other = (model_params(8, key)()["params"] for key in (0, 0, 1))
    jax.tree.map(np.testing.assert_array_equal, one, again)
    assert (one["output"]["w"] != other["output"]["w"]).all()
    for name in ("wx", "wh"):
        encoder, decoder = (np.asarray(one[side]["cell"][name]) for side in ("encoder", "decoder"))
        assert (encoder != decoder).mean() > 0.99
