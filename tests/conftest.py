"""Eight fake devices, set up before jax is imported; and a cache of feature networks that lasts one session."""

import os

os.environ["NPROC"] = "8"  # with fewer threads than fake devices, queued collectives deadlock on the CPU
os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
os.environ["JAX_PLATFORMS"] = "cpu"

import pytest


@pytest.fixture(scope="session", autouse=True)
def _cache_of_this_session(tmp_path_factory):
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))
