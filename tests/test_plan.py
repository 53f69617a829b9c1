"""A term in every k-th step, or on one example of m, has the optimum of the full objective, under Adam and its clipping."""

import jax
import jax.numpy as jnp
import pytest

from advdiff_jax import builders
from advdiff_jax.diffusion.parameterization import PARAMETERIZATIONS
from advdiff_jax.diffusion.schedules import DDPMGrid
from advdiff_jax.objectives import weights
from advdiff_jax.objectives.denoising import denoising
from advdiff_jax.objectives.equivariance import equivariance
from advdiff_jax.perturbation import radius
from advdiff_jax.perturbation.ball import LINF
from advdiff_jax.perturbation.random import random
from advdiff_jax.training import levels, state
from advdiff_jax.training.plan import Plan
from advdiff_jax.training.step import make_train_step
from configs import plane3d

SCHEDULE, EPS = DDPMGrid(), PARAMETERIZATIONS["eps"]
STD, BATCH, CYCLES = 0.5, 64, 400


def build_optimizer(lazy):
    config = plane3d.get_config("robust_ran")
    config.train.update({"learning_rate": 0.02, "steps": 1601, "warmup_steps": 1})
    return builders.build_optimizer(config, lazy)


def slope(every, one_in=1, lazy=None, weighted=True):
    """The slope a that 1,600 steps of training end at, eps_th(x) = a x, on Gaussian data."""

    def weight(*args):
        return (every if weighted else 1.0) * weights.paper(3.0)(*args)

    objective = equivariance(SCHEDULE, EPS, radius.state_units(), random(LINF), weight, one_in=one_in)
    apply = lambda params, x, t, keys: params * x
    optimizer = build_optimizer(every if lazy is None else lazy)
    full = make_train_step(apply, lambda seen: objective, SCHEDULE, optimizer, 0.99)
    plain = make_train_step(apply, lambda seen: denoising(SCHEDULE, EPS), SCHEDULE, build_optimizer(1), 0.99)
    plan = Plan(4 * CYCLES, plain, full, every=every)

    @jax.jit
    def train(run, key):
        def cycle(run, key):
            for i, one in enumerate(jax.random.split(key, 4)):
                data_key, step_key = jax.random.split(one)
                x0 = STD * jax.random.normal(data_key, (BATCH, 1))
                step = plan.full if plan.is_full(i) else plan.plain
                run, _ = step(run, jax.random.split(step_key, BATCH), x0)
            return run, None

        return jax.lax.scan(cycle, run, jax.random.split(key, CYCLES))[0]

    return float(train(state.create(jnp.ones(()), optimizer), jax.random.key(1)).ema_params)


def test_the_optimum_is_that_of_the_full_objective():
    plain, full = slope(every=4, weighted=False, lazy=1), slope(every=1)
    assert slope(every=4) == pytest.approx(full, rel=0.015)
    assert slope(every=1, one_in=4) == pytest.approx(full, rel=0.015)
    # A lazy term that is not made heavier, or that the clipping undoes, would be seen.
    assert abs(plain / full - 1.0) > 0.035
    assert abs(slope(every=4, lazy=0.02) / full - 1.0) > 0.035


def test_which_step_has_the_term():
    plan = Plan(total=11, plain=None, full=None, start=3, every=4)
    assert [step for step in range(11) if plan.is_full(step)] == [3, 7]
    assert {full: share for full, (share, _) in plan.parts().items()} == {
        False: pytest.approx(9 / 11),
        True: pytest.approx(2 / 11),
    }
    assert list(Plan(5, None, None).parts()) == [True]
    assert list(Plan(5, None, None, start=5).parts()) == [False]
    with pytest.raises(ValueError, match="every"):
        Plan(5, None, None, every=0)


def test_levels_are_measured_until_the_term_comes_in():
    step = make_train_step(
        lambda params, x, t, keys: params * x,
        lambda seen: denoising(SCHEDULE, EPS),
        SCHEDULE,
        build_optimizer(1),
        0.9,
        measure_until=2,
    )
    run, counts = state.create(jnp.ones(()), build_optimizer(1)), []
    kinds = jax.tree.map(jax.typeof, run)
    for i in range(4):
        run, metrics = step(run, jax.random.split(jax.random.key(i), BATCH), jnp.ones((BATCH, 1)))
        counts.append(float(jnp.sum(run.levels.count)))
    assert "noise_error" not in metrics
    assert jax.tree.map(jax.typeof, run) == kinds  # a leaf of another kind, weakly typed say, would compile every step twice
    assert counts[0] == pytest.approx(levels.MEMORY, rel=1e-5)
    assert counts[1] > counts[0]
    assert counts[1:] == [counts[1]] * 3
