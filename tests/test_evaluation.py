"""Metrics against closed forms and brute force; the report against what a reader needs."""

import re

import numpy as np
import ot
import pytest
import scipy.linalg

from advdiff_jax.data import sources
from advdiff_jax.evaluation import features, fidelity, ground_truth, memorization, pictures, report

RNG = np.random.default_rng(0)


def test_plane_metrics_of_points_built_by_hand():
    source = sources.plane3d(4000, 0, 1.0)
    normal = np.ones(3) / np.sqrt(3)
    half = 0.5 * source.train + 0.1 * normal * RNG.choice([-1, 1], (4000, 1))
    found = ground_truth.plane(half, source.train, source.plane)
    assert found["off_plane_rms"] == pytest.approx(0.1, rel=1e-5)
    assert found["spread_ratio"] == pytest.approx(0.5, rel=1e-5)


def test_w2_in_one_dimension_is_the_distance_of_sorted_points():
    a, b = RNG.standard_normal((200, 1)), RNG.standard_normal((200, 1)) + 1.0
    expected = np.sqrt(np.mean((np.sort(a[:, 0]) - np.sort(b[:, 0])) ** 2))
    assert ground_truth.wasserstein2(a, b) == pytest.approx(expected, rel=1e-6)


def test_w2_of_a_translation_is_its_length_and_a_floor_is_not_zero():
    a = RNG.standard_normal((300, 3))
    assert ground_truth.wasserstein2(a, a + np.array([0.3, 0.0, 0.4])) == pytest.approx(0.5, rel=1e-6)
    assert ground_truth.wasserstein2(a, RNG.standard_normal((300, 3))) > 0.2


def test_w2_in_parts_is_the_root_mean_square_of_its_parts():
    a, b = RNG.standard_normal((90, 2)), RNG.standard_normal((90, 2)) + 1.0
    assert ground_truth.wasserstein2_in_parts(a, b, 90) == ground_truth.wasserstein2(a, b)
    squares = [ground_truth.wasserstein2(a[at : at + 30], b[at : at + 30]) ** 2 for at in (0, 30, 60)]
    assert ground_truth.wasserstein2_in_parts(a, b, 30) == pytest.approx(np.sqrt(np.mean(squares)), rel=1e-12)
    assert ground_truth.wasserstein2_in_parts(a, b, 40) > 0.9  # parts that do not come out even


def test_frechet_distance_is_the_textbook_formula():
    a, b = RNG.standard_normal((500, 4)), RNG.standard_normal((600, 4)) @ RNG.standard_normal((4, 4)) + 1.0
    ca, cb = np.cov(a.T), np.cov(b.T)
    expected = np.sum((a.mean(0) - b.mean(0)) ** 2) + np.trace(ca + cb - 2 * scipy.linalg.sqrtm(ca @ cb).real)
    assert fidelity.frechet_distance(a, b) == pytest.approx(expected, rel=1e-6)
    assert fidelity.frechet_distance(a, a) == pytest.approx(0.0, abs=1e-8)


def test_frechet_distance_of_features_that_never_fire():
    """Units that are always 0 make the covariances singular; the distance must not notice."""
    a, b = RNG.standard_normal((500, 3)), RNG.standard_normal((500, 3)) + 1.0
    pad = lambda x: np.concatenate([x, np.zeros((500, 5))], axis=1)
    assert fidelity.frechet_distance(pad(a), pad(b)) == pytest.approx(fidelity.frechet_distance(a, b), rel=1e-5)


def test_frechet_distance_is_pots_and_finite_on_rank_deficient_features():
    """As a ReLU network gives them: fewer examples than features, and units that fire for few of them."""
    a, b = (np.maximum(RNG.standard_normal((300, 20)) @ RNG.standard_normal((20, 64)) - 6.0, 0.0) for _ in range(2))
    assert np.isfinite(fidelity.frechet_distance(a[:40], b[:40]))
    moments = [x.mean(0) for x in (a, b)] + [np.cov(x.T) + 1e-9 * np.eye(64) for x in (a, b)]
    assert fidelity.frechet_distance(a, b) == pytest.approx(ot.gaussian.bures_wasserstein_distance(*moments) ** 2, rel=1e-4)


def test_noise_energy_is_the_noise_in_quiet_directions():
    basis = np.linalg.qr(RNG.standard_normal((10, 10)))[0]
    clean = RNG.standard_normal((4000, 4)) @ basis[:4] + 3.0
    assert fidelity.noise_energy(clean, clean, 6) == pytest.approx(0.0, abs=1e-6)
    noisy = clean + 0.2 * RNG.standard_normal(clean.shape)
    assert fidelity.noise_energy(noisy, clean, 6) == pytest.approx(0.2, rel=0.02)
    assert fidelity.noise_energy(2.0 * (clean - 3.0) + 3.0, clean, 6) == pytest.approx(0.0, abs=1e-6)  # signal is not noise
    with pytest.raises(ValueError, match="1 to 10 directions"):
        fidelity.noise_energy(clean, clean, 11)


