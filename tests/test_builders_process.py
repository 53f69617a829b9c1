"""Configs that name a process, a prediction or a sampler: each trains a step and draws; mistakes end in one line."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from advdiff_jax import benchmark_sampling, builders, builders_data, builders_evaluation, builders_process
from advdiff_jax.errors import UserError
from advdiff_jax.training import parallel, state
from configs import default, digits, plane3d

TINY = {"network.width": 8, "network.depth": 1, "train.batch_size": 16, "sampling.steps": 4, "sampling.batch_size": 2}
CONTINUOUS = {"diffusion.grid_steps": 0}
CASES = [
    ("robust_ran", CONTINUOUS | {"diffusion.schedule": "sub_vp", "diffusion.prediction": "x0"}),
    ("robust_adv_cutoff", CONTINUOUS | {"diffusion.schedule": "ve", "network.time_input": "log_noise"}),
    (
        "robust_adv",
        CONTINUOUS
        | {"diffusion.schedule": "edm", "diffusion.prediction": "edm", "network.time_input": "log_noise"}
        | {"sampling.method": "heun", "sampling.grid": "edm", "sampling.churn": 10.0},
    ),
    ("invariance", CONTINUOUS | {"diffusion.schedule": "flow", "diffusion.prediction": "flow", "sampling.method": "ode"}),
    ("robust_adv", {"diffusion.learn_variance": True, "sampling.variance": "learned", "sampling.grid": "respaced"}),
]


def _config(variant, overrides):
    config = plane3d.get_config(variant)
    config.update_from_flattened_dict(TINY | overrides)
    return config


@pytest.mark.parametrize(("variant", "overrides"), CASES)
def test_one_step_and_one_draw(variant, overrides):
    config = _config(variant, overrides)
    experiment = builders.build(config, (3,))
    fresh = state.create(experiment.init(jax.random.key(0)), experiment.optimizer)
    one_device = jax.vmap(experiment.plan.full, axis_name=parallel.AXIS)
    keys, x0 = jax.random.split(jax.random.key(1), (1, 16)), jax.random.normal(jax.random.key(2), (1, 16, 3))
    after, metrics = jax.jit(one_device)(jax.tree.map(lambda leaf: leaf[None], fresh), keys, x0)
    assert all(np.all(np.isfinite(value)) for value in metrics.values())
    assert int(after.step[0]) == 1
    params = jax.tree.map(lambda leaf: leaf[0], after.params)
    schedule = builders_process.build_schedule(config)
    solve = builders_process.build_sampler(config, schedule)
    draw = jax.jit(functools.partial(solve, experiment.model(params).denoise, trajectory=True))
    states = draw(keys[0, :2], schedule.prior_std * jnp.ones((2, 3)))
    assert states.shape[1:] == (2, 3)
    assert np.all(np.isfinite(states))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"diffusion.schedule": "edm"}, "edm has no discrete grid"),
        ({"diffusion.schedule": "rectified"}, "choose one of vp_linear"),
        ({"diffusion.prediction": "edm", "diffusion.data_std": 0.0}, "config.diffusion: data_std must be positive"),
        ({"network.time_input": "index"}, "choose one of t, log_noise"),
        ({"sampling.variance": "learned"}, "config.diffusion.learn_variance=True"),
        ({"diffusion.learn_variance": True, "diffusion.grid_steps": 0}, "needs a discrete grid"),
        ({"sampling.grid": "respaced", "diffusion.grid_steps": 0}, "needs a discrete grid"),
        ({"sampling.grid": "respaced", "sampling.respacing": "ddim999"}, "config.sampling: 'ddim999'"),
        ({"sampling.steps": 1001}, "config.sampling: need 1 to 1000"),
        ({"sampling.method": "leapfrog"}, "choose one of ddpm"),
        ({"sampling.method": "heun", "sampling.churn": -1.0}, "config.sampling: need order 1 or 2 and churn >= 0"),
    ],
)
def test_mistakes_are_the_users(overrides, message):
    with pytest.raises(UserError, match=message):
        builders.build(_config("ddpm", overrides), (3,))


def test_metrics_that_need_a_known_law_say_so():
    config = default.get_config("ddpm")
    config.data.source = "digits"
    config.evaluation.metrics = ("score_error",)
    data = builders_data.build_data(config)
    with pytest.raises(UserError, match="is not known, only plane3d, mixture"):
        builders_evaluation.evaluate(config, data, data.train[:2], None)


def test_the_benchmark_times_what_it_is_asked_to():
    config = digits.get_config("ddpm")
    config.network.update({"base_channels": 4, "channel_mults": (1,), "attention_resolutions": (), "heads": 1})
    samplers = {"ddim_2": {"method": "ddim", "steps": 2}}
    table = benchmark_sampling.sampling_table(batch_size=2, repeats=1, samplers=samplers, config=config)
    assert list(table) == ["samples_per_second_ddim_2"]
    assert table["samples_per_second_ddim_2"] > 0.0
