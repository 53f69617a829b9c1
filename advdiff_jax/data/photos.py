"""Colour images without a download: random crops of the photographs in scikit-learn and scikit-image."""

import importlib.resources
import io
from collections.abc import Sequence

import numpy as np
from PIL import Image

from advdiff_jax.data.pixels import height_width

# (package, file): files inside the installed packages, so reading them downloads nothing.
PHOTOGRAPHS = (
    ("sklearn.datasets.images", "china.jpg"),
    ("sklearn.datasets.images", "flower.jpg"),
    ("skimage.data", "astronaut.png"),
    ("skimage.data", "chelsea.png"),
    ("skimage.data", "coffee.png"),
    ("skimage.data", "hubble_deep_field.jpg"),
    ("skimage.data", "rocket.jpg"),
)
SMALLEST, LARGEST = 32, 256  # sides of the crops in pixels of the photograph


def photo_crops(num_examples: int, seed: int, size: int | Sequence[int]) -> np.ndarray:
    """Draws crops and resizes them: photograph and place are uniform, the longer side log-uniform in 32..256 pixels.

    Args:
        num_examples: number of crops.
        seed: seed of the draws.
        size: side of the result in pixels, or (height, width).

    Returns:
        [num_examples, height, width, 3] uint8.

    Raises:
        InvalidArgument: `size` is out of range.
    """
    height, width = height_width(size)
    photographs = [
        Image.open(io.BytesIO(importlib.resources.files(package).joinpath(name).read_bytes())).convert("RGB")
        for package, name in PHOTOGRAPHS
    ]
    rng = np.random.default_rng(seed)
    out = np.empty((num_examples, height, width, 3), np.uint8)
    for crop in out:
        photograph = photographs[rng.integers(len(photographs))]
        longer = round(np.exp(rng.uniform(np.log(SMALLEST), np.log(LARGEST))))
        cut_width, cut_height = (max(1, round(longer * side / max(width, height))) for side in (width, height))
        left, top = rng.integers(photograph.width - cut_width + 1), rng.integers(photograph.height - cut_height + 1)
        box = (left, top, left + cut_width, top + cut_height)
        crop[:] = np.asarray(photograph.resize((width, height), Image.Resampling.BOX, box=box))
    return out
