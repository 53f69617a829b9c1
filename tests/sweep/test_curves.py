"""Curves of several runs, from files as diagnostics write them."""

import json

import numpy as np
import pytest

from advdiff_jax import workdir
from advdiff_jax.evaluation.curves import Panel, Series, as_json
from advdiff_jax.sweep import curves


def panel(series, title="fd"):
    return Panel(title, "evaluations", title, series, "log")


def write(folder, stem, *panels):
    (folder / "plots").mkdir(parents=True, exist_ok=True)
    workdir.write_json(folder / "plots" / f"{stem}.json", {"own": [1.0], **as_json(panels)})
    return folder


def test_what_a_diagnostic_wrote_is_read(tmp_path):
    written = panel({"ddim": Series([5.0, 10.0], [3.0, 2.0], [2.0, 1.0], [4.0, 3.0])})
    write(tmp_path, "few_steps", written)
    assert curves.read(tmp_path / "plots" / "few_steps.json") == [written]
    for other in ({"std": [1.0]}, [1.0]):
        (tmp_path / "other.json").write_text(json.dumps(other))
        assert curves.read(tmp_path / "other.json") == []


def test_seeds_become_a_mean_with_a_band():
    same = [Series([1.0, 2.0], y) for y in ([1.0, 5.0], [3.0, 5.0])]
    (line,) = curves.over_seeds(same)
    half = 2.0**0.5
    np.testing.assert_allclose(line, [[1.0, 2.0], [2.0, 5.0], [2.0 - half, 5.0], [2.0 + half, 5.0]])
    assert curves.over_seeds([*same, Series([1.0, 2.5], [0.0, 0.0])]) == [*same, Series([1.0, 2.5], [0.0, 0.0])]
    assert curves.over_seeds(same[:1]) == same[:1]


def test_a_figure_for_each_file_with_lines_for_each_run(tmp_path, caplog):
    finished = {}
    for i, label in enumerate(("ddpm", "robust")):
        finished[label] = [
            write(
                tmp_path / label / str(seed),
                "few_steps",
                panel({"ddim": Series([5.0, 9.0], [3.0 + i, 2.0 + seed]), "heun": Series([5.0, 9.0], [1.0, 1.0])}),
                panel({label: Series([5.0 + seed], [3.0])}, "other"),
            )
            for seed in range(2)
        ]
    ((stem, caption, figure),) = curves.figures(None, {}, finished)
    assert stem == "curve_few_steps"
    assert caption == "Few steps, each run. Bands: one standard deviation over seeds."
    fd, other = figure.axes
    lines = {line.get_label(): line.get_ydata().tolist() for line in fd.lines}
    assert lines == {
        "ddpm, ddim": [3.0, 2.5],
        "ddpm, heun": [1.0, 1.0],
        "robust, ddim": [4.0, 2.5],
        "robust, heun": [1.0, 1.0],
    }
    assert [line.get_label() for line in other.lines] == ["ddpm, seed 0", "ddpm, seed 1", "robust, seed 0", "robust, seed 1"]
    assert curves.figures(None, {}, {"none": [tmp_path]}) == []
    assert "no finished run has any" in caplog.text


@pytest.mark.parametrize(("threats", "kept"), [(2, 12), (3, 6)])
def test_weaker_attacks_are_left_out_of_a_full_panel(threats, kept):
    series = {f"{t}, {method}": Series([1.0], [1.0]) for t in range(threats) for method in ("pgd20", "fgsm", "random")}
    (found,) = curves.joint({label: [[panel(series)]] for label in ("a", "b")})
    assert len(found.series) == kept
