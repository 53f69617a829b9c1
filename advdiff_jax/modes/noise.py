"""`--mode=noise`: measures the noise of every training example, by the data and by a model if there is one, and shows it."""

import logging
import pathlib
from typing import NamedTuple

import ml_collections
import numpy as np
import scipy.stats
from matplotlib.figure import Figure

from advdiff_jax.builders import levels, model_reading, noise_file
from advdiff_jax.builders.data import Data, build_data, build_noise_std
from advdiff_jax.builders.experiment import build_experiment, sampling_params
from advdiff_jax.builders.pretrained import restore
from advdiff_jax.builders.registry import as_user_error
from advdiff_jax.data import pixels
from advdiff_jax.errors import UserError
from advdiff_jax.evaluation import figures, foreign, report
from advdiff_jax.noise import measure, quiet
from advdiff_jax.noise.measure import NoiseLevels
from advdiff_jax.training import parallel
from advdiff_jax.training.checkpoint import has_checkpoint

log = logging.getLogger(__name__)

SHOWN = 32  # examples in a picture
ATYPICAL = "atypical.npz"  # beside noise.npz: the same, and the most atypical examples teach nothing
QUANTILES = {"std": 0.5, "std_low": 0.05, "std_high": 0.95}
MEANING = {
    "examples": "training examples that are described",
    "clean_share": "share of them in which no noise is found",
    "std": "median std of the noise in the others, in the data's units (images: [-1, 1])",
    "std_low": "the same of the least noisy twentieth of them",
    "std_high": "the same of the noisiest twentieth",
    "relative_error": "error of one example's std, as planted noise shows it",
    "true_clean_share": "share of the examples that this config left clean",
    "auc": "chance that a corrupted example reads noisier than a clean one, ties as half",
    "auc_harder": "chance that the model denoises a corrupted example worse than a clean one; below 0.5: it is easier",
    "auc_atypical": "that its readings are farther from those of most examples; below 0.5 where clean ones are few",
    "clean_called_noisy": "share of the clean examples that are called noisy",
    "noisy_called_clean": "share of the corrupted examples that are called clean",
    "std_over_truth": "median of measured over true std, in corrupted examples",
    "rank_correlation": "Spearman's, of measured and true std in corrupted examples",
}


def run(config: ml_collections.ConfigDict, folder: pathlib.Path) -> pathlib.Path:
    """Writes noise.npz and report.html to `folder`/noise; trains nothing, and claims no run.

    The data alone are read; and so are they by the model of the run in `folder`, or by that of `init_from`, if there is one.

    noise.npz holds the fields of `noise.measure.NoiseLevels`. Where the config itself corrupts the data, the report compares
    with the truth, which the measurement does not see.

    Returns:
        the report.

    Raises:
        UserError: see `builders.data.build_data` and `builders.pretrained.restore`, or an example holds numbers that are not
            finite.
    """
    data = build_data(config)
    return _measure(config, data, folder / "noise", _reader(config, data, folder))  # all processes open the model


@parallel.on_first_process
def _measure(config, data, out, reader):
    readings = reader and model_reading.read_all(reader, data.train)
    with as_user_error("config.data"):
        found = measure.measure(data.train, config.seed, readings)
    seen = readings and as_seen(readings.of_examples)
    measure.save(out / noise_file.FILE, found)
    words, use = levels.describe(found), f"Train by these levels: --config.noise.file={out / noise_file.FILE}."
    log.info("%s", words)
    if seen:
        left_out = foreign.named(seen.distance, config.noise.atypical_share)
        measure.save(out / ATYPICAL, without(found, left_out))
        use += (
            f" With --config.noise.file={out / ATYPICAL} the {np.sum(left_out):,} most atypical examples teach nothing too "
            f"(config.noise.atypical_share={config.noise.atypical_share:g}): look at them first."
        )
    _draw(found).savefig(out / "levels.png")
    sections = [
        report.Section("What was found", table=report.numbers_table(summary(found), MEANING.__getitem__)),
        report.Section("Levels", images=[report.image(out / "levels.png", _CAPTION, wide=True)]),
        *_shown(data, found, out),
        *(_atypical(data, seen, out) if seen else []),
        *_truth(config, data, found, seen),
        report.Section("Use it", use),
    ]
    title, summary_words = f"{config.name}: the noise of each example", f"{words[0].upper()}{words[1:]}."
    report.write_report(out / "report.html", title, summary_words, sections)
    return out / "report.html"


class Seen(NamedTuple):
    """How a model sees N examples.

    Attributes:
        harder: mean logarithm of its errors, [N].
        distance: from most examples, see `foreign.atypicality`, [N].
    """

    harder: np.ndarray
    distance: np.ndarray


def as_seen(readings: np.ndarray) -> Seen:
    """Summarises the readings [N, levels] of a model."""
    return Seen(np.mean(np.log(np.maximum(readings, 1e-6)), axis=1), foreign.atypicality(readings.T**2))


def without(found: NoiseLevels, left_out: np.ndarray) -> NoiseLevels:
    """Returns levels by which the examples `left_out` [N] teach nothing."""
    words = f"{found.words}; {np.sum(left_out):,} atypical examples teach nothing"
    return found._replace(std=np.where(left_out, np.inf, found.std), is_clean=found.is_clean & ~left_out, words=words)


