"""Convolutions in loops: JAX's values and derivatives, in the one layout that XLA's CPU compiler is fast in."""

import re

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

from advdiff_jax.networks.convolution import Conv, conv_general_dilated
from advdiff_jax.networks.unet import UNet
from tests.networks.params import SMALL, random_params

LAYOUT = ("NHWC", "HWIO", "NHWC")


def images(channels: int = 4, dtype=jnp.float32) -> jax.Array:
    return jax.random.normal(jax.random.key(0), (2, 8, 6, channels), dtype)


def of_kernel(side: int, dtype=jnp.float32, deep: int = 4) -> jax.Array:
    return jax.random.normal(jax.random.key(1), (side, side, deep, 6), dtype)


def layouts(fun, *args) -> set[str]:
    """Returns the layouts of the convolutions in the compiled program of ten rounds of `fun` in a loop."""

    def loop(*args):
        return jax.lax.scan(
            lambda carry, _: (jax.tree.map(lambda a, b: a + 1e-3 * b, carry, fun(*carry)), None), args, length=10
        )[0]

    return set(re.findall(r"convolution\(.*dim_labels=(\S+?)[, ]", jax.jit(loop).lower(*args).compile().as_text()))


@pytest.mark.parametrize(
    "options",
    [
        {"window_strides": (1, 1), "padding": ((1, 1), (1, 1))},
        {"window_strides": (2, 2), "padding": ((0, 1), (0, 1))},
        {"window_strides": (1, 2), "padding": "VALID", "rhs_dilation": (2, 1)},
        {"window_strides": (1, 1), "padding": "SAME", "feature_group_count": 2},
    ],
)
def test_it_has_the_derivatives_of_lax(options):
    x, kernel = images(), of_kernel(3, deep=4 // options.get("feature_group_count", 1))

    def everything(conv, x, kernel):
        def f(x, kernel):
            return conv(x, kernel, dimension_numbers=LAYOUT, **options)

        def first(x, kernel):
            return jax.vjp(f, x, kernel)[1](jnp.sin(f(x, kernel)))

        return {
            "value": f(x, kernel),
            "gradients": first(x, kernel),
            "tangents": jax.jvp(f, (x, kernel), (jnp.cos(x), jnp.cos(kernel))),
            "forward over reverse": jax.jvp(first, (x, kernel), (jnp.cos(x), jnp.cos(kernel))),
            "reverse over forward": jax.grad(lambda x, k: jnp.sum(jax.jvp(f, (x, k), (x, k))[1] ** 2), (0, 1))(x, kernel),
            "per example": jax.vmap(lambda x: first(x[None], kernel))(x),
            "per kernel": jax.vmap(lambda k: f(x, k), 3, -1)(jnp.stack([kernel, 2 * kernel], axis=3)),
            "checkpoint": jax.grad(jax.checkpoint(lambda x: jnp.sum(f(x, kernel) ** 2)))(x),
        }

    ours, lax = (everything(conv, x, kernel) for conv in (conv_general_dilated, jax.lax.conv_general_dilated))
    chex.assert_trees_all_close(ours, lax, rtol=2e-5, atol=2e-4)
    chex.assert_trees_all_close(
        jax.jit(everything, static_argnums=0)(conv_general_dilated, x, kernel), lax, rtol=2e-5, atol=2e-4
    )


def test_a_dtype_is_kept():
    x, kernel = images(dtype=jnp.bfloat16), of_kernel(3, jnp.bfloat16)

    def gradients(conv):
        return jax.grad(lambda x, k: jnp.sum(conv(x, k, (1, 1), "SAME", dimension_numbers=LAYOUT)), (0, 1))(x, kernel)

    chex.assert_trees_all_equal_dtypes(gradients(conv_general_dilated), gradients(jax.lax.conv_general_dilated))


def test_what_are_no_images_go_to_lax():
    layer, x = Conv(6, (3,)), jax.random.normal(jax.random.key(0), (2, 9, 4))
    params = layer.init(jax.random.key(1), x)
    chex.assert_trees_all_close(jax.jit(layer.apply)(params, x), nn.Conv(6, (3,)).apply(params, x), rtol=1e-5)


def test_errors_are_those_of_lax():
    with pytest.raises(ValueError, match="feature dimension"):
        conv_general_dilated(images(3), of_kernel(3), (1, 1), "SAME", dimension_numbers=LAYOUT)


def test_in_a_loop_every_convolution_has_the_fast_layout():
    x, kernel = images(), of_kernel(3)

    def gradients(conv):
        return lambda x, k: jax.grad(lambda x, k: jnp.sum(conv(x, k, (2, 2), "SAME", dimension_numbers=LAYOUT) ** 2), (0, 1))(
            x, k
        )

    assert layouts(gradients(conv_general_dilated), x, kernel) == {"b01f_01io->b01f"}
    assert (
        len(layouts(gradients(jax.lax.conv_general_dilated), x, kernel)) > 1
    )  # else there is nothing to mend: delete the module


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_accelerators_get_the_convolutions_of_lax(platform):
    def convolutions(conv):
        f = jax.grad(lambda x, k: jnp.sum(conv(x, k, (2, 2), "SAME", dimension_numbers=LAYOUT) ** 2), (0, 1))
        text = jax.jit(f).trace(images(), of_kernel(3)).lower(lowering_platforms=(platform,)).as_text()
        return re.findall(r"dim_numbers = .*?window = \{.*?\}", text)

    assert len(convolutions(conv_general_dilated)) == 3
    assert convolutions(conv_general_dilated) == convolutions(jax.lax.conv_general_dilated)


@pytest.mark.parametrize("options", [{}, {"downsample_type": "resnet", "upsample_type": "resnet"}])
def test_so_has_a_unet_in_its_second_derivatives(options):
    net, x = UNet(**SMALL, **options), jax.random.normal(jax.random.key(0), (2, 8, 8, 1))
    params = random_params(net, x)

    def loss(params, x):
        value, slope = jax.jvp(lambda x: net.apply(params, x, jnp.ones(2)), (x,), (x,))
        return jnp.sum(value**2) + jnp.sum(slope**2)

    assert layouts(jax.grad(loss, (0, 1)), params, x) == {"b01f_01io->b01f"}


def test_the_layer_is_flax_with_the_same_parameters():
    x = images()
    ours, flax = (layer(6, (3, 3), (2, 2)) for layer in (Conv, nn.Conv))
    params = flax.init(jax.random.key(0), x)
    chex.assert_trees_all_equal(params, ours.init(jax.random.key(0), x))
    chex.assert_trees_all_close(ours.apply(params, x), flax.apply(params, x), rtol=1e-5)
