r"""Purification: a classifier sees an image after noise up to t* and the reverse process (DiffPure, arXiv 2205.07460).

On Gaussian data of standard deviation S, with u = sigma / alpha at t*, a shift of the image reaches the classifier multiplied
by S^2 / (S^2 + u^2) under the stochastic reverse process, and by S / sqrt(S^2 + u^2) under the probability-flow ODE.

The attack is PGD on the cross-entropy through the whole purification, a mean over draws of its noise (expectation over
transformations, Athalye et al. 2018). Under "fixed" noise the attacker knows the draw that is judged; under "fresh" noise the
result is judged on other draws.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from advdiff_jax.diffusion.schedules import Schedule
from advdiff_jax.evaluation.denoising import round_trip
from advdiff_jax.perturbation.adversarial import Perturb
from advdiff_jax.sampling.shifted import Path, advance

Classify = Callable[[jax.Array, jax.Array], jax.Array]  # (keys of the noise [B], images [B, ...]) -> logits [B, K]


def purify(schedule: Schedule, path: Path, keys: jax.Array, x: jax.Array) -> jax.Array:
    """Adds noise to images up to times[0] of the path, and takes them back to its end.

    Reverse mode keeps the state of about sqrt(n) of its n steps; see `sampling.shifted`.

    Args:
        schedule: alpha and sigma.
        path: denoiser, step rule and times from t* to 0.
        keys: typed keys, [B].
        x: images, [B, ...].
    """

    def solve(denoise, keys, x):
        return advance(path, keys, (x, path.step.init(x)), 0, len(path.times) - 1)[0]

    return round_trip(schedule, path.denoise, solve, keys, x, jnp.asarray(path.times)[0])


def attack(
    classify: Classify,
    perturb: Perturb,
    keys: jax.Array,
    draws: jax.Array,
    x: jax.Array,
    labels: jax.Array,
    radius: jax.Array,
) -> jax.Array:
    """Finds images within the ball, and within [-1, 1], that maximise the mean cross-entropy over draws of the noise.

    Args:
        classify: the classifier behind its purification.
        perturb: the ascent, of `perturbation.adversarial`; static.
        keys: typed keys of its start, [B].
        draws: typed keys of the noise, [J, B].
        x: images in [-1, 1], [B, ...].
        labels: their classes, [B].
        radius: per coordinate, in the data's units, [].

    Returns:
        attacked images, [B, ...].
    """

    def loss(moved):
        # The gradient passes the clip: a pixel that a step took beyond black or white must find back.
        image = moved + jax.lax.stop_gradient(jnp.clip(moved, -1.0, 1.0) - moved)

        def one(own):
            return optax.softmax_cross_entropy_with_integer_labels(classify(own, image), labels)

        return jnp.mean(jax.lax.map(one, draws), axis=0)

    return jnp.clip(x + perturb(keys, loss, x, jnp.full(x.shape[:1], radius)), -1.0, 1.0)


def correct(classify: Classify, draws: jax.Array, x: jax.Array, labels: jax.Array) -> jax.Array:
    """Returns the share of the draws [J, B] of the noise under which each image [B, ...] gets its class, [B]."""
    return jnp.mean(jax.lax.map(lambda own: jnp.argmax(classify(own, x), axis=-1) == labels, draws), axis=0)
