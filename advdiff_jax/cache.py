"""Where things that can be made again are kept between runs."""

import os
import pathlib


def directory() -> pathlib.Path:
    """$XDG_CACHE_HOME/advdiff_jax, or ~/.cache/advdiff_jax; not made here."""
    return pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "advdiff_jax"
