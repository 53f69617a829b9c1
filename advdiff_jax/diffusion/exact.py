r"""Closed-form scores: distributions of x0 under which all of x_t = alpha x0 + sigma eps is known.

A `Distribution` serves any process, because its functions take alpha and sigma. Gaussians and their mixtures: if component k
has mean m_k and covariance S_k, then x_t ~ N(alpha m_k, C_k) with C_k = alpha^2 S_k + sigma^2 I, and

    x0hat = m_k + alpha S_k C_k^-1 (x - alpha m_k),   eps = sigma C_k^-1 (x - alpha m_k),   Cov[x0 | x_t] = sigma^2 S_k C_k^-1

averaged with the posterior weights of the components. S_k may be singular: a Gaussian on a plane has rank 2. Uniform points
on a plane factor into coordinates, each a truncated Gaussian given x_t. Tweedie's formula relates the three:
alpha x0hat + sigma eps = x, and d x0hat / dx = alpha / sigma^2 Cov[x0 | x_t].
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from advdiff_jax.diffusion.parameterization import Denoised
from advdiff_jax.diffusion.schedules import Schedule
from advdiff_jax.errors import InvalidArgument

LOG_2PI = math.log(2.0 * math.pi)


class Distribution(NamedTuple):
    """Functions of (x [B, D], alpha [B], sigma [B]), with sigma > 0.

    Attributes:
        denoise: E[x0 | x_t] and E[eps | x_t], `Denoised` of [B, D].
        covariance: Cov[x0 | x_t], [B, D, D].
        log_density: log p(x_t), [B].
    """

    denoise: Callable[..., Denoised]
    covariance: Callable[..., jax.Array]
    log_density: Callable[..., jax.Array]


def mixture(weights: np.ndarray, means: np.ndarray, covariances: np.ndarray) -> Distribution:
    """Builds a mixture of K Gaussians in R^D.

    Args:
        weights: [K], positive, with sum 1.
        means: [K, D].
        covariances: [K, D, D], symmetric and positive semi-definite.

    Raises:
        InvalidArgument: a weight is not positive, or their sum is not 1.
    """
    weights = np.asarray(weights, np.float64)
    if np.any(weights <= 0.0) or abs(weights.sum() - 1.0) > 1e-6:
        raise InvalidArgument(f"weights={weights.tolist()} must be positive and sum to 1")
    values, vectors = np.linalg.eigh(np.asarray(covariances, np.float64))
    log_weights, means = jnp.asarray(np.log(weights), jnp.float32), jnp.asarray(means, jnp.float32)
    values, vectors = jnp.asarray(np.maximum(values, 0.0), jnp.float32), jnp.asarray(vectors, jnp.float32)

    def components(x, alpha, sigma):
        """Returns offset and variance of x_t [K, D] in each component's eigenbasis, and log p(x_t, k) [K], for x [D]."""
        offset = jnp.einsum("kd,kde->ke", x - alpha * means, vectors)
        variance = alpha**2 * values + sigma**2
        joint = log_weights - 0.5 * jnp.sum(offset**2 / variance + jnp.log(variance) + LOG_2PI, axis=-1)
        return offset, variance, joint

    def component_means(offset, variance, alpha):
        return means + jnp.einsum("kde,ke->kd", vectors, alpha * values / variance * offset)

    def denoise(x, alpha, sigma):
        offset, variance, joint = components(x, alpha, sigma)
        posterior = jax.nn.softmax(joint)
        eps = sigma * jnp.einsum("k,kde,ke->d", posterior, vectors, offset / variance)
        return Denoised(posterior @ component_means(offset, variance, alpha), eps)

    def covariance(x, alpha, sigma):
        offset, variance, joint = components(x, alpha, sigma)
        posterior, centres = jax.nn.softmax(joint), component_means(offset, variance, alpha)
        within = jnp.einsum("k,kde,ke,kfe->df", posterior, vectors, sigma**2 * values / variance, vectors)
        spread = centres - posterior @ centres
        return within + jnp.einsum("k,kd,ke->de", posterior, spread, spread)

    def log_density(x, alpha, sigma):
        return jax.nn.logsumexp(components(x, alpha, sigma)[2])

    return Distribution(jax.vmap(denoise), jax.vmap(covariance), jax.vmap(log_density))


def gaussian(mean: np.ndarray, covariance: np.ndarray) -> Distribution:
    """Builds N(mean [D], covariance [D, D]); the covariance may be singular."""
    return mixture(np.ones(1), np.asarray(mean)[None], np.asarray(covariance)[None])


