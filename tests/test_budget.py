"""What variants cost and are told: budgets of network evaluations, the learning rate of many updates, oracles, floors."""

import numpy as np
import pytest

from advdiff_jax import builders, builders_data, builders_objectives, builders_process
from advdiff_jax.data.batches import BatchSource, batches
from advdiff_jax.errors import UserError
from configs import plane3d
from configs.variants import VARIANTS


def config_of(variant, **overrides):
    config = plane3d.get_config(variant)
    config.update_from_flattened_dict({"data.num_examples": 100} | overrides)
    return config


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_budget_stops_every_variant_at_the_same_number(variant):
    config = config_of(variant, **{"train.budget_evaluations": 7_200_000, "train.batch_size": 100})
    paid = builders_objectives.budgeted(config)
    spent = [100 * builders_objectives.evaluations(config, paid.train.steps + more) for more in (0, 1)]
    assert spent[0] <= 7_200_000 < spent[1]
    assert builders_objectives.budgeted(paid).train.steps == paid.train.steps
    assert config.train.steps == 4000  # the config that was given is left as it is


@pytest.mark.parametrize(
    ("overrides", "units"),
    [
        ({}, 8.0),
        ({"robust.one_in": 8}, 3.0 + 5.0 / 8.0),
        ({"robust.every": 4}, 3.0 + 5.0 / 4.0),
        ({"robust.start_step": 0.25}, 3.0 + 5.0 * 0.75),
        ({"robust.start_step": 900.0}, 3.0 + 5.0 * 0.1),
        ({"robust.start_step": 0.5, "robust.every": 2, "robust.one_in": 4}, 3.0 + 5.0 / 16.0),
    ],
)
def test_late_lazy_and_partial_terms_cost_their_share(overrides, units):
    assert builders_objectives.evaluations(config_of("robust_adv", **overrides), 1000) == pytest.approx(1000 * units)


def test_without_a_budget_the_steps_are_those_of_the_config():
    assert builders_objectives.budgeted(config_of("at_diff")).train.steps == 4000


@pytest.mark.parametrize("variant", ["ddpm", "at_diff"])
def test_the_learning_rate_warms_up_and_ends_with_the_steps(variant):
    """Seen through Adam: with a constant gradient each update is as long as the learning rate."""
    config = config_of(variant, **{"train.steps": 10, "train.warmup_steps": 2, "train.learning_rate": 1.0})
    optimizer, each = builders.build_optimizer(config), 3 if variant == "at_diff" else 1
    params, lengths = {"w": np.ones(1, np.float32)}, []
    opt_state = optimizer.init(params)
    for _ in range(10 * each):
        updates, opt_state = optimizer.update({"w": np.ones(1, np.float32)}, opt_state, params)
        lengths.append(abs(float(updates["w"][0])))
    rates = np.array(lengths).reshape(10, each)
    np.testing.assert_allclose(rates, np.repeat(rates[:, :1], each, axis=1), atol=1e-5)  # one rate for the updates of a step
    np.testing.assert_allclose(rates[:3, 0], [0.0, 0.5, 1.0], atol=1e-5)
    np.testing.assert_allclose(rates[9, 0], 0.5 * (1.0 + np.cos(np.pi * 7 / 8)), atol=1e-5)


def test_only_an_oracle_is_told_and_its_batches_hold_what_it_is_told():
    assert builders_data.build_data(config_of("ddpm")).noise_std is None
    data = builders_data.build_data(config_of("ambient_oracle"))
    source = BatchSource(data.train, 64, seed=0, noise_std=data.noise_std)
    plain = BatchSource(data.train, 64, seed=0)
    iterator = batches(source, 1)
    for step in (1, 2):  # two epochs; from a step on, as after a resume
        x, told = next(iterator)
        np.testing.assert_array_equal(x, plain[step])
        np.testing.assert_array_equal(told, source[step][1])
        # The clean points lie on the plane, and the others do not.
        off = np.abs(x @ np.ones(3) / np.sqrt(3.0))
        np.testing.assert_array_equal(off > 1e-5, told > 0.0)
        np.testing.assert_allclose(np.unique(told), [0.0, 0.1], rtol=1e-6)
    iterator.close()
    parts = [BatchSource(data.train, 64, 0, i, 2, noise_std=data.noise_std)[1] for i in range(2)]
    np.testing.assert_array_equal(np.concatenate([told for _, told in parts]), source[1][1])


@pytest.mark.parametrize("corruptions", [("uniform_outlier",), ("gaussian", "uniform_outlier"), ()])
def test_an_oracle_of_other_corruptions_is_refused(corruptions):
    with pytest.raises(UserError, match=r"ambient_oracle must know .*: need one corruption among gaussian, gaussian_range"):
        builders_data.build_data(config_of("ambient_oracle", **{"data.corruptions": corruptions}))


def test_a_guess_is_sampled_from_no_lower_than_it_was_trained():
    config = config_of("ambient_guess", **{"data.noise_std": 0.2, "neighbours.guess": 0.5})
    schedule = builders_process.build_schedule(config)
    times = builders_process.build_times(config, schedule)
    levels = np.asarray(schedule.noise_to_signal(times))
    assert levels[-1] == 0.0
    assert 0.105 < levels[-2] < 0.12
    every = builders_process.build_times(config_of("ambient_oracle"), schedule)
    np.testing.assert_array_equal(times[:-1], every[: len(times) - 1])
    config.sampling.method = "ode"
    with pytest.raises(UserError, match="ambient_guess learns nothing"):
        builders_process.build_sampler(config, schedule)


@pytest.mark.parametrize(
    ("variant", "key", "value", "message"),
    [
        ("ddpm_ip", "neighbours.gamma", -1.0, r"config\.objective=ddpm_ip: need gamma >= 0"),
        ("pseudo_huber", "neighbours.huber_c", 0.0, r"config\.neighbours: the pseudo-Huber c0 must be positive"),
        ("pseudo_huber", "neighbours.huber_schedule", "cosine", r"choose one of constant, exponential, snr"),
        ("at_diff", "neighbours.max_norm", 0.0, r"config\.objective=at_diff: need adv_lr > 0 and max_norm > 0"),
        ("ambient_guess", "neighbours.margin", 0.0, r"config\.objective=ambient_guess: need margin > 0"),
    ],
)
def test_mistakes_are_the_users(variant, key, value, message):
    with pytest.raises(UserError, match=message):
        builders.build(config_of(variant, **{key: value}), (3,))
