"""Strict numerics for every test: two host devices, no rank promotion, checked shapes."""

import jax
import jaxtyping

jax.config.update("jax_num_cpu_devices", 2)
jax.config.update("jax_numpy_rank_promotion", "raise")

# Every annotated function of the package checks its arguments' shapes and types when called.
jaxtyping.install_import_hook("s2sjax", "beartype.beartype").__enter__()
