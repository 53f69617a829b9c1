"""Raw archives that a user downloaded by hand: compared with TFDS's own list of sizes and SHA-256 before one is read."""

import hashlib
import logging
import pathlib
from collections.abc import Mapping
from typing import Any

from advdiff_jax.data.file_kinds import HEAD, kind_of
from advdiff_jax.data.listing import os_reason
from advdiff_jax.errors import UserError

log = logging.getLogger(__name__)

_LARGE = 2**30  # bytes of a file whose hashing is announced


def check(folder: pathlib.Path, known: Mapping[str, Any]) -> None:
    """Compares archives with what is known of them: first all sizes, then all checksums.

    Args:
        folder: the folder of the archives.
        known: name -> TFDS's `UrlInfo`, with `size` in bytes and `checksum`, SHA-256 in hexadecimal.

    Raises:
        UserError: an archive has another size or checksum; the message names it and says what it is.
    """
    for name, info in known.items():
        size, path = _size(folder / name), folder / name
        if size != info.size:
            raise UserError(
                f"{path} is not the archive that TFDS knows: it has {size:,} bytes of {int(info.size):,}{_what(path)}; "
                "download it again, or set --config.data.check_archives=False if it is another edition"
            )
    for name, info in known.items():
        path = folder / name
        if info.size > _LARGE:
            log.info("comparing the SHA-256 of %s, %.1f GB", path, info.size / 1e9)
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != info.checksum:
            raise UserError(
                f"{path} is damaged: its SHA-256 is {found[:12]}..., and TFDS knows {info.checksum[:12]}...; download it "
                "again, or set --config.data.check_archives=False if it is another edition"
            )


def _size(path):
    try:
        return path.stat().st_size
    except OSError as error:
        raise UserError(f"{path} is unreadable ({os_reason(error)}): set another --config.data.manual_dir") from error


def _what(path):
    with path.open("rb") as file:
        kind = kind_of(file.read(HEAD))
    return {"HTML": ", a web page: the download was refused or asks for a confirmation", "empty": ""}.get(kind, "")
