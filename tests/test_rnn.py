"""The LSTM: its equations, its gradient, its mask, its products, and what rounding may change."""

from collections import Counter
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import jax.test_util
import numpy as np
import pytest
from jax.experimental import rnn as cudnn

from s2sjax.rnn import LSTM, Carry, look_up, lstm_scan, lstm_step, matmul, zero_carry

BATCH, TIME, INPUTS, HIDDEN = 5, 6, 3, 4  # all different: a swapped axis cannot pass unnoticed
GATED = 4 * HIDDEN
ROWS = ["######", "###...", "..####", ".#..#.", "......"]  # what is real
MASK = np.array([[symbol == "#" for symbol in row] for row in ROWS])
LENGTHS = np.array([6, 3, 1, 4, 2], np.int32)
COTANGENTS = ("last.c", "last.h", "hidden", "all")

in_float32_and_float64 = pytest.mark.parametrize("dtype", ["float32", "float64"])
with_and_without_mask = pytest.mark.parametrize("masked", [False, True], ids=["full", "masked"])
with_and_without_carry = pytest.mark.parametrize("given", [False, True], ids=["zero", "given"])


def draw(*shape, seed=0, dtype="float32"):
    return np.random.default_rng([seed, *shape]).normal(0, 0.7, shape).astype(dtype)


def put(arrays):
    return jax.tree.map(jnp.asarray, arrays)


def arguments(given=True, masked=False, dtype="float32"):
    """Everything `lstm_scan` takes: wh, z, carry, mask."""
    carry = Carry(draw(BATCH, HIDDEN, dtype=dtype), draw(BATCH, HIDDEN, seed=1, dtype=dtype))
    wh, z = draw(HIDDEN, GATED, dtype=dtype), draw(BATCH, TIME, GATED, dtype=dtype)
    return wh, z, carry if given else None, MASK if masked else None


def cotangent(which, dtype="float32"):
    """A gradient of every output; of one output alone the others' is zero."""
    shapes = {"last.c": (BATCH, HIDDEN), "last.h": (BATCH, HIDDEN), "hidden": (BATCH, TIME, HIDDEN)}
    drawn = [draw(*s, seed=2 + i, dtype=dtype) for i, s in enumerate(shapes.values())]
    c, h, hidden = [d * (which in (name, "all")) for name, d in zip(shapes, drawn, strict=True)]
    return Carry(c, h), hidden


def plain_scan(wh, z, carry, mask):
    """`lstm_scan` without anything clever: autodiff of this is the truth."""

    def step(before, now):
        z, mask = now
        i, f, g, o = jnp.split(z + before.h @ wh, 4, axis=-1)
        c = jax.nn.sigmoid(f) * before.c + jax.nn.sigmoid(i) * jnp.tanh(g)
        new = Carry(c, jax.nn.sigmoid(o) * jnp.tanh(c))
        after = jax.tree.map(lambda n, o: jnp.where(mask[:, None], n, o), new, before)
        return after, after.h

    if carry is None:
        carry = zero_carry(z[:, 0])
    mask = jnp.ones(z.shape[:2], bool) if mask is None else mask
    last, hidden = jax.lax.scan(step, carry, (z.swapaxes(0, 1), mask.T))
    return last, hidden.swapaxes(0, 1)


def textbook(wx, wh, b, x, carry, mask=None):
    """The equations, gate by gate and step by step, in numpy."""
    c, h = carry
    w = dict(zip("ifgo", np.split(wx, 4, 1), strict=True))
    u = dict(zip("ifgo", np.split(wh, 4, 1), strict=True))
    bias = dict(zip("ifgo", np.split(b, 4), strict=True))
    hidden = []
    for t in range(x.shape[1]):
        z = {gate: x[:, t] @ w[gate] + h @ u[gate] + bias[gate] for gate in "ifgo"}
        i, f, o = (1 / (1 + np.exp(-z[gate])) for gate in "ifo")
        new_c = f * c + i * np.tanh(z["g"])
        new_h = o * np.tanh(new_c)
        real = np.ones((len(x), 1), bool) if mask is None else mask[:, t, None]
        c, h = np.where(real, new_c, c), np.where(real, new_h, h)
        hidden.append(h)
    return Carry(c, h), np.stack(hidden, 1)


scan = jax.jit(lstm_scan, static_argnames=("precision", "unroll"))


