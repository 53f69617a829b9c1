"""`--mode=restore`: restores dirty images by the model of a run, and shows posterior mean, draws and spread of each."""

import functools
import itertools
import json
import logging
import pathlib
import time
from typing import NamedTuple

import ml_collections
import numpy as np

from advdiff_jax import workdir
from advdiff_jax.builders.experiment import sampling_params
from advdiff_jax.builders.objectives import objective_spec
from advdiff_jax.builders.operators import operator_spec
from advdiff_jax.builders.process import build_process
from advdiff_jax.builders.registry import as_user_error
from advdiff_jax.builders.restore_images import Restoration, build_restoration
from advdiff_jax.builders.restorers import RESTORERS, Prior, build_restorer, chosen
from advdiff_jax.data import pixels
from advdiff_jax.errors import UserError
from advdiff_jax.evaluation import denoising, lpips, report
from advdiff_jax.modes import sample, sample_files
from advdiff_jax.training import parallel

log = logging.getLogger(__name__)

SHOWN_DRAWS = 2  # in the report
COLUMNS = {"psnr": "PSNR, dB", "ssim": "SSIM", "lpips": "LPIPS", "spread": "spread", "seconds": "seconds"}


class Restored(NamedTuple):
    """What a method made of N images.

    Attributes:
        draws: [K, N, H, W, C].
        mean: of the draws, [N, H, W, C].
        spread: standard deviation of the draws, [N, H, W, C]; None with one draw.
        quality: measure -> mean over images; empty without clean images.
        seconds: for all images, with compilation.
    """

    draws: np.ndarray
    mean: np.ndarray
    spread: np.ndarray | None
    quality: dict[str, float]
    seconds: float


def run(config: ml_collections.ConfigDict, folder: pathlib.Path) -> pathlib.Path:
    """Restores the images of `restore.images` by the run in `folder`, or by `init_from`; returns the report.

    Writes to `folder`/restore/IMAGES-OPERATOR-METHOD: restored.npz, the folders mean and draws of PNGs, results.json and
    report.html.

    Raises:
        UserError: see `sample.open_run`, `restore_images.build_restoration` and `restorers.chosen`.
    """
    names = chosen(config)
    return _restore(names, sample.open_run(config, folder))  # all processes open it


@parallel.on_first_process
def _restore(names, opened):
    config, data = opened.config, opened.data
    process = build_process(config)
    asked = build_restoration(config, data, process.schedule)
    log.info("restores %s images of %s; %s", f"{len(asked.names):,}", config.restore.images, asked.words)
    params, least = sampling_params(config, opened.restored.state), objective_spec(config).lowest_noise(config)
    prior = Prior(process, opened.experiment.predict, params, least)
    is_judged = asked.clean is not None and min(asked.problem.y.shape[1:3]) >= lpips.SMALLEST
    perceptual = lpips.lpips(config.evaluation.cache_dir) if is_judged else None
    judge = functools.partial(denoising.quality, clean=asked.clean, perceptual=perceptual)
    with as_user_error("config.restore"):
        restorers = {name: build_restorer(config, name, prior) for name in names}
    found = {}
    for name, restore in restorers.items():
        log.info("%s: %s", name, RESTORERS[name].means)
        one = _apply(config, asked, restore, judge)
        if bad := int(np.sum(~np.isfinite(one.draws).all(axis=(0, 2, 3, 4)))):
            said = f"{name} diverged in {bad} of {len(asked.names)} images"
            if name == names[0]:
                raise UserError(f"{said}: set more config.restore.steps, or another config.restore.method")
            log.warning("%s, and is left out", said)
            continue
        found[name] = one
        said = ", ".join(f"{COLUMNS[key]} {value:.4g}" for key, value in found[name].quality.items())
        log.info("%s: %.1f s%s", name, found[name].seconds, f"; {said}" if said else "")
    out = _folder(config, opened.out / "restore")
    out.mkdir(parents=True, exist_ok=True)
    _write_files(out, asked, found[names[0]])
    images, numbers = _draw(config, out, asked, found), _numbers(asked, found, judge)
    _write_report(config, out, asked, numbers, images, int(opened.restored.state.step))
    return out / "report.html"


def _folder(config, parent):
    """Returns the folder of these images and settings: that of an earlier restoration alike, or a new one."""
    c = config.restore
    name = f"{pathlib.Path(c.images).name}-{c.operator}-{c.method}"[: workdir.LONGEST_NAME]
    own = {key: value for key, value in workdir.flatten(config).items() if key.startswith("restore.")}
    for number in itertools.count(1):
        folder = parent / (name if number == 1 else f"{name}-{number}")
        path = folder / "config.json"
        before = workdir.read_config(path) if path.exists() else None
        if before is None or all(before.get(key) == value for key, value in own.items()):
            return folder


