"""Config -> the process, what is predicted in it, and the sampler: the registries of `diffusion` and `sampling`."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import ml_collections
import numpy as np

from advdiff_jax.builders.registry import Choice, as_user_error, build, lookup
from advdiff_jax.diffusion import parameterization as predictions
from advdiff_jax.diffusion import schedules
from advdiff_jax.errors import UserError
from advdiff_jax.sampling import grids, ode, steps
from advdiff_jax.sampling.sample import sample


class ScheduleSpec(NamedTuple):
    """What is known of a name of `config.diffusion.schedule`.

    Attributes:
        build: section `diffusion` of a config -> the schedule in continuous time.
        reads: keys of the config that it reads and other schedules may not.
        has_grid: it has DDPM's discrete grid.
        is_continuous: it has continuous time.
    """

    build: Callable[[ml_collections.ConfigDict], schedules.Schedule | schedules.GivenBetas]
    reads: tuple[str, ...]
    has_grid: bool = False
    is_continuous: bool = True


SCHEDULES = {
    "vp_linear": ScheduleSpec(
        lambda c: schedules.VPLinear(t_min=c.t_min, beta_min=c.beta_min, beta_max=c.beta_max),
        reads=("diffusion.t_min", "diffusion.beta_min", "diffusion.beta_max"),
        has_grid=True,
    ),
    "vp_cosine": ScheduleSpec(
        lambda c: schedules.VPCosine(t_min=c.t_min, offset=c.cosine_offset),
        reads=("diffusion.t_min", "diffusion.cosine_offset"),
        has_grid=True,
    ),
    "vp_betas": ScheduleSpec(
        lambda c: schedules.GivenBetas(values=tuple(c.betas)), reads=("diffusion.betas",), has_grid=True, is_continuous=False
    ),
    "sub_vp": ScheduleSpec(
        lambda c: schedules.SubVP(t_min=c.t_min, beta_min=c.beta_min, beta_max=c.beta_max),
        reads=("diffusion.t_min", "diffusion.beta_min", "diffusion.beta_max"),
    ),
    "ve": ScheduleSpec(
        lambda c: schedules.VE(t_min=c.t_min, sigma_min=c.ve_sigma_min, sigma_max=c.ve_sigma_max),
        reads=("diffusion.t_min", "diffusion.ve_sigma_min", "diffusion.ve_sigma_max"),
    ),
    "edm": ScheduleSpec(
        lambda c: schedules.EDM(
            sigma_min=c.edm_sigma_min, sigma_max=c.edm_sigma_max, log_mean=c.edm_log_mean, log_std=c.edm_log_std
        ),
        reads=tuple(f"diffusion.edm_{key}" for key in ("sigma_min", "sigma_max", "log_mean", "log_std")),
    ),
    "flow": ScheduleSpec(
        lambda c: schedules.RectifiedFlow(t_min=c.t_min, min_alpha=c.flow_min_alpha),
        reads=("diffusion.t_min", "diffusion.flow_min_alpha"),
    ),
}

PREDICTIONS = {name: Choice(lambda c, value=value: value) for name, value in predictions.PARAMETERIZATIONS.items()} | {
    "edm": Choice(lambda c: predictions.edm(c.data_std), reads=("diffusion.data_std",))
}

TIME_INPUTS = {name: Choice(lambda c, value=value: value) for name, value in predictions.TIME_INPUTS.items()}

GRIDS = {
    "uniform": Choice(
        lambda c, schedule, grid_steps: grids.ddpm(c.steps, grid_steps) if grid_steps else grids.uniform(c.steps),
        reads=("sampling.steps",),
    ),
    "log_snr": Choice(lambda c, schedule, grid_steps: grids.log_snr(c.steps, schedule), reads=("sampling.steps",)),
    "edm": Choice(
        lambda c, schedule, grid_steps: grids.edm(c.steps, schedule, c.rho), reads=("sampling.steps", "sampling.rho")
    ),
    "respaced": Choice(lambda c, schedule, grid_steps: grids.respaced(c.respacing, grid_steps), reads=("sampling.respacing",)),
}


class SamplerSpec(NamedTuple):
    """What is known of a name of `config.sampling.method`.

    Attributes:
        build: (section `sampling` of a config, schedule, () -> times [n + 1]) -> solve(denoise, keys [B], x_1 [B, ...])
            -> samples [B, ...].
        reads: keys of the config that it reads and other samplers may not.
        stochastic: section `sampling` -> whether it draws noise.
        linear: a linear denoiser makes its samples linear in x_1 and the noise, so `--mode=gain` has a curve for it.
        evaluations: (section `sampling`, number of steps) -> network evaluations per sample; None: an adaptive solver's.
    """

    build: Callable[..., Callable]
    reads: tuple[str, ...]
    stochastic: Callable[[ml_collections.ConfigDict], bool]
    linear: bool = True
    evaluations: Callable[[ml_collections.ConfigDict, int], int] | None = None


def on_grid(
    rule: Callable,
    stochastic: Callable,
    reads: tuple[str, ...] = (),
    linear: bool = True,
    evaluations: Callable = lambda c, n: n,
) -> SamplerSpec:
    """Builds the spec of a step rule on the grid of the config: rule(section, schedule, number of steps) -> `steps.Step`."""

    def build(c, schedule, times):
        found = times()
        return functools.partial(sample, times=found, step=rule(c, schedule, len(found) - 1))

    return SamplerSpec(build, ("sampling.grid", *reads), stochastic, linear, evaluations)


def _edm(c, schedule, num_steps, order):
    gamma = min(c.churn / num_steps, np.sqrt(2.0) - 1.0)
    return steps.edm(schedule, order, gamma, c.churn_min, c.churn_max, c.churn_noise)


def _ode(c, schedule, times):
    del times  # chooses its own
    return lambda denoise, keys, x: ode.sample(schedule, denoise, x, c.rtol, c.atol)


_CHURN = tuple(f"sampling.{key}" for key in ("churn", "churn_min", "churn_max", "churn_noise"))

SAMPLERS = {
    "ddpm": on_grid(lambda c, schedule, n: steps.ancestral(schedule, c.variance), lambda c: True, reads=("sampling.variance",)),
    "ddim": on_grid(lambda c, schedule, n: steps.ddim(schedule, c.eta), lambda c: c.eta > 0, reads=("sampling.eta",)),
    "euler_maruyama": on_grid(lambda c, schedule, n: steps.euler_maruyama(schedule), lambda c: True),
    "predictor_corrector": on_grid(
        lambda c, schedule, n: steps.predictor_corrector(schedule, steps.euler_maruyama(schedule), c.snr, c.corrections),
        lambda c: True,
        reads=("sampling.snr", "sampling.corrections"),
        linear=False,  # the length of a correction depends on the state
        evaluations=lambda c, n: n * (1 + c.corrections),
    ),
    "euler": on_grid(functools.partial(_edm, order=1), lambda c: c.churn > 0, reads=_CHURN),
    "heun": on_grid(
        functools.partial(_edm, order=2),
        lambda c: c.churn > 0,
        reads=_CHURN,
        evaluations=lambda c, n: 2 * n - 1,  # the last step is Euler's
    ),
    "dpm_solver_2m": on_grid(lambda c, schedule, n: steps.dpm_solver_2m(schedule), lambda c: False),
    "ode": SamplerSpec(_ode, ("sampling.rtol", "sampling.atol"), lambda c: False),
}


class Process(NamedTuple):
    """The process of a config and what the network predicts in it.

    Attributes:
        schedule: alpha and sigma.
        parameterization: target and inverse.
        inputs: (x_t, t) -> the network's inputs.
    """

    schedule: schedules.Schedule
    parameterization: predictions.Parameterization
    inputs: Callable[[jax.Array, jax.Array], tuple[jax.Array, jax.Array]]

    def denoiser(self, predict: Callable, clip: float | None = None) -> Callable:
        """Builds denoise(x, t), as samplers take it, from predict(x, t); see `parameterization.denoiser`."""
        return predictions.denoiser(self.schedule, self.parameterization, predict, clip)


def build_schedule(config: ml_collections.ConfigDict) -> schedules.Schedule:
    """Builds alpha and sigma: on DDPM's discrete grid unless `diffusion.grid_steps` is 0."""
    continuous, spec = build(SCHEDULES, config, "diffusion.schedule"), SCHEDULES[config.diffusion.schedule]
    grid_steps = config.diffusion.grid_steps
    if not grid_steps and not spec.is_continuous:
        raise UserError(
            f"config.diffusion.grid_steps=0: schedule={config.diffusion.schedule} has no continuous time; set as many as "
            "it has betas"
        )
    if not grid_steps:
        return continuous
    if not spec.has_grid:
        gridded = [name for name, spec in SCHEDULES.items() if spec.has_grid]
        raise UserError(
            f"config.diffusion.grid_steps={grid_steps}: schedule={config.diffusion.schedule} has no discrete grid; set 0 for "
            f"continuous time, or schedule to {' or '.join(gridded)}"
        )
    with as_user_error("config.diffusion"):
        continuous.betas(grid_steps)  # refuses a wrong number now
    return schedules.DDPMGrid(continuous=continuous, num_steps=grid_steps, t_min=1.0 / grid_steps)


