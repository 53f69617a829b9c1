"""Compares DPM-Solver++(2M) in 20 evaluations with DDPM in 1000, on `mixture` with its exact score."""

import jax
import numpy as np

from advdiff_jax.builders import metrics, process
from advdiff_jax.data import sources
from advdiff_jax.diffusion import exact
from advdiff_jax.evaluation.ground_truth import wasserstein2_in_parts
from advdiff_jax.sampling.sample import prior
from configs import mixture

REPEATS, POINTS = 60, 200  # exact W2 of few points is mostly luck: its mean square over many draws is not


def _samples(distribution, **sampling):
    config = mixture.get_config("ddpm")
    config.sampling.update(sampling)
    schedule = process.build_schedule(config)
    solve = process.build_sampler(config, schedule)
    start_keys, step_keys = jax.random.split(jax.random.key(0), (2, REPEATS * POINTS))
    start = prior(start_keys, (2,), schedule.prior_std)
    points = jax.jit(lambda x: solve(exact.denoiser(distribution, schedule), step_keys, x))(start)
    return np.asarray(points)


def test_twenty_evaluations_reach_the_distance_of_a_thousand_ddpm_steps():
    c = mixture.get_config().data
    source = sources.mixture(1, 0, c.dim, c.components, c.spread, c.component_std, 0.0)
    distribution = metrics.true_distribution(mixture.get_config())
    clean = source.clean(np.random.default_rng(0), REPEATS * POINTS)
    fast = wasserstein2_in_parts(_samples(distribution, method="dpm_solver_2m", grid="log_snr", steps=20), clean, POINTS)
    slow = wasserstein2_in_parts(_samples(distribution, method="ddpm", steps=1000), clean, POINTS)
    floor = wasserstein2_in_parts(source.clean(np.random.default_rng(1), REPEATS * POINTS), clean, POINTS)
    assert fast <= 1.05 * slow, (fast, slow)
    assert slow <= 1.1 * floor, (slow, floor)
