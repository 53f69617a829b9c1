"""The environment of the tests, set up before jax is imported."""

import gc
import importlib.metadata
import os
import pathlib
import tempfile

import PIL.Image
import pytest
from absl import flags
from matplotlib.figure import Figure

# Most of the time of these tests is compilation; a process that a test starts inherits this.
FAST_COMPILATION = "--xla_backend_optimization_level=0 --xla_cpu_parallel_codegen_split_count=1"
if importlib.metadata.version("jaxlib").startswith("0.10."):
    FAST_COMPILATION += " --xla_cpu_use_fusion_emitters=false"  # halves it; XLA stops at a flag that its version does not have
os.environ["XLA_FLAGS"] = f"{FAST_COMPILATION} --xla_force_host_platform_device_count=8"
os.environ["NPROC"] = "8"  # with fewer threads than fake devices, queued collectives deadlock on the CPU
os.environ["JAX_PLATFORMS"] = "cpu"
flags.FLAGS.mark_as_parsed()  # grain's worker processes ask for it
gc.set_threshold(20_000)  # tracing allocates so much that the default, 700, spends a tenth of the time on collections

# Feature networks and compiled programs are cached for the session, also between the processes that tests start. The
# workers of pytest-xdist inherit the environment of the process that started them.
if "PYTEST_XDIST_WORKER" not in os.environ:
    _CACHE = tempfile.TemporaryDirectory()
    os.environ["XDG_CACHE_HOME"] = _CACHE.name
    os.environ["JAX_COMPILATION_CACHE_DIR"] = os.path.join(_CACHE.name, "xla")
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.2"  # to write a small program takes longer than to compile it


@pytest.fixture(scope="module")
def unpainted():
    """Saves a figure as one pixel, for files whose tests run programs to their report and look at no picture."""

    def one_pixel(figure, path, **kwargs):
        PIL.Image.new("RGB", (1, 1)).save(path, "png")

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Figure, "savefig", one_pixel)
        yield


@pytest.fixture(autouse=True, scope="module")
def few_memory_mappings():
    """Drops the compiled programs of earlier files where they hold half of the mappings that Linux grants a process."""
    yield
    maps = pathlib.Path("/proc/self/maps")
    if maps.exists() and maps.read_bytes().count(b"\n") > 32_000:
        import jax

        jax.clear_caches()
        gc.collect()
