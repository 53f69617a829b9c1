"""Image files that other packages ship: nothing is uncaught, and what is accepted equals a careful reader's pixels."""

import importlib.util
import pathlib

import numpy as np
import pytest

from advdiff_jax.data import decoding
from advdiff_jax.data.file_kinds import FORMATS, HEAD, kind_of
from advdiff_jax.errors import InvalidArgument
from tests.data import careful

LARGEST = 500_000  # bytes of a file; the larger photographs take seconds each


def files_of(package):
    folder = pathlib.Path(importlib.util.find_spec(package).origin).parent
    files = [file for file in sorted(folder.rglob("*")) if file.is_file() and file.stat().st_size <= LARGEST]
    for file in files:
        with file.open("rb") as opened:
            if kind_of(opened.read(HEAD)) in FORMATS:
                yield file


@pytest.mark.parametrize(("package", "least"), [("skimage", 20), ("sklearn", 2), ("matplotlib", 20)])
def test_files_of_packages_are_read_as_a_careful_reader_does(package, least):
    accepted = 0
    for file in files_of(package):
        data = file.read_bytes()
        try:
            found = decoding.decode(data, thorough=True)
        except InvalidArgument:
            continue
        expected = careful.read(data)
        if expected is not None:
            np.testing.assert_array_equal(np.asarray(found.image), expected, err_msg=str(file))
            accepted += 1
    assert accepted >= least
