"""Strict numerics for every test: two host devices, no rank promotion, checked shapes."""

import ctypes
import os
import shutil
from importlib.metadata import version
from tempfile import mkdtemp

os.environ["JAX_NUM_CPU_DEVICES"] = "2"  # scripts that tests start see the same
# What was compiled once is found again: by scripts, and where a test forgets its programs. Each
# worker has a folder of its own, because JAX writes its files bit by bit.
os.environ["JAX_COMPILATION_CACHE_DIR"] = mkdtemp(prefix="s2sjax-compiled-")
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
# Compiling is most of what tests do: what a test compiles by itself is not optimised.
os.environ["XLA_FLAGS"] = "--xla_backend_optimization_level=0" + (
    " --xla_cpu_use_fusion_emitters=false" * (version("jaxlib") < "0.11")  # newer ones have no such
)

import hypothesis
import jax
import jaxtyping
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.block_until_ready(jax.numpy.zeros(1))
UNOPTIMISED = os.environ.pop("XLA_FLAGS")  # XLA has read its flags: scripts do without

# Every annotated function of the package checks its arguments' shapes and types when called.
jaxtyping.install_import_hook("s2sjax", "beartype.beartype").__enter__()

# A loaded machine is no reason for a property to fail.
hypothesis.settings.register_profile("unhurried", deadline=None)
hypothesis.settings.load_profile("unhurried")


def pytest_unconfigure():
    shutil.rmtree(os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)


@pytest.fixture(scope="session", autouse=True)
def programs_are_those_of_experiments():
    """Optimised as XLA does by itself."""
    from s2sjax.train import replicas  # with its annotations checked

    replicas.CPU_OPTIONS["xla_backend_optimization_level"] = 3
    if "fusion" in UNOPTIMISED:
        replicas.CPU_OPTIONS["xla_cpu_use_fusion_emitters"] = True


@pytest.fixture(scope="module", autouse=True)
def forget_programs():
    """What the tests of a file have compiled would fill the memory."""
    yield
    from s2sjax.train import replicas

    replicas._program.cache_clear()
    jax.clear_caches()
    give_back = getattr(ctypes.CDLL(None), "malloc_trim", lambda _: None)  # glibc keeps gigabytes
    give_back(0)


@pytest.fixture(scope="module")
def compiled_quickly(forget_programs):
    """Programs are not optimised: for tests of when they run, and with what."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("s2sjax.train.replicas.CPU_OPTIONS", {})
        yield
