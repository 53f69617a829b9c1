"""diffusers' config.json (`UNet2DModel`) and scheduler_config.json (DDPM, DDIM) against keys of our config, both ways.

A setting is a key "section.key" of a config with its value. Facts follow from the weights: another value computes something
else. Defaults are how diffusers would use the model: a user may choose otherwise.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from advdiff_jax.diffusion import schedules
from advdiff_jax.errors import InvalidArgument
from advdiff_jax.networks.unet import DOWN_BLOCKS, UP_BLOCKS


class Settings(NamedTuple):
    """Keys of a config -> values; see the module docstring."""

    facts: dict[str, Any]
    defaults: dict[str, Any]


# Entries of config.json with another name here, or with the same; the value is the same.
_UNET = {
    "layers_per_block": "network.res_blocks",
    "downsample_type": "network.downsample_type",
    "upsample_type": "network.upsample_type",
    "downsample_padding": "network.downsample_padding",
    "add_attention": "network.add_attention",
    "norm_num_groups": "network.norm_num_groups",
    "norm_eps": "network.norm_eps",
    "flip_sin_to_cos": "network.flip_sin_to_cos",
    "freq_shift": "network.freq_shift",
    "center_input_sample": "network.center_input_sample",
}
# What `UNet2DModel` takes where config.json, which may be older, has no entry.
_UNET_DEFAULTS = {
    "in_channels": 3,
    "out_channels": 3,
    "center_input_sample": False,
    "freq_shift": 0,
    "flip_sin_to_cos": True,
    "down_block_types": ["DownBlock2D", *["AttnDownBlock2D"] * 3],
    "up_block_types": [*["AttnUpBlock2D"] * 3, "UpBlock2D"],
    "block_out_channels": [224, 448, 672, 896],
    "layers_per_block": 2,
    "downsample_padding": 1,
    "downsample_type": "conv",
    "upsample_type": "conv",
    "dropout": 0.0,
    "attention_head_dim": 8,
    "norm_num_groups": 32,
    "attn_norm_num_groups": None,
    "norm_eps": 1e-5,
    "resnet_time_scale_shift": "default",
    "add_attention": True,
    "sample_size": None,
}
# Entries of which our U-Net has some values only, the first if the entry is missing.
_UNET_CHOICES = {
    "_class_name": ("UNet2DModel",),
    "act_fn": ("silu", "swish"),
    "class_embed_type": (None,),
    "downsample_padding": (1, 0),
    "downsample_type": ("conv", "resnet"),
    "mid_block_scale_factor": (1,),
    "mid_block_type": ("UNetMidBlock2D",),
    "num_class_embeds": (None,),
    "resnet_time_scale_shift": ("default", "scale_shift"),
    "time_embedding_dim": (None,),
    "time_embedding_type": ("positional",),
    "upsample_type": ("conv", "resnet"),
}
_SCALE_SHIFT = {"default": False, "scale_shift": True}

_SCHEDULER_CHOICES = {
    "_class_name": ("DDPMScheduler", "DDIMScheduler"),
    "beta_schedule": ("linear", "scaled_linear", "squaredcos_cap_v2"),
    "prediction_type": ("epsilon", "sample", "v_prediction"),
    "rescale_betas_zero_snr": (False,),
    "thresholding": (False,),
    "variance_type": ("fixed_small", "fixed_small_log", "fixed_large", "learned_range"),
}
_SAMPLERS = {"DDPMScheduler": "ddpm", "DDIMScheduler": "ddim"}
_PREDICTIONS = {"epsilon": "eps", "sample": "x0", "v_prediction": "v"}
_VARIANCES = {"fixed_small": "small", "fixed_small_log": "small", "fixed_large": "large", "learned_range": "learned"}
_COSINE_OFFSET = 0.008  # of squaredcos_cap_v2


def read_unet(unet: Mapping[str, Any]) -> Settings:
    """Translates the config.json of a `UNet2DModel`.

    Raises:
        InvalidArgument: an entry or a value that our U-Net does not have; the message names it.
    """
    given = {key: value for key, value in unet.items() if key == "_class_name" or not key.startswith("_")}
    _check(given, _UNET_CHOICES, "config.json")
    known = {*_UNET_DEFAULTS, *_UNET_CHOICES, "num_train_timesteps"}
    if unknown := [key for key, value in given.items() if key not in known and value not in (None, False)]:
        raise InvalidArgument(f"config.json has {unknown[0]}={given[unknown[0]]!r}, which this reader does not know")
    c = _UNET_DEFAULTS | given
    if c["sample_size"] is None:
        raise InvalidArgument("config.json has no sample_size: write the side of its images there")
    channels, inputs, outputs = list(c["block_out_channels"]), c["in_channels"], c["out_channels"]
    if outputs not in (inputs, 2 * inputs):
        raise InvalidArgument(
            f"config.json has out_channels={outputs}: our U-Net has as many as in_channels={inputs}, or twice"
        )
    scale_shift, groups = _SCALE_SHIFT[c["resnet_time_scale_shift"]], c["attn_norm_num_groups"]
    facts = {ours: c[theirs] for theirs, ours in _UNET.items()} | {
        "network.kind": "unet",
        "network.base_channels": channels[0],
        "network.channel_mults": tuple(_whole(channel / channels[0]) for channel in channels),
        "network.down_block_types": _block_types(c["down_block_types"], DOWN_BLOCKS, "down_block_types"),
        "network.up_block_types": _block_types(c["up_block_types"], UP_BLOCKS, "up_block_types"),
        "network.attention_resolutions": (),
        "network.heads": 1,
        "network.attention_head_dim": c["attention_head_dim"] or 0,
        # Their middle has no norm before its attention if the time embedding scales and shifts, unless its groups are given.
        "network.attn_norm_num_groups": groups or (-1 if scale_shift else 0),
        "network.scale_shift": scale_shift,
        "network.time_input": "ddpm_index",
        "network.time_scale": 1.0,
        "diffusion.learn_variance": outputs == 2 * inputs,
    }
    size = c["sample_size"]
    defaults = {
        "network.dropout": c["dropout"],
        "data.size": tuple(size) if isinstance(size, list | tuple) else size,
        "data.channels": inputs,
    }
    return Settings(facts, defaults)


def read_scheduler(scheduler: Mapping[str, Any]) -> Settings:
    """Translates a scheduler_config.json: the process, and how its samples are clipped and drawn; not which steps are taken.

    Raises:
        InvalidArgument: a scheduler, or a value of one, that has no exact counterpart here; the message names it.
    """
    _check(scheduler, _SCHEDULER_CHOICES, "scheduler_config.json")
    c = {"num_train_timesteps": 1000, "beta_start": 1e-4, "beta_end": 0.02, "clip_sample": True, "clip_sample_range": 1.0}
    c |= {"trained_betas": None, "variance_type": "fixed_small", "prediction_type": "epsilon", "beta_schedule": "linear"}
    c |= scheduler
    facts = {
        "diffusion.grid_steps": c["num_train_timesteps"],
        "diffusion.prediction": _PREDICTIONS[c["prediction_type"]],
        **_schedule(c),
    }
    defaults = {
        "sampling.method": _SAMPLERS[c["_class_name"]],
        "sampling.clip": float(c["clip_sample_range"]) if c["clip_sample"] else 0.0,
        "sampling.variance": _VARIANCES[c["variance_type"]],
    }
    return Settings(facts, defaults)


def _schedule(c):
    steps, start, end = c["num_train_timesteps"], c["beta_start"], c["beta_end"]
    if c["trained_betas"] is not None:
        return {"diffusion.schedule": "vp_betas", "diffusion.betas": tuple(map(float, c["trained_betas"]))}
    if c["beta_schedule"] == "scaled_linear":
        betas = np.linspace(start**0.5, end**0.5, steps) ** 2
        return {"diffusion.schedule": "vp_betas", "diffusion.betas": tuple(betas.tolist())}
    if c["beta_schedule"] == "squaredcos_cap_v2":
        return {"diffusion.schedule": "vp_cosine", "diffusion.cosine_offset": _COSINE_OFFSET}
    return {"diffusion.schedule": "vp_linear", "diffusion.beta_min": start * steps, "diffusion.beta_max": end * steps}


def _check(given, choices, file):
    for key, allowed in choices.items():
        value = given.get(key, allowed[0])
        if value not in allowed or isinstance(value, bool) != isinstance(allowed[0], bool):
            known = " or ".join(str(one) for one in allowed)
            raise InvalidArgument(f"{file} has {key}={value!r}, which has no counterpart here: only {known} has")


def _block_types(names, known, key):
    names = tuple(name.removeprefix("UNetRes") for name in names)  # their older names
    if unknown := [name for name in names if name not in known]:
        has = ", ".join(known)
        raise InvalidArgument(f"config.json has the block {unknown[0]} in {key}, which our U-Net lacks: it has {has}")
    return names


def _whole(ratio):
    return round(ratio) if ratio == round(ratio) else ratio


def write_unet(network, groups: set[int], shape: tuple[int, ...]) -> dict[str, Any]:
    """Describes a U-Net as the config.json of a `UNet2DModel`.

    Args:
        network: a `networks.unet.UNet`.
        groups: numbers of groups of its norms.
        shape: of its images, (height, width, channels).

    Raises:
        InvalidArgument: a `UNet2DModel` cannot express it; the message says what to set, before training.
    """
    height, width, channels = shape
    heads = {network.channels(i): network.num_heads(network.channels(i)) for i in _attended(network, height)}
    head_dims = {channels // count for channels, count in heads.items()}
    if len(groups) != 1:
        raise InvalidArgument(
            f"norm_num_groups={network.norm_num_groups}: its norms have {_listed(groups)} groups, and diffusers has one number "
            f"for all: train with network.norm_num_groups={min(groups)}"
        )
    if len(head_dims) > 1 and {*heads.values()} != {1}:
        raise InvalidArgument(
            f"heads={network.heads}: its heads have {_listed(head_dims)} channels, and diffusers has one number for all: train "
            f"with network.attention_head_dim={min(head_dims)}"
        )
    if network.channels(0) != network.base_channels:
        raise InvalidArgument(f"channel_mults={tuple(network.channel_mults)} must begin with 1 in diffusers: train with such")
    down, up = network.down_levels(height), network.up_levels(height)
    (norm_num_groups,) = groups
    return {
        "_class_name": "UNet2DModel",
        "sample_size": height if height == width else [height, width],
        "in_channels": channels,
        "out_channels": channels * network.outputs,
        **{theirs: getattr(network, ours.removeprefix("network.")) for theirs, ours in _UNET.items()},
        "downsample_type": _resampling(network.down_block_types, down[:-1], network.downsample_type),
        "upsample_type": _resampling(network.up_block_types, up[1:], network.upsample_type),
        "block_out_channels": [network.channels(i) for i in range(len(down))],
        "down_block_types": list(network.down_block_types) or [_name(DOWN_BLOCKS, level) for level in down],
        "up_block_types": list(network.up_block_types) or [_name(UP_BLOCKS, level) for level in up[::-1]],
        "attention_head_dim": network.attention_head_dim or (None if {*heads.values()} <= {1} else min(head_dims)),
        "norm_num_groups": norm_num_groups,
        "attn_norm_num_groups": _middle_groups(network, norm_num_groups),
        "resnet_time_scale_shift": "scale_shift" if network.scale_shift else "default",
        "dropout": network.dropout,
        "act_fn": "silu",
        "time_embedding_type": "positional",
        "mid_block_scale_factor": 1,
    }


def write_scheduler(
    schedule: schedules.DDPMGrid, prediction: str, learn_variance: bool, variance: str, clip: float
) -> dict[str, Any]:
    """Describes a process as the scheduler_config.json of a `DDPMScheduler`.

    Args:
        schedule: on DDPM's grid.
        prediction: "eps", "x0" or "v".
        learn_variance: the network has an output for it.
        variance: of the ancestral sampler, "small", "large" or "learned".
        clip: bound on x0hat; 0: none.

    Raises:
        InvalidArgument: diffusers' scheduler has no such prediction.
    """
    predictions = {ours: theirs for theirs, ours in _PREDICTIONS.items()}
    if prediction not in predictions:
        raise InvalidArgument(f"prediction={prediction!r}: diffusers' schedulers know {', '.join(predictions)} only")
    variances = {"small": "fixed_small", "large": "fixed_large", "learned": "learned_range"}
    return {
        "_class_name": "DDPMScheduler",
        "num_train_timesteps": schedule.num_steps,
        "prediction_type": predictions[prediction],
        # A network that learns its variance has an output that their other types would not expect.
        "variance_type": "learned_range" if learn_variance else variances[variance],
        "clip_sample": clip > 0.0,
        **({"clip_sample_range": clip} if clip > 0.0 else {}),
        **_betas(schedule),
    }


def _betas(schedule):
    continuous, steps = schedule.continuous, schedule.num_steps
    if isinstance(continuous, schedules.VPLinear):
        start, end = continuous.beta_min / steps, continuous.beta_max / steps
        return {"beta_schedule": "linear", "beta_start": start, "beta_end": end}
    if isinstance(continuous, schedules.VPCosine) and continuous.offset == _COSINE_OFFSET:
        return {"beta_schedule": "squaredcos_cap_v2"}
    return {"trained_betas": continuous.betas(steps).tolist()}


def _attended(network, height):
    """Returns the levels with attention, the middle's among them."""
    levels = enumerate(zip(network.down_levels(height), network.up_levels(height), strict=True))
    found = {i for i, (down, up) in levels if down.attention or up.attention}
    return found | ({len(network.channel_mults) - 1} if network.add_attention else set())


def _resampling(names, levels, resample):
    """Returns how their blocks with attention resample: as ours, where all of ours resample alike."""
    return resample if names else next((level.resample for level in levels), resample)


def _name(blocks, level):
    return next(
        name
        for name, block in blocks.items()
        if block.attention == level.attention and (block.resample is None or block.resample == level.resample)
    )


def _middle_groups(network, norm_num_groups):
    own = network.attn_norm_num_groups
    if own < 0 and not network.scale_shift and network.add_attention:
        raise InvalidArgument("attn_norm_num_groups=-1 needs scale_shift=True in diffusers: train with another value")
    if own > 0:
        return own
    return norm_num_groups if network.scale_shift and own == 0 else None


def _listed(numbers):
    return " and ".join(map(str, sorted(numbers)))
