"""Config -> what a run reports besides its metrics: the registry of diagnostics."""

import functools

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from advdiff_jax import workdir
from advdiff_jax.builders import (
    anomaly,
    attack,
    certify,
    denoising,
    few_steps,
    foreign,
    local_gain,
    noise_levels,
    purify,
    restorers,
    similarity,
)
from advdiff_jax.builders.closed_form import of_penalty
from advdiff_jax.builders.data import known_noise_std
from advdiff_jax.builders.diagnosis import Diagnosis, DiagnosticInputs, DiagnosticSpec
from advdiff_jax.builders.gain import build_closed_form, build_curve, curve_stds
from advdiff_jax.builders.metrics import METRICS
from advdiff_jax.builders.objectives import build_robust, objective_spec
from advdiff_jax.builders.outputs import COSTS, Output, describe
from advdiff_jax.builders.penalty import BALLS
from advdiff_jax.builders.process import build_process
from advdiff_jax.builders.registry import build
from advdiff_jax.data import pixels
from advdiff_jax.errors import UserError
from advdiff_jax.evaluation import curves as panels
from advdiff_jax.evaluation import gain_figure, overfitting, principal_directions, report
from advdiff_jax.objectives.denoising import no_variance

OVERFITTING_EXAMPLES, OVERFITTING_BATCH = 512, 64  # looked at by the detector, and how many at once
OVERFITTING_TIMES = 4096  # times of training among which it chooses
NEAR = 0.35  # a noise floor above this share of the data's largest standard deviation: data of one scale have 0.5


def _gain(config: ml_collections.ConfigDict, inputs: DiagnosticInputs) -> Diagnosis:
    """Compares the gain of the samples on the principal directions of the training data with the closed form.

    `gain_error` is the root mean square over directions of measured minus expected gain, the linear model's under the run's
    sampler; it is left out where there is no closed form.
    """
    train = pixels.evenly_spaced(inputs.data.train, config.evaluation.max_reference)
    stds, gains = principal_directions.gains(train, inputs.samples)
    numbers = {"gain_largest": float(gains[0]), "gain_smallest": float(gains[-1])}
    curves, warning = [], ""
    try:
        closed_form = build_closed_form(
            config,
            lambda: (
                principal_directions.noise_level(train, config.robust.explained)
                if inputs.noise_floor is None
                else inputs.noise_floor
            ),
        )
    except UserError as error:
        text = f"{error}."
    else:
        curves = [build_curve(config, closed_form, config.variant, curve_stds((stds[0], stds[-1])))]
        text = f"{config.variant}: {closed_form.description}"
        expected = curves[0].gain if curves[0].sampled is None else curves[0].sampled
        error = gains - gain_figure.interpolate(stds, curves[0].stds, expected)
        numbers["gain_error"] = float(np.sqrt(np.mean(error**2)))
        warning = _near_the_data(closed_form.noise_floor, stds[0])
    gain_figure.draw_measured(stds, gains, curves, known_noise_std(config)).savefig(inputs.plots / "gain.png")
    axes = "gain", "standard deviation of the training data in a direction", "that of the samples over it"
    panel = panels.Panel(*axes, {"samples": panels.Series(stds, gains)}, "log")
    drawn = {"std": stds.tolist(), "gain": gains.tolist(), **panels.as_json([panel])}
    workdir.write_json(inputs.plots / "gain.json", drawn)
    caption = "Gain of the samples on each principal direction of the training data, and that of a linear model."
    image = report.image(inputs.plots / "gain.png", caption, wide=True)
    section = report.Section("Gain", text=f"{text} Warning: {warning}." if warning else text, images=[image])
    return Diagnosis(numbers, [section], warning)


def _near_the_data(noise_floor, largest_std):
    if not noise_floor or noise_floor <= NEAR * largest_std:
        return ""
    return (
        f"the noise floor {noise_floor:.3g} is near the data's own scale (largest std {largest_std:.3g}), so the "
        "penalty shrinks signal too: raise config.robust.start_step, lower config.robust.kappa0, or set "
        "config.robust.weight=cutoff with config.robust.cut"
    )


