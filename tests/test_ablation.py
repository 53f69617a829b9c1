"""The joint tables and figures of many runs, on results that are made up."""

import json

import jax
import numpy as np
import pytest
from absl import flags
from matplotlib.figure import Figure

from advdiff_jax import ablation, ablation_report
from advdiff_jax.errors import UserError
from advdiff_jax.evaluation import ablation_figures
from configs import plane3d
from configs.ablation import list_of_runs

SETTINGS = [f"p{p} s{s}" for p in (0, 30, 60, 90) for s in (5, 10, 20)]
VARIANTS = ("ddpm", "robust_ran", "robust_adv", "robust_adv_cutoff")


def many(figures=("grid",), **more):
    """12 settings of 4 variants and one run that all of them share."""
    runs = {
        f"{setting}/{variant}": {"variant": variant, "data": {"noise_std": 0.01 * (i + 1)}}
        for i, setting in enumerate(SETTINGS)
        for variant in VARIANTS
    }
    runs["clean"] = {"variant": "ddpm", "data": {"fraction": 0.0}}
    return list_of_runs("many", "", plane3d.get_config(), runs, (0, 1, 2), ("w2", "spread_ratio"), figures, **more)


def fabricate(config, folder, value):
    for label, seed, _ in ablation.expand(config):
        path = folder / label / f"seed_{seed}"
        path.mkdir(parents=True)
        (path / "results.json").write_text(json.dumps(value(label, seed)))


def value(label, seed):
    group, member = ablation_figures.split(label)
    w2 = 0.1 * (1 + VARIANTS.index(member)) if group else 0.05
    return {"w2": w2 + 0.01 * (seed - 1), "spread_ratio": 0.9 + 0.1 * (seed - 1)}


@pytest.fixture(scope="module")
def joined(tmp_path_factory):
    """(folder, report) of many finished runs."""
    config, folder = many(), tmp_path_factory.mktemp("many")
    fabricate(config, folder, value)
    return folder, ablation.summarise(config, folder)


def test_a_shared_run_is_done_once_and_folders_nest():
    labels = [label for label, _, _ in ablation.expand(many())]
    assert len(labels) == 3 * (12 * 4 + 1)
    assert labels.count("clean") == 3


def test_tables_have_settings_as_columns_and_the_best_in_bold(joined):
    folder, page = joined
    everything, w2, spread = (folder / "table.md").read_text().split("\n\n")
    assert len(everything.splitlines()) == 2 + 12 * 4 + 1
    assert "| p90 s20/robust_ran | 0.2 ± 0.0082 | 0.9 ± 0.082 |" in everything
    heads, _, *rows = w2.splitlines()
    assert heads == "| w2 | " + " | ".join(SETTINGS) + " |"
    assert [row.split(" | ")[0] for row in rows] == ["| ddpm", "| robust_ran", "| robust_adv", "| robust_adv_cutoff", "| clean"]
    assert rows[0].count("**0.1 ± 0.0082**") == 12
    assert rows[-1].count("0.05 ± 0.0082") == 12  # shared: shown everywhere, and no rival
    assert "**" not in "".join(rows[1:])
    assert "**" not in spread  # all the same: none is best
    assert "<td><b>0.1 ± 0.0082</b></td>" in page.read_text()
    assert json.loads((folder / "results.json").read_text())["p0 s5/ddpm/w2"] == pytest.approx(0.1)


def test_a_long_list_shows_figures_and_no_samples(joined):
    folder, page = joined
    assert {path.name for path in (folder / "plots").iterdir()} == {"grid_w2.png", "grid_spread_ratio.png"}
    assert page.read_text().count("data:image/png") == 2


