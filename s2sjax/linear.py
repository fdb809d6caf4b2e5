"""Matrix products at a chosen precision, and the look-up that replaces a one-hot product."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from s2sjax.config import Precision


def matmul(
    a: Float[Array, "*m k"], b: Float[Array, "k n"], precision: Precision
) -> Float[Array, "*m n"]:
    """``a @ b`` in float32; ``bfloat16`` rounds the two factors, never the sum.

    Left to themselves, GPUs and TPUs would round float32 factors too.
    """
    if precision == "float32":
        return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)
    return _rounded_matmul(a, b)


@jax.custom_vjp
def _rounded_matmul(a, b):
    """`matmul` in bfloat16; autodiff would round the sums in its gradients."""
    return jnp.matmul(
        a.astype(jnp.bfloat16), b.astype(jnp.bfloat16), preferred_element_type=a.dtype
    )


def _rounded_matmul_forward(a, b):
    return _rounded_matmul(a, b), (a, b)


def _rounded_matmul_backward(factors, gradient):
    a, b = factors
    rows, gradients = a.reshape(-1, a.shape[-1]), gradient.reshape(-1, gradient.shape[-1])
    return _rounded_matmul(gradient, b.T), _rounded_matmul(rows.T, gradients)


_rounded_matmul.defvjp(_rounded_matmul_forward, _rounded_matmul_backward)


def affine(
    x: Float[Array, "*n inputs"],
    w: Float[Array, "inputs outputs"],
    b: Float[Array, " outputs"],
    precision: Precision,
) -> Float[Array, "*n outputs"]:
    """``x w + b``."""
    product = matmul(x, w, precision)
    return product + jnp.broadcast_to(b, product.shape)


_FEW = 512  # rows; a word vocabulary has thousands, and a product would cost each of them


@jax.custom_vjp
def look_up(table: Float[Array, "rows width"], ids: Int[Array, "*n"]) -> Float[Array, "*n width"]:
    """``one_hot(ids) @ table`` without the product.

    The gradient *is* that product, transposed, where the table has few rows, as that of a character
    vocabulary: it is far cheaper there than the scatter-add that autodiff makes of a look-up.
    """
    return table[ids]


def _look_up_forward(table, ids):
    return table[ids], (ids, table.shape[0])


def _look_up_backward(residuals, gradient):
    ids, rows = residuals
    if rows > _FEW:
        return jnp.zeros((rows, gradient.shape[-1]), gradient.dtype).at[ids].add(gradient), None
    one_hot = jax.nn.one_hot(ids.reshape(-1), rows, dtype=gradient.dtype)
    return matmul(one_hot.T, gradient.reshape(-1, gradient.shape[-1]), "float32"), None


look_up.defvjp(_look_up_forward, _look_up_backward)
