"""Config -> the diagnostic `denoising`: how well the model cleans dirty images that it has not seen."""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from advdiff_jax import workdir
from advdiff_jax.builders.diagnosis import Diagnosis, DiagnosticInputs, DiagnosticSpec
from advdiff_jax.builders.objectives import objective_spec
from advdiff_jax.builders.outputs import Output
from advdiff_jax.builders.process import SAMPLERS, build_process, build_times
from advdiff_jax.builders.registry import as_user_error, lookup
from advdiff_jax.data import classical, pixels
from advdiff_jax.errors import InvalidArgument, UserError
from advdiff_jax.evaluation import curves as panels
from advdiff_jax.evaluation import denoising, figures, lpips, report

SHOWN = 8  # examples in the figure


def _denoising(config: ml_collections.ConfigDict, inputs: DiagnosticInputs) -> Diagnosis:
    """Computes PSNR and SSIM of a round trip over t*, beside the dirty image itself and non-local means."""
    if len(inputs.data.train.shape) != 4:
        raise InvalidArgument(f"denoising needs images, and data.source={config.data.source} has none")
    clean, dirty, whose = _pairs(config, inputs.data)
    if not len(clean):
        return Diagnosis({}, [report.Section("Denoising", text=f"Left out: none of the {whose} is corrupted.")])
    trips = _round_trips(config, inputs, dirty)
    means = classical.nl_means(dirty)
    perceptual = lpips.lpips(config.evaluation.cache_dir) if min(clean.shape[1:3]) >= lpips.SMALLEST else None
    quality = functools.partial(denoising.quality, clean=clean, perceptual=perceptual)
    rivals = {"dirty": quality(dirty), "nl_means": quality(means)}
    judged = {level: quality(images) for level, images in trips.items()}
    curves = {measure: [found[measure] for found in judged.values()] for measure in rivals["dirty"]}
    best = max(judged, key=lambda level: judged[level]["psnr"])
    found = {"denoising": judged[best], **{f"denoising_{name}": numbers for name, numbers in rivals.items()}}
    numbers = {"denoising_level": best} | {
        f"{name}_{measure}": value for name, values in found.items() for measure, value in values.items()
    }
    levels = np.array(list(judged))
    drawn = [
        panels.Panel(name, "sigma / alpha at t*", name, {"round trip": panels.Series(levels, values)}, "log")
        for name, values in curves.items()
    ]
    stored = {"level": levels.tolist(), **curves, "rivals": rivals, **panels.as_json(drawn)}
    workdir.write_json(inputs.plots / "denoising.json", stored)
    denoising.draw(levels, curves, {"dirty image": rivals["dirty"], "non-local means": rivals["nl_means"]}).savefig(
        inputs.plots / "denoising.png"
    )
    rows = {"clean": clean, "dirty": dirty, f"round trip\nu = {best:.2g}": trips[best], "non-local\nmeans": means}
    limit = figures.value_limit(inputs.data.train[:SHOWN] if inputs.data.train.dtype == np.uint8 else dirty)
    denoising.draw_examples({name: images[:SHOWN] for name, images in rows.items()}, limit).savefig(
        inputs.plots / "denoising_examples.png"
    )
    text = (
        f"{len(clean):,} corrupted images of the {whose} are diffused to t* and sampled back. The best t* is chosen on these "
        "images, which flatters it slightly."
    )
    if perceptual is None:
        text += f" LPIPS is left out: it needs {lpips.SMALLEST} x {lpips.SMALLEST} pixels or more."
    images = [
        report.image(inputs.plots / "denoising.png", "Quality against the clean image, over t*.", wide=True),
        report.image(inputs.plots / "denoising_examples.png", "The first of these images.", wide=True),
    ]
    return Diagnosis(numbers, [report.Section("Denoising", text=text, images=images)])


