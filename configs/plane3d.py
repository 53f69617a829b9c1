"""Points on an oblique plane in R^3, most of them noisy: every error is known exactly. Under a minute on a laptop."""

from configs import default
from configs.variants import with_variant


def get_config(variant=None):
    config = default.get_config()
    config.name = "plane3d"
    config.noise.margin = 1.5  # nothing clips the noise of points, and its level is read well
    return with_variant(config, variant)
