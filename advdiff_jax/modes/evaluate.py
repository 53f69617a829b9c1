"""`--mode=evaluate`: samples from the newest checkpoint, computes metrics and diagnostics, and writes the report."""

import functools
import json
import logging
import pathlib

import jax
import ml_collections
import numpy as np

from advdiff_jax import workdir
from advdiff_jax.builders import metrics, noise_file, published, words
from advdiff_jax.builders.diagnostics import DIAGNOSTICS, DiagnosticInputs, output_of
from advdiff_jax.builders.experiment import sampling_params
from advdiff_jax.builders.registry import lookup_all
from advdiff_jax.builders.steps import evaluations
from advdiff_jax.data import pixels
from advdiff_jax.diffusion import exact
from advdiff_jax.diffusion.model import Model
from advdiff_jax.evaluation import figures, report, score_field
from advdiff_jax.evaluation.failures import attempt, finite
from advdiff_jax.modes import given_samples, lap_results, preview, sample
from advdiff_jax.noise import measure
from advdiff_jax.training import noise_floor, parallel
from advdiff_jax.training.checkpoint import Restored
from advdiff_jax.training.log import read_metrics

log = logging.getLogger(__name__)


def run(config: ml_collections.ConfigDict, folder: pathlib.Path) -> pathlib.Path:
    """Evaluates the run in `folder`; returns its report.

    Raises:
        UserError: see `builders` and `workdir`, or there is no checkpoint.
    """
    if config.evaluation.samples:
        return given_samples.run(config, folder)
    opened = sample.open_run(config, folder)
    metrics.check_metrics(opened.config, opened.data)
    return evaluate_run(folder, opened)


def evaluate_run(folder: pathlib.Path, opened: sample.Opened) -> pathlib.Path:
    """Samples from a run, and evaluates; writes results.json, report.html, plots/ and samples/.

    Every process takes its share of the metrics.

    Args:
        folder: the workdir.
        opened: the run.

    Returns:
        report.html.
    """
    config, out, data, experiment, restored = opened
    params, step = sampling_params(config, restored.state), int(restored.state.step)
    stored = sample.draw(config, data, experiment, out, step, parallel.replicate(params))
    if jax.process_index() == 0:
        sample.write_files(config, out, stored)
    samples = pixels.to_float(np.asarray(stored))
    share = jax.process_index(), jax.process_count()
    found = [
        metrics.Evaluated(*one)
        for one in parallel.gather(metrics.evaluate(config, data, samples, experiment.model(params), share))
    ]
    if jax.process_index() == 0:
        _write_report(folder, opened, samples, params, found)
    parallel.barrier("evaluated")  # the first process leaves last, and the others with it
    return out / "report.html"


def _write_report(folder, opened, samples, params, found):
    """Adds diagnostics to the metrics that all processes found, and writes report.html, then results.json."""
    config, out, data, experiment, restored = opened
    title, plots, step = f"{config.name}:{config.variant}", out / "plots", int(restored.state.step)
    plots.mkdir(exist_ok=True)
    level = _noise_level(config, restored)
    results = {name: number for one in found for name, number in one.numbers.items()}
    failures = {name: reason for one in found for name, reason in one.failures.items()}
    notes = {name: text for one in found for name, text in one.notes.items()}
    earlier = lap_results.earlier(folder)
    results |= _costs(config, folder, restored, earlier) | ({} if level is None else {"noise_level": level})
    if missing := config.evaluation.num_samples - len(samples):
        results["nonfinite_samples"] = missing
    sections, warnings = [], []
    predict, model = functools.partial(experiment.predict, params), experiment.model(params)
    inputs = DiagnosticInputs(samples, data, predict, _followed(config, level), plots)
    for name, spec in lookup_all(DIAGNOSTICS, config, "evaluation.diagnostics").items():
        diagnosis = attempt(name, functools.partial(spec.compute, config, inputs), failures)
        if diagnosis is not None:
            results |= finite(diagnosis.numbers, failures)
            sections += diagnosis.sections
            warnings += [diagnosis.warning] if diagnosis.warning else []
    for warning in warnings:
        log.warning("%s: %s", title, warning)
    warnings += [f"{name} failed: {reason}." for name, reason in failures.items()]
    shown, corrupted = _data_sections(config, data, plots, sample.image_path(out, step), step)
    sections = [
        shown,
        _results_section(config, results, notes, warnings),
        *([lap_results.section(earlier, results, plots)] if earlier else []),
        *sections,
        *_field_sections(config, data, model, plots),
        corrupted,
        *_closing_sections(config, folder, out, step),
    ]
    summary = f"Variant {config.variant} on {config.name}: {preview.describe(config, data)}."
    facts = words.setup(config, data.train, sum(leaf.size for leaf in jax.tree.leaves(params)))
    workdir.write_json(out / "setup.json", dict(facts))  # for joint reports
    report.write_report(out / "report.html", title, summary, sections, facts)
    workdir.write_json(out / "results.json", results)  # last: it marks the run as finished


