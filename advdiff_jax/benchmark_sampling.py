"""Samples per second of each sampler, each with the steps it is used with; called by `advdiff_jax.benchmark`."""

import time

import jax
import ml_collections

from advdiff_jax import builders, builders_process
from advdiff_jax.sampling.sample import prior
from configs import digits

# name -> overrides of config.sampling; the steps are those at which each is usually run.
SAMPLERS = {
    "ddpm_1000": {"method": "ddpm", "steps": 1000},
    "ddpm_100": {"method": "ddpm", "steps": 100},
    "ddim_50": {"method": "ddim", "steps": 50},
    "euler_maruyama_100": {"method": "euler_maruyama", "steps": 100},
    "predictor_corrector_100": {"method": "predictor_corrector", "steps": 100},
    "euler_50": {"method": "euler", "grid": "edm", "steps": 50},
    "heun_18": {"method": "heun", "grid": "edm", "steps": 18},
    "heun_churn_18": {"method": "heun", "grid": "edm", "steps": 18, "churn": 40.0},
    "dpm_solver_2m_20": {"method": "dpm_solver_2m", "grid": "log_snr", "steps": 20},
    "ode": {"method": "ode"},
}


def sampling_table(
    batch_size: int = 64,
    repeats: int = 3,
    samplers: dict[str, dict] = SAMPLERS,
    config: ml_collections.ConfigDict | None = None,
) -> dict[str, float]:
    """Samples per second of the digits U-Net (8x8x1) on one device, compilation not counted.

    Args:
        batch_size: pictures drawn at once.
        repeats: timed draws, of which the fastest counts.
        samplers: name -> overrides of `config.sampling`.
        config: another network for 8x8x1 pictures than that of `configs/digits.py`.

    Returns:
        {"samples_per_second_NAME": value}, in the order of `samplers`.
    """
    shape, table = (8, 8, 1), {}
    config = config or digits.get_config("ddpm")
    experiment = builders.build(config, shape)
    params = jax.jit(experiment.init)(jax.random.key(0))
    for name, overrides in samplers.items():
        one = config.copy_and_resolve_references()
        one.sampling.update(overrides)
        schedule = builders_process.build_schedule(one)
        table[f"samples_per_second_{name}"] = _rate(experiment.model(params), one, schedule, shape, batch_size, repeats)
    return table


def _rate(model, config, schedule, shape, batch_size, repeats):
    solve = builders_process.build_sampler(config, schedule)

    @jax.jit
    def draw(key):
        start_keys, step_keys = jax.random.split(key, (2, batch_size))
        return solve(model.denoise, step_keys, prior(start_keys, shape, schedule.prior_std))

    keys = jax.random.split(jax.random.key(1), repeats + 1)
    jax.block_until_ready(draw(keys[0]))
    seconds = []
    for key in keys[1:]:
        started = time.perf_counter()
        jax.block_until_ready(draw(key))
        seconds.append(time.perf_counter() - started)
    return batch_size / min(seconds)
