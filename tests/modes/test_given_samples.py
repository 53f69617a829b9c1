"""Samples that someone else drew, through the command line's function: files, folders, and what is wrong with them."""

import json
import pathlib

import numpy as np
import pytest
from PIL import Image

from advdiff_jax.builders.data import build_data
from advdiff_jax.data import sources
from advdiff_jax.data.pixels import to_bytes, to_float
from advdiff_jax.errors import UserError
from advdiff_jax.evaluation import reference
from advdiff_jax.modes import evaluate, given_samples, sample_files
from advdiff_jax.modes import reference as reference_mode
from configs import digits

pytestmark = pytest.mark.usefixtures("unpainted")

MEASURES = (
    "fd",
    "kid",
    "inception_score",
    "precision_recall",
    "density_coverage",
    "noise_energy",
    "memorization",
    "likelihood",
)


def config_of(path, **values):
    config = digits.get_config("ddpm")
    config.evaluation.update({"samples": str(path), "metrics": MEASURES, "bootstrap": 2, **values})
    return config


def judged(path, workdir, **values):
    page = evaluate.run(config_of(path, **values), workdir)
    return json.loads(page.with_name("results.json").read_text()), page.read_text()


def test_one_set_is_read_alike_from_three_files_and_judged(tmp_path):
    """A perfect model has a small distance: these are clean digits. A model is not needed, and what needs one is named."""
    images = to_bytes(sources.digits().train[::2])
    sample_files.write_npz(tmp_path / "samples.npz", images)
    with np.load(tmp_path / "samples.npz") as stored:  # as ADM's evaluator reads it
        np.testing.assert_array_equal(stored["arr_0"], np.repeat(images, 3, axis=3))
    sample_files.write_pngs(tmp_path / "pngs", images)
    assert sorted(path.name for path in (tmp_path / "pngs").iterdir())[-1] == f"{len(images) - 1:06d}.png"
    np.save(tmp_path / "grey.npy", images)
    data = build_data(config_of(""))
    found = [given_samples.read(config_of(tmp_path / name), data) for name in ("samples.npz", "pngs", "grey.npy")]
    for read in found:
        np.testing.assert_array_equal(read, to_float(images))
    results, page = judged(tmp_path / "samples.npz", tmp_path / "out")
    assert results["fd_digits_cnn"] < 2.0
    assert results["inception_score"] > 8.0
    assert min(results[name] for name in ("precision", "recall", "coverage")) > 0.9
    assert results["near_duplicates"] == 0.0 or results["nn_distance_ratio"] < 1.0
    assert "bits_per_dimension" not in results
    assert "Left out, for want of the model: likelihood." in page
    assert "899 samples, against 1,797 clean images of the training set" in page


def test_a_reference_file_replaces_the_clean_images(tmp_path):
    np.save(tmp_path / "samples.npy", to_bytes(sources.digits().train[::4]))
    path = reference_mode.run(config_of(""), tmp_path)
    assert reference.read(str(path), "digits_cnn", 64).vectors.shape == (1797, 64)
    direct, _ = judged(tmp_path / "samples.npy", tmp_path / "a")
    by_file, page = judged(tmp_path / "samples.npy", tmp_path / "b", reference=str(path))
    assert by_file == pytest.approx(direct, rel=1e-6)
    assert "against 1,797 images of digits_cnn.npz" in page
    with np.load(path) as stored:
        np.savez(tmp_path / "moments.npz", mu=stored["mu"], sigma=stored["sigma"])
    moments, page = judged(tmp_path / "samples.npy", tmp_path / "c", reference=str(tmp_path / "moments.npz"))
    assert moments["fd_digits_cnn"] == pytest.approx(direct["fd_digits_cnn"], rel=1e-6)
    assert "kid_digits_cnn" not in moments
    assert "kid failed: kid needs features, and evaluation.reference holds moments alone." in page


def _mixed(folder):
    for i, side in enumerate((8, 8, 8, 9, 8)):
        Image.fromarray(np.full((side, side), 20 * i, np.uint8)).save(folder / f"{i}.png")


WRONG = {
    "absent": (lambda folder: folder.rmdir(), "is not a folder"),
    "empty": (lambda folder: None, "holds no images|has no images|no image"),
    "mixed": (_mixed, r"holds images of 2 sizes \(8x8, 9x9\): samples have one size"),
    "nan.npy": (lambda path: np.save(path, np.full((70, 8, 8, 1), np.nan)), "not finite"),
    "few.npy": (lambda path: np.save(path, np.arange(64 * 64).reshape(64, 8, 8, 1).astype(np.uint8)), "needs more samples"),
    "large.npy": (
        lambda path: np.save(path, np.arange(10 * 81).reshape(10, 9, 9).astype(np.uint8)),
        "holds no array of images",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_samples_are_one_line(name, tmp_path):
    make, line = WRONG[name]
    path = tmp_path / name
    if not pathlib.Path(name).suffix:
        path.mkdir()
    make(path)
    with pytest.raises(UserError, match=line) as error:
        evaluate.run(config_of(path), tmp_path / "out")
    assert "\n" not in str(error.value)
    assert "config.data.path" not in str(error.value)
