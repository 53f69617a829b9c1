r"""Closed-form scores: laws of x0 for which everything about x_t = alpha x0 + sigma eps is known.

A `Law` serves any process, because its functions take alpha and sigma. Gaussians and their mixtures: with component k of
mean m_k and covariance S_k, x_t ~ N(alpha m_k, C_k), C_k = alpha^2 S_k + sigma^2 I, and

    x0hat = m_k + alpha S_k C_k^-1 (x - alpha m_k),   eps = sigma C_k^-1 (x - alpha m_k),   Cov[x0 | x_t] = sigma^2 S_k C_k^-1

mixed with the responsibilities of x_t. S_k may be singular: points on a plane are a Gaussian of rank 2. Uniform points on
a plane factor into coordinates, each a truncated Gaussian given x_t. Tweedie's formula ties the three together:
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

LOG_2PI = math.log(2.0 * math.pi)


class Law(NamedTuple):
    """Functions of (x [B, D], alpha [B], sigma [B]), with sigma > 0.

    Attributes:
        denoise: E[x0 | x_t] and E[eps | x_t], `Denoised` of [B, D].
        covariance: Cov[x0 | x_t], [B, D, D].
        log_density: log p(x_t), [B].
    """

    denoise: Callable[..., Denoised]
    covariance: Callable[..., jax.Array]
    log_density: Callable[..., jax.Array]


def mixture(weights: np.ndarray, means: np.ndarray, covariances: np.ndarray) -> Law:
    """A mixture of K Gaussians in R^D.

    Args:
        weights: [K], positive, of sum 1.
        means: [K, D].
        covariances: [K, D, D], symmetric and positive semi-definite.

    Raises:
        ValueError: the weights are not a distribution.
    """
    weights = np.asarray(weights, np.float64)
    if np.any(weights <= 0.0) or abs(weights.sum() - 1.0) > 1e-6:
        raise ValueError(f"weights must be positive and sum to 1, got {weights}")
    values, vectors = np.linalg.eigh(np.asarray(covariances, np.float64))
    log_weights, means = jnp.asarray(np.log(weights), jnp.float32), jnp.asarray(means, jnp.float32)
    values, vectors = jnp.asarray(np.maximum(values, 0.0), jnp.float32), jnp.asarray(vectors, jnp.float32)

    def components(x, alpha, sigma):
        """One example [D] in the eigenbasis of each component: offset, variance of x_t [K, D] and responsibility [K]."""
        offset = jnp.einsum("kd,kde->ke", x - alpha * means, vectors)
        variance = alpha**2 * values + sigma**2
        joint = log_weights - 0.5 * jnp.sum(offset**2 / variance + jnp.log(variance) + LOG_2PI, axis=-1)
        return offset, variance, joint

    def component_means(offset, variance, alpha):
        return means + jnp.einsum("kde,ke->kd", vectors, alpha * values / variance * offset)

    def denoise(x, alpha, sigma):
        offset, variance, joint = components(x, alpha, sigma)
        chance = jax.nn.softmax(joint)
        eps = sigma * jnp.einsum("k,kde,ke->d", chance, vectors, offset / variance)
        return Denoised(chance @ component_means(offset, variance, alpha), eps)

    def covariance(x, alpha, sigma):
        offset, variance, joint = components(x, alpha, sigma)
        chance, centres = jax.nn.softmax(joint), component_means(offset, variance, alpha)
        within = jnp.einsum("k,kde,ke,kfe->df", chance, vectors, sigma**2 * values / variance, vectors)
        spread = centres - chance @ centres
        return within + jnp.einsum("k,kd,ke->de", chance, spread, spread)

    def log_density(x, alpha, sigma):
        return jax.nn.logsumexp(components(x, alpha, sigma)[2])

    return Law(jax.vmap(denoise), jax.vmap(covariance), jax.vmap(log_density))


def gaussian(mean: np.ndarray, covariance: np.ndarray) -> Law:
    """N(mean [D], covariance [D, D]); the covariance may be singular."""
    return mixture(np.ones(1), np.asarray(mean)[None], np.asarray(covariance)[None])


def gaussian_on_plane(basis: np.ndarray, std: float, noise_std: float = 0.0) -> Law:
    """N(0, std^2 I) on the plane through 0 that the orthonormal rows of `basis` [P, D] span, plus N(0, noise_std^2 I)."""
    basis = np.asarray(basis, np.float64)
    return gaussian(np.zeros(basis.shape[1]), std**2 * basis.T @ basis + noise_std**2 * np.eye(basis.shape[1]))


def uniform_on_plane(basis: np.ndarray, half_width: float, noise_std: float = 0.0) -> Law:
    """Uniform on [-half_width, half_width]^P in the plane through 0, plus N(0, noise_std^2 I).

    Args:
        basis: orthonormal basis of the plane, [P, D].
        half_width: half the side of the square.
        noise_std: standard deviation of noise that belongs to the data, in all D directions.
    """
    basis = np.asarray(basis, np.float64)
    across = np.linalg.svd(basis)[2][len(basis) :]  # orthonormal rows that complete the basis
    frame = jnp.asarray(np.concatenate([basis, across]), jnp.float32)
    flat = len(basis)

    def moments(x, alpha, sigma):
        """One example [D] in the frame; E and Var of the clean coordinates (0 off the plane), and the variance of the rest."""
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

    return Law(jax.vmap(denoise), jax.vmap(covariance), jax.vmap(log_density))


_NODES, _NODE_WEIGHTS = np.polynomial.legendre.leggauss(32)


def _truncated(centre, std, half_width):
    """Mean, variance, and log of the mass before truncation of N(centre, std^2) on [-half_width, half_width]; scalars.

    In terms of the normal distribution function where the interval is wide against std; by Gauss-Legendre quadrature
    where it is narrow, because there the differences of that function cancel.
    """
    points = half_width * jnp.asarray(_NODES, jnp.float32)
    log_terms = jnp.log(half_width * _NODE_WEIGHTS) - 0.5 * ((points - centre) / std) ** 2 - 0.5 * LOG_2PI - jnp.log(std)
    chance = jax.nn.softmax(log_terms)
    narrow_mean = chance @ points
    narrow = narrow_mean, chance @ (points - narrow_mean) ** 2, jax.nn.logsumexp(log_terms)

    # By symmetry the centre is at or to the right of 0, so that both ends lie where log_ndtr is accurate.
    sign, distance = jnp.where(centre < 0.0, -1.0, 1.0), jnp.abs(centre)
    a, b = (-half_width - distance) / std, (half_width - distance) / std
    below_a, below_b = jax.scipy.special.log_ndtr(a), jax.scipy.special.log_ndtr(b)
    log_mass = below_b + jnp.log(-jnp.expm1(jnp.minimum(below_a - below_b, -1e-6)))
    at_a, at_b = (jnp.exp(-0.5 * (z**2 + LOG_2PI) - log_mass) for z in (a, b))
    shift = at_a - at_b
    mean, variance = distance + std * shift, jnp.maximum(std**2 * (1.0 + a * at_a - b * at_b - shift**2), 0.0)
    # Far outside, where these cancel, the law is that of an exponential tail at the end (Mills' ratio).
    far, reach = b < -30.0, std / jnp.maximum(-b, 1.0)
    mean, variance = jnp.where(far, half_width - reach, mean), jnp.where(far, reach**2, variance)
    wide = sign * jnp.clip(mean, -half_width, half_width), variance, log_mass
    return tuple(jnp.where(2.0 * half_width < 4.0 * std, n, w) for n, w in zip(narrow, wide, strict=True))


def denoiser(law: Law, schedule: Schedule) -> Callable[[jax.Array, jax.Array], Denoised]:
    """The ideal `denoise(x [B, D], t [B])`, as samplers take it."""
    return lambda x, t: law.denoise(x, schedule.alpha(t), schedule.sigma(t))


def score(law: Law, schedule: Schedule) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """grad log p(x_t): (x [B, D], t [B]) -> [B, D]."""

    def of(x, t):
        return -denoiser(law, schedule)(x, t).eps / schedule.sigma(t)[:, None]

    return of
