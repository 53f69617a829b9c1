"""The folder of files that can be recomputed: feature networks, and the findings of an image folder's check."""

import hashlib
import logging
import os
import pathlib
from collections.abc import Callable

import numpy as np

log = logging.getLogger(__name__)


def directory() -> pathlib.Path:
    """Returns $XDG_CACHE_HOME/advdiff_jax, or ~/.cache/advdiff_jax; does not create it."""
    return pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "advdiff_jax"


def digest(data: bytes) -> str:
    """Returns the first 12 hexadecimal digits of the SHA-256, for names of files that depend on `data`."""
    return hashlib.sha256(data).hexdigest()[:12]


def tensors(cache_dir: str, name: str, make: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Returns named arrays from a safetensors file of the cache, or makes them and keeps them there.

    Args:
        cache_dir: the folder; empty: `directory()`. An unusable folder costs a warning and making them again.
        name: of the file; it has to change with what `make` depends on.
        make: () -> name -> array.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load, save

    path = pathlib.Path(cache_dir or directory()) / name
    try:
        return load(path.read_bytes())
    except (OSError, SafetensorError):
        pass
    found = {key: np.ascontiguousarray(value) for key, value in make().items()}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f".{os.getpid()}")
        partial.write_bytes(save(found))
        partial.replace(path)  # whole or not at all: several runs may share the cache
    except OSError as error:
        log.warning("%s is not cached: %s", name, error)
    return found
