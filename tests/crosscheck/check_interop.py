"""Models of diffusers, in and out: the same outputs, input gradients and samples in either library.

Runs in an environment of its own (`make crosscheck`), because it needs torch. Weights are random but for the last tests, which
train on handwritten digits.
"""

import functools
import json
import pathlib
import subprocess

import diffusers
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

import tests.crosscheck.without_kernels  # noqa: F401 - before what imports torchvision
from advdiff_jax.builders.data import build_data
from advdiff_jax.builders.experiment import build_experiment, build_network
from advdiff_jax.builders.pretrained import restore
from advdiff_jax.builders.process import build_process, build_schedule
from advdiff_jax.builders.validate import resolve
from advdiff_jax.errors import InvalidArgument, UserError
from advdiff_jax.evaluation import figures
from advdiff_jax.interop import diffusers as interop
from advdiff_jax.interop import state_dicts
from advdiff_jax.interop.diffusers_config import read_scheduler
from advdiff_jax.interop.tensors import from_tensors
from advdiff_jax.modes import export
from advdiff_jax.sampling import grids, steps
from advdiff_jax.sampling.sample import sample
from configs import default, digits, pretrained
from tests.crosscheck import improved_ddpm
from tests.launching import ROOT, command, environment

torch.set_num_threads(1)  # small layers gain nothing from more, and lose much where other programs hold the cores

