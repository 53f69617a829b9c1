"""Compares metrics with closed forms and brute force, and figures and reports with what a reader needs."""

import re

import markupsafe
import numpy as np
import ot
import pytest
import scipy.linalg

from advdiff_jax.data import sources
from advdiff_jax.data.pixels import to_float
from advdiff_jax.errors import InvalidArgument
from advdiff_jax.evaluation import fidelity, figures, ground_truth, memorization, report

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
    moments = [x.mean(0) for x in (a, b)] + [np.cov(x.T) + 1e-9 * np.eye(64) for x in (a, b)]
    assert fidelity.frechet_distance(a, b) == pytest.approx(ot.gaussian.bures_wasserstein_distance(*moments) ** 2, rel=1e-4)
    few, others = a[:40], b[:40]  # POT returns NaN; the centred examples themselves are roots of their covariances
    roots = [(x - x.mean(0)) / np.sqrt(39) for x in (few, others)]
    cross = np.linalg.svd(roots[0] @ roots[1].T, compute_uv=False).sum()
    expected = np.sum((few.mean(0) - others.mean(0)) ** 2) + sum(np.sum(root**2) for root in roots) - 2 * cross
    assert fidelity.frechet_distance(few, others) == pytest.approx(expected, rel=1e-6)


def test_noise_energy_is_the_noise_in_quiet_directions():
    basis = np.linalg.qr(RNG.standard_normal((10, 10)))[0]
    clean = RNG.standard_normal((4000, 4)) @ basis[:4] + 3.0
    noisy = clean + 0.2 * RNG.standard_normal(clean.shape)
    stretched = 2.0 * (clean - 3.0) + 3.0  # signal is not noise
    found = fidelity.noise_energy({"clean": clean, "noisy": noisy, "stretched": stretched}, clean, 6)
    assert found == {name: pytest.approx(0.2 if name == "noisy" else 0.0, rel=0.02, abs=1e-6) for name in found}
    with pytest.raises(InvalidArgument, match="1 to 10 directions"):
        fidelity.noise_energy({"clean": clean}, clean, 11)


def test_copies_are_near_duplicates_and_fresh_draws_are_not():
    train, fresh = RNG.standard_normal((500, 8, 8, 1)), RNG.standard_normal((100, 8, 8, 1))
    copies = memorization.nearest_neighbours(train[:100] + 0.01 * fresh, train)
    assert copies["near_duplicates"] == 1.0
    assert copies["nn_distance_ratio"] < 0.05
    new = memorization.nearest_neighbours(fresh, train)
    assert new["near_duplicates"] == 0.0
    assert 0.9 < new["nn_distance_ratio"] <= 1.0
    # A training set that holds every example twice says the same of both.
    twice = np.concatenate([train, train])
    copies = memorization.nearest_neighbours(train[:100], twice)
    assert copies == {"nn_distance_ratio": pytest.approx(0.0, abs=1e-6), "near_duplicates": 1.0}
    assert memorization.nearest_neighbours(fresh, twice) == new
    with pytest.raises(InvalidArgument, match="two distinct training examples: the 5 given are equal"):
        memorization.nearest_neighbours(fresh, np.zeros((5, 8, 8, 1)))


def test_a_copy_is_found_in_any_block_and_mirrored(monkeypatch):
    train, fresh = RNG.integers(0, 256, (500, 6, 6, 1), np.uint8), RNG.integers(0, 256, (100, 6, 6, 1), np.uint8)
    whole = memorization.nearest_neighbours(to_float(fresh), train)
    monkeypatch.setattr(memorization, "BLOCK", 7)
    assert memorization.nearest_neighbours(to_float(fresh), train) == pytest.approx(whole)
    copies = to_float(train[5::50])
    mirrors = copies[:, :, ::-1]
    assert memorization.nearest_neighbours(copies, train)["near_duplicates"] == 1.0
    assert memorization.nearest_neighbours(mirrors, train)["near_duplicates"] == 0.0
    symmetric = np.maximum(train, train[:, :, ::-1])  # the mirror image of an example is no other example
    for samples, examples in ((copies, train), (mirrors, train), (to_float(symmetric[::50]), symmetric)):
        found = memorization.nearest_neighbours(samples, examples, mirrored=True)
        assert found == {"nn_distance_ratio": pytest.approx(0.0, abs=1e-6), "near_duplicates": 1.0}
    both = np.concatenate([train, train[:, :, ::-1]])
    assert memorization.nearest_neighbours(to_float(fresh), both, mirrored=True) == pytest.approx(
        memorization.nearest_neighbours(to_float(fresh), train, mirrored=True)
    )


def _shown(figure):
    (axes,) = figure.axes
    return np.asarray(axes.images[0].get_array())


