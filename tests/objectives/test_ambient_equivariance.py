"""The penalty on top of the ambient loss."""

import jax
import jax.numpy as jnp
import numpy as np

from advdiff_jax import rng
from advdiff_jax.diffusion.parameterization import PARAMETERIZATIONS
from advdiff_jax.objectives import weights
from advdiff_jax.objectives.ambient import add_noise_above
from advdiff_jax.objectives.denoising import add_noise, mean_square
from advdiff_jax.objectives.robust import robust
from advdiff_jax.perturbation import radius
from advdiff_jax.perturbation.adversarial import adversarial
from advdiff_jax.perturbation.ball import LINF
from tests.processes import ALL


def test_it_leaves_the_ambient_loss_as_it_is():
    """Without a weight the two objectives are one; where an example's own noise is larger it counts as clean."""
    schedule, parameterization = ALL["ddpm_grid"], PARAMETERIZATIONS["eps"]
    t, std = schedule.time(jnp.array([0.1, 0.15, 0.3, 0.5, 1.0, 4.0])), jnp.full(6, 0.2)
    keys, x_n = jax.random.split(jax.random.key(0), 6), jnp.ones((6, 4))

    def on_top(weight):
        objective = robust(schedule, parameterization, radius.constant(0.1), adversarial(LINF), weight, noising=add_noise_above)
        return objective(lambda x, t: 0.3 * x, keys, x_n, t, noise_std=std)

    noise_keys = rng.split(keys, 4)[0]
    noised = add_noise_above(schedule, parameterization, noise_keys, x_n, t, std)
    plain = add_noise(schedule, parameterization, noise_keys, x_n, t)
    ambient = mean_square(0.3 * noised.x - noised.target)
    np.testing.assert_allclose(on_top(weights.cutoff(0.0, 0.1))[0], ambient, rtol=1e-6)
    np.testing.assert_allclose(noised.x[:2], plain.x[:2], rtol=1e-6)
    assert not np.allclose(noised.x[2:], plain.x[2:], rtol=1e-3)
    loss, aux = on_top(weights.cutoff(5.0, 0.2))
    np.testing.assert_allclose(loss, ambient + aux["penalty"], rtol=1e-6)
    assert (aux["penalty"][:2] > 0.0).all()
