"""Measures errors against a distribution that is known exactly."""

import jax
import jax.numpy as jnp
import numpy as np

from advdiff_jax.diffusion.model import Model
from advdiff_jax.evaluation.score_field import Field
from advdiff_jax.sampling import likelihood


def plane(samples: np.ndarray, clean: np.ndarray, basis: np.ndarray) -> dict[str, float]:
    """Computes the distance of samples to the plane, and the share of the spread on it that they keep.

    Args:
        samples: [N, D].
        clean: draws of the true distribution, [M, D].
        basis: orthonormal basis of the plane through 0, [2, D].

    Returns:
        `off_plane_rms`: root mean square distance to the plane, in the data's units;
        `spread_ratio`: on-plane standard deviation over that of `clean`.
    """
    on_plane = samples @ basis.T
    off_plane = samples - on_plane @ basis
    spread = np.sqrt(np.sum(np.var(on_plane, axis=0)) / np.sum(np.var(clean @ basis.T, axis=0)))
    return {"off_plane_rms": float(np.sqrt(np.mean(np.sum(off_plane**2, axis=1)))), "spread_ratio": float(spread)}


def wasserstein2(a: np.ndarray, b: np.ndarray) -> float:
    """Computes the exact 2-Wasserstein distance of equally weighted points [N, D] and [M, D] (POT's network simplex)."""
    import ot  # two seconds of every start

    cost = ot.dist(a.astype(np.float64), b.astype(np.float64))
    return float(np.sqrt(ot.emd2([], [], cost, numItermax=10_000_000)))


def wasserstein2_in_parts(a: np.ndarray, b: np.ndarray, points: int) -> float:
    """Computes the root mean square of `wasserstein2` over parts of at most `points` points of two sets, [N, D] each.

    The cost of the exact distance grows faster than the square of its points. Where a distribution has distant modes, chance
    dominates a single draw of some thousand points. Chance averages out over many parts; the bias stays that of `points`.
    """
    parts = -(-len(a) // points)
    squares = [wasserstein2(x, y) ** 2 for x, y in zip(np.array_split(a, parts), np.array_split(b, parts), strict=True)]
    return float(np.sqrt(np.mean(squares)))


def score_error(model: Model, truth: Model, clean: np.ndarray, levels: np.ndarray, key: jax.Array) -> float:
    """Computes the mean square of eps_hat - eps per dimension: the error of the score in units of eps, i.e. times sigma.

    0 is perfect. A model that predicts 0 has 1 where the noise dominates the data.

    Args:
        model: the network's denoiser.
        truth: the exact denoiser of clean data.
        clean: draws of the clean distribution, [N, D], which x_t is made of.
        levels: values of u = sigma / alpha to average over, [L], in the data's units; those of `evaluation.score_range`
            are evenly spaced in log u, so that the error does not depend on the process.
        key: of the noise.

    Returns:
        the mean over levels, points and dimensions.
    """
    x0 = jnp.asarray(clean)
    schedule = model.schedule

    @jax.jit
    def at(u, key):
        t = jnp.full(x0.shape[:1], schedule.time(u))
        x = schedule.alpha(t)[:, None] * x0 + schedule.sigma(t)[:, None] * jax.random.normal(key, x0.shape)
        return jnp.mean((model.denoise(x, t).eps - truth.denoise(x, t).eps) ** 2)

    errors = [at(jnp.float32(u), jax.random.fold_in(key, i)) for i, u in enumerate(levels)]
    return float(np.mean(errors))


def grid_error(found: Field, wanted: Field) -> float:
    """Computes the RMS of u (eps_hat - eps) over levels and grid of two fields: the error of x0hat, in the data's units.

    Far from the data, where the grid reaches, eps grows without bound as u falls; x0hat does not.
    """
    error = found.levels[:, None, None] * (found.noise - wanted.noise)
    return float(np.sqrt(np.mean(error**2)))


def bits_per_dimension(
    model: Model, points: np.ndarray, key: jax.Array, probes: int, bin_width: float, rtol: float, atol: float, batch_size: int
) -> float:
    """Computes the mean of -log2 p(x) per dimension over clean points, p the model's; see `sampling.likelihood`.

    Args:
        model: what is judged.
        points: clean points, [N, ...].
        key: of the probes.
        probes: Hutchinson probes per point.
        bin_width: of `likelihood.bits_per_dimension`.
        rtol: relative tolerance of a step of the solver.
        atol: absolute tolerance.
        batch_size: points solved at once; the hardest of them sets the number of steps of all.
    """

    def one(drawn):
        keys, x = (value[None] for value in drawn)
        return likelihood.log_likelihood(model.schedule, model.denoise, keys, x, rtol, atol, probes)[0]

    solve = jax.jit(lambda drawn: jax.lax.map(one, drawn, batch_size=batch_size))
    log_p = solve((jax.random.split(key, len(points)), jnp.asarray(points)))
    return float(np.mean(likelihood.bits_per_dimension(log_p, int(np.prod(points.shape[1:])), bin_width)))
