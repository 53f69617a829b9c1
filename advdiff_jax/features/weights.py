"""Weights of feature networks from a file that the user names: a path, or a URL with its SHA-256."""

import contextlib
import hashlib
import http.client
import logging
import os
import pathlib
import re
import shutil
import urllib.request
from collections.abc import Mapping

import numpy as np

from advdiff_jax import cache
from advdiff_jax.errors import InvalidArgument

log = logging.getLogger(__name__)

TIMEOUT = 60  # seconds without an answer after which a download has failed


def locate(weights: str, sha256: str = "", cache_dir: str = "") -> pathlib.Path:
    """Returns the file of weights; downloads a URL once, into the cache.

    Args:
        weights: a path, or a URL of http or https.
        sha256: 64 hexadecimal digits, which the file must have; "": a path is not checked, and a URL is refused.
        cache_dir: folder of downloads; empty: `cache.directory`.

    Raises:
        InvalidArgument: no file is named, it is missing, it has another SHA-256, or the download fails.
    """
    if not weights:
        raise InvalidArgument("weights='' names no file: set weights to its path, or to a URL with weights_sha256")
    if sha256 and not re.fullmatch(r"[0-9a-fA-F]{64}", sha256):
        raise InvalidArgument(f"weights_sha256={sha256!r} is not a SHA-256: set its 64 hexadecimal digits")
    if re.match(r"https?://", weights):
        if not sha256:
            raise InvalidArgument(f"weights={weights} is a URL: set weights_sha256 to the SHA-256 of its file")
        return _downloaded(weights, sha256.lower(), pathlib.Path(cache_dir or cache.directory()))
    path = pathlib.Path(os.path.expanduser(weights)).absolute()
    if not path.is_file():
        raise InvalidArgument(f"weights={weights} is not a file: set weights to the path of a file, or to a URL")
    if sha256:
        _check_digest(path, weights, sha256.lower())
    return path


def _check_digest(path, weights, wanted):
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InvalidArgument(f"weights={weights} cannot be read ({error.strerror}): name another file") from error
    if found != wanted:
        raise InvalidArgument(f"weights={weights} has the SHA-256 {found}, not {wanted}: fetch it again, or set weights_sha256")


def _downloaded(url, sha256, folder):
    path = folder / f"{sha256[:12]}-{re.split('[?#]', url)[0].rpartition('/')[2]}"
    if path.is_file():
        try:
            _check_digest(path, url, sha256)
            return path
        except InvalidArgument:
            log.warning("%s is damaged: it is downloaded again", path)
    partial = path.with_name(f"{path.name}.{os.getpid()}")
    log.info("downloads %s to %s", url, path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with urllib.request.urlopen(url, timeout=TIMEOUT) as source, partial.open("wb") as file:
            shutil.copyfileobj(source, file)
        _check_digest(partial, url, sha256)
        partial.replace(path)  # whole or not at all: several runs may share the cache
    except InvalidArgument:
        raise
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = " ".join(str(error).split())[:120]
        raise InvalidArgument(f"weights={url} is not downloaded ({reason}): fetch it, and set weights to its path") from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink()
    return path


def check_fits(
    network: str, tensors: Mapping[str, np.ndarray], shapes: Mapping[str, tuple[int, ...]], unused: str = r"(?!)"
) -> None:
    """Checks that the tensors of a file are those of a network.

    Args:
        network: its name in words, for the message.
        tensors: name -> array.
        shapes: name -> shape of every tensor that the network needs.
        unused: regular expression of names that the file may hold besides.

    Raises:
        InvalidArgument: a tensor is missing, misshapen, not finite or unknown; the message names the first.
    """
    for name, shape in shapes.items():
        if name not in tensors:
            raise InvalidArgument(f"these are not weights of {network}: {name} is missing")
        if tensors[name].shape != tuple(shape):
            found = list(tensors[name].shape)
            raise InvalidArgument(f"these are not weights of {network}: {name} has the shape {found}, not {list(shape)}")
        if not np.all(np.isfinite(tensors[name])):
            raise InvalidArgument(f"the weights of {network} are damaged: {name} holds numbers that are not finite")
    for name in tensors:
        if name not in shapes and not re.search(unused, name):
            raise InvalidArgument(f"these are not weights of {network}: {name} is not in that network")
