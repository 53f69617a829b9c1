"""Certificates against the exact distance to a linear boundary, and the bound against its definition."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from advdiff_jax.diffusion import schedules
from advdiff_jax.diffusion.parameterization import Denoised
from advdiff_jax.errors import InvalidArgument
from advdiff_jax.evaluation import certificate

W, BIAS, SHRINK, STD = np.array([0.6, -0.8, 1.2]), 0.1, 0.7, 0.5


def test_a_linear_classifier_behind_a_scalar_denoiser_gets_its_exact_distance():
    """It answers w . (a x) + b > 0, whose boundary is |w . x + b / a| / ||w|| away."""
    schedule = schedules.VPLinear()
    denoise = lambda x, t: Denoised(SHRINK * x / schedules.bcast(schedule.alpha(t), x), x)
    classify = lambda x: jnp.stack([x @ W + BIAS, -(x @ W) - BIAS], axis=1)
    t = certificate.time_of(schedule, STD, 0)
    base = certificate.one_step(schedule, denoise, classify)
    x = np.random.default_rng(0).standard_normal((5, 3)).astype(np.float32)
    x = 0.6 * x / np.abs(x @ W + BIAS / SHRINK)[:, None]  # distances of about s, where 150,000 draws suffice
    keys = jax.random.split(jax.random.key(0), len(x))

    @jax.jit
    def count(keys, draws):
        return jax.vmap(lambda key, x: certificate.votes(base, 2, 7000, key, x, STD, t, draws))(keys, x)

    other_keys = jax.random.split(jax.random.key(1), len(x))
    chosen, counts = np.asarray(count(keys, 100)), np.asarray(count(other_keys, 150_000))
    assert chosen.sum(axis=1).tolist() == [100] * 5
    assert counts.sum(axis=1).tolist() == [150_000] * 5
    found = certificate.certify(chosen, counts, STD, 0.001)
    distance = np.abs(x @ W + BIAS / SHRINK) / np.linalg.norm(W)
    np.testing.assert_allclose(found.radius, distance, rtol=0.03)
    assert np.all(found.radius < distance)  # a bound
    labels = (x @ W + BIAS / SHRINK < 0).astype(int)
    assert found.prediction.tolist() == labels.tolist()
    assert found.accuracy(labels, float(np.median(found.radius))) == pytest.approx(0.6)
    assert found.accuracy(1 - labels, 0.0) == 0.0


def test_the_bound_fails_as_rarely_as_it_says_and_a_tie_abstains():
    chosen, counts = np.array([[60, 40]] * 3), np.array([[500, 500], [0, 1000], [1000, 0]])
    found = certificate.certify(chosen, counts, 1.0, 0.001)
    assert found.prediction.tolist() == [certificate.ABSTAINED, certificate.ABSTAINED, 0]
    assert found.radius[:2].tolist() == [0.0, 0.0]
    lower = scipy.stats.norm.cdf(found.radius[2])
    assert lower**1000 == pytest.approx(0.001, rel=1e-6)  # the p under which all votes have that chance


def test_the_time_is_the_first_of_the_grid_that_is_noisy_enough():
    grid, u = schedules.DDPMGrid(), 0.5
    t = certificate.time_of(grid, u, 1000)
    before, at = (float(grid.noise_to_signal(jnp.float32(t + shift))) for shift in (-1e-3, 0.0))
    assert before < u <= at
    with pytest.raises(InvalidArgument, match=r"noise of std 1e\+06 in \[-1, 1\] is above the process"):
        certificate.time_of(grid, 1e6, 1000)
