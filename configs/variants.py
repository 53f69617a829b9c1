"""The robustness variants: the settings of each, and how a config takes them.

A variant is a word after the colon: `--config=configs/digits.py:robust_fast`.
"""

import ml_collections

from advdiff_jax.errors import UserError

# A cutoff at the noise floor (`robust.floor`); the first quarter of a run is plain denoising, which measures it. The denoising
# loss is linear in errors above the noise's own std, which keeps the spread of the data. A smaller width, or the falling one of
# `pseudo_huber`, loses part of modes that lie apart.
ADAPTIVE = {
    "objective": "equivariance",
    "criterion": "pseudo_huber",
    "robust": {"perturbation": "adversarial", "weight": "adaptive", "start_step": 0.25},
    "baselines": {"huber_schedule": "constant", "huber_c": 1.0},
}

# Without clean examples the model learns the noise of the data, and its samples need a final step.
BY_LEVEL = {"sampling": {"final_denoise": "learnt"}}

ON_TOP = {"perturbation": "adversarial", "weight": "adaptive", "floor": "data", "group_size": 16}

# The settings of each variant. `config.variant` names the one in use.
VARIANTS = {
    # Plain denoising (Ho et al. 2020).
    "ddpm": {"objective": "denoising"},
    # The paper's negative control: penalises any change of the prediction, as adversarial training of classifiers does.
    "invariance": {"objective": "invariance", "robust": {"perturbation": "adversarial", "weight": "paper"}},
    # The paper's Robust_ran and Robust_adv (arXiv 2505.21742).
    "robust_ran": {"objective": "equivariance", "robust": {"perturbation": "random", "weight": "paper"}},
    "robust_adv": {"objective": "equivariance", "robust": {"perturbation": "adversarial", "weight": "paper"}},
    # Robust_adv with a weight that stops at the noise levels where only signal is left to smooth (`diffusion.gain`).
    "robust_adv_cutoff": {"objective": "equivariance", "robust": {"perturbation": "adversarial", "weight": "cutoff"}},
    "robust_adaptive": ADAPTIVE,
    # The penalty on one example in sixteen, sampled where it acts: 1.08 times the cost of plain denoising.
    "robust_fast": ADAPTIVE | {"robust": ADAPTIVE["robust"] | {"group_size": 16}},
    # Robust_ran's limit for a small radius, by a derivative instead of a perturbation.
    "jvp": {"objective": "jvp", "robust": {"weight": "paper"}},
    # Baselines, with settings in `config.baselines`. Free adversarial training on the true noise (arXiv 2502.17099).
    "at_diff": {"objective": "at_diff"},
    # Input perturbation (arXiv 2301.11706).
    "ddpm_ip": {"objective": "ddpm_ip"},
    # Scheduled pseudo-Huber loss (arXiv 2403.16728).
    "pseudo_huber": {"objective": "denoising", "criterion": "pseudo_huber"},
    # Huber's loss with the same widths, one reading of RDDPM's robust regression (arXiv 2508.02903).
    "huber": {"objective": "denoising", "criterion": "huber"},
    # Ambient denoising (arXiv 2404.10177, 2411.02780), given the noise std of each example, or one guess for all. The model
    # learns nothing below the guess, and the last sampling step goes from there to the estimate of x0.
    "ambient_oracle": {"objective": "ambient_oracle"},
    "ambient_guess": {"objective": "ambient_guess"},
    # Nothing given: the noise of each example is measured in the data, and each teaches the levels that it can.
    "ambient_blind": {"objective": "ambient_blind", **BY_LEVEL},
    # The same measurement; the noisy examples are thrown away.
    "discard_blind": {"objective": "discard_blind"},
    # The paper's penalty on top of each, on one example in sixteen, below half of the std that is found.
    "ambient_blind_adv": {"objective": "ambient_equivariance", "robust": ON_TOP, **BY_LEVEL},
    "discard_blind_adv": {"objective": "discard_equivariance", "robust": ON_TOP},
    # GSURE (arXiv 2305.13128), given one noise std of all examples: data.noise_std times baselines.guess.
    "gsure": {"objective": "gsure"},
    # EM: a model draws a clean training set, given the noisy one, and is trained on it, lap after lap (arXiv 2405.13712,
    # 2407.01014, 2502.05446). Given one noise std of all examples, data.noise_std times baselines.guess, and masks; or nothing:
    # the noise of each example is measured.
    "em": {"objective": "em"},
    "em_blind": {"objective": "em_blind"},
    # Ambient diffusion (arXiv 2305.19256), given the mask of each example. The data need masks: data.corruptions or data.mask.
    "ambient_mask": {"objective": "ambient_mask"},
}


# The modifier `tiny`: the same code path with a small network, in a minute on two cores.
TINY = {
    "data": {"size": 16, "num_examples": 2000, "num_workers": 2},
    "network": {
        "base_channels": 8,
        "channel_mults": (1, 2),
        "res_blocks": 1,
        "attention_resolutions": (8,),
        "heads": 2,
    },
    "train": {"steps": 40, "batch_size": 16, "warmup_steps": 10, "log_every": 20},
    "sampling": {"steps": 10, "batch_size": 64},
    # Fidelity needs more samples than its network has features: alexnet has the fewest, 256.
    "evaluation": {"num_samples": 300, "max_reference": 1000, "noise_directions": 24, "features": "alexnet"},
}


def overrides(variant: str | None, default: str = "robust_adv") -> ml_collections.ConfigDict:
    """Returns the settings of VARIANT, tiny or VARIANT,tiny, with its name; without a VARIANT those of `default`.

    Raises:
        UserError: an unknown variant.
    """
    names = [name for name in (variant or "").split(",") if name]
    modifiers = [name for name in names if name == "tiny"][:1]
    name, *more = [name for name in names if name != "tiny"] or [default]
    if name not in VARIANTS or more:
        raise UserError(f"variant={variant!r} is unknown: set one of {', '.join(VARIANTS)}, alone or with ,tiny")
    found = ml_collections.ConfigDict(VARIANTS[name])
    found.update(TINY if modifiers else {})
    found.variant = ",".join([name, *modifiers])
    return found


def with_variant(
    config: ml_collections.ConfigDict, variant: str | None, default: str = "robust_adv"
) -> ml_collections.ConfigDict:
    """Sets the robustness variant of a config, `default` if none is named; raises UserError if it is not known."""
    config.update(overrides(variant, default))
    return config
