"""Named tensors in files: safetensors, or a pickled state dict through torch's loader of plain tensors."""

import pathlib

import numpy as np
import safetensors
import safetensors.flax

from advdiff_jax.errors import InvalidArgument
from advdiff_jax.interop import state_dicts


def read(path: pathlib.Path) -> dict[str, np.ndarray]:
    """Reads the tensors of a file, name -> float32 array; safetensors by its suffix, every other file as a state dict.

    Raises:
        InvalidArgument: the file is damaged, asks for more than tensors, or is no state dict; torch for a pickle is missing.
    """
    if path.suffix != ".safetensors":
        return state_dicts.read_tensors(path)
    return {name: value.astype(np.float32) for name, value in read_safetensors(path).items()}


def read_safetensors(path: pathlib.Path) -> dict[str, np.ndarray]:
    """Reads a file of safetensors, name -> array of its own type; raises InvalidArgument if it is damaged."""
    try:
        return {name: np.asarray(value) for name, value in safetensors.flax.load_file(path).items()}
    except (safetensors.SafetensorError, OSError) as error:
        raise InvalidArgument(f"{path} is damaged ({error}): copy it again") from error
