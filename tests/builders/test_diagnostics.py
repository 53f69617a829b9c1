"""The gain diagnostic: what it measures on samples, what it draws beside it, and its warning."""

import json

import numpy as np
import pytest

from advdiff_jax.builders.data import build_data
from advdiff_jax.builders.diagnostics import DIAGNOSTICS, DiagnosticInputs
from configs import gaussian, plane3d


def diagnose(config, folder, noise_floor, scale=1.0):
    """Diagnoses samples that are the training data, scaled."""
    data = build_data(config)
    return DIAGNOSTICS["gain"].compute(config, DiagnosticInputs(scale * data.train, data, None, noise_floor, folder))


@pytest.mark.parametrize(("source", "level", "warns"), [(gaussian, 0.25, True), (plane3d, 0.1655, False)])
def test_a_noise_floor_near_the_scale_of_the_data_is_warned_of(tmp_path, source, level, warns):
    """Clean data of one scale have their noise floor at half of it; a plane under noise of std 0.2 has this one."""
    config = source.get_config("robust_fast")
    config.data.stds, config.data.num_examples = (0.5,) * 5, 2000
    config.data.fraction, config.data.noise_std = (0.0, 0.1) if warns else (0.9, 0.2)
    diagnosis = diagnose(config, tmp_path, level)
    assert (f"noise floor {level:.3g} is near the data's own scale" in diagnosis.warning) == warns
    (section,) = diagnosis.sections
    assert ("Warning: the noise floor" in section.text) == warns


def test_the_measured_gain_is_that_of_the_samples_and_its_error_is_to_the_sampled_curve(tmp_path):
    config = gaussian.get_config("ddpm")
    config.data.num_examples, config.sampling.method = 20_000, "dpm_solver_2m"
    numbers = diagnose(config, tmp_path, None, scale=0.8).numbers
    assert numbers["gain_largest"] == pytest.approx(0.8, rel=0.03)
    assert numbers["gain_smallest"] == pytest.approx(0.8, rel=0.03)
    assert numbers["gain_error"] == pytest.approx(0.2, abs=0.03)  # plain denoising keeps all
    drawn = json.loads((tmp_path / "gain.json").read_text())
    np.testing.assert_allclose(drawn["std"], sorted(config.data.stds, reverse=True), rtol=0.05)
    np.testing.assert_allclose(drawn["gain"], 0.8, rtol=0.03)


def test_without_a_closed_form_the_gain_has_no_error(tmp_path):
    config = gaussian.get_config("at_diff")
    config.data.num_examples = 1000
    diagnosis = diagnose(config, tmp_path, None)
    assert diagnosis.numbers.keys() == {"gain_largest", "gain_smallest"}
    assert "has no closed form of the gain" in diagnosis.sections[0].text
