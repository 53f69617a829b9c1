"""`--mode=train`: trains or resumes a run, then samples, evaluates and writes the report."""

import contextlib
import dataclasses
import json
import logging
import pathlib

import jax
import ml_collections

from advdiff_jax import workdir
from advdiff_jax.builders import levels, noise_file
from advdiff_jax.builders.data import build_data
from advdiff_jax.builders.experiment import build_experiment, sampling_params
from advdiff_jax.builders.metrics import check_metrics
from advdiff_jax.builders.objectives import objective_spec
from advdiff_jax.builders.pretrained import restore
from advdiff_jax.builders.teaching import Teaching, build_teaching
from advdiff_jax.builders.validate import read_keys
from advdiff_jax.builders.warm_start import warm_start
from advdiff_jax.data import fingerprint
from advdiff_jax.errors import UserError
from advdiff_jax.modes import MODES, PREVIEWS, evaluate, laps, preview, sample
from advdiff_jax.training import loop, parallel

log = logging.getLogger(__name__)


def run(config: ml_collections.ConfigDict, folder: pathlib.Path) -> pathlib.Path:
    """Trains the run of a resolved config in `folder`, unless it is finished; returns its report. With an E-step: all laps.

    Raises:
        UserError: see `builders`, `workdir` and `training.loop`.
    """
    return laps.run(config, folder, train_lap) if objective_spec(config).em else train_lap(config, folder, laps.Lap())


def train_lap(config: ml_collections.ConfigDict, folder: pathlib.Path, lap: laps.Lap) -> pathlib.Path:
    """Trains a run on its data, or on what was drawn for a lap, and evaluates it on its data; returns its report. See `run`."""
    title = f"{config.name}:{config.variant}"
    if jax.process_index() == 0:
        again = {"noise.again"} & read_keys(config, MODES, "train")  # a share of the steps, where the run measures
        workdir.amend(config, folder, again)
    parallel.barrier("amended")
    if workdir.is_trained(folder):  # said before any data are read: a list may have hundreds of runs
        workdir.claim(config, folder, evaluate_only=False)
        log.info("%s: already finished; --mode=evaluate evaluates it again", title)
        return folder / "report.html"
    data = build_data(config)
    by_level = bool(objective_spec(config).by_level)
    teaching = Teaching() if by_level else build_teaching(config, data)  # a run that measures owns its folder first
    experiment = build_experiment(config, data.train.shape[1:], teaching.bank)
    check_metrics(config, data)
    start = warm_start(_starting(config, lap.before), experiment, folder)
    if jax.process_index() == 0:
        workdir.claim(config, folder, evaluate_only=False, previews=PREVIEWS)

    with workdir.lock(folder) if jax.process_index() == 0 else contextlib.nullcontext():
        if jax.process_index() == 0:
            _check_data(config, data, folder)
            log.info("%s: %s", title, preview.describe(config, data))
            log.info("%s: %s", title, _describe(config, experiment))
        if by_level:
            teaching = _measured_teaching(config, data, folder, title)
        return evaluate.evaluate_run(folder, _fit(config, folder, data, lap, experiment, teaching, start, title))


def _measured_teaching(config, data, folder, title):
    teaching = build_teaching(config, data, folder)
    log.info("%s: %s", title, levels.describe(teaching.levels))
    levels.say_floor(config, noise_file.common_level(teaching.levels))
    return teaching


def _fit(config, folder, data, lap, experiment, teaching, start, title):
    """Trains, and measures again on the way if that is due; returns the run."""

    def located(experiment):
        found = levels.measured(config, data, folder)
        # Its sampler knows what was measured.
        again = build_experiment(found, data.train.shape[1:], teaching.bank) if found.noise.file else experiment
        return found, again

    def fit(config, experiment, total):
        def on_sample(step, replicated, between):
            params = sampling_params(config, replicated)
            sample.draw(config, data, experiment, folder, step, params, between, config.train.sample_count)

        loop.train(
            config,
            folder,
            data.train if lap.examples is None else lap.examples,
            experiment.init,
            dataclasses.replace(experiment.step_schedule, total=total),
            experiment.steps,
            experiment.optimizer,
            title,
            on_sample=on_sample,
            warm_start=start,
            **teaching.of_batches(),
        )

    found, experiment = located(experiment)
    due = levels.step_of_again(config, data, teaching.levels) if teaching.levels else 0
    if due and teaching.levels.step < due:
        fit(found, experiment, due)
        levels.measure_again(config, data, folder, lambda: _model(found, experiment, folder), due)
        teaching = _measured_teaching(config, data, folder, title)
        found, experiment = located(experiment)
    fit(found, experiment, experiment.step_schedule.total)
    return sample.Opened(found, folder, data, experiment, restore(found, experiment, folder))


def _model(config, experiment, folder):
    return experiment.model(sampling_params(config, restore(config, experiment, folder).state))


def _starting(config, before):
    """Returns the config of a run that starts from the model in the folder `before`; None: as it is."""
    if before is None:
        return config
    started = config.copy_and_resolve_references()
    with started.unlocked():
        started.init_from = str(before)
    return started.lock()


def _check_data(config, data, folder):
    """Compares the data with those that the run began with; raises UserError if they differ and no override accepts it."""
    path, now = folder / "data.json", fingerprint.of(data.source.train)
    before = json.loads(path.read_text()) if path.exists() else None
    if before == now:
        return
    if before and (changed := fingerprint.difference(before, now)):
        if not config.data.accept_changes:
            raise UserError(
                f"the data of the run in {folder} have changed since it began ({changed}): restore them, name another "
                "--workdir, or go on with --config.data.accept_changes=True"
            )
        log.warning("%s goes on with other data: %s", folder, changed)
    workdir.write_json(path, now)


def _describe(config, experiment):
    """Says in one line what trains, on what, and for how long."""
    c = config.train
    params = jax.eval_shape(experiment.init, jax.random.key(0))
    count = sum(leaf.size for leaf in jax.tree.leaves(params))
    devices = f"{jax.device_count()} {jax.devices()[0].platform} device{'s' if jax.device_count() > 1 else ''}"
    return (
        f"{count:,} parameters on {devices}, {c.steps:,} steps of {c.batch_size} examples, learning rate {c.learning_rate:g} "
        f"({c.decay})"
    )
