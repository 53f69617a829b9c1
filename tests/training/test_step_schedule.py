"""A lazy or subsampled penalty has the optimum of the full objective, under Adam and gradient clipping."""

import functools

import jax
import jax.numpy as jnp
import pytest

from advdiff_jax.builders import experiment
from advdiff_jax.diffusion.parameterization import PARAMETERIZATIONS
from advdiff_jax.diffusion.schedules import DDPMGrid
from advdiff_jax.errors import InvalidArgument
from advdiff_jax.objectives import weights
from advdiff_jax.objectives.denoising import denoising
from advdiff_jax.objectives.robust import robust
from advdiff_jax.objectives.subsample import one_per_group
from advdiff_jax.perturbation import radius
from advdiff_jax.perturbation.ball import LINF
from advdiff_jax.perturbation.random import random
from advdiff_jax.training import noise_floor, state
from advdiff_jax.training.step import make_train_step
from advdiff_jax.training.step_schedule import StepSchedule
from configs import plane3d

SCHEDULE, EPS = DDPMGrid(), PARAMETERIZATIONS["eps"]
STD, BATCH, STEPS = 0.5, 64, 1600


def build_optimizer(clip_scale):
    config = plane3d.get_config("robust_ran")
    config.train.update({"learning_rate": 0.02, "steps": 1601, "warmup_steps": 1})
    return experiment.build_optimizer(config, clip_scale)


def slopes(*cases, clip_scale=1, group_size=1):
    """Trains eps_th(x) = a x on Gaussian data; returns a for each (interval, scale of the penalty)."""
    subsample = functools.partial(one_per_group, group_size=group_size)
    apply = lambda params, x, t, keys: params * x
    plain = make_train_step(apply, lambda state: denoising(SCHEDULE, EPS), SCHEDULE, build_optimizer(1), 0.99)

    def train(has_penalty, scale):
        weight = lambda *args: scale * weights.paper(3.0)(*args)
        objective = robust(SCHEDULE, EPS, radius.state_units(), random(LINF), weight, subsample=subsample)
        penalised = make_train_step(apply, lambda state: objective, SCHEDULE, build_optimizer(clip_scale), 0.99)

        def body(run, drawn):
            key, has_penalty = drawn
            data_key, step_key = jax.random.split(key)
            arguments = jax.random.split(step_key, BATCH), {"examples": STD * jax.random.normal(data_key, (BATCH, 1))}
            kinds = (lambda run: penalised(run, *arguments)[0]), (lambda run: plain(run, *arguments)[0])
            return jax.lax.cond(has_penalty, *kinds, run), None

        fresh = state.create(jnp.ones(()), build_optimizer(1))
        return jax.lax.scan(body, fresh, (jax.random.split(jax.random.key(3), STEPS), has_penalty))[0].ema_params

    intervals, scales = zip(*cases, strict=True)
    schedules = [StepSchedule(STEPS, interval=interval) for interval in intervals]
    has_penalty = jnp.array([[schedule.has_penalty(step) for step in range(STEPS)] for schedule in schedules])
    return jax.jit(jax.vmap(train))(has_penalty, jnp.array(scales, jnp.float32)).tolist()


def test_the_optimum_is_that_of_the_full_objective():
    full, unscaled = slopes((1, 1), (4, 1))
    (lazy,), (clipped,) = (slopes((4, 4), clip_scale=clip_scale) for clip_scale in (4, 0.02))
    (subsampled,) = slopes((1, 1), group_size=4)
    assert lazy == pytest.approx(full, rel=0.015)
    assert subsampled == pytest.approx(full, rel=0.015)
    # A lazy penalty that is not scaled, or whose scale the clipping undoes, would fail the test.
    assert abs(unscaled / full - 1.0) > 0.035
    assert abs(clipped / full - 1.0) > 0.035


def test_which_step_has_the_penalty():
    schedule = StepSchedule(total=11, start=3, interval=4)
    assert [step for step in range(11) if schedule.has_penalty(step)] == [3, 7]
    assert [schedule.penalty_steps(done) for done in range(12)] == [0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2]
    assert schedule.shares() == {False: pytest.approx(9 / 11), True: pytest.approx(2 / 11)}
    assert StepSchedule(5).shares() == {True: 1.0}
    assert StepSchedule(5, start=5).shares() == {False: 1.0}


@pytest.mark.parametrize("kwargs", [{"interval": 0}, {"start": -1}])
def test_a_bad_schedule_is_refused(kwargs):
    with pytest.raises(InvalidArgument, match="need lazy_interval >= 1 and start_step >= 0"):
        StepSchedule(5, **kwargs)


def test_the_noise_floor_is_measured_until_the_penalty_starts():
    step = jax.jit(
        make_train_step(
            lambda params, x, t, keys: params * x,
            lambda state: denoising(SCHEDULE, EPS),
            SCHEDULE,
            build_optimizer(1),
            0.9,
            measure_until=2,
        )
    )
    run, counts = state.create(jnp.ones(()), build_optimizer(1)), []
    kinds = jax.tree.map(jax.typeof, run)
    for i in range(4):
        run, metrics = step(run, jax.random.split(jax.random.key(i), BATCH), {"examples": jnp.ones((BATCH, 1))})
        counts.append(float(jnp.sum(run.noise_floor.count)))
    assert "noise_error" not in metrics
    assert jax.tree.map(jax.typeof, run) == kinds  # a leaf of another kind, weakly typed say, would compile every step twice
    assert counts[0] == pytest.approx(noise_floor.MEMORY, rel=1e-5)
    assert counts[1] > counts[0]
    assert counts[1:] == [counts[1]] * 3
