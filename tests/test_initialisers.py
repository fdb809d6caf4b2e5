"""Initial weights: what each preset promises, and that keys decide all of it."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from s2sjax.config import Model
from s2sjax.initialisers import GATES, Initialisers, initialisers
from s2sjax.models import Seq2Seq

INPUTS, HIDDEN = 50, 64
SHAPES = Initialisers(
    kernel=(INPUTS, GATES * HIDDEN),
    recurrent=(HIDDEN, GATES * HIDDEN),
    gate_bias=(GATES * HIDDEN,),
    bias=(HIDDEN,),
)
PRESETS = ("keras", "flax", "torch", "sutskever")


def draw(preset, seed=0):
    """One array of each kind."""
    keys = jax.random.split(jax.random.key(seed), len(SHAPES))
    inits = initialisers(preset, HIDDEN)
    return Initialisers(*[np.asarray(i(k, s)) for i, k, s in zip(inits, keys, SHAPES, strict=True)])


@pytest.fixture(scope="module")
def drawn():
    return {preset: draw(preset) for preset in PRESETS}


def assert_uniform(weights, bound):
    assert abs(weights).max() <= bound
    assert scipy.stats.kstest(weights.ravel() / bound, "uniform", (-1, 2)).pvalue > 0.01


def assert_orthonormal_rows(matrix):
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(len(matrix)), atol=1e-5)


def test_keras_kernels_are_glorot_uniform_over_all_gates(drawn):
    assert_uniform(drawn["keras"].kernel, np.sqrt(6 / (INPUTS + GATES * HIDDEN)))


def test_keras_recurrent_kernel_is_orthogonal_over_all_gates(drawn):
    recurrent = drawn["keras"].recurrent
    assert_orthonormal_rows(recurrent)
    one_gate = recurrent[:, :HIDDEN]
    assert abs(one_gate @ one_gate.T - np.eye(HIDDEN)).max() > 0.1  # and not gate by gate


def test_keras_biases_are_zero_but_for_the_forget_gate(drawn):
    i, f, g, o = np.split(drawn["keras"].gate_bias, GATES)
    assert (f == 1).all()
    assert not np.concatenate([i, g, o, drawn["keras"].bias]).any()


def test_flax_recurrent_kernel_is_orthogonal_gate_by_gate_and_no_two_gates_are_equal(drawn):
    gates = np.split(drawn["flax"].recurrent, GATES, axis=1)
    for gate in gates:
        assert_orthonormal_rows(gate)
    assert abs(gates[0] - gates[1]).max() > 0.1


def test_flax_biases_are_zero(drawn):
    assert not drawn["flax"].gate_bias.any()
    assert not drawn["flax"].bias.any()


def test_flax_weights_are_distributed_as_those_of_its_own_cell(drawn):
    cell = nn.LSTMCell(HIDDEN)
    start = cell.initialize_carry(jax.random.key(0), (1, INPUTS))
    theirs = jax.jit(cell.init)(jax.random.key(1), start, jnp.zeros((1, INPUTS)))["params"]
    kernels = np.concatenate([theirs[f"i{gate}"]["kernel"] for gate in "ifgo"], axis=1)
    ours = drawn["flax"].kernel
    assert scipy.stats.ks_2samp(ours.ravel(), kernels.ravel()).pvalue > 0.01
    assert ours.std() == pytest.approx(INPUTS**-0.5, rel=0.03)  # LeCun
    assert abs(ours).max() <= abs(kernels).max() * 1.01  # both cut at two deviations
    recurrent = np.concatenate([theirs[f"h{gate}"]["kernel"] for gate in "ifgo"], axis=1)
    assert scipy.stats.ks_2samp(drawn["flax"].recurrent.ravel(), recurrent.ravel()).pvalue > 0.01
    for gate in "ifgo":
        assert_orthonormal_rows(np.asarray(theirs[f"h{gate}"]["kernel"]))
        assert not theirs[f"h{gate}"]["bias"].any()


@pytest.mark.parametrize(("preset", "bound"), [("torch", HIDDEN**-0.5), ("sutskever", 0.08)])
def test_uniform_presets_draw_every_parameter_biases_too(drawn, preset, bound):
    for weights in drawn[preset]:
        assert_uniform(weights, bound)


@pytest.mark.parametrize("preset", PRESETS)
def test_everything_is_float32_of_the_asked_shape(drawn, preset):
    for weights, shape in zip(drawn[preset], SHAPES, strict=True):
        assert weights.dtype == np.float32
        assert weights.shape == shape


@pytest.mark.parametrize("preset", PRESETS)
def test_keys_decide(drawn, preset):
    again, other = draw(preset), draw(preset, seed=1)
    jax.tree.map(np.testing.assert_array_equal, drawn[preset], again)
    assert (other.kernel != drawn[preset].kernel).mean() > 0.99
    assert (other.recurrent != drawn[preset].recurrent).mean() > 0.99


# --- the whole model -----------------------------------------------------------------------


def model_params(hidden_size, key=0, **settings):
    model = Seq2Seq(13, None, Model(hidden_size=hidden_size, **settings))
    ids = jnp.zeros((1, 2), jnp.int32)
    return partial(model.init, jax.random.key(key), ids, ids)


@pytest.mark.parametrize(("hidden_size", "parameters"), [(128, 147_085), (1, 146)])
def test_the_notebooks_model_has_the_notebooks_number_of_parameters(hidden_size, parameters):
    params = jax.eval_shape(model_params(hidden_size))
    assert sum(p.size for p in jax.tree.leaves(params)) == parameters


@pytest.mark.parametrize("preset", PRESETS)
def test_every_parameter_of_a_model_is_drawn_as_the_preset_says(preset):
    params = model_params(8, init=preset, embed_dim=6)()["params"]
    bounds = {"sutskever": 0.08, "torch": 8**-0.5}
    for side in (params["encoder"], params["decoder"]):
        cell = side["cell"]
        if preset in bounds:
            everything = np.concatenate([p.ravel() for p in jax.tree.leaves(side)])
            assert 0.9 * bounds[preset] < abs(everything).max() <= bounds[preset]
            assert cell["b"].any()
        else:
            forget = 1.0 if preset == "keras" else 0.0
            np.testing.assert_array_equal(cell["b"], np.repeat([0, forget, 0, 0], 8))
            whole = cell["wh"] if preset == "keras" else cell["wh"][:, :8]
            assert_orthonormal_rows(np.asarray(whole))
    assert params["output"]["b"].any() == (preset in bounds)


def test_encoder_and_decoder_start_from_different_weights():
    params = model_params(8)()["params"]
    for name in ("wx", "wh"):
        encoder, decoder = (
            np.asarray(params[side]["cell"][name]) for side in ("encoder", "decoder")
        )
        assert (encoder != decoder).mean() > 0.99


def test_a_models_key_decides_its_weights():
    one, again, other = (model_params(8, key)() for key in (0, 0, 1))
    jax.tree.map(np.testing.assert_array_equal, one, again)
    assert (one["params"]["output"]["w"] != other["params"]["output"]["w"]).all()
