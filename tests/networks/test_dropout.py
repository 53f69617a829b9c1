"""Dropout: its rate, and one mask per example, drawn from the example's own key."""

import types

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from advdiff_jax import rng
from advdiff_jax.builders import experiment
from advdiff_jax.builders.validate import resolve
from advdiff_jax.diffusion.parameterization import PARAMETERIZATIONS
from advdiff_jax.diffusion.schedules import VPLinear
from advdiff_jax.networks.unet import UNet
from advdiff_jax.objectives.denoising import denoising
from advdiff_jax.training import state
from advdiff_jax.training.step import make_train_step
from configs import digits
from tests.networks.params import KEY, SMALL, random_params

RATE = 0.3


def test_the_share_of_zeroed_activations_is_the_rate():
    x, t = jax.random.normal(KEY, (4, 8, 8, 1)), jnp.full(4, 0.5)
    network = UNet(**SMALL, dropout=RATE)
    params, is_dropout = random_params(network, x), lambda module, name: isinstance(module, nn.Dropout)

    def after_dropout(train):
        rngs = {"dropout": jax.random.key(1)}
        return network.apply(params, x, t, train, rngs=rngs, capture_intermediates=is_dropout)[1]["intermediates"]

    dropped, kept = jax.jit(lambda: (after_dropout(True), after_dropout(False)))()
    blocks = jax.tree.leaves(dropped)
    assert len(blocks) == 8  # 2 on the way down, 2 in the middle, 4 on the way up
    for block in blocks:
        assert float(jnp.mean(block == 0.0)) == pytest.approx(RATE, abs=4 * np.sqrt(RATE * (1 - RATE) / block.size))
    for block in jax.tree.leaves(kept):
        assert jnp.all(block != 0.0)
    first, plain = (jax.tree.leaves(tree["down0_0"])[0] for tree in (dropped, kept))
    np.testing.assert_allclose(first, jnp.where(first == 0.0, 0.0, plain / (1.0 - RATE)), rtol=1e-4)


@pytest.fixture(scope="module")
def network():
    """Builds the network of a config with dropout, as train steps apply it, and inputs x [6, 8, 8, 1] and t [6]."""
    config, applied = digits.get_config("ddpm"), []
    config.network.update({"dropout": RATE, "base_channels": 8, "channel_mults": (1,), "attention_resolutions": ()})

    def keep_apply(apply, **rest):
        applied.append(apply)
        return make_train_step(apply=apply, **rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(experiment, "make_train_step", keep_apply)
        built = experiment.build_experiment(resolve(config), (8, 8, 1))
    rng, shapes = np.random.default_rng(0), jax.eval_shape(built.init, KEY)
    params = jax.tree.map(lambda leaf: 0.3 * rng.standard_normal(leaf.shape, leaf.dtype), shapes)
    x, t = jax.random.normal(KEY, (6, 8, 8, 1)), jnp.linspace(0.1, 0.9, 6)
    return types.SimpleNamespace(x=x, t=t, params=params, apply=jax.jit(applied[0]))


def test_masks_differ_between_examples_unless_their_keys_are_equal(network):
    x, t = jnp.broadcast_to(network.x[0], network.x.shape), jnp.full(6, 0.5)
    seeds = np.array([0, 1, 2, 0, 1, 0])
    out = network.apply(network.params, x, t, jax.vmap(jax.random.key)(seeds))
    apart = jnp.max(jnp.abs(out[:, None] - out[None]), axis=(2, 3, 4))
    equal = seeds[:, None] == seeds[None]
    assert np.min(apart[~equal]) > 0.1
    np.testing.assert_array_equal(apart[equal], 0.0)


def test_an_examples_mask_does_not_depend_on_its_batch(network):
    keys, rows = jax.random.split(jax.random.key(1), 6), np.array([4, 1])
    whole = network.apply(network.params, network.x, network.t, keys)
    part = network.apply(network.params, network.x[rows], network.t[rows], keys[rows])
    np.testing.assert_allclose(part, whole[rows], rtol=1e-4, atol=1e-4)
    other = network.apply(network.params, network.x[rows], network.t[rows], keys[:2])
    assert jnp.max(jnp.abs(other - part)) > 0.1


def test_the_noise_floor_is_measured_without_dropout():
    """A network of zero has the error of the noise itself, 1 on average; one whose dropout adds noise has more."""
    keys, optimizer, schedule = jax.random.split(jax.random.key(2), 64), optax.sgd(0.1), VPLinear()
    noisy = lambda params, x, t, dropout_keys: params * x + 3.0 * rng.normal(dropout_keys, x)
    plain = lambda params, x, t, dropout_keys=None: params * x
    objective = denoising(schedule, PARAMETERIZATIONS["eps"])

    def measured(apply, evaluate):
        step = make_train_step(apply, lambda state: objective, schedule, optimizer, 0.0, measure_until=1, evaluate=evaluate)
        fresh = state.create(jnp.float32(0.0), optimizer)
        return step(fresh, keys, {"examples": jnp.ones((64, 2))})[0].noise_floor.error

    np.testing.assert_allclose(measured(noisy, plain), measured(plain, None), rtol=1e-6)
    assert jnp.sum(measured(noisy, None)) > 5.0 * jnp.sum(measured(plain, None))


def test_a_step_gives_each_example_one_mask_in_all_calls_of_the_network():
    """An objective calls the network twice on the batch, and once on some `rows` of it, as `subsample` does."""
    keys, rows = jax.random.split(jax.random.key(2), 6), jnp.array([4, 1, 1])

    def apply(params, x, t, dropout_keys):
        return params * jax.vmap(jax.random.uniform)(dropout_keys)  # the mask of an example

    def objective(predict, objective_keys, x0, t):
        first, second, part = predict(x0, t), predict(2.0 * x0, t), predict(x0[rows], t[rows], rows=rows)
        errors = {"repeated": jnp.abs(second - first), "rows": jnp.abs(part - first[rows])}
        return first, errors | {"spread": jnp.std(first)}

    optimizer = optax.sgd(0.1)
    step = make_train_step(apply, lambda state: objective, VPLinear(), optimizer, ema_decay=0.0)
    _, metrics = step(state.create(jnp.float32(1.0), optimizer), keys, {"examples": jnp.zeros((6, 2))})
    assert (metrics["repeated"], metrics["rows"]) == (0.0, 0.0)
    assert metrics["spread"] > 0.1
