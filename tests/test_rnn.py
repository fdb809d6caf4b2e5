"""Recurrent layers: the cells' equations, their gradient, their mask, their products."""

from collections import Counter
from functools import cache, partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import jax.test_util
import numpy as np
import pytest
from jax.experimental import rnn as cudnn

from s2sjax.config import Model
from s2sjax.model.cells import CELLS, Carry
from s2sjax.model.rnn import Recurrent, Weights, zero_carry

BATCH, TIME, INPUTS, HIDDEN = 5, 6, 3, 4  # all different: a swapped axis cannot pass unnoticed
ROWS = ["######", "###...", "..####", ".#..#.", "......"]  # what is real
MASK = np.array([[symbol == "#" for symbol in row] for row in ROWS])
LENGTHS = np.array([6, 3, 1, 4, 2], np.int32)


def bind(cell, weights, wx, b, **settings):
    """A layer with these parameters."""
    params = {"wx": wx, "wh": weights.wh, "b": b}
    params |= {"bn": weights.bn} if cell == "gru" else {}
    layer = Recurrent(len(wx), HIDDEN, Model(cell=cell, **settings))
    return layer.bind({"params": jax.tree.map(jnp.asarray, params)})


def rnn_scan(cell, weights, z, carry=None, mask=None, **settings):
    """A layer over projected inputs: what projects does not matter."""
    gates = z.shape[-1]
    layer = bind(cell, weights, jnp.zeros((1, gates)), jnp.zeros(gates), **settings)
    return layer(*put((z, carry, mask)))


of_every_cell = pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
in_float32_and_float64 = pytest.mark.parametrize("dtype", ["float32", "float64"])
with_and_without_mask = pytest.mark.parametrize("masked", [False, True], ids=["full", "masked"])
with_and_without_carry = pytest.mark.parametrize("given", [False, True], ids=["zero", "given"])


def draw(*shape, seed=0, dtype="float32"):
    return np.random.default_rng([seed, *shape]).normal(0, 0.7, shape).astype(dtype)


def put(arrays):
    return jax.tree.map(jnp.asarray, arrays)


def arguments(cell, given=True, masked=False, dtype="float32"):
    """Everything a scan takes: weights, z, carry, mask."""
    c, h = draw(BATCH, HIDDEN, dtype=dtype), draw(BATCH, HIDDEN, seed=1, dtype=dtype)
    gates = CELLS[cell].gates * HIDDEN
    bn = draw(HIDDEN, dtype=dtype) if cell == "gru" else None
    weights, z = (
        Weights(draw(HIDDEN, gates, dtype=dtype), bn),
        draw(BATCH, TIME, gates, dtype=dtype),
    )
    carry = Carry(c if cell == "lstm" else None, h)
    return weights, z, carry if given else None, MASK if masked else None


def layer_inputs(cell):
    """What makes a ``z``: wx, b and x."""
    gates = CELLS[cell].gates * HIDDEN
    return draw(INPUTS, gates), draw(gates), draw(BATCH, TIME, INPUTS)


def cotangents(cell, dtype="float32"):
    """Gradients of the outputs: of all, and of each alone, where the others' are zero."""
    c, h = (draw(BATCH, HIDDEN, seed=seed, dtype=dtype) for seed in (2, 3))
    every = Carry(c if cell == "lstm" else None, h), draw(BATCH, TIME, HIDDEN, dtype=dtype)
    leaves, tree = jax.tree.flatten(every)
    yield every
    for alone in range(len(leaves)):
        yield tree.unflatten([leaf * (i == alone) for i, leaf in enumerate(leaves)])


def cotangent(cell):
    return next(cotangents(cell))


def new_carry(cell, z, u, bn, before, xp):
    """The equations as a textbook has them, from lists of gates; `xp` is numpy or its like."""
    sigmoid = lambda x: 1 / (1 + xp.exp(-x))
    if cell == "rnn":
        return Carry(None, xp.tanh(z[0] + u[0]))
    if cell == "gru":
        reset, update = sigmoid(z[0] + u[0]), sigmoid(z[1] + u[1])
        candidate = xp.tanh(z[2] + reset * (u[2] + bn[None]))
        return Carry(None, (1 - update) * candidate + update * before.h)
    i, f, g, o = (a + b for a, b in zip(z, u, strict=True))
    c = sigmoid(f) * before.c + sigmoid(i) * xp.tanh(g)
    return Carry(c, sigmoid(o) * xp.tanh(c))


def choose(mask, new, old, xp):
    return jax.tree.map(lambda n, o: xp.where(mask[:, None], n, o), new, old)


@cache  # one function object a cell, so that what is compiled for it is found again
def ours(cell, **settings):
    return partial(rnn_scan, cell, **settings)


