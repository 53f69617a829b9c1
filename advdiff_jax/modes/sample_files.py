"""Samples as files that other programs read: samples.npz for ADM's evaluator and torch-fidelity, and numbered PNGs."""

import pathlib
import shutil
import zipfile
from collections.abc import Sequence

import numpy as np
from PIL import Image

from advdiff_jax.data import pixels

CHUNK = 1024  # images in memory at once


def write_npz(path: pathlib.Path, samples: pixels.Examples) -> None:
    """Writes images [N, H, W, C], stored as uint8, as the array `arr_0` of an .npz file, whole or not at all.

    It is written part by part: a set may be larger than the memory. Grey images become [N, H, W, 3], because readers of such
    files expect colour.
    """
    count, height, width, _ = samples.shape
    header = {"descr": "|u1", "fortran_order": False, "shape": (count, height, width, 3)}
    partial = path.with_name(path.name + ".partial")
    with zipfile.ZipFile(partial, "w") as archive, archive.open("arr_0.npy", "w", force_zip64=True) as file:
        np.lib.format.write_array_header_1_0(file, header)
        for start in range(0, count, CHUNK):
            file.write(_colour(_bytes(samples, start)).tobytes())
    partial.replace(path)


def write_pngs(folder: pathlib.Path, samples: pixels.Examples, names: Sequence[str] | None = None) -> None:
    """Writes images [N, H, W, C] as 000000.png and so on, or as NAME.png; what the folder held before is removed."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for start in range(0, len(samples), CHUNK):
        for index, image in enumerate(_bytes(samples, start), start):
            Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(
                folder / f"{names[index] if names else f'{index:06d}'}.png"
            )


def _bytes(samples, start):
    part = samples[np.arange(start, min(start + CHUNK, len(samples)))]
    return pixels.as_stored(pixels.to_float(part), np.dtype(np.uint8))


def _colour(images):
    return np.ascontiguousarray(np.broadcast_to(images, (*images.shape[:3], 3)))