def test_a_grid_has_a_panel_a_setting_and_a_row_a_member():
    table = {f"{s}/{v}": {"m": (1.0 + i, 0.1)} for s in SETTINGS for i, v in enumerate(VARIANTS)} | {"clean": {"m": (0.5, 0.0)}}
    del table["p0 s5/ddpm"]
    figure = ablation_figures.grid(table, "m", ablation_report.best_of(table, "m"))
    panels = [axes for axes in figure.axes if axes.containers]
    assert [axes.get_title() for axes in panels] == SETTINGS
    assert [tick.get_text() for tick in panels[0].get_yticklabels()] == [
        "robust_ran",
        "robust_adv",
        "robust_adv_cutoff",
        "ddpm",
        "clean",
    ]
    assert [len(axes.containers) for axes in panels] == [4] + [5] * 11
    # x and row of every point of the second panel
    points = {tuple(map(float, np.ravel(c.lines[0].get_xydata()))) for c in panels[1].containers}
    assert points == {(1.0, 3.0), (2.0, 0.0), (3.0, 1.0), (4.0, 2.0), (0.5, 4.0)}
    red = [c.lines[0].get_xydata()[0, 0] for c in panels[1].containers if c.lines[0].get_color() == ablation_figures.BEST]
    assert red == [1.0]  # of its own members, not what is shared


def test_a_frontier_joins_the_points_of_a_series():
    table = {f"{s}/{k}": {"a": (k, 0.1), "b": (1.0 / k, 0.2)} for s in ("paper", "cutoff") for k in (1, 2, 3)}
    table |= {"ddpm": {"a": (4.0, 0.1), "b": (2.0, 0.1)}, "unfinished": {"a": (1.0, 0.1)}}
    (axes,) = ablation_figures.frontier(table, "a", "b").axes
    lines = {container.get_label(): container.lines[0] for container in axes.containers}
    assert lines.keys() == {"paper", "cutoff", "ddpm"}
    np.testing.assert_allclose(lines["cutoff"].get_xydata(), [[1, 1], [2, 0.5], [3, 1 / 3]])
    assert (lines["cutoff"].get_linestyle(), lines["ddpm"].get_linestyle()) == ("-", "None")
    assert [text.get_text() for text in axes.texts] == ["1", "2", "3"] * 2


def test_a_frontier_by_config_and_metrics_that_only_some_runs_have(tmp_path):
    config = many(("bars", "frontier"), frontier=("w2", "extra"))
    fabricate(config, tmp_path, lambda label, seed: value(label, seed) | ({"extra": 1.0} if seed and "ran" in label else {}))
    ablation.summarise(config, tmp_path)
    assert {path.name for path in (tmp_path / "plots").iterdir()} == {"ablation.png", "frontier.png"}
    assert json.loads((tmp_path / "results.json").read_text())["p0 s5/robust_ran/extra"] == 1.0


@pytest.mark.parametrize("kind", ablation_report.FIGURES)
def test_every_kind_of_figure_draws_one_run_alone(kind):
    config = many((kind,), frontier=("w2", "spread_ratio"))
    table = {"a": {"w2": (0.1, 0.0), "spread_ratio": (1.0, 0.0)}}
    assert all(isinstance(figure, Figure) for _, _, figure in ablation_report.FIGURES[kind](config, table))


def test_the_compiled_code_of_a_run_goes_with_it(tmp_path, monkeypatch):
    traced = []
    compiled = jax.jit(lambda x: traced.append(None) or x)
    monkeypatch.setattr(ablation, "run", lambda one, folder, mode: compiled(1.0))
    config = many()
    ablation.run_all(config, tmp_path, "train", "0/4")
    assert len(traced) == len(ablation.expand(config)[::4]) > 1


def test_a_shard_without_a_run_has_nothing_to_show(tmp_path):
    assert ablation.run_all(many(), tmp_path, "preview", "998/999") == tmp_path