@cache
def plain(cell):
    """The same as a plain scan: autodiff of this is the truth."""

    def run(weights, z, carry, mask):
        def step(before, now):
            z, mask = now
            u = jnp.split(before.h @ weights.wh, CELLS[cell].gates, axis=-1)
            new = new_carry(cell, jnp.split(z, CELLS[cell].gates, -1), u, weights.bn, before, jnp)
            after = choose(mask, new, before, jnp)
            return after, after.h

        if carry is None:
            carry = zero_carry(CELLS[cell], z[:, 0])
        mask = jnp.ones(z.shape[:2], bool) if mask is None else mask
        last, hidden = jax.lax.scan(step, carry, (z.swapaxes(0, 1), mask.T))
        return last, hidden.swapaxes(0, 1)

    return run


def textbook(cell, wx, b, weights, x, carry, mask=None):
    """Gate by gate and step by step, in numpy."""
    per_gate = lambda p: np.split(p, CELLS[cell].gates, axis=-1)
    hidden = []
    for t in range(x.shape[1]):
        z = [x[:, t] @ w + bias[None] for w, bias in zip(per_gate(wx), per_gate(b), strict=True)]
        u = [carry.h @ w for w in per_gate(weights.wh)]
        new = new_carry(cell, z, u, weights.bn, carry, np)
        carry = new if mask is None else choose(mask[:, t], new, carry, np)
        hidden.append(carry.h)
    return carry, np.stack(hidden, 1)


scan = jax.jit(rnn_scan, static_argnames="cell")


@partial(jax.jit, static_argnums=0)
def pull(run, weights, z, carry, mask, gradient):
    """What `run` gives, and the gradients of weights, z and carry."""
    out, back = jax.vjp(lambda *inputs: run(*inputs, mask), weights, z, carry)
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


@of_every_cell
@in_float32_and_float64
@with_and_without_mask
def test_scan_is_the_textbook_loop(cell, masked, dtype):
    weights, z, carry, mask = arguments(cell, masked=masked, dtype=dtype)
    with jax.enable_x64(dtype == "float64"):
        ours = scan(cell, weights, z, carry, mask)
        assert all(leaf.dtype == dtype for leaf in jax.tree.leaves(ours))
    size = z.shape[-1]
    truth = textbook(cell, np.eye(size), np.zeros(size), weights, z, carry, mask)
    tolerance = 1e-13 if dtype == "float64" else 3e-6
    close(ours, truth, tolerance, tolerance)


def flax_parameters(cell, wx, b, weights):
    """Our weights under the names of Flax's cell."""
    gates = {"lstm": "ifgo", "gru": "rzn", "rnn": [""]}[cell]
    split = [np.split(p, len(gates), axis=-1) for p in (wx, b, weights.wh)]
    params = {}
    for gate, w, bias, u in zip(gates, *split, strict=True):
        params |= {f"i{gate}": {"kernel": w, "bias": bias}, f"h{gate}": {"kernel": u}}
        if cell == "lstm":  # which has the bias on the other side
            params[f"h{gate}"]["bias"] = params[f"i{gate}"].pop("bias")
    if cell == "gru":
        params["hn"]["bias"] = weights.bn
    return params


@pytest.mark.parametrize(
    ("cell", "theirs"),
    [
        ("lstm", nn.LSTMCell),
        ("lstm", nn.OptimizedLSTMCell),
        ("gru", nn.GRUCell),
        ("rnn", nn.SimpleCell),
    ],
)
def test_scan_is_flax_with_the_same_weights(cell, theirs):
    (weights, _, carry, _), (wx, b, x) = arguments(cell), layer_inputs(cell)
    layer = nn.RNN(theirs(HIDDEN), return_carry=True)
    start = tuple(carry) if cell == "lstm" else carry.h
    run = jax.jit(partial(layer.apply, initial_carry=start, seq_lengths=LENGTHS))
    last, hidden = run({"params": {"cell": flax_parameters(cell, wx, b, weights)}}, x)
    mask = np.arange(TIME) < LENGTHS[:, None]
    ours, our_hidden = scan(cell, weights, x @ wx + b, carry, mask)
    close(tuple(ours) if cell == "lstm" else ours.h, last)
    close(our_hidden[mask], hidden[mask])


def test_lstm_is_the_cudnn_reference_of_jax_with_the_same_weights():
    (weights, _, carry, _), (wx, b, x) = arguments("lstm"), layer_inputs("lstm")
    packed = np.concatenate([wx.T.ravel(), weights.wh.T.ravel(), b, np.zeros_like(b)])
    sizes = {"input_size": INPUTS, "hidden_size": HIDDEN, "num_layers": 1, "bidirectional": False}
    theirs = cudnn.unpack_lstm_weights(jnp.array(packed), **sizes)
    start = (carry.h[None], carry.c[None])
    hidden, h, c = cudnn.lstm_ref(x, *start, *theirs, jnp.array(LENGTHS), dropout=0.0, **sizes)
    mask = np.arange(TIME) < LENGTHS[:, None]
    ours, our_hidden = scan("lstm", weights, x @ wx + b, carry, mask)
    close(ours, Carry(c[0], h[0]))
    close(our_hidden[mask], hidden[mask])


