"""Masks of a user's own images: an alpha channel, a second folder, NaN; and masks that do not fit."""

import shutil

import numpy as np
import pytest
from PIL import Image

from advdiff_jax.builders.data import build_data
from advdiff_jax.builders.masks import build_mask
from advdiff_jax.builders.validate import resolve
from advdiff_jax.data import fingerprint
from advdiff_jax.errors import UserError
from configs import image_folder
from tests.data.files import encoded, noise, quarters

SIDE = 32
KNOWN = np.ones((SIDE, SIDE), bool)
KNOWN[8:16, 4:20] = False  # a hole of 8 x 16 pixels


def config_of(path, mask, size=SIDE, source="folder", **data):
    config = image_folder.get_config("ddpm")
    config.data.update({"path": str(path), "mask": mask, "size": size, "source": source, "corruptions": (), "fraction": 0.0})
    config.data.update(data)
    config.train.batch_size, config.data.cache_dir = 8, str(path) + "-cache"
    return resolve(config)


def masks_of(config):
    data = build_data(config)
    mask = build_mask(config, data.source, data.corrupted)
    return data, mask(np.arange(len(data.train)))[..., 0]


def images_with_alpha(folder, count=5, **options):
    folder.mkdir()
    for i in range(count):
        alpha = np.where(KNOWN, 255, 254 if i else 0).astype(np.uint8)  # almost opaque is not opaque
        rgba = np.dstack([noise(seed=i), alpha])
        (folder / f"{i}.png").write_bytes(encoded(rgba, **options))
    return folder


def test_pixels_that_are_not_opaque_are_not_known(tmp_path):
    folder = images_with_alpha(tmp_path / "a")
    (folder / "4.png").write_bytes(encoded(quarters()))  # without an alpha channel
    data, found = masks_of(config_of(folder, "alpha"))
    np.testing.assert_array_equal(found[:4], np.tile(KNOWN, (4, 1, 1)))
    assert found[4].all()
    np.testing.assert_array_equal(data.train[np.array([1])][0][KNOWN], noise(seed=1)[KNOWN])


def test_held_out_examples_take_their_masks_with_them(tmp_path):
    folder = images_with_alpha(tmp_path / "a", 6)
    (folder / "2.png").write_bytes(encoded(quarters()))
    data, found = masks_of(config_of(folder, "alpha", held_out=2))
    whole = [np.array_equal(image, quarters()) for image in data.train[np.arange(4)]]
    assert found.all(axis=(1, 2)).tolist() == whole


def test_a_resized_pixel_is_known_if_all_that_it_is_made_of_is(tmp_path):
    """Compares with images of which the hidden pixels have other values: a known pixel must not change."""
    found = {}
    for value in (0, 255):
        folder = tmp_path / str(value)
        folder.mkdir()
        for i in range(4):
            image = noise(seed=i).copy()
            image[~KNOWN] = value
            (folder / f"{i}.png").write_bytes(encoded(image))
            (tmp_path / "masks").mkdir(exist_ok=True)
            (tmp_path / "masks" / f"{i}.gif").write_bytes(encoded((255 * KNOWN).astype(np.uint8), "GIF"))
        config = config_of(folder, "folder", size=20, mask_path=str(tmp_path / "masks"))
        data, known = masks_of(config)
        found[value] = data.train[np.arange(4)]
    assert 0.6 < known.mean() < KNOWN.mean()
    np.testing.assert_array_equal(found[0][known], found[255][known])
    assert np.any(found[0][~known] != found[255][~known])


def test_masks_turn_with_their_images(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    _, found = masks_of(config_of(images_with_alpha(tmp_path / "a", exif=exif), "alpha"))
    np.testing.assert_array_equal(found[0], np.rot90(KNOWN, -1))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda masks: (masks / "3.png").unlink(), r"has no mask for 1 of 5 images, such as '?3\.png'?: add one of the same"),
        (
            lambda masks: (masks / "3.png").write_bytes(encoded(noise(31, 32, 1))),
            r"the mask '?3\.png'? has 31x32 pixels and does not fit its image of 32x32: give it the same size",
        ),
        (lambda masks: (masks / "3.gif").write_bytes(encoded(noise(channels=1), "GIF")), r"has several masks for '?3\.png'?: "),
        (lambda masks: (masks / "3.png").write_bytes(b"\x89PNG\r\n\x1a\n"), r"mask_path=.*: 1 of 5 images are unusable"),
    ],
)
def test_masks_that_do_not_fit_are_refused(tmp_path, change, message):
    for name, content in (("images", quarters()), ("masks", (255 * KNOWN).astype(np.uint8))):
        (tmp_path / name).mkdir()
        for i in range(5):
            (tmp_path / name / f"{i}.png").write_bytes(encoded(content))
    change(tmp_path / "masks")
    with pytest.raises(UserError, match=message) as caught:
        build_data(config_of(tmp_path / "images", "folder", mask_path=str(tmp_path / "masks")))
    assert "\n" not in str(caught.value)


