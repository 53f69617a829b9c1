"""Config -> the process, what is predicted in it, and the sampler: the dictionaries of `diffusion` and `sampling`."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import ml_collections
import numpy as np

from advdiff_jax.builders_objectives import entry
from advdiff_jax.choices import choose, pick, refused
from advdiff_jax.diffusion import parameterization as predictions
from advdiff_jax.diffusion import schedules
from advdiff_jax.errors import UserError
from advdiff_jax.objectives.denoising import VarianceLoss, no_variance
from advdiff_jax.objectives.variational import variational
from advdiff_jax.sampling import grids, ode, steps
from advdiff_jax.sampling.sample import sample

SCHEDULES = {
    "vp_linear": lambda c: schedules.VPLinear(t_min=c.t_min, beta_min=c.beta_min, beta_max=c.beta_max),
    "vp_cosine": lambda c: schedules.VPCosine(t_min=c.t_min, offset=c.cosine_offset),
    "sub_vp": lambda c: schedules.SubVP(t_min=c.t_min, beta_min=c.beta_min, beta_max=c.beta_max),
    "ve": lambda c: schedules.VE(t_min=c.t_min, sigma_min=c.ve_sigma_min, sigma_max=c.ve_sigma_max),
    "edm": lambda c: schedules.EDM(
        sigma_min=c.edm_sigma_min, sigma_max=c.edm_sigma_max, log_mean=c.edm_log_mean, log_std=c.edm_log_std
    ),
    "flow": lambda c: schedules.RectifiedFlow(t_min=c.t_min, min_alpha=c.flow_min_alpha),
}

# Those with DDPM's betas: the others have continuous time only.
GRIDDED = ("vp_linear", "vp_cosine")

PREDICTIONS = {name: lambda c, value=value: value for name, value in predictions.PARAMETERIZATIONS.items()} | {
    "edm": lambda c: predictions.edm(c.data_std)
}

GRIDS = {
    "uniform": lambda c, schedule, grid_steps: grids.ddpm(c.steps, grid_steps) if grid_steps else grids.uniform(c.steps),
    "log_snr": lambda c, schedule, grid_steps: grids.log_snr(c.steps, schedule),
    "edm": lambda c, schedule, grid_steps: grids.edm(c.steps, schedule, c.rho),
    "respaced": lambda c, schedule, grid_steps: grids.respaced(c.respacing, grid_steps),
}

STEPS = {
    "ddpm": lambda c, schedule, n: steps.ancestral(schedule, c.variance),
    "ddim": lambda c, schedule, n: steps.ddim(schedule, c.eta),
    "euler_maruyama": lambda c, schedule, n: steps.euler_maruyama(schedule),
    "predictor_corrector": lambda c, schedule, n: steps.predictor_corrector(
        schedule, steps.euler_maruyama(schedule), c.snr, c.corrections
    ),
    "euler": lambda c, schedule, n: _edm(c, schedule, n, order=1),
    "heun": lambda c, schedule, n: _edm(c, schedule, n, order=2),
    "dpm_solver_2m": lambda c, schedule, n: steps.dpm_solver_2m(schedule),
}


def _edm(c, schedule, num_steps, order):
    gamma = min(c.churn / num_steps, np.sqrt(2.0) - 1.0)
    return steps.edm(schedule, order, gamma, c.churn_min, c.churn_max, c.churn_noise)


def _on_grid(rule, config, schedule):
    times = build_times(config, schedule)
    step = rule(config.sampling, schedule, len(times) - 1)

    def solve(denoise, keys, x, trajectory=False):
        return sample(denoise, keys, x, times, step, trajectory)

    return solve


def _adaptive(config, schedule):
    c = config.sampling
    if entry(config).lowest(config):
        raise UserError(
            f"config.sampling.method='ode' goes down to t = 0, where {config.objective} learns nothing: take a grid"
        )

    def solve(denoise, keys, x, trajectory=False):
        del keys  # nothing is random but the start
        times = grids.uniform(c.steps) if trajectory else None
        return ode.sample(schedule, denoise, x, c.rtol, c.atol, times)

    return solve


SAMPLERS = {name: functools.partial(_on_grid, rule) for name, rule in STEPS.items()} | {"ode": _adaptive}


class Prediction(NamedTuple):
    """What the network predicts, what it sees, and the way to `denoise`.

    Attributes:
        parameterization: target and inverse.
        inputs: (x_t, t) -> the network's inputs.
        denoiser: (predict, clip=None) -> denoise(x, t), as samplers take it.
    """

    parameterization: predictions.Parameterization
    inputs: Callable[[jax.Array, jax.Array], tuple[jax.Array, jax.Array]]
    denoiser: Callable[..., Callable]


def build_schedule(config: ml_collections.ConfigDict) -> schedules.Schedule:
    """alpha and sigma; DDPM's discrete grid unless `diffusion.grid_steps` is 0."""
    continuous = choose(SCHEDULES, config, "diffusion.schedule")
    grid_steps = config.diffusion.grid_steps
    if not grid_steps:
        return continuous
    if config.diffusion.schedule not in GRIDDED:
        raise UserError(
            f"config.diffusion.grid_steps={grid_steps}: {config.diffusion.schedule} has no discrete grid "
            f"({' and '.join(GRIDDED)} have): set it to 0 for continuous time"
        )
    return schedules.DDPMGrid(continuous=continuous, num_steps=grid_steps, t_min=1.0 / grid_steps)


