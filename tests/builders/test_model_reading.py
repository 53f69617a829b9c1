"""What a model reads of noise, against the closed form of exact models."""

import numpy as np
import pytest

from advdiff_jax.builders import model_reading
from advdiff_jax.diffusion.model import Model
from advdiff_jax.diffusion.parameterization import Denoised
from advdiff_jax.diffusion.schedules import VPLinear

SHAPE, STD, COUNT = (4, 4, 1), 0.2, 300
LEVELS = np.array(model_reading.LEVELS)


@pytest.mark.parametrize(
    ("variance", "expected"),
    [(STD**2, STD * LEVELS / np.hypot(STD, LEVELS)), (0.0, np.full(3, STD))],
    ids=["a model of the noisy law", "a model of the clean law"],
)
def test_a_reading_is_the_error_of_the_added_noise(variance, expected):
    """Nothing but noise, so that the models are exact."""
    schedule = VPLinear()

    def denoise(x, t):
        alpha, sigma = (part(t)[:, None, None, None] for part in (schedule.alpha, schedule.sigma))
        total = alpha**2 * variance + sigma**2
        return Denoised(alpha * variance / total * x, sigma / total * x)

    y = (STD * np.random.default_rng(0).standard_normal((COUNT, *SHAPE))).astype(np.float32)
    found = model_reading.read_all(model_reading.build_reader(Model(schedule, denoise), SHAPE, 0), y)
    np.testing.assert_allclose(np.sqrt(np.mean(found.of_examples**2, axis=0)), expected, rtol=0.03)
    np.testing.assert_allclose(found.read(y[:7]), found.of_examples[:7], rtol=1e-4)  # a last block is filled up


def test_small_examples_need_more_draws_and_the_cost_counts_them():
    assert [model_reading.draws_of(shape) for shape in ((8, 8, 1), (16, 16, 1), (32, 32, 3))] == [16, 4, 1]
    assert model_reading.cost(1797, 16) == (1797 + 2000) * 3 * 16
    assert model_reading.affordable_draws(3.9 * 3797 * 3, 1797, (8, 8, 1)) == 3
    assert model_reading.affordable_draws(1e9, 1797, (8, 8, 1)) == 16
    assert model_reading.affordable_draws(1e4, 55_000, (32, 32, 1)) == 0
