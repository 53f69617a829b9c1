"""Pickled state dicts (.pt) of Improved-DDPM and guided-diffusion, through torch's loader of plain tensors.

The loader (`weights_only=True`) runs no code of the file: a pickle that asks for more than tensors is refused. torch is needed
for this alone, and is in the extra `interop`.

Their U-Nets number all blocks on the way in and out: input_blocks.0.0 is the first convolution, then each residual block with
its attention has a number, and so has each downsampling; an upsampling shares the number of the block before it.
"""

import itertools
import pathlib
import pickle
from collections.abc import Mapping

import numpy as np

from advdiff_jax.errors import InvalidArgument
from advdiff_jax.interop.tensors import Layout, count_levels


def read_tensors(path: pathlib.Path) -> dict[str, np.ndarray]:
    """Reads a state dict, name -> float32 array.

    Raises:
        InvalidArgument: torch is not installed, the file is damaged or asks for more than tensors, or is no state dict.
    """
    try:
        import torch
    except ImportError as error:
        raise InvalidArgument(f"{path} needs torch to be read: pip install '.[interop]'") from error
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise InvalidArgument(f"{path} asks for more than tensors, or is damaged: save its state_dict() alone") from error
    except Exception as error:  # torch reports damage by many exception types; each makes the file unusable
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InvalidArgument(f"{path} cannot be read ({reason[:120]}): copy it again") from error
    if not isinstance(found, dict) or not all(isinstance(value, torch.Tensor) for value in found.values()):
        raise InvalidArgument(f"{path} is not a state dict of tensors by name: save the state_dict() of the network alone")
    return {name: value.to(torch.float32).numpy() for name, value in found.items()}


def layout(params: Mapping) -> Layout:
    """Returns Improved-DDPM's names for our parameters, or for their shapes."""
    return Layout(
        blocks=_blocks(params),
        res_block={
            "norm_in": "in_layers.0",
            "conv_in": "in_layers.2",
            "embedding": "emb_layers.1",
            "norm_out": "out_layers.0",
            "conv_out": "out_layers.3",
            "skip": "skip_connection",
        },
        attention={"norm": ("norm",), "qkv": ("qkv",), "out": ("proj_out",)},
    )


def _blocks(params):
    levels, numbers = count_levels(params), itertools.count(1)
    found = {"conv_in": "input_blocks.0.0", "time_0": "time_embed.0", "time_1": "time_embed.2"}
    found |= {"norm_out": "out.0", "conv_out": "out.2"}
    for level in range(levels):
        for name in _numbered(params, f"down{level}"):
            number = next(numbers)
            found |= {name: f"input_blocks.{number}.0", f"{name}_attention": f"input_blocks.{number}.1"}
        half = f"down{level}_half"
        if half in params:
            found[half] = f"input_blocks.{next(numbers)}.0" + (".op" if "bias" in params[half] else "")
    middle = ["middle_0", *(["middle_attention"] if "middle_attention" in params else []), "middle_1"]
    found |= {name: f"middle_block.{i}" for i, name in enumerate(middle)}
    numbers = itertools.count()
    for level in reversed(range(levels)):
        for name in _numbered(params, f"up{level}"):
            number = next(numbers)
            found |= {name: f"output_blocks.{number}.0", f"{name}_attention": f"output_blocks.{number}.1"}
        double = f"up{level}_double"
        if double in params:
            place = 2 if f"{name}_attention" in params else 1
            found[double] = f"output_blocks.{number}.{place}" + (".conv" if "bias" in params[double] else "")
    return found


def _numbered(params, prefix):
    """Returns the residual blocks of a level in order."""
    return list(itertools.takewhile(lambda name: name in params, (f"{prefix}_{i}" for i in itertools.count())))
