"""`--mode=export`: what is written is read back as the same model, and what diffusers cannot express is refused."""

import json

import jax
import numpy as np
import pytest

from advdiff_jax import workdir
from advdiff_jax.builders.data import build_data
from advdiff_jax.builders.experiment import build_experiment
from advdiff_jax.builders.pretrained import read_initial
from advdiff_jax.builders.validate import resolve
from advdiff_jax.data import sources
from advdiff_jax.errors import UserError
from advdiff_jax.interop import diffusers
from advdiff_jax.modes import export
from configs import digits, pretrained
from tests.interop.models import UNET, write


def on(source, path, **more):
    config = pretrained.get_config()
    config.init_from = str(path)
    config.update_from_flattened_dict({"data.source": "array", "data.path": str(source), **more})
    return resolve(config)


def of_digits(source, **more):
    config = digits.get_config("ddpm")
    small = {"base_channels": 8, "channel_mults": (1,), "attention_resolutions": (8,), "heads": 2, "norm_num_groups": 4}
    config.network.update(small)
    config.train.update({"steps": 2, "batch_size": 8, "warmup_steps": 1})
    config.sampling.update({"steps": 2, "batch_size": 2})
    config.evaluation.update({"num_samples": 16, "grid": 16, "diagnostics": (), "metrics": ("memorization",)})
    config.update_from_flattened_dict({"data.source": "array", "data.path": str(source), "data.size": 8, "data.channels": 1})
    config.update_from_flattened_dict(more)
    return resolve(config)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    path = tmp_path_factory.mktemp("images") / "digits.npy"
    np.save(path, sources.digits().train[:32])
    return path


def test_a_folder_goes_through_unchanged(source, tmp_path):
    scheduler = {"prediction_type": "v_prediction", "clip_sample": False, "beta_schedule": "squaredcos_cap_v2"}
    params = write(tmp_path / "model", {"attention_head_dim": None}, scheduler)
    config = on(source, tmp_path / "model")
    page = export.run(config, tmp_path / "run")
    assert page == tmp_path / "run" / "export" / "README.md"
    written, given = (diffusers.read_settings(path) for path in (page.parent, tmp_path / "model"))
    assert written == given
    again = on(source, page.parent)
    jax.tree.map(np.testing.assert_array_equal, read_initial(again, build_experiment(again, (8, 8, 1))).params, params)
    unet = json.loads((page.parent / "unet" / "config.json").read_text())
    assert {key: unet[key] for key in UNET} == UNET | {"attention_head_dim": None}
    index = json.loads((page.parent / "model_index.json").read_text())
    assert index["unet"] == ["diffusers", "UNet2DModel"]
    assert index["scheduler"] == ["diffusers", "DDPMScheduler"]
    assert "- Trained: not at all, from model;" in page.read_text()
    assert "final step" not in page.read_text()


def test_a_folder_has_no_final_step_and_says_so(source, tmp_path, caplog):
    write(tmp_path / "model")
    page = export.run(on(source, tmp_path / "model", **{"sampling.final_denoise": 0.2}), tmp_path / "run")
    lost = (
        "final step that removes noise of std 0.2. A folder of diffusers has none: its pipeline draws images with that noise."
    )
    assert lost in caplog.text
    assert lost in page.read_text()


@pytest.mark.parametrize("time_input", ["t", "step"])
def test_a_model_of_ours_predicts_the_same_at_ddpms_indices(source, tmp_path, time_input):
    """With `t` our networks see the time 1, ..., T where DDPM's see 0, ..., T - 1: the export turns the time embedding."""
    config = of_digits(source)
    config.network.time_input = time_input
    mine, rng = build_experiment(config, (8, 8, 1)), np.random.default_rng(0)
    shapes = jax.eval_shape(mine.init, jax.random.key(0))
    params = jax.tree.map(lambda leaf: 0.2 * rng.standard_normal(leaf.shape, np.float32), shapes)
    diffusers.write(tmp_path / "export", *export.describe(config, (8, 8, 1), params))
    again = on(source, tmp_path / "export")
    assert again.network.time_input == "ddpm_index"
    theirs = build_experiment(again, (8, 8, 1))
    found = read_initial(again, theirs).params
    x, t = jax.random.normal(jax.random.key(0), (4, 8, 8, 1)), np.array([1, 2, 500, 1000], np.float32) / 1000
    wanted = mine.predict(params, x, t)
    np.testing.assert_allclose(theirs.predict(found, x, t), wanted, atol=1e-3 * np.abs(wanted).max())
    not_turned = {**found, "time_0": params["time_0"]}
    differs = np.abs(theirs.predict(not_turned, x, t) - wanted).max() > 1e-2 * np.abs(wanted).max()
    assert differs == (time_input == "t")


def test_the_model_card_says_what_the_model_is(source, tmp_path):
    config = of_digits(source)
    workdir.write_json(tmp_path / "results.json", {"nn_distance_ratio": 0.9375, "train_seconds": 3.0})
    text = export.card(config, build_data(config), tmp_path, step=2)
    for line in (
        "# digits, ddpm",
        "- Data: array, images of 8x8x1.",
        "- Variant: `ddpm` (objective `denoising`) of advdiff_jax.",
        "- Trained: 2 steps of 8 examples; averaged weights, decay 0.999.",
        "## Metrics, n = 16 samples",
    ):
        assert line in text.splitlines()
    assert "of 32 training examples corrupted by gaussian; the noise has standard deviation 0.2, images in [-1, 1]." in text
    assert "train_seconds" not in text
    assert "| `nn_distance_ratio` | 0.9375 | distance to the nearest" in text


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"diffusion.grid_steps": 0}, r"config\.diffusion\.grid_steps=0: diffusers' schedulers need a discrete grid"),
        ({"diffusion.prediction": "score"}, r"--mode=export: prediction='score': diffusers' schedulers know eps, x0, v only"),
        ({"network.time_input": "log_noise"}, r"--mode=export: network\.time_scale=1000 on 1000 steps: the network sees"),
        ({"objective": "ambient_guess"}, r"config\.objective=ambient_guess learns nothing below a noise-to-signal of 0\.105"),
        (
            {"network.norm_num_groups": 0},
            r"--mode=export: norm_num_groups=0: its norms have 2 and 4 and 6 and 8 groups, .* train with",
        ),
    ],
)
def test_what_diffusers_cannot_express_is_refused(overrides, message, source, tmp_path):
    write(tmp_path / "model")
    config = on(source, tmp_path / "model")
    with config.unlocked():
        config.update_from_flattened_dict({"network.time_scale": 1000.0, "network.time_input": "t"} | overrides)
    with pytest.raises(UserError, match=message):
        export.describe(config, (8, 8, 1), read_initial(config, build_experiment(config, (8, 8, 1))).params)
