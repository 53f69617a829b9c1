"""Time grids against their published definitions."""

import jax.numpy as jnp
import numpy as np
import pytest

from advdiff_jax.sampling import grids
from tests.processes import ALL


def test_ddim_respacing_is_improved_ddpms():
    """Strides of 20 from index 0: 0, 20, ..., 980 of DDPM's 0-based steps, which are the times 1/1000 later."""
    np.testing.assert_allclose(grids.respaced("ddim50", 1000)[:-1] * 1000 - 1, np.arange(980, -1, -20), atol=1e-3)
    assert grids.respaced("ddim50", 1000)[-1] == 0.0


def test_counts_respace_each_part():
    """Nichol & Dhariwal's own example: 300 steps, parts of 100, of which 10, 15 and 20 are kept."""
    kept = np.round(grids.respaced("10,15,20", 300)[-2::-1] * 300 - 1).astype(int)
    assert len(kept) == 45
    parts = [kept[(kept >= low) & (kept < low + 100)] for low in (0, 100, 200)]
    assert [len(part) for part in parts] == [10, 15, 20]
    for part, low in zip(parts, (0, 100, 200), strict=True):
        assert (part[0], part[-1]) == (low, low + 99)
        assert np.ptp(np.diff(part)) <= 1
    assert len(grids.respaced("50,25", 1000)) == 76
    np.testing.assert_allclose(grids.respaced("1000", 1000), grids.ddpm(1000, 1000), atol=1e-7)


@pytest.mark.parametrize(
    ("spacing", "message"),
    [("ddim999", "no whole stride"), ("600,10", "cannot keep 600"), ("few", "neither"), ("5,0", "neither")],
)
def test_respacing_that_cannot_be_is_refused(spacing, message):
    with pytest.raises(ValueError, match=message):
        grids.respaced(spacing, 1000)


@pytest.mark.parametrize("name", ALL)
def test_log_snr_steps_are_even(name):
    times = grids.log_snr(12, ALL[name])
    assert times[0] == 1.0
    assert times[-1] == 0.0
    np.testing.assert_allclose(times[-2], ALL[name].t_min, rtol=5e-3)
    np.testing.assert_allclose(np.diff(ALL[name].log_snr(jnp.asarray(times[:-1])), 2), 0.0, atol=0.02)


def test_edm_grid_is_karras_et_als():
    i = np.arange(18)
    sigma = (80 ** (1 / 7) + i / 17 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
    np.testing.assert_allclose(grids.edm(18, ALL["edm"])[:-1] * 80.0, sigma, rtol=1e-5)


@pytest.mark.parametrize("grid", [grids.log_snr, grids.edm])
def test_no_step_is_refused_and_one_goes_from_noise_to_data(grid):
    with pytest.raises(ValueError, match="at least one"):
        grid(0, ALL["edm"])
    np.testing.assert_array_equal(grid(1, ALL["edm"]), [1.0, 0.0])
