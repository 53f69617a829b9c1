"""What objectives cost: evaluations of the network, budgets of them, and the learning rate of several updates a step."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from advdiff_jax.builders.experiment import build_experiment, build_optimizer
from advdiff_jax.builders.objectives import OBJECTIVES, build_denoising, build_objective, build_variance_loss
from advdiff_jax.builders.process import build_process
from advdiff_jax.builders.steps import build_step_schedule, evaluations, measured_steps
from advdiff_jax.builders.validate import resolve
from advdiff_jax.errors import UserError
from advdiff_jax.objectives.denoising import no_variance
from configs import plane3d
from configs.variants import VARIANTS


def config_of(variant, **overrides):
    config = plane3d.get_config(variant)
    config.update_from_flattened_dict({"data.num_examples": 100} | overrides)
    return config


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_budget_stops_every_variant_at_the_same_number(variant):
    config = config_of(variant, **{"train.budget_evaluations": 7_200_000, "train.batch_size": 96, "robust.group_size": 4})
    paid = resolve(config)
    spent = [96 * evaluations(config, paid.train.steps + more) for more in (0, 1)]
    assert spent[0] <= 7_200_000 < spent[1]
    assert resolve(paid).train.steps == paid.train.steps
    assert config.train.steps == 4000  # the config that was given is left as it is


def test_without_a_budget_the_steps_are_those_of_the_config():
    assert resolve(config_of("at_diff")).train.steps == 4000


@pytest.mark.parametrize(
    ("overrides", "units"),
    [
        ({}, 8.0),
        ({"robust.attack_steps": 3}, 12.0),
        ({"robust.group_size": 8}, 3.0 + 5.0 / 8.0),
        ({"robust.lazy_interval": 4}, 3.0 + 5.0 / 4.0),
        ({"robust.start_step": 0.25}, 3.0 + 5.0 * 0.75),
        ({"robust.start_step": 900.0}, 3.0 + 5.0 * 0.1),
        ({"robust.start_step": 0.5, "robust.lazy_interval": 2, "robust.group_size": 4}, 3.0 + 5.0 / 16.0),
    ],
)
def test_late_lazy_and_subsampled_penalties_cost_their_share(overrides, units):
    assert evaluations(config_of("robust_adv", **overrides), 1000) == pytest.approx(1000 * units)


@pytest.mark.parametrize(
    ("variant", "overrides", "units"),
    [
        ("ddpm", {}, 3),
        ("robust_ran", {}, 6),
        ("robust_adv", {}, 8),
        ("at_diff", {}, 9),
        ("at_diff", {"baselines.updates": 2}, 6),
        ("gsure", {}, 6),
    ],
)
def test_the_units_of_the_cost_model(variant, overrides, units):
    assert evaluations(config_of(variant, **overrides), 1000) == 1000 * units


def test_evaluations_of_a_run_that_is_not_finished():
    config = config_of("robust_adv", **{"robust.start_step": 0.5, "robust.lazy_interval": 2})
    assert [evaluations(config, 8, done) for done in (0, 4, 5, 6, 8)] == [0.0, 12.0, 20.0, 23.0, 34.0]


@pytest.mark.parametrize(
    ("variant", "schedule"),
    [
        ("ddpm", (100, 100, 1)),
        ("robust_adv", (100, 20, 5)),
        ("jvp", (100, 20, 5)),
        ("at_diff", (100, 0, 1)),  # applies its objective in every step
        ("ddpm_ip", (100, 0, 1)),
        ("ambient_guess", (100, 0, 1)),
        ("gsure", (100, 0, 1)),
        ("ambient_mask", (100, 0, 1)),
    ],
)
def test_the_step_schedule_of_an_objective(variant, schedule):
    found = build_step_schedule(config_of(variant, **{"robust.start_step": 0.2, "robust.lazy_interval": 5}), 100)
    assert (found.total, found.start, found.interval) == schedule


@pytest.mark.parametrize(("variant", "factor"), [("robust_adv", 5.0), ("discard_blind_adv", 1.0)])
def test_a_penalty_is_scaled_by_the_interval_that_it_reads(variant, factor):
    """That of `*_blind_adv` is in every step."""

    def penalty(interval):
        config = config_of(variant, **{"robust.weight": "paper", "robust.group_size": 1, "robust.lazy_interval": interval})
        process = build_process(config)
        objective = build_objective(config, process, build_variance_loss(config, process), 0.1)
        keys, x0 = jax.random.split(jax.random.key(0), 64), jax.random.normal(jax.random.key(1), (64, 3))
        return objective(lambda x, t: jnp.tanh(x), keys, x0, jnp.full(64, 0.5))[1]["penalty"]

    assert penalty(1).min() > 0.0
    np.testing.assert_allclose(penalty(5), factor * penalty(1), rtol=1e-6)


@pytest.mark.parametrize(
    ("variant", "measured"), [("ddpm", 4000), ("pseudo_huber", 0), ("huber", 0), ("robust_adv", 0), ("robust_fast", 1000)]
)
def test_the_noise_floor_is_measured_by_the_square_alone(variant, measured):
    config = resolve(plane3d.get_config(variant))
    assert measured_steps(config, build_step_schedule(config, config.train.steps)) == measured


def test_plain_steps_denoise_by_the_square_while_they_measure():
    config, errors = resolve(plane3d.get_config("robust_fast")), {}
    process, predict = build_process(config), lambda x, t: 0.0 * x
    keys, x0, t = jax.random.split(jax.random.key(0), 8), jnp.ones((8, 3)), jnp.full(8, 0.5)
    for by_square in (True, False):
        errors[by_square] = build_denoising(config, process, no_variance, by_square)(predict, keys, x0, t)[1]
    np.testing.assert_allclose(errors[True]["denoising"], errors[True]["noise_error"], rtol=1e-6)
    assert np.all(errors[False]["denoising"] < errors[True]["denoising"])  # pseudo-Huber


@pytest.mark.parametrize("variant", ["ddpm", "at_diff"])
def test_the_learning_rate_warms_up_and_ends_with_the_steps(variant):
    """Seen through Adam: with a constant gradient each update is as long as the learning rate."""
    config = config_of(variant, **{"train.steps": 10, "train.warmup_steps": 2, "train.learning_rate": 1.0})
    optimizer, each = build_optimizer(config), 3 if variant == "at_diff" else 1
    params, lengths = {"w": np.ones(1, np.float32)}, []
    opt_state = optimizer.init(params)
    for _ in range(10 * each):
        updates, opt_state = optimizer.update({"w": np.ones(1, np.float32)}, opt_state, params)
        lengths.append(abs(float(updates["w"][0])))
    rates = np.array(lengths).reshape(10, each)
    np.testing.assert_allclose(rates, np.repeat(rates[:, :1], each, axis=1), atol=1e-5)  # one rate for the updates of a step
    np.testing.assert_allclose(rates[:3, 0], [0.0, 0.5, 1.0], atol=1e-5)
    np.testing.assert_allclose(rates[9, 0], 0.5 * (1.0 + np.cos(np.pi * 7 / 8)), atol=1e-5)


@pytest.mark.parametrize(("clip_norm", "scale", "wanted"), [(2.0, 1, 2.0), (2.0, 3, 6.0), (0.0, 1, 10.0)])
def test_the_bound_on_the_gradient_norm_is_scaled_and_may_be_none(clip_norm, scale, wanted):
    optimizer = build_optimizer(config_of("ddpm", **{"train.clip_norm": clip_norm}), clip_scale=scale)
    gradient = {"w": np.full(4, 5.0, np.float32)}  # of norm 10
    _, (_, (adam, *_)) = optimizer.update(gradient, optimizer.init(gradient), gradient)
    assert float(optax.tree.norm(adam.mu)) == pytest.approx(0.1 * wanted)  # 1 - beta1


def test_the_lowest_noise_of_an_ambient_objective_is_the_margin_above_what_it_assumes():
    lowest = lambda variant, **more: OBJECTIVES[variant].lowest_noise(config_of(variant, **more))
    assert lowest("ambient_guess", **{"data.noise_std": 0.2, "baselines.guess": 0.5}) == pytest.approx(1.05 * 0.1)
    assert lowest("ambient_oracle") == 0.0  # a tenth of the examples is clean
    assert lowest("ambient_oracle", **{"data.fraction": 1.0}) == pytest.approx(1.05 * 0.1)
    corruption = {"data.fraction": 1.0, "data.corruptions": ("gaussian_range",), "data.noise_std_min": 0.04}
    assert lowest("ambient_oracle", **corruption) == pytest.approx(1.05 * 0.04)


@pytest.mark.parametrize(
    ("variant", "key", "value", "message"),
    [
        ("ddpm_ip", "baselines.gamma", -1.0, r"^config\.objective=ddpm_ip: .*gamma.*-1"),
        ("pseudo_huber", "baselines.huber_c", 0.0, r"^config\.baselines: .*c0.*0"),
        ("at_diff", "baselines.max_norm", 0.0, r"^config\.objective=at_diff: .*max_norm.*0"),
        ("ambient_guess", "baselines.margin", 0.0, r"^config\.objective=ambient_guess: .*margin.*0"),
        (
            "gsure",
            "baselines.guess",
            1e5,
            r"^config\.objective=gsure: noise_std=10000 is not below .*15\d: lower",
        ),
        ("robust_adv", "robust.lam", -0.3, r"^config\.robust: .*lam.*-0\.3"),
    ],
)
def test_what_the_library_refuses_is_the_users_mistake(variant, key, value, message):
    """Its own check, of what `resolve` refuses before by the range of the key."""
    with pytest.raises(UserError, match=message):
        build_experiment(config_of(variant, **{key: value}), (3,))
