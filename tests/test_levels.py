"""How much of the noise a model tells: against the closed form of Gaussian data, and through devices and bins."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from advdiff_jax.training import levels


def measured(q, batches=300, size=1024, key=0):
    """Levels of a model that explains a share q(u), from noisy single errors; u spread evenly in its logarithm."""

    def body(seen, key):
        u_key, error_key = jax.random.split(key)
        u = jnp.exp(jax.random.uniform(u_key, (size,), minval=jnp.log(2e-3), maxval=jnp.log(50.0)))
        error = (1.0 - q(u)) * jax.random.normal(error_key, (size,)) ** 2
        return levels.update(seen, u, error), None

    return jax.lax.scan(body, levels.create(), jax.random.split(jax.random.key(key), batches))[0]


@pytest.mark.parametrize("std", [0.02, 0.5])
def test_a_fifth_is_told_at_half_the_noise(std):
    """Gaussian data of std s in every direction: q = u^2 / (u^2 + s^2), so q = 1/5 at u = s / 2."""
    seen = measured(lambda u: u**2 / (u**2 + std**2))
    inside = slice(3, -3)
    expected = levels.CENTRES**2 / (levels.CENTRES**2 + std**2)
    np.testing.assert_allclose(levels.explained(seen)[inside], expected[inside], atol=0.05)
    assert float(levels.crossing(seen, 0.2)) == pytest.approx(std / 2, rel=0.15)


def test_the_level_follows_the_noise_around_a_plane():
    """Two of three directions are data: q = (1 / 3) u^2 / (u^2 + s^2) on top of the plane's own scale; a fifth at 1.2 s."""
    for s in (0.05, 0.1):
        seen = measured(lambda u, s=s: u**2 / (u**2 + s**2) / 3 + u**2 / (u**2 + 1) * 2 / 3)
        assert float(levels.crossing(seen, 0.2)) == pytest.approx(1.2 * s, rel=0.15)


def test_the_search_comes_from_above():
    """A noisy bin at the lowest levels, where few examples fall, does not decide."""
    seen = levels.create()
    q = np.where(levels.CENTRES < 0.05, 0.0, 0.8)
    q[1] = 0.9
    seen = levels.Levels(jnp.asarray(1 - q, jnp.float32), jnp.ones(len(q)))
    assert 0.03 < float(levels.crossing(seen, 0.2)) < 0.08
    everything = seen._replace(error=jnp.zeros_like(seen.error))
    assert float(levels.crossing(everything, 0.2)) == pytest.approx(levels.CENTRES[0])


def test_what_is_never_seen_is_never_forgotten():
    """All examples at one level for long: the other bins keep the prior, and the crossing is found among them."""
    step = lambda seen, _: (levels.update(seen, jnp.full(8, 5.0), jnp.zeros(8)), None)
    seen = jax.jit(lambda seen: jax.lax.scan(step, seen, length=40_000)[0])(levels.create())
    assert np.all(np.isfinite(levels.explained(seen)))
    assert float(levels.crossing(seen, 0.2)) == pytest.approx(0.5, rel=0.1)  # q = u^2 / (u^2 + 1)
    assert levels.is_measured(seen)
    assert not levels.is_measured(levels.create())


def test_shares_of_a_batch_average_to_the_batch():
    u, error = jnp.geomspace(0.01, 10.0, 64), jnp.linspace(0.0, 2.0, 64)
    whole = levels.update(levels.create(), u, error)
    parts = [levels.update(levels.create(), u[i::4], error[i::4]) for i in range(4)]
    mean = jax.tree.map(lambda *leaves: jnp.mean(jnp.stack(leaves), axis=0), *parts)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-8), whole, mean)
