"""The values that a numeric key of a config may have: one table, and one check.

A range is an interval: a round bracket leaves the end out. Every number in a tuple must lie in it; infinity and NaN do not.
"""

import math
from collections.abc import Iterable
from typing import Any

from advdiff_jax.errors import UserError

_COUNT, _INDEX, _SHARE, _POSITIVE, _AMOUNT = "[1, inf)", "[0, inf)", "[0, 1]", "(0, inf)", "[0, inf)"

RANGES = {
    "seed": _INDEX,
    "data.seed": _INDEX,
    "data.num_examples": _COUNT,
    "data.held_out": _INDEX,
    "data.half_width": _POSITIVE,
    "data.dim": _COUNT,
    "data.components": _COUNT,
    "data.spread": _AMOUNT,
    "data.component_std": _POSITIVE,
    "data.outlier_fraction": _SHARE,
    "data.stds": _POSITIVE,
    "data.size": _COUNT,
    "data.channels": "[1, 3]",
    "data.crop": _INDEX,
    "data.subspace_dim": _COUNT,
    "data.value_range": "(-inf, inf)",
    "data.num_workers": _INDEX,
    "data.read_ahead": _INDEX,
    "data.fraction": _SHARE,
    "data.chance.*": _SHARE,
    "data.noise_std": _AMOUNT,
    "data.noise_std_min": _AMOUNT,
    "data.noise_std_max": _AMOUNT,
    "data.salt_share": _SHARE,
    "data.missing_share": _SHARE,
    "data.block_side": _SHARE,
    "data.patch_side": _SHARE,
    "data.blur_std": _AMOUNT,
    "data.jpeg_quality": "[1, 95]",
    "poison.radius": _AMOUNT,
    "poison.attack_steps": _COUNT,
    "poison.step_size": _POSITIVE,
    "poison.draws": _COUNT,
    "poison.batch_size": _COUNT,
    "classifier.steps": _COUNT,
    "purify.linf_radii": _POSITIVE,
    "purify.linf_times": "(0, 1]",
    "purify.l2_radii": _POSITIVE,
    "purify.l2_times": "(0, 1]",
    "purify.steps": _COUNT,
    "purify.attack_steps": _COUNT,
    "purify.draws": _COUNT,
    "purify.examples": _COUNT,
    "purify.batch_size": _COUNT,
    "certify.noise_stds": _POSITIVE,
    "certify.first_draws": _COUNT,
    "certify.draws": _COUNT,
    "certify.failure": "(0, 1)",
    "certify.radii": _AMOUNT,
    "certify.examples": _COUNT,
    "certify.batch_size": _COUNT,
    "anomaly.patch_side": _SHARE,
    "anomaly.examples": "[2, inf)",
    "anomaly.levels": _POSITIVE,
    "anomaly.draws": _COUNT,
    "anomaly.components": _COUNT,
    "diffusion.grid_steps": _INDEX,
    "diffusion.beta_min": _POSITIVE,
    "diffusion.beta_max": _POSITIVE,
    "diffusion.cosine_offset": _AMOUNT,
    "diffusion.betas": "(0, 1)",
    "diffusion.ve_sigma_min": _POSITIVE,
    "diffusion.ve_sigma_max": _POSITIVE,
    "diffusion.edm_sigma_min": _POSITIVE,
    "diffusion.edm_sigma_max": _POSITIVE,
    "diffusion.edm_log_mean": "(-inf, inf)",
    "diffusion.edm_log_std": _POSITIVE,
    "diffusion.flow_min_alpha": "(0, 1)",
    "diffusion.t_min": "(0, 1)",
    "diffusion.data_std": _POSITIVE,
    "diffusion.vlb_weight": _AMOUNT,
    "diffusion.vlb_bins": _INDEX,
    "network.time_scale": _POSITIVE,
    "network.width": _COUNT,
    "network.depth": _COUNT,
    "network.time_features": "[4, inf)",
    "network.base_channels": "[4, inf)",
    "network.channel_mults": _POSITIVE,
    "network.res_blocks": _COUNT,
    "network.attention_resolutions": _COUNT,
    "network.heads": _COUNT,
    "network.downsample_padding": "[0, 1]",
    "network.attention_head_dim": _INDEX,
    "network.norm_num_groups": _INDEX,
    "network.attn_norm_num_groups": "[-1, inf)",
    "network.norm_eps": _POSITIVE,
    "network.freq_shift": "[0, 1]",
    "network.dropout": "[0, 1)",
    "robust.rho": _AMOUNT,
    "robust.bias_min": _AMOUNT,
    "robust.bias_max": _AMOUNT,
    "robust.constant": _POSITIVE,
    "robust.attack_steps": _COUNT,
    "robust.step_size": _AMOUNT,
    "robust.lam": _AMOUNT,
    "robust.kappa0": _AMOUNT,
    "robust.cut": _POSITIVE,
    "robust.exponent": _POSITIVE,
    "robust.explained": "(0, 1)",
    "robust.start_step": _AMOUNT,
    "robust.warmup_steps": _AMOUNT,
    "robust.lazy_interval": _COUNT,
    "robust.group_size": _COUNT,
    "baselines.updates": _COUNT,
    "baselines.adv_lr": _POSITIVE,
    "baselines.max_norm": _POSITIVE,
    "baselines.gamma": _AMOUNT,
    "baselines.huber_c": _POSITIVE,
    "baselines.guess": _AMOUNT,
    "baselines.margin": _POSITIVE,
    "baselines.consistency": _AMOUNT,
    "baselines.further": "(0, 1)",
    "baselines.stein_scale": _AMOUNT,
    "noise.margin": "[1.05, inf)",
    "train.steps": _COUNT,
    "train.budget_evaluations": _INDEX,
    "train.batch_size": _COUNT,
    "train.accumulate": _COUNT,
    "train.learning_rate": "(0, 1e38]",  # finite in float32
    "train.beta1": "[0, 1)",
    "train.beta2": "[0, 1)",
    "train.warmup_steps": _INDEX,
    "train.clip_norm": _AMOUNT,
    "train.max_skipped": _COUNT,
    "train.ema_decay": "[0, 1)",
    "train.more_ema_decays": "[0, 1)",
    "train.log_every": _COUNT,
    "train.checkpoint_every": _COUNT,
    "train.keep_checkpoints": _COUNT,
    "train.keep_every": _INDEX,
    "train.sample_every": _INDEX,
    "train.sample_count": _COUNT,
    "sampling.steps": _COUNT,
    "sampling.rho": _POSITIVE,
    "sampling.eta": _SHARE,
    "sampling.snr": _POSITIVE,
    "sampling.corrections": _INDEX,
    "sampling.churn": _AMOUNT,
    "sampling.churn_min": _AMOUNT,
    "sampling.churn_max": _AMOUNT,
    "sampling.churn_noise": _AMOUNT,
    "sampling.rtol": _POSITIVE,
    "sampling.atol": _POSITIVE,
    "sampling.clip": _AMOUNT,
    "sampling.final_denoise": _AMOUNT,
    "sampling.final_level": _AMOUNT,
    "sampling.final_draws": _COUNT,
    "sampling.batch_size": _COUNT,
    "sampling.seed": _INDEX,
    "sampling.ema_decay": "[0, 1)",
    "evaluation.seed": _INDEX,
    "evaluation.num_samples": _COUNT,
    "evaluation.w2_points": _COUNT,
    "evaluation.score_range": _POSITIVE,
    "evaluation.proximal_std": _AMOUNT,
    "evaluation.duplicate_rate": "(0, 1)",
    "evaluation.reading_level": _POSITIVE,
    "evaluation.reading_draws": _COUNT,
    "evaluation.denoising_levels": _POSITIVE,
    "evaluation.denoising_examples": _COUNT,
    "evaluation.score_levels": _COUNT,
    "evaluation.field_levels": _POSITIVE,
    "evaluation.likelihood_points": _COUNT,
    "evaluation.likelihood_probes": _COUNT,
    "evaluation.likelihood_bin": _POSITIVE,
    "evaluation.noise_directions": _COUNT,
    "evaluation.overfitting_ratio": _POSITIVE,
    "evaluation.max_reference": "[4, inf)",
    "evaluation.grid": _COUNT,
    "evaluation.bootstrap": _INDEX,
    "evaluation.nearest_k": _COUNT,
    "evaluation.max_neighbours": _COUNT,
    "evaluation.features_batch": _COUNT,
    "evaluation.attack.times": "(0, 1)",
    "evaluation.attack.kappas": _POSITIVE,
    "evaluation.attack.pgd_steps": _COUNT,
    "evaluation.attack.restarts": _COUNT,
    "evaluation.attack.draws": _COUNT,
    "evaluation.attack.steps": _COUNT,
    "evaluation.attack.examples": "[2, inf)",
    "evaluation.attack.batch_size": _COUNT,
    "evaluation.attack.huge": _POSITIVE,
    "evaluation.local_gain.levels": "[2, inf)",
    "evaluation.local_gain.iterations": _COUNT,
    "evaluation.local_gain.examples": _COUNT,
    "evaluation.few_steps.steps": _COUNT,
    "evaluation.few_steps.num_samples": "[2, inf)",
}


# key -> words that it takes besides numbers.
WORDS = {"sampling.final_denoise": ("measured",)}


def range_of(key: str) -> str | None:
    """Returns the interval of a key, or None for a key without one."""
    return RANGES.get(key, RANGES.get(f"{key.rpartition('.')[0]}.*"))


def contains(interval: str, value: float) -> bool:
    """Says whether a finite number lies in an interval such as "(0, 1]"."""
    low, high = map(float, interval[1:-1].split(","))
    above = value > low or (interval[0] == "[" and value >= low)
    below = value < high or (interval[-1] == "]" and value <= high)
    return math.isfinite(value) and above and below


def check_ranges(values: dict[str, Any]) -> None:
    """Checks the flat config `values`; raises UserError for the first number out of its range."""
    for key, value in sorted(values.items(), key=lambda item: "." in item[0]):  # `seed` before those that follow it
        interval = range_of(key)
        numbers: Iterable[float] = value if isinstance(value, list | tuple) else (value,)
        if (
            interval
            and value not in WORDS.get(key, ())
            and not all(isinstance(number, int | float) and contains(interval, number) for number in numbers)
        ):
            raise UserError(f"config.{key}={value!r} is out of range: set a value in {interval}")
