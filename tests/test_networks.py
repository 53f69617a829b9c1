"""Networks: the published parameter count, shapes and dtypes, and what they depend on."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from advdiff_jax.networks.layers import sinusoidal_embedding
from advdiff_jax.networks.mlp import MLP
from advdiff_jax.networks.unet import UNet

KEY = jax.random.key(0)
SMALL = {"base_channels": 8, "channel_mults": (1, 2), "res_blocks": 1, "attention_resolutions": (4,), "heads": 2}


def randomised(network, x):
    """Parameters with no zeros left: the last layer of every block starts at zero and would hide what is inside."""
    params = jax.jit(network.init)(KEY, x, jnp.zeros((x.shape[0],)))["params"]
    leaves, structure = jax.tree.flatten(params)
    keys = jax.random.split(KEY, len(leaves))
    return structure.unflatten([leaf + 0.1 * jax.random.normal(k, leaf.shape) for k, leaf in zip(keys, leaves, strict=True)])


def test_ddpms_cifar10_network_has_its_35746307_parameters():
    network = UNet(128, (1, 2, 2, 2), 2, (16,), heads=1)
    params = jax.eval_shape(network.init, KEY, jnp.zeros((1, 32, 32, 3)), jnp.zeros((1,)))
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == 35_746_307


@pytest.mark.parametrize("scale_shift", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_unet(scale_shift, dtype):
    x = jax.random.normal(KEY, (3, 8, 8, 1))
    network = UNet(**SMALL, scale_shift=scale_shift, dtype=jnp.dtype(dtype))
    params = randomised(network, x)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    apply = jax.jit(network.apply)
    out = apply({"params": params}, x, jnp.full(3, 0.5))
    assert out.shape == x.shape
    assert out.dtype == jnp.float32
    later = apply({"params": params}, x, jnp.full(3, 0.6))
    assert jnp.max(jnp.abs(later - out)) > 1e-3
    if dtype == "bfloat16":
        full = jax.jit(UNet(**SMALL, scale_shift=scale_shift).apply)({"params": params}, x, jnp.full(3, 0.5))
        assert 0 < jnp.max(jnp.abs(full - out)) < 0.1 * jnp.max(jnp.abs(full))


def test_unet_starts_at_zero_and_examples_do_not_interact():
    x = jax.random.normal(KEY, (3, 8, 8, 1))
    network, t = UNet(**SMALL), jnp.array([0.1, 0.5, 0.9])
    apply = jax.jit(network.apply)
    np.testing.assert_array_equal(apply(jax.jit(network.init)(KEY, x, t), x, t), 0.0)
    params = {"params": randomised(network, x)}
    together = apply(params, x, t)
    alone = jnp.concatenate([apply(params, x[i : i + 1], t[i : i + 1]) for i in range(3)])
    np.testing.assert_allclose(together, alone, atol=1e-4)


def test_attention_sits_at_the_chosen_resolutions_only():
    shapes = lambda resolutions: jax.eval_shape(
        UNet(**{**SMALL, "attention_resolutions": resolutions}).init, KEY, jnp.zeros((1, 8, 8, 1)), jnp.zeros((1,))
    )["params"]
    names = lambda resolutions: {name for name in shapes(resolutions) if name.endswith("attention")}
    assert names(()) == {"middle_attention"}
    assert names((4,)) == {"middle_attention", "down1_0_attention", "up1_0_attention", "up1_1_attention"}


def test_dropout_is_random_in_training():
    x, t = jax.random.normal(KEY, (2, 8, 8, 1)), jnp.full(2, 0.5)
    network = UNet(**SMALL, dropout=0.5)
    params = {"params": randomised(network, x)}
    train = jax.jit(lambda seed: network.apply(params, x, t, train=True, rngs={"dropout": jax.random.key(seed)}))
    assert jnp.max(jnp.abs(train(0) - train(1))) > 1e-3


def test_unet_refuses_a_picture_it_cannot_halve():
    with pytest.raises(ValueError, match="9x9 cannot be halved 1 times"):
        UNet(**SMALL).init(KEY, jnp.zeros((1, 9, 9, 1)), jnp.zeros((1,)))


def test_mlp():
    x = jax.random.normal(KEY, (4, 3))
    network = MLP(width=16, depth=2, time_features=8)
    params = {"params": randomised(network, x)}
    apply = jax.jit(network.apply)
    out = apply(params, x, jnp.full(4, 0.5))
    assert out.shape == x.shape
    assert jnp.max(jnp.abs(apply(params, x, jnp.full(4, 0.6)) - out)) > 1e-3


def test_sinusoidal_embedding_is_the_transformers():
    out = sinusoidal_embedding(jnp.array([0.0, 7.0]), 6)
    frequencies = 10_000.0 ** (-np.arange(3) / 3)
    np.testing.assert_allclose(out[0], [1, 1, 1, 0, 0, 0])
    np.testing.assert_allclose(out[1], np.concatenate([np.cos(7 * frequencies), np.sin(7 * frequencies)]), rtol=1e-5)
