"""Linear predictors, and the slope that minimises an objective among them, for tests against closed forms."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np


def linear(schedule, parameterization, slope):
    """Builds the predictor with x0hat = slope * x / alpha."""

    def predict(x, t):
        alpha, sigma = schedule.alpha(t)[:, None], schedule.sigma(t)[:, None]
        x0 = slope * x / alpha
        return parameterization.target(x0, (x - alpha * x0) / sigma, alpha, sigma)

    return predict


def vertex(loss: Callable[[float], float]) -> float:
    """Returns the slope with the smallest loss: the vertex of a parabola through three values."""
    low, middle, high = (float(loss(slope)) for slope in (0.0, 0.5, 1.0))
    return 0.5 - 0.25 * (high - low) / (high - 2.0 * middle + low)


def best_matrix(objective, schedule, parameterization, u, covariance, noise_std, n=50_000, **known):
    """Finds the matrix W of x0hat = W x / alpha with the least loss at u, by one Newton step: the loss is quadratic in W.

    The data are Gaussian of the given covariance [D, D], under noise of `noise_std`; `known` goes to the objective.
    """
    dim = len(covariance)
    keys, (data_key, noise_key) = jax.random.split(jax.random.key(0), n), jax.random.split(jax.random.key(1))
    x0 = jax.random.normal(data_key, (n, dim)) @ jnp.linalg.cholesky(jnp.asarray(covariance, jnp.float32)).T
    y = x0 + noise_std * jax.random.normal(noise_key, x0.shape)
    t = schedule.time(jnp.full((n,), u))

    def loss(matrix):
        def predict(x, t):
            alpha, sigma, state = schedule.alpha(t)[:, None], schedule.sigma(t)[:, None], x[:, :dim]
            x0hat = state @ matrix.reshape(dim, -1).T / alpha
            return parameterization.target(x0hat, (state - alpha * x0hat) / sigma, alpha, sigma)

        return jnp.mean(objective(predict, keys, y, t, **known)[0])

    start = jnp.zeros(dim * dim)
    gradient, hessian = jax.jit(lambda start: (jax.grad(loss)(start), jax.hessian(loss)(start)))(start)
    return np.asarray(-jnp.linalg.solve(hessian, gradient).reshape(dim, dim))
