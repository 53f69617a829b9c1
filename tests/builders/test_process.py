"""Configs that name a process, a prediction or a sampler: each trains a step and draws; mistakes end in one line."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from advdiff_jax.builders import process as builders
from advdiff_jax.builders.experiment import build_experiment
from advdiff_jax.builders.validate import resolve
from advdiff_jax.errors import UserError
from advdiff_jax.sampling.sample import prior
from advdiff_jax.training import parallel, state
from configs import plane3d

TINY = {"network.width": 8, "network.depth": 1, "train.batch_size": 16, "sampling.steps": 4, "sampling.batch_size": 2}
CONTINUOUS = {"diffusion.grid_steps": 0}
CASES = [
    ("robust_ran", CONTINUOUS | {"diffusion.schedule": "sub_vp", "diffusion.prediction": "x0"}),
    ("robust_adv_cutoff", CONTINUOUS | {"diffusion.schedule": "ve", "network.time_input": "log_noise"}),
    (
        "robust_adv",
        CONTINUOUS
        | {"diffusion.schedule": "edm", "diffusion.prediction": "edm", "network.time_input": "log_noise"}
        | {"sampling.method": "heun", "sampling.grid": "edm", "sampling.churn": 10.0},
    ),
    ("invariance", CONTINUOUS | {"diffusion.schedule": "flow", "diffusion.prediction": "flow", "sampling.method": "ode"}),
    ("robust_adv", {"diffusion.learn_variance": True, "sampling.variance": "learned", "sampling.grid": "respaced"}),
]


def config_of(variant, overrides):
    config = plane3d.get_config(variant)
    config.update_from_flattened_dict(TINY | overrides)
    return resolve(config)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"diffusion.grid_steps": 0}, r"grid_steps=0: schedule=vp_betas has no continuous time; set as many"),
        ({"diffusion.grid_steps": 5}, r"^config\.diffusion: betas has 4 values, and grid_steps=5: set as many"),
        (
            {"diffusion.schedule": "vp_linear", "diffusion.grid_steps": 0, "network.time_input": "ddpm_index"},
            r"time_input='ddpm_index' needs a discrete grid: set config\.diffusion\.grid_steps above 0",
        ),
    ],
)
def test_what_needs_a_grid_is_refused_without_it(overrides, message):
    given = {"diffusion.schedule": "vp_betas", "diffusion.betas": (0.1, 0.2, 0.3, 0.4), "diffusion.grid_steps": 4}
    with pytest.raises(UserError, match=message):
        builders.build_process(config_of("ddpm", given | overrides))


def test_given_betas_and_ddpms_index():
    given = {"diffusion.schedule": "vp_betas", "diffusion.betas": (0.1, 0.2, 0.3, 0.4), "diffusion.grid_steps": 4}
    process = builders.build_process(config_of("ddpm", given | {"network.time_input": "ddpm_index"}))
    times = jnp.arange(5) / 4
    abar = np.concatenate([[1.0], np.cumprod([0.9, 0.8, 0.7, 0.6])])
    np.testing.assert_allclose(process.schedule.alpha(times) ** 2, abar, rtol=1e-6)
    np.testing.assert_allclose(process.inputs(jnp.zeros((5, 3)), times)[1], [0, 0, 1, 2, 3], atol=1e-6)


@pytest.mark.parametrize(("variant", "overrides"), CASES)
def test_one_step_and_one_draw(variant, overrides):
    config = config_of(variant, overrides)
    experiment, process = build_experiment(config, (3,)), builders.build_process(config)
    # Not as initialised: an output layer of zeros predicts the same everywhere.
    params = jax.tree.map(lambda x: x + 0.1 * jax.random.normal(jax.random.key(3), x.shape), experiment.init(jax.random.key(0)))
    fresh = state.create(params, experiment.optimizer)
    # The update of Adam is as long as the learning rate, and that is 0 in the first step.
    fresh = fresh._replace(opt_state=jax.tree.map(lambda x: x + (x.dtype == jnp.int32), fresh.opt_state))
    one_device = jax.vmap(experiment.steps[True], axis_name=parallel.AXIS)
    keys, x0 = jax.random.split(jax.random.key(1), (1, 16)), jax.random.normal(jax.random.key(2), (1, 16, 3))
    after, metrics = jax.jit(one_device)(jax.tree.map(lambda leaf: leaf[None], fresh), keys, {"examples": x0})
    (step,), metrics = after.step, {name: float(value[0]) for name, value in metrics.items()}
    parts = sum(metrics.get(name, 0.0) for name in ("denoising", "variational", "penalty"))
    assert (int(step), metrics["loss"]) == (1, pytest.approx(parts, rel=1e-5))
    assert metrics["penalty"] > 0.0
    params = jax.tree.map(lambda leaf: leaf[0], after.params)
    moved = jax.tree.map(lambda a, b: float(jnp.max(jnp.abs(a - b))), params, fresh.params)
    assert max(jax.tree.leaves(moved)) == pytest.approx(config.train.learning_rate / config.train.warmup_steps, rel=0.5)

    solve = builders.build_sampler(config, process.schedule)
    start = prior(keys[0, :2], (3,), process.schedule.prior_std)
    samples = jax.jit(functools.partial(solve, experiment.model(params).denoise))(keys[0, :2], start)
    assert samples.shape == (2, 3)
    assert np.all(np.isfinite(samples))
    assert float(jnp.max(jnp.abs(samples[0] - samples[1]))) > 1e-3


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"diffusion.schedule": "edm"}, r"config\.diffusion\.grid_steps=1000: schedule=edm has no discrete grid; set 0 for"),
        (
            {"sampling.variance": "learned"},
            r"config\.sampling\.variance='learned' needs config\.diffusion\.learn_variance=True",
        ),
        ({"sampling.variance": "medium"}, r"config\.sampling: variance"),
        (
            {"diffusion.learn_variance": True, "diffusion.grid_steps": 0},
            r"config\.diffusion\.learn_variance=True needs a discrete grid: set config\.diffusion\.grid_steps above 0",
        ),
        (
            {"sampling.grid": "respaced", "diffusion.grid_steps": 0},
            r"config\.sampling\.grid='respaced' needs a discrete grid: set config\.diffusion\.grid_steps above 0",
        ),
        ({"sampling.grid": "respaced", "sampling.respacing": "ddim999"}, r"config\.sampling: .*'ddim999'"),
        ({"sampling.steps": 1001}, r"config\.sampling: num_steps=1001 must be in \[1, 1000\]"),
    ],
)
def test_mistakes_are_the_users(overrides, message):
    with pytest.raises(UserError, match=message):
        build_experiment(config_of("ddpm", overrides), (3,))


def test_a_guess_is_sampled_from_no_lower_than_it_was_trained():
    config = config_of("ambient_guess", {"data.noise_std": 0.2, "baselines.guess": 0.5, "sampling.steps": 250})
    schedule = builders.build_schedule(config)
    times = builders.build_times(config, schedule, lowest_noise=1.05 * 0.5 * 0.2)
    levels = np.asarray(schedule.noise_to_signal(times))
    assert levels[-1] == 0.0
    assert 0.105 < levels[-2] < 0.12
    every = builders.build_times(config, schedule)
    np.testing.assert_array_equal(times[:-1], every[: len(times) - 1])
    with pytest.raises(UserError, match=r"sampling\.method='ode' integrates down to t = 0, .*: set a method with a grid"):
        build_experiment(config_of("ambient_guess", {"sampling.method": "ode"}), (3,))
