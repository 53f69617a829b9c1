"""Config -> the classifier behind a denoiser, and the clean examples on which the two are judged."""

from typing import NamedTuple

import ml_collections
import numpy as np

from advdiff_jax.builders.data import Data
from advdiff_jax.builders.registry import as_user_error
from advdiff_jax.data import pixels
from advdiff_jax.errors import UserError
from advdiff_jax.features import classifier as classifiers
from advdiff_jax.features.classifier import Classifier


class Judged(NamedTuple):
    """The clean examples on which a classifier is judged.

    Attributes:
        x: images in [-1, 1], [n, H, W, C].
        labels: their classes, [n].
        words: whose they are.
    """

    x: np.ndarray
    labels: np.ndarray
    words: str


def check_labels(config: ml_collections.ConfigDict, data: Data) -> None:
    """Raises UserError for a data set without classes or images."""
    if data.source.labels is None:
        raise UserError(
            f"config.data.source={config.data.source} has no classes, which a classifier needs: set digits, or a set of tfds "
            "with a feature `label`"
        )


def build_classifier(config: ml_collections.ConfigDict, data: Data) -> Classifier:
    """Reads `classifier.file`, or trains a classifier on the clean training examples.

    Raises:
        UserError: the data have no classes, or the file is no classifier of such images.
    """
    check_labels(config, data)
    c = config.classifier
    with as_user_error("config.classifier"):
        if c.file:
            return classifiers.read(c.file, data.train.shape[1:])
        return classifiers.small_cnn(data.source.train, data.source.labels(), c.steps, config.evaluation.cache_dir)


def build_judged(config: ml_collections.ConfigDict, data: Data, count: int) -> Judged:
    """Returns at most `count` held-out examples, evenly spaced; training examples where none are held out.

    Raises:
        UserError: the data have no classes.
    """
    check_labels(config, data)
    if data.held_out is not None:
        examples, labels, words = data.held_out, data.held_out_labels(), "clean held-out examples"
    else:
        examples, labels = data.source.train, data.source.labels()
        words = "clean training examples, which the classifier has seen (set config.data.held_out for others)"
    chosen = pixels.evenly_spaced_indices(len(examples), count)
    return Judged(pixels.to_float(examples[chosen]), labels[chosen], f"{len(chosen):,} {words}")
