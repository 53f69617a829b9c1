"""Small image files of many kinds, and damaged copies of them: bytes flipped, cut, moved and repeated at random."""

import io
import struct
import zlib
from collections.abc import Iterator

import numpy as np
from PIL import Image, PngImagePlugin

_COLOURS = PngImagePlugin.PngInfo()
_COLOURS.add(b"gAMA", struct.pack(">I", 100_000))
_COLOURS.add(b"cHRM", struct.pack(">8I", 31_270, 32_900, 64_000, 33_000, 21_000, 71_000, 15_000, 6_000))
_KINDS = (
    ("PNG", "RGB", {}),
    ("PNG", "RGBA", {}),
    ("PNG", "LA", {}),
    ("PNG", "L", {"transparency": 7}),
    ("PNG", "P", {"transparency": 1}),
    ("PNG", "1", {}),
    ("PNG", "I;16", {}),
    ("PNG", "RGB", {"save_all": True, "default_image": True}),
    ("JPEG", "RGB", {"quality": 90}),
    ("JPEG", "L", {"quality": 50, "optimize": True}),
    ("JPEG", "RGB", {"progressive": True}),
    ("JPEG", "CMYK", {}),
    ("WEBP", "RGB", {}),
    ("WEBP", "RGBA", {"lossless": True}),
    ("WEBP", "RGB", {"save_all": True}),
    ("GIF", "P", {}),
    ("GIF", "P", {"save_all": True, "transparency": 0}),
    ("BMP", "RGB", {}),
    ("BMP", "P", {}),
    ("TIFF", "RGB", {}),
    ("TIFF", "RGBA", {"compression": "tiff_lzw"}),
    ("TIFF", "L", {"compression": "tiff_adobe_deflate"}),
    ("TIFF", "I;16", {}),
    ("TIFF", "F", {}),
    ("TIFF", "CMYK", {"compression": "packbits"}),
    ("PNG", "RGB", {"pnginfo": _COLOURS}),
    ("PNG", "L", {"pnginfo": _COLOURS}),
    ("AVIF", "RGB", {}),
    ("JPEG2000", "RGB", {}),
    ("PPM", "RGB", {}),
    ("PPM", "L", {}),
)


def seeds() -> list[bytes]:
    """Returns a sound file of 8 to 32 pixels of each kind, half of them with an orientation, some with an ICC profile."""
    from PIL import ImageCms

    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    rng, files = np.random.default_rng(0), []
    for index, (kind, mode, options) in enumerate(_KINDS):
        frames = [_image(rng, mode) for _ in range(3)]
        more = {"append_images": [frame.resize(frames[0].size) for frame in frames[1:]]} if "save_all" in options else {}
        if kind in ("PNG", "JPEG", "WEBP", "TIFF") and index % 2:
            more["exif"] = Image.Exif()
            more["exif"][274] = 1 + index % 8
        if kind in ("PNG", "JPEG", "WEBP") and index % 3 == 0 and mode in ("RGB", "RGBA"):
            more["icc_profile"] = profile
        file = io.BytesIO()
        frames[0].save(file, kind, **options, **more)
        files.append(file.getvalue())
    return files


def _image(rng, mode):
    height, width = rng.integers(8, 33, 2)
    if mode == "F":
        return Image.fromarray(rng.uniform(0, 1, (height, width)).astype(np.float32))
    if mode == "I;16":
        return Image.fromarray(rng.integers(0, 65536, (height, width), dtype=np.uint16))
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)).convert(mode)


def mutated(count: int, seed: int = 0) -> Iterator[bytes]:
    """Yields damaged copies of the files of `seeds`, in turn."""
    files, rng = seeds(), np.random.default_rng(seed)
    for index in range(count):
        data = bytearray(files[index % len(files)])
        how = rng.integers(6)
        if how == 0:
            del data[rng.integers(len(data)) :]
        elif how == 1:
            start = rng.integers(len(data))
            del data[start : start + rng.integers(1, 64)]
        elif how == 2:
            start, length = rng.integers(len(data)), rng.integers(1, 64)
            data[start:start] = data[start : start + length]
        else:  # most damage to headers is in the first bytes
            reach = len(data) if how > 3 else min(len(data), 128)
            for at in rng.integers(reach, size=rng.integers(1, 9)):
                data[at] = rng.integers(256) if how % 2 else data[at] ^ (1 << rng.integers(8))
        yield _with_checksums(data) if data[:4] == b"\x89PNG" and index % 2 else bytes(data)


def _with_checksums(png):
    """Mends the checksum of each chunk of a PNG: otherwise damage goes no further than that."""
    at = 8
    while at + 12 <= len(png):
        end = at + 8 + int.from_bytes(png[at : at + 4], "big")
        if end + 4 > len(png):
            break
        png[end : end + 4] = struct.pack(">I", zlib.crc32(png[at + 4 : end]))
        at = end + 4
    return bytes(png)
