"""Models that come through `config.init_from`: used without training, refused where they do not fit, and one line each."""

import json
import re

import jax
import numpy as np
import pytest

from advdiff_jax import modes, workdir
from advdiff_jax.builders.experiment import build_experiment
from advdiff_jax.builders.pretrained import read_initial
from advdiff_jax.builders.validate import resolve
from advdiff_jax.data import sources
from advdiff_jax.errors import UserError
from advdiff_jax.interop import diffusers
from advdiff_jax.modes import evaluate, poison, sample, train
from advdiff_jax.modes import inspect as inspect_mode
from advdiff_jax.noise import measure
from configs import finetune_cifar10, pretrained
from tests.interop.models import write
from tests.launching import call

pytestmark = pytest.mark.usefixtures("unpainted")


def on_digits(folder, overrides=(), variant=None, **more):
    config = pretrained.get_config(variant)
    config.init_from, config.data.source = str(folder), "digits"
    config.sampling.update({"steps": 3, "batch_size": 2})
    config.evaluation.update({"num_samples": 16, "grid": 16})
    config.update_from_flattened_dict(more)
    return resolve(config, [*overrides, *more])


# The smallest network: most of the time of these tests is its compilation.
ONE_LEVEL = {
    "block_out_channels": [8],
    "down_block_types": ["DownBlock2D"],
    "up_block_types": ["UpBlock2D"],
    "add_attention": False,
    "attention_head_dim": None,
}
TWO_STEPS = {"train.steps": 2, "train.batch_size": 8, "train.warmup_steps": 1, "train.decay": "constant"}


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """32 digits in a file."""
    path = tmp_path_factory.mktemp("images") / "digits.npy"
    np.save(path, sources.digits().train[:32])
    return {"data.source": "array", "data.path": str(path)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("diffusers")
    write(path, ONE_LEVEL)
    return path


def test_network_and_process_follow_the_folder_and_the_rest_may_be_set(folder):
    config = on_digits(folder)
    assert config.network.kind == "unet"
    assert config.network.down_block_types == ("DownBlock2D",)
    assert (config.network.time_input, config.network.norm_eps) == ("ddpm_index", 1e-6)
    assert (config.data.size, config.data.channels, config.sampling.clip) == (8, 1, 1.0)
    chosen = {"sampling.clip": 0.0, "sampling.method": "ddim", "network.dropout": 0.1, "data.size": 16}
    chosen = on_digits(folder, **chosen, **{"data.source": "photo_crops"})
    assert (chosen.sampling.clip, chosen.sampling.method, chosen.network.dropout, chosen.data.size) == (0.0, "ddim", 0.1, 16)


def test_a_model_is_used_without_training_then_trained_and_then_followed(folder, images, tmp_path):
    config = on_digits(folder, **images, **TWO_STEPS)
    sample.run(config, tmp_path / "run")
    first = np.load(tmp_path / "run" / "samples" / "step_0.npy")
    assert first.shape == (16, 8, 8, 1)
    evaluate.run(config, tmp_path / "run")
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results.keys() == {"nn_distance_ratio", "near_duplicates", "train_seconds"}
    np.testing.assert_array_equal(np.load(tmp_path / "run" / "samples" / "step_0.npy"), first)
    assert not workdir.is_trained(tmp_path / "run")

    train.run(config, tmp_path / "run")
    assert workdir.is_trained(tmp_path / "run")
    follower = on_digits(tmp_path / "run", **images)
    assert workdir.flatten(follower.network) == workdir.flatten(config.network)
    before, after = (read_initial(one, build_experiment(one, (8, 8, 1))).params for one in (config, follower))
    assert max(jax.tree.leaves(jax.tree.map(lambda a, b: float(np.abs(a - b).max()), before, after))) > 0.0


def test_the_final_step_changes_samples_alone(folder, images, tmp_path):
    sample.run(on_digits(folder, **images), tmp_path)
    final = on_digits(folder, **images, **{"sampling.final_denoise": 0.2, "sampling.final_draws": 2})
    out = sample.run(final, tmp_path)
    assert out.parent.parent.parent.name == "evaluations"
    before, after = (np.load(path.with_suffix(".npy")) for path in (tmp_path / "samples" / "step_0.png", out))
    assert before.dtype == after.dtype == np.uint8  # samples of 8-bit images
    assert np.any(before != after)


def test_the_noise_of_the_data_is_measured_for_a_model_in_a_new_workdir(folder, images, tmp_path):
    """Also after a try that failed, which may have had other data of as many examples."""
    measured = on_digits(folder, **images, **{"sampling.final_denoise": "measured", "sampling.final_draws": 2})
    tmp_path.joinpath("noise.npz").write_bytes(b"of other data")
    out = sample.run(measured, tmp_path)
    assert out == tmp_path / "samples" / "step_0.png"
    assert len(measure.load(tmp_path / "noise.npz").std) == 32
    sample.run(measured, tmp_path)


def test_a_model_of_diffusers_is_poisoned_against(folder, images, tmp_path):
    attack = {"poison.checkpoint": str(folder), "poison.attack_steps": 1, "poison.draws": 1, "poison.batch_size": 32}
    assert poison.run(on_digits(folder, **images, **attack), tmp_path).exists()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"network.heads": 2}, r"config\.network\.heads follows config\.init_from=.*: leave it out"),
        ({"diffusion.grid_steps": 100}, r"config\.diffusion\.grid_steps follows config\.init_from="),
    ],
)
def test_an_override_of_what_the_weights_fix_is_refused(folder, overrides, message):
    with pytest.raises(UserError, match=message):
        on_digits(folder, **overrides)


