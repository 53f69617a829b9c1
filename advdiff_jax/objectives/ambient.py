r"""Ambient denoising (Daras et al., arXiv 2404.10177, 2411.02780): learns the clean distribution from data with known noise.

An example x_n = x0 + s n carries Gaussian noise with its own standard deviation s. With noise-to-signal u = sigma / alpha,
y = x_t / alpha and D the estimate of x0 (the papers' VE form, where u is sigma_t and s is sigma_n), for u > s:

    y = x_n + sqrt(u^2 - s^2) z,     || (1 - s^2/u^2) D(y) + (s^2/u^2) y - x_n ||^2 u^4 / (u^2 - s^2)^2

The prediction of x_n is linear in D, and the published weight turns its error into the error of D itself. The loss equals

    || D(y) - x~ ||^2     x~ = x_n - s^2 / sqrt(u^2 - s^2) z,     and y = x~ + u e~ with e~ = u / sqrt(u^2 - s^2) z

So the code is plain denoising with the target of (x~, e~), in any process and any parameterisation. E[x~ | y] = E[x0 | y],
so the optimal D is the clean posterior mean. A clean example (s = 0) has x~ = x0 and e~ = z, hence the loss of `denoising`.

An example carries no information on u <= s, and just above s the variance of its target grows like 1 / (u^2 - s^2). It is
therefore used for u > (1 + margin) s. A time drawn below that level is drawn again, from the training distribution above it
(the authors' code also draws each time above the example's level). So every example contributes to every batch. If the
process never reaches an example's noise, its loss is 0. `objectives.consistency` carries what is learnt below the noise level.
"""

import jax
import jax.numpy as jnp

from advdiff_jax import rng
from advdiff_jax.diffusion.parameterization import Parameterization, split_variance
from advdiff_jax.diffusion.schedules import Schedule, bcast
from advdiff_jax.errors import InvalidArgument
from advdiff_jax.objectives.consistency import consistency
from advdiff_jax.objectives.denoising import Noised, VarianceLoss, mean_square, no_variance
from advdiff_jax.objectives.times import time_above

_CONSISTENCY = 0x636F6E73  # folded into the keys of the term, so that the others keep their draws


def add_noise_above(
    schedule: Schedule, parameterization: Parameterization, keys: jax.Array, x_n: jax.Array, t: jax.Array, noise_std: jax.Array
) -> Noised:
    """Adds what is missing to u to examples x_n [B, ...] with noise of `noise_std` [B]: x_t, and the target of (x~, e~).

    Where u <= s the noise of the example is ignored: the target is that of plain denoising.
    """
    u = schedule.noise_to_signal(t)
    std = jnp.where(u > noise_std, noise_std, 0.0)
    # The share of the noise that is added; its square is bounded, so that gradients just above s are finite.
    rest = bcast(jnp.sqrt(jnp.maximum(1.0 - (std / u) ** 2, 1e-6)), x_n)
    z = rng.normal(keys, x_n)
    alpha, sigma, s = bcast(schedule.alpha(t), x_n), bcast(schedule.sigma(t), x_n), bcast(std, x_n)
    target = parameterization.target(x_n - s**2 * alpha / (sigma * rest) * z, z / rest, alpha, sigma)
    return Noised(alpha * x_n + sigma * rest * z, target, alpha, sigma)


def ambient(
    schedule: Schedule,
    parameterization: Parameterization,
    margin: float = 0.05,
    guess: float | None = None,
    variance_loss: VarianceLoss = no_variance,
    consistency_weight: float = 0.0,
):
    """Builds the objective of the module docstring; the norm is a mean over dimensions.

    Args:
        schedule: alpha and sigma.
        parameterization: what the network predicts.
        margin: examples are used where u > (1 + margin) s.
        guess: one s for all examples, in the data's units; None: the objective takes the s of each example.
        variance_loss: must be `no_variance`, because the bound on the clean likelihood needs clean data.
        consistency_weight: factor of the term of `objectives.consistency`, in the units of x0; 0: no term.

    Returns:
        objective(predict, keys [B], x0 [B, ...], t [B], noise_std [B]) -> (loss [B], aux); with a guess it takes no
        `noise_std`.

    Raises:
        InvalidArgument: `margin` is not positive, `guess` or `consistency_weight` is negative, or `variance_loss` is not
            `no_variance`.
    """
    if margin <= 0.0 or (guess or 0.0) < 0.0:
        raise InvalidArgument(f"need margin > 0 and guess >= 0, got {margin} and {guess}")
    if consistency_weight < 0.0:
        raise InvalidArgument(f"need consistency >= 0, got {consistency_weight}")
    if variance_loss is not no_variance:
        raise InvalidArgument("ambient denoising cannot learn the variance: set diffusion.learn_variance=False")

    term = consistency(schedule, parameterization, margin)

    def objective(predict, keys, x0, t, noise_std):
        noise_keys, time_keys = rng.split(keys, 2)
        lowest = (1.0 + margin) * noise_std
        again = time_above(schedule, lowest, rng.uniform(time_keys))
        t = jnp.where(schedule.noise_to_signal(t) > lowest, t, again)
        u = schedule.noise_to_signal(t)
        usable = u > lowest
        noised = add_noise_above(schedule, parameterization, noise_keys, x0, t, noise_std)
        prediction, _ = split_variance(predict(noised.x, t), noised.x)
        loss = jnp.where(usable, mean_square(prediction - noised.target), 0.0)
        if not consistency_weight:
            return loss, {"denoising": loss}
        extra = consistency_weight * term(predict, rng.fold_in(keys, _CONSISTENCY), x0, noise_std)
        return loss + extra, {"denoising": loss, "consistency": extra}

    if guess is None:
        return objective
    return lambda predict, keys, x0, t: objective(predict, keys, x0, t, jnp.full_like(t, guess))
