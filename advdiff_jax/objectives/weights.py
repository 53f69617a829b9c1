r"""Weight of the equivariance penalty, lambda_t.

Its effect is measured by kappa(t) = lambda_t E[w^2], w = delta / sigma: on linear-Gaussian data the model learns the
score of data with variance s^2 / (1 + kappa(t)) (`diffusion.gain`). `paper` sets lambda_t, and kappa follows from the
radius. `cutoff` sets kappa and divides it by the energy of the perturbation drawn.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from advdiff_jax.errors import InvalidArgument

# (noise_to_signal [B], radius in its own units [B], mean square of w [B]) -> lambda_t [B].
Weight = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]


def paper(lam: float = 0.3) -> Weight:
    """Builds lambda_t = lambda sqrt(3) / r(t), r / sqrt(3) being the standard deviation of U[-r, r] (arXiv 2505.21742).

    Args:
        lam: lambda; 0.3 in the paper, 0.5 over-smooths.

    Raises:
        InvalidArgument: `lam` is negative.
    """
    if lam < 0.0:
        raise InvalidArgument(f"a negative lambda maximises the residual: lam={lam}, set lam >= 0")
    return lambda noise_to_signal, radius, energy: lam * jnp.sqrt(3.0) / radius


def cutoff(kappa0: float = 5.0, cut: float = 0.05, exponent: float = 4.0) -> Weight:
    """Builds kappa(t) = kappa0 / (1 + (u / cut)^exponent), u = sigma / alpha, which does not smooth above the cut.

    Args:
        kappa0: shrinkage well below the cut, where variances are learnt as s^2 / (1 + kappa0).
        cut: noise-to-signal ratio at which kappa has fallen to half, in the data's units; works best near half the
            standard deviation of the noise in the data.
        exponent: sharpness of the fall.

    Returns:
        the weight, 0 where delta is 0.

    Raises:
        InvalidArgument: `kappa0` is negative, or `exponent` is not positive.
    """
    if kappa0 < 0.0 or exponent <= 0.0:
        raise InvalidArgument(f"need kappa0 >= 0 and exponent > 0, got {kappa0} and {exponent}")

    def weight(noise_to_signal, radius, energy):
        kappa = kappa0 / (1.0 + (noise_to_signal / cut) ** exponent)
        return jnp.where(energy > 0.0, kappa / jnp.where(energy > 0.0, energy, 1.0), 0.0)

    return weight
