"""The noise floor, against the closed form of Gaussian data, and over bins and shares of a batch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from advdiff_jax.training import noise_floor


def measured(q, batches=300, size=1024, key=0):
    """Simulates the statistics of a model that explains a share q(u), from noisy single errors at levels even in log u."""

    def body(stats, key):
        u_key, error_key = jax.random.split(key)
        u = jnp.exp(jax.random.uniform(u_key, (size,), minval=jnp.log(2e-3), maxval=jnp.log(50.0)))
        error = (1.0 - q(u)) * jax.random.normal(error_key, (size,)) ** 2
        return noise_floor.update(stats, u, error), None

    return jax.lax.scan(body, noise_floor.create(), jax.random.split(jax.random.key(key), batches))[0]


@pytest.mark.parametrize("std", [0.02, 0.5])
def test_a_fifth_is_explained_at_half_the_noise(std):
    """Gaussian data of std s in every direction: q = u^2 / (u^2 + s^2), so q = 1/5 at u = s / 2."""
    stats = measured(lambda u: u**2 / (u**2 + std**2))
    inside = slice(3, -3)
    expected = noise_floor.CENTRES**2 / (noise_floor.CENTRES**2 + std**2)
    np.testing.assert_allclose(noise_floor.explained(stats)[inside], expected[inside], atol=0.05)
    assert float(noise_floor.estimate_noise_floor(stats, 0.2)) == pytest.approx(std / 2, rel=0.15)


def test_the_level_follows_the_noise_around_a_plane():
    """If two of three directions are data, q = (1 / 3) u^2 / (u^2 + s^2) plus the plane's own share: a fifth at 1.2 s."""
    for s in (0.05, 0.1):
        stats = measured(lambda u, s=s: u**2 / (u**2 + s**2) / 3 + u**2 / (u**2 + 1) * 2 / 3)
        assert float(noise_floor.estimate_noise_floor(stats, 0.2)) == pytest.approx(1.2 * s, rel=0.15)


def test_the_search_comes_from_above():
    """A noisy bin at the lowest levels, where few examples fall, does not decide."""
    q = np.where(noise_floor.CENTRES < 0.05, 0.0, 0.8)
    q[1] = 0.9
    stats = noise_floor.NoiseFloorStats(jnp.asarray(1 - q, jnp.float32), jnp.ones(len(q)))
    assert 0.03 < float(noise_floor.estimate_noise_floor(stats, 0.2)) < 0.08
    everything = stats._replace(error=jnp.zeros_like(stats.error))
    assert float(noise_floor.estimate_noise_floor(everything, 0.2)) == pytest.approx(noise_floor.CENTRES[0])


def test_bins_without_examples_keep_the_prior():
    """After long training at one level, the other bins have the q of N(0, I), and the floor is found among them."""
    step = lambda stats, _: (noise_floor.update(stats, jnp.full(8, 5.0), jnp.zeros(8)), None)
    stats = jax.jit(lambda stats: jax.lax.scan(step, stats, length=40_000)[0])(noise_floor.create())
    expected = noise_floor.CENTRES**2 / (noise_floor.CENTRES**2 + 1.0)
    expected[np.searchsorted(noise_floor.EDGES, 5.0) - 1] = 1.0
    np.testing.assert_allclose(noise_floor.explained(stats), expected, atol=1e-4)
    assert float(noise_floor.estimate_noise_floor(stats, 0.2)) == pytest.approx(0.5, rel=0.1)
    assert noise_floor.is_measured(stats)
    assert not noise_floor.is_measured(noise_floor.create())


def test_shares_of_a_batch_average_to_the_batch():
    u, error = jnp.geomspace(0.01, 10.0, 64), jnp.linspace(0.0, 2.0, 64)
    whole = noise_floor.update(noise_floor.create(), u, error)
    parts = [noise_floor.update(noise_floor.create(), u[i::4], error[i::4]) for i in range(4)]
    mean = jax.tree.map(lambda *leaves: jnp.mean(jnp.stack(leaves), axis=0), *parts)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-8), whole, mean)