@partial(jax.jit, static_argnums=0)
def pull(run, wh, z, carry, mask, gradient):
    """What `run` gives, and the gradients of wh, z and carry."""
    out, back = jax.vjp(lambda wh, z, carry: run(wh, z, carry, mask), wh, z, carry)
    return out, back(gradient)


def close(a, b, rtol=1e-5, atol=1e-6):
    jax.tree.map(partial(np.testing.assert_allclose, rtol=rtol, atol=atol), a, b)


def same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def equations(jaxpr, times=1, inside=False):
    """Every equation with how often it runs, and whether that is inside a loop."""
    for eqn in jaxpr.eqns:
        yield eqn, times, inside
        loop = eqn.primitive.name == "scan"
        for inner in jax.tree.leaves(list(eqn.params.values())):
            if hasattr(inner, "eqns"):
                runs = times * eqn.params["length"] if loop else times
                yield from equations(inner, runs, inside or loop)


def products(function, *arguments):
    """How many matrix products of each result's shape a function runs."""
    count = Counter()
    for eqn, times, _ in equations(jax.make_jaxpr(function)(*arguments)):
        if eqn.primitive.name == "dot_general":
            count[eqn.outvars[0].aval.shape] += times
    return +count


# --- the same numbers as others ------------------------------------------------------------


@in_float32_and_float64
@with_and_without_mask
def test_scan_is_the_textbook_loop(masked, dtype):
    wh, _, carry, mask = arguments(masked=masked, dtype=dtype)
    wx, b, x = draw(INPUTS, GATED), draw(GATED), draw(BATCH, TIME, INPUTS)
    with jax.enable_x64(dtype == "float64"):
        ours = scan(wh, (x @ wx + b).astype(dtype), carry, mask)
        assert all(leaf.dtype == dtype for leaf in jax.tree.leaves(ours))
    tolerance = 1e-6 if dtype == "float64" else 3e-6  # z was made in float32
    close(ours, textbook(wx, wh, b, x, carry, mask), tolerance, tolerance)


@with_and_without_mask
def test_float64_is_the_textbook_loop_to_the_last_digits(masked):
    wh, z, carry, mask = arguments(masked=masked, dtype="float64")
    with jax.enable_x64(True):
        ours = scan(wh, z, carry, mask)
    nothing, identity = np.zeros(GATED), np.eye(GATED)
    close(ours, textbook(identity, wh, nothing, z, carry, mask), 1e-13, 1e-13)


@pytest.mark.parametrize("cell", [nn.LSTMCell, nn.OptimizedLSTMCell])
def test_scan_is_flax_with_the_same_weights(cell):
    wh, _, carry, _ = arguments()
    wx, b, x = draw(INPUTS, GATED), draw(GATED), draw(BATCH, TIME, INPUTS)
    params = {}
    for gate, w, u, bias in zip("ifgo", *(np.split(p, 4, -1) for p in (wx, wh, b)), strict=True):
        params |= {f"i{gate}": {"kernel": w}, f"h{gate}": {"kernel": u, "bias": bias}}
    layer = nn.RNN(cell(HIDDEN), return_carry=True)
    run = jax.jit(partial(layer.apply, initial_carry=tuple(carry), seq_lengths=LENGTHS))
    last, hidden = run({"params": {"cell": params}}, x)
    mask = np.arange(TIME) < LENGTHS[:, None]
    ours, our_hidden = scan(wh, x @ wx + b, carry, mask)
    close(tuple(ours), tuple(last))
    close(our_hidden[mask], hidden[mask])


def test_scan_is_the_cudnn_reference_of_jax_with_the_same_weights():
    wh, _, carry, _ = arguments()
    wx, b, x = draw(INPUTS, GATED), draw(GATED), draw(BATCH, TIME, INPUTS)
    packed = np.concatenate([wx.T.ravel(), wh.T.ravel(), b, np.zeros_like(b)])
    sizes = {"input_size": INPUTS, "hidden_size": HIDDEN, "num_layers": 1, "bidirectional": False}
    weights = cudnn.unpack_lstm_weights(jnp.array(packed), **sizes)
    start = (carry.h[None], carry.c[None])
    hidden, h, c = cudnn.lstm_ref(x, *start, *weights, jnp.array(LENGTHS), dropout=0.0, **sizes)
    mask = np.arange(TIME) < LENGTHS[:, None]
    ours, our_hidden = scan(wh, x @ wx + b, carry, mask)
    close(ours, Carry(c[0], h[0]))
    close(our_hidden[mask], hidden[mask])