def test_a_grid_of_images_shows_every_pixel():
    shown = np.linspace(-1, 1, 4 * 4).reshape(4, 2, 2, 1)
    canvas = _shown(figures.grid(shown, 4))
    assert canvas.shape == (7, 7)  # 2 x 2 images of 2 x 2 pixels, and gaps
    np.testing.assert_allclose(canvas[1:3, 1:3], shown[0, ..., 0] / 2 + 0.5)
    np.testing.assert_allclose(canvas[4:6, 4:6], shown[3, ..., 0] / 2 + 0.5)
    np.testing.assert_array_equal(canvas[[0, 3, 6]], 1.0)
    colours = np.linspace(-1, 1, 5 * 4 * 4 * 3).reshape(5, 4, 4, 3)
    canvas = _shown(figures.grid(colours, 5))
    assert canvas.shape == (11, 11, 3)
    np.testing.assert_allclose(canvas[6:10, 1:5], colours[2] / 2 + 0.5)


def test_a_grey_range_shows_noise_on_black_and_on_white():
    rng = np.random.default_rng(1)
    noisy = rng.choice([-1.0, 1.0], (64, 8, 8, 1)) + 0.4 * rng.standard_normal((64, 8, 8, 1))
    limit = figures.value_limit(noisy)
    assert np.mean(np.abs(noisy) > limit) < 0.005 < np.mean(np.abs(noisy) > limit - 0.2)
    assert limit == pytest.approx(round(limit, 1))  # a caption can name it
    canvas = _shown(figures.show(noisy, noisy, None, 64))
    np.testing.assert_allclose(canvas[1:9, 1:9], np.clip(noisy[0, ..., 0] / (2 * limit) + 0.5, 0, 1))
    assert figures.grey_range(2.0) == " Black is -2, white 2."


def test_eight_bit_images_and_clean_floats_are_shown_as_a_viewer_shows_them():
    for images in (np.array([[0, 255]], np.uint8), np.array([[-1.0, 0.9]]), np.array([[-0.1, 0.1]])):
        assert figures.value_limit(images) == 1.0
    assert figures.grey_range(1.0) == ""
    beyond = np.array([-2.0, -1.0, 1.0, 3.0]).reshape(1, 2, 2, 1)
    canvas = _shown(figures.show(beyond, np.zeros((1, 2, 2, 1), np.uint8), None, 1))
    np.testing.assert_array_equal(canvas[1:3, 1:3], [[0, 0], [1, 1]])


def test_points_of_a_plane_are_seen_from_its_edge():
    source = sources.plane3d(100, 0, 1.0)
    edge, above = figures.show(source.train, source.train, source.plane, 64).axes
    np.testing.assert_allclose(edge.collections[0].get_offsets()[:, 1], 0.0, atol=1e-6)
    on_plane = source.train @ source.plane.T
    np.testing.assert_allclose(above.collections[0].get_offsets(), on_plane, atol=1e-6)
    assert above.get_xlim() == pytest.approx((-1.3 * np.abs(source.train).max(), 1.3 * np.abs(source.train).max()))


def test_training_curves_have_a_panel_a_metric_and_a_logarithm_where_it_exists():
    rows = [{"step": step, "loss": 1.0 / step, "margin": step - 2.0, "steps_per_second": 3.0} for step in (1, 2, 4)]
    loss, margin = figures.curves(rows).axes
    np.testing.assert_allclose(loss.lines[0].get_xydata(), [[1, 1], [2, 0.5], [4, 0.25]])
    assert [axes.get_title() for axes in (loss, margin)] == ["loss", "margin"]
    assert [axes.get_yscale() for axes in (loss, margin)] == ["log", "linear"]


def test_the_report_is_one_self_contained_page(tmp_path):
    rows = [{"step": step, "loss": 1.0 / step, "steps_per_second": 3.0} for step in (1, 2)]
    figures.curves(rows).savefig(tmp_path / "curves.png")
    curve = report.image(tmp_path / "curves.png", "curve")
    sections = [report.Section("One", "a < b", [("h", "k"), ("1", "2")], [curve], "pre")]
    report.write_report(tmp_path / "report.html", "Title & more", "Summary.", sections)
    page = (tmp_path / "report.html").read_text()
    assert "Title &amp; more" in page
    assert "a &lt; b" in page
    assert '<td class="words">1</td><td>2</td>' in page
    assert re.search(r'src="data:image/png;base64,iVBOR', page)
    assert not re.search(r'(src|href)="(?!data:)', page)
    assert "http" not in page


def test_columns_of_words_are_aligned_left_and_numbers_right():
    bold = markupsafe.Markup("<b>0.1 ± 0.008</b>")
    table = [("name", "value", "meaning"), ("w2", bold, "2-Wasserstein distance"), ("n", "", ""), ("rate", "1.2e+05", "3")]
    assert report.are_words(table) == [True, False, True]
    assert report.are_words([("s", "a", "b", "c"), ("0.1", "12 %", "-inf", "nan")]) == [True, False, False, False]
    assert report.are_words([("run", "w2")]) == [True, False]


def test_pots_w2_is_what_it_says_on_gaussians():
    """Gaussian clouds: close to the closed form, from above as finite samples are."""
    a, b = RNG.standard_normal((1500, 2)), 2.0 * RNG.standard_normal((1500, 2)) + 1.0
    closed = ot.gaussian.bures_wasserstein_distance(np.zeros(2), np.ones(2), np.eye(2), 4 * np.eye(2))
    assert ground_truth.wasserstein2(a, b) == pytest.approx(closed, rel=0.05)
