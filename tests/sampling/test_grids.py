"""Time grids against their published definitions."""

import jax.numpy as jnp
import numpy as np
import pytest

from advdiff_jax.errors import InvalidArgument
from advdiff_jax.sampling import grids
from tests.processes import ALL


def test_ddim_respacing_is_improved_ddpms():
    """Keeps DDPM's 0-based steps 0, 20, ..., 980, whose times are (i + 1) / 1000."""
    np.testing.assert_allclose(grids.respaced("ddim50", 1000)[:-1] * 1000 - 1, np.arange(980, -1, -20), atol=1e-3)
    assert grids.respaced("ddim50", 1000)[-1] == 0.0


def test_counts_respace_each_part():
    """Nichol & Dhariwal's own example: 300 steps in parts of 100, which keep 10, 15 and 20 steps."""
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
    [
        ("ddim999", "spacing='ddim999': no stride takes 999 of 1000 steps"),
        ("600,10", "spacing='600,10': a part has only 500 steps, not 600"),
        ("few", "spacing='few' has no known form: set 'ddimN'"),
        ("5,0", "spacing='5,0' has no known form"),
    ],
)
def test_bad_spacings_are_refused(spacing, message):
    with pytest.raises(InvalidArgument, match=message):
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
def test_one_step_goes_from_noise_to_data(grid):
    np.testing.assert_array_equal(grid(1, ALL["edm"]), [1.0, 0.0])


def test_ddpm_grid_is_an_even_sub_sequence():
    np.testing.assert_array_equal(grids.ddpm(1000, 1000), (np.arange(1000, -1, -1) / 1000).astype(np.float32))
    kept = grids.ddpm(7, 1000) * 1000
    np.testing.assert_allclose(kept, np.round(kept), atol=1e-4)
    assert (kept[0], kept[-1]) == (1000, 0)
    assert np.ptp(np.diff(kept)) <= 1.01


def test_uniform_grid():
    np.testing.assert_allclose(grids.uniform(4), [1.0, 0.75, 0.5, 0.25, 0.0])


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: grids.uniform(0), "num_steps=0 must be at least 1"),
        (lambda: grids.log_snr(0, ALL["edm"]), "num_steps=0 must be at least 1"),
        (lambda: grids.edm(0, ALL["edm"]), "num_steps=0 must be at least 1"),
        (lambda: grids.edm(8, ALL["edm"], rho=0.0), r"rho=0\.0 must be positive"),
        (lambda: grids.ddpm(0, 1000), r"num_steps=0 must be in \[1, 1000\]"),
        (lambda: grids.ddpm(1001, 1000), r"num_steps=1001 must be in \[1, 1000\]"),
    ],
)
def test_bad_numbers_are_refused(build, message):
    with pytest.raises(InvalidArgument, match=message):
        build()