def build_process(config: ml_collections.ConfigDict) -> Process:
    """Builds the schedule, and the parameterisation that `diffusion.prediction` names on it."""
    schedule, parameterization = build_schedule(config), build(PREDICTIONS, config, "diffusion.prediction")
    lookup(TIME_INPUTS, config, "network.time_input")
    if config.network.time_input == "ddpm_index" and not config.diffusion.grid_steps:
        raise UserError("config.network.time_input='ddpm_index' needs a discrete grid: set config.diffusion.grid_steps above 0")
    return Process(schedule, parameterization, predictions.inputs(schedule, parameterization, config.network.time_input))


def build_times(config: ml_collections.ConfigDict, schedule: schedules.Schedule, lowest_noise: float = 0.0) -> np.ndarray:
    """Builds the times of the sampler, down to 0; grid "uniform" takes a sub-sequence of DDPM's grid, if the process has it.

    Args:
        config: reads `diffusion.grid_steps` and `sampling`.
        schedule: alpha and sigma.
        lowest_noise: noise-to-signal below which the model learns nothing. Times there are left out: the last step goes
            from the lowest learnt time to the estimate of x0.
    """
    grid_steps = config.diffusion.grid_steps
    if config.sampling.grid == "respaced" and not grid_steps:
        raise UserError("config.sampling.grid='respaced' needs a discrete grid: set config.diffusion.grid_steps above 0")
    times = build(GRIDS, config, "sampling.grid", schedule, grid_steps)
    learnt = (times == 0.0) | (np.asarray(schedule.noise_to_signal(times)) > lowest_noise) if lowest_noise else times >= 0.0
    return times[learnt]


def build_sampler(config: ml_collections.ConfigDict, schedule: schedules.Schedule, lowest_noise: float = 0.0) -> Callable:
    """Builds solve(denoise, keys [B], x_1 [B, ...]) -> samples [B, ...]; arguments as for `build_times`.

    Raises:
        UserError: an unknown name, a bad value, or a learnt variance that the network does not have.
    """
    spec = lookup(SAMPLERS, config, "sampling.method")
    learned = "sampling.variance" in spec.reads and config.sampling.variance == "learned"
    if learned and not config.diffusion.learn_variance:
        raise UserError("config.sampling.variance='learned' needs config.diffusion.learn_variance=True")
    if lowest_noise and "sampling.grid" not in spec.reads:
        raise UserError(
            f"config.sampling.method={config.sampling.method!r} integrates down to t = 0, and the model learns nothing below "
            f"a noise-to-signal of {lowest_noise:.3g}: set a method with a grid, such as ddpm"
        )
    with as_user_error("config.sampling"):
        return spec.build(config.sampling, schedule, lambda: build_times(config, schedule, lowest_noise))
