"""Folders in diffusers' layout: what is written is what was read, and what has no counterpart is refused by its name."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.flax
import safetensors.numpy

from advdiff_jax.builders.process import build_schedule
from advdiff_jax.errors import InvalidArgument
from advdiff_jax.interop import diffusers
from advdiff_jax.interop.diffusers_config import read_scheduler, read_unet, write_scheduler, write_unet
from advdiff_jax.interop.tensors import from_tensors, to_tensors
from advdiff_jax.networks.unet import UNet
from configs import default
from tests.interop.models import SCHEDULER, UNET, network_of, write

OPTIONS = {
    "ddpm": {},
    "one head": {"attention_head_dim": None, "block_out_channels": [8, 12]},
    "scale_shift": {"resnet_time_scale_shift": "scale_shift", "downsample_padding": 1, "flip_sin_to_cos": True},
    "own norm": {"resnet_time_scale_shift": "scale_shift", "attn_norm_num_groups": 2, "norm_eps": 1e-5},
    "resnet": {
        "down_block_types": ["ResnetDownsampleBlock2D", "AttnDownBlock2D"],
        "up_block_types": ["AttnUpBlock2D", "ResnetUpsampleBlock2D"],
        "downsample_type": "resnet",
        "upsample_type": "resnet",
        "out_channels": 2,
    },
    "apart": {"up_block_types": ["UpBlock2D", "AttnUpBlock2D"], "add_attention": False, "sample_size": [4, 8]},
}


def read(folder):
    settings = diffusers.read_settings(folder)
    network, shapes, shape = network_of(settings)
    found = from_tensors(diffusers.read_tensors(folder), shapes, diffusers.layout(shapes), network.num_heads)
    return settings, network, shape, found


@pytest.mark.parametrize("name", OPTIONS)
def test_import_export_import_is_the_identity(name, tmp_path):
    params = write(tmp_path, OPTIONS[name])
    settings, network, shape, found = read(tmp_path)
    assert found.missing == found.unused == found.misshapen == []
    jax.tree.map(np.testing.assert_array_equal, found.params, params)
    unet = write_unet(network, {4}, shape)
    assert unet == UNET | OPTIONS[name]
    tensors = to_tensors(found.params, diffusers.layout(params), network.num_heads)
    diffusers.write(tmp_path / "again", unet, SCHEDULER, tensors)
    again = read(tmp_path / "again")
    assert again[0] == settings
    jax.tree.map(np.testing.assert_array_equal, again[-1].params, params)
    kept, written = (diffusers.read_tensors(folder) for folder in (tmp_path, tmp_path / "again"))
    assert kept.keys() == written.keys()


def test_a_folder_without_subfolders_and_with_older_names(tmp_path):
    """As google/ddpm-cifar10-32 is stored."""
    params = write(tmp_path)
    tensors = diffusers.read_tensors(tmp_path)
    older = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    for new, old in older.items():
        tensors = {name.replace(f".{new}.", f".{old}."): value for name, value in tensors.items()}
    assert sum(".query." in name for name in tensors) == 8  # four layers with attention
    flat = tmp_path / "flat"
    flat.mkdir()
    safetensors.numpy.save_file(tensors, flat / diffusers.WEIGHTS)
    unet = {
        key: value for key, value in UNET.items() if key not in ("downsample_type", "attn_norm_num_groups", "add_attention")
    }
    unet |= {"down_block_types": ["UNetResDownBlock2D", "UNetResAttnDownBlock2D"], "_diffusers_version": "0.0.4"}
    (flat / "config.json").write_text(json.dumps(unet))
    (flat / "scheduler_config.json").write_text(json.dumps(SCHEDULER))
    assert diffusers.is_folder(flat)
    settings, *_, found = read(flat)
    assert settings == diffusers.read_settings(tmp_path)
    assert found.missing == found.unused == []
    jax.tree.map(np.testing.assert_array_equal, found.params, params)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_half_precision_is_read_as_float32(dtype, tmp_path):
    params = write(tmp_path)
    tensors = {name: jnp.asarray(value, dtype) for name, value in diffusers.read_tensors(tmp_path).items()}
    safetensors.flax.save_file(tensors, tmp_path / "unet" / diffusers.WEIGHTS)
    *_, found = read(tmp_path)
    jax.tree.map(
        lambda a, b: np.testing.assert_array_equal(a, np.asarray(jnp.asarray(b, dtype), np.float32)), found.params, params
    )
    assert {leaf.dtype for leaf in jax.tree.leaves(found.params)} == {np.dtype("float32")}


def test_tensors_that_do_not_fit_are_listed(tmp_path):
    def edit(tensors):
        del tensors["conv_in.bias"]
        tensors["class_embedding.weight"] = np.zeros((10, 32), np.float32)
        tensors["conv_out.weight"] = np.zeros((3, 8, 3, 3), np.float32)
        tensors["conv_norm_out.bias"][1] = np.nan
        return tensors

    params = write(tmp_path, edit=edit)
    *_, found = read(tmp_path)
    assert found.missing == ["conv_in.bias"]
    assert found.unused == ["class_embedding.weight"]
    assert sorted(found.misshapen) == [
        "conv_norm_out.bias with numbers that are not finite",
        "conv_out.weight [3, 8, 3, 3], not [1, 8, 3, 3]",
    ]
    np.testing.assert_array_equal(found.params["time_0"]["kernel"], params["time_0"]["kernel"])


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"_class_name": "UNet2DConditionModel"}, "_class_name='UNet2DConditionModel', which has no counterpart here"),
        ({"act_fn": "gelu"}, "config.json has act_fn='gelu', which has no counterpart here: only silu or swish has"),
        ({"num_class_embeds": 10}, "num_class_embeds=10"),
        ({"class_embed_type": "timestep"}, "class_embed_type='timestep'"),
        ({"mid_block_type": None}, "mid_block_type=None"),
        ({"time_embedding_type": "fourier"}, "time_embedding_type='fourier'"),
        ({"mid_block_scale_factor": 1.4}, "mid_block_scale_factor=1.4"),
        ({"resnet_time_scale_shift": "spatial"}, "resnet_time_scale_shift='spatial'"),
        ({"downsample_padding": 2}, "downsample_padding=2"),
        ({"down_block_types": ["DownBlock2D", "SkipDownBlock2D"]}, "the block SkipDownBlock2D in down_block_types"),
        ({"out_channels": 3}, "out_channels=3: our U-Net has as many as in_channels=1, or twice"),
        ({"sample_size": None}, "no sample_size"),
        ({"window": 3}, "window=3, which this reader does not know"),
    ],
)
def test_a_model_without_a_counterpart_is_refused_by_name(entries, message):
    with pytest.raises(InvalidArgument) as caught:
        read_unet(UNET | entries)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"_class_name": "PNDMScheduler"}, "_class_name='PNDMScheduler', which has no counterpart here: only DDPMScheduler or"),
        ({"beta_schedule": "sigmoid"}, "beta_schedule='sigmoid'"),
        ({"prediction_type": "flow_prediction"}, "prediction_type='flow_prediction'"),
        ({"variance_type": "learned"}, "variance_type='learned'"),
        ({"thresholding": True}, "thresholding=True"),
        ({"rescale_betas_zero_snr": True}, "rescale_betas_zero_snr=True"),
    ],
)
def test_a_scheduler_without_a_counterpart_is_refused_by_name(entries, message):
    with pytest.raises(InvalidArgument) as caught:
        read_scheduler(SCHEDULER | entries)
    assert message in str(caught.value)


def test_files_that_cannot_be_read(tmp_path):
    write(tmp_path, scheduler={"variance_type": "learned_range"}, unet={"out_channels": 2})
    (tmp_path / "unet" / diffusers.WEIGHTS).write_bytes(b"damaged")
    with pytest.raises(InvalidArgument, match=r"safetensors is damaged \(.*\): copy it again"):
        diffusers.read_tensors(tmp_path)
    (tmp_path / "unet" / diffusers.WEIGHTS).unlink()
    with pytest.raises(InvalidArgument, match=r"holds no diffusion_pytorch_model\.safetensors"):
        diffusers.read_tensors(tmp_path)
    (tmp_path / "unet" / "diffusion_pytorch_model.bin").touch()
    with pytest.raises(InvalidArgument, match=r"diffusion_pytorch_model\.bin (needs torch to be read|cannot be read)"):
        diffusers.read_tensors(tmp_path)
    config = tmp_path / "unet" / "config.json"
    config.write_text(json.dumps(UNET))
    with pytest.raises(InvalidArgument, match="variance_type='learned_range', and the network no output for it"):
        diffusers.read_settings(tmp_path)
    config.write_text("{")
    with pytest.raises(InvalidArgument, match=r"config\.json is not JSON"):
        diffusers.read_settings(tmp_path)
    config.write_text(json.dumps(UNET))
    shutil.rmtree(tmp_path / "scheduler")
    with pytest.raises(InvalidArgument, match=r"scheduler_config\.json cannot be read \(No such file or directory\)"):
        diffusers.read_settings(tmp_path)


BETAS = tuple(np.linspace(1e-3, 0.05, 20).tolist())


@pytest.mark.parametrize(
    "entries",
    [
        {},
        {"num_train_timesteps": 400, "beta_start": 2e-4, "beta_end": 0.05},
        {"beta_schedule": "scaled_linear", "beta_start": 0.0015, "beta_end": 0.0195},
        {"beta_schedule": "squaredcos_cap_v2", "prediction_type": "v_prediction"},
        {"trained_betas": list(BETAS), "num_train_timesteps": 20, "prediction_type": "sample"},
        {"variance_type": "fixed_large", "clip_sample": False},
    ],
)
def test_the_process_goes_in_and_out_unchanged(entries):
    settings = read_scheduler(SCHEDULER | entries)
    config = default.get_config()
    config.update_from_flattened_dict(settings.facts | settings.defaults)
    schedule, c = build_schedule(config), config.sampling
    written = write_scheduler(schedule, config.diffusion.prediction, False, c.variance, c.clip)
    assert read_scheduler(written) == settings


@pytest.mark.parametrize(
    ("arguments", "groups", "message"),
    [
        ({}, {2, 4}, "norm_num_groups=0: its norms have 2 and 4 groups, .* train with network.norm_num_groups=2"),
        ({"heads": 2}, {4}, "heads=2: its heads have 4 and 8 channels, .* train with network.attention_head_dim=4"),
        ({"channel_mults": (2, 2)}, {4}, r"channel_mults=\(2, 2\) must begin with 1"),
        ({"attn_norm_num_groups": -1}, {4}, "attn_norm_num_groups=-1 needs scale_shift=True"),
    ],
)
def test_a_network_that_diffusers_cannot_express_is_refused(arguments, groups, message):
    network = UNet(**{"base_channels": 8, "channel_mults": (1, 2), "attention_resolutions": (8, 4), "heads": 1} | arguments)
    with pytest.raises(InvalidArgument, match=message):
        write_unet(network, groups, (8, 8, 1))


def test_attention_by_height_becomes_attention_by_level():
    network = UNet(base_channels=8, channel_mults=(1, 2, 2), attention_resolutions=(4,), heads=2, downsample_type="resnet")
    unet = write_unet(network, {4}, (16, 16, 3))
    assert unet["down_block_types"] == ["ResnetDownsampleBlock2D"] * 2 + ["AttnDownBlock2D"]
    assert unet["up_block_types"] == ["AttnUpBlock2D", "UpBlock2D", "UpBlock2D"]
    assert (unet["downsample_type"], unet["upsample_type"], unet["attention_head_dim"]) == ("resnet", "conv", 8)
