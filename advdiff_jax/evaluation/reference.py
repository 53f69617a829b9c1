"""Files of reference statistics: what samples are compared with, computed once, and exchanged with other programs.

pytorch-fid's files hold the moments `mu` and `sigma`; ADM's reference batches also hold the images, as `arr_0`. Files written
here hold `mu`, `sigma`, the number of images `count`, the name of the network `network` and the features `vectors`, which KID,
precision and recall need.
"""

import pathlib
import zipfile
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from advdiff_jax.errors import UserError
from advdiff_jax.evaluation.fidelity import Moments


class Reference(NamedTuple):
    """What samples are compared with.

    Attributes:
        moments: of the features; their count is 0 where a file does not say it.
        vectors: features [N, F]; None: the file holds the moments alone.
        images: uint8 [N, H, W, 3], whose features have to be taken; None: there are none.
        about: what it is, for a report.
    """

    moments: Moments
    vectors: np.ndarray | None
    images: np.ndarray | None
    about: str


def write(path: pathlib.Path, network: str, found: Moments, vectors: np.ndarray | None) -> None:
    """Writes a reference file, whole or not at all."""
    more = {} if vectors is None else {"vectors": vectors.astype(np.float32)}
    partial = path.with_name(path.name + ".partial")
    with partial.open("wb") as file:
        np.savez(file, mu=found.mean, sigma=found.covariance, count=found.count, network=network, **more)
    partial.replace(path)


def read(path: str, network: str, dimension: int) -> Reference:
    """Reads a reference file of ours, of pytorch-fid or of ADM.

    Args:
        path: an .npz file.
        network: name of the feature network, with which the file's is compared if it says it.
        dimension: number of its features.

    Raises:
        UserError: the file is missing, damaged, of another network, or holds neither moments nor images.
    """
    where = f"config.evaluation.reference={path!r}"
    try:
        with np.load(pathlib.Path(path).expanduser(), allow_pickle=False) as file:
            stored = {
                name: file[name] for name in ("mu", "sigma", "count", "network", "vectors", "arr_0") if name in file.files
            }
            names = file.files
    except (OSError, ValueError, zipfile.BadZipFile, EOFError, AttributeError) as error:
        reason = getattr(error, "strerror", None) or "it is no .npz file of arrays"
        raise UserError(f"{where} is unreadable ({reason}): set a file that --mode=reference wrote") from error
    if "mu" not in stored or "sigma" not in stored:
        raise UserError(f"{where} holds {_listed(names)}, and a reference needs mu and sigma: write one with --mode=reference")
    own = str(stored.get("network", network))
    if own != network or stored["mu"].shape != (dimension,) or stored["sigma"].shape != (dimension, dimension):
        has = f"features of {own}" if own != network else f"{stored['mu'].size} features"
        raise UserError(f"{where} holds {has}, and evaluation.features={network} has {dimension}: set that network's file")
    if not all(np.isfinite(stored[name]).all() for name in ("mu", "sigma")):
        raise UserError(f"{where} holds numbers that are not finite: write it again with --mode=reference")
    images, vectors = stored.get("arr_0"), stored.get("vectors")
    count = int(stored.get("count", 0 if images is None else len(images)))
    found = Moments(count, stored["mu"].astype(np.float64), stored["sigma"].astype(np.float64))
    said = f"{count:,}" if count else "an unknown number of"
    return Reference(found, vectors, images, f"{said} images of {pathlib.Path(path).name}")


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names) or "nothing"
