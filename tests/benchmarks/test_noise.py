"""The table of how well noise is found."""

import json

import numpy as np

from benchmarks import noise


def test_the_table_has_a_row_a_setting_and_says_what_is_missing(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(noise, "CLOTHES", tmp_path / "none.gz")
    monkeypatch.setattr(noise, "SETTINGS", {"clean": (0.0, 0.1), "p=0.9 std=0.2": (0.9, 0.2)})
    monkeypatch.setattr("sys.argv", ["noise", "--sets", "digits", "clothes", "--seeds", "2", "--json"])
    noise.main()
    lines = capsys.readouterr().out.splitlines()
    assert "clothes are left out" in lines[0]
    found = json.loads(lines[1])["noise"]
    assert found.keys() == {"digits 8x8, clean", "digits 8x8, p=0.9 std=0.2"}
    clean, noisy = found.values()
    assert clean["clean_called_noisy"] <= 0.01
    assert np.isnan(clean["auc"])
    assert noisy["auc"] > 0.97
    assert 0.0 < noisy["±auc"] < 0.02


def test_other_dirt_is_shown_by_what_the_reading_takes_it_for(monkeypatch, capsys):
    monkeypatch.setattr(noise, "DIRT", {"noise": noise.DIRT["uniform_outlier"], "blur": noise.DIRT["blur, 1 pixel"]})
    monkeypatch.setattr("sys.argv", ["noise", "--dirt", "--sets", "digits", "--seeds", "2", "--json"])
    noise.main()
    found = json.loads(capsys.readouterr().out)["noise"]
    pure_noise, blurred = found.values()
    assert pure_noise["auc"] > 0.99
    assert pure_noise["dirty_called_noisy"] > 0.98
    assert blurred["dirty_called_noisy"] == blurred["clean_called_noisy"] == 0.0
    assert np.isnan(blurred["std"])