DDPM_256 = {
    "sample_size": 64,  # of 256, to save time: no layer depends on it
    "block_out_channels": (128, 128, 256, 256, 512, 512),
    "down_block_types": (*["DownBlock2D"] * 4, "AttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "AttnUpBlock2D", *["UpBlock2D"] * 4),
}
DDPM = {
    "layers_per_block": 2,
    "downsample_padding": 0,
    "flip_sin_to_cos": False,
    "freq_shift": 1,
    "norm_eps": 1e-6,
    "attention_head_dim": None,
}
CHECKPOINTS = {
    "ddpm-cifar10-32": {
        **DDPM,
        "sample_size": 32,
        "block_out_channels": (128, 256, 256, 256),
        "down_block_types": ("DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
    },
    "ddpm-celebahq-256": {**DDPM, **DDPM_256},
    "ddpm-bedroom-256": {**DDPM, **DDPM_256, "sample_size": 32},
}
# Together they have every option, and each value of it.
SMALL = {
    "sample_size": 16,
    "in_channels": 1,
    "out_channels": 1,
    "layers_per_block": 1,
    "block_out_channels": (16, 24, 32),
    "norm_num_groups": 4,
}
OPTIONS = {
    "one side up, the other down": {
        "down_block_types": ("AttnDownBlock2D", "ResnetDownsampleBlock2D", "DownBlock2D"),
        "up_block_types": ("AttnUpBlock2D", "ResnetUpsampleBlock2D", "UpBlock2D"),
        "downsample_type": "resnet",
        "upsample_type": "resnet",
        "resnet_time_scale_shift": "scale_shift",
        "attention_head_dim": 8,
        "out_channels": 2,
    },
    "scale-shift with a norm in the middle": {
        "down_block_types": ("DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"),
        "up_block_types": ("UpBlock2D", "UpBlock2D", "AttnUpBlock2D"),
        "downsample_type": "resnet",
        "resnet_time_scale_shift": "scale_shift",
        "attn_norm_num_groups": 8,
        "attention_head_dim": 4,
        "norm_eps": 1e-3,
        "center_input_sample": True,
    },
    "no attention, sizes of a photograph": {
        "down_block_types": ("UNetResDownBlock2D", "ResnetDownsampleBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "UpBlock2D", "ResnetUpsampleBlock2D"),
        "add_attention": False,
        "downsample_padding": 0,
        "flip_sin_to_cos": False,
        "freq_shift": 1,
        "in_channels": 3,
        "out_channels": 3,
        "sample_size": (8, 16),
        "act_fn": "swish",
    },
}
ALL = CHECKPOINTS | {name: SMALL | options for name, options in OPTIONS.items()}


def random_model(settings, seed=0):
    """A `UNet2DModel` whose every parameter, also those that start at zero or one, is random."""
    torch.manual_seed(seed)
    model = diffusers.UNet2DModel(**settings).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model


def pipeline(model, folder, **scheduler):
    diffusers.DDPMPipeline(model, diffusers.DDPMScheduler(**scheduler)).save_pretrained(folder)
    return folder


def imported(folder):
    """A config that describes the model, its network as (x, t) -> prediction, and what became of the tensors."""
    config, settings = default.get_config(), interop.read_settings(folder)
    config.update_from_flattened_dict(settings.facts | settings.defaults)
    network, process = build_network(config), build_process(config)
    size = config.data.size
    height, width = size if isinstance(size, tuple) else (size, size)
    x, t = jnp.zeros((1, height, width, config.data.channels)), jnp.zeros(1)
    shapes = jax.eval_shape(network.init, jax.random.key(0), x, t)["params"]
    conversion = from_tensors(interop.read_tensors(folder), shapes, interop.layout(shapes), network.num_heads)
    return config, lambda params, x, t: network.apply({"params": params}, *process.inputs(x, t)), conversion


def first(x):
    return torch.from_numpy(np.moveaxis(np.asarray(x), -1, 1).copy())


def last(x):
    return np.moveaxis(x.detach().numpy(), 1, -1)


@pytest.mark.parametrize("name", ALL)
def test_outputs_and_input_gradients(name, tmp_path):
    model = random_model(ALL[name])
    config, predict, conversion = imported(pipeline(model, tmp_path))
    assert conversion.missing == conversion.unused == conversion.misshapen == []
    count = sum(parameter.numel() for parameter in model.parameters())
    assert sum(leaf.size for leaf in jax.tree.leaves(conversion.params)) == count
    if name in CHECKPOINTS:
        assert count == (35_746_307 if "cifar10" in name else 113_673_219)
    rng, batch = np.random.default_rng(1), 1 if name in CHECKPOINTS else 3
    height, width = config.data.size if isinstance(config.data.size, tuple) else (config.data.size, config.data.size)
    x = rng.standard_normal((batch, height, width, config.data.channels)).astype(np.float32)
    indices = np.array([501, 0, 999][:batch])

    theirs_x = first(x).requires_grad_()
    theirs = model(theirs_x, torch.from_numpy(indices)).sample
    cotangent = rng.standard_normal(last(theirs).shape).astype(np.float32)
    theirs.backward(first(cotangent))

    @jax.jit
    def output_and_gradient(params, x, t):
        output, pull = jax.vjp(functools.partial(predict, params, t=t), x)
        return output, pull(jnp.asarray(cotangent))[0]

    ours, gradient = output_and_gradient(conversion.params, x, jnp.asarray((indices + 1) / 1000.0, jnp.float32))
    for found, wanted in ((ours, last(theirs)), (gradient, last(theirs_x.grad))):
        scale = max(1.0, float(np.sqrt(np.mean(wanted**2))))
        print(name, float(np.abs(np.asarray(found) - wanted).max()), scale)
        np.testing.assert_allclose(np.asarray(found), wanted, atol=1e-4 * scale)
        assert np.sqrt(np.mean(wanted**2)) > 0.01


SCHEDULERS = {
    "linear": {},
    "scaled_linear": {"beta_schedule": "scaled_linear", "beta_start": 0.0015, "beta_end": 0.0195},
    "cosine": {"beta_schedule": "squaredcos_cap_v2"},
    "given": {"trained_betas": np.geomspace(1e-3, 0.2, 50).tolist(), "num_train_timesteps": 50},
}


@pytest.mark.parametrize("name", SCHEDULERS)
def test_noise_schedules(name):
    scheduler = diffusers.DDPMScheduler(**SCHEDULERS[name])
    config = default.get_config()
    config.update_from_flattened_dict(read_scheduler(dict(scheduler.config) | {"_class_name": "DDPMScheduler"}).facts)
    schedule = build_schedule(config)
    times = jnp.arange(1, schedule.num_steps + 1) / schedule.num_steps
    np.testing.assert_allclose(np.asarray(schedule.alpha(times)) ** 2, scheduler.alphas_cumprod.numpy(), atol=1e-6)


def deterministic(folder, start, count=10):
    """Samples of diffusers' pipeline from our noise, by DDIM on the steps that `grids.ddpm` takes.

    Where x0 is clipped, the noise is computed anew from it, as by Improved-DDPM and by us; theirs does that if it is asked to.
    """
    loaded = diffusers.DDPMPipeline.from_pretrained(folder)
    scheduler = diffusers.DDIMScheduler.from_config(loaded.scheduler.config, timestep_spacing="trailing")
    scheduler.set_timesteps(count)
    x = first(start)
    with torch.no_grad():
        for index in scheduler.timesteps:
            x = scheduler.step(loaded.unet(x, index).sample, index, x, use_clipped_model_output=True).prev_sample
    return last(x)


def ours(config, start, count=10, folder=pathlib.Path("/nowhere")):
    """The same by the config's own denoiser."""
    experiment, process = build_experiment(config, start.shape[1:]), build_process(config)
    params = restore(config, experiment, folder).state.ema_params
    denoise = process.denoiser(functools.partial(experiment.predict, params), clip=config.sampling.clip or None)
    keys = jax.random.split(jax.random.key(0), len(start))
    step = jax.jit(
        lambda x: sample(denoise, keys, x, grids.ddpm(count, process.schedule.num_steps), steps.ddim(process.schedule))
    )
    return np.asarray(step(jnp.asarray(start)))


def on_digits(folder, **more):
    config = pretrained.get_config()
    config.init_from, config.data.source = str(folder), "digits"
    config.update_from_flattened_dict(more)
    return resolve(config, more)


@pytest.mark.parametrize(
    ("prediction", "clip"), [("epsilon", False), ("epsilon", True), ("sample", True), ("v_prediction", False)]
)
def test_an_export_gives_the_same_samples(prediction, clip, tmp_path):
    settings = SMALL | OPTIONS["scale-shift with a norm in the middle"] | {"sample_size": 8}
    pipeline(random_model(settings), tmp_path / "in", prediction_type=prediction, clip_sample=clip)
    config = on_digits(tmp_path / "in", **{"sampling.batch_size": 2})
    page = export.run(config, tmp_path / "run")
    start = np.random.default_rng(0).standard_normal((4, 8, 8, 1)).astype(np.float32)
    wanted = deterministic(page.parent, start)
    np.testing.assert_allclose(ours(config, start), wanted, atol=1e-3 * max(1.0, wanted.std()))
    np.testing.assert_allclose(deterministic(tmp_path / "in", start), wanted, atol=1e-6)
    assert wanted.std() > 0.05
    loaded = diffusers.DDPMPipeline.from_pretrained(page.parent)
    assert loaded(batch_size=1, num_inference_steps=2, output_type="np").images.shape == (1, 8, 8, 1)


# --- state dicts of Improved-DDPM ------------------------------------------------------------------------------------------

IMPROVED = {
    "network.kind": "unet",
    "network.base_channels": 32,
    "network.channel_mults": (1, 2, 2),
    "network.res_blocks": 1,
    "network.heads": 4,
    "network.norm_num_groups": 32,
    "network.time_input": "ddpm_index",
    "network.time_scale": 1.0,
    "diffusion.learn_variance": True,
    "data.source": "photo_crops",
    "data.size": 16,
}


@pytest.mark.parametrize("updown", [False, True])
@pytest.mark.parametrize("scale_shift", [False, True])
def test_a_state_dict_of_improved_ddpm(scale_shift, updown, tmp_path):
    torch.manual_seed(0)
    theirs = improved_ddpm.UNet(3, 32, (1, 2, 2), 1, (2, 4), 4, scale_shift, updown).eval()
    torch.save(theirs.state_dict(), tmp_path / "ema.pt")
    config = default.get_config()
    resample = dict.fromkeys(("network.downsample_type", "network.upsample_type"), "resnet" if updown else "conv")
    attention = {"network.attention_resolutions": (8, 4), "network.scale_shift": scale_shift}
    config.update_from_flattened_dict(IMPROVED | attention | resample | {"init_from": str(tmp_path / "ema.pt")})
    config = resolve(config)
    experiment = build_experiment(config, (16, 16, 3))
    params = restore(config, experiment, tmp_path / "run").state.ema_params
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == sum(one.numel() for one in theirs.parameters())
    rng, indices = np.random.default_rng(0), np.array([0, 400, 999])
    x = rng.standard_normal((3, 16, 16, 3)).astype(np.float32)
    theirs_x = first(x).requires_grad_()
    wanted = theirs(theirs_x, torch.from_numpy(indices))
    wanted.sum().backward()
    found, pull = jax.vjp(lambda x: experiment.predict(params, x, jnp.asarray((indices + 1) / 1000.0, jnp.float32)), x)
    np.testing.assert_allclose(np.asarray(found), last(wanted), atol=1e-4)
    np.testing.assert_allclose(np.asarray(pull(jnp.ones_like(found))[0]), last(theirs_x.grad), atol=2e-4)


class Malicious:
    def __reduce__(self):
        return pathlib.Path.touch, (pathlib.Path("touched"),)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"conv": Malicious()}, "asks for more than tensors, or is damaged: save its state_dict"),
        (torch.nn.Linear(2, 2), "asks for more than tensors"),
        ({"step": 3, "conv": torch.zeros(2)}, "is not a state dict of tensors by name"),
        (torch.zeros(2), "is not a state dict"),
        ({"in_layers.weight": torch.zeros(2)}, r"does not fit the network; its tensors: missing \d+ \(input_blocks"),
    ],
)
def test_a_file_that_is_no_state_dict_is_refused(content, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save(content, tmp_path / "model.pt")
    config = default.get_config()
    config.update_from_flattened_dict(IMPROVED | {"init_from": str(tmp_path / "model.pt")})
    config = resolve(config)
    with pytest.raises(UserError, match=message) as caught:
        restore(config, build_experiment(config, (16, 16, 3)), tmp_path / "run")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "touched").exists()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut short", b"text"])
