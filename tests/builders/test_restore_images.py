"""What a person names for `--mode=restore`: images, masks, kernels, noise; and mistakes, one line each."""

import numpy as np
import pytest
from PIL import Image

from advdiff_jax.builders.data import build_data
from advdiff_jax.builders.process import build_process
from advdiff_jax.builders.restore_images import build_restoration
from advdiff_jax.builders.validate import resolve
from advdiff_jax.data import photos
from advdiff_jax.errors import UserError
from advdiff_jax.modes import MODES
from configs import image_folder

SIDE, COUNT, STD = 16, 6, 0.2
CROPS = photos.photo_crops(COUNT, 0, SIDE)
KNOWN = np.ones((SIDE, SIDE), np.uint8)
KNOWN[4:9, 2:12] = 0


def save(folder, images):
    folder.mkdir()
    for i, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{i:03d}.png")
    return folder


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """Folders of images: clean, dirty, with alpha; of masks; an empty one; files of a kernel and of operators."""
    root = tmp_path_factory.mktemp("album")
    rng = np.random.default_rng(0)
    noisy = [np.clip(np.rint(x + 127.5 * STD * rng.standard_normal(x.shape)), 0, 255).astype(np.uint8) for x in CROPS]
    save(root / "clean", CROPS)
    save(root / "dirty", noisy)
    save(root / "alpha", [np.dstack([x, 255 * KNOWN]) for x in noisy])
    save(root / "masks", [255 * KNOWN] * COUNT)
    save(root / "small", [255 * KNOWN[:8]] * COUNT)
    save(root / "one", noisy[:1])
    (root / "empty").mkdir()
    np.save(root / "kernel.npy", np.full((3, 3), 1 / 9))
    np.save(root / "even.npy", np.full((4, 3), 1 / 12))
    half = np.random.default_rng(1).random((SIDE, SIDE)) < 0.5
    half[0, 0] = True
    shifted = half | np.roll(half[::-1, ::-1], (1, 1), (0, 1))
    Image.fromarray(255 * np.fft.fftshift(shifted).astype(np.uint8)).save(root / "k.png")
    (root / "sum.py").write_text("def forward(x):\n    return x + x[:, ::-1]\n")
    (root / "clip.py").write_text("import jax.numpy as jnp\n\n\ndef forward(x):\n    return jnp.clip(x, -1, 1)\n")
    (root / "wrong.py").write_text("def forward(x):\n    return x\n\n\ndef adjoint(y):\n    return 3 * y\n")
    (root / "numpy.py").write_text("import numpy\n\n\ndef forward(x):\n    return numpy.fft.fft(x).real\n")
    (root / "broken.py").write_text("1 / 0\n")
    np.save(root / "bytes.npy", np.fft.fftshift(shifted).astype(np.uint8))
    return root


def restoration(places, operator="noise", images="dirty", clean="", file="", noise_std=STD, **values):
    config = image_folder.get_config("ddpm")
    config.data.update({"source": "photo_crops", "num_examples": 300, "size": SIDE, "noise_std": STD, "fraction": 0.9})
    config.data.update({"storage": "uint8", "cache_dir": str(places / "cache")})
    named = {"images": images, "clean": clean, "file": file}
    found = {key: str(places / value) if value not in ("", "held_out") else value for key, value in named.items()}
    config.restore.update({**found, "operator": operator, "noise_std": noise_std})
    config.update_from_flattened_dict(values)
    config.train.batch_size = 8
    config = resolve(config, [], MODES, "restore")
    return build_restoration(config, build_data(config), build_process(config).schedule)


def test_images_find_their_clean_ones_and_their_noise(places, caplog):
    found = restoration(places, clean="clean", noise_std="measured")
    assert "training examples are noisy" not in caplog.text  # a tenth is clean
    assert found.names == [f"{i:03d}" for i in range(COUNT)]
    np.testing.assert_allclose(found.clean, CROPS / 127.5 - 1.0, atol=1e-6)
    assert found.problem.std == pytest.approx(STD, rel=0.35)  # images of 16 x 16, one by one
    alone = restoration(places, images="one", noise_std="measured", **{"data.fraction": 1.0})
    assert len(alone.names) == 1  # a person may have one photograph
    assert "100% of the training examples are noisy, and draws of the model are as noisy" in caplog.text


@pytest.mark.parametrize(("operator", "images", "file"), [("alpha", "alpha", ""), ("folder", "dirty", "masks")])
def test_masks_come_with_their_images(places, operator, images, file):
    problem = restoration(places, operator, images, file=file).problem
    np.testing.assert_array_equal(problem.masks[..., 0], np.tile(KNOWN == 1, (COUNT, 1, 1)))
    assert np.all(problem.y[~np.broadcast_to(problem.masks, problem.y.shape)] == 0.0)
    np.testing.assert_array_equal(problem.operator(problem.masks).forward(problem.y), problem.y)


