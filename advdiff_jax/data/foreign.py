"""Images of another data set, in the shape of one's own."""

import numpy as np
from PIL import Image

from advdiff_jax.data.pixels import Examples, as_stored, to_float
from advdiff_jax.data.records import fit


class Fitted:
    """Images of a data set, converted to other channels and resized on access, as `records.fit` does.

    Args:
        examples: data set of images [N, H, W, 1 or 3] (see `pixels`).
        shape: (height, width, channels) of the result, uint8.
    """

    def __init__(self, examples: Examples, shape: tuple[int, ...]):
        self._examples = examples
        self.shape, self.dtype = (len(examples), *shape), np.dtype(np.uint8)

    def __len__(self) -> int:
        return len(self._examples)

    def __getitem__(self, indices: np.ndarray) -> np.ndarray:
        images = as_stored(to_float(self._examples[indices]), self.dtype)
        height, width, channels = self.shape[1:]
        shown = (Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image) for image in images)
        return np.stack([fit(image, (height, width), channels) for image in shown])