def test_a_config_of_another_network_is_refused_with_the_way_out(folder, tmp_path):
    config = on_digits(folder)
    with config.unlocked():
        config.network.norm_eps = 1e-5
    message = r"another network or process: network\.norm_eps \(1e-06 there, 1e-05 here\); .*pretrained takes both from there"
    with pytest.raises(UserError, match=message):
        sample.run(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_tensors_that_do_not_fit_are_named_in_one_line_and_listed_by_inspect(tmp_path, capsys):
    def edit(tensors):
        del tensors["conv_in.bias"]
        return tensors | {f"extra.{i}": np.zeros(1, np.float32) for i in range(6)}

    write(tmp_path / "model", edit=edit)
    config = on_digits(tmp_path / "model")
    with pytest.raises(UserError) as caught:
        sample.run(config, tmp_path / "run")
    extra = "not used 6 (extra.0, extra.1, extra.2, extra.3, ...)"
    assert f"does not fit the network; its tensors: missing 1 (conv_in.bias); {extra}; --mode=inspect" in str(caught.value)
    assert not (tmp_path / "run").exists()
    page = inspect_mode.run(config, tmp_path / "inspected")
    printed = capsys.readouterr().out
    assert printed.strip() == page.read_text().strip()
    for line in ("tensors missing: 1", "  conv_in.bias", "tensors not used: 6", "  extra.5", "tensors of another shape: none"):
        assert line in printed.splitlines()
    assert re.search(r"parameters +44,969\n", printed)
    assert re.search(r"network\.norm_eps +1e-06\n", printed)


def test_the_command_line(folder, tmp_path):
    shared = ["--config=configs/pretrained.py", "--config.data.source=digits", f"--workdir={tmp_path / 'run'}"]
    found = call(*shared, "--mode=sample")
    assert (found.returncode, found.stderr.count("\n")) == (2, 1)
    assert "needs a model: set config.init_from" in found.stderr
    found = call(*shared, f"--config.init_from={tmp_path}/nothing", "--mode=sample")
    assert found.returncode == 2
    assert "holds no run and no model" in found.stderr
    small = ["--config.sampling.steps=2", "--config.sampling.batch_size=2", "--config.evaluation.num_samples=16"]
    found = call(*shared, *small, f"--config.init_from={folder}", "--mode=sample")
    assert found.returncode == 0, found.stderr
    found = call(*shared, *small, f"--config.init_from={folder}", "--mode=gain", "--config.diffusion.prediction=v")
    assert found.returncode == 2
    assert "config.diffusion.prediction follows config.init_from" in found.stderr


def test_data_are_prepared_and_shown_before_there_is_a_model():
    config = resolve(finetune_cifar10.get_config(), (), modes.MODES, "preview")
    assert config.network.kind == "pretrained"
    with pytest.raises(UserError, match="needs a model"):
        resolve(finetune_cifar10.get_config(), (), modes.MODES, "gain")


def test_a_damaged_folder_is_one_line(folder, tmp_path):
    write(tmp_path)
    (tmp_path / "scheduler" / "scheduler_config.json").write_text('{"_class_name": "PNDMScheduler"}')
    with pytest.raises(UserError, match=r"^config\.init_from=.*: scheduler_config\.json has _class_name='PNDMScheduler'"):
        on_digits(tmp_path)
    (tmp_path / "unet" / diffusers.WEIGHTS).unlink()
    (tmp_path / "scheduler" / "scheduler_config.json").write_text('{"_class_name": "DDIMScheduler"}')
    with pytest.raises(UserError, match=r"holds no diffusion_pytorch_model\.safetensors"):
        sample.run(on_digits(tmp_path), tmp_path / "run")
