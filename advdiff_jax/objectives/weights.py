r"""Weight of the second term, lambda_t.

What the weight does is told by kappa(t) = lambda_t E[w^2], w = delta / sigma: on linear-Gaussian data the model learns
the score of data whose variance is s^2 / (1 + kappa(t)) (`diffusion.transfer`). `paper` states lambda_t and leaves kappa
to the radius; `cutoff` states kappa and divides by the energy of the perturbation actually drawn.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

Weight = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]


def paper(lam: float = 0.3) -> Weight:
    """lambda_t = lambda sqrt(3) / r(t): r / sqrt(3) is the standard deviation of U[-r, r] (arXiv 2505.21742).

    Args:
        lam: lambda; 0.3 in the paper, 0.5 over-smooths.

    Returns:
        (noise_to_signal [B], radius in its own units [B], mean square of w [B]) -> lambda_t [B].

    Raises:
        ValueError: a negative `lam`.
    """
    if lam < 0.0:
        raise ValueError(f"a negative lambda maximises the violation, got {lam}")
    return lambda noise_to_signal, radius, energy: lam * jnp.sqrt(3.0) / radius


def cutoff(kappa0: float = 5.0, cut: float = 0.05, exponent: float = 4.0) -> Weight:
    """kappa(t) = kappa0 / (1 + (u / cut)^exponent), u = sigma / alpha: nothing is smoothed above the cut.

    Args:
        kappa0: shrinkage well below the cut; variances there are learnt as s^2 / (1 + kappa0).
        cut: noise-to-signal ratio at which kappa has fallen to half, in the data's units; best near half the
            standard deviation of the noise in the data.
        exponent: sharpness of the fall.

    Returns:
        as `paper`; 0 where nothing is moved.

    Raises:
        ValueError: a negative `kappa0`, or an `exponent` that is not positive.
    """
    if kappa0 < 0.0 or exponent <= 0.0:
        raise ValueError(f"need kappa0 >= 0 and exponent > 0, got {kappa0} and {exponent}")

    def weight(noise_to_signal, radius, energy):
        kappa = kappa0 / (1.0 + (noise_to_signal / cut) ** exponent)
        return jnp.where(energy > 0.0, kappa / jnp.where(energy > 0.0, energy, 1.0), 0.0)

    return weight