def uniform_on_plane(basis: np.ndarray, half_width: float, noise_std: float = 0.0) -> Distribution:
    """Builds the uniform distribution on [-half_width, half_width]^P in a plane through 0, plus N(0, noise_std^2 I).

    Args:
        basis: orthonormal basis of the plane, [P, D].
        half_width: half the side of the square.
        noise_std: standard deviation of the noise in the data, in all D directions.
    """
    basis = np.asarray(basis, np.float64)
    across = np.linalg.svd(basis)[2][len(basis) :]  # orthonormal rows that complete the basis
    frame = jnp.asarray(np.concatenate([basis, across]), jnp.float32)
    flat = len(basis)

    def moments(x, alpha, sigma):
        """Returns, for x [D], coordinates y in the frame, E and Var of the clean ones, noise variance, and log masses."""
        y, variance = frame @ x, (alpha * noise_std) ** 2 + sigma**2
        mean, spread, log_mass = jax.vmap(lambda c: _truncated(c / alpha, jnp.sqrt(variance) / alpha, half_width))(y[:flat])
        pad = jnp.zeros(len(y) - flat)
        return y, jnp.concatenate([mean, pad]), jnp.concatenate([spread, pad]), variance, log_mass

    def denoise(x, alpha, sigma):
        y, clean, _, variance, _ = moments(x, alpha, sigma)
        rest = (y - alpha * clean) / variance
        return Denoised((clean + alpha * noise_std**2 * rest) @ frame, sigma * rest @ frame)

    def covariance(x, alpha, sigma):
        _, _, spread, variance, _ = moments(x, alpha, sigma)
        return (frame.T * ((sigma**2 / variance) ** 2 * spread + (sigma * noise_std) ** 2 / variance)) @ frame

    def log_density(x, alpha, sigma):
        y, _, _, variance, log_mass = moments(x, alpha, sigma)
        off = -0.5 * jnp.sum(y[flat:] ** 2 / variance + jnp.log(variance) + LOG_2PI)
        return off + jnp.sum(log_mass - jnp.log(2.0 * half_width * alpha))

    return Distribution(jax.vmap(denoise), jax.vmap(covariance), jax.vmap(log_density))


_NODES, _NODE_WEIGHTS = np.polynomial.legendre.leggauss(32)


def _truncated(centre, std, half_width):
    """Computes mean and variance of N(centre, std^2) truncated to [-half_width, half_width], and its log mass there; scalars.

    Uses the normal distribution function where the interval is wide against std. Where it is narrow, differences of that
    function cancel, so Gauss-Legendre quadrature replaces it.
    """
    points = half_width * jnp.asarray(_NODES, jnp.float32)
    log_terms = jnp.log(half_width * _NODE_WEIGHTS) - 0.5 * ((points - centre) / std) ** 2 - 0.5 * LOG_2PI - jnp.log(std)
    probability = jax.nn.softmax(log_terms)
    narrow_mean = probability @ points
    narrow = narrow_mean, probability @ (points - narrow_mean) ** 2, jax.nn.logsumexp(log_terms)

    # By symmetry the centre is taken as >= 0, so both ends lie where log_ndtr is accurate.
    sign, distance = jnp.where(centre < 0.0, -1.0, 1.0), jnp.abs(centre)
    a, b = (-half_width - distance) / std, (half_width - distance) / std
    below_a, below_b = jax.scipy.special.log_ndtr(a), jax.scipy.special.log_ndtr(b)
    log_mass = below_b + jnp.log(-jnp.expm1(jnp.minimum(below_a - below_b, -1e-6)))
    at_a, at_b = (jnp.exp(-0.5 * (z**2 + LOG_2PI) - log_mass) for z in (a, b))
    shift = at_a - at_b
    mean, variance = distance + std * shift, jnp.maximum(std**2 * (1.0 + a * at_a - b * at_b - shift**2), 0.0)
    # Far outside these terms cancel; there the distribution is an exponential tail at the end (Mills' ratio).
    far, reach = b < -30.0, std / jnp.maximum(-b, 1.0)
    mean, variance = jnp.where(far, half_width - reach, mean), jnp.where(far, reach**2, variance)
    wide = sign * jnp.clip(mean, -half_width, half_width), variance, log_mass
    return tuple(jnp.where(2.0 * half_width < 4.0 * std, n, w) for n, w in zip(narrow, wide, strict=True))


# The keys are the values of `data.sources.KnownDistribution.kind`.
DISTRIBUTIONS = {"mixture": mixture, "gaussian": gaussian, "uniform_on_plane": uniform_on_plane}


def denoiser(distribution: Distribution, schedule: Schedule) -> Callable[[jax.Array, jax.Array], Denoised]:
    """Builds the ideal `denoise(x [B, D], t [B])`, as samplers take it."""
    return lambda x, t: distribution.denoise(x, schedule.alpha(t), schedule.sigma(t))
