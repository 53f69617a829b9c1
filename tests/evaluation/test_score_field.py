"""Checks errors of the score against a known distribution, and the figures of fields and paths."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from advdiff_jax.builders import metrics
from advdiff_jax.data import sources
from advdiff_jax.diffusion import exact
from advdiff_jax.diffusion.model import Model
from advdiff_jax.evaluation import figures, ground_truth, score_field
from configs import mixture, plane3d
from tests.processes import ALL

DISTRIBUTION = exact.gaussian(np.zeros(2), 0.25 * np.eye(2))


def _model(name, shift=0.0):
    denoise = exact.denoiser(DISTRIBUTION, ALL[name])
    return Model(ALL[name], lambda x, t: denoise(x, t)._replace(eps=denoise(x, t).eps + shift))


@pytest.mark.parametrize("name", ["ddpm_grid", "edm"])
def test_score_error_is_the_mean_square_in_units_of_eps(name):
    clean, levels = 0.5 * np.random.default_rng(0).standard_normal((100, 2)), np.geomspace(0.05, 5.0, 3)
    for shift in (0.0, 0.3):
        error = ground_truth.score_error(_model(name, shift), _model(name), clean, levels, jax.random.key(0))
        assert error == pytest.approx(shift**2, abs=1e-6)


def test_grid_error_is_in_the_datas_units():
    where, levels = score_field.section(None, (2,)), (0.1, 1.0)
    found, wanted = (score_field.score_field(_model("vp_linear", shift), where, levels, 1.0, side=5) for shift in (0.2, 0.0))
    assert ground_truth.grid_error(found, wanted) == pytest.approx(np.sqrt(np.mean([0.02**2, 0.2**2])), rel=1e-3)


def test_a_field_does_not_depend_on_the_process():
    where = score_field.section(None, (2,))
    vp, ve = (score_field.score_field(_model(name), where, (0.2, 2.0), 1.0, side=5) for name in ("vp_linear", "ve"))
    np.testing.assert_allclose(vp.noise, ve.noise, atol=2e-3)
    np.testing.assert_allclose(vp.noise[0], 0.2 / (0.25 + 0.04) * vp.points, atol=2e-3)


@pytest.mark.parametrize(
    ("config", "source"),
    [
        (plane3d.get_config(), sources.plane3d(4000, 0, 1.0)),
        (mixture.get_config(), sources.mixture(4000, 0, 2, 8, 1.0, 0.05, 0.0)),
    ],
)
def test_the_true_distribution_of_a_config_is_that_of_its_data(config, source):
    """Compares mean and covariance of draws with the distribution's, at a noise that hides all else."""
    distribution = metrics.true_distribution(config)
    draws = source.clean(np.random.default_rng(1), 4000)
    x = jnp.zeros((1, draws.shape[1]))
    vast = jnp.array([1e3])
    np.testing.assert_allclose(distribution.denoise(x, jnp.ones(1), vast).x0[0], draws.mean(0), atol=0.08)
    np.testing.assert_allclose(distribution.covariance(x, jnp.ones(1), vast)[0], np.cov(draws.T), atol=0.08)
    # No draw is far from the distribution's support: its estimate at little noise is the draw itself.
    near = distribution.denoise(jnp.asarray(draws), jnp.ones(4000), jnp.full((4000,), 0.01)).x0
    np.testing.assert_allclose(near, draws, atol=0.05)


def test_sections_of_points_and_none_of_images():
    basis = sources.plane3d(1, 0, 1.0).plane
    edge_on = score_field.section(basis, (3,))
    np.testing.assert_allclose(edge_on.axes @ edge_on.axes.T, np.eye(2), atol=1e-9)
    np.testing.assert_allclose(basis @ edge_on.axes[1], 0.0, atol=1e-9)
    assert score_field.section(None, (3,)).names == ("x1", "x2")
    assert score_field.section(None, (8, 8, 1)) is None


def test_paths_end_in_the_data_and_survive_the_disk_and_are_drawn(tmp_path):
    where = score_field.section(None, (2,))
    paths = score_field.trajectories(_model("ve"), where, (2,), count=200, num_steps=32)
    assert paths.shape == (33, 200, 2)
    assert np.std(paths[0]) == pytest.approx(1.0, rel=0.1)  # VP units, where VE itself starts at 50
    assert np.std(paths[-1]) == pytest.approx(0.5, rel=0.1)
    field = score_field.score_field(_model("ve"), where, (0.2, 2.0), 1.0, side=5)
    score_field.save(tmp_path / "fields.npz", score_field.Drawn(field, paths, where.names))
    stored = score_field.load(tmp_path / "fields.npz")
    np.testing.assert_array_equal(stored.field.noise, field.noise)
    assert stored.names == ("x1", "x2")
    figure = figures.score_fields([("a", stored.field, 0), ("b", field, 1), ("c", field, 1)], stored.names, columns=2)
    assert [axes.get_title() for axes in figure.axes][:3] == ["a", "b", "c"]
    drawn = figures.trajectories([("a", stored.paths)], stored.names, 2, 1.0)
    assert drawn.axes[0].get_xlim() == (-1.0, 1.0)
