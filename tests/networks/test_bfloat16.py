"""bfloat16 is the dtype of activations alone: parameters, averages, losses, statistics of norms and times keep float32."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from advdiff_jax.builders.data import build_data
from advdiff_jax.builders.experiment import build_experiment
from advdiff_jax.builders.validate import resolve
from advdiff_jax.networks.layers import Norms, group_norm
from advdiff_jax.networks.mlp import MLP
from advdiff_jax.networks.unet import UNet
from advdiff_jax.training import parallel, state
from configs import plane3d
from tests.networks.params import KEY, SMALL, random_params


class Norm(nn.Module):
    @nn.compact
    def __call__(self, x):
        return group_norm(x, Norms(), jnp.bfloat16, "norm")


def test_statistics_of_a_norm_are_not_rounded():
    """Values around 100 have a spacing of 0.5 in bfloat16; a mean or a variance rounded so would leave a std far from 1."""
    x = (100.0 + jax.random.normal(KEY, (1, 32, 32, 8))).astype(jnp.bfloat16)
    y = Norm().apply(Norm().init(KEY, x), x)
    assert y.dtype == jnp.bfloat16
    exact = np.asarray(x, np.float64).reshape(-1, 2, 4)
    exact = (exact - exact.mean((0, 2), keepdims=True)) / exact.std((0, 2), keepdims=True)
    np.testing.assert_allclose(np.asarray(y, np.float64).reshape(-1, 2, 4), exact, rtol=2**-8, atol=2e-3)


@pytest.mark.parametrize(
    ("network", "shape", "name"),
    [(UNet(**SMALL, dtype=jnp.bfloat16), (8, 8, 1), "time_1"), (MLP(dtype=jnp.bfloat16), (3,), "time")],
)
def test_times_are_embedded_in_float32_and_all_else_is_in_bfloat16(network, shape, name):
    x, t = jnp.zeros((2, *shape)), jnp.array([0.5, 0.501])
    params = random_params(network, x)
    seen, exact = (
        jax.jit(functools.partial(one.apply, capture_intermediates=True))(params, x, t)[1]["intermediates"]
        for one in (network, network.clone(dtype=jnp.float32))
    )
    dtypes = {path[0].key: leaf.dtype for path, leaf in jax.tree_util.tree_leaves_with_path(seen)}
    rest = {key for key in dtypes if not key.startswith(("time", "__call__"))} - {"norm_out", "conv_out", "out"}
    assert {dtypes[key] for key in rest} == {jnp.dtype(jnp.bfloat16)}
    np.testing.assert_array_equal(seen[name]["__call__"][0], exact[name]["__call__"][0])


def drawn(shapes):
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: 0.2 * rng.standard_normal(leaf.shape, leaf.dtype), shapes)


def test_a_step_in_bfloat16_has_the_losses_of_float32_within_two_percent():
    losses = {}
    for dtype in ("float32", "bfloat16"):
        config = plane3d.get_config("robust_ran")
        config.network.update({"width": 32, "dtype": dtype})
        config.train.update({"batch_size": 256, "warmup_steps": 0})
        experiment, data = build_experiment(resolve(config), (3,)), build_data(resolve(config))
        run = parallel.replicate(state.create(drawn(jax.eval_shape(experiment.init, KEY)), experiment.optimizer))
        batch = {"examples": jnp.asarray(data.train[:256]).reshape(8, 32, 3)}
        run, metrics = parallel.parallel_train_step(experiment.steps[True])(run, jax.random.key(1), batch)
        assert {leaf.dtype for leaf in jax.tree.leaves((run, metrics))} == {jnp.dtype("float32"), jnp.dtype("int32")}
        losses[dtype] = {name: float(value[0]) for name, value in metrics.items()}
    assert losses["bfloat16"] != losses["float32"]
    for name, value in losses["float32"].items():
        assert losses["bfloat16"][name] == pytest.approx(value, rel=0.02), name
