"""The differentiable sampler: the same samples as the scan, the same gradient as without checkpoints, and bounded memory."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from advdiff_jax import rng
from advdiff_jax.diffusion import schedules
from advdiff_jax.diffusion.parameterization import Denoised
from advdiff_jax.sampling import grids, steps
from advdiff_jax.sampling.sample import sample
from advdiff_jax.sampling.shifted import Path, advance

SCHEDULE = schedules.VPLinear()
X, KEYS = jax.random.normal(jax.random.key(0), (3, 2)), jax.random.split(jax.random.key(1), 3)


def denoise(x, t):
    alpha, sigma = SCHEDULE.alpha(t)[:, None], SCHEDULE.sigma(t)[:, None]
    x0 = jnp.tanh(2.0 * x)
    return Denoised(x0, (x - alpha * x0) / sigma)


@pytest.mark.parametrize("rule", [steps.ancestral(SCHEDULE), steps.dpm_solver_2m(SCHEDULE)])
def test_without_shifts_it_is_the_sampler_in_parts_or_whole(rule):
    path = Path(denoise, rule, grids.uniform(7))  # seven steps: two whole segments and a rest
    state = X, rule.init(X)
    for first, last in ((0, 0), (0, 2), (2, 7)):
        state = advance(path, KEYS, state, first, last)
    expected = sample(denoise, KEYS, X, path.times, rule)
    np.testing.assert_allclose(state[0], expected, rtol=1e-5, atol=1e-6)


def test_shifts_move_the_states_before_their_steps_and_have_the_gradient_of_a_plain_loop():
    rule, times = steps.ancestral(SCHEDULE), grids.uniform(5)
    shifts = 0.3 * jax.random.normal(jax.random.key(2), (5, *X.shape))

    def loop(shifts):
        x = X
        for i in range(5):
            x, _ = rule.update(denoise, rng.fold_in(KEYS, i), (), x + shifts[i], times[i], times[i + 1])
        return x

    def path(shifts):
        return advance(Path(denoise, rule, times), KEYS, (X, ()), 0, 5, shifts)[0]

    found, expected = (jax.jit(jax.value_and_grad(lambda s, end=end: jnp.sum(end(s) ** 2)))(shifts) for end in (path, loop))
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-5)
    np.testing.assert_allclose(found[1], expected[1], rtol=1e-4, atol=1e-5)


def test_memory_of_a_gradient_grows_as_the_root_of_the_steps():
    weights = jax.random.normal(jax.random.key(3), (2, 2, 64))
    x, keys = jnp.ones((256, 2)), jax.random.split(jax.random.key(1), 256)

    def wide(x, t):
        return denoise(jnp.tanh(x @ weights[0]) @ weights[1].T, t)

    def memory(count, whole):
        path = Path(wide, steps.ddim(SCHEDULE), grids.uniform(count))

        def end(x):
            if whole:
                return jnp.sum(advance(path, keys, (x, ()), 0, count)[0] ** 2)
            return jnp.sum(sample(wide, keys, x, path.times, path.step) ** 2)

        return jax.jit(jax.grad(end)).lower(x).compile().memory_analysis().temp_size_in_bytes

    few, many = memory(16, True), memory(256, True)
    assert many < 4.5 * few  # 16 times the steps
    assert many < 0.2 * memory(256, False)
