"""Strict numerics for every test: two host devices, no rank promotion, checked shapes."""

import os

os.environ["JAX_NUM_CPU_DEVICES"] = "2"  # scripts that tests start see the same

import hypothesis
import jax
import jaxtyping

jax.config.update("jax_numpy_rank_promotion", "raise")

# Every annotated function of the package checks its arguments' shapes and types when called.
jaxtyping.install_import_hook("s2sjax", "beartype.beartype").__enter__()

# A loaded machine is no reason for a property to fail.
hypothesis.settings.register_profile("unhurried", deadline=None)
hypothesis.settings.load_profile("unhurried")
