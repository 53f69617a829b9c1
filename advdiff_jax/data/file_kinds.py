"""Recognises a file by its first bytes: the image formats that are read, those that are not, archives, arrays, the rest."""

import re

HEAD = 264  # bytes of a file that `kind_of` looks at

# Pillow's names of the formats that are decoded; Pillow recognises some twenty more, of which several are easily confused.
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM")
READABLE = "PNG, JPEG, WebP, GIF, BMP, TIFF, AVIF, JPEG 2000 or PPM"
SUFFIXES = (
    *(".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".webp", ".gif", ".bmp", ".dib", ".tif", ".tiff", ".avif"),
    *(".jp2", ".j2k", ".jpx", ".ppm", ".pgm", ".pbm", ".pnm", ".pfm"),
)
# Raw files of cameras are TIFF files, of which Pillow decodes the thumbnail.
RAW_SUFFIXES = (".cr2", ".nef", ".nrw", ".arw", ".dng", ".orf", ".rw2", ".pef", ".srw", ".raf", ".cr3")

_PATTERNS = (
    ("PNG", rb"\x89PNG\r\n\x1a\n"),
    ("JPEG", rb"\xff\xd8\xff"),
    ("GIF", rb"GIF8[79]a"),
    ("WEBP", rb"RIFF....WEBP"),
    ("camera raw", rb"(II\*\0....CR|FUJIFILMCCD-RAW|IIRO|IIU\0)"),
    ("TIFF", rb"(II[*+]\0|MM\0[*+])"),
    ("BMP", rb"BM.{12}[\x0c\x10\x28\x34\x38\x40\x6c\x7c]\0\0\0"),
    ("AVIF", rb"....ftyp(avif|avis)"),
    ("HEIC", rb"....ftyp(hei[cxms]|hev[cxms])"),
    ("AVIF", rb"....ftyp(mif1|msf1|miaf).{4,48}(avif|avis)"),
    ("HEIC", rb"....ftyp(mif1|msf1|miaf)"),
    ("JPEG2000", rb"(\0\0\0\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51)"),
    ("JPEG XL", rb"(\0\0\0\x0cJXL |\xff\x0a)"),
    ("PPM", rb"P[1-6fF][\s#]"),
    ("Photoshop", rb"8BPS"),
    ("DDS", rb"DDS "),
    ("icon", rb"\0\0[\x01\x02]\0[^\0]"),
    ("OpenEXR", rb"v/1\x01"),
    ("Radiance", rb"#\?RADIANCE"),
    ("QOI", rb"qoif"),
    ("video", rb"(....ftyp|\x1a\x45\xdf\xa3|RIFF....AVI )"),
    ("AppleDouble", rb"\0\x05\x16[\0\x07]"),
    ("zip", rb"PK(\x03\x04|\x05\x06)"),
    ("tar", rb".{257}ustar"),
    ("gzip", rb"\x1f\x8b"),
    ("bzip2", rb"BZh[1-9]"),
    ("xz", rb"\xfd7zXZ\0"),
    ("zstd", rb"\x28\xb5\x2f\xfd"),
    ("7z", rb"7z\xbc\xaf\x27\x1c"),
    ("rar", rb"Rar!"),
    ("NumPy array", rb"\x93NUMPY"),
    ("HDF5", rb"\x89HDF\r\n\x1a\n"),
    ("MATLAB", rb"MATLAB 5.0"),
    ("Parquet", rb"PAR1"),
    ("Arrow", rb"ARROW1"),
    ("SQLite", rb"SQLite format 3"),
    ("Python pickle", rb"\x80[\x02-\x05]"),
    ("PDF", rb"%PDF"),
    ("Git LFS pointer", rb"version https://git-lfs"),
    ("git-annex pointer", rb"/annex/objects/"),
    ("HTML", rb"\s*<(?i:!DOCTYPE html|html|head)"),
    ("SVG", rb"\s*<(svg|\?xml.{0,60}<svg)"),
    ("XML", rb"\s*<\?xml"),
)
_COMPILED = tuple((kind, re.compile(pattern, re.DOTALL)) for kind, pattern in _PATTERNS)
PHOTOGRAPHS = ("HEIC", "JPEG XL", "camera raw")  # formats of photographs that Pillow does not decode

# What to do with a file that holds images but is no image.
REMEDIES = {
    "HEIC": "convert it to JPEG or PNG",
    "JPEG XL": "convert it to JPEG or PNG",
    "camera raw": "develop it to JPEG, PNG or TIFF",
    "gzip": "a compressed archive has no random access: unpack it",
    "bzip2": "a compressed archive has no random access: unpack it",
    "xz": "a compressed archive has no random access: unpack it",
    "zstd": "a compressed archive has no random access: unpack it",
    "zip": "unpack it",  # in another archive, or under an image's name
    "tar": "unpack it",
    "7z": "unpack it",
    "rar": "unpack it",
    "Git LFS pointer": "fetch its content: git lfs pull",
    "git-annex pointer": "fetch its content: git annex get",
    "NumPy array": "set --config.data.source=array and its path",
    "HDF5": "save its images as an .npy file: np.save(FILE, h5py.File(NAME)[KEY][:])",
    "MATLAB": "save its images as an .npy file: np.save(FILE, scipy.io.loadmat(NAME)[KEY])",
    "Parquet": "write its images to files first",
    "Arrow": "write its images to files first",
    "Python pickle": "save its images as an .npy file: np.save(FILE, ARRAY)",
}


def kind_of(head: bytes) -> str:
    """Names the kind of a file: one of FORMATS, another known kind, "empty", "text" or "unknown".

    Args:
        head: its first HEAD bytes, or all.
    """
    if not head:
        return "empty"
    for kind, pattern in _COMPILED:
        if pattern.match(head):
            return kind
    text = head[:HEAD].decode("utf-8", "ignore")
    is_text = len(text.encode()) >= min(len(head), HEAD) - 3 and all(c.isprintable() or c.isspace() for c in text)
    return "text" if is_text else "unknown"


def shown(name: str) -> str:
    """Returns a name for messages: as it is, or with escapes if a terminal or a log would not show it in one line."""
    return name if name.isprintable() else repr(name)