def _pairs(config, data):
    """Returns at most `evaluation.denoising_examples` clean and dirty images that differ, as floats, and whose they are."""
    if data.held_out_dirty is not None:
        clean, corrupted, whose = data.held_out, data.held_out_dirty, "held-out examples"
    else:
        clean, corrupted, whose = data.source.train, data.corrupted, "training examples (set config.data.held_out for others)"
    # Where few are corrupted, more are read.
    wanted = config.evaluation.denoising_examples
    indices = pixels.evenly_spaced_indices(len(clean), int(np.ceil(1.5 * wanted / max(config.data.fraction, 0.01))))
    clean, dirty = (pixels.to_float(examples[indices]) for examples in (clean, corrupted))
    changed = np.flatnonzero(np.any((clean != dirty).reshape(len(clean), -1), axis=1))[:wanted]
    return clean[changed], dirty[changed], whose


class Trip(NamedTuple):
    """Two ways back from the noise of a time t*.

    Attributes:
        u: noise level sigma / alpha at t*.
        back: (keys [B], images [B, ...]) -> images after noise and the sampler, compiled.
        one_step: the same with x0hat at t* in place of the sampler.
    """

    u: float
    back: Callable[[jax.Array, jax.Array], jax.Array]
    one_step: Callable[[jax.Array, jax.Array], jax.Array]


def build_trips(config: ml_collections.ConfigDict, predict: Callable, levels: Sequence[float]) -> list[Trip]:
    """Builds the trips to the times of the sampler that are nearest in log u to each level, the least noisy first.

    Two levels may share a time, and a trip.

    Args:
        config: reads `sampling`.
        predict: (x [B, ...], t [B]) -> the network's prediction.
        levels: u = sigma / alpha.

    Raises:
        UserError: a sampler without a grid.
    """
    spec = lookup(SAMPLERS, config, "sampling.method")
    if "sampling.grid" not in spec.reads:
        raise UserError(f"config.sampling.method={config.sampling.method!r} has no grid to start inside of: set ddpm or ddim")
    process = build_process(config)
    schedule, clip = process.schedule, config.sampling.clip
    denoise = process.denoiser(predict, clip=clip or None)
    times = build_times(config, schedule, objective_spec(config).lowest_noise(config))
    us = np.asarray(schedule.noise_to_signal(jnp.asarray(times[:-1])))
    found = []
    for at in sorted({int(np.argmin(np.abs(np.log(us / level)))) for level in levels}, reverse=True):
        with as_user_error("config.sampling"):
            solve = spec.build(config.sampling, schedule, functools.partial(times.__getitem__, slice(at, None)))
        t = jnp.float32(times[at])
        ways = solve, functools.partial(_one_step, t=t)
        found.append(
            Trip(
                float(us[at]), *(jax.jit(functools.partial(denoising.round_trip, schedule, denoise, way, t=t)) for way in ways)
            )
        )
    return found


def _one_step(denoise, keys, x, t):
    del keys
    return denoise(x, jnp.full(x.shape[:1], t)).x0


def in_batches(trip: Callable, keys: jax.Array, y: np.ndarray, size: int) -> np.ndarray:
    """Applies one way of a `Trip` to all images [N, ...], `size` at once."""
    return np.concatenate([trip(keys[i : i + size], y[i : i + size]) for i in range(0, len(y), size)])


def _round_trips(config, inputs, dirty):
    """Returns the noise level u of t* -> images of the round trip, as the data store them, for each level of the config."""
    keys, found = jax.random.split(jax.random.key(config.evaluation.seed), len(dirty)), {}
    for trip in build_trips(config, inputs.predict, config.evaluation.denoising_levels):
        images = in_batches(trip.back, keys, dirty, config.sampling.batch_size)
        found[trip.u] = pixels.to_float(pixels.as_stored(images, inputs.data.train.dtype))
    return found


SPEC = DiagnosticSpec(
    _denoising,
    {
        "denoising_level": Output("noise level sigma / alpha at the t* of the best round trip", None),
        "denoising_psnr": Output("PSNR against the clean image after the best round trip, dB", "highest"),
        "denoising_ssim": Output("SSIM after the same round trip", "highest"),
        "denoising_lpips": Output("LPIPS on AlexNet after the same round trip", "lowest"),
        "denoising_dirty_*": Output("the same measure of the dirty image itself", None),
        "denoising_nl_means_*": Output("the same measure after non-local means, which need no model", None),
    },
    reads=("evaluation.denoising_levels", "evaluation.denoising_examples"),
)
