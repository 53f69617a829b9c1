"""Samples, score fields and paths of several runs, side by side, from the files that each run left."""

import logging
import pathlib

import ml_collections
import numpy as np
from matplotlib.figure import Figure

from advdiff_jax import workdir
from advdiff_jax.data import pixels
from advdiff_jax.evaluation import figures as single
from advdiff_jax.evaluation import report, score_field
from advdiff_jax.sweep import figures
from advdiff_jax.sweep.curves import Finished
from advdiff_jax.sweep.figures import Table

log = logging.getLogger(__name__)

Folders = dict[str, pathlib.Path]  # label -> folder of its first finished run


def with_report(finished: Finished) -> Folders:
    """Returns label -> folder of the first seed, of runs that have a report and samples of their own."""
    firsts = {label: paths[0] for label, paths in finished.items() if (paths[0] / "report.html").exists()}
    return {label: path for label, path in firsts.items() if any(path.glob("samples/step_*.png"))}


def side_by_side(config: ml_collections.ConfigDict, table: Table, folders: Folders) -> list[tuple[str, str, Figure]]:
    """Draws the first samples of runs of images in rows, below the training data and above the clean data.

    Column i holds sample i of each run: with one `sampling.seed`, all of them begin from the same noise. The bars show
    the first of `config.metrics`.

    Returns:
        (file stem, caption, figure), or nothing if no run has images.
    """
    rows, limit = _rows(config.metrics[0], table, folders)
    if not rows:
        log.warning("config.figures: side_by_side shows images, and no finished run has plots/data.npz: leave it out")
        return []
    seeds = {workdir.flatten(config.runs[label]).get("sampling.seed", config.base.sampling.seed) for label in folders}
    same = ", those of a column from the same noise" if len(seeds) == 1 else ""
    caption = f"Examples of the data, evenly spaced, and the first samples of each run{same}.{single.grey_range(limit)}"
    figure = figures.side_by_side(rows, limit, config.metrics[0])
    return [("side_by_side", caption, figure)]


def _rows(metric, table, folders):
    """Builds the rows of all runs, between those of their data, and the value of white; runs that share data stand together."""
    blocks, limit = {}, 1.0
    for label, path in folders.items():
        if (path / "plots" / "data.npz").exists():
            with np.load(path / "plots" / "data.npz") as stored:
                dirty, clean = stored["dirty"], stored["clean"]
            limit = max(limit, single.value_limit(dirty))
            _, runs = blocks.setdefault(dirty.tobytes(), ((dirty, clean), []))
            stored = np.load(newest_samples(path).with_suffix(".npy"), mmap_mode="r")[: figures.IMAGES_OF_ROW]
            samples = pixels.to_float(stored)
            runs.append(figures.Row(label, samples, table[label].get(metric), is_data=False))
    rows = []
    for (dirty, clean), runs in blocks.values():
        known = table[runs[0].label]
        above = figures.Row("training data", pixels.to_float(dirty), known.get(f"{metric}_dirty"), is_data=True)
        below = figures.Row("clean data", pixels.to_float(clean), known.get(f"{metric}_clean"), is_data=True)
        rows += [above, *runs, below]
    return rows, limit


def newest_samples(folder: pathlib.Path) -> pathlib.Path:
    """Returns the image of the newest samples of a run."""
    return max((folder / "samples").glob("step_*.png"), key=lambda file: int(file.stem.split("_")[1]))


def sections(plots: pathlib.Path, folders: Folders) -> list[report.Section]:
    """Builds the sections that show each run's samples and, for points, its score field; `plots` gets the figures."""
    panels = _panels(folders)
    if not panels:
        return []
    single.strip(panels).savefig(plots / "samples.png")
    found = [report.Section("Data and samples", images=[report.image(path, caption) for caption, path in panels])]
    fields = _draw_fields(plots, folders)
    return found + ([report.Section("The score and its paths", images=fields)] if fields else [])


def _panels(folders):
    """Lists (caption, PNG) of the data and of each run's samples; runs that share data show them once."""
    panels, shown = [], set()
    for label, path in folders.items():
        dirty = path / "plots" / "data_dirty.png"
        if dirty.read_bytes() not in shown:
            shown.add(dirty.read_bytes())
            panels += [("training data", dirty), ("clean data, never seen", path / "plots" / "data_clean.png")]
        panels.append((f"samples: {label}", newest_samples(path)))
    return panels


def _draw_fields(plots, folders):
    """Draws all runs' score fields, at the lowest noise, where runs differ most, and their paths, beside the exact ones."""
    files = {label: path / "plots" / "fields.npz" for label, path in folders.items()}
    files = {label: path for label, path in files.items() if path.exists()}
    if not files:
        return []
    exact = next(iter(files.values())).with_name("fields_exact.npz")
    found = {"exact": score_field.load(exact)} | {label: score_field.load(path) for label, path in files.items()}
    level = int(np.argmin(found["exact"].field.levels))
    u, names = found["exact"].field.levels[level], found["exact"].names
    panels = [(label, drawn.field, level) for label, drawn in found.items()]
    single.score_fields(panels, names, columns=4).savefig(plots / "score_fields.png")
    half_side = float(found["exact"].field.points.max())
    paths = [(label, drawn.paths) for label, drawn in found.items()]
    single.trajectories(paths, names, 4, half_side).savefig(plots / "trajectories.png")
    return [
        report.image(plots / "score_fields.png", f"The score at sigma/alpha = {u:g}: exact, and learnt by each run.", True),
        report.image(plots / "trajectories.png", "Paths of the probability-flow ODE from the same starts.", True),
    ]
