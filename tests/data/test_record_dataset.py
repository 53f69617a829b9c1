"""Record datasets come back exactly, and damaged ones are named."""

import json
import pickle

import numpy as np
import pytest

from advdiff_jax.data import record_dataset
from advdiff_jax.errors import UserError


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_a_data_set_comes_back_exactly(tmp_path, dtype):
    x = np.random.default_rng(0).uniform(0, 200, (7, 4, 4, 1)).astype(dtype)
    path = tmp_path / "x.array_record"
    record_dataset.write(path, [x[:5], x[5:]], x.shape, {"made_from": "y"})
    found = record_dataset.RecordDataset(path)
    assert (found.shape, found.dtype, len(found), found.about["made_from"]) == (x.shape, x.dtype, 7, "y")
    for copy in (found, pickle.loads(pickle.dumps(found))):  # as a worker process opens it
        np.testing.assert_array_equal(copy[np.array([6, 0, 3])], x[[6, 0, 3]])
    assert sorted(file.name for file in tmp_path.iterdir()) == ["x.array_record", "x.array_record.json"]


def test_the_fingerprint_identifies_a_data_set(tmp_path):
    x = np.random.default_rng(0).integers(0, 256, (200, 3), dtype=np.uint8)
    path = tmp_path / "x.array_record"
    record_dataset.write(path, [x], x.shape, {})
    known = record_dataset.fingerprint(x)
    assert record_dataset.fingerprint(record_dataset.RecordDataset(path)) == known
    others = {record_dataset.fingerprint(other) for other in (x[::-1], x.astype(np.int16), x[:, None], x + 1)}
    assert len(others - {known}) == 4


def test_missing_and_damaged_files_are_named(tmp_path):
    path, description = tmp_path / "x.array_record", tmp_path / "x.array_record.json"
    with pytest.raises(UserError, match=r"x\.array_record' is not a record dataset .*set an \.array_record file"):
        record_dataset.RecordDataset(path)
    record_dataset.write(path, [np.zeros((3, 2), np.uint8)], (3, 2), {})
    description.write_text(json.dumps({"shape": [4, 2], "dtype": "|u1"}))
    with pytest.raises(UserError, match=r"holds 3 examples, but its \.json file says 4"):
        record_dataset.RecordDataset(path)
    description.write_text("{")
    with pytest.raises(UserError, match="is not a record dataset"):
        record_dataset.RecordDataset(path)


def test_a_full_disk_leaves_no_data_set(tmp_path):
    def chunks():
        yield np.zeros((3, 2), np.uint8)
        raise OSError(28, "No space left on device")

    with pytest.raises(UserError, match=r"writing .*x\.array_record failed \(No space left on device\): free some space"):
        record_dataset.write(tmp_path / "x.array_record", chunks(), (3, 2), {})
    assert list(tmp_path.iterdir()) == []
