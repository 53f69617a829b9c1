"""Config -> certified accuracy: the votes of a classifier under noise, behind one step of the denoiser and without it."""

import functools
import logging
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from advdiff_jax.builders.classifier import Judged
from advdiff_jax.builders.objectives import objective_spec
from advdiff_jax.builders.outputs import Output
from advdiff_jax.builders.process import build_process
from advdiff_jax.builders.registry import as_user_error
from advdiff_jax.errors import UserError
from advdiff_jax.evaluation import certificate
from advdiff_jax.evaluation.certificate import Certificate
from advdiff_jax.features.classifier import Classifier

log = logging.getLogger(__name__)

UNITS = 2.0  # the data's range over that of the published noise, [0, 1]

OUTPUTS = {
    "certify_undefended_*_radius": Output("mean certified L2 radius of the classifier without the denoiser", "highest"),
    "certify_undefended_*_abstained": Output("the same share of the classifier without the denoiser", None),
    "certify_undefended_*": Output("certified accuracy of the classifier without the denoiser, STD_RADIUS", "highest"),
    "certify_*_radius": Output(
        "mean certified L2 radius at this noise std, in units of [0, 1]; 0 for a wrong class", "highest"
    ),
    "certify_*_abstained": Output("share of images of which nothing is certified at this noise std", None),
    "certify_*": Output("certified accuracy at noise std and L2 radius, STD_RADIUS, both in units of [0, 1]", "highest"),
}


class Programs(NamedTuple):
    """What votes, compiled once for all stds.

    Attributes:
        times: std in units of [0, 1] -> time at which it is denoised.
        votes: "certify", behind x0hat, and "certify_undefended" -> (key, x, std, t, draws) -> counts, see `certificate.votes`.
    """

    times: dict[float, float]
    votes: dict[str, Callable]


def build_programs(config: ml_collections.ConfigDict, predict: Callable, classifier: Classifier) -> Programs:
    """Builds the programs of `config.certify`; predict is (x [B, ...], t [B]) -> the network's prediction.

    Raises:
        UserError: no std, or one above the process.
    """
    c, process, times = config.certify, build_process(config), {}
    lowest = objective_spec(config).lowest_noise(config)
    if not c.noise_stds:
        raise UserError("config.certify.noise_stds=() names nothing to judge: set one at least")
    for std in c.noise_stds:
        with as_user_error("config.certify.noise_stds"):
            times[std] = certificate.time_of(process.schedule, UNITS * std, config.diffusion.grid_steps)
        if UNITS * std < lowest:
            log.warning(
                "config.certify: the model has learnt nothing at noise of std %g: its lowest is %.3g", UNITS * std, lowest
            )
    denoise = process.denoiser(predict, clip=config.sampling.clip or None)
    bases = {
        "certify": certificate.one_step(process.schedule, denoise, classifier.classify),
        "certify_undefended": lambda noisy, t: classifier.classify(noisy),
    }
    found = {
        name: jax.jit(functools.partial(certificate.votes, base, classifier.classes, c.batch_size))
        for name, base in bases.items()
    }
    return Programs(times, found)


def certify(config: ml_collections.ConfigDict, programs: Programs, name: str, std: float, judged: Judged) -> Certificate:
    """Certifies every image by one of the programs, under noise of std `std`, in units of [0, 1]."""
    c, count = config.certify, programs.votes[name]
    keys = jax.random.split(jax.random.key(config.evaluation.seed), (len(judged.x), 2))
    at = jnp.float32(UNITS * std), jnp.float32(programs.times[std])
    chosen, counts = (
        np.stack([np.asarray(count(own[i], x, *at, jnp.int32(draws))) for own, x in zip(keys, judged.x, strict=True)])
        for i, draws in enumerate((c.first_draws, c.draws))
    )
    return certificate.certify(chosen, counts, std, c.failure)


def numbers(
    config: ml_collections.ConfigDict, name: str, std: float, found: Certificate, labels: np.ndarray
) -> dict[str, float]:
    """Returns the numbers of one base classifier at one std, by their names in `OUTPUTS`."""
    right = found.prediction == labels
    return {
        **{f"{name}_{std:g}_{radius:g}": found.accuracy(labels, radius) for radius in config.certify.radii},
        f"{name}_{std:g}_radius": float(np.mean(np.where(right, found.radius, 0.0))),
        f"{name}_{std:g}_abstained": float(np.mean(found.prediction == certificate.ABSTAINED)),
    }
