"""Image files by hand, for tests: flat quarters, noise, PNG files chunk by chunk, ICC profiles."""

import io
import struct
import zlib

import numpy as np
from PIL import Image

SIDE = 32


def quarters(width: int = SIDE, height: int = SIDE) -> np.ndarray:
    """Returns four flat quarters: red (top left), green (top right), blue (bottom left), grey (bottom right)."""
    x = np.full((height, width, 3), 90, np.uint8)
    x[: height // 2, : width // 2] = 255, 0, 0
    x[: height // 2, width // 2 :] = 0, 255, 0
    x[height // 2 :, : width // 2] = 0, 0, 255
    return x


def noise(width: int = SIDE, height: int = SIDE, channels: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8).squeeze()


def ramp(dtype, largest: float, side: int = SIDE) -> np.ndarray:
    """Returns [side, side], from 0 (left) to `largest` (right)."""
    return np.tile(np.linspace(0, largest, side).astype(dtype), (side, 1))


def encoded(image: np.ndarray | Image.Image, kind: str = "PNG", **options) -> bytes:
    file = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(file, kind, **options)
    return file.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, depth: int, colour: int, rows: list[bytes], *extra: tuple[bytes, bytes]) -> bytes:
    """Writes a PNG file: rows are the bytes of one line each, extra are (kind, data) of chunks before the pixels."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row for row in rows))
    chunks = [(b"IHDR", header), *extra, (b"IDAT", pixels), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*each) for each in chunks)


def gamma_profile(gamma: float, space: str = "RGB ") -> bytes:
    """Writes an ICC profile (version 2) of grey, or of RGB with sRGB's primaries, whose value v is the light v^gamma."""
    curve = b"curv" + bytes(4) + struct.pack(">IH", 1, round(gamma * 256)) + bytes(2)
    xyz = lambda *values: b"XYZ " + bytes(4) + struct.pack(">iii", *(round(value * 65536) for value in values))
    text = b"desc" + bytes(4) + struct.pack(">I", 5) + b"test\0" + bytes(78)
    tags = {b"desc": text, b"cprt": b"text" + bytes(4) + b"none\0", b"wtpt": xyz(0.9642, 1.0, 0.8249)}
    if space == "RGB ":
        # sRGB's primaries, adapted to D50 (IEC 61966-2-1, Bradford).
        tags |= {
            b"rXYZ": xyz(0.4360, 0.2225, 0.0139),
            b"gXYZ": xyz(0.3851, 0.7169, 0.0971),
            b"bXYZ": xyz(0.1431, 0.0606, 0.7139),
        }
        tags |= {b"rTRC": curve, b"gTRC": curve, b"bTRC": curve}
    else:
        tags |= {b"kTRC": curve}
    start, table, body = 128 + 4 + 12 * len(tags), b"", b""
    for name, data in tags.items():
        data += bytes(-len(data) % 4)
        table += struct.pack(">4sII", name, start + len(body), len(data))
        body += data
    size = start + len(body)
    header = struct.pack(">I4sI4s4s4s", size, bytes(4), 0x02100000, b"mntr", space.encode(), b"XYZ ")
    header += struct.pack(">6H", 2026, 1, 1, 0, 0, 0) + b"acsp" + bytes(28) + struct.pack(">iii", 63190, 65536, 54061)
    return header.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body


def srgb_encode(light: np.ndarray) -> np.ndarray:
    """Returns the levels 0..255 of sRGB for light in [0, 1] (IEC 61966-2-1)."""
    light = np.asarray(light, np.float64)
    return 255 * np.where(light <= 0.0031308, 12.92 * light, 1.055 * np.maximum(light, 1e-9) ** (1 / 2.4) - 0.055)
