"""What the model is fed: pictures and numbers of the training set, for the report and for `--mode=preview`."""

import json
import pathlib

import ml_collections
from matplotlib.figure import Figure

from advdiff_jax import builders_data, workdir
from advdiff_jax.data import corruption, wire
from advdiff_jax.evaluation import pictures, report

MEANING = {
    "examples": "examples looked at for these numbers, evenly spaced",
    "corrupted_fraction": "share of them that was chosen for corruption",
    "untouched_changed": "of the others, how many differ from the clean ones: must be 0",
    "clean_std": "standard deviation of the clean values",
    "dirty_std": "the same after corruption",
    "change_rms": "RMS of dirty - clean over corrupted examples, in the data's units (pictures: [-1, 1])",
    "change_rms_min": "the same of the least changed of them",
    "change_rms_max": "the same of the most changed of them",
    "at_limits": "share of the values of corrupted examples at black or white, or beyond",
    "at_limits_clean": "the same before corruption",
}


def seen(config: ml_collections.ConfigDict, data: builders_data.Data) -> str:
    """One line on what the training set is."""
    kinds = ", ".join(config.data.corruptions)
    return f"{data.touched.mean():.0%} of {len(data.train):,} training examples corrupted by {kinds}"


def statistics(data: builders_data.Data) -> dict[str, float]:
    """`corruption.statistics` of the inspected examples."""
    clean, dirty = (wire.to_float(examples[data.inspected]) for examples in (data.source.train, data.train))
    return corruption.statistics(clean, dirty, data.touched)


def draw(config: ml_collections.ConfigDict, data: builders_data.Data, examples: wire.Examples) -> Figure:
    """The first examples of the clean set, of the dirty one, or of samples, as pictures or points on common axes."""
    count = config.evaluation.grid if len(data.train.shape) == 4 else 30 * config.evaluation.grid  # as `pictures.show` does
    limits = wire.first(data.source.train, count if data.source.on_the_fly else len(data.source.train))
    return pictures.show(wire.first(examples, count), limits, data.source.plane, config.evaluation.grid)


def sections(
    config: ml_collections.ConfigDict, data: builders_data.Data, numbers: dict[str, float], plots: pathlib.Path
) -> list[report.Section]:
    """Draws data_dirty.png and data_clean.png into `plots`, and returns the sections of a report that show them.

    The first section holds the two pictures (a report may add samples to it), the second `numbers`, the `statistics`.
    """
    plots.mkdir(parents=True, exist_ok=True)
    for name, examples in [("data_dirty", data.train), ("data_clean", data.source.train)]:
        draw(config, data, examples).savefig(plots / f"{name}.png")
    return [
        report.Section(
            "Data",
            pictures=[
                report.picture(plots / "data_dirty.png", f"What the model is fed: {seen(config, data)}."),
                report.picture(plots / "data_clean.png", "The same examples before corruption: the truth."),
            ],
        ),
        report.Section(
            "What was done to the training set",
            table=[("name", "value", "meaning")]
            + [(name, report.number(value), MEANING[name]) for name, value in numbers.items()],
        ),
    ]


def preview(config: ml_collections.ConfigDict, folder: pathlib.Path) -> pathlib.Path:
    """Writes `folder`/preview: the pictures, statistics.json and report.html; nothing is trained, and no run is claimed.

    Returns:
        the report.

    Raises:
        UserError: see `builders_data.build_data`.
    """
    data, out = builders_data.build_data(config), folder / "preview"
    numbers = statistics(data)
    parts = sections(config, data, numbers, out)
    parts.append(report.Section("Set-up of the data", pre=json.dumps(json.loads(config.data.to_json_best_effort()), indent=2)))
    workdir.write_json(out / "statistics.json", numbers)
    shape = "x".join(map(str, data.train.shape[1:]))
    summary = f"{config.data.source}: {seen(config, data)}; examples of {shape}, {data.train.dtype}."
    report.write_report(out / "report.html", f"{config.name}: the training set", summary, parts)
    return out / "report.html"
