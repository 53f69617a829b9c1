"""The picture of what measures see: the damages are what they say, and each measure sees the one that it is made for."""

import json

import numpy as np
import pytest

from advdiff_jax.data import sources
from benchmarks import measures

RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def digits():
    return measures.digits()


def test_the_damages_are_what_they_say(digits):
    noise = measures.noisy(RNG, digits, 0.1) - digits.images
    assert noise.std() == pytest.approx(0.1, rel=0.02)
    assert measures.blurred(RNG, digits, 1.0).std() < 0.8 * digits.images.std()
    kept = measures.without_modes(RNG, digits, 4)
    assert len(kept) == len(digits.images)
    labels = {x.tobytes(): label for x, label in zip(sources.digits().train, sources.digit_labels(), strict=True)}
    assert {labels[x.tobytes()] for x in kept} == {4, 5, 6, 7, 8, 9}
    for apply, strengths, _ in measures.DAMAGES.values():
        np.testing.assert_array_equal(apply(RNG, digits, strengths[0]), digits.images)


def test_energy_sees_noise_and_the_classifier_of_digits_sees_blur_and_lost_modes(digits, tmp_path, monkeypatch, capsys):
    small = measures.Set(digits.images[:600], digits.groups[:600])
    found = measures.measure(small, ["digits_cnn"], splits=1)
    assert found.keys() == {"fd_digits_cnn", "noise_energy"}

    def ratio(name, damage, strength):  # over the undamaged half
        return found[name][damage][strength][0] / found[name][damage][0][0]

    assert ratio("noise_energy", "noise", 3) > 1.5 > ratio("fd_digits_cnn", "noise", 3)
    assert ratio("fd_digits_cnn", "blur", 3) > 10.0
    assert ratio("fd_digits_cnn", "lost modes", 3) > 5.0
    assert ratio("noise_energy", "lost modes", 3) == pytest.approx(1.0, abs=0.15)

    monkeypatch.setattr(measures, "SETS", {"digits": lambda: small})
    monkeypatch.setattr(measures, "measure", lambda data, features: found)
    monkeypatch.setattr("sys.argv", ["measures", "--json", "--out", str(tmp_path / "measures.png")])
    measures.main()
    shown = json.loads(capsys.readouterr().out)["measures"]
    assert shown["digits, noise_energy, noise"]["strength 3"] == pytest.approx(found["noise_energy"]["noise"][3][0])
    assert (tmp_path / "measures.png").stat().st_size > 10_000
