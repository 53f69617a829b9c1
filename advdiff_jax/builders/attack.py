"""Config -> the diagnostic `attack`: shifts of the sampling trajectory, the curve over their budget, and checks of the attack.

One program attacks one sampler, ball, threat and number of ascent steps; budgets and batches share it.
"""

import functools
import logging
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from advdiff_jax import rng, workdir
from advdiff_jax.builders.diagnosis import Diagnosis, DiagnosticInputs, DiagnosticSpec
from advdiff_jax.builders.distance import Distance, first_distance
from advdiff_jax.builders.draw import build_finish, example_keys, final_evaluations, split_keys
from advdiff_jax.builders.objectives import objective_spec
from advdiff_jax.builders.outputs import Output
from advdiff_jax.builders.penalty import BALLS
from advdiff_jax.builders.process import build_process, build_times
from advdiff_jax.builders.registry import Choice, as_user_error, lookup_all
from advdiff_jax.data import pixels
from advdiff_jax.errors import UserError
from advdiff_jax.evaluation import attack_checks, attacks, curves, report
from advdiff_jax.evaluation.attack_checks import Curve
from advdiff_jax.perturbation.adversarial import adversarial, step_length
from advdiff_jax.sampling import steps
from advdiff_jax.sampling.sample import prior
from advdiff_jax.sampling.shifted import Path

log = logging.getLogger(__name__)


class SamplerSpec(NamedTuple):
    """What is known of a name of `evaluation.attack.samplers`.

    Attributes:
        build: (config, schedule) -> step rule.
        fresh: the attacker averages over draws of the sampler's noise, and is judged under others.
        reads: keys of the config that it reads and others may not.
    """

    build: Callable
    fresh: bool = False
    reads: tuple[str, ...] = ()


def _ancestral(config, schedule):
    return steps.ancestral(schedule, config.sampling.variance)


SAMPLERS = {
    "ddim": SamplerSpec(lambda config, schedule: steps.ddim(schedule, eta=0.0)),
    "ddpm": SamplerSpec(_ancestral, reads=("sampling.variance",)),
    "fresh_ddpm": SamplerSpec(_ancestral, fresh=True, reads=("sampling.variance", "evaluation.attack.draws")),
}

# Each gives label -> threat, from the section `attack` and the times of the sampler.
THREATS = {
    "start": Choice(lambda c, times: {"start": attacks.start(times)}),
    "time": Choice(
        lambda c, times: {f"t{t:g}": attacks.at(times, t) for t in c.times},
        reads=("evaluation.attack.times",),
    ),
    "every": Choice(lambda c, times: {"every": attacks.every(times)}),
}

OBJECTIVES = {name: Choice(lambda c, value=name: value) for name in attacks.OBJECTIVES}


class Setting(NamedTuple):
    """One attacked sampler in one ball.

    Attributes:
        name: SAMPLER_BALL_THREAT.
        target: of `attacks`.
        ball: its name.
        fresh: as in `SamplerSpec`.
    """

    name: str
    target: attacks.Target
    ball: str
    fresh: bool


def _check(config):
    c = config.evaluation.attack
    for key in ("samplers", "balls", "threats", "objectives", "kappas", "pgd_steps"):
        if not c[key]:
            raise UserError(f"config.evaluation.attack.{key}=() names nothing to attack with: set one at least")
    if "time" in c.threats and not c.times:
        raise UserError("config.evaluation.attack.times=(): the threat 'time' needs one at least")
    if config.sampling.grid == "respaced":
        raise UserError("config.sampling.grid='respaced' ignores config.evaluation.attack.steps: set uniform, log_snr or edm")
    if c.huge <= max(c.kappas):
        raise UserError(
            f"config.evaluation.attack.huge={c.huge:g} must exceed all of config.evaluation.attack.kappas={tuple(c.kappas)}"
        )


def build_settings(config: ml_collections.ConfigDict, predict: Callable) -> list[Setting]:
    """Builds every attacked sampler that `evaluation.attack` names.

    Raises:
        UserError: an unknown name or a bad value.
    """
    c, process = config.evaluation.attack, build_process(config)
    _check(config)
    own = config.copy_and_resolve_references()
    with own.unlocked():
        own.sampling.steps = c.steps
    try:
        times = build_times(own, process.schedule, objective_spec(config).lowest_noise(config))
    except UserError as error:
        raise UserError(f"config.evaluation.attack.steps={c.steps}: {error}") from error
    denoise = process.denoiser(predict, clip=config.sampling.clip or None)
    finish = functools.partial(build_finish(config, process), predict)
    balls = lookup_all(BALLS, config, "evaluation.attack.balls")
    threats = lookup_all(THREATS, config, "evaluation.attack.threats")
    found = []
    for name, spec in lookup_all(SAMPLERS, config, "evaluation.attack.samplers").items():
        with as_user_error("config.sampling"):
            path = Path(denoise, spec.build(config, process.schedule), times)
        for ball in balls:
            for label, threat in (item for one in threats.values() for item in one.build(c, times).items()):
                target = attacks.Target(path, process.schedule.sigma, finish, threat)
                found.append(Setting(f"{name}_{ball}_{label}", target, ball, spec.fresh))
    return found


