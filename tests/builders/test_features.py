"""The registry of feature networks: files of weights are checked before a run trains, and FID's network has a fallback."""

import numpy as np
import pytest
from safetensors.numpy import save_file

from advdiff_jax import modes
from advdiff_jax.builders.features import FALLBACK, FEATURES, build_features, check_features
from advdiff_jax.builders.validate import resolve
from advdiff_jax.errors import UserError
from advdiff_jax.features import dinov2
from configs import default


def config_of(**evaluation):
    config = default.get_config("ddpm")
    config.evaluation.update({"metrics": ("fd",), "features": "inception"} | evaluation)
    return config


@pytest.mark.parametrize(
    ("evaluation", "overrides", "found", "lines"),
    [
        ({}, [], FALLBACK, 1),
        ({"metrics": ("plane",)}, [], FALLBACK, 0),  # no metric reads features
        ({"weights": "fid.pth"}, [], "inception", 0),
        ({}, ["evaluation.features"], "inception", 0),  # the user asked for it
        ({"features": "dinov2"}, [], "dinov2", 0),
        ({"features": "alexnet"}, [], "alexnet", 0),
    ],
)
def test_a_config_that_names_fid_s_network_without_weights_takes_vgg16_and_says_so(evaluation, overrides, found, lines, caplog):
    config = resolve(config_of(diagnostics=(), **evaluation), overrides, modes.MODES)
    assert config.evaluation.features == found
    assert [message.count("features are those of vgg16") for message in caplog.messages] == [1] * lines
    assert FEATURES[FALLBACK].dimension < config.evaluation.num_samples
    assert not FEATURES[FALLBACK].needs_file


def test_weights_are_read_by_the_networks_of_files_alone():
    with pytest.raises(UserError, match=r"evaluation.weights='a' would not be read: it needs config.evaluation.features="):
        resolve(config_of(features="vgg16", weights="a"), ["evaluation.weights"], modes.MODES)
    resolve(config_of(features="dinov2", weights="a"), ["evaluation.weights", "evaluation.weights_sha256"], modes.MODES)


@pytest.mark.parametrize("name", ["inception", "dinov2"])
@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ("", "config.evaluation: weights='' names no file: set weights to its path"),
        ("none.safetensors", r"config.evaluation: weights=\S+none.safetensors is not a file"),
        (
            "other.safetensors",
            r"config.evaluation: these are not weights of .*(Conv2d_1a_3x3\.conv\.weight|cls_token) is missing",
        ),
        ("damaged.safetensors", r"config.evaluation: \S+damaged.safetensors is damaged \(.*\): copy it again"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_in_one_line_before_a_run_trains(name, weights, message, tmp_path):
    save_file({"features.0.weight": np.zeros((2, 2), np.float32)}, tmp_path / "other.safetensors")
    (tmp_path / "damaged.safetensors").write_bytes(b"damaged")
    config = config_of(features=name, weights=weights and str(tmp_path / weights))
    for call in (check_features, lambda config, shape: build_features(config)):
        with pytest.raises(UserError, match=message) as caught:
            call(config, (8, 8, 3))
        assert "\n" not in str(caught.value)


def test_the_number_of_features_is_the_file_s_and_the_file_is_read_once(tmp_path, monkeypatch):
    shapes = dinov2.shapes(dinov2.FACEBOOK, 384, 2)
    save_file({name: np.zeros(shape, np.float32) for name, shape in shapes.items()}, tmp_path / "s.safetensors")
    read, reads = dinov2.tensor_files.read, []
    monkeypatch.setattr(dinov2.tensor_files, "read", lambda path: reads.append(path) or read(path))
    config = config_of(features="dinov2", weights=str(tmp_path / "s.safetensors"))
    assert [check_features(config, shape) for shape in ((8, 8, 1), (8, 8, 3))] == [384, 384]
    assert len(reads) == 1


@pytest.mark.parametrize("name", ["alexnet", "vgg16"])
def test_the_spec_s_dimension_is_the_network_s(name):
    assert FEATURES[name].build(default.get_config().evaluation).dimension == FEATURES[name].dimension