def _apply(config, asked: Restoration, restore, judge) -> Restored:
    """Applies a method; what has no noise stays as it is, and what is stored in 8 bits is clipped to black and white."""
    start, y = time.monotonic(), asked.problem.y
    draws = restore(asked.problem)
    seconds = time.monotonic() - start
    if operator_spec(config).kind == "noise":
        draws = np.where((asked.problem.std > 0.0)[:, None, None, None], draws, y)
    if asked.dtype == np.uint8:
        draws = np.clip(draws, -1.0, 1.0)
    mean = draws.mean(axis=0)
    return Restored(
        draws,
        mean,
        draws.std(axis=0, ddof=1) if len(draws) > 1 else None,
        {} if asked.clean is None else judge(mean),
        seconds,
    )


def _write_files(out, asked, found):
    """Writes restored.npz, and PNGs of means and draws by the names of the images."""
    np.savez_compressed(
        out / "restored.npz",
        names=np.array(asked.names),
        mean=found.mean.astype(np.float32),
        draws=pixels.to_bytes(found.draws),
        noise_std=asked.problem.std,
        **({} if found.spread is None else {"spread": found.spread.astype(np.float32)}),
    )
    sample_files.write_pngs(out / "mean", found.mean, asked.names)
    names = [f"{name}_{number}" for number in range(len(found.draws)) for name in asked.names]
    sample_files.write_pngs(out / "draws", found.draws.reshape(-1, *found.mean.shape[1:]), names)


def _numbers(asked, found, judge):
    """Returns method -> its numbers; "as_measured" is the dirty image itself, where clean images say how good it is.

    Numbers that are not finite are left out, with a line: the PSNR of an image that equals its clean one is infinite.
    """
    numbers = {} if asked.clean is None else {"as_measured": judge(asked.problem.y)}
    for name, one in found.items():
        spread = {} if one.spread is None else {"spread": float(one.spread.mean())}
        numbers[name] = one.quality | spread | {"seconds": one.seconds}
    for name, one in numbers.items():
        if infinite := [column for column, value in one.items() if not np.isfinite(value)]:
            log.warning("%s: %s is not finite, and is left out", name, ", ".join(COLUMNS[column] for column in infinite))
    return {name: {key: value for key, value in one.items() if np.isfinite(value)} for name, one in numbers.items()}


def _table(numbers):
    """Returns the rows of the table of methods, heads first."""
    columns = [column for column in COLUMNS if any(column in one for one in numbers.values())]
    rows = [("method", *(COLUMNS[column] for column in columns), "what it does")]
    for name, one in numbers.items():
        cells = (report.number(one[column]) if column in one else "" for column in columns)
        rows.append((name, *cells, RESTORERS[name].means if name in RESTORERS else "the images as they came"))
    return rows


def _draw(config, out, asked, found):
    """Draws the first images: as measured, restored, two draws, their spread, the rivals, clean."""
    (method, best), *others = found.items()
    pictures = pixels.evenly_spaced_indices(len(asked.names), config.restore.shown)
    rows = {"as measured": asked.problem.y, f"{method},\nmean": best.mean}
    if best.spread is not None:
        rows |= {f"draw {number + 1}": best.draws[number] for number in range(min(SHOWN_DRAWS, len(best.draws)))}
        rows["spread"] = 2.0 * best.spread / max(float(best.spread[pictures].max()), 1e-6) - 1.0
    rows |= {name: one.mean for name, one in others}
    if asked.clean is not None:
        rows["clean"] = asked.clean
    denoising.draw_examples({name: images[pictures] for name, images in rows.items()}, 1.0).savefig(out / "examples.png")
    caption = f"{', '.join(asked.names[i] for i in pictures)}."
    if best.spread is not None:
        caption += f" Spread: standard deviation of {len(best.draws)} draws, black for 0."
    return [report.image(out / "examples.png", caption, wide=True)]


def _write_report(config, out, asked, numbers, images, step):
    c = config.restore
    text = "" if asked.clean is None else f"Means over {len(asked.names):,} images, against the clean ones."
    files = [out / name for name in ("restored.npz", "mean", "draws")]
    sections = [
        report.Section("Images", images=images),
        report.Section("Methods", text=text, table=_table(numbers)),
        report.Section("Files", table=report.links(out, files)),
        report.Section("Set-up", pre=json.dumps(json.loads(c.to_json_best_effort()), indent=2)),
    ]
    summary = f"{len(asked.names):,} images of {c.images}, restored by {config.name} at step {step}: {asked.words}."
    results = {f"restore_{name}_{column}": value for name, one in numbers.items() for column, value in one.items()}
    report.write_report(out / "report.html", f"{config.name}: restored images", summary, sections)
    workdir.write_config(out / "config.json", config)
    workdir.write_json(out / "results.json", results)  # last: it marks the folder as finished
