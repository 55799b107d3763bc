"""One machine stands in for many: JAX sees 8 CPU devices, and shapes and types are checked while the tests run."""

import atexit
import os
import shutil
import signal
import tempfile

# A shell starts what runs in its background with Ctrl-C ignored, and some tests press it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
os.environ.setdefault("MUJOCO_GL", "egl")
os.environ.setdefault("LP_NUM_THREADS", "0")

# Small models are compiled for longer than they run.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")

# What one test, worker or process of a test has compiled, the others take from the disk.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="sop-compiled-")
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.1"
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)

import hypothesis
import jax
import pytest
from jaxtyping import install_import_hook

install_import_hook(
    ["sop_jax.models", "sop_jax.algorithms", "sop_jax.learner", "sop_jax.sampling"], "beartype.beartype"
)

jax.config.update("jax_numpy_rank_promotion", "raise")

# A busy machine is no fault of the code's.
hypothesis.settings.register_profile("untimed", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("untimed")


@pytest.fixture
def store_url(tmp_path) -> str:
    """A fresh store on the local disk."""
    return f"file://{tmp_path}/store/"
