"""Measures samples per second of each sampler, each with the steps it is used with: python -m benchmarks.sampling [--json]."""

import time

import jax
import ml_collections

import benchmarks
from advdiff_jax.builders.experiment import build_experiment
from advdiff_jax.builders.process import build_process, build_sampler
from advdiff_jax.builders.validate import resolve
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
    """Measures samples per second of the digits U-Net (8x8x1) on one device, compilation not counted.

    Args:
        batch_size: images drawn at once.
        repeats: timed draws, of which the fastest counts.
        samplers: name -> overrides of `config.sampling`.
        config: another network for 8x8x1 images than that of `configs/digits.py`.

    Returns:
        {"samples_per_second_NAME": value}, in the order of `samplers`.
    """
    shape, table = (8, 8, 1), {}
    config = resolve(config or digits.get_config("ddpm"))
    experiment = build_experiment(config, shape)
    params = jax.jit(experiment.init)(jax.random.key(0))
    for name, overrides in samplers.items():
        one = config.copy_and_resolve_references()
        one.sampling.update(overrides)
        table[f"samples_per_second_{name}"] = _rate(experiment.model(params), one, shape, batch_size, repeats)
    return table


def _rate(model, config, shape, batch_size, repeats):
    schedule = build_process(config).schedule
    solve = build_sampler(config, schedule)

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


def main() -> None:
    """Prints the table, or with --json one line of JSON: {"sampling": ...}."""
    args = benchmarks.parser("sampling", __doc__).parse_args()
    benchmarks.show("sampling", sampling_table(), args.json)


if __name__ == "__main__":
    main()
