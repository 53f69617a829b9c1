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
