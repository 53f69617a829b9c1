"""Config -> the diagnostic `few_steps`: a metric over the network evaluations of each sampler, from one checkpoint."""

import functools
import logging

import jax
import ml_collections
import numpy as np

from advdiff_jax import workdir
from advdiff_jax.builders.diagnosis import Diagnosis, DiagnosticInputs, DiagnosticSpec
from advdiff_jax.builders.distance import build_distance, first_distance
from advdiff_jax.builders.draw import build_draw, example_keys, final_evaluations
from advdiff_jax.builders.objectives import objective_spec
from advdiff_jax.builders.outputs import Output
from advdiff_jax.builders.process import SAMPLERS, build_process, build_times
from advdiff_jax.builders.registry import lookup_all
from advdiff_jax.data import pixels
from advdiff_jax.errors import UserError
from advdiff_jax.evaluation import curves, report

log = logging.getLogger(__name__)


def _at(config, method, count):
    """Returns a config that samples by this method with `count` steps, and its network evaluations per sample."""
    own = config.copy_and_resolve_references()
    with own.unlocked():
        own.sampling.update({"method": method, "steps": count})
    spec = SAMPLERS[method]
    try:
        steps = len(build_times(own, build_process(own).schedule, objective_spec(own).lowest_noise(own))) - 1
    except UserError as error:
        raise UserError(f"config.evaluation.few_steps.steps={count}: {error}") from error
    return own, spec.evaluations(own.sampling, steps) + final_evaluations(own.sampling)


def _points(config):
    """Returns method -> [(config, steps, evaluations)] for each point of the figure."""
    specs = lookup_all(SAMPLERS, config, "evaluation.few_steps.samplers")
    adaptive = [name for name, spec in specs.items() if spec.evaluations is None]
    if adaptive:
        gridded = ", ".join(name for name, spec in SAMPLERS.items() if spec.evaluations)
        raise UserError(
            f"config.evaluation.few_steps.samplers: {adaptive[0]} chooses its own steps: leave it out; {gridded} take a number"
        )
    if config.sampling.grid == "respaced":
        raise UserError("config.sampling.grid='respaced' ignores the number of steps: set uniform, log_snr or edm")
    for key in ("samplers", "steps"):
        if not config.evaluation.few_steps[key]:
            raise UserError(f"config.evaluation.few_steps.{key}=() leaves no point to draw: set one at least")
    counts = sorted(config.evaluation.few_steps.steps)
    return {name: [(*_at(config, name, count), count) for count in counts] for name in specs}


def _drawn(config, inputs):
    """Returns samples as floats, as the data store them; those that are not finite are left out."""
    c, process = config.evaluation.few_steps, build_process(config)
    draw = jax.jit(functools.partial(build_draw(config, process, inputs.data.train.shape[1:]), inputs.predict))
    keys, size = example_keys(config.sampling.seed, c.num_samples), min(config.sampling.batch_size, c.num_samples)
    rounds = [(first + np.arange(size)) % c.num_samples for first in range(0, c.num_samples, size)]  # of one shape
    samples = np.concatenate([draw(keys[chosen]) for chosen in rounds])[: c.num_samples]
    finite = samples[np.all(np.isfinite(samples), axis=tuple(range(1, samples.ndim)))]
    return pixels.to_float(pixels.as_stored(finite, inputs.data.train.dtype)), len(samples) - len(finite)


def _distance(config, inputs):
    c = config.evaluation.few_steps
    if c.metric:
        return build_distance(config, inputs.data, c.metric), []
    found, reasons = first_distance(config, inputs.data, np.asarray(inputs.samples[: c.num_samples]))
    if found is None:
        raise UserError(f"config.evaluation.few_steps.metric='': {'; '.join(reasons)}: name a number of those metrics")
    return found, reasons


def _few_steps(config: ml_collections.ConfigDict, inputs: DiagnosticInputs) -> Diagnosis:
    """Draws from the same starts by each sampler in each number of steps, and measures each set of samples."""
    c, points = config.evaluation.few_steps, _points(config)
    distance, notes = _distance(config, inputs)
    total = c.num_samples * sum(cost for ones in points.values() for _, cost, _ in ones)
    log.info("few_steps: %s network evaluations", f"{total:,}")
    numbers, rows, lines = {}, [], {}
    for method, ones in points.items():
        x, y = [], []
        for own, cost, count in ones:
            samples, lost = _drawn(own, inputs)
            value, reason = distance.of(samples) if len(samples) > 1 else (float("nan"), "no sample is finite")
            if lost:
                notes.append(f"{method} in {count} steps: {lost} samples are not finite and left out")
            if reason:
                notes.append(f"{method} in {count} steps has no {distance.name}: {reason}")
            else:
                numbers[f"few_steps_{method}_{cost}"] = value
                x.append(cost)
                y.append(value)
            rows.append((method, str(count), str(cost), "" if reason else report.number(value)))
        lines[method] = curves.Series(x, y)
    for note in notes:
        log.warning("few_steps: %s", note)
    panel = curves.Panel("few steps", "network evaluations per sample", distance.name, lines, "log", "log")
    workdir.write_json(inputs.plots / "few_steps.json", curves.as_json([panel]))
    curves.draw([panel]).savefig(inputs.plots / "few_steps.png")
    text = " ".join([f"{c.num_samples:,} samples a point, all from the same starts. {distance.output.meaning}.", *notes])
    image = report.image(inputs.plots / "few_steps.png", f"{distance.name} over network evaluations.", wide=True)
    table = [("sampler", "steps", "network evaluations", distance.name), *rows]
    return Diagnosis(numbers, [report.Section("Few steps", text=text, table=table, images=[image])])


SPEC = DiagnosticSpec(
    _few_steps,
    {
        "few_steps_*": Output(
            "config.evaluation.few_steps.metric of samples by that sampler with that number of network evaluations a sample",
            None,
        )
    },
    reads=tuple(f"evaluation.few_steps.{key}" for key in ("samplers", "steps", "metric", "num_samples")),
)
