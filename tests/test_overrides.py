"""A value of the second term or of a neighbour that would do nothing is refused, and one that does something never is."""

import pytest

from advdiff_jax import builders_objectives, overrides, workdir
from advdiff_jax.errors import UserError
from configs import default


@pytest.mark.parametrize(
    ("variant", "key", "choice"),
    [
        ("robust_fast", "robust.cut", "config.robust.weight 'cutoff', which is 'adaptive' in variant robust_fast"),
        ("robust_adv", "robust.kappa0", "config.robust.weight 'cutoff' or 'adaptive', which is 'paper'"),
        ("robust_ran", "robust.attack_steps", "config.robust.perturbation 'adversarial', which is 'random'"),
        ("jvp", "robust.step_size", "config.objective 'equivariance' or 'invariance', which is 'jvp'"),
        ("ddpm", "robust.lam", "config.objective 'equivariance' or 'invariance' or 'jvp', which is 'denoising'"),
        ("ddpm", "neighbours.gamma", "config.objective 'ddpm_ip', which is 'denoising'"),
        ("robust_adv", "neighbours.huber_c", "config.criterion 'pseudo_huber', which is 'square'"),
    ],
)
def test_what_would_not_be_read_is_refused(variant, key, choice):
    with pytest.raises(UserError, match=rf"config\.{key}=.* would not be read: it is for {choice}"):
        overrides.check(default.get_config(variant), ["seed", key])


@pytest.mark.parametrize(
    ("variant", "keys"),
    [
        ("robust_fast", ["robust.kappa0", "robust.explained", "robust.one_in", "neighbours.huber_c", "robust.attack_steps"]),
        ("robust_adv", ["robust.lam", "robust.rho", "robust.step_size", "robust.start_step"]),
        ("robust_adv_cutoff", ["robust.cut", "robust.exponent"]),
        ("jvp", ["robust.lam", "robust.ball", "robust.every"]),
        ("ambient_guess", ["neighbours.guess", "neighbours.margin"]),
        ("at_diff", ["neighbours.updates", "train.steps", "data.noise_std"]),
    ],
)
def test_what_is_read_is_not_refused(variant, keys):
    overrides.check(default.get_config(variant), keys)


def test_every_key_and_choice_of_the_rules_is_a_key_of_a_config():
    known = workdir.flatten(default.get_config())
    choices = {
        "objective": builders_objectives.OBJECTIVES,
        "criterion": builders_objectives.CRITERIA,
        "robust.perturbation": builders_objectives.PERTURBATIONS,
        "robust.radius": builders_objectives.RADII,
        "robust.weight": builders_objectives.WEIGHTS,
    }
    for keys, where in overrides.READ_WHERE:
        assert {*keys, *where} <= known.keys()
        assert all({*read} < choices[choice].keys() for choice, read in where.items())
