"""Examples that training never sees: a split fixed by data.seed, which fingerprints and metrics respect."""

import numpy as np
import pytest
import scipy.spatial

from advdiff_jax.builders.data import build_data
from advdiff_jax.data import fingerprint, record_dataset, sources
from advdiff_jax.errors import UserError
from advdiff_jax.modes import preview
from configs import digits, plane3d


def digits_with(held_out, **overrides):
    config = digits.get_config("ddpm")
    config.update_from_flattened_dict({"data.held_out": held_out} | overrides)
    return config


def rows(images):
    return {image.tobytes() for image in images}


def test_the_two_parts_are_disjoint_and_make_up_the_source():
    data = build_data(digits_with(300))
    whole = sources.digits().train
    assert (len(data.train), len(data.held_out), len(data.held_out_dirty)) == (1497, 300, 300)
    assert rows(data.source.train) | rows(data.held_out) == rows(whole)
    assert len(rows(data.source.train) & rows(data.held_out)) == len(whole) - len(rows(whole))  # digits drawn twice alike
    assert rows(data.source.clean(np.random.default_rng(0), 1497)) == rows(data.source.train)
    said = preview.describe(digits_with(300), data)
    assert "of 1,497 training examples corrupted by gaussian; 300 examples are held out" in said


def test_classes_stay_with_their_examples():
    data, whole = (
        build_data(digits_with(300)),
        dict(zip(map(bytes, sources.digits().train), sources.digit_labels(), strict=True)),
    )
    for images, labels in ((data.source.train, data.source.labels()), (data.held_out, data.held_out_labels())):
        assert [whole[bytes(image)] for image in images] == labels.tolist()


def test_the_split_follows_data_seed_alone():
    first = build_data(digits_with(300))
    np.testing.assert_array_equal(build_data(digits_with(300, **{"sampling.seed": 7})).held_out, first.held_out)
    assert rows(build_data(digits_with(300, seed=1)).held_out) != rows(first.held_out)


def test_without_held_out_examples_nothing_changes():
    data = build_data(digits_with(0))
    assert data.held_out is data.held_out_dirty is None
    np.testing.assert_array_equal(data.source.train, sources.digits().train)
    assert "held out" not in preview.describe(digits_with(0), data)


def test_held_out_examples_are_corrupted_alike_with_other_draws():
    data = build_data(digits_with(500, **{"data.fraction": 1.0}))
    noise = data.held_out_dirty[np.arange(500)] - data.held_out
    assert noise.std() == pytest.approx(0.2, rel=0.02)
    of_training = data.train - data.source.train
    distances = scipy.spatial.distance.cdist(noise.reshape(500, -1), of_training.reshape(len(of_training), -1))
    assert distances.min() > 0.5  # one draw for two examples: 0; two draws: sqrt(2 x 64) x 0.2 = 2.3 on average


def test_images_read_on_the_fly_are_split_and_identified():
    def of(held_out, seed=0):
        overrides = {"data.source": "photo_crops", "data.size": 8, "data.num_examples": 40, "seed": seed}
        return build_data(digits_with(held_out, **overrides))

    data, whole = of(10), of(0)
    parts = [*data.source.train[np.arange(30)], *data.held_out[np.arange(10)]]
    assert sorted(x.tobytes() for x in parts) == sorted(x.tobytes() for x in whole.source.train[np.arange(40)])
    now = fingerprint.of(data.source.train)
    assert now == fingerprint.of(of(10).source.train)
    assert "trained_on: None then, 30 now" in fingerprint.difference(fingerprint.of(whole.source.train), now)
    assert "trained_on: 30 then, 25 now" in fingerprint.difference(now, fingerprint.of(of(15).source.train))


def test_a_poisoned_set_has_no_versions_of_held_out_examples(tmp_path):
    config = digits_with(20)
    clean = build_data(config)
    assert clean.held_out_dirty is not None
    path = tmp_path / "poison.array_record"
    about = {"made_from": record_dataset.fingerprint(clean.source.train)}
    record_dataset.write(path, [clean.source.train], clean.source.train.shape, about)
    config.data.corruptions, config.data.poison_file = ("poison",), str(path)
    data = build_data(config)
    assert len(data.held_out) == 20
    assert data.held_out_dirty is None


@pytest.mark.parametrize(("config", "total"), [(digits_with(1794), 1797), (plane3d.get_config("ddpm"), 50)])
def test_too_many_are_refused_in_one_line(config, total):
    config.data.num_examples = 50
    config.data.held_out = total - 3
    said = rf"config\.data: held_out={total - 3:,} leaves 3 of {total:,} examples, and training needs 4 or more: set at most"
    with pytest.raises(UserError, match=said):
        build_data(config)
