"""The parts of EM as a config names them: each E-step against the posterior of Gaussian data, and what does not fit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from advdiff_jax.builders import em
from advdiff_jax.builders.data import build_data
from advdiff_jax.builders.process import build_process
from advdiff_jax.builders.validate import resolve
from advdiff_jax.errors import UserError
from advdiff_jax.sampling import posterior
from configs import digits, plane3d

Y, STD, COUNT = 1.2, 0.5, 1000  # an example, the noise in it, and how many pixels there are


def small(variant="em", **overrides):
    config = plane3d.get_config(variant)
    config.update_from_flattened_dict({"data.num_examples": 300, "sampling.steps": 100, "em.steps": 100, **overrides})
    return resolve(config)


def drawn(e_step, mask=True, **overrides):
    """Draws [COUNT, 2] given y = (Y, Y), by a network that knows data of variance 1."""
    config = small(**{"em.e_step": e_step, **overrides})
    schedule, step = build_process(config).schedule, em.build_e_step(config, (2,))

    def predict(x, t):
        return schedule.sigma(t)[:, None] * x  # E[eps | x_t], where x_t has variance 1 at every time

    @jax.jit
    def draw(keys):
        mask_of_all = jnp.broadcast_to(jnp.array([True, mask]), (COUNT, 2))
        return step.draw(predict, keys, posterior.masked(jnp.full((COUNT, 2), Y), mask_of_all, jnp.full(COUNT, STD)))

    return np.asarray(draw(jax.random.split(jax.random.key(0), COUNT))), step.evaluations


@pytest.mark.parametrize(("e_step", "evaluations"), [("sde", 100), ("moments", 200)])
def test_stochastic_e_steps_draw_from_the_posterior(e_step, evaluations):
    found, cost = drawn(e_step)
    assert cost == evaluations
    np.testing.assert_allclose(found.mean(), Y / (1.0 + STD**2), atol=0.04)
    np.testing.assert_allclose(found.var(), STD**2 / (1.0 + STD**2), rtol=0.1)


def test_the_e_step_of_the_probability_flow_maps_an_example_to_one():
    found, _ = drawn("ode")
    np.testing.assert_allclose(found, Y / np.sqrt(1.0 + STD**2), rtol=0.01)


def test_a_hidden_pixel_is_drawn_from_what_the_model_knows():
    found, _ = drawn("moments", mask=False)
    np.testing.assert_allclose(found[:, 0].mean(), Y / (1.0 + STD**2), atol=0.04)
    np.testing.assert_allclose(found[:, 1].mean(), 0.0, atol=0.1)
    np.testing.assert_allclose(found[:, 1].std(), 1.0, rtol=0.1)


def test_dps_comes_near_to_what_is_seen_and_leaves_the_rest():
    found, cost = drawn("dps", mask=False, **{"em.zeta": 0.3})
    assert cost == 200
    assert np.abs(found[:, 0] - Y).mean() < 0.2
    np.testing.assert_allclose(found[:, 1].std(), 1.0, rtol=0.1)


def test_a_masked_example_without_noise_has_something_to_draw(tmp_path):
    config = digits.get_config("em")
    config.data.update({"corruptions": ("missing_pixels",), "fraction": 0.5})
    config.em.e_step, config.baselines.guess = "moments", 0.0
    config = resolve(config)
    data, rows = build_data(config), np.arange(1797)
    known = em.build_known(config, data, tmp_path)
    np.testing.assert_array_equal(known.is_given(rows), ~data.is_corrupted)
    np.testing.assert_array_equal(em.clean_rows(known), np.flatnonzero(~data.is_corrupted))


@pytest.mark.parametrize(
    ("variant", "overrides", "message"),
    [
        ("em", {"em.start": "clean"}, r"config\.em\.start='clean' needs examples without noise"),
        ("em", {"em.e_step": "moments", "em.steps": 5000}, r"config\.em\.steps=5000: config\.sampling: num_steps=5000"),
        (
            "em",
            {"em.e_step": "dps", "sampling.grid": "respaced"},
            r"config\.em\.e_step='dps' takes config\.em\.steps: set uniform",
        ),
        (
            "em",
            {"sampling.final_denoise": 0.1},
            r"config\.sampling\.final_denoise=0\.1 cleans samples of a model of noisy data",
        ),
        ("em", {"em.e_step": "moments", "sampling.method": "ode"}, r"needs a sampler with a grid, .*='ode' lacks: set ddpm"),
        (
            "em",
            {"data.corruptions": ("missing_pixels",)},
            r"config\.em\.e_step='sde' needs whole examples, .*: set moments or dps",
        ),
        (
            "em_blind",
            {"data.corruptions": ("missing_pixels",), "em.e_step": "dps"},
            r"config\.objective=em_blind measures noise in whole examples, and the data have masks: set em",
        ),
    ],
)
def test_parts_that_do_not_fit_are_refused(variant, overrides, message):
    with pytest.raises(UserError, match=message):
        small(variant, **overrides)


def test_noise_above_the_process_s_no_noise_and_no_clean_examples_are_refused(tmp_path):
    config = small(
        **{"data.noise_std": 30.0, "diffusion.schedule": "edm", "diffusion.grid_steps": 0, "diffusion.edm_sigma_max": 20.0}
    )
    with pytest.raises(UserError, match=r"noise of std 30 is not below .*, 20: set another config\.diffusion\.schedule"):
        em.build_known(config, build_data(config), tmp_path)
    clean = small("em_blind", **{"data.fraction": 0.0})
    with pytest.raises(UserError, match=r"em_blind finds no example with noise: .*; set the variant ddpm, or em with"):
        em.build_known(clean, build_data(clean), tmp_path)
    with pytest.raises(UserError, match=r"needs 4 clean examples, and there are 1: set dirty or gaussian"):
        em.clean_rows(em.Known(np.array([0.0, 0.1, 0.1])))
