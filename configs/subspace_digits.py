"""Digits projected to 10 principal components: real images of which the truth, a linear subspace, is known exactly."""

from configs import digits
from configs.variants import with_variant


def get_config(variant=None):
    config = digits.get_config()
    config.name = "subspace_digits"
    config.data.source = "linear_subspace"
    config.data.base = "digits"
    config.data.subspace_dim = 10  # 74 % of the variance
    config.evaluation.metrics = ("subspace", "memorization")
    return with_variant(config, variant)
