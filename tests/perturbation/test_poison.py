"""Adversarial poison, on a linear network, against noise of the same size."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from advdiff_jax.diffusion.parameterization import PARAMETERIZATIONS
from advdiff_jax.diffusion.schedules import DDPMGrid
from advdiff_jax.errors import InvalidArgument
from advdiff_jax.objectives.denoising import denoising
from advdiff_jax.perturbation.adversarial import adversarial
from advdiff_jax.perturbation.ball import BALLS
from advdiff_jax.perturbation.poison import make_poison

SCHEDULE = DDPMGrid()
OBJECTIVE = denoising(SCHEDULE, PARAMETERIZATIONS["eps"])


def poison_of(radius=0.1, draws=8):
    return make_poison(OBJECTIVE, SCHEDULE.training_time, adversarial(BALLS["linf"], 5, 0.5), radius, draws)


def test_poison_stays_in_its_ball_and_raises_the_loss():
    rng = np.random.default_rng(0)
    weights = jnp.asarray(rng.normal(size=(6, 6)) / 3, jnp.float32)
    x0 = jnp.asarray(rng.uniform(-1, 1, (40, 6)), jnp.float32)
    noise = jnp.clip(x0 + 0.1 * jnp.sign(jnp.asarray(rng.normal(size=x0.shape))), -1, 1)

    def predict(x, t):
        return x @ weights

    @jax.jit
    def loss(x):  # over other draws than the attack's
        fresh = jax.random.split(jax.random.key(9), 400)
        t = SCHEDULE.training_time(jax.vmap(jax.random.uniform)(fresh))
        return jnp.mean(OBJECTIVE(predict, fresh, jnp.tile(x, (10, 1)), t)[0])

    attack = jax.jit(lambda keys: poison_of()(predict, keys, x0))
    for seed in range(2):
        poisoned = attack(jax.random.split(jax.random.key(seed), 40))
        assert jnp.max(jnp.abs(poisoned - x0)) <= 0.1 + 1e-6
        assert jnp.max(jnp.abs(poisoned)) <= 1.0  # images stay in [-1, 1]
        assert loss(poisoned) > loss(noise)
        assert loss(poisoned) > loss(x0)


@pytest.mark.parametrize(("name", "value", "least"), [("radius", -0.1, 0), ("draws", 0, 1)])
def test_a_bad_radius_or_number_of_draws_is_refused(name, value, least):
    with pytest.raises(InvalidArgument, match=f"{name}={value} must be at least {least}"):
        poison_of(**{name: value})
