"""Foreign examples: ranks, areas and nearest neighbours against brute force, the loss against its closed form."""

import numpy as np
import pytest

from advdiff_jax.diffusion import schedules
from advdiff_jax.diffusion.parameterization import PARAMETERIZATIONS
from advdiff_jax.evaluation import foreign
from advdiff_jax.objectives.denoising import denoising
from tests.processes import independent_gaussians

SCHEDULE = schedules.VPLinear()


def test_the_loss_of_a_far_example_is_larger_by_its_distance():
    """With the exact eps_hat of N(0, S^2), E || eps_hat - eps ||^2 = (S^4 + u^2 |x|^2 / D) / (S^2 + u^2)^2."""
    spread, levels = 0.5, (0.3, 1.0)
    model = independent_gaussians(SCHEDULE, spread**2)
    x = np.stack([np.zeros(400), np.full(400, 0.5), np.full(400, 2.0)]).astype(np.float32)
    objective = denoising(SCHEDULE, PARAMETERIZATIONS["eps"])
    found = foreign.losses(SCHEDULE, objective, lambda x, t: model(x, t).eps, x, levels, 16, 0)
    u, squares = np.array(levels)[:, None], np.array([0.0, 0.25, 4.0])
    np.testing.assert_allclose(found, (spread**4 + u**2 * squares) / (spread**2 + u**2) ** 2, rtol=0.03)
    assert foreign.suspicion(found).tolist() == pytest.approx([1 / 3, 2 / 3, 1.0])
    assert foreign.named(foreign.suspicion(found), 0.34).tolist() == [False, False, True]


def test_losses_that_are_small_or_large_are_atypical():
    loss = np.exp(np.random.default_rng(0).standard_normal((2, 10_000)) * [[1.0], [0.1]])
    loss[:, 0], loss[:, 1] = np.exp([0.0, -1.0]), np.exp([0.0, 1.0])  # ten deviations of the second level
    found = foreign.atypicality(loss)
    assert {*np.argsort(-found)[:2]} == {0, 1}
    assert found[0] == pytest.approx(found[1], rel=0.05)
    assert found[0] == pytest.approx(10.0, rel=0.1)


def test_the_area_counts_pairs():
    rng = np.random.default_rng(0)
    score, is_foreign = rng.integers(6, size=60).astype(float), rng.uniform(size=60) < 0.3
    pairs = score[is_foreign][:, None] - score[~is_foreign]
    assert foreign.area(score, is_foreign) == pytest.approx(np.mean((pairs > 0) + 0.5 * (pairs == 0)))


def test_the_nearest_neighbour_decides():
    own, others = np.array([[0.0, 0.0], [1.0, 0.0]]), np.array([[5.0, 0.0], [6.0, 0.0]])
    assert foreign.nearest_share(np.array([[0.4, 0.0], [2.9, 0.0], [3.1, 0.0], [9.0, 0.0]]), own, others) == 0.5