def _reader(config, data, folder):
    """The reader of the model at hand; None: there is none, or the examples are too small to be read one by one."""
    if not (has_checkpoint(folder) or config.init_from) or quiet.is_tiny(data.train.shape[1:]):
        return None
    experiment = build_experiment(config, data.train.shape[1:])
    state = restore(config, experiment, folder).state
    log.info("the model of %s reads the noise too", folder if has_checkpoint(folder) else config.init_from)
    model, block = experiment.model(sampling_params(config, state)), config.sampling.batch_size
    return model_reading.build_reader(model, data.train.shape[1:], config.seed, block=block)


_CAPTION = "Std of the noise in each example; in clean ones it is what the reading takes for noise."


def summary(found: NoiseLevels) -> dict[str, float]:
    """Returns the numbers of the first table."""
    noisy = found.std[~found.is_clean]
    of_noisy = {name: float(np.quantile(noisy, q)) for name, q in QUANTILES.items()} if len(noisy) else {}
    share = {"examples": len(found.std), "clean_share": float(np.mean(found.is_clean))}
    return share | of_noisy | {"relative_error": found.error}


def compared(found: NoiseLevels, is_corrupted: np.ndarray, std: np.ndarray | None) -> dict[str, float]:
    """Compares with the truth.

    Args:
        found: of N examples.
        is_corrupted: [N].
        std: true std of each, [N]; None: the corruption is not one kind of Gaussian noise.
    """
    numbers = {"true_clean_share": float(np.mean(~is_corrupted))}
    has_clean, has_noisy = bool(np.any(~is_corrupted)), bool(np.any(is_corrupted))
    if has_clean and has_noisy:
        numbers["auc"] = foreign.area(found.reading, is_corrupted)
    if has_clean:
        numbers["clean_called_noisy"] = float(np.mean(~found.is_clean[~is_corrupted]))
    if has_noisy:
        numbers["noisy_called_clean"] = float(np.mean(found.is_clean[is_corrupted]))
    if std is not None and has_noisy:
        true = std[is_corrupted]
        numbers["std_over_truth"] = float(np.median(found.std[is_corrupted] / true))
        if np.ptp(true) > 0.0:
            numbers["rank_correlation"] = float(scipy.stats.spearmanr(found.std[is_corrupted], true).statistic)
    return numbers


def _draw(found):
    figure = Figure(figsize=(7.0, 3.2), dpi=110, layout="constrained")
    axes = figure.subplots()
    shown = np.maximum(found.reading, 1e-3)
    bins = np.geomspace(shown.min(), max(shown.max(), 1.01 * shown.min()), 60)
    for members, label, colour in ((found.is_clean, "called clean", "#1f77b4"), (~found.is_clean, "called noisy", "#d62728")):
        if members.any():
            axes.hist(shown[members], bins, label=f"{label}: {np.sum(members):,}", color=colour, alpha=0.75)
    axes.set(xscale="log", xlabel="std of the noise, data's units", ylabel="examples")
    axes.legend()
    return figure


def _shown(data, found, out):
    """Pictures of the cleanest and noisiest examples, and of those nearest to the border."""
    if len(data.train.shape) != 4:
        return []
    order = np.argsort(found.reading, kind="stable")
    clean = int(np.sum(found.is_clean))
    middle = clean if 0 < clean < len(order) else len(order) // 2
    parts = {"cleanest": order[:SHOWN], "border": order[max(0, middle - SHOWN // 2) :][:SHOWN], "noisiest": order[::-1][:SHOWN]}
    captions = {
        "cleanest": "The examples with the least noise.",
        "border": "Those between clean and noisy." if 0 < clean < len(order) else "Those in the middle.",
        "noisiest": "Those with the most.",
    }
    images, limits = [], pixels.to_float(data.train[parts["noisiest"]])
    for name, rows in parts.items():
        figures.show(pixels.to_float(data.train[rows]), limits, None, SHOWN).savefig(out / f"{name}.png")
        images.append(report.image(out / f"{name}.png", captions[name]))
    return [report.Section("Examples", images=images)]


def _atypical(data, seen, out):
    """Pictures of the examples that the model finds harder, or easier, than the rest, at all levels together."""
    if len(data.train.shape) != 4:
        return []
    is_harder = seen.harder > np.median(seen.harder)
    captions = {
        "harder": "Harder for the model than the rest: noise, and images of another kind.",
        "easier": "Easier: blurred, or simpler than the rest.",
    }
    images = []
    for name, members in {"harder": is_harder, "easier": ~is_harder}.items():
        rows = np.flatnonzero(members)
        rows = rows[np.argsort(-seen.distance[rows], kind="stable")[:SHOWN]]
        shown = pixels.to_float(data.train[rows])
        figures.show(shown, shown, None, SHOWN).savefig(out / f"{name}.png")
        images.append(report.image(out / f"{name}.png", captions[name]))
    return [report.Section("The most atypical examples, as the model sees them", images=images)]


def _truth(config, data: Data, found, seen):
    if not config.data.corruptions or config.data.fraction == 0.0:
        return []
    rows = data.diagnosed
    try:
        std = build_noise_std(config, data)(rows) if config.data.restored_by == "none" else None
    except UserError:  # another corruption than noise has no std
        std = None
    part = found._replace(std=found.std[rows], is_clean=found.is_clean[rows], reading=found.reading[rows])
    numbers = {"examples": len(rows), **compared(part, data.is_corrupted, std)}
    if seen and 0 < np.sum(data.is_corrupted) < len(rows):
        numbers["auc_harder"] = foreign.area(seen.harder[rows], data.is_corrupted)
        numbers["auc_atypical"] = foreign.area(seen.distance[rows], data.is_corrupted)
    text = "This config corrupts the data itself. The measurement does not see these numbers."
    return [report.Section("Beside the truth", text, report.numbers_table(numbers, MEANING.__getitem__))]
