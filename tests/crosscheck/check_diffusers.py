"""Compares our steps with diffusers' schedulers: the same prediction and noise must give the same state, to 1e-5.

Runs in an environment of its own (`make crosscheck`), because it needs torch. No weights are involved.
"""

import unittest.mock

import diffusers
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

import tests.crosscheck.without_kernels  # noqa: F401 - before what imports torchvision
from advdiff_jax import rng
from advdiff_jax.diffusion import schedules
from advdiff_jax.diffusion.parameterization import PARAMETERIZATIONS, denoiser, edm, inputs
from advdiff_jax.sampling import grids, steps
from advdiff_jax.sampling.sample import sample

GRID = schedules.DDPMGrid()
BATCH, SHAPE, COUNT = 4, (8, 8, 3), 50
KEYS = jax.random.split(jax.random.key(0), BATCH)
START = np.array(jax.random.normal(jax.random.key(1), (BATCH, *SHAPE)))
PREDICTION_TYPES = {"eps": "epsilon", "x0": "sample", "v": "v_prediction"}
BETAS = {"num_train_timesteps": 1000, "beta_start": 1e-4, "beta_end": 0.02, "beta_schedule": "linear"}
# Their index i is our time (i + 1) / 1000. "leading" indices 980, ..., 20, 0 are Improved-DDPM's "ddim50"; "trailing"
# 999, ..., 39, 19 are `grids.ddpm(50)`. Their DDPM adds noise in the last step unless that is index 0: leading for it.
LEADING, TRAILING = {**BETAS, "timestep_spacing": "leading"}, {**BETAS, "timestep_spacing": "trailing"}


def _predict(x, time, module):
    """A smooth stand-in for a network, in either library."""
    return 0.5 * module.tanh(x) + 0.2 * module.cos(3.0 * x + 5.0 * time)


def _first(x):
    return torch.from_numpy(np.moveaxis(x, -1, 1).copy())


def _last(x):
    return np.moveaxis(x.numpy(), 1, -1)


def _noise(step):
    """What `sample` draws at a step, as torch sees it."""
    keys = jax.vmap(lambda key: jax.random.fold_in(key, step))(KEYS)
    return _first(np.array(rng.normal(keys, jnp.asarray(START))))


def _ours(prediction, rule, times, variance=None):
    def predict(x, t):
        mean = _predict(x, t.reshape(-1, 1, 1, 1), jnp)
        return mean if variance is None else jnp.concatenate([mean, variance(x, jnp)], axis=-1)

    denoise = denoiser(GRID, PARAMETERIZATIONS[prediction], predict)
    return np.asarray(sample(denoise, KEYS, jnp.asarray(START), times, rule))


def _theirs(scheduler, count, module, variance=None, **arguments):
    """Runs a scheduler with its noise replaced by ours; channels lie first there."""
    scheduler.set_timesteps(count)
    x = _first(START)
    for step, index in enumerate(scheduler.timesteps):
        with unittest.mock.patch.object(module, "randn_tensor", return_value=_noise(step)):
            t = (float(index) + 1.0) / 1000.0
            prediction = _predict(x, t, torch)
            if variance is not None:
                prediction = torch.cat([prediction, variance(x, torch)], dim=1)
            x = scheduler.step(prediction, index, x, **arguments).prev_sample
    return _last(x)


def _assert_close(ours, theirs):
    np.testing.assert_allclose(ours, theirs, atol=1e-5 * max(1.0, np.abs(theirs).max()))


@pytest.mark.parametrize("variance", ["small", "large"])
@pytest.mark.parametrize("prediction", PREDICTION_TYPES)
def test_ddpm(prediction, variance):
    scheduler = diffusers.DDPMScheduler(
        **LEADING, variance_type=f"fixed_{variance}", clip_sample=False, prediction_type=PREDICTION_TYPES[prediction]
    )
    theirs = _theirs(scheduler, COUNT, diffusers.schedulers.scheduling_ddpm)
    ours = _ours(prediction, steps.ancestral(GRID, variance), grids.respaced("ddim50", 1000))
    _assert_close(ours, theirs)


def test_ddpm_with_a_learnt_variance():
    def raw(x, module):
        return 0.9 * module.sin(2.0 * x)

    scheduler = diffusers.DDPMScheduler(**LEADING, variance_type="learned_range", clip_sample=False)
    theirs = _theirs(scheduler, COUNT, diffusers.schedulers.scheduling_ddpm, variance=raw)
    ours = _ours("eps", steps.ancestral(GRID, "learned"), grids.respaced("ddim50", 1000), variance=raw)
    _assert_close(ours, theirs)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("prediction", PREDICTION_TYPES)
def test_ddim(prediction, eta):
    scheduler = diffusers.DDIMScheduler(
        **TRAILING, clip_sample=False, set_alpha_to_one=True, prediction_type=PREDICTION_TYPES[prediction]
    )
    theirs = _theirs(scheduler, COUNT, diffusers.schedulers.scheduling_ddim, eta=eta)
    _assert_close(_ours(prediction, steps.ddim(GRID, eta), grids.ddpm(COUNT, 1000)), theirs)


@pytest.mark.parametrize("solver", ["euler", "dpm_solver_2m"])
def test_edm(solver):
    """Preconditioning, the rho grid and the rule at once: a raw network inside EDM's D(x; sigma)."""
    theirs_by = {
        "euler": diffusers.EDMEulerScheduler(sigma_min=0.002, sigma_max=80.0, sigma_data=0.5, rho=7.0),
        "dpm_solver_2m": diffusers.EDMDPMSolverMultistepScheduler(
            sigma_min=0.002, sigma_max=80.0, sigma_data=0.5, rho=7.0, solver_order=2, final_sigmas_type="zero"
        ),
    }
    scheduler, count = theirs_by[solver], 18
    scheduler.set_timesteps(count)
    x = 80.0 * _first(START)
    for time in scheduler.timesteps:
        x = scheduler.step(_predict(scheduler.scale_model_input(x, time), time, torch), time, x).prev_sample

    schedule, preconditioning = schedules.EDM(), edm(0.5)
    feed = inputs(schedule, preconditioning, "log_noise")

    def predict(x, t):
        state, time = feed(x, t)
        return _predict(state, time.reshape(-1, 1, 1, 1), jnp)

    rule = {"euler": steps.edm(schedule, order=1), "dpm_solver_2m": steps.dpm_solver_2m(schedule)}[solver]
    denoise = denoiser(schedule, preconditioning, predict)
    ours = sample(denoise, KEYS, 80.0 * jnp.asarray(START), grids.edm(count, schedule), rule)
    _assert_close(np.asarray(ours), _last(x))
