"""The final step on Gaussian data, where the posterior mean is known."""

import jax
import jax.numpy as jnp
import numpy as np

from advdiff_jax.diffusion.parameterization import Denoised
from advdiff_jax.diffusion.schedules import EDM, DDPMGrid
from advdiff_jax.sampling.final import final_denoise

CLEAN, NOISE, LEVEL = 0.5, 0.2, 0.15
DIRTY = CLEAN**2 + NOISE**2  # variance of the data that the model knows


def test_it_is_the_posterior_mean_in_any_process():
    keys, y = jax.random.split(jax.random.key(0), 64), np.sqrt(DIRTY) * jax.random.normal(jax.random.key(1), (64, 50))
    for schedule in (DDPMGrid(), EDM()):

        def denoise(x, t, schedule=schedule):
            u, z = schedule.noise_to_signal(t)[:, None], x / schedule.alpha(t)[:, None]
            return Denoised(DIRTY / (DIRTY + u**2) * z, z)

        one = final_denoise(schedule, denoise, keys, y, NOISE, LEVEL, draws=1)
        many = final_denoise(schedule, denoise, keys, y, NOISE, LEVEL, draws=400)
        shrink = CLEAN**2 / (DIRTY + LEVEL**2)  # E[x | z] = shrink z
        np.testing.assert_allclose(jnp.std(one), shrink * np.sqrt(DIRTY + LEVEL**2), rtol=0.05)
        np.testing.assert_allclose(many, shrink * y, atol=0.03)


def test_a_draw_has_the_law_of_the_clean_data():
    """The spread of a draw is that of the clean data, where that of the mean is not; a direction of noise alone gets none."""
    clean = jnp.array([1.0, 0.4, 0.0])
    dirty, schedule = clean**2 + NOISE**2, EDM()
    y = jnp.sqrt(dirty) * jax.random.normal(jax.random.key(1), (20_000, 3))

    def denoise(x, t):
        u = schedule.noise_to_signal(t)[:, None]
        return Denoised(dirty / (dirty + u**2) * x, u / (dirty + u**2) * x)

    keys = jax.random.split(jax.random.key(0), len(y))
    mean, draw = (final_denoise(schedule, denoise, keys, y, NOISE, LEVEL, 8, random=random) for random in (False, True))
    np.testing.assert_allclose(jnp.std(draw, axis=0)[:2], clean[:2], rtol=0.02)
    assert jnp.std(mean, axis=0)[1] < 0.9 * clean[1]
    assert jnp.std(draw, axis=0)[2] < 1e-3
    # Given z, which moves only a little from draw to draw, a draw follows it.
    np.testing.assert_allclose(jnp.corrcoef(draw[:, 0], y[:, 0])[0, 1], 1.0, atol=0.05)


def test_a_clean_sample_stays_where_each_has_its_own_level():
    """Half of the samples have no noise in 200 directions that hold nothing else; the model knows the other half."""
    schedule, dim = EDM(), 200
    noise = jnp.where(jnp.arange(40) < 20, 0.0, NOISE)[:, None]
    y = noise * jax.random.normal(jax.random.key(1), (40, dim))

    def denoise(x, t):
        """Knows which law each sample is of, as a network sees it from 200 numbers."""
        u = schedule.noise_to_signal(t)[:, None]
        return Denoised(noise**2 / (noise**2 + u**2) * x, u / (noise**2 + u**2) * x)

    keys = jax.random.split(jax.random.key(0), 40)
    common, own = (final_denoise(schedule, denoise, keys, y, NOISE, LEVEL, 64, own) for own in (False, True))
    left = [jnp.sqrt(jnp.mean(part[half] ** 2)) for part in (common, own) for half in (slice(20), slice(20, 40))]
    assert left[0] > 0.02  # what is not there is removed, and the draws of e with it are not cancelled
    assert left[2] < 1e-3
    assert left[1] < 0.15 * NOISE
    assert left[3] < 0.25 * NOISE  # the reading errs by a few percent