@of_every_cell
def test_steps_one_by_one_are_the_scan(cell):
    weights, z, carry, _ = arguments(cell)
    last, hidden = scan(cell, weights, z, carry)
    step = jax.jit(lambda weights, z, carry: bind(cell, weights, z, z[0]).step(z, carry))
    for t in range(TIME):
        carry = step(weights, z[:, t], carry)
        close(carry.h, hidden[:, t])
    close(carry, last)


# --- the gradient --------------------------------------------------------------------------


@of_every_cell
@pytest.mark.parametrize(
    ("dtype", "masked", "given"),
    [("float32", True, False), *(("float64", m, g) for m in (False, True) for g in (False, True))],
)
def test_gradient_is_autodiff_of_the_plain_scan_through_every_output(cell, given, masked, dtype):
    args, tight = arguments(cell, given, masked, dtype), dtype == "float64"
    with jax.enable_x64(tight):
        for gradient in cotangents(cell, dtype):
            mine = pull(ours(cell), *args, gradient)
            truth = pull(plain(cell), *args, gradient)
            assert all(leaf.dtype == dtype for leaf in jax.tree.leaves(mine))
            close(mine, truth, *((1e-12, 1e-12) if tight else (2e-5, 2e-6)))


@of_every_cell
def test_gradient_is_the_difference_quotient(cell):
    weights, z, carry, mask = arguments(cell, given=True, masked=True, dtype="float64")
    with jax.enable_x64(True):
        run = partial(scan, cell, mask=mask)
        inputs = (weights, z, carry)
        jax.test_util.check_grads(run, inputs, order=1, modes=["rev"], atol=1e-6, rtol=1e-6)


@of_every_cell
def test_vmap_of_the_gradient_is_each_gradient_alone(cell):
    one = arguments(cell, masked=True)
    two = (jax.tree.map(lambda w: draw(*w.shape, seed=9), one[0]), *one[1:])
    stack = jax.tree.map(lambda *rows: np.stack(rows), one, two)
    alone = partial(pull, ours(cell))
    both = jax.jit(jax.vmap(alone, (0, 0, 0, 0, None)))(*stack, cotangent(cell))
    for i, args in enumerate((one, two)):
        close(jax.tree.map(lambda x, i=i: x[i], both), alone(*args, cotangent(cell)))


# --- a zero carry, a mask, unrolling, one step ---------------------------------------------


@of_every_cell
@with_and_without_mask
def test_no_carry_is_a_zero_carry(cell, masked):
    weights, z, carry, mask = arguments(cell, masked=masked)
    zero = jax.tree.map(np.zeros_like, carry)
    same(jax.device_get(zero_carry(CELLS[cell], put(z[:, 0]))), zero)
    run = partial(pull, ours(cell))
    out, (*gradients, none) = run(weights, z, None, mask, cotangent(cell))
    out_zero, (*gradients_zero, _) = run(weights, z, zero, mask, cotangent(cell))
    assert none is None
    same(out, out_zero)
    close(gradients, gradients_zero)


@of_every_cell
@with_and_without_mask
@with_and_without_carry
def test_products_one_a_step_less_the_first_of_a_zero_carry_and_one_for_the_weights(
    cell, given, masked
):
    args = arguments(cell, given, masked)
    steps, gates = TIME if given else TIME - 1, CELLS[cell].gates * HIDDEN
    forward = Counter({(BATCH, gates): steps})
    assert products(ours(cell), *args) == forward
    backward = Counter({(BATCH, HIDDEN): steps}) + Counter({(HIDDEN, gates): 1})
    assert products(partial(pull, ours(cell)), *args, cotangent(cell)) == forward + backward


@of_every_cell
@with_and_without_carry
def test_masked_step_leaves_the_carry_untouched(cell, given):
    weights, z, carry, mask = arguments(cell, given, masked=True)
    last, hidden = jax.device_get(scan(cell, weights, z, carry, mask))
    start = carry if given else jax.device_get(zero_carry(CELLS[cell], put(z[:, 0])))
    before = np.concatenate([start.h[:, None], hidden[:, :-1]], axis=1)
    same(hidden[~mask], before[~mask])
    assert (hidden[mask] != before[mask]).all()
    never = ~mask.any(1)
    same(*jax.tree.map(lambda x: x[never], (last, start)))
    same(last.h, hidden[:, -1])


