"""One run: train, sample, evaluate, report, in one workdir."""

import functools
import json
import logging
import pathlib

import jax
import ml_collections
import numpy as np

from advdiff_jax import (
    builders,
    builders_data,
    builders_evaluation,
    builders_objectives,
    earlier,
    poison,
    preview,
    transfer_mode,
    workdir,
)
from advdiff_jax.data import wire
from advdiff_jax.diffusion import exact
from advdiff_jax.evaluation import fields, inner, pictures, report
from advdiff_jax.training import levels, loop, parallel
from advdiff_jax.training.checkpoint import Restored
from advdiff_jax.training.log import read_metrics

log = logging.getLogger(__name__)


def _prepare(config, folder):
    builders_data.prepare_data(config)
    return preview.preview(config, folder)


# Modes that look at the data, or at the config, and train nothing.
DATA_MODES = {"prepare": _prepare, "preview": preview.preview, "poison": poison.poison, "transfer": transfer_mode.transfer_mode}


def run(config: ml_collections.ConfigDict, folder: pathlib.Path, mode: str) -> pathlib.Path:
    """Does what `mode` says in `folder`.

    Args:
        config: a config of `configs/`.
        folder: the workdir.
        mode: "train" trains (or resumes), then samples and evaluates; "sample" draws from the newest checkpoint into
            samples/; "evaluate" also writes results.json and report.html; "prepare" downloads and prepares the data and,
            as "preview", writes preview/; "poison" writes poison/, see `advdiff_jax.poison`, and "transfer" transfer/, see
            `advdiff_jax.transfer_mode`.

    Returns:
        the file to open: report.html, or the sample picture, or the poisoned data set.

    Raises:
        UserError: a mistake of the user's; see `builders`, `workdir` and `training.loop`.
    """
    if mode in DATA_MODES:
        return DATA_MODES[mode](config, folder)
    config = builders_objectives.budgeted(config)
    title, first = f"{config.name}:{config.variant}", jax.process_index() == 0
    if mode == "train" and (folder / "results.json").exists():  # said before any data are read: a list may have hundreds
        workdir.claim(config, folder, evaluate_only=False)
        log.info("%s: already finished; --mode=evaluate evaluates it again", title)
        return folder / "report.html"
    data = builders_data.build_data(config)
    experiment = builders.build(config, data.train.shape[1:])
    # Refuses now what would otherwise fail after the training.
    builders_evaluation.evaluate(config, data, wire.first(data.train, 64))
    begin = earlier.begin_from(config, experiment, folder) if mode == "train" else None
    out = workdir.claim(config, folder, evaluate_only=mode != "train") if first else folder

    def draw_and_save(step, params):
        samples = experiment.sampler(params, jax.random.key(config.sampling.seed), config.evaluation.num_samples)
        if first:
            _save_samples(config, data, samples, out, step)
        return samples

    if mode == "train":
        if first:
            log.info("%s: %s", title, preview.seen(config, data))
        loop.train(
            config,
            folder,
            data.train,
            experiment.init,
            experiment.plan,
            experiment.optimizer,
            title,
            on_sample=draw_and_save,
            begin=begin,
            noise_std=data.noise_std,
        )

    restored = earlier.newest(folder, experiment)
    samples = draw_and_save(int(restored.state.step), parallel.replicate(restored.state.ema_params))
    if mode == "sample":
        return out / "samples" / f"step_{int(restored.state.step)}.png"
    if first:
        model = experiment.model(restored.state.ema_params)
        results = builders_evaluation.evaluate(config, data, samples, model) | _cost(config, folder, restored)
        if levels.is_measured(restored.state.levels):
            results["noise_level"] = float(levels.crossing(restored.state.levels, config.robust.explained))
        (out / "plots").mkdir(exist_ok=True)
        more = []
        if "transfer" in config.evaluation.looks:
            gains, transfer = transfer_mode.measured(config, data, samples, out / "plots", results.get("noise_level"))
            results |= gains
            more.append(transfer)
        if "inner" in config.evaluation.looks:
            predict = functools.partial(experiment.predict, restored.state.ema_params)
            results |= builders_evaluation.inner_maximisation(config, data, predict, results.get("noise_level"))
        if hiding := inner.warning(results, config.evaluation.overfitting_ratio):
            log.warning("%s: %s", title, hiding)
        _write_report(config, data, model, results, folder, out, int(restored.state.step), title, more)
        workdir.write_json(out / "results.json", results)  # last: it marks the run as finished
    return out / "report.html"