@pytest.mark.parametrize(
    ("operator", "file"), [("blur", "kernel.npy"), ("k_space", "k.png"), ("k_space", "bytes.npy"), ("python", "sum.py")]
)
def test_operators_are_read_from_files(places, operator, file):
    seen = restoration(places, operator, file=file).problem.operator(None).forward(np.ones((1, SIDE, SIDE, 3), np.float32))
    expected = 2.0 if operator == "python" else 1.0  # a mean, and the zero frequency that is in the middle of the file
    np.testing.assert_allclose(seen, expected, atol=1e-5)


def test_held_out_examples_are_restored_with_their_truth(places):
    found = restoration(places, images="held_out", **{"data.held_out": 50, "restore.count": 20})
    assert 10 < len(found.names) <= 20
    error = found.problem.y - found.clean
    assert 0.1 < np.sqrt(np.mean(error**2)) < 0.2  # clipped
    assert np.all(np.any(error, axis=(1, 2, 3)))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"images": ""}, r"config\.restore\.images is empty: name a folder"),
        ({"images": "empty"}, r"config\.restore\.images=.* holds no image"),
        ({"images": "nowhere"}, r"config\.restore\.images=.* is not a folder"),
        ({"images": "one", "clean": "empty"}, r"config\.restore\.clean=.* holds no image"),
        ({"images": "dirty", "clean": "one"}, r"config\.restore\.clean has no image for 5 of 6 images, such as 001: add one"),
        ({"noise_std": 1e6}, r"the noise has std 1e\+06, above the largest noise-to-signal of the process, [\d.e+]+: lower"),
        ({"operator": "alpha", "images": "alpha", "noise_std": "measured"}, r"these have masks: give the std of the noise"),
        ({"operator": "k_space", "file": "k.png", "noise_std": "measured"}, r"may leave another: give its std, 0 for none"),
        ({"operator": "python", "file": "numpy.py"}, r"forward fails on images \[2, 16, 16, 3\] .*: write it with jax\.numpy"),
        ({"operator": "python", "file": "broken.py"}, r"does not run \(ZeroDivisionError: division by zero\): mend it"),
        ({"operator": "folder", "file": "small"}, r"config\.restore\.file=.*does not fit its image of 16x16"),
        ({"operator": "nan"}, r"config\.restore\.operator='nan' is for arrays of floats"),
        ({"operator": "blur"}, r"config\.restore: file='' is not a file: name that of the kernel"),
        ({"operator": "blur", "file": "even.npy"}, r"config\.restore: the kernel has shape 4x3: give two odd sides"),
        ({"operator": "k_space", "file": "kernel.npy"}, r"the mask of 3x3 does not fit images of 16x16"),
        ({"operator": "python", "file": "clip.py"}, r"config\.restore: the operator has no adjoint"),
        ({"operator": "python", "file": "wrong.py"}, r"config\.restore: the adjoint is not that of the operator"),
        ({"images": "held_out"}, r"needs examples apart from training: set config\.data\.held_out"),
    ],
)
def test_mistakes_are_said_in_one_line(places, values, said):
    with pytest.raises(UserError, match=said) as caught:
        restoration(places, **values)
    assert "\n" not in str(caught.value)
    assert "config.data.path" not in str(caught.value)


def test_images_of_another_level_than_the_training_set_have_their_own(places, tmp_path):
    rng = np.random.default_rng(3)
    clean = photos.photo_crops(40, 5, SIDE)
    grey = 0.5 * (clean / 127.5 - 1.0)  # nothing is clipped
    stored = 127.5 * (grey + 0.4 * rng.standard_normal(clean.shape) + 1.0)
    save(tmp_path / "dirty", np.clip(np.rint(stored), 0, 255).astype(np.uint8))
    std = restoration(tmp_path, noise_std="measured").problem.std
    assert np.median(std) == pytest.approx(0.4, rel=0.15)  # the training set has 0.2


def test_arrays_say_their_values_and_their_name_by_keys_of_this_mode(tmp_path):
    x = np.random.default_rng(0).standard_normal((2, SIDE, SIDE, 3)).astype(np.float32)  # beyond black and white
    np.savez(tmp_path / "two.npz", x=x, other=x + 1.0)
    with pytest.raises(UserError, match=r"config\.restore\.array_key"):
        restoration(tmp_path, images="two.npz")
    with pytest.raises(UserError, match=r"config\.restore\.value_range"):
        restoration(tmp_path, images="two.npz", **{"restore.array_key": "x"})
    found = restoration(tmp_path, images="two.npz", **{"restore.array_key": "x", "restore.value_range": (-4.0, 4.0)})
    np.testing.assert_allclose(found.problem.y, x / 4.0, atol=0.01)
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "1.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(UserError, match=r"repair or remove") as caught:
        restoration(tmp_path, images="damaged")
    assert "config.data" not in str(caught.value)


def test_images_in_subfolders_find_their_own_clean_ones(tmp_path):
    for kind, folders in (("clean", "abc"), ("dirty", "bc")):
        for name in folders:
            (tmp_path / kind / name).mkdir(parents=True)
            Image.fromarray(np.full((SIDE, SIDE, 3), 20 * ord(name) - 1900, np.uint8)).save(tmp_path / kind / name / "1.png")
    found = restoration(tmp_path, clean="clean")
    assert found.names == ["1", "1-2"]
    np.testing.assert_array_equal(found.clean, found.problem.y)
