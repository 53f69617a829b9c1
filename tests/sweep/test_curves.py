"""Curves of several runs, from files as diagnostics write them."""

import json

import numpy as np

from advdiff_jax.sweep import curves


def write(folder, stem, content):
    (folder / "plots").mkdir(parents=True, exist_ok=True)
    (folder / "plots" / f"{stem}.json").write_text(json.dumps(content))
    return folder


def test_lists_of_the_length_of_x_are_curves_also_one_object_deep(tmp_path):
    stored = {
        "features": "vgg16",
        "ddim": {"evaluations": [5, 10], "fd": [3.0, 2.0], "n": [1, 2, 3]},
        "heun": {"evaluations": [10], "fd": [2.5]},
    }
    write(tmp_path, "few_steps", stored)
    found = curves.read(tmp_path / "plots" / "few_steps.json", "evaluations")
    assert {name: (one.x.tolist(), one.y.tolist()) for name, one in found.items()} == {
        "ddim fd": ([5.0, 10.0], [3.0, 2.0]),
        "heun fd": ([10.0], [2.5]),
    }


def test_seeds_become_a_mean_with_its_deviation():
    same = [curves.Curve(np.array([1.0, 2.0]), np.array(y)) for y in ([1.0, 5.0], [3.0, 5.0])]
    x, mean, std = curves.joint(same)
    np.testing.assert_allclose([x, mean, std], [[1.0, 2.0], [2.0, 5.0], [2.0**0.5, 0.0]])
    assert curves.joint([*same, curves.Curve(np.array([1.0, 2.5]), np.zeros(2))]) is None


def test_a_figure_for_each_file_with_a_line_for_each_run(tmp_path, caplog):
    finished = {}
    for i, label in enumerate(("ddpm", "robust")):
        finished[label] = [
            write(tmp_path / label / str(seed), "denoising", {"level": [0.1, 0.2], "psnr": [20.0 + i, 21.0 + seed]})
            for seed in range(2)
        ]
    ((stem, caption, figure),) = curves.figures(None, {}, finished)
    assert stem == "curve_denoising"
    assert "over 2 seeds, with their standard deviation" in caption
    (axes,) = figure.axes
    assert axes.get_title() == "psnr"
    lines = {one.get_label(): one.lines[0].get_ydata().tolist() for one in axes.containers}
    assert lines == {"ddpm": [20.0, 21.5], "robust": [21.0, 21.5]}
    assert curves.figures(None, {}, {"none": [tmp_path]}) == []
    said = "curves shows what diagnostics write (gain, denoising, few_steps, attack), and no finished run has any"
    assert said in caplog.text
