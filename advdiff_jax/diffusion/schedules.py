r"""Noise schedules: alpha(t) and sigma(t) of x_t = alpha(t) x0 + sigma(t) eps, with eps ~ N(0, I) and t in [0, 1].

A schedule is a frozen dataclass of floats that defines `log_alpha(t)` and `sigma(t)`; the rest follows:

    alpha = exp(log_alpha)
    log_snr = log(alpha^2 / sigma^2)
    noise_to_signal = sigma / alpha           "sigma" in EDM; u in formulas
    scale = sqrt(alpha^2 + sigma^2)           x / scale is the state of the variance-preserving process at the same u

So every process is the variance-preserving one at the time with the same u, in other units. A radius or a weight, given in VP
units as a function of u, holds in all of them: `scale` converts it.

    VP       alpha^2 + sigma^2 = 1: alpha = sqrt(abar), sigma = sqrt(1 - abar) of DDPM
    sub-VP   VP's alpha, sigma = 1 - alpha^2
    VE       alpha = 1, sigma geometric from about sigma_min to sigma_max
    EDM      alpha = 1, sigma = sigma_max t
    flow     alpha = 1 - t, sigma = t (rectified flow, up to the last thousandth)

VP, sub-VP and VE come from Song et al. 2021 (arXiv 2011.13456), the cosine from Nichol & Dhariwal 2021 (2102.09672), EDM
from Karras et al. 2022 (2206.00364), rectified flow from Liu et al. 2022 (2209.03003). `DDPMGrid` is the discrete
counterpart of the VP schedules, exact at t = i / T for i = 0..T, so that a checkpoint trained with DDPM's betas keeps its
meaning.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from advdiff_jax.errors import InvalidArgument


@dataclasses.dataclass(frozen=True, kw_only=True)
class Schedule:
    """Base of the schedules; `t` has any shape, and results have the same shape.

    Attributes:
        t_min: smallest time in training and sampling in continuous time; x_t holds no information on eps at t = 0.
    """

    t_min: float = 1e-3

    def log_alpha(self, t: jax.Array) -> jax.Array:
        """Returns log alpha(t), which must be 0 at t = 0 and not increase."""
        raise NotImplementedError

    def sigma(self, t: jax.Array) -> jax.Array:
        """Returns the standard deviation of the noise in x_t; 0 at t = 0."""
        raise NotImplementedError

    def alpha(self, t: jax.Array) -> jax.Array:
        """Returns the scale of the signal x0 in x_t."""
        return jnp.exp(self.log_alpha(t))

    def scale(self, t: jax.Array) -> jax.Array:
        """Returns sqrt(alpha^2 + sigma^2): units of the state over those of the variance-preserving process."""
        return jnp.hypot(self.alpha(t), self.sigma(t))

    def log_snr(self, t: jax.Array) -> jax.Array:
        """Returns log(alpha^2 / sigma^2); +inf at t = 0."""
        return 2.0 * (jnp.log(self.alpha(t)) - jnp.log(self.sigma(t)))

    def noise_to_signal(self, t: jax.Array) -> jax.Array:
        """Returns sigma / alpha, the time variable of EDM (Karras et al. 2022)."""
        return self.sigma(t) / self.alpha(t)

    def time(self, noise_to_signal: jax.Array) -> jax.Array:
        """Returns the t in [0, 1] at which sigma / alpha has this value, clipped to [0, 1]."""

        def halve(_, bounds):
            low, high = bounds
            middle = 0.5 * (low + high)
            below = self.noise_to_signal(middle) < noise_to_signal
            return jnp.where(below, middle, low), jnp.where(below, high, middle)

        low = jnp.zeros_like(noise_to_signal)
        return jax.lax.fori_loop(0, 48, halve, (low, jnp.ones_like(low)))[1]

    def vp_time(self, t: jax.Array) -> jax.Array:
        """Returns the time of the variance-preserving process at the same u: t in a VP process, VP-linear's in the others."""
        return VPLinear().time(self.noise_to_signal(t))

    def training_time(self, u: jax.Array) -> jax.Array:
        """Maps u ~ U[0, 1) to a training time, uniform on [t_min, 1)."""
        return self.t_min + (1.0 - self.t_min) * u

    @property
    def prior_std(self) -> float:
        """Returns the standard deviation of the prior, the distribution of x_1."""
        return 1.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class VariancePreserving(Schedule):
    """sigma = sqrt(1 - alpha^2)."""

    def sigma(self, t):
        return jnp.sqrt(-jnp.expm1(2.0 * self.log_alpha(t)))  # expm1 keeps it accurate where alpha is near 1

    def scale(self, t):
        return jnp.ones_like(t)

    def vp_time(self, t):
        return t


