"""Checks --mode=compare on folders as runs leave them: what it reads, what it refuses, and what its page says."""

import json

import numpy as np
import pytest

from advdiff_jax import workdir
from advdiff_jax.errors import UserError
from advdiff_jax.evaluation import figures as single
from advdiff_jax.evaluation.curves import Panel, Series, as_json
from advdiff_jax.sweep import compare, setups
from configs import default, digits

RESULTS = {
    "noise_energy": 0.2,
    "noise_energy_clean": 0.1,
    "noise_energy_dirty": 0.4,
    "train_seconds": 5.0,
    "gain_smallest": 0.1,
}


def run(path, variant="ddpm", results=RESULTS, data=b"same", **changes):
    """Writes what a finished run of digits leaves, with these changes of its config; returns its folder."""
    config = digits.get_config(variant)
    config.update_from_flattened_dict(changes)
    for name in ("plots", "samples"):
        (path / name).mkdir(parents=True)
    workdir.write_config(path / "config.json", config)
    workdir.write_json(path / "results.json", results)
    workdir.write_json(path / "data.json", {"kind": "array", "sha256": data.hex()})
    workdir.write_json(path / "setup.json", {"Data": "digits", "Objective": variant})
    gains = [float(results["noise_energy"]), 1.0]
    workdir.write_json(path / "plots" / "gain.json", as_json([Panel("gain", "x", "y", {"a": Series([0.1, 1.0], gains)})]))
    x = np.random.default_rng(0).standard_normal((6, 4, 4, 1)).astype(np.float32)
    np.savez(path / "plots" / "data.npz", dirty=x, clean=0.5 * x)
    np.save(path / "samples" / "step_3.npy", x)
    for image in ("plots/data_dirty.png", "plots/data_clean.png", "samples/step_3.png"):
        single.grid(x, 4).savefig(path / image)
    (path / "report.html").write_text("")
    return path


def compared(*paths, metrics=()):
    config = default.get_config()
    config.compare.runs, config.compare.metrics = ",".join(map(str, paths)), metrics
    return config


def test_two_runs_stand_on_one_page(tmp_path):
    plain = run(tmp_path / "x" / "plain")
    for seed, energy in enumerate((0.12, 0.14)):
        run(tmp_path / "robust" / f"seed_{seed}", "robust_adv", {**RESULTS, "noise_energy": energy}, seed=seed)
    page = compare.run(compared(plain, tmp_path / "robust"), tmp_path / "out")
    assert page == tmp_path / "out" / "compare" / "report.html"
    found = json.loads((page.parent / "results.json").read_text())
    assert found["robust/noise_energy"] == pytest.approx(0.13)
    assert found["plain/noise_energy"] == 0.2
    table = (page.parent / "table.md").read_text()
    assert "| run | n | noise_energy | noise_energy_clean | noise_energy_dirty | train_seconds |" in table
    assert "| robust | 2 | 0.13 ± 0.014 | 0.1 ± 0 |" in table
    text = page.read_text()
    for said in (
        "<dt>Data</dt><dd>digits</dd>",
        "How the runs differ",
        '<td class="words">objective</td>',
        "equivariance",
        "../../x/plain/report",
    ):
        assert said in text
    assert "side_by_side.png" in {path.name for path in (page.parent / "plots").iterdir()}
    assert "curve_gain.png" in {path.name for path in (page.parent / "plots").iterdir()}


def test_the_metrics_may_be_named(tmp_path):
    paths = [run(tmp_path / name) for name in ("a", "b")]
    page = compare.run(compared(*paths, metrics=("gain_smallest",)), tmp_path)
    assert "| run | n | gain_smallest |" in (page.parent / "table.md").read_text()
    with pytest.raises(UserError, match=r"config\.compare\.metrics: no run has 'gain_smalest'; did you mean gain_smallest\?"):
        compare.run(compared(*paths, metrics=("gain_smalest",)), tmp_path)


def test_folders_with_commas_and_labels(tmp_path):
    names = ["runs/ddpm", "runs/ddpm/evaluations/sampling.method=ddim"]
    names += ["runs/ddpm/evaluations/sampling.method=ddim,sampling.steps=5"]
    paths = [run(tmp_path / name) for name in names]
    assert compare.parse(",".join(map(str, reversed(paths)))) == paths[::-1]
    assert [*compare.named(paths)] == ["ddpm", "ddpm, sampling method=ddim", "ddpm, sampling method=ddim,sampling steps=5"]
    others = [run(tmp_path / name) for name in ("a/ddpm", "b/ddpm")]
    assert [*compare.named(others)] == ["a ddpm", "b ddpm"]
    assert [*compare.named([run(tmp_path / "c" / f"seed_{seed}") for seed in (0, 1)])] == ["c seed_0", "c seed_1"]


def test_what_is_not_a_run_is_refused(tmp_path):
    path = run(tmp_path / "a")
    for text, said in [
        ("", r"compare\.runs='': name two runs at least"),
        (str(path), "name two runs at least, as FOLDER,FOLDER"),
        (f"{path},{tmp_path / 'b'}", r"compare\.runs: '.*b' holds no finished run \(results\.json and config\.json, in it or"),
        (f"{path},{path}", "twice: name each run once"),
    ]:
        with pytest.raises(UserError, match=said):
            compare.run(compared(text), tmp_path)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"evaluation.num_samples": 64}, r"not comparable \(evaluation\.num_samples is 1000 and 64\)"),
        ({"data.source": "photo_crops"}, r"not comparable \(.*data\.source is 'digits' and 'photo_crops'"),
        ({"data": b"other"}, r"not comparable \(the same numbers, other contents\)"),
    ],
)
def test_numbers_that_are_measured_otherwise_are_refused(tmp_path, changes, said):
    paths = run(tmp_path / "a"), run(tmp_path / "b", **changes)
    with pytest.raises(UserError, match=said):
        compare.run(compared(*paths), tmp_path)


def test_how_runs_may_differ(tmp_path):
    paths = run(tmp_path / "a"), run(tmp_path / "b", **{"data.fraction": 0.5, "evaluation.grid": 9, "train.accumulate": 2})
    finished = compare.named([*paths])
    compare.check_comparable(finished)
    found = setups.configs(finished)
    assert setups.differing(found) == {"data.fraction": [0.9, 0.5], "evaluation.grid": [64, 9]}
    assert "fraction" not in setups.shared(found)["data"]
    assert setups.shared(found)["data"]["noise_std"] == 0.2
