"""Names of Improved-DDPM's tensors, and what a reader without torch says; weights against torch are in tests/crosscheck."""

import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from advdiff_jax.errors import InvalidArgument
from advdiff_jax.interop import state_dicts
from advdiff_jax.interop.tensors import entries, from_tensors, to_tensors
from advdiff_jax.networks.unet import UNet


def shapes_of(**arguments):
    network = UNet(**{"base_channels": 8, "channel_mults": (1, 2), "res_blocks": 1, "heads": 2} | arguments)
    shapes = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, 8, 8, 3)), jnp.zeros(1))["params"]
    return network, shapes


def test_blocks_are_numbered_on_the_way_in_and_out():
    _, shapes = shapes_of(attention_resolutions=(4,), scale_shift=True)
    names = {name for entry in entries(shapes, state_dicts.layout(shapes)) for name in entry.names}
    blocks = {name.rsplit(".", 1)[0] for name in names}
    # conv, block, downsampling, block with attention; on the way out two blocks with attention, upsampling, two blocks
    assert {
        "input_blocks.0.0",
        "input_blocks.1.0.in_layers.2",
        "input_blocks.2.0.op",
        "input_blocks.3.0.skip_connection",
        "input_blocks.3.1.qkv",
        "middle_block.0.emb_layers.1",
        "middle_block.1.proj_out",
        "middle_block.2.out_layers.3",
        "output_blocks.0.1.norm",
        "output_blocks.1.1.qkv",
        "output_blocks.1.2.conv",
        "output_blocks.2.0.out_layers.0",
        "output_blocks.3.0.in_layers.0",
        "time_embed.0",
        "time_embed.2",
        "out.0",
        "out.2",
    } <= blocks
    assert not any(name.startswith(("input_blocks.4", "output_blocks.4", "input_blocks.1.1")) for name in names)
    assert len(names) == len(jax.tree.leaves(shapes))


def test_resampling_blocks_have_names_of_residual_blocks():
    _, shapes = shapes_of(attention_resolutions=(), downsample_type="resnet", upsample_type="resnet")
    names = {name for entry in entries(shapes, state_dicts.layout(shapes)) for name in entry.names}
    assert "input_blocks.2.0.in_layers.2.weight" in names
    assert "output_blocks.1.1.in_layers.2.weight" in names


def test_layers_that_are_convolutions_there_lose_their_axes():
    network, shapes = shapes_of(attention_resolutions=(4,))
    rng, layout = np.random.default_rng(0), state_dicts.layout(shapes)
    params = jax.tree.map(lambda leaf: rng.standard_normal(leaf.shape, np.float32), shapes)
    tensors = to_tensors(params, layout, network.num_heads)
    convolved = {
        name: value[..., None] if "qkv.weight" in name or "proj_out.weight" in name else value
        for name, value in tensors.items()
    }
    assert convolved["middle_block.1.qkv.weight"].shape == (48, 16, 1)
    found = from_tensors(convolved, shapes, layout, network.num_heads)
    assert found.missing == found.unused == found.misshapen == []
    jax.tree.map(np.testing.assert_array_equal, found.params, params)


@pytest.mark.skipif(importlib.util.find_spec("torch") is not None, reason="torch is installed")
def test_a_reader_without_torch_says_what_to_install(tmp_path):
    with pytest.raises(InvalidArgument, match=r"model\.pt needs torch to be read: pip install '\.\[interop\]'"):
        state_dicts.read_tensors(tmp_path / "model.pt")