def _overfitting(config: ml_collections.ConfigDict, inputs: DiagnosticInputs) -> Diagnosis:
    """Checks whether a network hides from the perturbation it was trained against (`evaluation.overfitting`).

    It looks at training data, with the same keys in every run of one `evaluation.seed`. Objectives without an ascent, and
    penalties without weight, have no numbers.
    """
    if objective_spec(config).invariant is None or config.robust.perturbation != "adversarial":
        return Diagnosis({})
    process, ball = build_process(config), build(BALLS, config, "robust.ball")
    schedule = process.schedule
    # Not that of the registry: a penalty on top of another loss has its kappa, and no gain in closed form.
    shape, invariant = inputs.data.train.shape[1:], objective_spec(config).invariant
    closed_form = of_penalty(invariant, config, schedule, lambda: inputs.noise_floor, lambda: int(np.prod(shape)))
    x0 = pixels.evenly_spaced(inputs.data.train, OVERFITTING_EXAMPLES)
    drawn = schedule.training_time((jnp.arange(OVERFITTING_TIMES) + 0.5) / OVERFITTING_TIMES)
    kappas = closed_form.at(schedule.noise_to_signal(drawn)).kappa
    if not jnp.sum(kappas) > 0.0:
        return Diagnosis({})
    chosen = jax.random.permutation(jax.random.key(config.evaluation.seed), overfitting.where_it_acts(kappas, len(x0)))
    t, kappa = drawn[chosen], kappas[chosen]

    def objective(maximize=config.robust.maximize, **replace):
        other = config.copy_and_resolve_references()
        other.robust.maximize, other.robust.group_size = maximize, 1
        return build_robust(other, process, no_variance, inputs.noise_floor, **replace)

    penalties = jax.jit(functools.partial(overfitting.penalties, objective, ball, inputs.predict))
    keys = jax.random.split(jax.random.key(config.evaluation.seed + 1), len(x0))
    whole = max(OVERFITTING_BATCH, len(x0) // OVERFITTING_BATCH * OVERFITTING_BATCH)  # batches of one shape: one program
    found = [
        penalties(*(value[i : i + OVERFITTING_BATCH] for value in (keys, x0, t, kappa)))
        for i in range(0, min(whole, len(x0)), OVERFITTING_BATCH)
    ]
    numbers = overfitting.ratios(jax.tree.map(lambda *parts: jnp.concatenate(parts), *found))
    return Diagnosis(numbers, warning=overfitting.warning(numbers, config.evaluation.overfitting_ratio))


DIAGNOSTICS = {
    "gain": DiagnosticSpec(
        _gain,
        {
            "gain_largest": Output(
                "standard deviation of samples over that of the training data, in the direction where the latter is largest",
                "one",
            ),
            "gain_smallest": Output("the same in the direction where it is smallest; below 1: noise or signal is lost", None),
            "gain_error": Output("RMS over principal directions of the gain minus that of a linear model; see the curve"),
        },
    ),
    "overfitting": DiagnosticSpec(
        _overfitting,
        {
            "overfitting_pgd10_over_fgsm": Output(
                "penalty under ten small steps over that under the perturbation trained against; far above 1: catastrophic "
                "overfitting",
                None,
            ),
            "overfitting_worst10_over_fgsm": Output("the same under ten small steps on the residual itself", None),
            "overfitting_random_over_fgsm": Output("the same under a random perturbation of the same radius", None),
            "overfitting_free_over_fgsm": Output(
                "the same along the gradient of the denoising loss, which a backward pass yields at no cost", None
            ),
        },
        reads=("evaluation.overfitting_ratio",),
    ),
    "attack": attack.SPEC,
    "local_gain": local_gain.SPEC,
    "few_steps": few_steps.SPEC,
    "similarity": similarity.SPEC,
    "noise_levels": noise_levels.SPEC,
    "denoising": denoising.SPEC,
    "foreign": foreign.SPEC,
}


OF_MODES = (restorers.OUTPUTS, purify.OUTPUTS, certify.OUTPUTS, anomaly.OUTPUTS)


def output_of(name: str) -> Output:
    """Returns what is known of a number in results.json, from the specs of metrics and diagnostics."""
    known = dict(COSTS)
    for outputs in (*(spec.outputs for spec in [*METRICS.values(), *DIAGNOSTICS.values()]), *OF_MODES):
        known |= outputs
    return describe(known, name)
