"""`--mode=export`: writes a run's averaged model as a folder that diffusers' `DDPMPipeline.from_pretrained` loads."""

import logging
import pathlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from advdiff_jax import workdir
from advdiff_jax.builders.data import Data, known_noise_std
from advdiff_jax.builders.diagnostics import output_of
from advdiff_jax.builders.experiment import build_network, sampling_params
from advdiff_jax.builders.noise_file import final_std
from advdiff_jax.builders.objectives import objective_spec
from advdiff_jax.builders.outputs import COSTS
from advdiff_jax.builders.process import Process, build_process
from advdiff_jax.builders.registry import as_user_error
from advdiff_jax.errors import InvalidArgument, UserError
from advdiff_jax.interop import diffusers
from advdiff_jax.interop.diffusers_config import write_scheduler, write_unet
from advdiff_jax.interop.tensors import norm_groups, shift_time, to_tensors
from advdiff_jax.modes import preview, sample
from advdiff_jax.training import parallel

log = logging.getLogger(__name__)


def run(config: ml_collections.ConfigDict, folder: pathlib.Path) -> pathlib.Path:
    """Writes `folder`/export: model_index.json, unet/, scheduler/ and a model card, README.md; returns the card.

    Raises:
        UserError: see `builders` and `workdir`, or diffusers cannot express the network or the process.
    """
    return _write(sample.open_run(config, folder))  # all processes open it


@parallel.on_first_process
def _write(opened):
    config, state, target = opened.config, opened.restored.state, opened.out / "export"
    diffusers.write(target, *describe(config, opened.data.train.shape[1:], jax.device_get(sampling_params(config, state))))
    if final := _without_final_step(config):
        log.warning("%s", final)
    (target / "README.md").write_text(card(config, opened.data, opened.out, int(state.step)))
    log.info("load it with: diffusers.DDPMPipeline.from_pretrained(%r)", str(target))
    return target / "README.md"


def _without_final_step(config):
    """Says what a folder lacks of the run's sampler; "" if nothing."""
    std = final_std(config.sampling)
    lost = f"The run's samples take a final step that removes noise of std {std:.3g}. A folder of diffusers has none"
    return f"{lost}: its pipeline draws images with that noise." if std else ""


class Described(NamedTuple):
    """A model in diffusers' terms: config.json, scheduler_config.json, and tensors by name."""

    unet: dict[str, Any]
    scheduler: dict[str, Any]
    tensors: dict[str, np.ndarray]


def describe(config: ml_collections.ConfigDict, shape: tuple[int, ...], params: Any) -> Described:
    """Describes a model of a config in diffusers' terms.

    Args:
        config: resolved.
        shape: of an image, (height, width, channels).
        params: of the network.

    Raises:
        UserError: diffusers cannot express the network or the process.
    """
    _check(config)
    network, process, c = build_network(config), build_process(config), config.diffusion
    with as_user_error("--mode=export"):
        unet = write_unet(network, norm_groups(params, network), shape)
        variance, clip = config.sampling.variance, config.sampling.clip
        scheduler = write_scheduler(process.schedule, c.prediction, c.learn_variance, variance, clip)
        params = shift_time(params, network, _time_shift(process, network.time_scale))
    return Described(unet, scheduler, to_tensors(params, diffusers.layout(params), network.num_heads))


def _check(config):
    if config.network.kind != "unet":
        raise UserError(f"config.network.kind={config.network.kind}: --mode=export writes models of images, of kind unet")
    if not config.diffusion.grid_steps:
        raise UserError("config.diffusion.grid_steps=0: diffusers' schedulers need a discrete grid: train with grid_steps=1000")
    if objective_spec(config).gives_mask:
        raise UserError(f"config.objective={config.objective} its network is given a mask, which diffusers' pipelines lack")
    if lowest := objective_spec(config).lowest_noise(config):
        raise UserError(
            f"config.objective={config.objective} learns nothing below a noise-to-signal of {lowest:.3g}, where diffusers' "
            "samplers go: export another variant"
        )


def _time_shift(process: Process, time_scale: float) -> float:
    """Returns what the network's time is above DDPM's index; raises InvalidArgument if the difference is not constant."""
    steps = process.schedule.num_steps
    indices = np.arange(steps)
    seen = time_scale * np.asarray(process.inputs(jnp.zeros((steps, 1)), jnp.asarray((indices + 1) / steps, jnp.float32))[1])
    shifts = seen - indices
    if np.ptp(shifts) > 0.01:
        raise InvalidArgument(
            f"network.time_scale={time_scale:g} on {steps} steps: the network sees times from {seen[0]:g} to {seen[-1]:g}, and "
            f"in diffusers steps of 1: train with network.time_input=ddpm_index and time_scale=1"
        )
    return round(float(np.median(shifts)), 2)


def card(config: ml_collections.ConfigDict, data: Data, out: pathlib.Path, step: int) -> str:
    """Writes the model card: what the model was trained on and how, and what was measured.

    Args:
        config: resolved.
        data: of it.
        out: folder of its results.
        step: of the checkpoint.
    """
    std, path = known_noise_std(config), out / "results.json"
    dirt = preview.describe(config, data) + (f"; the noise has standard deviation {std:g}, images in [-1, 1]" if std else "")
    name = config.data.tfds_name if config.data.source == "tfds" else config.data.source
    start = f", from {pathlib.Path(config.init_from).name}" if config.init_from else ""
    trained = f"{step:,} steps of {config.train.batch_size} examples" if step else "not at all"
    rows = [f"| `{name}` | {value:.4g} | {_meaning(name)} |" for name, value in _metrics(path).items()]
    table = ["| metric | value | meaning |", "|---|---|---|", *rows] if rows else ["None."]
    lines = [
        "---",
        "library_name: diffusers",
        "pipeline_tag: unconditional-image-generation",
        "---",
        "",
        f"# {config.name}, {config.variant}",
        "",
        f"- Data: {name}, images of {'x'.join(map(str, data.train.shape[1:]))}.",
        f"- Dirt: {dirt}.",
        f"- Variant: `{config.variant}` (objective `{config.objective}`) of advdiff_jax.",
        f"- Trained: {trained}{start}; averaged weights, decay {config.sampling.ema_decay or config.train.ema_decay:g}.",
        *([f"- Noise: {final}"] if (final := _without_final_step(config)) else []),
        "",
        f"## Metrics, n = {config.evaluation.num_samples:,} samples",
        "",
        *table,
        "",
        "## Use",
        "",
        "```python",
        "from diffusers import DDPMPipeline",
        "",
        'images = DDPMPipeline.from_pretrained("FOLDER")(batch_size=4).images',
        "```",
    ]
    return "\n".join(lines) + "\n"


def _metrics(path):
    """Returns the metrics of a run, without its costs."""
    found = workdir.read_results(path) if path.exists() else {}
    return {name: value for name, value in found.items() if name not in COSTS}


def _meaning(name):
    return output_of(name).meaning
