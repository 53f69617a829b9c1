"""Linear predictors, and the slope that minimises an objective among them, for tests against closed forms."""

from collections.abc import Callable


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
