"""`--mode=certify`: certified accuracy of a classifier behind one step of the denoiser (Carlini et al., arXiv 2206.10550)."""

import functools
import logging
import pathlib

import ml_collections
import numpy as np

from advdiff_jax.builders import certify
from advdiff_jax.builders.classifier import build_classifier, build_judged
from advdiff_jax.builders.experiment import sampling_params
from advdiff_jax.evaluation import curves, report
from advdiff_jax.features import classifier as classifiers
from advdiff_jax.modes import judged as shared
from advdiff_jax.modes import sample
from advdiff_jax.training import parallel

log = logging.getLogger(__name__)

SHOWN = {"certify": "denoised", "certify_undefended": "alone"}  # a base classifier -> its line


def run(config: ml_collections.ConfigDict, folder: pathlib.Path) -> pathlib.Path:
    """Certifies with the run in `folder` as `config.certify` says; writes to its folder certify, with the classifier beside.

    Returns:
        the page.

    Raises:
        UserError: there is no run, its data have no classes, or see `builders.certify` and `builders.classifier`.
    """
    return _judge(sample.open_run(config, folder))  # all processes open it


@parallel.on_first_process
def _judge(opened):
    config = opened.config
    c, judged = config.certify, build_judged(config, opened.data, config.certify.examples)
    classifier = build_classifier(config, opened.data)
    params = sampling_params(config, opened.restored.state)
    programs = certify.build_programs(config, functools.partial(opened.experiment.predict, params), classifier)
    numbers, panels, rows = (
        {},
        [],
        [("noise std", "", *(f"radius {radius:g}" for radius in c.radii), "mean radius", "abstained")],
    )
    for std in programs.times:
        series = {}
        for name in programs.votes:
            found = certify.certify(config, programs, name, std, judged)
            own = certify.numbers(config, name, std, found, judged.labels)
            numbers |= own
            rows.append((f"{std:g}", SHOWN[name], *(f"{value:.3f}" for value in own.values())))
            radii = np.linspace(0.0, max(*found.radius, *c.radii), 41)
            series[SHOWN[name]] = curves.Series(radii, [found.accuracy(judged.labels, radius) for radius in radii])
        panels.append(curves.Panel(f"noise std {std:g}", "L2 radius, units of [0, 1]", "certified accuracy", series))
    shared.show(rows)
    out = shared.folder(opened.out, "certify")
    classifiers.write(out / "classifier.safetensors", classifier)
    summary = (
        f"Certified accuracy on {judged.words}: {c.first_draws:,} draws choose the class, {c.draws:,} bound its chance, and a "
        f"certificate fails with chance {c.failure:g}."
    )
    largest = ", ".join(f"{std * _most(c):.3g}" for std in c.noise_stds)
    text = f"Std and radius in units of [0, 1]. So many draws certify no radius above {largest}."
    return shared.write(config, out, "certify", numbers, panels, [report.Section("Certified accuracy", text, rows)], summary)


def _most(c):
    """Returns the radius over the std where every draw names one class."""
    return float(certify.certificate.certify(np.array([[1, 0]]), np.array([[c.draws, 0]]), 1.0, c.failure).radius[0])
