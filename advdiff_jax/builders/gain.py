"""Config -> the gain T(s) that its objective leaves to a direction of standard deviation s, in closed form."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from advdiff_jax.builders.closed_form import ClosedForm
from advdiff_jax.builders.draw import final_level
from advdiff_jax.builders.noise_file import final_std
from advdiff_jax.builders.objectives import OBJECTIVES, objective_spec
from advdiff_jax.builders.process import SAMPLERS, build_sampler, build_schedule
from advdiff_jax.builders.registry import lookup
from advdiff_jax.builders.sources import SOURCES
from advdiff_jax.diffusion import gain
from advdiff_jax.errors import UserError
from advdiff_jax.evaluation import gain_figure
from advdiff_jax.sampling.final import final_denoise

# Points drawn to find the gain under a sampler: two, equal up to their sign, suffice for a deterministic one; 2,048 bring the
# gain of a stochastic one within 1.6 %.
POINTS = {True: 2048, False: 2}

TABLE_STDS = (0.02, 0.05, 0.1, 0.2, 0.4, 0.58, 1.0)  # from noise to signal, of images in [-1, 1]
TABLE_LEVELS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
LEVELS = np.unique([*np.geomspace(0.003, 80.0, 201), *TABLE_LEVELS])


def build_closed_form(config: ml_collections.ConfigDict, noise_floor: Callable[[], float]) -> ClosedForm:
    """Builds the closed form of what a config minimises, with a square as its denoising loss.

    Args:
        config: a resolved config.
        noise_floor: () -> the noise level that an adaptive weight follows; called only if there is one.

    Raises:
        UserError: its objective has none, or a bad value.
    """
    build = objective_spec(config).closed_form
    if build is None:
        known = ", ".join(name for name, spec in OBJECTIVES.items() if spec.closed_form)
        raise UserError(
            f"config.objective={config.objective!r} has no closed form of the gain, only {known} have: set another variant, "
            "or train"
        )

    return build(config, build_schedule(config), noise_floor, lambda: int(np.prod(_shape(config))))


def _shape(config):
    return lookup(SOURCES, config, "data.source").load(config.data).train.shape[1:]


def gain_curve(closed_form: ClosedForm, stds: np.ndarray) -> np.ndarray:
    """Returns T(s) of the probability-flow ODE over EDM's range of noise levels, [S], for standard deviations s [S]."""
    return gain.gain(lambda u: closed_form.at(u).kappa, stds, invariant=closed_form.invariant)


def gain_as_sampled(config: ml_collections.ConfigDict, closed_form: ClosedForm, stds: np.ndarray) -> np.ndarray | None:
    """Returns the gain of the same linear model under the config's own sampler, [S]; None where that is not linear.

    The final step at a given std is part of it, clipping is not. All stds see the same draws, and the start has exactly the
    prior's standard deviation.
    """
    spec = lookup(SAMPLERS, config, "sampling.method")
    if not spec.linear:
        return None
    config = config.copy_and_resolve_references()
    if config.sampling.variance == "learned":
        config.sampling.variance = "small"
    schedule = build_schedule(config)
    solve = build_sampler(config, schedule, objective_spec(config).lowest_noise(config))
    c, has_final = config.sampling, bool(final_std(config.sampling))
    count = POINTS[bool(spec.stochastic(c) or has_final)]  # the final step draws noise
    keys, half = jax.random.split(jax.random.key(0), count), jax.random.normal(jax.random.key(1), (count // 2, 1))
    level = final_level(c, c.final_denoise, () if c.final_level else _shape(config)) if has_final else 0.0
    start = jnp.concatenate([half, -half]) * schedule.prior_std / jnp.sqrt(jnp.mean(half**2))

    @jax.jit
    @jax.vmap
    def std_of_samples(std):
        # A sampler takes all points through the same times: kappa is computed for the first.
        denoise = gain.linear_model(lambda u: closed_form.at(u[:1]).kappa, schedule, std, closed_form.invariant)
        samples = solve(denoise, keys, start)
        if has_final:
            samples = final_denoise(
                schedule, denoise, keys, samples, c.final_denoise, level, c.final_draws, random=c.final_random
            )
        return jnp.std(samples)

    return np.asarray(std_of_samples(jnp.asarray(stds, jnp.float32))) / stds


def build_curve(
    config: ml_collections.ConfigDict, closed_form: ClosedForm, label: str, stds: np.ndarray, as_sampled: bool = True
) -> gain_figure.Curve:
    """Computes all that the figure shows of one config.

    Args:
        config: a resolved config.
        closed_form: of its objective.
        label: of the curve.
        stds: standard deviations s, [S].
        as_sampled: compute the gain under the config's own sampler too.
    """
    sampled = gain_as_sampled(config, closed_form, stds) if as_sampled else None
    strength = jax.tree.map(np.asarray, closed_form.at(LEVELS))
    return gain_figure.Curve(label, stds, gain_curve(closed_form, stds), sampled, strength)


def curve_stds(also: tuple[float, ...] = ()) -> np.ndarray:
    """Returns the standard deviations at which a curve is drawn: those of the table and `also`, between others."""
    known = [*TABLE_STDS, *also]
    return np.unique([*np.geomspace(min(0.01, *known), max(2.0, *known), 31), *known])
