"""Eight narrow Gaussians in the plane, with noise and a few outliers in the training set."""

from configs import default
from configs.variants import with_variant


def get_config(variant=None):
    config = default.get_config()
    config.name = "mixture"
    config.data.source = "mixture"
    config.noise.margin = 1.5  # as in plane3d
    config.data.outlier_fraction = 0.02
    # One mode is far from the others: the random share of 2,000 points that it gets moves w2 by 20 %.
    config.evaluation.num_samples = 6000
    config.evaluation.metrics = ("wasserstein", "score_error", "likelihood")
    return with_variant(config, variant)