def test_steps_one_by_one_are_the_scan():
    wh, z, carry, _ = arguments()
    last, hidden = scan(wh, z, carry)
    step = jax.jit(lstm_step)
    for t in range(TIME):
        carry = step(wh, z[:, t], carry)
        close(carry.h, hidden[:, t])
    close(carry, last)


# --- the gradient --------------------------------------------------------------------------


@in_float32_and_float64
@with_and_without_mask
@with_and_without_carry
def test_gradient_is_autodiff_of_the_plain_scan_through_every_output(given, masked, dtype):
    args, tight = arguments(given, masked, dtype), dtype == "float64"
    with jax.enable_x64(tight):
        for which in COTANGENTS:
            ours = pull(lstm_scan, *args, cotangent(which, dtype))
            truth = pull(plain_scan, *args, cotangent(which, dtype))
            assert all(leaf.dtype == dtype for leaf in jax.tree.leaves(ours))
            close(ours, truth, *((1e-12, 1e-12) if tight else (2e-5, 2e-6)))


@with_and_without_mask
@with_and_without_carry
def test_gradient_is_the_difference_quotient(given, masked):
    wh, z, carry, mask = arguments(given, masked, "float64")
    with jax.enable_x64(True):
        run = partial(scan, mask=mask)
        jax.test_util.check_grads(run, (wh, z, carry), order=1, modes=["rev"], atol=1e-6, rtol=1e-6)


def test_vmap_of_the_gradient_is_each_gradient_alone():
    one, two = arguments(masked=True), (draw(HIDDEN, GATED, seed=9), *arguments(masked=True)[1:])
    stack = jax.tree.map(lambda *rows: np.stack(rows), one, two)
    both = jax.jit(jax.vmap(partial(pull, lstm_scan), (0, 0, 0, 0, None)))(*stack, cotangent("all"))
    for i, args in enumerate((one, two)):
        close(jax.tree.map(lambda x, i=i: x[i], both), pull(lstm_scan, *args, cotangent("all")))


# --- a zero carry, a mask, unrolling, one step ---------------------------------------------


@with_and_without_mask
def test_no_carry_is_a_zero_carry(masked):
    wh, z, carry, mask = arguments(masked=masked)
    zero = jax.tree.map(np.zeros_like, carry)
    same(scan(wh, z, None, mask), scan(wh, z, zero, mask))
    _, (d_wh, d_z, none) = pull(lstm_scan, wh, z, None, mask, cotangent("all"))
    _, (d_wh_zero, d_z_zero, _) = pull(lstm_scan, wh, z, zero, mask, cotangent("all"))
    assert none is None
    close((d_wh, d_z), (d_wh_zero, d_z_zero))


@with_and_without_mask
@with_and_without_carry
def test_products_one_a_step_less_the_first_of_a_zero_carry_and_one_for_the_weights(given, masked):
    wh, z, carry, mask = arguments(given, masked)
    steps = TIME if given else TIME - 1
    forward = {(BATCH, GATED): steps}
    assert products(lstm_scan, wh, z, carry, mask) == forward
    backward = {(BATCH, HIDDEN): steps, (HIDDEN, GATED): 1}
    gradient = partial(pull, lstm_scan)
    assert products(gradient, wh, z, carry, mask, cotangent("all")) == forward | backward


def test_no_loop_makes_an_array_of_the_recurrent_weights_shape():
    def shapes(run):
        jaxpr = jax.make_jaxpr(partial(pull, run))(*arguments(masked=True), cotangent("all"))
        made = [v for eqn, _, inside in equations(jaxpr) if inside for v in eqn.outvars]
        return {v.aval.shape for v in made}

    assert (HIDDEN, GATED) in shapes(plain_scan)  # autodiff sums the gradient in its loop
    assert (HIDDEN, GATED) not in shapes(lstm_scan)


@with_and_without_carry
def test_masked_step_leaves_the_carry_untouched(given):
    wh, z, carry, mask = arguments(given, masked=True)
    last, hidden = jax.device_get(scan(wh, z, carry, mask))
    start = carry if given else Carry(*[np.zeros((BATCH, HIDDEN), "float32")] * 2)
    before = np.concatenate([start.h[:, None], hidden[:, :-1]], axis=1)
    same(hidden[~mask], before[~mask])
    assert (hidden[mask] != before[mask]).all()
    never = ~mask.any(1)
    same(Carry(last.c[never], last.h[never]), jax.tree.map(lambda x: x[never], start))
    same(last.h, hidden[:, -1])