def test_copies_are_near_duplicates_and_fresh_draws_are_not():
    train, fresh = RNG.standard_normal((500, 8, 8, 1)), RNG.standard_normal((100, 8, 8, 1))
    copies = memorization.nearest_neighbours(train[:100] + 0.01 * fresh, train)
    assert copies["near_duplicates"] == 1.0
    assert copies["nn_distance_ratio"] < 0.05
    new = memorization.nearest_neighbours(fresh, train)
    assert new["near_duplicates"] == 0.0
    assert 0.9 < new["nn_distance_ratio"] <= 1.0


def test_digits_cnn_knows_digits_and_is_cached(tmp_path):
    pictures_, labels = sources.digits().train, sources.digit_labels()
    found = features.digits_cnn(str(tmp_path))(pictures_)
    assert found.shape == (1797, 64)
    centres = np.stack([found[labels == digit].mean(axis=0) for digit in range(10)])
    nearest = np.argmin(np.linalg.norm(found[:, None] - centres, axis=2), axis=1)
    assert np.mean(nearest == labels) > 0.97

    (cached,) = tmp_path.iterdir()
    stamp = cached.stat().st_mtime_ns
    np.testing.assert_array_equal(features.digits_cnn(str(tmp_path))(pictures_[:5]), found[:5])
    assert cached.stat().st_mtime_ns == stamp
    cached.write_bytes(b"damaged")
    np.testing.assert_allclose(features.digits_cnn(str(tmp_path))(pictures_[:5]), found[:5], atol=1e-3)
    assert cached.stat().st_size > 1000


def test_a_picture_grid_shows_every_pixel(tmp_path):
    shown = np.linspace(-1, 1, 4 * 4).reshape(4, 2, 2, 1)
    figure = pictures.grid(shown, 4)
    canvas = figure.axes[0].images[0].get_array()
    assert canvas.shape == (7, 7)  # 2 x 2 pictures of 2 x 2 pixels, and gaps
    np.testing.assert_allclose(canvas[1:3, 1:3], shown[0, ..., 0] / 2 + 0.5)
    np.testing.assert_allclose(canvas[4:6, 4:6], shown[3, ..., 0] / 2 + 0.5)
    colour = pictures.grid(np.zeros((5, 4, 4, 3)), 5)
    assert colour.axes[0].images[0].get_array().shape == (11, 11, 3)


def test_points_of_a_plane_are_seen_from_its_edge():
    source = sources.plane3d(100, 0, 1.0)
    edge, above = pictures.show(source.train, source.train, source.plane, 64).axes
    np.testing.assert_allclose(edge.collections[0].get_offsets()[:, 1], 0.0, atol=1e-6)
    assert np.std(above.collections[0].get_offsets()[:, 1]) > 0.4


def test_bars_show_means_and_errors():
    figure = pictures.bars({"a": {"w2": (1.0, 0.1)}, "b": {"w2": (2.0, 0.2)}}, ["w2"])
    assert [patch.get_width() for patch in figure.axes[0].patches] == [1.0, 2.0]


def test_what_is_known_of_the_data_is_a_line_in_the_panel_of_its_metric():
    table = {run: {"m": (x, 0.0), "m_clean": (0.5, 0.0), "m_dirty": (3.0, 0.0)} for run, x in (("a", 1.0), ("b", 2.0))}
    (panel,) = pictures.bars(table, ["m", "m_clean", "m_dirty"]).axes
    assert [line.get_xdata()[0] for line in panel.lines] == [0.5, 3.0]
    assert [text.get_text() for text in panel.get_legend().get_texts()] == ["clean", "dirty"]


def test_a_run_without_a_metric_keeps_its_row_in_all_panels_of_bars():
    table = {"a": {"w2": (1.0, 0.1), "fd": (3.0, 0.1)}, "b": {"w2": (2.0, 0.2)}, "c": {"w2": (4.0, 0.2), "fd": (5.0, 0.1)}}
    w2, fd = pictures.bars(table, ["w2", "fd"]).axes
    assert w2.get_ylim() == fd.get_ylim()
    assert [patch.get_y() for patch in w2.patches] == [patch.get_y() for patch in fd.patches]
    assert [label.get_text() for label in w2.get_yticklabels()] == list(table)


def test_the_report_is_one_self_contained_page(tmp_path):
    rows = [{"step": step, "loss": 1.0 / step, "steps_per_second": 3.0} for step in (1, 2)]
    pictures.curves(rows).savefig(tmp_path / "curves.png")
    curve = report.picture(tmp_path / "curves.png", "curve")
    sections = [report.Section("One", "a < b", [("h", "k"), ("1", "2")], [curve], "pre")]
    report.write_report(tmp_path / "report.html", "Title & more", "Summary.", sections)
    page = (tmp_path / "report.html").read_text()
    assert "Title &amp; more" in page
    assert "a &lt; b" in page
    assert "<td>2</td>" in page
    assert re.search(r'src="data:image/png;base64,iVBOR', page)
    assert not re.search(r'(src|href)="(?!data:)', page)
    assert "http" not in page


def test_pots_w2_is_what_it_says_on_gaussians():
    """Gaussian clouds: close to the closed form, from above as finite samples are."""
    a, b = RNG.standard_normal((1500, 2)), 2.0 * RNG.standard_normal((1500, 2)) + 1.0
    closed = ot.gaussian.bures_wasserstein_distance(np.zeros(2), np.ones(2), np.eye(2), 4 * np.eye(2))
    assert ground_truth.wasserstein2(a, b) == pytest.approx(closed, rel=0.05)
