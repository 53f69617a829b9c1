r"""Attacks on the sampling trajectory: bounded shifts of the state that move the finished sample as far as possible.

A shift delta of the state at time t obeys ||delta||_inf <= kappa sigma(t), or ||delta||_2 <= kappa sigma(t) sqrt(D). A threat
says where the state may be shifted: at the start x_1, at one time, or at every step. Three objectives guide the ascent
(`perturbation.adversarial`):

    violation   || eps_hat(x + delta) - eps_hat(x) - delta / sigma ||^2      at each shifted state x: equivariance, eq. 9
    x0hat       || x0hat(x + delta) - x0hat(y) ||^2                          y the state of the path without attack
    end         || x_0(delta) - x_0 ||^2                                     the finished sample, through the whole sampler

At one time x = y, and the first two have the same maximiser, because x0hat moves by -sigma / alpha times the violation. Along
a path they differ: "x0hat" drives all shifts to one side. The attacks with these two are greedy, step by step, and need no
gradient through the sampler.

Noise of the sampler that the attacker does not know is averaged over: all quantities are means over draws of that noise, and
the attack is judged on others. All displacements are root mean squares over coordinates, in the data's units.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from advdiff_jax import rng
from advdiff_jax.perturbation.adversarial import Perturb
from advdiff_jax.perturbation.ball import Ball
from advdiff_jax.sampling.shifted import EVALUATIONS, Path, advance


class Noise(NamedTuple):
    """The keys of J draws of a sampler's noise, [J, B] each: of its steps and of what follows them."""

    steps: jax.Array
    final: jax.Array


class Threat(NamedTuple):
    """Shifts the state before the steps first .. last - 1."""

    first: int
    last: int


class Target(NamedTuple):
    """An attacked sampler.

    Attributes:
        path: the sampler.
        sigma: t -> sigma(t).
        finish: (keys [B], x [B, ...]) -> samples; what follows the last step.
        threat: where the state may be shifted.
    """

    path: Path
    sigma: Callable[[jax.Array], jax.Array]
    finish: Callable[[jax.Array, jax.Array], jax.Array]
    threat: Threat

    @property
    def radii(self) -> jax.Array:
        """The budget of each shift over kappa, [m]."""
        return self.sigma(jnp.asarray(self.path.times[self.threat.first : self.threat.last]))


class Attacked(NamedTuple):
    """What an attack did.

    Attributes:
        samples: attacked, under the first draw of the noise, [B, ...].
        clean: of the same start and noise without attack, [B, ...].
        displacement: root mean square over coordinates and draws, [B].
    """

    samples: jax.Array
    clean: jax.Array
    displacement: jax.Array


def start(times: np.ndarray) -> Threat:
    """Shifts x_1 alone."""
    del times
    return Threat(0, 1)


def at(times: np.ndarray, t: float) -> Threat:
    """Shifts the state at the time of the grid that is nearest to t, 0 and the start left out where others remain."""
    inner = times[1:-1] if len(times) > 2 else times[:1]
    index = int(np.argmin(np.abs(inner - t))) + (len(times) > 2)
    return Threat(index, index + 1)


def every(times: np.ndarray) -> Threat:
    """Shifts the state before every step."""
    return Threat(0, len(times) - 1)


def _mean_square(x, kept):
    """Means the square over all axes but the axis `kept`."""
    return jnp.mean(x**2, axis=tuple(axis for axis in range(x.ndim) if axis != kept))


def _heads(target, noise, x):
    """Returns the state before the first shift for each draw of the noise."""
    return jax.vmap(lambda keys: advance(target.path, keys, (x, target.path.step.init(x)), 0, target.threat.first))(noise.steps)


def _ends(target, noise, states, shifts=None):
    """Returns the samples [J, B, ...] from the states before the first shift."""
    path, (first, last) = target.path, target.threat

    def one(noise, state):
        state = advance(path, noise.steps, state, first, last, shifts)
        x, _ = advance(path, noise.steps, state, last, len(path.times) - 1)
        return target.finish(noise.final, x)

    return jax.vmap(one)(noise, states)


def end_to_end(target: Target, perturb: Perturb, keys: jax.Array, noise: Noise, states: Any, kappa: jax.Array) -> jax.Array:
    """Ascends on the displacement of the sample in all shifts at once; returns the shifts [m, B, ...]."""
    clean, x = _ends(target, noise, states), states[0][0]
    count = target.threat.last - target.threat.first
    flat = count * len(x)  # a shift is an example of the ball

    def objective(shifts):
        return _mean_square(_ends(target, noise, states, shifts.reshape(count, *x.shape)) - clean, kept=1)

    every_key = jax.vmap(lambda i: rng.fold_in(keys, i))(jnp.arange(count)).reshape(flat)
    zeros = jnp.zeros((flat, *x.shape[1:]), x.dtype)
    return perturb(every_key, objective, zeros, jnp.repeat(kappa * target.radii, len(x))).reshape(count, *x.shape)


def _greedy(target, gap, perturb, keys, noise, states, kappa):
    """Chooses shift after shift, each by ascent on `gap` at its own state; returns the shifts [m, B, ...]."""
    path, (first, last) = target.path, target.threat
    times = jnp.asarray(path.times)
    update = jax.vmap(
        lambda key, state, t, s: path.step.update(path.denoise, key, state[1], state[0], t, s), (0, 0, None, None)
    )

    def body(carry, inputs):
        (states, clean), (i, t, s, radius) = carry, inputs
        x = states[0]
        estimate = jax.vmap(lambda x: path.denoise(x, jnp.full(x.shape[:1], t)))
        here, there = estimate(x), estimate(clean[0])

        def objective(delta):
            return _mean_square(gap(estimate(x + delta), here, there, delta, target.sigma(t)), kept=1)

        delta = perturb(rng.fold_in(keys, i), objective, jnp.zeros_like(x[0]), jnp.full(x.shape[1:2], radius))
        step_keys = jax.vmap(rng.fold_in, (0, None))(noise.steps, i)
        return (update(step_keys, (x + delta, states[1]), t, s), update(step_keys, clean, t, s)), delta

    steps = jnp.arange(first, last), times[first:last], times[first + 1 : last + 1], kappa * target.radii
    return jax.lax.scan(body, (states, states), steps)[1]


