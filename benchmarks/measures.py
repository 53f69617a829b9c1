"""Draws what each measure of samples sees in clean data: added noise, blur and lost modes: python -m benchmarks.measures.

One half of a clean set is the reference. The other half is damaged and measured; undamaged, it gives the floor of a measure.
"""

import pathlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

import ml_collections
import numpy as np
import scipy.ndimage
from matplotlib.figure import Figure
from sklearn.cluster import KMeans

import benchmarks
from advdiff_jax.builders.features import FEATURES
from advdiff_jax.data import photos, pixels, sources
from advdiff_jax.evaluation.fidelity import frechet_distance, noise_energy
from advdiff_jax.features.network import FeatureNetwork, extract

PAGE = pathlib.Path(__file__).parents[1] / "docs" / "measures.png"
NOISE, BLUR, LOST = (0.0, 0.05, 0.1, 0.2, 0.4), (0.0, 0.25, 0.5, 1.0, 1.5), (0, 1, 2, 4, 8)
SPLITS = 2  # random halves, over which a point is the mean
GROUPS = 10  # modes of a set
DIRECTIONS = 0.4  # share of the directions that noise_energy takes as quiet; 24 of 64, about as many, in configs/digits.py


class Set(NamedTuple):
    """Clean images [N, H, W, C] as floats, and the mode of each, 0 to 9, [N]."""

    images: np.ndarray
    groups: np.ndarray


def digits() -> Set:
    """Returns scikit-learn's digits; a mode is a digit."""
    return Set(sources.digits().train, sources.digit_labels())


def photo_crops(count: int = 1200) -> Set:
    """Returns colour crops of 16 x 16 pixels; a mode is a cluster of k-means, because crops have no labels."""
    images = pixels.to_float(photos.photo_crops(count, 0, 16))
    small = images.reshape(count, 8, 2, 8, 2, 3).mean(axis=(2, 4)).reshape(count, -1)
    return Set(images, KMeans(GROUPS, n_init=1, random_state=0).fit_predict(small))


SETS = {"digits": digits, "photo_crops": photo_crops}


def noisy(rng: np.random.Generator, data: Set, std: float) -> np.ndarray:
    """Adds noise of this std, in the data's units, unclipped."""
    return (data.images + std * rng.standard_normal(data.images.shape)).astype(np.float32)


def blurred(rng: np.random.Generator, data: Set, std: float) -> np.ndarray:
    """Blurs with a Gaussian of this std in pixels."""
    return scipy.ndimage.gaussian_filter(data.images, (0, std, std, 0))


def without_modes(rng: np.random.Generator, data: Set, lost: int) -> np.ndarray:
    """Leaves out this number of modes, and draws the other images again, so that their number does not change."""
    kept = np.flatnonzero(data.groups >= lost)
    return data.images[np.sort(rng.choice(kept, len(data.images)))] if lost else data.images


DAMAGES: dict[str, tuple[Callable, tuple, str]] = {
    "noise": (noisy, NOISE, "std of added noise"),
    "blur": (blurred, BLUR, "std of the blur, pixels"),
    "lost modes": (without_modes, LOST, f"modes lost, of {GROUPS}"),
}


Measure = Callable[[np.ndarray, dict], dict]  # (reference, name -> images) -> name -> value


def frechet(network: FeatureNetwork) -> Measure:
    """Builds the Frechet distance to the reference in the features of a network."""

    def vectors(images):
        return extract(network, images).vectors

    def compute(reference, sets):
        features = vectors(reference)
        return {name: frechet_distance(vectors(images), features) for name, images in sets.items()}

    return compute


