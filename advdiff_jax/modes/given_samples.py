"""`--mode=evaluate --config.evaluation.samples=PATH`: the metrics of images that someone else drew."""

import json
import logging
import pathlib

import jax
import ml_collections
import numpy as np

from advdiff_jax import cache, workdir
from advdiff_jax.builders import metrics, words
from advdiff_jax.builders.data import Data, build_data
from advdiff_jax.builders.diagnostics import output_of
from advdiff_jax.builders.registry import as_user_error
from advdiff_jax.data import arrays, folder, pixels
from advdiff_jax.errors import UserError
from advdiff_jax.evaluation import report
from advdiff_jax.modes import preview
from advdiff_jax.training import parallel

log = logging.getLogger(__name__)


def run(config: ml_collections.ConfigDict, workdir_of_run: pathlib.Path) -> pathlib.Path:
    """Evaluates the images of `evaluation.samples`; returns the report.

    Results go to evaluations/samples=NAME in the workdir, which need not hold a run. Metrics of a model are left out.

    Raises:
        UserError: the images are missing, too few, of another size than the data, or not finite.
    """
    data = build_data(config)
    samples = read(config, data)
    config, left_out = without_model(config)
    for name in left_out:
        log.warning("%s needs the model that drew the samples, and is left out", name)
    with config.unlocked():
        config.evaluation.num_samples = len(samples)
    metrics.check_metrics(config, data)
    share = jax.process_index(), jax.process_count()
    found = [metrics.Evaluated(*one) for one in parallel.gather(metrics.evaluate(config, data, samples, None, share))]
    name = workdir.folder_name([f"samples={pathlib.Path(config.evaluation.samples).expanduser().absolute()}"])
    out = workdir_of_run / "evaluations" / name
    if jax.process_index() == 0:
        _write(config, data, samples, found, left_out, out)
    parallel.barrier("evaluated")
    return out / "report.html"


def without_model(config: ml_collections.ConfigDict) -> tuple[ml_collections.ConfigDict, list[str]]:
    """Returns the config without the metrics that ask the model, and the names of those."""
    kept = config.copy_and_resolve_references()
    left_out = [name for name in config.evaluation.metrics if metrics.METRICS[name].needs_model]
    with kept.unlocked():
        kept.evaluation.metrics = tuple(name for name in config.evaluation.metrics if name not in left_out)
    return kept, left_out


def read(config: ml_collections.ConfigDict, data: Data) -> np.ndarray:
    """Reads the images of `evaluation.samples`, a folder, an archive, an .npy or an .npz file, as floats [N, H, W, C].

    Raises:
        UserError: see `run`.
    """
    path = config.evaluation.samples
    where = f"config.evaluation.samples={path!r}"
    if len(data.train.shape) != 4:
        raise UserError(f"{where} is read as images, and data.source={config.data.source} has none")
    size, channels = tuple(data.train.shape[1:3]), data.train.shape[3]
    try:
        with as_user_error("config.evaluation.samples"):
            if pathlib.Path(path).expanduser().suffix in (".npy", ".npz"):
                images = _array(path, size, channels)
            else:
                images = folder.image_folder(path, size, channels, cache_dir=pathlib.Path(cache.directory()))
                _check_sizes(where, images.sizes, size)
    except UserError as error:
        # The readers name the key of a training set.
        raise UserError(str(error).replace("config.data.path", "config.evaluation.samples")) from error
    log.info("%s: %s images", where, f"{len(images):,}")
    return pixels.to_float(images[np.arange(len(images))])


def _array(path, size, channels):
    """Reads an array of images; where the data are grey, also one of grey images that are stored as colour, as `arr_0` is."""
    try:
        return arrays.image_array(path, size, channels)
    except UserError as error:
        if channels != 1:
            raise
        try:
            colour = arrays.image_array(path, size, 3)
        except UserError:
            raise error from None
        images = colour[np.arange(len(colour))]
        if np.any(images != images[..., :1]):
            raise
        return images[..., :1]


def _check_sizes(where, sizes, wanted):
    named = sorted({f"{width}x{height}" for width, height in sizes})
    if len(named) > 1:
        raise UserError(f"{where} holds images of {len(named)} sizes ({', '.join(named[:3])}): samples have one size")
    if named != [f"{wanted[1]}x{wanted[0]}"]:
        raise UserError(
            f"{where} holds images of {named[0]}, and the data set of {wanted[1]}x{wanted[0]}: samples are not resized, "
            "set config.data.size to theirs"
        )


def _write(config, data, samples, found, left_out, out):
    results = {name: number for one in found for name, number in one.numbers.items()}
    notes = {name: text for one in found for name, text in one.notes.items()}
    failures = {name: reason for one in found for name, reason in one.failures.items()}
    plots = out / "plots"
    plots.mkdir(parents=True, exist_ok=True)
    preview.draw(config, data, samples).savefig(plots / "samples.png")
    said = [f"{name} failed: {reason}." for name, reason in failures.items()]
    said += [f"Left out, for want of the model: {', '.join(left_out)}."] if left_out else []
    table = report.numbers_table(results, lambda name: ". ".join(filter(None, (output_of(name).meaning, notes.get(name, "")))))
    sections = [
        report.Section("Samples", images=[report.image(plots / "samples.png", f"The first of {len(samples):,}.", wide=True)]),
        report.Section("Results", text=" ".join(said), table=table),
        report.Section("Set-up", pre=json.dumps(json.loads(config.to_json_best_effort()), indent=2)),
    ]
    summary = f"{len(samples):,} images of {config.evaluation.samples}, against the data of {config.name}."
    facts = [("Data", words.describe_data(config, data.train)), ("Samples", f"given: {config.evaluation.samples}")]
    workdir.write_json(out / "setup.json", dict(facts))
    workdir.write_config(out / "config.json", config)
    report.write_report(out / "report.html", f"{config.name}: given samples", summary, sections, facts)
    workdir.write_json(out / "results.json", results)