def _results_section(config, results, notes, warnings):
    paper = {name: value for name, value in published.paper_numbers(config).items() if name in results}
    text = " ".join([*warnings, *([f"The paper's numbers: {published.SOURCE}."] if paper else [])])
    table = report.numbers_table(results, lambda name: _meaning(name, notes), paper)
    return report.Section("Results", text, table)


def _meaning(name, notes):
    return ". ".join(filter(None, (output_of(name).meaning, notes.get(name, ""))))


def _noise_level(config, restored):
    stats = restored.state.noise_floor
    if not noise_floor.is_measured(stats):
        return None
    return float(noise_floor.estimate_noise_floor(stats, config.robust.explained))


def _followed(config, level):
    """The noise floor that the weight of the penalty followed; None: there is none."""
    known = level is not None or (noise_file.follows_floor(config) and not noise_file.follows_training(config))
    return float(noise_file.followed_floor(config, level)) if known else None


def _costs(
    config: ml_collections.ConfigDict, folder: pathlib.Path, restored: Restored, earlier: list[lap_results.Earlier]
) -> dict[str, float]:
    if not restored.meta:  # the model that the run would start from
        return {"train_seconds": 0.0}
    rows = read_metrics(folder)[1:]  # the first window holds the warm-up of caches
    rates = [row["steps_per_second"] for row in rows]
    costs = {name: restored.meta[name] for name in ("flops_per_step", "train_seconds")}
    done = int(restored.state.step)
    costs["network_evaluations"] = config.train.batch_size * evaluations(config, config.train.steps, done)
    if config.noise.file:
        costs["network_evaluations"] += measure.load(pathlib.Path(config.noise.file)).evaluations
    for lap in earlier:
        costs["train_seconds"] += lap.results.get("train_seconds", 0.0) + lap.draws["seconds"]
        costs["network_evaluations"] += lap.results.get("network_evaluations", 0.0) + lap.draws["network_evaluations"]
    return costs | ({"steps_per_second": float(np.median(rates))} if rates else {})


def _data_sections(config, data, plots, samples, step):
    shown, statistics = preview.sections(config, data, preview.statistics(data), plots)
    image = report.image(samples, f"Samples after {step:,} steps.")
    return [shown._replace(heading="Data and samples", images=[*shown.images, image]), statistics]


def _field_sections(config, data, model, plots):
    """Draws score field and paths, model against truth; nothing without a known distribution or `evaluation.field_levels`."""
    distribution, shape = metrics.true_distribution(config), data.train.shape[1:]
    where, levels = score_field.section(data.source.plane, shape), config.evaluation.field_levels
    if distribution is None or where is None or not levels:
        return []
    half_side = score_field.limit(data.source)
    models = {"exact": Model(model.schedule, exact.denoiser(distribution, model.schedule)), config.variant: model}
    fields = {name: score_field.score_field(one, where, levels, half_side) for name, one in models.items()}
    paths = {name: score_field.trajectories(one, where, shape) for name, one in models.items()}
    for name, file in (("exact", "fields_exact.npz"), (config.variant, "fields.npz")):
        score_field.save(plots / file, score_field.Drawn(fields[name], paths[name], where.names))
    panels = [(f"{name}, sigma/alpha = {u:g}", fields[name], i) for name in models for i, u in enumerate(levels)]
    figures.score_fields(panels, where.names, columns=len(levels)).savefig(plots / "score_field.png")
    figures.trajectories(list(paths.items()), where.names, 2, half_side).savefig(plots / "trajectories.png")
    images = [
        report.image(plots / "score_field.png", "The score of clean data under noise, exact and learnt.", wide=True),
        report.image(plots / "trajectories.png", "Paths of the probability-flow ODE from the same starts.", wide=True),
    ]
    return [report.Section("The score and its paths", images=images)]


def _closing_sections(config, folder, out, step):
    """Builds the training curves, the links to the run's files, and the whole config."""
    plots, samples = out / "plots", sample.image_path(out, step).with_suffix(".npy")
    files = [out / "results.json", samples, folder / "config.json", folder / "metrics.jsonl", plots]
    setup = [
        report.Section("Files", table=report.links(out, files)),
        report.Section("The whole config", pre=json.dumps(json.loads(config.to_json_best_effort()), indent=2)),
    ]
    rows = read_metrics(folder)
    if not rows:
        return setup
    figures.curves(rows).savefig(plots / "curves.png")
    curves = report.image(plots / "curves.png", "Means over logged windows.", wide=True)
    return [report.Section("Training", images=[curves]), *setup]
