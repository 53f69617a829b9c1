"""Models in diffusers' layout, read and written with safetensors, without torch and without diffusers.

A folder holds config.json and diffusion_pytorch_model.safetensors of a `UNet2DModel` and scheduler_config.json, side by side;
or it is a pipeline's folder, with these in unet/ and scheduler/.
"""

import json
import pathlib
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import safetensors.numpy

from advdiff_jax.errors import InvalidArgument
from advdiff_jax.interop import state_dicts, tensor_files
from advdiff_jax.interop.diffusers_config import Settings, read_scheduler, read_unet
from advdiff_jax.interop.tensors import Layout, count_levels

WEIGHTS = "diffusion_pytorch_model.safetensors"
VERSION = "0.42.1"  # of diffusers, whose folders are written

_OLD = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}  # names in files before diffusers 0.15


def is_folder(path: pathlib.Path) -> bool:
    """Says whether a folder is in diffusers' layout."""
    return "_class_name" in _read_json(path / "config.json", {}) or (path / "unet" / "config.json").exists()


def read_settings(path: pathlib.Path) -> Settings:
    """Reads what a folder says of network and process.

    Raises:
        InvalidArgument: a file is missing or damaged, or a model or scheduler that has no counterpart here.
    """
    scheduler = path / "scheduler" if (path / "scheduler").is_dir() else path
    network = read_unet(_read_json(_unet(path) / "config.json"))
    process = read_scheduler(_read_json(scheduler / "scheduler_config.json"))
    facts, defaults = network.facts | process.facts, network.defaults | process.defaults
    if defaults["sampling.variance"] == "learned" and not facts["diffusion.learn_variance"]:
        raise InvalidArgument("scheduler_config.json has variance_type='learned_range', and the network no output for it")
    return Settings(facts, defaults)


def read_tensors(path: pathlib.Path) -> dict[str, np.ndarray]:
    """Reads the weights of a folder, name -> array; those of an old folder, which has a .bin file alone, through torch.

    Raises:
        InvalidArgument: the file is missing or damaged, or torch for a .bin file.
    """
    file = _unet(path) / WEIGHTS
    pickled = file.with_suffix(".bin")
    if not file.exists() and pickled.exists():
        return state_dicts.read_tensors(pickled)
    if not file.exists():
        raise InvalidArgument(f"{_unet(path)} holds no {WEIGHTS}: save the model with safe_serialization=True")
    return tensor_files.read_safetensors(file)


def write(path: pathlib.Path, unet: Mapping[str, Any], scheduler: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> None:
    """Writes a folder that diffusers' `DDPMPipeline.from_pretrained` loads."""
    version = {"_diffusers_version": VERSION}
    index = {
        "_class_name": "DDPMPipeline",
        **version,
        "scheduler": ["diffusers", scheduler["_class_name"]],
        "unet": ["diffusers", unet["_class_name"]],
    }
    for folder in ("unet", "scheduler"):
        (path / folder).mkdir(parents=True, exist_ok=True)
    _write_json(path / "model_index.json", index)
    _write_json(path / "unet" / "config.json", {**unet, **version})
    _write_json(path / "scheduler" / "scheduler_config.json", {**scheduler, **version})
    safetensors.numpy.save_file(dict(tensors), path / "unet" / WEIGHTS, metadata={"format": "pt"})


def layout(params: Mapping) -> Layout:
    """Returns diffusers' names for our parameters, or for their shapes."""
    last = count_levels(params) - 1
    return Layout(
        blocks={block: _block(block, last, is_conv="bias" in layers) for block, layers in params.items()},
        res_block={
            "norm_in": "norm1",
            "conv_in": "conv1",
            "embedding": "time_emb_proj",
            "norm_out": "norm2",
            "conv_out": "conv2",
            "skip": "conv_shortcut",
        },
        attention={"norm": ("group_norm",), "qkv": ("to_q", "to_k", "to_v"), "out": ("to_out.0",)},
        aliases=lambda name: re.sub(rf"(?<=\.)({'|'.join(_OLD)})(?=\.(weight|bias)$)", lambda match: _OLD[match[0]], name),
    )


_ENDS = {
    "conv_in": "conv_in",
    "time_0": "time_embedding.linear_1",
    "time_1": "time_embedding.linear_2",
    "middle_0": "mid_block.resnets.0",
    "middle_attention": "mid_block.attentions.0",
    "middle_1": "mid_block.resnets.1",
    "norm_out": "conv_norm_out",
    "conv_out": "conv_out",
}


def _block(block, last, is_conv):
    if block in _ENDS:
        return _ENDS[block]
    way, level, part = re.fullmatch(r"(down|up)(\d+)_(\w+)", block).groups()
    prefix = f"{way}_blocks.{level if way == 'down' else last - int(level)}"
    if part in ("half", "double"):
        return f"{prefix}.{way}samplers.0" + (".conv" if is_conv else "")
    number, _, attention = part.partition("_")
    return f"{prefix}.{'attentions' if attention else 'resnets'}.{number}"


def _unet(path):
    return path / "unet" if (path / "unet" / "config.json").exists() else path


def _read_json(file, default=None):
    if default is not None and not file.exists():
        return default
    try:
        found = json.loads(file.read_text())
    except OSError as error:
        raise InvalidArgument(f"{file} cannot be read ({error.strerror}): name a folder that holds it") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InvalidArgument(f"{file} is not JSON ({error}): copy it again") from error
    if not isinstance(found, dict):
        raise InvalidArgument(f"{file} holds no settings: copy it again")
    return found


def _write_json(file, value):
    file.write_text(json.dumps(value, indent=2) + "\n")
