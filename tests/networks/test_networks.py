"""Networks: the published parameter count, shapes and dtypes, interactions of examples, and refused arguments."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from advdiff_jax.errors import InvalidArgument
from advdiff_jax.networks.layers import sinusoidal_embedding
from advdiff_jax.networks.mlp import MLP
from advdiff_jax.networks.unet import UNet
from tests.networks.params import KEY, SMALL, random_params


def test_ddpms_cifar10_network_has_its_35746307_parameters():
    network = UNet(128, (1, 2, 2, 2), 2, (16,), heads=1)
    params = jax.eval_shape(network.init, KEY, jnp.zeros((1, 32, 32, 3)), jnp.zeros((1,)))
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == 35_746_307


@pytest.mark.parametrize("scale_shift", [False, True])
def test_unet(scale_shift):
    x = jax.random.normal(KEY, (3, 8, 8, 1))
    network = UNet(**SMALL, scale_shift=scale_shift)
    params = random_params(network, x)
    apply = jax.jit(network.apply)
    out = apply(params, x, jnp.full(3, 0.5))
    assert out.shape == x.shape
    assert jnp.max(jnp.abs(apply(params, x, jnp.full(3, 0.6)) - out)) > 1e-3
    low = UNet(**SMALL, scale_shift=scale_shift, dtype=jnp.bfloat16)
    assert {leaf.dtype for leaf in jax.tree.leaves(random_params(low, x))} == {jnp.dtype("float32")}
    rounded = jax.jit(low.apply)(params, x, jnp.full(3, 0.5))
    assert out.dtype == rounded.dtype == jnp.float32
    assert 0 < jnp.max(jnp.abs(rounded - out)) < 0.1 * jnp.max(jnp.abs(out))


def test_unet_starts_at_zero_and_examples_do_not_interact():
    x = jax.random.normal(KEY, (3, 8, 8, 1))
    network, t = UNet(**SMALL), jnp.array([0.1, 0.5, 0.9])
    apply = jax.jit(network.apply)
    np.testing.assert_array_equal(apply(jax.jit(network.init)(KEY, x, t), x, t), 0.0)
    params = random_params(network, x)
    out = apply(params, x, t)
    for i in range(3):
        others = jnp.arange(3) != i
        changed = apply(params, x + others[:, None, None, None], jnp.where(others, 0.3, t))
        np.testing.assert_allclose(changed[i], out[i], atol=1e-5)
        assert jnp.min(jnp.max(jnp.abs(changed - out), axis=(1, 2, 3))[others]) > 1e-3


def test_attention_sits_at_the_chosen_resolutions_only():
    shapes = lambda resolutions: jax.eval_shape(
        UNet(**{**SMALL, "attention_resolutions": resolutions}).init, KEY, jnp.zeros((1, 8, 8, 1)), jnp.zeros((1,))
    )["params"]
    names = lambda resolutions: {name for name in shapes(resolutions) if name.endswith("attention")}
    assert names(()) == {"middle_attention"}
    assert names((4,)) == {"middle_attention", "down1_0_attention", "up1_0_attention", "up1_1_attention"}


@pytest.mark.parametrize(
    ("arguments", "size", "message"),
    [
        ({"channel_mults": ()}, 8, r"channel_mults=\(\) has no level: set one multiple for each level"),
        ({}, 9, r"channel_mults=\(1, 2\) needs images divisible by 2, not 9x9: set fewer levels"),
        ({"heads": 3}, 8, "heads=3 does not divide the 16 channels of level 1, which has attention: set a divisor"),
        ({"heads": 3, "attention_resolutions": ()}, 8, "heads=3 does not divide the 16 channels of level 1"),  # the middle
        ({"heads": 16, "attention_resolutions": (8,)}, 8, "heads=16 does not divide the 8 channels of level 0"),
        (
            {"channel_mults": (1, 2, 3, 4), "attention_resolutions": (24, 16, 8)},  # of 64 pixels, for 96
            96,
            r"attention_resolutions=\(24, 16, 8\): no level has height 8, 16; set some of the heights 96, 48, 24, 12, or \(\)",
        ),
    ],
)
def test_unet_refuses_arguments_that_do_not_fit(arguments, size, message):
    with pytest.raises(InvalidArgument, match=message):
        jax.eval_shape(UNet(**SMALL | arguments).init, KEY, jnp.zeros((1, size, size, 1)), jnp.zeros((1,)))


def test_heads_need_not_divide_the_channels_of_a_level_without_attention():
    network = UNet(**SMALL | {"heads": 16})  # level 0 has 8 channels
    out = jax.eval_shape(network.init_with_output, KEY, jnp.zeros((1, 8, 8, 1)), jnp.zeros((1,)))[0]
    assert out.shape == (1, 8, 8, 1)


def test_rematerialisation_computes_blocks_again_and_changes_nothing_else():
    x, t = jax.random.normal(KEY, (2, 8, 8, 1)), jnp.array([0.2, 0.7])
    networks = [UNet(**SMALL, dropout=0.2, remat=remat) for remat in (False, True)]
    params = [random_params(network, x) for network in networks]
    assert jax.tree.structure(params[0]) == jax.tree.structure(params[1])  # a checkpoint fits both
    steps = []
    for network in networks:
        loss = lambda params, x, network=network: jnp.mean(network.apply(params, x, t, True, rngs={"dropout": KEY}) ** 2)
        steps.append(jax.jit(jax.value_and_grad(loss, argnums=(0, 1))).lower(params[0], x).compile())
    kept, again = (ravel_pytree(step(params[0], x))[0] for step in steps)
    assert jnp.linalg.norm(again - kept) < 1e-6 * jnp.linalg.norm(kept)
    flops = [step.cost_analysis()["flops"] for step in steps]
    assert 1.1 < flops[1] / flops[0] < 4 / 3  # a forward pass more for the three of a gradient, but for what is no block


def test_mlp():
    x = jax.random.normal(KEY, (4, 3))
    network = MLP(width=16, depth=2, time_features=8)
    params = random_params(network, x)
    apply = jax.jit(network.apply)
    out = apply(params, x, jnp.full(4, 0.5))
    assert out.shape == x.shape
    assert jnp.max(jnp.abs(apply(params, x, jnp.full(4, 0.6)) - out)) > 1e-3


def test_sinusoidal_embedding_is_the_transformers():
    out = sinusoidal_embedding(jnp.array([0.0, 7.0]), 6)
    frequencies = 10_000.0 ** (-np.arange(3) / 3)
    np.testing.assert_allclose(out[0], [1, 1, 1, 0, 0, 0])
    np.testing.assert_allclose(out[1], np.concatenate([np.cos(7 * frequencies), np.sin(7 * frequencies)]), rtol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"down_block_types": ("DownBlock2D",)},
            r"down_block_types has 1 names for 2 levels, channel_mults=\(1, 2\): set as many",
        ),
        ({"attention_head_dim": 3}, "attention_head_dim=3 does not divide the 16 channels of level 1"),
        ({"norm_num_groups": 3}, "norm_num_groups=3 does not divide 8 channels: set a divisor, or 0"),
    ],
)
def test_unet_refuses_blocks_heads_and_groups_that_do_not_fit(arguments, message):
    with pytest.raises(InvalidArgument, match=message):
        jax.eval_shape(UNet(**SMALL | arguments).init, KEY, jnp.zeros((1, 8, 8, 1)), jnp.zeros((1,)))


def test_block_types_set_each_level_on_each_way():
    types = {"down_block_types": ("AttnDownBlock2D", "DownBlock2D"), "up_block_types": ("AttnUpBlock2D", "UpBlock2D")}
    shapes = jax.eval_shape(UNet(**SMALL | types).init, KEY, jnp.zeros((1, 8, 8, 1)), jnp.zeros((1,)))["params"]
    attended = {name for name in shapes if name.endswith("attention")}
    assert attended == {"middle_attention", "down0_0_attention", "up1_0_attention", "up1_1_attention"}


def test_sinusoidal_embedding_of_ddpm():
    out = sinusoidal_embedding(jnp.array([7.0]), 6, flip_sin_to_cos=False, freq_shift=1)
    angles = 7.0 * 10_000.0 ** (-np.arange(3) / 2)
    np.testing.assert_allclose(out[0], np.concatenate([np.sin(angles), np.cos(angles)]), rtol=1e-5)
