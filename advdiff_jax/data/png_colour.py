"""The ICC profile that the chunks gAMA and cHRM of a PNG stand for: browsers show colours by them where there is no other.

gAMA is the exponent that encoded linear light, cHRM the chromaticities of white, red, green and blue (PNG specification,
third edition, 11.3.2 and 13.13).
"""

import struct
from collections.abc import Mapping
from typing import Any

import numpy as np

SRGB = (0.3127, 0.3290, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06)  # as in cHRM: white, red, green, blue, each x and y
_SRGB_GAMMA = 1 / 2.2
_TOLERANCE = 0.05  # libpng's for a gamma that counts as the screen's: most programs write 0.45455 and mean sRGB
_CLOSE = 0.01  # chromaticities that differ by less are rounded
_D50 = np.array([0.9642, 1.0, 0.8249])  # white of the profile connection space
_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])


def profile(info: Mapping[str, Any], is_grey: bool) -> bytes | None:
    """Returns the profile of a PNG, or None if its colours are sRGB.

    Args:
        info: Pillow's `info` of the opened file.
        is_grey: whether it has one channel of colour.

    Raises:
        ValueError: gAMA or cHRM make no sense; or LinAlgError, a subclass.
    """
    if "srgb" in info or "icc_profile" in info or not ("gamma" in info or "chromaticity" in info):
        return None
    gamma = info.get("gamma", _SRGB_GAMMA)
    corners = np.reshape(info.get("chromaticity", SRGB), (4, 2))
    is_srgb = bool(np.abs(corners - np.reshape(SRGB, (4, 2))).max() < _CLOSE) or is_grey
    if is_srgb and abs(gamma / _SRGB_GAMMA - 1.0) < _TOLERANCE:
        return None
    if not 0.1 <= gamma <= 5.0 or corners[:, 1].min() <= 0.0:
        raise ValueError(f"gAMA {gamma}, cHRM {corners.ravel()}")
    curve = b"para" + struct.pack(">IHHi", 0, 0, 0, round(65536 / gamma))
    if is_grey:
        return _written(b"GRAY", {b"wtpt": _xyz(_D50), b"kTRC": curve})
    columns = _to_d50(corners).T
    colorants = {name: _xyz(column) for name, column in zip((b"rXYZ", b"gXYZ", b"bXYZ"), columns, strict=True)}
    return _written(b"RGB ", {b"wtpt": _xyz(_D50), **colorants, **dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve)})


def _to_d50(corners):
    """Returns the matrix [3, 3] from linear RGB to XYZ, with its white adapted to D50 by Bradford's transform."""
    white, *primaries = (np.array([x / y, 1.0, (1.0 - x - y) / y]) for x, y in corners)
    columns = np.stack(primaries, axis=1)
    to_xyz = columns * np.linalg.solve(columns, white)
    scale = (_BRADFORD @ _D50) / (_BRADFORD @ white)
    return np.linalg.inv(_BRADFORD) @ np.diag(scale) @ _BRADFORD @ to_xyz


def _xyz(values):
    return b"XYZ " + struct.pack(">I3i", 0, *(round(65536 * value) for value in values))


def _written(space, tags):
    """Writes an ICC profile of version 4.2 (ICC.1:2004-10, 7): header, table of tags, tags."""
    table, body, start = b"", b"", 128 + 4 + 12 * len(tags)
    for name, tag in tags.items():
        table += struct.pack(">4sII", name, start + len(body), len(tag))
        body += tag + bytes(-len(tag) % 4)
    head = struct.pack(">I4xI4s4s4s12x4s", start + len(body), 0x04200000, b"mntr", space, b"XYZ ", b"acsp")
    head = head.ljust(68, b"\0") + struct.pack(">3i", *(round(65536 * value) for value in _D50))
    return head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body
