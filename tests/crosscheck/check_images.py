"""Pillow's own test images, some 700 of them, many damaged on purpose: no exception but ours, and a careful reader's pixels.

`make crosscheck` fetches them: they are in Pillow's source distribution, and PILLOW_SDIST names the file.
"""

import collections
import os
import tarfile
import warnings

import numpy as np
import pytest

from advdiff_jax.data import decoding
from advdiff_jax.data.file_kinds import FORMATS, HEAD, kind_of
from advdiff_jax.errors import InvalidArgument
from tests.data import careful


def images():
    with tarfile.open(os.environ["PILLOW_SDIST"]) as archive:
        for member in archive:
            if member.isfile() and "/Tests/images/" in member.name:
                yield member.name.partition("/Tests/images/")[2], archive.extractfile(member).read()


@pytest.mark.skipif("PILLOW_SDIST" not in os.environ, reason="PILLOW_SDIST names no source distribution of Pillow")
def test_pillows_test_images():
    counts = collections.Counter()
    for name, data in images():
        try:
            found = decoding.decode(data, thorough=True)
        except InvalidArgument as error:
            counts["another kind of file" if kind_of(data[:HEAD]) not in FORMATS else "refused"] += 1
            print(f"{name}: {error}")
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            expected = careful.read(data)
        if expected is None:
            counts["values without a fixed range"] += 1
            continue
        np.testing.assert_array_equal(np.asarray(found.image), expected, err_msg=name)
        counts["same pixels"] += 1
        counts.update(found.notes)
    print(dict(counts))
    assert counts["same pixels"] > 400
    assert counts["refused"] < 100