def build_prediction(config: ml_collections.ConfigDict, schedule: schedules.Schedule) -> Prediction:
    """The parameterisation that `diffusion.prediction` names, on a schedule."""
    parameterization = choose(PREDICTIONS, config, "diffusion.prediction")
    pick(predictions.TIME_INPUTS, config, "network.time_input")
    return Prediction(
        parameterization,
        predictions.inputs(schedule, parameterization, config.network.time_input),
        functools.partial(predictions.denoiser, schedule, parameterization),
    )


def build_variance_loss(
    config: ml_collections.ConfigDict, schedule: schedules.Schedule, parameterization: predictions.Parameterization
) -> VarianceLoss:
    """The term of a learnt variance; raises UserError where there is no discrete grid to learn it on."""
    c = config.diffusion
    if not c.learn_variance:
        return no_variance
    if not c.grid_steps:
        raise UserError("config.diffusion.learn_variance=True needs a discrete grid: set config.diffusion.grid_steps")
    with refused("config.diffusion"):
        return variational(schedule, parameterization, c.grid_steps, c.vlb_weight, c.vlb_bins)


def build_times(config: ml_collections.ConfigDict, schedule: schedules.Schedule) -> np.ndarray:
    """Times of the sampler, down to 0; with "uniform" a sub-sequence of DDPM's grid where there is one.

    Where the objective learns nothing below a noise level (`builders_objectives.Entry.lowest`) the times there are left out:
    the last step goes from the lowest time that was learnt to the estimate of x0.
    """
    grid_steps = config.diffusion.grid_steps
    if config.sampling.grid == "respaced" and not grid_steps:
        raise UserError("config.sampling.grid='respaced' needs a discrete grid: set config.diffusion.grid_steps")
    times = choose(GRIDS, config, "sampling.grid", schedule, grid_steps)
    lowest = entry(config).lowest(config)
    learnt = (times == 0.0) | (np.asarray(schedule.noise_to_signal(times)) > lowest) if lowest else times >= 0.0
    return times[learnt]


def build_sampler(config: ml_collections.ConfigDict, schedule: schedules.Schedule) -> Callable:
    """solve(denoise, keys [B], x_1 [B, ...], trajectory=False) -> samples, or all states [n + 1, B, ...].

    Raises:
        UserError: an unknown name, a value that cannot be, or a learnt variance that the network does not have.
    """
    learned = config.sampling.method == "ddpm" and config.sampling.variance == "learned"
    if learned and not config.diffusion.learn_variance:
        raise UserError(
            "config.sampling.variance='learned' needs a network that learns it: config.diffusion.learn_variance=True"
        )
    with refused("config.sampling"):
        return pick(SAMPLERS, config, "sampling.method")(config, schedule)
