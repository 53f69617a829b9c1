"""The diagnostic of the round trip: whose images it takes, that it removes noise, and what it leaves out with a line."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from advdiff_jax.builders.data import build_data
from advdiff_jax.builders.diagnostics import DIAGNOSTICS, DiagnosticInputs, output_of
from advdiff_jax.builders.process import build_process
from advdiff_jax.data import sources
from advdiff_jax.diffusion.schedules import bcast
from advdiff_jax.errors import UserError
from configs import digits


@pytest.fixture
def config():
    config = digits.get_config("ddpm")
    config.sampling.update({"method": "ddim", "steps": 200, "batch_size": 20})
    config.evaluation.update({"denoising_examples": 30, "denoising_levels": (0.1, 0.101, 0.4)})
    return config


def diagnose(config, folder):
    """Diagnoses the exact model of Gaussian data with the mean and the variance of each pixel of clean digits."""
    data, schedule, clean = build_data(config), build_process(config).schedule, sources.digits().train
    mean, variance = clean.mean(axis=0), clean.var(axis=0)

    def predict(x, t):
        alpha, sigma = bcast(schedule.alpha(t), x), bcast(schedule.sigma(t), x)
        return sigma * (x - alpha * mean) / (alpha**2 * variance + sigma**2)

    inputs = DiagnosticInputs(jnp.zeros((4, 8, 8, 1)), data, predict, None, folder)
    return DIAGNOSTICS["denoising"].compute(config, inputs)


def test_a_model_of_clean_data_removes_noise_from_held_out_images(config, tmp_path):
    config.data.held_out = 100
    diagnosis = diagnose(config, tmp_path)
    numbers = diagnosis.numbers
    assert numbers["denoising_dirty_psnr"] == pytest.approx(20 * np.log10(2 / 0.2), abs=0.2)  # noise of std 0.2
    assert numbers["denoising_psnr"] > numbers["denoising_dirty_psnr"] + 0.3
    assert "30 corrupted images of the held-out examples are diffused" in diagnosis.sections[0].text
    drawn = json.loads((tmp_path / "denoising.json").read_text())
    assert len(drawn["level"]) == 2  # 0.1 and 0.101 are one time of the sampler
    np.testing.assert_allclose(drawn["level"], [0.1, 0.4], rtol=0.1)
    assert max(drawn["psnr"]) == numbers["denoising_psnr"]
    assert numbers["denoising_level"] == drawn["level"][int(np.argmax(drawn["psnr"]))]
    assert all(output_of(name).meaning for name in numbers)
    assert all((tmp_path / name).exists() for name in ("denoising.png", "denoising_examples.png"))


def test_training_examples_stand_in_and_a_line_says_so(config, tmp_path):
    text = diagnose(config, tmp_path).sections[0].text
    assert "30 corrupted images of the training examples (set config.data.held_out for others)" in text


def test_clean_data_have_nothing_to_denoise_and_a_line_says_so(config, tmp_path):
    config.data.fraction = 0.0
    diagnosis = diagnose(config, tmp_path)
    assert diagnosis.numbers == {}
    assert diagnosis.sections[0].text.startswith("Left out: none of the training examples")


def test_a_sampler_without_a_grid_is_refused(config, tmp_path):
    config.sampling.method = "ode"
    with pytest.raises(UserError, match=r"config\.sampling\.method='ode' has no grid to start inside of: set ddpm or ddim"):
        diagnose(config, tmp_path)
