r"""Ambient diffusion with masks (Daras et al. 2023, arXiv 2305.19256): learns whole images from images with missing pixels.

An example y is known where its mask A is 1. It is masked further, At = A B, with B keeping a pixel with chance 1 - further.
The network D sees the masked state and At itself as a channel, and is judged where A is 1:

    w(u) || A ( D(At x_t, At, t) - y ) ||^2,     x_t = alpha y + sigma e

Among the pixels that it does not see it cannot tell on which it is judged, so the best D is E[x0 | At x_t, At] everywhere. The
norm is a mean over all dimensions.

On a pixel that it sees the network predicts what the parameterisation says. A hidden pixel has no state against which a
prediction of noise could be read, so there the network predicts x0 itself, with weight 1 [R]. The authors' network reads a
hidden pixel as a state of 0, and weighs its error by 1 / u^2 at low noise. `given_mask` makes both an ordinary prediction.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from advdiff_jax import rng
from advdiff_jax.diffusion.parameterization import Parameterization, split_variance
from advdiff_jax.diffusion.schedules import Schedule, bcast
from advdiff_jax.errors import InvalidArgument
from advdiff_jax.objectives.denoising import VarianceLoss, mean_square, no_variance


def keep(keys: jax.Array, mask: jax.Array, further: float) -> jax.Array:
    """Masks further: keeps each known pixel with chance 1 - `further`; keys [B], masks [B, ..., 1] of bool."""
    return mask & (jax.vmap(lambda key, one: jax.random.uniform(key, one.shape))(keys, mask) >= further)


def network_input(x: jax.Array, mask: jax.Array) -> jax.Array:
    """Returns the masked state with the mask as its last channel, [..., C + 1] for images x [..., C] and masks [..., 1]."""
    return jnp.concatenate([mask * x, mask.astype(x.dtype)], axis=-1)


def given_mask(
    schedule: Schedule, parameterization: Parameterization, predict: Callable[..., jax.Array], mask: jax.Array
) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """Builds predict(x [B, ...], t [B]) of a network that is given a mask, an ordinary prediction everywhere.

    Args:
        schedule: alpha and sigma.
        parameterization: of the prediction.
        predict: (network input, t) -> the network's output.
        mask: the pixels that it may see, [B, ..., 1], or [1, ..., 1] for all examples.
    """

    def of_whole_state(x, t):
        mine = jnp.broadcast_to(mask, (len(x), *mask.shape[1:]))
        alpha, sigma = bcast(schedule.alpha(t), x), bcast(schedule.sigma(t), x)
        found, _ = split_variance(predict(network_input(x, mine), t), x)
        return jnp.where(mine, found, parameterization.target(found, (x - alpha * found) / sigma, alpha, sigma))

    return of_whole_state


def ambient_mask(
    schedule: Schedule,
    parameterization: Parameterization,
    further: float = 0.1,
    variance_loss: VarianceLoss = no_variance,
):
    """Builds the objective of the module docstring.

    Args:
        schedule: alpha and sigma.
        parameterization: what the network predicts on the pixels that it sees.
        further: chance that a known pixel is hidden from the network.
        variance_loss: must be `no_variance`, because the bound on the clean likelihood needs whole images.

    Returns:
        objective(predict, keys [B], y [B, ...], t [B], mask [B, ..., 1]) -> (loss [B], aux); `predict` takes a `network_input`.

    Raises:
        InvalidArgument: `further` outside (0, 1), or `variance_loss` is not `no_variance`.
    """
    if not 0.0 < further < 1.0:
        raise InvalidArgument(f"further={further} is out of range: set a value in (0, 1)")
    if variance_loss is not no_variance:
        raise InvalidArgument("ambient denoising cannot learn the variance: set diffusion.learn_variance=False")

    def objective(predict, keys, y, t, mask):
        noise_keys, mask_keys = rng.split(keys, 2)
        alpha, sigma = bcast(schedule.alpha(t), y), bcast(schedule.sigma(t), y)
        eps, seen = rng.normal(noise_keys, y), keep(mask_keys, mask, further)
        found, _ = split_variance(predict(network_input(alpha * y + sigma * eps, seen), t), y)
        target = jnp.where(seen, parameterization.target(y, eps, alpha, sigma), y)
        loss = mean_square(mask * (found - target))
        return loss, {"denoising": loss}

    return objective
