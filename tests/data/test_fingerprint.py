"""A fingerprint changes with the data, and the difference says what has changed."""

import json
import os

import numpy as np
import pytest

from advdiff_jax.data import arrays, fingerprint, folder, photos
from tests.data.files import encoded, noise


@pytest.fixture
def images(tmp_path):
    for seed in range(6):
        (tmp_path / f"{seed}.png").write_bytes(encoded(noise(seed=seed)))
    return tmp_path


def of(path):
    return json.loads(json.dumps(fingerprint.of(folder.image_folder(str(path), 32, 3))))  # as a run keeps it


def test_a_folder_is_known_by_names_sizes_and_times(images):
    before = of(images)
    assert before["count"] == 6
    assert fingerprint.difference(before, of(images)) == ""
    (images / "7.png").write_bytes(encoded(noise(seed=7)))
    (images / "0.png").unlink()
    (images / "1.png").write_bytes(encoded(noise(40, 40, seed=1)))
    os.utime(images / "2.png", (1, 1))
    said = fingerprint.difference(before, of(images))
    assert said == "1 added (7.png), 1 removed (0.png), 1 of another size (1.png), 1 changed since (2.png)"


def test_a_large_folder_is_compared_without_names(images, monkeypatch):
    monkeypatch.setattr(fingerprint, "LISTED", 3)
    before = of(images)
    assert "files" not in before
    os.utime(images / "2.png", (1, 1))
    assert fingerprint.difference(before, of(images)) == "the same numbers, other contents"
    (images / "0.png").unlink()
    assert fingerprint.difference(before, of(images)).startswith("count: 6 then, 5 now, bytes: ")


def test_arrays_are_known_by_shape_dtype_and_values(tmp_path):
    x = photos.photo_crops(8, 0, 8)
    before = fingerprint.of(x)
    assert (before["shape"], before["dtype"]) == ([8, 8, 8, 3], "uint8")
    np.save(tmp_path / "x.npy", x)
    assert fingerprint.of(arrays.image_array(str(tmp_path / "x.npy"), 8, 3)) == before
    other = x.copy()
    other[7, 7, 7, 2] ^= 1
    assert fingerprint.difference(before, fingerprint.of(other)) == "the same numbers, other contents"
    assert fingerprint.difference(before, fingerprint.of(x[:7])) == "shape: [8, 8, 8, 3] then, [7, 8, 8, 3] now"
    assert fingerprint.difference(before, fingerprint.of(x.astype(np.float32))) == "dtype: uint8 then, float32 now"


def test_a_large_array_is_sampled(monkeypatch):
    x = np.arange(4000, dtype=np.uint8).reshape(400, 10)
    monkeypatch.setattr(fingerprint, "SAMPLED", 1000)
    before = fingerprint.of(x)
    assert fingerprint.of(x.copy()) == before
    assert fingerprint.of(x[::-1]) != before
