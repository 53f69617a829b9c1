"""Metrics by name: those that the data cannot have are refused before training, those with a known truth find it."""

import numpy as np
import pytest

from advdiff_jax.builders import metrics
from advdiff_jax.builders.data import Data, build_data
from advdiff_jax.builders.diagnostics import output_of
from advdiff_jax.builders.outputs import Output, describe
from advdiff_jax.data import sources
from advdiff_jax.errors import UserError
from advdiff_jax.evaluation import fidelity
from configs import default, digits, mixture, plane3d, subspace_digits


@pytest.mark.parametrize(
    ("source", "overrides", "message"),
    [
        (mixture, {"evaluation.metrics": ("plane",)}, r"config\.evaluation\.metrics: plane: data\.source=mixture has no plane"),
        (
            mixture,
            {"evaluation.metrics": ("fd",)},
            r"metrics: fd: evaluation\.features=digits_cnn takes images of shape \(8, 8, 1\)",
        ),
        (mixture, {"evaluation.metrics": ("subspace",)}, r"metrics: subspace: data\.source=mixture has no linear subspace"),
        (digits, {"evaluation.metrics": ("wasserstein",)}, r"metrics: wasserstein: .* data\.source=digits has images"),
        (
            digits,
            {"evaluation.metrics": ("score_error",)},
            r"score_error: .*'digits' is not known, only of plane3d, mixture, gaussian",
        ),
        (
            plane3d,
            {"evaluation.metrics": ("noise_energy",)},
            r"noise_energy: evaluation\.noise_directions=24 exceeds the 3 dim",
        ),
        (
            subspace_digits,
            {"evaluation.num_samples": 10},
            r"subspace: evaluation\.num_samples=10 must exceed data\.subspace_dim=10",
        ),
    ],
)
def test_a_metric_that_the_data_cannot_have_is_refused(source, overrides, message):
    config = source.get_config("ddpm")
    config.data.num_examples = 100
    config.update_from_flattened_dict(overrides)
    with pytest.raises(UserError, match=message):
        metrics.check_metrics(config, build_data(config))


def test_subspace_metrics_of_clean_data_are_zero_and_of_noisy_data_the_noise():
    config = subspace_digits.get_config()
    data = build_data(config)
    metrics.check_metrics(config, data)
    samples = data.source.clean(np.random.default_rng(0), 500)
    results = metrics.evaluate(config, data, samples, None).numbers
    assert results["subspace_distance"] < 1e-5
    assert results["principal_angle_max"] < 1.0
    # Noise of std 0.2 on nine tenths of the images, outside 10 of 64 dimensions.
    assert results["subspace_distance_dirty"] == pytest.approx(0.2 * np.sqrt(data.is_corrupted.mean() * 54 / 64), rel=0.02)
    assert all(output_of(name).meaning for name in results)


def test_the_metrics_of_points_find_what_was_done_to_them():
    config = plane3d.get_config()
    config.data.num_examples, config.evaluation.metrics = 2000, ("plane", "wasserstein")
    data = build_data(config)
    normal = np.ones(3) / np.sqrt(3.0)
    samples = (0.5 * data.source.clean(np.random.default_rng(1), 2000) + 0.03 * normal).astype(np.float32)
    results = metrics.evaluate(config, data, samples, None).numbers
    assert results["off_plane_rms"] == pytest.approx(0.03, rel=1e-4)
    assert results["spread_ratio"] == pytest.approx(0.5, rel=0.05)
    assert results["w2"] == pytest.approx(np.sqrt(0.03**2 + 2 * (0.5 / np.sqrt(3.0)) ** 2), rel=0.05)
    assert results["w2_floor"] < 0.1


def test_what_is_known_of_a_number_by_its_name_or_a_pattern():
    known = {"fd_*_dirty": Output("dirty", None), "fd_x": Output("x"), "fd_*": Output("any", "highest")}
    assert [describe(known, name).meaning for name in ("fd_x_dirty", "fd_x", "fd_y", "w2")] == ["dirty", "x", "any", ""]
    assert (describe(known, "fd_y").best, describe(known, "w2").best) == ("highest", "lowest")


def test_noise_energy_is_measured_on_examples_that_did_not_choose_the_directions():
    """White noise of std 1 has no quiet direction: few examples seem to have some, and others show that they do not."""
    clean = np.random.default_rng(0).standard_normal((200, 50)).astype(np.float32)
    source = sources.Source(clean, lambda rng, n: clean[:n])
    data = Data(source, clean, clean + 0.0, np.arange(200), np.zeros(200, bool))
    config = default.get_config()
    config.evaluation.noise_directions = 5
    inputs = metrics.EvalInputs(clean[:100] * 3.0, data, lambda: clean, lambda examples: examples[:], None)
    found = metrics.METRICS["noise_energy"].compute(config, inputs)
    assert found["noise_energy_clean"] == found["noise_energy_dirty"] == pytest.approx(1.0, rel=0.1)
    in_sample = fidelity.noise_energy({"clean": clean[::2]}, clean[::2], 5)["clean"]
    assert in_sample < 0.5