@of_every_cell
def test_what_stands_at_masked_steps_changes_nothing(cell):
    weights, z, carry, mask = arguments(cell, given=False, masked=True)
    other = np.where(mask[..., None], z, 50 * draw(*z.shape, seed=7))
    run = partial(pull, ours(cell))
    out = run(weights, z, carry, mask, cotangent(cell))
    same(out, run(weights, other, carry, mask, cotangent(cell)))
    d_z = np.asarray(out[1][1])
    assert (d_z[~mask] == 0).all()
    assert d_z[mask].any(-1).all()


@pytest.mark.parametrize(("cell", "unroll"), [("lstm", 2), ("gru", 50), ("rnn", 4)])
def test_unrolling_changes_nothing_but_the_loop(cell, unroll):
    args = (*arguments(cell, given=False, masked=True), cotangent(cell))
    run = ours(cell, unroll=unroll)
    close(pull(run, *args), pull(ours(cell), *args))
    jaxpr = jax.make_jaxpr(partial(pull, run))(*args)
    loops = [eqn.params for eqn, _, _ in equations(jaxpr) if eqn.primitive.name == "scan"]
    assert [p["unroll"] for p in loops] == [unroll, unroll]


@of_every_cell
@with_and_without_carry
def test_a_sequence_may_have_one_step(cell, given):
    weights, z, carry, mask = arguments(cell, given, masked=True)
    last, hidden = cotangent(cell)
    args = (weights, z[:, :1], carry, mask[:, :1], (last, hidden[:, :1]))
    mine, truth = pull(ours(cell, unroll=3), *args), pull(plain(cell), *args)
    close(mine, truth)
    (_, hidden), (d_weights, *_) = mine
    assert hidden.shape == (BATCH, 1, HIDDEN)
    assert d_weights.wh.any() == given  # a zero carry never meets the recurrent weights
    assert d_weights.bn is None or d_weights.bn.any()  # but their bias it does


# --- precision -----------------------------------------------------------------------------


@of_every_cell
def test_bfloat16_is_in_the_products_and_nowhere_else_and_close_to_float32(cell):
    args = (*arguments(cell, given=True, masked=True), cotangent(cell))
    jaxpr = jax.make_jaxpr(partial(pull, ours(cell, precision="bfloat16")))(*args)
    assert all(v.aval.dtype == jnp.float32 for v in jaxpr.jaxpr.outvars)
    for eqn, _, _ in equations(jaxpr):
        kinds = {v.aval.dtype for v in eqn.outvars if v.aval.dtype == jnp.bfloat16}
        if eqn.primitive.name == "dot_general":
            assert [v.aval.dtype for v in eqn.invars] == [jnp.bfloat16] * 2
            assert eqn.outvars[0].aval.dtype == jnp.float32
        elif eqn.primitive.name not in ("convert_element_type", "transpose"):
            assert not kinds, eqn.primitive
    fine, coarse = pull(ours(cell), *args), pull(ours(cell, precision="bfloat16"), *args)
    for a, b in zip(jax.tree.leaves(fine), jax.tree.leaves(coarse), strict=True):
        error = np.linalg.norm(a - b) / np.linalg.norm(a)
        assert 1e-5 < error < 2**-7  # a factor is off by at most 2^-9: some rounding, not much


# --- the module ----------------------------------------------------------------------------


def bound(cell, **settings):
    (weights, *_), (wx, b, _) = arguments(cell), layer_inputs(cell)
    return bind(cell, weights, wx, b, **settings)


@pytest.mark.parametrize(("cell", "shares"), [("lstm", 4), ("gru", 3), ("rnn", 1)])
def test_parameters_of_a_layer(cell, shares):
    gates = shares * HIDDEN
    shapes = {"wx": (INPUTS, gates), "wh": (HIDDEN, gates), "b": (gates,)}
    shapes |= {"bn": (HIDDEN,)} if cell == "gru" else {}
    drawn = []

    def init(key):
        layer = Recurrent(INPUTS, HIDDEN, Model(cell=cell))
        params = layer.init(key, jnp.zeros((BATCH, TIME, gates)))["params"]
        drawn.extend(params)  # in the order in which they were
        return params

    params = jax.eval_shape(init, jax.random.key(0))
    assert drawn == list(shapes)
    assert {name: p.shape for name, p in params.items()} == shapes
    assert all(p.dtype == jnp.float32 for p in params.values())
    # Keras' and cuDNN's GRU have 2 H more: redundant second biases of the other two gates.
    count = sum(p.size for p in params.values())
    assert count == shares * HIDDEN * (INPUTS + HIDDEN + 1) + (HIDDEN if cell == "gru" else 0)


@of_every_cell
def test_an_input_may_come_in_parts(cell):
    layer = bound(cell)
    for x in put((draw(BATCH, INPUTS), draw(BATCH, TIME, INPUTS))):
        for cut in range(1, INPUTS):
            close(layer.project(x[..., :cut]) + layer.project(x[..., cut:], cut), layer.project(x))