def test_what_is_the_same_for_all_by_construction_has_no_best_and_no_grid():
    many_metrics = {"w2": 1.0, "network_evaluations": 2.0, "noise_energy_clean": 3.0, "inner_pgd10_over_fgsm": 4.0}
    same = {member: {name: (value + i, 0.0) for name, value in many_metrics.items()} for i, member in enumerate("ab")}
    best = {name: ablation_report.best_of(same, name)({"a": "a", "b": "b"}) for name in many_metrics}
    assert best == {"w2": "a", "network_evaluations": None, "noise_energy_clean": None, "inner_pgd10_over_fgsm": None}
    same["b"]["w2"] = same["a"]["w2"]
    assert ablation_report.best_of(same, "w2")({"a": "a", "b": "b"}) is None
    config = many(("grid",))
    config.metrics = ("w2", "w2_floor", "network_evaluations")
    table = {"a": {"w2": (0.1, 0.0), "w2_floor": (0.1, 0.0), "network_evaluations": (9.0, 0.0)}}
    assert [stem for stem, _, _ in ablation_report.FIGURES["grid"](config, table)] == ["grid_w2"]


def test_which_is_best_depends_on_the_metric():
    config = many()
    names = ("w2", "spread_ratio", "noise_energy", "noise_energy_clean")
    values = {"a": (np.nan, 1.3, 0.2, 0.1), "b": (1.0, 1.1, 0.09, 0.1), "c": (2.0, 0.5, 0.01, 0.1)}
    table = {f"x/{member}": {name: (v, 0.0) for name, v in zip(names, row, strict=True)} for member, row in values.items()}
    # A picture without any noise energy is no better than one with twice that of clean data.
    for metric, best in (("w2", "b"), ("spread_ratio", "b"), ("noise_energy", "b")):
        assert [row[0] for row in ablation_report.compact(config, table, metric) if "**" in row[1]] == [best]


def test_a_metric_that_no_run_has_is_warned_of(tmp_path, caplog):
    config = many()
    config.metrics = ("w2", "W2")
    fabricate(config, tmp_path, value)
    ablation.summarise(config, tmp_path)
    assert "config.metrics: no run has 'W2': choose among w2, spread_ratio" in caplog.text


def test_nothing_finished_yet_is_a_report_all_the_same(tmp_path):
    page = ablation.summarise(many(), tmp_path)
    assert "Not finished yet: p0 s5/ddpm/seed_0" in page.read_text()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"figures": ("pie",)}, r"config\.figures: 'pie' is not known: choose among bars, grid, frontier"),
        ({"figures": ("frontier",)}, r"config\.frontier=\(\): a frontier needs two metrics"),
        ({"runs": {"a/b/c": {"variant": "ddpm"}}}, "the label 'a/b/c' is neither 'member' nor 'group/member'"),
    ],
)
def test_figures_and_labels_that_cannot_be_are_refused_before_any_run(change, message):
    config = many()
    config.update(change)
    with pytest.raises(UserError, match=message):
        ablation.expand(config)


def test_a_real_run_with_a_group_and_without_fields(tmp_path):
    if not flags.FLAGS.is_parsed():
        flags.FLAGS(["pytest"])
    base = plane3d.get_config()
    base.update_from_flattened_dict(
        {
            "data.num_examples": 100,
            "network.width": 8,
            "train.steps": 4,
            "train.batch_size": 8,
            "train.warmup_steps": 1,
            "train.log_every": 2,
            "sampling.steps": 2,
            "sampling.batch_size": 8,
            "evaluation.num_samples": 32,
            "evaluation.field_levels": (),
        }
    )
    config = list_of_runs("x", "", base, {"here/ddpm": {"variant": "ddpm"}}, (0,), ("w2", "score_error"), ("grid",))
    ablation.run_all(config, tmp_path, "train", "0/1")
    run = tmp_path / "here" / "ddpm" / "seed_0"
    assert (run / "report.html").exists()
    assert not list(run.glob("plots/fields*"))
    assert "score_error_grid" not in json.loads((run / "results.json").read_text())
    assert (tmp_path / "plots" / "samples.png").exists()
    assert "samples: here/ddpm" in (tmp_path / "report.html").read_text()
