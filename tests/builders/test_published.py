"""The paper's numbers stand beside runs of their own setting, and beside no other."""

import pytest

from advdiff_jax.builders import words
from advdiff_jax.builders.published import PAPER, paper_numbers
from advdiff_jax.builders.validate import resolve
from configs import celeba, cifar10, digits, imagenet64, lsun_bedroom
from configs.variants import VARIANTS


def test_numbers_of_the_config_that_the_paper_has():
    assert paper_numbers(cifar10.get_config("ddpm")) == {"fd_inception": 58.05, "inception_score": 6.93}
    assert paper_numbers(imagenet64.get_config("robust_adv")) == {"fd_inception": 83.8}
    config = cifar10.get_config("robust_adv")
    config.data.noise_std = 0.2
    assert paper_numbers(config) == {"fd_inception": 24.81, "inception_score": 7.07}
    config.data.fraction = 0.0
    assert paper_numbers(config) == {"fd_inception": 28.68, "inception_score": 7.04}


@pytest.mark.parametrize(
    "changes",
    [
        {"data.fraction": 0.5},
        {"data.noise_std": 0.3},
        {"data.corruptions": ("blur",)},
        {"data.chance.gaussian": 0.5},
        {"init_from": "runs/other"},
        {"data.tfds_name": "mnist"},
        {"data.source": "photo_crops"},
    ],
)
def test_other_settings_have_none(changes):
    config = cifar10.get_config("ddpm")
    config.update_from_flattened_dict(changes)
    assert paper_numbers(config) == {}


def test_every_setting_is_one_of_a_config():
    names = {module.get_config().data.tfds_name for module in (celeba, cifar10, imagenet64, lsun_bedroom)}
    assert {setting.data_set for setting in PAPER} == names
    assert {setting.variant for setting in PAPER} <= VARIANTS.keys()


def test_a_set_up_in_words():
    config = resolve(digits.get_config("robust_adv"))
    config.unlock()
    config.data.corruptions = ("gaussian", "missing_block")

    class Train:
        shape, dtype = (1797, 8, 8, 1), "float32"

        def __len__(self):
            return self.shape[0]

    said = dict(words.setup(config, Train(), 72_113))
    assert said["Data"] == (
        "digits: 1,797 images of 8 x 8 x 1, float32; 90% of them are corrupted (Gaussian noise of std 0.2, then missing "
        "block), and no model is given which"
    )
    assert said["Objective"] == (
        "robust_adv: equivariance with a square loss, adversarial perturbations (1 ascent step), weight paper (lam = 0.3)"
    )
    assert said["Known of each example"] == "nothing"
    assert said["Sampling"] == "ddpm, 100 steps; 1,000 samples are judged"
    assert said["Model"].startswith("unet of 72,113 parameters, which predicts eps; vp_linear with 1,000 steps")


@pytest.mark.parametrize(
    ("variant", "known"),
    [
        ("ddpm", "nothing"),
        ("ambient_oracle", "std of its noise"),
        ("ambient_guess", "std, 0.1 for all"),
        ("ambient_blind", "std, as measured in it"),
        ("ambient_mask", "mask"),
        ("gsure", "mask, std, 0.1 for all"),
    ],
)
def test_what_an_objective_knows_of_each_example(variant, known):
    config = digits.get_config(variant)
    config.data.update({"corruptions": ("gaussian", "missing_pixels"), "noise_std": 0.2})
    config.baselines.guess = 0.5
    assert words.describe_known(config) == known
