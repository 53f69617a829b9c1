"""Small models in diffusers' layout, with random weights, written without diffusers."""

import jax
import jax.numpy as jnp
import numpy as np

from advdiff_jax.builders.experiment import build_network
from advdiff_jax.interop import diffusers
from advdiff_jax.interop.tensors import to_tensors
from configs import default

UNET = {
    "_class_name": "UNet2DModel",
    "sample_size": 8,
    "in_channels": 1,
    "out_channels": 1,
    "layers_per_block": 1,
    "block_out_channels": [8, 16],
    "down_block_types": ["DownBlock2D", "AttnDownBlock2D"],
    "up_block_types": ["AttnUpBlock2D", "UpBlock2D"],
    "downsample_padding": 0,
    "downsample_type": "conv",
    "upsample_type": "conv",
    "dropout": 0.0,
    "attention_head_dim": 4,
    "norm_num_groups": 4,
    "attn_norm_num_groups": None,
    "norm_eps": 1e-6,
    "resnet_time_scale_shift": "default",
    "add_attention": True,
    "flip_sin_to_cos": False,
    "freq_shift": 1,
    "center_input_sample": False,
    "act_fn": "silu",
    "time_embedding_type": "positional",
    "mid_block_scale_factor": 1,
}
SCHEDULER = {
    "_class_name": "DDPMScheduler",
    "num_train_timesteps": 1000,
    "beta_schedule": "linear",
    "beta_start": 1e-4,
    "beta_end": 0.02,
    "prediction_type": "epsilon",
    "variance_type": "fixed_small",
    "clip_sample": True,
    "clip_sample_range": 1.0,
}


def network_of(settings):
    """The network and the shapes of its parameters."""
    config = default.get_config()
    config.update_from_flattened_dict(settings.facts | settings.defaults)
    network, size = build_network(config), config.data.size
    shape = (*(size if isinstance(size, tuple) else (size, size)), config.data.channels)
    return network, jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, *shape)), jnp.zeros(1))["params"], shape


def write(folder, unet=(), scheduler=(), edit=lambda tensors: tensors, seed=0):
    """Writes a pipeline's folder with random weights; returns our parameters."""
    unet, scheduler = {**UNET, **dict(unet)}, {**SCHEDULER, **dict(scheduler)}
    diffusers.write(folder, unet, scheduler, {})
    network, shapes, _ = network_of(diffusers.read_settings(folder))
    rng = np.random.default_rng(seed)
    params = jax.tree.map(lambda leaf: 0.3 * rng.standard_normal(leaf.shape, np.float32), shapes)
    tensors = to_tensors(params, diffusers.layout(params), network.num_heads)
    diffusers.write(folder, unet, scheduler, edit(tensors))
    return params
