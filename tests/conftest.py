"""Settings that every test shares: eight simulated CPU devices, no plots on a screen, one cache.

Programs are compiled quickly (see xla_flags.py): that saves more than half of all processor time.
With OPTIMIZED=1 they are compiled as users compile them; CI runs the numerics of both libraries
that way.

Most of the time of these tests is compiling, often of a program that another test compiled before.
JAX keeps what it compiled in a folder for the length of a test run; the processes that tests start
use it too. Each worker of pytest-xdist has its own: JAX does not write its files atomically.
"""

import os
import shutil
import tempfile

from tests import xla_flags

os.environ["JAX_PLATFORMS"] = os.environ.get("JAX_PLATFORMS", "cpu")
_FLAGS = ["--xla_force_host_platform_device_count=8"]
if not os.environ.get("OPTIMIZED"):
    _FLAGS.append(xla_flags.quick())
os.environ["XLA_FLAGS"] = " ".join([os.environ.get("XLA_FLAGS", ""), *_FLAGS])
os.environ.setdefault("MPLBACKEND", "Agg")
# Matrices are small here: threads of BLAS would do nothing but wait for each other, at full speed.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

_CACHE = tempfile.mkdtemp(prefix="compiled-")
os.environ["JAX_COMPILATION_CACHE_DIR"] = _CACHE
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.2"


def pytest_unconfigure():
    shutil.rmtree(_CACHE, ignore_errors=True)