@with_and_without_carry
def test_masked_steps_may_stand_anywhere(given):
    wh, z, carry, mask = arguments(given, masked=True)
    packed = np.argsort(~mask, axis=1, kind="stable")  # real steps first, in their order
    together = np.take_along_axis(z, packed[..., None], 1), np.take_along_axis(mask, packed, 1)
    close(scan(wh, z, carry, mask)[0], scan(wh, together[0], carry, together[1])[0])


@with_and_without_carry
def test_what_stands_at_masked_steps_changes_nothing(given):
    wh, z, carry, mask = arguments(given, masked=True)
    other = np.where(mask[..., None], z, 50 * draw(BATCH, TIME, GATED, seed=7))
    ours = pull(lstm_scan, wh, z, carry, mask, cotangent("all"))
    same(ours, pull(lstm_scan, wh, other, carry, mask, cotangent("all")))
    d_z = np.asarray(ours[1][1])
    assert (d_z[~mask] == 0).all()
    assert d_z[mask].any(-1).all()


@with_and_without_carry
def test_a_mask_of_all_true_is_no_mask(given):
    wh, z, carry, _ = arguments(given)
    everything = np.ones_like(MASK)
    close(
        pull(lstm_scan, wh, z, carry, everything, cotangent("all")),
        pull(lstm_scan, wh, z, carry, None, cotangent("all")),
    )


@pytest.mark.parametrize("unroll", [2, 50])
def test_unrolling_changes_nothing_but_the_loop(unroll):
    args = arguments(given=False, masked=True)
    run = partial(lstm_scan, unroll=unroll)
    close(pull(run, *args, cotangent("all")), pull(lstm_scan, *args, cotangent("all")))
    jaxpr = jax.make_jaxpr(partial(pull, run))(*args, cotangent("all"))
    loops = [eqn.params for eqn, _, _ in equations(jaxpr) if eqn.primitive.name == "scan"]
    assert [p["unroll"] for p in loops] == [unroll, unroll]


@pytest.mark.parametrize("unroll", [1, 3])
@with_and_without_carry
def test_a_sequence_may_have_one_step(given, unroll):
    wh, z, carry, mask = arguments(given, masked=True)
    last, hidden = cotangent("all")
    args = (wh, z[:, :1], carry, mask[:, :1], (last, hidden[:, :1]))
    ours, truth = pull(partial(lstm_scan, unroll=unroll), *args), pull(plain_scan, *args)
    close(ours, truth)
    assert ours[0][1].shape == (BATCH, 1, HIDDEN)
    assert (ours[1][0] != 0).any() == given  # a zero carry never meets the recurrent weights


# --- precision -----------------------------------------------------------------------------


in_bfloat16 = partial(lstm_scan, precision="bfloat16")


def rounded(x):
    return np.asarray(x).astype(jnp.bfloat16).astype(np.float64)


@pytest.mark.parametrize("rows", [(6,), (2, 3)])
def test_bfloat16_product_rounds_the_factors_never_the_sum_nor_its_gradients(rows):
    a, b, d = put((draw(*rows, 200), draw(200, 7), draw(*rows, 7)))
    out, back = jax.vjp(lambda a, b: matmul(a, b, "bfloat16"), a, b)
    d_a, d_b = back(d)
    close(out, rounded(a) @ rounded(b), 1e-5, 1e-5)
    close(d_a, rounded(d) @ rounded(b).T, 1e-5, 1e-5)
    close(d_b, rounded(a).reshape(-1, 200).T @ rounded(d).reshape(-1, 7), 1e-5, 1e-5)
    assert {out.dtype, d_a.dtype, d_b.dtype} == {jnp.dtype("float32")}


@with_and_without_carry
def test_bfloat16_is_in_the_products_and_nowhere_else(given):
    args = arguments(given, masked=True)
    jaxpr = jax.make_jaxpr(partial(pull, in_bfloat16))(*args, cotangent("all"))
    assert all(v.aval.dtype == jnp.float32 for v in jaxpr.jaxpr.outvars)
    for eqn, _, _ in equations(jaxpr):
        kinds = {v.aval.dtype for v in eqn.outvars if v.aval.dtype == jnp.bfloat16}
        if eqn.primitive.name == "dot_general":
            assert [v.aval.dtype for v in eqn.invars] == [jnp.bfloat16] * 2
            assert eqn.outvars[0].aval.dtype == jnp.float32
        elif eqn.primitive.name not in ("convert_element_type", "transpose"):
            assert not kinds, eqn.primitive


