"""Near duplicates in features: planted copies are flagged, fresh draws are not, and the bound has the rate that it says."""

import json

import numpy as np
import pytest
import scipy.spatial

from advdiff_jax.builders import metrics
from advdiff_jax.builders.data import build_data
from advdiff_jax.builders.diagnostics import DIAGNOSTICS, DiagnosticInputs, output_of
from advdiff_jax.errors import InvalidArgument
from advdiff_jax.evaluation import memorization
from configs import digits, plane3d

pytestmark = pytest.mark.usefixtures("unpainted")

RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def config():
    config = digits.get_config("ddpm")
    config.data.held_out, config.data.flip = 800, True
    return config


@pytest.fixture(scope="module")
def data(config):
    """Every second held-out digit calibrates the bound, the others are fresh draws; the source is in order of its writers."""
    found = build_data(config)
    calibrating = np.arange(0, 800, 2)
    return found._replace(held_out=found.held_out[calibrating], held_out_dirty=found.held_out_dirty[calibrating])


@pytest.fixture(scope="module")
def fresh(config):
    found = build_data(config)
    rest = np.arange(1, 800, 2)
    return {"clean": found.held_out[rest], "dirty": found.held_out_dirty[rest]}


def diagnose(config, data, samples, folder):
    return DIAGNOSTICS["similarity"].compute(config, DiagnosticInputs(samples, data, None, None, folder))


def test_planted_copies_are_flagged(config, data, fresh, tmp_path):
    """A tenth of the samples repeats training examples with a little noise, half of them mirrored; the others are fresh."""
    rows = np.arange(0, 400, 10)
    samples = fresh["clean"].copy()
    samples[rows] = data.train[rows] + 0.03 * RNG.standard_normal((40, 8, 8, 1)).astype(np.float32)
    samples[rows[::2]] = samples[rows[::2], :, ::-1]
    diagnosis = diagnose(config, data, samples, tmp_path)
    assert diagnosis.numbers["memorized_digits_cnn"] == pytest.approx(0.1, abs=0.02)
    assert "near duplicates of training examples in digits_cnn" in diagnosis.warning
    written = json.loads((tmp_path / "similarity.json").read_text())
    assert [written["nearest"][row] for row in rows] == rows.tolist()
    worst = np.argsort(written["samples"])[::-1][:30]
    assert set(worst) <= set(rows)  # the page begins with them
    assert all((tmp_path / name).exists() for name in ("similarity.png", "similar_pairs.png"))
    assert all(output_of(name).meaning for name in diagnosis.numbers)


@pytest.mark.parametrize("kind", ["clean", "dirty"])
def test_fresh_draws_are_not_flagged(config, data, fresh, tmp_path, kind):
    diagnosis = diagnose(config, data, fresh[kind], tmp_path)
    assert diagnosis.warning == ""
    assert diagnosis.numbers["memorized_digits_cnn"] <= 0.02
    assert diagnosis.numbers["memorized_digits_cnn_expected"] == pytest.approx(4 / 401)


def test_without_held_out_examples_there_is_no_bound_and_a_line_says_so(config, data, fresh, tmp_path):
    diagnosis = diagnose(config, data._replace(held_out=None, held_out_dirty=None), fresh["clean"], tmp_path)
    assert diagnosis.numbers.keys() == {"nn_similarity_digits_cnn"}
    assert "set config.data.held_out" in diagnosis.sections[0].text


def test_the_nearest_example_is_that_of_brute_force_in_blocks(monkeypatch):
    samples, train = RNG.standard_normal((30, 4, 4, 1)), RNG.standard_normal((50, 4, 4, 1)).astype(np.float32)
    monkeypatch.setattr(memorization, "BLOCK", 7)
    flat = lambda images: images.reshape(len(images), -1)
    found = memorization.most_similar(flat, {"samples": samples}, train, mirrored=True)["samples"]
    both = np.concatenate([train, train[:, :, ::-1]])
    cosines = 1.0 - scipy.spatial.distance.cdist(flat(samples), flat(both), "cosine")
    np.testing.assert_allclose(found.similarity, cosines.max(axis=1), rtol=1e-5)
    np.testing.assert_array_equal(found.index + 50 * found.is_mirrored, cosines.argmax(axis=1))


@pytest.mark.parametrize(("count", "rank"), [(400, 4), (50, 1), (99, 1), (199, 2)])
def test_the_bound_has_the_rate_and_the_p_value_that_it_says(count, rank):
    """Over many draws from one distribution, whatever it is."""
    draws = RNG.uniform(size=(4000, count + 20))
    bounds = [memorization.calibrate(draw[:count], 0.01) for draw in draws]
    flagged = np.array([np.sum(draw[count:] > bound.similarity) for draw, bound in zip(draws, bounds, strict=True)])
    assert bounds[0].rank == rank
    assert flagged.mean() / 20 == pytest.approx(bounds[0].rate, rel=0.1)
    for at_least in (1, 2):
        assert np.mean(flagged >= at_least) == pytest.approx(bounds[0].p_value(at_least, 20), abs=0.015)


def test_the_ratio_in_pixels_is_given_for_held_out_examples_too(config, data):
    small = data._replace(train=data.train[:300])
    config = config.copy_and_resolve_references()
    config.evaluation.metrics = ("memorization",)
    results = metrics.evaluate(config, small, small.train[:20], None).numbers
    assert results["near_duplicates"] == 1.0
    assert results["near_duplicates_held_out"] < 0.05
    assert 0.8 < results["nn_distance_ratio_held_out"] < results["nn_distance_ratio_held_out_dirty"] < 1.0
    assert all(output_of(name).meaning for name in results)


def test_points_are_refused(tmp_path):
    config = plane3d.get_config("ddpm")
    config.data.num_examples = 50
    data = build_data(config)
    for name in ("similarity", "noise_levels", "denoising"):
        with pytest.raises(InvalidArgument, match=rf"{name} needs images, and data\.source=plane3d has none"):
            DIAGNOSTICS[name].compute(config, DiagnosticInputs(data.train, data, None, None, tmp_path))
