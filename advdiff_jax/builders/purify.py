"""Config -> purification: the reverse process from t*, under the attacks of `evaluation.purification`."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from advdiff_jax import rng
from advdiff_jax.builders.classifier import Judged
from advdiff_jax.builders.objectives import objective_spec
from advdiff_jax.builders.outputs import Output
from advdiff_jax.builders.penalty import BALLS
from advdiff_jax.builders.process import build_process
from advdiff_jax.builders.registry import Choice, lookup_all
from advdiff_jax.errors import UserError
from advdiff_jax.evaluation import purification
from advdiff_jax.features.classifier import Classifier
from advdiff_jax.perturbation.adversarial import adversarial, step_length
from advdiff_jax.sampling import steps
from advdiff_jax.sampling.shifted import Path

SAMPLERS = {
    "ddpm": Choice(lambda config, schedule: steps.ancestral(schedule)),
    "ddim": Choice(lambda config, schedule: steps.ddim(schedule)),
}

# ball -> radius of `purify.*_radii` in units of [0, 1] and number of coordinates -> per coordinate, in [-1, 1].
UNITS = {"linf": lambda radius, size: 2.0 * radius, "l2": lambda radius, size: 2.0 * radius / np.sqrt(size)}

OUTPUTS = {
    "purify_undefended_clean": Output("accuracy of the classifier alone on clean images", "highest"),
    "purify_undefended_*": Output("accuracy of the classifier alone under PGD, BALL_RADIUS", "highest"),
    "purify_*_clean": Output("accuracy behind purification, SAMPLER_BALL_RADIUS_T*, without attack", "highest"),
    "purify_*_blind": Output("the same under the attack on the classifier alone", "highest"),
    "purify_*_fresh": Output(
        "the same under PGD through the purification, judged on draws that the attacker does not know", "highest"
    ),
    "purify_*_fixed": Output("the same, judged on the draw that the attacker knows", "highest"),
}


class Setting(NamedTuple):
    """One purification under one threat.

    Attributes:
        sampler, ball: names.
        radius: in units of [0, 1], as published.
        t: t*.
        path: from t* to 0.
    """

    sampler: str
    ball: str
    radius: float
    t: float
    path: Path

    @property
    def name(self) -> str:
        """The part of the names in results.json."""
        return f"{self.sampler}_{self.ball}_{self.radius:.3g}_t{self.t:g}"


def build_settings(config: ml_collections.ConfigDict, predict: Callable) -> list[Setting]:
    """Builds every purification that `purify` names; predict is (x [B, ...], t [B]) -> the network's prediction.

    Raises:
        UserError: an unknown name, or no step above what the model has learnt.
    """
    c, process, found = config.purify, build_process(config), []
    for key in ("samplers", "balls", *(f"{ball}_{kind}" for ball in c.balls for kind in ("radii", "times") if ball in BALLS)):
        if not c[key]:
            raise UserError(f"config.purify.{key}=() names nothing to judge: set one at least")
    denoise = process.denoiser(predict, clip=config.sampling.clip or None)
    balls = lookup_all(BALLS, config, "purify.balls")
    for name, spec in lookup_all(SAMPLERS, config, "purify.samplers").items():
        rule = spec.build(config, process.schedule)
        for ball in balls:
            for t in c[f"{ball}_times"]:
                path = Path(denoise, rule, _times(config, process.schedule, t))
                found += [Setting(name, ball, radius, t, path) for radius in c[f"{ball}_radii"]]
    return found


def _times(config, schedule, t):
    """Returns times even in t from t* to 0, on DDPM's grid if the process has one, above what the model has learnt."""
    grid_steps, count = config.diffusion.grid_steps, config.purify.steps
    times = np.linspace(t, 0.0, count + 1)
    if grid_steps:
        times = np.unique(np.round(times * grid_steps))[::-1] / grid_steps
    lowest = objective_spec(config).lowest_noise(config)
    learnt = np.asarray(schedule.noise_to_signal(jnp.asarray(times[:-1], jnp.float32))) > lowest
    if not learnt.any():
        raise UserError(
            f"config.purify: t*={t:g} lies below the lowest noise level that the model has learnt, {lowest:.3g}: raise "
            "purify.linf_times and purify.l2_times"
        )
    return np.append(times[:-1][learnt], 0.0).astype(np.float32)


def judge(
    config: ml_collections.ConfigDict, settings: list[Setting], classifier: Classifier, judged: Judged
) -> dict[str, float]:
    """Measures the accuracies of `OUTPUTS`."""
    schedule, numbers = build_process(config).schedule, {}
    alone = _Threats(config, judged, lambda keys, x: classifier.classify(x))
    numbers["purify_undefended_clean"] = alone.accuracy(alone.x, alone.draws(1, 1))
    blind = {}
    for one in settings:
        threat = one.ball, one.radius
        if threat not in blind:
            blind[threat] = alone.attacked(*threat, alone.draws(0, 1))
            numbers[f"purify_undefended_{one.ball}_{one.radius:.3g}"] = alone.accuracy(blind[threat], alone.draws(1, 1))
    behind = {}  # one program for each path
    for one in settings:
        key = one.sampler, one.ball, one.t
        if key not in behind:
            purify = functools.partial(purification.purify, schedule, one.path)
            behind[key] = _Threats(config, judged, lambda keys, x, purify=purify: classifier.classify(purify(keys, x)))
        own, count = behind[key], config.purify.draws
        known, other = own.draws(0, count), own.draws(1, count)
        fixed = own.attacked(one.ball, one.radius, known[:1])
        numbers |= {
            f"purify_{one.name}_clean": own.accuracy(own.x, other),
            f"purify_{one.name}_blind": own.accuracy(blind[one.ball, one.radius], other),
            f"purify_{one.name}_fresh": own.accuracy(own.attacked(one.ball, one.radius, known), other),
            f"purify_{one.name}_fixed": own.accuracy(fixed, known[:1]),
        }
    return numbers


class _Threats:
    """Attacks and judges one classifier, a batch at a time; compiles once for each ball and number of draws."""

    def __init__(self, config, judged, classify):
        self._c, self._classify = config.purify, classify
        self.x, self._labels = judged.x, judged.labels
        self._keys = jax.random.split(jax.random.key(config.evaluation.seed), len(judged.x))
        self._correct = jax.jit(functools.partial(purification.correct, classify))
        self._attacks = {}

    def draws(self, number, count):
        """Returns keys of the noise, [count, n]; those of another number are others."""
        return jnp.stack([rng.fold_in(rng.fold_in(self._keys, number), i) for i in range(count)])

    def attacked(self, ball, radius, draws):
        """Returns all images under attack, [n, ...]."""
        if ball not in self._attacks:
            perturb = adversarial(BALLS[ball].build(None), self._c.attack_steps, step_length(self._c.attack_steps))
            self._attacks[ball] = jax.jit(functools.partial(purification.attack, self._classify, perturb))
        own = jnp.float32(UNITS[ball](radius, self.x[0].size))
        attack = self._attacks[ball]
        return np.concatenate(
            [attack(self._keys[rows], draws[:, rows], self.x[rows], self._labels[rows], own) for rows in self._batches()]
        )

    def accuracy(self, x, draws):
        """Returns the share of images and draws that get their class."""
        found = [self._correct(draws[:, rows], x[rows], self._labels[rows]) for rows in self._batches()]
        return float(np.mean(np.concatenate(found), dtype=np.float64))

    def _batches(self):
        return np.split(np.arange(len(self.x)), range(self._c.batch_size, len(self.x), self._c.batch_size))
