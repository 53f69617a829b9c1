"""Config -> what a trained model reads of the noise in each example: how badly it predicts noise that is added."""

import jax
import numpy as np

from advdiff_jax.data.pixels import Examples, to_float
from advdiff_jax.diffusion.model import Model
from advdiff_jax.evaluation import noise_levels
from advdiff_jax.noise import planted
from advdiff_jax.noise.measure import Reader, Readings

LEVELS = (0.1, 0.2, 0.4)  # sigma / alpha at which noise is added
DIMENSIONS = 1024  # dimensions x draws, at least: the sampling error of a reading falls with their square root
BLOCK = 256  # examples at a time, at most


def draws_of(shape: tuple[int, ...]) -> int:
    """Returns how many draws of noise each example of this shape needs at each level."""
    return max(1, -(-DIMENSIONS // int(np.prod(shape))))


def cost(count: int, draws: int) -> int:
    """Returns the network evaluations that measuring `count` examples takes; those with planted noise are read too."""
    return (count + planted.COUNT) * len(LEVELS) * draws


def affordable_draws(budget: float, count: int, shape: tuple[int, ...]) -> int:
    """Returns the draws that measuring `count` examples may take for `budget` network evaluations; 0: not one."""
    return min(draws_of(shape), int(budget // cost(count, 1)))


def build_reader(model: Model, shape: tuple[int, ...], seed: int, draws: int | None = None, block: int = BLOCK) -> Reader:
    """Builds the reader of a model: examples as stored [n, *shape] -> [n, levels]; `draws` are those of `draws_of` by default.

    A reading is u times the root mean square of eps_th - e, where e is added at the noise-to-signal ratio u. Of noise of std s,
    where the content is resolved, it is s for a model of the clean law, and s u / sqrt(s^2 + u^2) for one that has learnt the
    noise with the data. The network takes `block` examples at a time, at most BLOCK.
    """
    draws, block = draws or draws_of(shape), min(block, BLOCK)

    @jax.jit
    def missed(y):
        keys = jax.random.split(jax.random.key(seed), block)
        shares = [noise_levels.explained(model.schedule, model.denoise, keys, y, u, draws) for u in LEVELS]
        return jax.numpy.stack([u * jax.numpy.sqrt(1.0 - q) for u, q in zip(LEVELS, shares, strict=True)], axis=1)

    def read(examples):
        parts = []
        for start in range(0, len(examples), block):
            part = to_float(examples[np.arange(start, min(start + block, len(examples)))])
            padded = part[np.resize(np.arange(len(part)), block)]  # one shape is compiled
            parts.append(np.asarray(missed(padded))[: len(part)])
        return np.concatenate(parts)

    return read


def read_all(reader: Reader, examples: Examples) -> Readings:
    """Reads a whole data set, block by block."""
    return Readings(reader(examples), reader)