def measures_of(data: Set, features: Sequence[str], cache_dir: str = "") -> dict[str, Measure]:
    """Returns the measures by name: FD in those of the named networks that take these images, and noise energy."""
    shape = data.images.shape[1:]
    section = ml_collections.ConfigDict({"cache_dir": cache_dir})
    networks = {name: FEATURES[name].build(section) for name in features if FEATURES[name].shape in (None, shape)}
    quiet = int(DIRECTIONS * np.prod(shape))
    energy = {"noise_energy": lambda reference, sets: noise_energy(sets, reference, quiet)}
    return {f"fd_{name}": frechet(network) for name, network in networks.items()} | energy


def measure(data: Set, features: Sequence[str], splits: int = SPLITS) -> dict[str, dict[str, list[list[float]]]]:
    """Computes measure -> damage -> values [strength][split]."""
    measures = measures_of(data, features)
    found = {name: {damage: [[] for _ in row[1]] for damage, row in DAMAGES.items()} for name in measures}
    for split in range(splits):
        rng = np.random.default_rng(split)
        order = rng.permutation(len(data.images))
        half = Set(data.images[order[1::2]], data.groups[order[1::2]])
        sets = {
            (damage, i): apply(rng, half, strength)
            for damage, (apply, strengths, _) in DAMAGES.items()
            for i, strength in enumerate(strengths)
        }
        # The undamaged half is the first of every damage, and is measured once.
        distinct = {key: images for key, images in sets.items() if key[1]} | {"undamaged": half.images}
        for name, compute in measures.items():
            values = compute(data.images[order[::2]], distinct)
            for damage, i in sets:
                found[name][damage][i].append(values[damage, i] if i else values["undamaged"])
    return found


def draw(found: dict[str, dict[str, dict[str, list[list[float]]]]]) -> Figure:
    """Draws set -> `measure`: a row per measure and set, a column per damage; the floor is a dashed line."""
    rows = [(data, name, table) for data, measures in found.items() for name, table in measures.items()]
    figure = Figure(figsize=(9.5, 2.1 * len(rows)), dpi=100, layout="constrained")
    for axes_row, (data, name, table) in zip(figure.subplots(len(rows), len(DAMAGES), squeeze=False), rows, strict=True):
        floor = np.mean(table["noise"][0])
        means = [np.mean(values) for damage in table.values() for values in damage]
        # A Frechet distance spans decades; the energy is an amount of noise.
        spans = name.startswith("fd_")
        limits = (0.5 * min(means), 2.0 * max(means)) if spans else (0.0, 1.1 * max(means))
        for axes, (damage, (_, strengths, label)) in zip(axes_row, DAMAGES.items(), strict=True):
            values = np.array(table[damage])
            axes.errorbar(strengths, values.mean(axis=1), values.std(axis=1), marker="o", markersize=4, capsize=2)
            axes.axhline(floor, color="black", linestyle="--", linewidth=1)
            axes.set(xlabel=label, yscale="log" if spans else "linear", ylim=limits)
            axes.grid(alpha=0.3)
        axes_row[0].set_ylabel(f"{name}\n{data.replace('_', ' ')}")
    return figure


def table_of(found: dict) -> dict[str, dict[str, float]]:
    """Returns "set, measure, damage" -> strength -> mean over the splits, strengths counted from the undamaged half."""
    return {
        f"{data}, {name}, {damage}": {f"strength {i}": float(np.mean(values)) for i, values in enumerate(rows)}
        for data, measures in found.items()
        for name, table in measures.items()
        for damage, rows in table.items()
    }


def main() -> None:
    """Prints the table, and draws docs/measures.png, or what --out names."""
    parser = benchmarks.parser("measures", __doc__)
    parser.add_argument("--out", type=pathlib.Path, default=PAGE, help="the picture")
    free = [name for name, spec in FEATURES.items() if not spec.needs_file]
    parser.add_argument("--features", nargs="+", choices=free, default=free, help="networks; all that need no file by default")
    args = parser.parse_args()
    found = {name: measure(load(), args.features) for name, load in SETS.items()}
    draw(found).savefig(args.out)
    benchmarks.show("measures", table_of(found), args.json)


if __name__ == "__main__":
    main()
