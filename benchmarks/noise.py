"""Measures how well the noise of each example is found: python -m benchmarks.noise [--dirt] [--sets photo_crops] [--json].

A seed changes the examples and their corruption. Photo crops and clothes are stored in 8 bits, digits as floats. With --dirt
the examples have other dirt than noise: what does the reading take it for?
"""

import gzip
import pathlib
from collections.abc import Sequence

import numpy as np

import benchmarks
from advdiff_jax.data import corruption, image_corruptions, photos, sources
from advdiff_jax.evaluation import foreign
from advdiff_jax.modes.noise import compared
from advdiff_jax.noise import measure

CLOTHES = pathlib.Path("/usr/share/datasets/fashion-mnist/train-images-idx3-ubyte.gz")  # of Debian's dataset-fashion-mnist
COUNT = 3000  # examples of a set, at most

# Row -> fraction of noisy examples, and their std, or the range of it.
SETTINGS = {
    "clean": (0.0, 0.1),
    "p=0.9 std=0.05": (0.9, 0.05),
    "p=0.9 std=0.1": (0.9, 0.1),
    "p=0.9 std=0.2": (0.9, 0.2),
    "p=0.9 std=0.05 to 0.4": (0.9, (0.05, 0.4)),
    "p=0.3 std=0.2": (0.3, 0.2),
    "p=1 std=0.05": (1.0, 0.05),
    "p=1 std=0.2": (1.0, 0.2),
}
# Row of --dirt -> corruption of 30 % of the examples.
DIRT = {
    "uniform_outlier": corruption.uniform_outlier(),
    "salt_and_pepper, 10 %": image_corruptions.salt_and_pepper(0.1),
    "missing_pixels, 10 %": image_corruptions.missing_pixels(0.1),
    "missing_pixels, 50 %": image_corruptions.missing_pixels(0.5),
    "missing_block, half a side": image_corruptions.missing_block(0.5),
    "blur, 1 pixel": image_corruptions.blur(1.0),
    "jpeg, quality 10": image_corruptions.jpeg(10),
}
DIRTY = 0.3
COLUMNS = ("auc", "clean_called_noisy", "noisy_called_clean", "std_over_truth", "rank_correlation")


def clothes(seed: int) -> np.ndarray:
    """Returns Fashion-MNIST's images of 28x28, another part of them for each seed."""
    with gzip.open(CLOTHES) as file:
        images = np.frombuffer(file.read()[16:], np.uint8).reshape(-1, 28, 28, 1)
    return images[seed * COUNT : (seed + 1) * COUNT]


SETS = {
    "clothes 28x28": clothes,
    "photo_crops 32x32": lambda seed: photos.photo_crops(COUNT, seed, 32),
    "photo_crops 16x16": lambda seed: photos.photo_crops(COUNT, seed, 16),
    "grey crops 32x32": lambda seed: photos.photo_crops(COUNT, seed, 32)[..., 1:2],
    "digits 8x8": lambda seed: sources.digits().train,
}


def numbers_of(clean: np.ndarray, fraction: float, std: float | tuple[float, float], seed: int) -> dict[str, float]:
    """Corrupts clean examples [N, H, W, C] as training sets are, measures them, and compares with the truth."""
    limits = std if isinstance(std, tuple) else (std, std)
    data = corruption.CorruptedDataset(clean, fraction, [corruption.gaussian_range(*limits)], seed)
    rows = np.arange(len(clean))
    seen, true = data.read(rows), data.noise_std(rows, corruption.gaussian_range_std(*limits))
    return compared(measure.measure(seen.x, seed), seen.is_corrupted, true)


def numbers_of_dirt(clean: np.ndarray, corrupt, seed: int) -> dict[str, float]:
    """Corrupts 30 % of clean examples [N, H, W, C], measures all, and compares with the truth."""
    seen = corruption.CorruptedDataset(clean, DIRTY, [corrupt], seed).read(np.arange(len(clean)))
    found = measure.measure(seen.x, seed)
    numbers = compared(found, seen.is_corrupted, None)
    named = {"dirty_called_noisy": 1.0 - numbers["noisy_called_clean"], "clean_called_noisy": numbers["clean_called_noisy"]}
    noisy = found.std[~found.is_clean]
    return {
        "auc": numbers["auc"],
        "auc_white": foreign.area(found.whiteness, seen.is_corrupted),
        **named,
        "std": float(np.median(noisy)) if len(noisy) else np.nan,
    }


def dirt_table(sets: Sequence[str], seeds: Sequence[int]) -> dict[str, dict[str, float]]:
    """Returns "set, dirt" -> mean and standard deviation over seeds, as `table` does; of `numbers_of_dirt`."""
    found = {}
    for name in sets:
        for dirt, corrupt in DIRT.items():
            found[f"{name}, {dirt}"] = _over_seeds([numbers_of_dirt(SETS[name](seed), corrupt, seed) for seed in seeds])
    return found


def _over_seeds(runs):
    row = {}
    for column in dict.fromkeys(name for run in runs for name in run):
        values = [run.get(column, np.nan) for run in runs]
        row |= {column: float(np.mean(values)), "±" + column[:8]: float(np.std(values, ddof=1))}
    return row


def table(sets: Sequence[str], seeds: Sequence[int]) -> dict[str, dict[str, float]]:
    """Returns "set, setting" -> mean and standard deviation over seeds of each of `COLUMNS`; NaN where there is none."""
    found = {}
    for name in sets:
        for setting, (fraction, std) in SETTINGS.items():
            runs = [numbers_of(SETS[name](seed), fraction, std, seed) for seed in seeds]
            found[f"{name}, {setting}"] = _over_seeds([{column: run.get(column, np.nan) for column in COLUMNS} for run in runs])
    return found


def main() -> None:
    """Prints the table."""
    parser = benchmarks.parser("noise", __doc__)
    parser.add_argument("--sets", nargs="+", default=tuple(SETS), help=f"some of: {', '.join(SETS)}; all by default")
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds, at least 2")
    parser.add_argument("--dirt", action="store_true", help="other dirt than noise")
    args = parser.parse_args()
    sets = [name for name in SETS if any(name.startswith(wanted) for wanted in args.sets)]
    if not CLOTHES.exists() and "clothes 28x28" in sets:
        print(f"{CLOTHES} is missing (apt-get install dataset-fashion-mnist): clothes are left out")
        sets.remove("clothes 28x28")
    benchmarks.show("noise", (dirt_table if args.dirt else table)(sets, range(args.seeds)), args.json)


if __name__ == "__main__":
    main()
