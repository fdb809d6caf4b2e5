"""Products and look-ups: their values, their gradients, and what rounding may change."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from s2sjax.model.linear import affine, look_up, matmul

ROWS, INNER, WIDTH = 6, 200, 7


def draw(*shape, seed=0):
    return jnp.array(np.random.default_rng([seed, *shape]).normal(0, 0.7, shape), "float32")


def close(a, b):
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def rounded(x):
    return np.asarray(x).astype(jnp.bfloat16).astype(np.float64)


def exact(x):
    return np.asarray(x).astype(np.float64)


@pytest.mark.parametrize("rows", [(ROWS,), (2, 3)])
@pytest.mark.parametrize(("precision", "seen"), [("float32", exact), ("bfloat16", rounded)])
def test_product_rounds_the_factors_never_the_sum_nor_its_gradients(precision, seen, rows):
    a, b, d = draw(*rows, INNER), draw(INNER, WIDTH), draw(*rows, WIDTH)
    out, back = jax.vjp(lambda a, b: matmul(a, b, precision), a, b)
    d_a, d_b = back(d)
    close(out, seen(a) @ seen(b))
    close(d_a, seen(d) @ seen(b).T)
    close(d_b, seen(a).reshape(-1, INNER).T @ seen(d).reshape(-1, WIDTH))
    assert {out.dtype, d_a.dtype, d_b.dtype} == {jnp.dtype("float32")}


def test_no_accelerator_may_round_float32_products():
    value_and_gradients = jax.grad(lambda a, b: matmul(a, b, "float32").sum(), (0, 1))
    jaxpr = jax.make_jaxpr(value_and_gradients)(draw(ROWS, INNER), draw(INNER, WIDTH))
    asked = [eqn.params["precision"] for eqn in jaxpr.eqns if eqn.primitive.name == "dot_general"]
    assert asked
    assert set(asked) == {(jax.lax.Precision.HIGHEST, jax.lax.Precision.HIGHEST)}


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_affine_is_the_product_and_then_the_bias(precision):
    x, w, b = draw(2, 3, INNER), draw(INNER, WIDTH), draw(WIDTH)
    assert (affine(x, w, b, precision) == matmul(x, w, precision) + b[None, None]).all()


@pytest.mark.parametrize("rows", [7, 600], ids=["few rows", "many rows"])
@pytest.mark.parametrize("shape", [(5,), (5, 6)])
def test_look_up_is_the_one_hot_product_in_value_and_gradient(shape, rows):
    ids = np.random.default_rng(0).integers(0, 6, shape)  # with repetitions, and without id 6
    table, ids, d = draw(rows, WIDTH), jnp.array(ids), draw(*shape, WIDTH)
    out, back = jax.vjp(lambda table: look_up(table, ids), table)
    truth, back_truth = jax.vjp(lambda table: jax.nn.one_hot(ids, rows) @ table, table)
    np.testing.assert_array_equal(out, truth)
    close(back(d)[0], back_truth(d)[0])
    assert (back(d)[0][6] == 0).all()
    assert "dot_general" not in str(jax.make_jaxpr(lambda table: look_up(table, ids))(table))