def test_a_damaged_file_is_refused(content, tmp_path):
    (tmp_path / "model.pt").write_bytes(content)
    with pytest.raises(InvalidArgument, match=r"model\.pt (cannot be read|asks for more)"):
        state_dicts.read_tensors(tmp_path / "model.pt")


# --- trained models: 8x8 handwritten digits, 90 % of them under noise of std 0.2 -------------------------------------------

STEPS = 1000
OF_DIGITS = ["--config.evaluation.diagnostics=()", "--config.evaluation.num_samples=500"]
OF_DIGITS += ["--config.evaluation.metrics=('noise_energy',)"]


def run(*args):
    """Runs launch.py in a process of its own on one device, compiled for speed; returns the results in its workdir."""
    env = {key: value for key, value in environment().items() if key != "XLA_FLAGS"}
    done = subprocess.run(command(*args, *OF_DIGITS), cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads((pathlib.Path(done.stdout.split()[-1]).parent / "results.json").read_text())


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder of diffusers with a model that torch has trained on the dirty digits."""
    torch.manual_seed(0)
    blocks = {"down_block_types": ("DownBlock2D", "AttnDownBlock2D"), "up_block_types": ("AttnUpBlock2D", "UpBlock2D")}
    small = SMALL | {"sample_size": 8, "block_out_channels": (16, 16), "attention_head_dim": 8} | blocks
    model = diffusers.UNet2DModel(**small)
    averaged = torch.optim.swa_utils.AveragedModel(model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.995))
    scheduler = diffusers.DDPMScheduler(clip_sample=False)
    examples = first(build_data(resolve(digits.get_config("ddpm"))).train)
    optimizer = torch.optim.Adam(model.parameters(), 2e-3)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    for _ in range(STEPS):
        x0 = examples[torch.randint(len(examples), (32,))]
        noise, t = torch.randn_like(x0), torch.randint(1000, (32,))
        loss = torch.mean((model(scheduler.add_noise(x0, noise, t), t).sample - noise) ** 2)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        decay.step()
        averaged.update_parameters(model)
    folder = tmp_path_factory.mktemp("trained") / "model"
    diffusers.DDPMPipeline(averaged.module, scheduler).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def plain(trained, tmp_path_factory):
    """What we find of that model, without training: (workdir, results)."""
    path = tmp_path_factory.mktemp("plain")
    return path, run("--config=configs/digits.py:ddpm", *of(trained), f"--workdir={path}", "--mode=evaluate")


def of(folder):
    return ["--config.network.kind=pretrained", f"--config.init_from={folder}"]


def test_the_final_step_takes_the_noise_out_of_a_model_that_torch_trained(trained, plain):
    path, before = plain
    final = ["--config.sampling.final_denoise=0.2", "--mode=evaluate", f"--workdir={path}"]
    after = run("--config=configs/digits.py:ddpm", *of(trained), *final)
    clean = before["noise_energy_clean"]
    print("noise energy", before["noise_energy"], after["noise_energy"], "clean", clean)
    assert before["noise_energy"] > 1.7 * clean
    assert before["noise_energy"] - after["noise_energy"] > 0.8 * (before["noise_energy"] - clean)
    assert after["noise_energy"] > 0.8 * clean


@pytest.fixture(scope="module")
def robust(tmp_path_factory):
    """A robust model of ours, trained from the start: (workdir, results)."""
    path = tmp_path_factory.mktemp("robust")
    steps = [f"--config.train.steps={STEPS}", "--config.network.norm_num_groups=4"]
    return path, run("--config=configs/digits.py:robust_adv", *steps, f"--workdir={path}")


def test_fine_tuning_for_a_fifth_of_the_steps(trained, plain, robust, tmp_path):
    steps = [f"--config.train.steps={STEPS // 5}", "--config.robust.warmup_steps=0.1", "--config.train.ema_decay=0.98"]
    tuned = run("--config=configs/digits.py:robust_adv", *of(trained), *steps, f"--workdir={tmp_path / 'tuned'}")
    before, after, scratch = (found["noise_energy"] for found in (plain[1], tuned, robust[1]))
    print("noise energy", before, "fine-tuned", after, "from the start", scratch)
    assert before - after > 0.7 * (before - scratch)
    assert before - scratch > 0.3 * before


def test_a_model_of_ours_is_sampled_by_diffusers(robust, tmp_path_factory):
    """The same digits from the same noise; the picture's path is printed with `-s`."""
    path, _ = robust
    config = digits.get_config("robust_adv")
    config.train.steps, config.network.norm_num_groups = STEPS, 4
    config.evaluation.update({"diagnostics": (), "num_samples": 500, "metrics": ("noise_energy",)})
    config = resolve(config)
    page = export.run(config, path)
    start = np.random.default_rng(0).standard_normal((64, 8, 8, 1)).astype(np.float32)
    samples = deterministic(page.parent, start, count=50)
    np.testing.assert_allclose(ours(config, start, count=50, folder=path), samples, atol=1e-3)
    picture = tmp_path_factory.mktemp("picture") / "samples.png"
    figures.grid(samples, 64).savefig(picture)
    print("samples of diffusers:", picture)
    clean = build_data(config).source.train
    assert np.std(samples) == pytest.approx(np.std(clean), rel=0.15)
    assert "| `noise_energy` |" in page.read_text()