@dataclasses.dataclass(frozen=True, kw_only=True)
class VPLinear(VariancePreserving):
    """beta(t) = beta_min + t (beta_max - beta_min); log_alpha = -1/2 int_0^t beta (score_sde's VP SDE)."""

    beta_min: float = 0.1
    beta_max: float = 20.0

    def log_alpha(self, t):
        return -0.5 * t * (self.beta_min + 0.5 * t * (self.beta_max - self.beta_min))

    def betas(self, num_steps: int) -> np.ndarray:
        """Returns DDPM's discrete betas, [num_steps], float64: 1e-4 to 0.02 for T = 1000 and the default range."""
        return np.linspace(self.beta_min / num_steps, self.beta_max / num_steps, num_steps)


@dataclasses.dataclass(frozen=True, kw_only=True)
class VPCosine(VariancePreserving):
    """alpha(t) = cos(a(t)) / cos(a(0)), a(t) = pi/2 (t + offset) / (1 + offset) (Improved-DDPM, eq. 17).

    alpha^2 is at least `min_abar`: at alpha = 0 the logarithm is infinite and x_t holds no information on x0.
    """

    offset: float = 0.008
    max_beta: float = 0.999
    min_abar: float = 2e-5

    def log_alpha(self, t):
        def angle(time):
            return 0.5 * np.pi * (time + self.offset) / (1.0 + self.offset)

        cosine = jnp.cos(angle(t)) / np.cos(angle(0.0))
        return 0.5 * jnp.log(jnp.maximum(cosine**2, self.min_abar))

    def betas(self, num_steps: int) -> np.ndarray:
        """Returns Improved-DDPM's betas, [num_steps], float64: 1 - abar_i / abar_{i-1}, at most `max_beta`."""
        times = np.arange(num_steps + 1) / num_steps
        abar = np.cos(0.5 * np.pi * (times + self.offset) / (1.0 + self.offset)) ** 2
        return np.minimum(1.0 - abar[1:] / abar[:-1], self.max_beta)


@dataclasses.dataclass(frozen=True, kw_only=True)
class GivenBetas:
    """DDPM's betas as they are given, for a process that is known on the discrete grid alone.

    Attributes:
        values: beta_1, ..., beta_T.
    """

    values: tuple[float, ...]

    def betas(self, num_steps: int) -> np.ndarray:
        """Returns the betas, [num_steps], float64; raises InvalidArgument if there are more or fewer."""
        if len(self.values) != num_steps:
            raise InvalidArgument(f"betas has {len(self.values)} values, and grid_steps={num_steps}: set as many")
        return np.asarray(self.values, np.float64)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SubVP(VPLinear):
    """score_sde's sub-VP SDE: VP-linear's alpha with sigma = 1 - alpha^2, never more noise than VP."""

    def sigma(self, t):
        return -jnp.expm1(2.0 * self.log_alpha(t))

    def scale(self, t):
        return Schedule.scale(self, t)

    def vp_time(self, t):
        return Schedule.vp_time(self, t)


