"""The gain curve against a table by another program, in every process, and against a sampler."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from advdiff_jax.diffusion import gain
from advdiff_jax.diffusion.parameterization import Denoised
from advdiff_jax.objectives import weights
from advdiff_jax.perturbation import radius
from advdiff_jax.perturbation.ball import LINF
from advdiff_jax.sampling import grids, steps
from advdiff_jax.sampling.sample import sample
from tests.processes import ALL, CONTINUOUS

STDS = [0.02, 0.05, 0.1, 0.2, 0.4, 0.58, 1.0]
TABLE = [
    (radius.state_units(), weights.paper(0.3), "random", [0.13, 0.13, 0.28, 0.57, 0.79, 0.85, 0.89]),
    (radius.state_units(), weights.paper(0.3), "adversarial", [0.11, 0.07, 0.10, 0.26, 0.53, 0.64, 0.74]),
    (radius.state_units(), weights.paper(0.5), "adversarial", [0.11, 0.06, 0.06, 0.15, 0.38, 0.50, 0.63]),
    (radius.noise_units(), weights.paper(0.3), "adversarial", [1.00, 0.99, 0.98, 0.97, 0.95, 0.93, 0.90]),
    (radius.state_units(), weights.cutoff(5.0, 0.1), "adversarial", [0.43, 0.44, 0.50, 0.65, 0.83, 0.91, 0.96]),
    (radius.state_units(), weights.cutoff(20.0, 0.05), "random", [0.25, 0.26, 0.34, 0.56, 0.81, 0.90, 0.96]),
]


def kappa_of(of_radius, weight, schedule, kind):
    strength = gain.penalty_strength(of_radius, weight, schedule, LINF.energy(1.0, 1) if kind == "random" else 1.0)
    return lambda u: strength(u).kappa


@pytest.mark.parametrize("name", ALL)
def test_the_table_in_every_process(name):
    for of_radius, weight, kind, expected in TABLE:
        kappa = kappa_of(of_radius, weight, ALL[name], kind)
        np.testing.assert_allclose(gain.gain(kappa, np.array(STDS)), expected, atol=0.0075)


def test_no_penalty_has_a_gain_of_one():
    np.testing.assert_allclose(gain.gain(lambda u: 0.0 * u, np.array([0.1, 1.0]), u_min=1e-5), 1.0, atol=1e-3)


@pytest.mark.parametrize("name", ["vp_linear", "edm"])
def test_a_sampler_of_the_shrunken_score_has_this_gain(name):
    """Heun's rule on x0hat = v / (v + u^2) y with v = s^2 / (1 + kappa(u)) ends at T(s) s."""
    schedule, std = CONTINUOUS[name], 0.2
    kappa = kappa_of(radius.state_units(), weights.cutoff(5.0, 0.1), schedule, "random")
    u_max = float(schedule.noise_to_signal(jnp.float32(1.0)))
    expected = gain.gain(kappa, np.array([std]), u_max=u_max)

    def denoise(x, t):
        u = schedule.noise_to_signal(t)[:, None]
        variance = std**2 / (1.0 + 5.0 / (1.0 + (u / 0.1) ** 4))
        y = x / schedule.alpha(t)[:, None]
        return Denoised(variance / (variance + u**2) * y, u / (variance + u**2) * y)

    times = grids.edm(200, schedule)[:-1]
    x = jnp.full((1, 1), schedule.alpha(1.0) * jnp.hypot(schedule.noise_to_signal(jnp.float32(1.0)), std))
    end = sample(denoise, jax.random.split(jax.random.key(0), 1), x, times, steps.edm(schedule))
    u_end = schedule.noise_to_signal(times[-1])
    assert end[0, 0] / std == pytest.approx(expected[0], rel=0.01 + float(u_end))
