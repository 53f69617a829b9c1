"""The folder of files that can be recomputed: feature networks, and the findings of an image folder's check."""

import os
import pathlib


def directory() -> pathlib.Path:
    """Returns $XDG_CACHE_HOME/advdiff_jax, or ~/.cache/advdiff_jax; does not create it."""
    return pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "advdiff_jax"
