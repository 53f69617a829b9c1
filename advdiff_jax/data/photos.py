"""Colour images without a download: random crops of the photographs in scikit-learn and scikit-image."""

import importlib.resources
import io

import numpy as np
from PIL import Image

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


def photo_crops(num_examples: int, seed: int, size: int) -> np.ndarray:
    """Draws square crops and resizes them: photograph and place are uniform, the side log-uniform in 32..256 pixels.

    Args:
        num_examples: number of crops.
        seed: seed of the draws.
        size: side of the result in pixels.

    Returns:
        [num_examples, size, size, 3] uint8.
    """
    photographs = [
        Image.open(io.BytesIO(importlib.resources.files(package).joinpath(name).read_bytes())).convert("RGB")
        for package, name in PHOTOGRAPHS
    ]
    rng = np.random.default_rng(seed)
    out = np.empty((num_examples, size, size, 3), np.uint8)
    for crop in out:
        photograph = photographs[rng.integers(len(photographs))]
        side = round(np.exp(rng.uniform(np.log(SMALLEST), np.log(LARGEST))))
        left, top = rng.integers(photograph.width - side + 1), rng.integers(photograph.height - side + 1)
        box = (left, top, left + side, top + side)
        crop[:] = np.asarray(photograph.resize((size, size), Image.Resampling.BOX, box=box))
    return out