@with_and_without_carry
def test_bfloat16_is_close_to_float32_in_values_and_gradients(given):
    args = (*arguments(given, masked=True), cotangent("all"))
    fine, coarse = pull(lstm_scan, *args), pull(in_bfloat16, *args)
    for a, b in zip(jax.tree.leaves(fine), jax.tree.leaves(coarse), strict=True):
        error = np.linalg.norm(a - b) / np.linalg.norm(a)
        assert 1e-5 < error < 2**-7  # a factor is off by at most 2^-9: some rounding, not much


# --- look-ups and the module ---------------------------------------------------------------


@pytest.mark.parametrize("shape", [(BATCH,), (BATCH, TIME)])
def test_look_up_is_the_one_hot_product_in_value_and_gradient(shape):
    ids = np.random.default_rng(0).integers(0, 6, shape)  # with repetitions, and without id 6
    table, ids, d = put((draw(7, GATED), ids, draw(*shape, GATED)))
    by_product = lambda table: jax.nn.one_hot(ids, 7) @ table
    out, back = jax.vjp(lambda table: look_up(table, ids), table)
    truth, back_truth = jax.vjp(by_product, table)
    same(out, truth)
    close(back(d), back_truth(d))
    assert (back(d)[0][6] == 0).all()
    assert not products(lambda table: look_up(table, ids), table)


@pytest.fixture(scope="module")
def layer():
    """A layer with drawn parameters, biases too."""
    module = LSTM(INPUTS, HIDDEN)
    params = put({"wx": draw(INPUTS, GATED), "wh": draw(HIDDEN, GATED), "b": draw(GATED)})
    return partial(module.apply, {"params": params}), params


def test_parameters_of_a_layer():
    module = LSTM(INPUTS, HIDDEN)
    init = partial(jax.eval_shape, module.init)
    params = init(jax.random.key(0), jnp.zeros((BATCH, TIME, GATED)))
    shapes = {"wx": (INPUTS, GATED), "wh": (HIDDEN, GATED), "b": (GATED,)}
    assert jax.tree.map(lambda p: p.shape, params) == {"params": shapes}
    assert all(p.dtype == jnp.float32 for p in jax.tree.leaves(params))


def test_layer_is_the_textbook_loop(layer):
    apply, p = layer
    x, carry, mask = put((draw(BATCH, TIME, INPUTS), arguments()[2], MASK))
    run = partial(textbook, *jax.device_get((p["wx"], p["wh"], p["b"])))
    z = apply(x, method="project")
    close(apply(z, carry, mask), run(*jax.device_get((x, carry, mask))))
    first = run(jax.device_get(x[:, :1]), jax.device_get(carry))[0]
    close(apply(z[:, 0], carry, method="step"), first)


def test_one_hot_table_is_the_projection_of_every_one_hot_input(layer):
    apply, _ = layer
    close(apply(method="one_hot_table"), apply(jnp.eye(INPUTS), method="project"))


@with_and_without_carry
def test_a_repeated_input_is_projected_once_with_the_result_of_repeating_it(layer, given):
    apply, _ = layer
    x, carry = put((draw(BATCH, INPUTS), arguments(given)[2]))
    repeat = partial(apply, method="repeat")
    at_every_step = apply(jnp.repeat(x[:, None], TIME, axis=1), method="project")
    close(repeat(x, TIME, carry), apply(at_every_step, carry))
    recurrent = TIME if given else TIME - 1
    assert products(lambda x: repeat(x, TIME, carry), x) == {(BATCH, GATED): 1 + recurrent}


def test_settings_of_a_layer_reach_the_scan():
    module = LSTM(INPUTS, HIDDEN, unroll=3, precision="bfloat16")
    z, x = put((arguments()[1], draw(BATCH, INPUTS)))
    params = put({"wx": draw(INPUTS, GATED), "wh": draw(HIDDEN, GATED), "b": draw(GATED)})
    apply = partial(module.apply, {"params": params})
    jaxpr = jax.make_jaxpr(apply)(z)
    found = {eqn.primitive.name: eqn for eqn, _, _ in equations(jaxpr)}
    assert found["scan"].params["unroll"] == 3
    assert found["dot_general"].invars[0].aval.dtype == jnp.bfloat16
    assert "bf16" in str(jax.make_jaxpr(partial(apply, method="project"))(x))
