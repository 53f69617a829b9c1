"""JPEG files whose data are incomplete, which libjpeg fills with grey or noise without an error."""

import io
import re

import numpy as np
from PIL import Image

from advdiff_jax.errors import InvalidArgument

_HOLE = bytes(512)


def check_complete(data: bytes, image: Image.Image, thorough: bool) -> None:
    """Looks for data that are missing at the end or in the middle.

    Args:
        data: the file.
        image: its decoded image, before any conversion.
        thorough: also looks for holes, and at progressive files, which takes as long as decoding them again.

    Raises:
        InvalidArgument: the data end early or have a hole; the message says where.
    """
    is_progressive = bool(image.info.get("progressive"))
    corner = np.asarray(image.crop((max(0, image.width - 8), max(0, image.height - 8), *image.size)))
    is_suspicious = np.all((corner == 127) | (corner == 128)) or (thorough and is_progressive)
    may_have_hole = thorough and not is_progressive and _HOLE in data
    if not is_suspicious and not may_have_hole:
        return
    start, end = _scans(data)
    if start is None:
        return
    if may_have_hole and _HOLE in data[start:end] and not _zeros_are_flat(data[:start]):
        raise InvalidArgument(f"damaged: a hole of {len(_HOLE)} or more zero bytes in its data")
    if not is_suspicious:
        return
    # Bytes behind the end of complete data are skipped. Where they change pixels, data are missing.
    longer = data[:end] + _EXTRA + data[end:]
    try:
        other = Image.open(io.BytesIO(longer), formats=("JPEG",))
        other.load()
    except Exception:
        return
    rows = np.flatnonzero((np.asarray(other) != np.asarray(image)).reshape(image.height, -1).any(axis=1))
    if rows.size:
        raise InvalidArgument(f"truncated: its data end early, and the rows from {rows[0]} on are incomplete or grey")


def _scans(data):
    """Returns (start, end) of the compressed data of the first image in a JPEG file, tables between scans included."""
    at, start = 2, None
    while marker := _MARKER.search(data, at):
        at, code = marker.end(), data[marker.end() - 1]
        if code == 0xD9:
            return start, marker.start()
        length = int.from_bytes(data[at : at + 2], "big")
        if length < 2 or at + length > len(data):
            break
        at += length
        if code == 0xDA and start is None:
            start = at
    return None, None


def _zeros_are_flat(tables):
    """Says whether zero bits are the code of a flat block, which long runs of zero bytes may then be."""
    at = 2
    while marker := _MARKER.search(tables, at):
        at, code = marker.end(), tables[marker.end() - 1]
        length = int.from_bytes(tables[at : at + 2], "big")
        segment = tables[at + 2 : at + length]
        while code == 0xC4 and len(segment) > 17:
            if segment[0] >= 16 and segment[17] != 0:  # of AC coefficients; the first symbol has the code of zeros
                return False
            segment = segment[17 + sum(segment[1:17]) :]
        at += length
    return True


_MARKER = re.compile(rb"\xff+[^\x00\xd0-\xd8\xff]", re.DOTALL)
_EXTRA = bytes(np.random.default_rng(0).integers(1, 255, 64, dtype=np.uint8))
