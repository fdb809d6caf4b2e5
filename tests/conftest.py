"""Strict numerics for every test: two host devices, no rank promotion, checked shapes."""

import os
from tempfile import TemporaryDirectory

COMPILED = TemporaryDirectory(prefix="s2sjax-compiled-")

# Scripts that tests start see the same. What was compiled once is found again, by them and where
# a test forgets its programs; each worker has a folder of its own: JAX writes files bit by bit.
os.environ |= {
    "JAX_NUM_CPU_DEVICES": "2",
    "JAX_COMPILATION_CACHE_DIR": COMPILED.name,
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
}

import hypothesis
import jax
import jaxtyping
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")

# Every annotated function of the package checks its arguments' shapes and types when called.
jaxtyping.install_import_hook("s2sjax", "beartype.beartype").__enter__()

# A loaded machine is no reason for a property to fail.
hypothesis.settings.register_profile("unhurried", deadline=None)
hypothesis.settings.load_profile("unhurried")


def pytest_unconfigure():
    COMPILED.cleanup()


@pytest.fixture(scope="module", autouse=True)
def forget_programs():
    """What the tests of a file have compiled would fill the memory."""
    yield
    jax.clear_caches()
