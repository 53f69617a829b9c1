"""`--mode=preview`: images and statistics of the training set, clean and corrupted; reports of runs show them too."""

import json
import pathlib

import ml_collections
import numpy as np
from matplotlib.figure import Figure

from advdiff_jax import workdir
from advdiff_jax.builders.data import Data, build_data
from advdiff_jax.data import corruption, pixels
from advdiff_jax.data.classical import Restored
from advdiff_jax.evaluation import figures, report
from advdiff_jax.training import parallel

MEANING = {
    "examples": "examples, evenly spaced, that these numbers describe",
    "corrupted_fraction": "share of them that was chosen for corruption",
    "clean_changed": "number of the others that differ from the clean set; must be 0",
    "clean_std": "standard deviation of the clean values",
    "dirty_std": "standard deviation after corruption",
    "change_rms": "RMS of dirty - clean over corrupted examples, in the data's units (images: [-1, 1])",
    "change_rms_min": "RMS of dirty - clean of the least changed example",
    "change_rms_max": "RMS of dirty - clean of the most changed example",
    "at_limits": "share of the values of corrupted examples at or beyond -1 and 1 (black and white)",
    "at_limits_clean": "the same share before corruption",
}


def describe(config: ml_collections.ConfigDict, data: Data) -> str:
    """Says in one line what the training set is."""
    kinds = ", ".join(config.data.corruptions)
    by = config.data.restored_by
    restored = "" if by == "none" else f"; all are restored by {by} before training"
    apart = f"; {len(data.held_out):,} examples are held out" if data.held_out is not None else ""
    if config.data.fraction == 0.0:
        return f"{len(data.train):,} training examples as they are{restored}{apart}"
    return f"{data.is_corrupted.mean():.0%} of {len(data.train):,} training examples corrupted by {kinds}{restored}{apart}"


def statistics(data: Data) -> dict[str, float]:
    """Computes `corruption.statistics` of the diagnosed examples."""
    sets = data.source.train, data.corrupted if isinstance(data.train, Restored) else data.train
    clean, dirty = (pixels.to_float(examples[data.diagnosed]) for examples in sets)
    return corruption.statistics(clean, dirty, data.is_corrupted)


def draw(config: ml_collections.ConfigDict, data: Data, examples: pixels.Examples) -> Figure:
    """Draws examples of the clean set, of the dirty one, or of samples, as images or points on common axes.

    Images are evenly spaced over the set, because the first names of a folder are alike.
    """
    if len(data.train.shape) == 4:
        count = config.evaluation.grid
        return figures.show(pixels.evenly_spaced(examples, count), _spread_stored(data.train, count), None, count)
    count = 30 * config.evaluation.grid  # as `figures.show` does
    limits = pixels.first(data.source.train, count if data.source.on_the_fly else len(data.source.train))
    return figures.show(pixels.first(examples, count), limits, data.source.plane, config.evaluation.grid)


def _spread_stored(examples, count):
    """Returns evenly spaced examples as stored: 8-bit images stay 8-bit."""
    return examples[pixels.evenly_spaced_indices(len(examples), count)]


def sections(
    config: ml_collections.ConfigDict, data: Data, numbers: dict[str, float], plots: pathlib.Path
) -> list[report.Section]:
    """Draws data_dirty.png and data_clean.png into `plots`, and returns the sections of a report that show them.

    Images are also stored, as clean and dirty in data.npz, for the joint report of a list of runs.

    The first section holds the two images (a report may add samples to it), the second `numbers`, the `statistics`.
    """
    plots.mkdir(parents=True, exist_ok=True)
    for name, examples in [("data_dirty", data.train), ("data_clean", data.source.train)]:
        draw(config, data, examples).savefig(plots / f"{name}.png")
    shown_range = ""
    if len(data.train.shape) == 4:
        clean, dirty = (_spread_stored(examples, config.evaluation.grid) for examples in (data.source.train, data.train))
        np.savez_compressed(plots / "data.npz", clean=clean, dirty=dirty)
        shown_range = figures.grey_range(figures.value_limit(dirty))
    images = [
        report.image(plots / "data_dirty.png", f"The training set: {describe(config, data)}.{shown_range}"),
        report.image(plots / "data_clean.png", "The same examples before corruption."),
    ]
    return [
        report.Section("Data", images=images),
        report.Section("The corruption of the training set", table=report.numbers_table(numbers, MEANING.__getitem__)),
    ]


@parallel.on_first_process
def run(config: ml_collections.ConfigDict, folder: pathlib.Path) -> pathlib.Path:
    """Writes the preview; see `write`."""
    return write(config, folder)


def write(config: ml_collections.ConfigDict, folder: pathlib.Path) -> pathlib.Path:
    """Writes `folder`/preview: images, statistics.json and report.html; trains nothing, and claims no run.

    Returns:
        the report.

    Raises:
        UserError: see `builders.data.build_data`.
    """
    data, out = build_data(config), folder / "preview"
    numbers = statistics(data)
    parts = sections(config, data, numbers, out)
    if inventory := getattr(data.source.train, "inventory", ()):
        parts.append(report.Section("The files: used, left out and refused", table=inventory))
    parts.append(report.Section("Set-up of the data", pre=json.dumps(json.loads(config.data.to_json_best_effort()), indent=2)))
    workdir.write_json(out / "statistics.json", numbers)
    shape = "x".join(map(str, data.train.shape[1:]))
    summary = f"{config.data.source}: {describe(config, data)}; examples of {shape}, {data.train.dtype}."
    report.write_report(out / "report.html", f"{config.name}: the training set", summary, parts)
    return out / "report.html"
