"""`--mode=anomaly`: finds planted patches by what a model, trained on contaminated data, changes in an image."""

import functools
import logging
import pathlib

import ml_collections
import numpy as np

from advdiff_jax.builders import anomaly
from advdiff_jax.builders.experiment import sampling_params
from advdiff_jax.evaluation import anomaly as heat_maps
from advdiff_jax.evaluation import curves, report
from advdiff_jax.modes import judged as shared
from advdiff_jax.modes import sample
from advdiff_jax.training import parallel

log = logging.getLogger(__name__)

SHOWN = 10  # images in the picture
WAYS = {"one": "one step", "sampler": "sampler"}  # a way back -> its line


def run(config: ml_collections.ConfigDict, folder: pathlib.Path) -> pathlib.Path:
    """Judges the run in `folder` as `config.anomaly` says; writes to its folder anomaly.

    Returns:
        the page.

    Raises:
        UserError: there is no run, no image is held out, or see `builders.anomaly`.
    """
    return _judge(sample.open_run(config, folder))  # all processes open it


@parallel.on_first_process
def _judge(opened):
    config = opened.config
    planted = anomaly.build_planted(config, opened.data)
    params = sampling_params(config, opened.restored.state)
    found = anomaly.scores(config, opened.data, functools.partial(opened.experiment.predict, params), planted.x)
    numbers = anomaly.numbers(planted.truth, found)
    rows = table(numbers, list(found))
    shared.show(rows)
    out = shared.folder(opened.out, "anomaly")
    best, rival = (
        anomaly.best_of(numbers, [name for name in found if anomaly.is_rival(name) == rival]) for rival in (False, True)
    )
    path = out / "plots" / "examples.png"
    shown = slice(0, 2 * SHOWN, 2)  # those with a patch
    heat_maps.draw(
        {
            "image": planted.x[shown],
            "truth": planted.truth[shown].astype(np.float32),
            f"model, {best}": found[best][shown],
            f"principal\ncomponents, {rival}": found[rival][shown],
        }
    ).savefig(path)
    caption = "Images with a patch, where it is, and the scores of the pixels by the best of the model and of the components."
    summary = (
        f"Planted patches in {planted.words}: AUROC over pixels {numbers['anomaly_auroc']:.3f} by the model, at the best t* on "
        f"these images, and {numbers[f'anomaly_{rival}_auroc']:.3f} by principal components."
    )
    text = f"one: x0hat at t*; sampler: the whole way back; each a mean over {config.anomaly.draws} draws of the noise."
    sections = [
        report.Section("Examples", images=[report.image(path, caption, wide=True)]),
        report.Section("Areas", text, rows),
    ]
    return shared.write(config, out, "anomaly", numbers, _panels(numbers, found), sections, summary)


def table(numbers: dict[str, float], names: list[str]) -> list[tuple[str, ...]]:
    """Returns the rows of the page's table, heads first."""
    kinds = {"auroc": "AUROC", "auprc": "AUPRC", "image_auroc": "AUROC of images"}
    rows = [("score", *kinds.values())]
    for name in names:
        values = (numbers.get(f"anomaly_{name}_{kind}") for kind in kinds)
        rows.append((name, *("" if value is None else f"{value:.3f}" for value in values)))
    return rows


def _panels(numbers, found):
    """Returns AUROC and AUPRC over the noise level, the best principal components as a level line."""
    panels = []
    for kind, label in (("auroc", "AUROC"), ("auprc", "AUPRC")):
        series, levels = {}, [float(name.partition("_")[2]) for name in found if name.startswith("one_")]
        for way, line in WAYS.items():
            names = [name for name in found if name.startswith(f"{way}_")]
            series[line] = curves.Series(levels, [numbers[f"anomaly_{name}_{kind}"] for name in names])
        best = max(numbers[f"anomaly_{name}_{kind}"] for name in found if anomaly.is_rival(name))
        series["principal components"] = curves.Series(levels, [best] * len(levels))
        panels.append(curves.Panel(label, "noise level u = sigma / alpha at t*", f"{label} over pixels", series, xscale="log"))
    return panels