def _save_samples(config, data, samples, out, step):
    folder = out / "samples"
    folder.mkdir(exist_ok=True)
    np.save(folder / f"step_{step}.npy", samples)
    preview.draw(config, data, samples).savefig(folder / f"step_{step}.png")


def _cost(config: ml_collections.ConfigDict, folder: pathlib.Path, restored: Restored) -> dict[str, float]:
    rows = read_metrics(folder)[1:]  # the first window holds the warm-up of caches
    rates = [row["steps_per_second"] for row in rows]
    cost = {name: restored.meta[name] for name in ("flops_per_step", "train_seconds")}
    cost["network_evaluations"] = config.train.batch_size * builders_objectives.evaluations(
        config, config.train.steps, int(restored.state.step)
    )
    return cost | ({"steps_per_second": float(np.median(rates))} if rates else {})


def _draw_fields(config, data, model, plots):
    """Score field and trajectories, model against truth; nothing where the law is not known or no level is asked for."""
    law, shape = builders_evaluation.exact_law(config, data.source), data.train.shape[1:]
    where = fields.section(data.source.plane, shape)
    if law is None or where is None or not config.evaluation.field_levels:
        return []
    truth = fields.Model(model.schedule, exact.denoiser(law, model.schedule))
    levels, half_side = config.evaluation.field_levels, fields.limit(data.source)
    shown = {"exact": truth, config.variant: model}
    found = {name: fields.score_field(one, where, levels, half_side) for name, one in shown.items()}
    paths = {name: fields.trajectories(one, where, shape) for name, one in shown.items()}
    for name, file in (("exact", "fields_exact.npz"), (config.variant, "fields.npz")):
        fields.save(plots / file, fields.Drawn(found[name], paths[name], where.names))
    panels = [(f"{name}, sigma/alpha = {u:g}", found[name], i) for name in shown for i, u in enumerate(levels)]
    pictures.score_fields(panels, where.names, columns=len(levels)).savefig(plots / "score_field.png")
    pictures.trajectories(list(paths.items()), where.names, 2, half_side).savefig(plots / "trajectories.png")
    return [
        report.picture(plots / "score_field.png", "The score of clean data under noise, exact and learnt.", wide=True),
        report.picture(plots / "trajectories.png", "Paths of the probability-flow ODE from the same starts.", wide=True),
    ]


def _write_report(config, data, model, results, folder, out, step, title, more):
    plots = out / "plots"
    shown, statistics = preview.sections(config, data, preview.statistics(data), plots)
    pictures.curves(read_metrics(folder)).savefig(plots / "curves.png")
    sample = report.picture(out / "samples" / f"step_{step}.png", f"What it draws after {step:,} steps.")
    drawn = _draw_fields(config, data, model, plots)
    sections = [
        shown._replace(heading="Data and samples", pictures=[*shown.pictures, sample]),
        statistics,
        report.Section(
            "Results",
            text=inner.warning(results, config.evaluation.overfitting_ratio),
            table=[("name", "value", "meaning")]
            + [(name, report.number(value), report.MEANING.get(name, "")) for name, value in results.items()],
        ),
        *more,
        *([report.Section("The score and its paths", pictures=drawn)] if drawn else []),
        report.Section("Training", pictures=[report.picture(plots / "curves.png", "Means over logged windows.", wide=True)]),
        report.Section("Set-up", pre=json.dumps(json.loads(config.to_json_best_effort()), indent=2)),
    ]
    summary = f"Variant {config.variant}, data {config.data.source}: {preview.seen(config, data)}."
    report.write_report(out / "report.html", title, summary, sections)