@dataclasses.dataclass(frozen=True, kw_only=True)
class VE(Schedule):
    """score_sde's VE SDE, with the diffusion of s(t) = sigma_min (sigma_max / sigma_min)^t.

    The noise added since t = 0 has variance s(t)^2 - s(0)^2 (Song et al. 2021, eq. 29). Their code drops s(0)^2, which leaves
    noise of standard deviation sigma_min in x_0.

    Attributes:
        sigma_min: s(0), in the data's units.
        sigma_max: s(1), in the data's units; about the largest distance between two data points.
    """

    sigma_min: float = 0.01
    sigma_max: float = 50.0

    def log_alpha(self, t):
        return jnp.zeros_like(t)

    def sigma(self, t):
        return self.sigma_min * jnp.sqrt(jnp.expm1(2.0 * np.log(self.sigma_max / self.sigma_min) * t))

    @property
    def prior_std(self):
        return self.sigma_max


@dataclasses.dataclass(frozen=True, kw_only=True)
class EDM(Schedule):
    """alpha = 1, sigma = sigma_max t: EDM's sigma(t) = t, with time in units of sigma_max (Karras et al. 2022, table 1).

    Attributes:
        sigma_min: smallest noise level; t_min is sigma_min / sigma_max.
        sigma_max: largest noise level.
        log_mean: P_mean, the mean of log sigma in training.
        log_std: P_std, the standard deviation of log sigma in training.
    """

    sigma_min: float = 0.002
    sigma_max: float = 80.0
    log_mean: float = -1.2
    log_std: float = 1.2
    t_min: float = dataclasses.field(init=False)

    def __post_init__(self):
        object.__setattr__(self, "t_min", self.sigma_min / self.sigma_max)

    def log_alpha(self, t):
        return jnp.zeros_like(t)

    def sigma(self, t):
        return self.sigma_max * t

    def time(self, noise_to_signal):
        return noise_to_signal / self.sigma_max

    def training_time(self, u):
        """Maps u ~ U[0, 1) to a time with log sigma ~ N(log_mean, log_std^2), clipped to [sigma_min, sigma_max]."""
        sigma = jnp.exp(self.log_mean + self.log_std * jax.scipy.special.ndtri(u))
        return jnp.clip(sigma / self.sigma_max, self.t_min, 1.0)

    @property
    def prior_std(self):
        return self.sigma_max


@dataclasses.dataclass(frozen=True, kw_only=True)
class RectifiedFlow(Schedule):
    """The straight path alpha = 1 - (1 - min_alpha) t, sigma = t.

    The path ends at alpha = `min_alpha`, for the reason given at `VPCosine`.
    """

    min_alpha: float = 1e-3

    def log_alpha(self, t):
        return jnp.log1p(-(1.0 - self.min_alpha) * t)

    def sigma(self, t):
        return jnp.asarray(t)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DDPMGrid(VariancePreserving):
    """The discrete grid of DDPM: abar_i = prod_{j <= i} (1 - beta_j) at t = i / num_steps; abar_0 = 1.

    Between grid points log abar is interpolated linearly (each interval is a constant-rate VP process), so the schedule is
    defined and differentiable for every t. DDPM's own index of the time t is `i - 1 = t * num_steps - 1`.

    Attributes:
        continuous: schedule that gives `betas(num_steps)`.
        num_steps: T, 1000 in DDPM.
    """

    continuous: VPLinear | VPCosine | GivenBetas = VPLinear()
    num_steps: int = 1000

    @functools.cached_property
    def _log_alpha_grid(self) -> np.ndarray:
        log_abar = np.cumsum(np.log1p(-self.continuous.betas(self.num_steps)))
        return np.concatenate([[0.0], 0.5 * log_abar])  # float64; cast where it is used

    def log_alpha(self, t):
        position = t * self.num_steps
        left = jnp.clip(jnp.floor(position), 0, self.num_steps - 1).astype(jnp.int32)
        grid = jnp.asarray(self._log_alpha_grid, jnp.float32)
        return grid[left] + (position - left) * (grid[left + 1] - grid[left])

    def training_time(self, u):
        """Maps u ~ U[0, 1) to a grid point, uniform on {1/T, ..., 1}."""
        return (jnp.floor(u * self.num_steps) + 1.0) / self.num_steps


def bcast(values: jax.Array, like: jax.Array) -> jax.Array:
    """Reshapes per-example `values` [B] to broadcast against `like` [B, ...]."""
    return values.reshape(values.shape + (1,) * (like.ndim - values.ndim))