def evaluations(config: ml_collections.ConfigDict, settings: list[Setting]) -> int:
    """Counts the network evaluations of the whole protocol."""
    c, total = config.evaluation.attack, 0
    final = final_evaluations(config.sampling)
    for one in settings:
        threat, draws, count = one.target.threat, c.draws if one.fresh else 1, len(one.target.path.times) - 1
        total += c.restarts * draws * attacks.noise_evaluations(threat, count, final)
        for ascent in (*c.pgd_steps, 1):  # and FGSM
            total += attacks.evaluations(threat, count, final, c.objectives, ascent, c.restarts, draws)
    return total * c.examples * (len(c.kappas) + 1)  # and the huge budget


def _programs(config, setting):
    """Returns method -> jitted (kappa, keys, known, judged, x) -> `Attacked`, the weakest method last."""
    c, ball = config.evaluation.attack, BALLS[setting.ball].build(None)

    def ascent(count):
        perturb = adversarial(ball, count, step_length(count))
        return jax.jit(functools.partial(attacks.worst, setting.target, tuple(c.objectives), perturb, c.restarts))

    def noise(kappa, keys, known, judged, x):
        displacement = attacks.random(setting.target, ball, c.restarts, kappa, keys, judged, x)
        return attacks.Attacked(x, x, displacement)

    found = {f"pgd{count}": ascent(count) for count in sorted(c.pgd_steps, reverse=True)}
    return found | {"fgsm": ascent(1), "random": jax.jit(noise)}


def _draws(keys, number, fresh, draws):
    """Returns J draws of the sampler's noise; without fresh noise the one of the run's own samples."""
    if not fresh:
        own = split_keys(keys)
        return attacks.Noise(own.steps[None], own.final[None])
    each = [split_keys(rng.fold_in(rng.fold_in(keys, number), i)) for i in range(draws)]
    return attacks.Noise(jnp.stack([one.steps for one in each]), jnp.stack([one.final for one in each]))


def _attacked(config, setting, shape, prior_std):
    """Returns (method, kappa) -> `Attacked` of all examples as NumPy, for every budget and the huge one."""
    c, programs, found = config.evaluation.attack, _programs(config, setting), {}
    keys = example_keys(config.sampling.seed, c.examples)
    ascent_keys = jax.random.split(jax.random.key(config.evaluation.seed), c.examples)
    size = min(c.batch_size, c.examples)
    pad = -c.examples % size  # batches of one shape: one program
    for method, program in programs.items():
        for kappa in (*sorted(c.kappas), c.huge):
            parts = []
            for first in range(0, c.examples, size):
                chosen = (first + np.arange(size)) % (c.examples + pad) % c.examples
                own = keys[chosen]
                x = prior(split_keys(own).start, shape, prior_std)
                known, judged = (_draws(own, number, setting.fresh, c.draws) for number in (0, 1))
                parts.append(program(jnp.float32(kappa), ascent_keys[chosen], known, judged, x))
            joined = jax.tree.map(lambda *leaves: np.concatenate(leaves)[: c.examples], *parts)
            found[method, kappa] = joined
    return found


def _distances(distance, dtype, found, strongest, kappas, clean) -> dict[float, float]:
    """Returns kappa -> distance of the attacked samples to clean data, at 0 of those without attack; or NaN."""
    values = {}
    for kappa in (0.0, *kappas):
        samples = found[strongest, kappa].samples if kappa else clean
        finite = samples[np.all(np.isfinite(samples), axis=tuple(range(1, samples.ndim)))]
        values[kappa], _ = distance.of(pixels.to_float(pixels.as_stored(finite, dtype)))
    return values


class Result(NamedTuple):
    """What one setting showed.

    Attributes:
        setting: the attacked sampler.
        curve: displacement over method and budget.
        distances: kappa -> distance of the attacked samples to clean data, at 0 of those without attack.
    """

    setting: Setting
    curve: Curve
    distances: dict[float, float]


def _result(config, inputs, setting, distance):
    c, shape = config.evaluation.attack, inputs.data.train.shape[1:]
    kappas = sorted(c.kappas)
    found = _attacked(config, setting, shape, build_process(config).schedule.prior_std)
    methods = list(dict.fromkeys(method for method, _ in found))
    clean = found[methods[0], kappas[0]].clean
    judged = {key: one.displacement for key, one in found.items()}
    curve = Curve(setting.name, kappas, c.huge, methods, judged, attack_checks.spread(clean))
    log.info("attack: %s: %s", setting.name, curve.summary())
    distances = _distances(distance, inputs.data.train.dtype, found, methods[0], kappas, clean) if distance else {}
    return Result(setting, curve, distances)