def test_nan_marks_what_is_not_known_in_an_array_of_floats(tmp_path):
    stored = np.random.default_rng(0).uniform(-1.0, 1.0, (4, 3, SIDE, SIDE)).astype(np.float32)
    stored[:, 1, ~KNOWN] = np.nan  # one channel suffices
    np.save(tmp_path / "x.npy", stored)
    data, found = masks_of(config_of(tmp_path / "x.npy", "nan", source="array"))
    np.testing.assert_array_equal(found, np.tile(KNOWN, (4, 1, 1)))
    images = data.train[np.arange(4)]
    assert np.all(images[..., 1][~found] == 128)  # mid-grey
    np.testing.assert_allclose(images[found] / 127.5 - 1.0, stored.transpose(0, 2, 3, 1)[found], atol=0.01)
    with pytest.raises(UserError, match=r"not finite: remove them, or mark unknown pixels by NaN and set .*mask=nan"):
        build_data(config_of(tmp_path / "x.npy", "none", source="array"))
    with pytest.raises(UserError, match=r"config\.data\.mask='alpha': .* has no fourth channel: set nan or none"):
        build_data(config_of(tmp_path / "x.npy", "alpha", source="array"))


def test_the_alpha_of_an_array(tmp_path):
    alpha = np.where(KNOWN, 255, 0).astype(np.uint8)
    np.save(tmp_path / "x.npy", np.stack([np.dstack([noise(seed=i), alpha]) for i in range(4)]))
    _, found = masks_of(config_of(tmp_path / "x.npy", "alpha", source="array"))
    np.testing.assert_array_equal(found, np.tile(KNOWN, (4, 1, 1)))
    with pytest.raises(UserError, match=r"config\.data\.mask='nan': .* holds no floats, and so no NaN"):
        build_data(config_of(tmp_path / "x.npy", "nan", source="array"))
    with pytest.raises(UserError, match=r"config\.data\.mask='folder' is not for config\.data\.source=array: set one of none"):
        build_data(config_of(tmp_path / "x.npy", "folder", source="array"))


def test_masks_that_hide_everything_are_refused(tmp_path):
    folder = images_with_alpha(tmp_path / "a")
    for file in folder.iterdir():
        file.write_bytes(encoded(np.dstack([noise(), np.zeros((SIDE, SIDE), np.uint8)])))
    with pytest.raises(UserError, match=r"the masks of 5 examples hide every pixel: make them white, or opaque"):
        masks_of(config_of(folder, "alpha"))


def write_pairs(folder, images, masks):
    for name, arrays in (("images", images), ("masks", masks)):
        (folder / name).mkdir(parents=True)
        for i, array in enumerate(arrays):
            (folder / name / f"{i}.png").write_bytes(encoded(array))
    return folder / "images", folder / "masks"


def test_a_pixel_of_an_enlarged_image_is_known_if_all_that_it_is_made_of_is(tmp_path):
    hidden = np.ones((16, 16), bool)
    hidden[7, 8] = False
    found = {}
    for value in (0, 255):
        images = [np.where(hidden[..., None], noise(16, 16, seed=i), value).astype(np.uint8) for i in range(4)]
        paths = write_pairs(tmp_path / str(value), images, [255 * hidden.astype(np.uint8)] * 4)
        data, known = masks_of(config_of(paths[0], "folder", size=64, mask_path=str(paths[1])))
        found[value] = data.train[np.arange(4)]
    assert known.mean() > 0.9
    np.testing.assert_array_equal(found[0][known], found[255][known])


def test_a_border_hides_itself_alone(tmp_path):
    checks = (np.add.outer(np.arange(28), np.arange(28)) % 2).astype(np.uint8)
    paths = write_pairs(tmp_path, [noise(28, 28, seed=i) for i in range(4)], [255 * checks] * 4)
    _, known = masks_of(config_of(paths[0], "folder", size=32, pad=True, mask_path=str(paths[1])))
    np.testing.assert_array_equal(known[:, 2:-2, 2:-2], np.tile(checks == 1, (4, 1, 1)))
    assert known.sum() == 4 * checks.sum()


@pytest.mark.parametrize("packed", [("images",), ("masks",), ("images", "masks")])
def test_images_and_masks_in_archives_find_each_other(tmp_path, packed):
    paths = write_pairs(tmp_path, [noise(seed=i) for i in range(4)], [255 * KNOWN.astype(np.uint8)] * 4)
    images, masks = (
        shutil.make_archive(str(tmp_path / f"{path.name}-zip"), "zip", path) if path.name in packed else path for path in paths
    )
    _, known = masks_of(config_of(images, "folder", mask_path=str(masks)))
    np.testing.assert_array_equal(known, np.tile(KNOWN, (4, 1, 1)))


def test_other_masks_are_other_data(tmp_path):
    images, masks = write_pairs(tmp_path, [noise(seed=i) for i in range(4)], [255 * KNOWN.astype(np.uint8)] * 4)
    before, same = (build_data(config_of(images, "folder", mask_path=str(masks))).source.train.fingerprint() for _ in "ab")
    assert fingerprint.difference(before, same) == ""
    (masks / "0.png").write_bytes(encoded(255 * (~KNOWN).astype(np.uint8)))
    now = build_data(config_of(images, "folder", mask_path=str(masks))).source.train.fingerprint()
    assert fingerprint.difference(before, now) == "the masks have changed"
