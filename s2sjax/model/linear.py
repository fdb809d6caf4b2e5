"""Matrix products at a chosen precision, and table look-ups."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from s2sjax.config import Model, Precision
from s2sjax.model.initialisers import initialisers


def matmul(
    a: Float[Array, "*m k"], b: Float[Array, "k n"], precision: Precision
) -> Float[Array, "*m n"]:
    """``a @ b`` with float32 sums; ``bfloat16`` rounds the two factors."""
    if precision == "float32":  # by default GPUs and TPUs would round the factors
        return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)
    return _bfloat16_matmul(a, b)


@jax.custom_vjp  # autodiff would round the sums of the gradients
def _bfloat16_matmul(a, b):
    return jnp.matmul(
        a.astype(jnp.bfloat16), b.astype(jnp.bfloat16), preferred_element_type=a.dtype
    )


def _bfloat16_matmul_backward(factors, gradient):
    a, b = factors
    rows, gradients = a.reshape(-1, a.shape[-1]), gradient.reshape(-1, gradient.shape[-1])
    return _bfloat16_matmul(gradient, b.T), _bfloat16_matmul(rows.T, gradients)


_bfloat16_matmul.defvjp(lambda a, b: (_bfloat16_matmul(a, b), (a, b)), _bfloat16_matmul_backward)


def affine(
    x: Float[Array, "*n part"],
    w: Float[Array, "inputs outputs"],
    b: Float[Array, " outputs"],
    precision: Precision,
    first_row: int = 0,
) -> Float[Array, "*n outputs"]:
    """``x w + b``; of a concatenated input, the term of one part.

    The part's rows of `w` begin at `first_row`; the term of row 0 has the bias.
    """
    product = matmul(x, w[first_row : first_row + x.shape[-1]], precision)
    return product if first_row else product + jnp.broadcast_to(b, product.shape)


class Affine(nn.Module):
    """The parameters ``w [inputs, outputs]`` and ``b`` of `affine`."""

    inputs: int
    outputs: int
    config: Model

    def setup(self) -> None:
        init = initialisers(self.config.init, self.config.hidden_size)
        self.w = self.param("w", init.kernel, (self.inputs, self.outputs))
        self.b = self.param("b", init.bias, (self.outputs,))

    def __call__(self, x: Float[Array, "*n part"], first_row: int = 0) -> Float[Array, "*n out"]:
        return affine(x, self.w, self.b, self.config.precision, first_row)


_FEW_ROWS = 512  # the one-hot product is faster up to about this size


@jax.custom_vjp
def look_up(table: Float[Array, "rows width"], ids: Int[Array, "*n"]) -> Float[Array, "*n width"]:
    """``table[ids]``; for few rows, a one-hot product replaces autodiff's slow scatter-add."""
    return table[ids]


def _look_up_backward(residuals, gradient):
    ids, rows = residuals
    if rows > _FEW_ROWS:
        return jnp.zeros((rows, gradient.shape[-1]), gradient.dtype).at[ids].add(gradient), None
    one_hot = jax.nn.one_hot(ids.reshape(-1), rows, dtype=gradient.dtype)
    return matmul(one_hot.T, gradient.reshape(-1, gradient.shape[-1]), "float32"), None


look_up.defvjp(lambda table, ids: (table[ids], (ids, table.shape[0])), _look_up_backward)