def _attack(config: ml_collections.ConfigDict, inputs: DiagnosticInputs) -> Diagnosis:
    """Attacks the sampler under every threat and budget, checks the attacks, and draws the curves over the budget."""
    c = config.evaluation.attack
    settings = build_settings(config, inputs.predict)
    log.info(
        "attack: %s network evaluations, on %d examples under %d threats; config.evaluation.attack sets them",
        f"{evaluations(config, settings):,}",
        c.examples,
        len(settings),
    )
    distance, reasons = first_distance(config, inputs.data, np.asarray(inputs.samples[: c.examples]))
    for reason in reasons:
        log.info("attack: %s", reason)
    results = [_result(config, inputs, setting, distance) for setting in settings]
    checks = [line for one in results for line in attack_checks.check(one.curve)]
    for line in checks:
        log.info("attack: check %s: %s", "holds" if line.holds else "FAILS", line.text)
    numbers = {"attack_checks_failed": float(sum(not line.holds for line in checks))}
    for one in results:
        numbers |= one.curve.numbers() | {f"attack_{one.setting.name.rsplit('_', 2)[0]}_spread": one.curve.spread}
        values = {kappa: value for kappa, value in one.distances.items() if np.isfinite(value)}
        numbers |= {f"attack_{one.setting.name}_{kappa:g}_{distance.name}": value for kappa, value in values.items()}
    panels = _panels(results, distance)
    workdir.write_json(inputs.plots / "attack.json", curves.as_json(panels))
    curves.draw(panels).savefig(inputs.plots / "attack.png")
    name = distance.name if distance else "distance"
    image = report.image(inputs.plots / "attack.png", "Displacement of the samples over the budget.", wide=True)
    return Diagnosis(numbers, [_section(c, results, checks, name, reasons, image)], attack_checks.warning(checks))


def _section(c, results, checks, name, reasons, image):
    text = (
        f"{c.examples} samples of {len(results[0].setting.target.path.times) - 1} steps, each under the worst of {c.restarts} "
        f"restarts and the objectives {', '.join(c.objectives)}. Displacements are root mean squares over coordinates, in the "
        "data's units; largest: of an example. " + " ".join(f"{reason}." for reason in reasons)
    )
    rows = [row for one in results for row in one.curve.rows(one.distances)]
    table = [("threat", "kappa", *results[0].curve.methods, "largest", name), *rows]
    said = "\n".join(f"{'holds' if line.holds else 'FAILS'}  {line.text}" for line in checks)
    return report.Section("Attacks on the trajectory", text=text, table=table, images=[image], pre=said)


def _panels(found, distance: Distance | None) -> list[curves.Panel]:
    """Returns a panel for each sampler and ball, a line for each threat and method; and one of the distances."""
    panels, distances = {}, {}
    for setting, curve, values in found:
        group, _, label = setting.name.rpartition("_")
        series = panels.setdefault(group, {})
        for method in curve.methods:
            series[f"{label}, {method}"] = curves.Series(curve.kappas, [curve.rms(method, k) for k in curve.kappas])
        if any(map(np.isfinite, values.values())):
            distances[f"{label}, {group}"] = curves.Series(list(values), list(values.values()))
    axis = "budget kappa, over sigma(t)"
    drawn = [curves.Panel(group, axis, "displacement, RMS", series, "log", "log") for group, series in panels.items()]
    if distances:
        drawn.append(curves.Panel("distance to clean data", axis, distance.name, distances))
    return drawn


SPEC = DiagnosticSpec(
    _attack,
    {
        "attack_checks_failed": Output("checks of the attacks that fail; above 0, the attack is too weak to be believed", None),
        "attack_*_spread": Output("distance between two samples of that sampler, to which displacements compare", None),
        "attack_*_max": Output("largest displacement of a sample under that attack", None),
        "attack_*_0_*": Output("the metric's number for the same samples without attack", None),
        **{
            f"attack_*_{metric}*": Output(f"{metric} of the attacked samples; the part before it names the attack", None)
            for metric in ("w2", "fd", "noise_energy")
        },
        "attack_*": Output(
            "displacement of samples under attack SAMPLER_BALL_THREAT_KAPPA: RMS over examples and coordinates, data's units"
        ),
    },
    reads=(
        *(f"evaluation.attack.{key}" for key in ("samplers", "balls", "threats", "objectives", "kappas", "pgd_steps")),
        *(f"evaluation.attack.{key}" for key in ("restarts", "steps", "examples", "batch_size", "huge")),
    ),
)