def violation(target: Target, perturb: Perturb, keys: jax.Array, noise: Noise, states: Any, kappa: jax.Array) -> jax.Array:
    """Ascends on the violation of equivariance at each shifted state; returns the shifts [m, B, ...]."""

    def gap(moved, here, there, delta, sigma):
        return moved.eps - here.eps - delta / sigma

    return _greedy(target, gap, perturb, keys, noise, states, kappa)


def x0hat(target: Target, perturb: Perturb, keys: jax.Array, noise: Noise, states: Any, kappa: jax.Array) -> jax.Array:
    """Ascends on the distance of x0hat to that of the path without attack; returns the shifts [m, B, ...]."""

    def gap(moved, here, there, delta, sigma):
        return moved.x0 - there.x0

    return _greedy(target, gap, perturb, keys, noise, states, kappa)


OBJECTIVES = {"violation": violation, "x0hat": x0hat, "end": end_to_end}


def _judge(target, noise, x, shifts):
    states = _heads(target, noise, x)
    clean, samples = _ends(target, noise, states), _ends(target, noise, states, shifts)
    return Attacked(samples[0], clean[0], jnp.sqrt(_mean_square(samples - clean, kept=1)))


def worst(
    target: Target,
    objectives: tuple[str, ...],
    perturb: Perturb,
    restarts: int,
    kappa: jax.Array,
    keys: jax.Array,
    known: Noise,
    judged: Noise,
    x: jax.Array,
) -> Attacked:
    """Finds, for each example, the shifts that displace its sample most over objectives and restarts; pure.

    The attacker chooses by the noise `known`; the result is measured under `judged`.

    Args:
        target: the attacked sampler; static.
        objectives: names of OBJECTIVES; static.
        perturb: the ascent, of `perturbation.adversarial`; static.
        restarts: number of random starts of each ascent; static.
        kappa: budget over sigma(t), [].
        keys: typed keys of the ascents' starts, [B].
        known: the draws of the sampler's noise over which the attacker averages, [J, B].
        judged: the draws under which the attack is measured, [E, B].
        x: starts x_1, [B, ...].
    """
    states = _heads(target, known, x)
    clean = _ends(target, known, states)
    count = target.threat.last - target.threat.first

    def attempt(best, restart):
        for i, name in enumerate(objectives):
            own = rng.fold_in(rng.fold_in(keys, restart), i)
            shifts = OBJECTIVES[name](target, perturb, own, known, states, kappa)
            found = _mean_square(_ends(target, known, states, shifts) - clean, kept=1)
            better = (found > best[0]).reshape(1, -1, *(1,) * (x.ndim - 1))
            best = jnp.where(found > best[0], found, best[0]), jnp.where(better, shifts, best[1])
        return best, None

    nothing = jnp.zeros(len(x), x.dtype), jnp.zeros((count, *x.shape), x.dtype)
    (_, shifts), _ = jax.lax.scan(attempt, nothing, jnp.arange(restarts))
    return _judge(target, judged, x, shifts)


def random(
    target: Target, ball: Ball, repeats: int, kappa: jax.Array, keys: jax.Array, judged: Noise, x: jax.Array
) -> jax.Array:
    """Computes the displacement [B] under noise of the norm of the attacks, the root mean square over `repeats` draws; pure.

    The noise lies on the boundary of the ball: random signs for L-inf, a uniform direction for L2. Arguments as for `worst`.
    """
    steepest = jax.vmap(ball.steepest)

    def one(total, repeat):
        own = rng.fold_in(keys, repeat)
        directions = jax.vmap(lambda i: steepest(rng.normal(rng.fold_in(own, i), x)))(jnp.arange(len(target.radii)))
        shifts = kappa * target.radii.reshape(-1, *(1,) * x.ndim) * directions
        return total + _judge(target, judged, x, shifts).displacement ** 2, None

    return jnp.sqrt(jax.lax.scan(one, jnp.zeros(len(x), x.dtype), jnp.arange(repeats))[0] / repeats)


def evaluations(
    threat: Threat, steps: int, final: int, objectives: tuple[str, ...], ascent_steps: int, restarts: int, draws: int
) -> int:
    """Counts the network evaluations that `worst` spends on an example at most; a backward pass to the input counts 1.

    Args:
        threat: where the state is shifted.
        steps: of the sampler.
        final: evaluations after its last step.
        objectives: names of OBJECTIVES.
        ascent_steps: of the ascent.
        restarts: of the ascent.
        draws: of the noise, known and judged.
    """
    shifted, rest = threat.last - threat.first, steps - threat.first + final
    joint = ascent_steps * (EVALUATIONS * (steps - threat.first) + 2 * final) + rest
    greedy = shifted * (2 * ascent_steps + 3)  # one as reference, and one step of each path
    costs = {"end": joint, "violation": greedy, "x0hat": greedy}
    found = sum(costs[name] + rest for name in objectives)
    return draws * (restarts * found + 2 * threat.first + 3 * rest)


def noise_evaluations(threat: Threat, steps: int, final: int) -> int:
    """Counts the network evaluations that `random` spends on an example for each repeat and draw; arguments as above."""
    return threat.first + 2 * (steps - threat.first + final)
