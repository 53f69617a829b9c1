"""Config -> what its objective does to the data, in closed form: the second term's law, and the gain that it leaves."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from advdiff_jax import builders_data, builders_objectives, builders_process
from advdiff_jax.choices import choose, pick
from advdiff_jax.diffusion import transfer
from advdiff_jax.errors import UserError
from advdiff_jax.perturbation.ball import BALLS

# Their steps depend on the state in another way than linearly: no curve of the sampler's own.
NOT_LINEAR = ("predictor_corrector",)
# Points drawn to find the sampler's own gain: two, which are the same up to their sign, unless it draws noise; then so many
# that the gain is within 1.6 %.
POINTS = {True: 2048, False: 2}
DRAWS_NOISE = {
    "ddim": lambda c: c.eta > 0,
    "euler": lambda c: c.churn > 0,
    "heun": lambda c: c.churn > 0,
    "dpm_solver_2m": lambda c: False,
    "ode": lambda c: False,
}


class Law(NamedTuple):
    """What an objective adds to plain denoising.

    Attributes:
        told: in words.
        at: u [N] -> `transfer.Levels`, to be traced by JAX if wanted.
        blame: what it blames for a shift of the state, "noise" or "data".
        level: the noise level that its weight follows, if it follows one.
    """

    told: str
    at: Callable[..., transfer.Levels]
    blame: str = "noise"
    level: float | None = None


def _nothing(config, schedule, measured):
    def at(u):
        u = jnp.asarray(u, jnp.float32)
        return transfer.Levels(u, *[jnp.zeros_like(u)] * 3)

    return Law("no second term: every direction keeps its standard deviation, the gain is 1.", at)


def _energy(config, kind, ball):
    """E[w^2] over the square of the radius: of a draw, or where an ascent ends, which goes outward from its start."""
    c = config.robust
    reach = c.attack_steps * builders_objectives.step_size(c)
    if kind == "adversarial" and reach >= 1.0:
        return 1.0
    # Only the L2 ball asks for the dimension, and so for the data.
    dim = int(np.prod(choose(builders_data.SOURCES, config, "data.source").train.shape[1:])) if c.ball == "l2" else 1
    if kind == "random":
        return ball.energy(1.0, dim)
    start = ((np.arange(1000) + 0.5) / 1000) ** (1 / dim) if c.random_start else 0.0
    return float(np.mean(np.minimum(1.0, start + reach) ** 2))


def _not_square(config):
    """What a robust first term changes, in words.

    With e = a x_t - eps Gaussian, E[H'(e) x_t] = E[H''(e)] Cov(e, x_t) (Stein): it counts E[H''(e)] / 2 =
    E[(1 + e^2 / c^2)^(-3/2)] as much as the square. e has variance 1 where none of the noise is told, and c is nowhere smaller
    than huber_c and 1.
    """
    if config.criterion == "square":
        return ""
    e = np.linspace(-8.0, 8.0, 8001)
    curvature = np.average((1.0 + (e / min(1.0, config.neighbours.huber_c)) ** 2) ** -1.5, weights=np.exp(-(e**2) / 2))
    return (
        " The first term is taken for a square; a robust loss weighs large errors less, and so the second term up to "
        f"{1.0 / curvature:.2g} times as much, at the levels where the noise cannot be told."
    )


def _second_term(blame, perturbation=None):
    """`perturbation`: the one that stands for the objective's, where it does not read `robust.perturbation`."""

    def law(config, schedule, measured):
        c, ball = config.robust, pick(BALLS, config, "robust.ball")
        pick(builders_objectives.PERTURBATIONS, config, "robust.perturbation")
        kind = perturbation or c.perturbation
        radius = choose(builders_objectives.RADII, config, "robust.radius")
        level = measured() if c.weight == "adaptive" else None
        weight = choose(builders_objectives.WEIGHTS, config, "robust.weight", level)
        named = f"{c.weight} (cut at {level:.3g})" if level else c.weight
        told = f"{kind} perturbation, radius {c.radius}, weight {named}; blames the {blame}."
        at = transfer.second_term(radius, weight, schedule, _energy(config, kind, ball))
        return Law(told + _not_square(config), jax.jit(at), blame, level)

    return law


def _input_perturbation(config, schedule, measured):
    """DDPM-IP: kappa = gamma^2 at every level, by a move of gamma sigma."""
    gamma = config.neighbours.gamma

    def at(u):
        u = schedule.noise_to_signal(schedule.time(jnp.asarray(u, jnp.float32)))
        return transfer.Levels(u, gamma * u / jnp.hypot(u, 1.0), jnp.ones_like(u), jnp.full_like(u, gamma**2))

    return Law(f"the state is moved by {gamma:g} of its noise; blames the data.", at, "data")


# (config, schedule, () -> measured noise level) -> Law. An objective that is not here has no closed form.
LAWS = {
    "denoising": _nothing,
    "equivariance": _second_term("noise"),
    "invariance": _second_term("data"),
    "jvp": _second_term("noise", "random"),
    "ddpm_ip": _input_perturbation,
}


def build_law(config: ml_collections.ConfigDict, measured: Callable[[], float]) -> Law:
    """The closed form of what a config minimises, with a square as its first term.

    Args:
        config: a config of `configs/`.
        measured: () -> the noise level that an adaptive weight follows; asked only if there is one.

    Raises:
        UserError: its objective has none, or a value cannot be.
    """
    if config.objective not in LAWS:
        raise UserError(
            f"config.objective={config.objective!r} has no closed form of the gain: only {', '.join(LAWS)} have, so "
            "choose another variant, or train"
        )
    builders_objectives.check_keys(config)
    return LAWS[config.objective](config, builders_process.build_schedule(config), measured)


def closed_form(law: Law, stds: np.ndarray) -> np.ndarray:
    """T(s) of the probability-flow ODE over EDM's range of noise levels, [S]."""
    return transfer.gain(lambda u: law.at(u).kappa, stds, blame=law.blame)


def as_sampled(config: ml_collections.ConfigDict, law: Law, stds: np.ndarray) -> np.ndarray | None:
    """The gain of the same linear model under the config's own sampler, [S]; None where that is not linear.

    Clipping is left out. All stds see the same draws, and the start has exactly the prior's standard deviation.
    """
    method = config.sampling.method
    if method in NOT_LINEAR:
        return None
    config = config.copy_and_resolve_references()
    if config.sampling.variance == "learned":
        config.sampling.variance = "small"
    schedule = builders_process.build_schedule(config)
    solve = builders_process.build_sampler(config, schedule)
    count = POINTS[bool(DRAWS_NOISE.get(method, lambda c: True)(config.sampling))]
    keys, half = jax.random.split(jax.random.key(0), count), jax.random.normal(jax.random.key(1), (count // 2, 1))
    start = jnp.concatenate([half, -half]) * schedule.prior_std / jnp.sqrt(jnp.mean(half**2))

    @jax.jit
    @jax.vmap
    def std_of_samples(std):
        # A sampler takes all points through the same times: kappa is worked out for the first.
        denoise = transfer.linear_model(lambda u: law.at(u[:1]).kappa, schedule, std, law.blame)
        return jnp.std(solve(denoise, keys, start))

    return np.asarray(std_of_samples(jnp.asarray(stds, jnp.float32))) / stds
