"""Points on an oblique plane in R^3, most of them noisy: every error is known exactly. Under a minute on a laptop."""

from configs import default


def get_config(variant=None):
    config = default.get_config()
    config.name = "plane3d"
    return default.with_variant(config, variant)
