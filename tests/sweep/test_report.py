"""Checks the joint report: the comparison of runs, links between reports, and images side by side from stored files."""

import html
import pathlib
import urllib.parse

import numpy as np
import pytest

from advdiff_jax.builders.data import build_data
from advdiff_jax.data import pixels
from advdiff_jax.errors import UserError
from advdiff_jax.evaluation import figures as single
from advdiff_jax.modes import preview
from advdiff_jax.sweep import report, samples
from advdiff_jax.sweep.figures import Moments
from advdiff_jax.sweep.run import expand
from configs import digits, plane3d
from configs.ablations.common import list_of_runs

ENERGY = {"ddpm": 0.364, "robust_adv": 0.2661, "robust_fast": 0.094}


def table(energy=None):
    known = {"noise_energy_clean": 0.0961, "noise_energy_dirty": 0.3921}
    numbers = {label: {"noise_energy": value, **known} for label, value in (energy or ENERGY).items()}
    return {label: {name: Moments(x, 0.0, 1) for name, x in row.items()} for label, row in numbers.items()}


def config(labels=tuple(ENERGY), figures=("side_by_side",), base=None, **overrides):
    runs = {label: {"variant": "ddpm", **overrides.get(label, {})} for label in labels}
    return list_of_runs("x", "Summary.", base or digits.get_config(), runs, (0,), ("noise_energy",), figures)


def fabricate(folder, label, dirty, drawn, step=3):
    """Writes the files of a finished run that a joint report reads; returns its folder."""
    path = folder / label / "seed_0"
    for name in ("plots", "samples"):
        (path / name).mkdir(parents=True)
    np.savez(path / "plots" / "data.npz", dirty=dirty, clean=np.zeros_like(dirty))
    np.save(path / "samples" / f"step_{step}.npy", drawn)
    for image in ("plots/data_dirty.png", "plots/data_clean.png", f"samples/step_{step}.png"):
        single.grid(np.zeros((4, 2, 2, 1)), 4).savefig(path / image)
    (path / "report.html").write_text("")
    return path


def noise(seed, shape=(6, 2, 2, 1)):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def test_the_comparison_is_above_clean_data_with_the_digits_of_the_largest():
    assert report.comparison(table(), "noise_energy") == (
        "Noise energy above that of clean data (0.096): ddpm 0.27, robust_adv 0.17, robust_fast 0.00, the training data 0.30."
    )
    small = {label: value / 1000 + 0.0961 for label, value in ENERGY.items()}
    assert "ddpm 0.00, robust_adv 0.00" in report.comparison(table(small), "noise_energy")


def test_a_comparison_without_an_ideal_names_the_values():
    found = {label: {"fd_digits_cnn": Moments(x, 0.0, 1)} for label, x in (("a", 97.04), ("b", 5.2), ("c", np.nan))}
    assert report.comparison(found, "fd_digits_cnn") == "fd_digits_cnn: a 97, b 5, c nan."
    assert report.comparison(found, "w2") == ""


def test_side_by_side_shows_the_first_samples_between_the_data_in_one_range(tmp_path):
    dirty = noise(0)
    folders = {label: fabricate(tmp_path, label, dirty, 0.5 * noise(i)) for i, label in enumerate(ENERGY, 1)}
    np.save(folders["ddpm"] / "samples" / "step_20.npy", noise(9))  # the newest, also where names sort otherwise
    single.grid(np.zeros((4, 2, 2, 1)), 4).savefig(folders["ddpm"] / "samples" / "step_20.png")
    ((stem, caption, figure),) = samples.side_by_side(config(), table(), folders)
    limit = single.value_limit(dirty)
    assert stem == "side_by_side"
    assert "those of a column from the same noise" in caption
    assert f"Black is {-limit:g}, white {limit:g}." in caption
    *panels, bars = figure.axes
    assert [axes.get_title(loc="left") for axes in panels] == ["training data", *ENERGY, "clean data"]
    shown = [dirty, noise(9), 0.5 * noise(2), 0.5 * noise(3), np.zeros_like(dirty)]
    for axes, images in zip(panels, shown, strict=True):
        expected = np.clip(images[:5, ..., 0] / (2 * limit) + 0.5, 0.0, 1.0)
        canvas = np.asarray(axes.images[0].get_array())
        np.testing.assert_allclose(np.stack([canvas[:, 3 * i : 3 * i + 2] for i in range(5)]), expected, atol=1e-6)
    np.testing.assert_allclose([bar.get_width() for bar in bars.patches], [0.3921, *ENERGY.values(), 0.0961])


def test_runs_stand_between_the_data_that_they_saw(tmp_path):
    sets = {"a": noise(0), "b": noise(1), "c": noise(0)}
    folders = {label: fabricate(tmp_path, label, dirty, noise(2)) for label, dirty in sets.items()}
    ((_, caption, figure),) = samples.side_by_side(
        config(sets, b={"sampling": {"seed": 7}}), table(dict.fromkeys(sets, 1.0)), folders
    )
    titles = [axes.get_title(loc="left") for axes in figure.axes[:-1]]
    assert titles == ["training data", "a", "c", "clean data", "training data", "b", "clean data"]
    assert "same noise" not in caption  # with seeds of their own


def test_eight_bit_images_stay_in_the_range_of_a_viewer(tmp_path):
    dirty = np.arange(6 * 4, dtype=np.uint8).reshape(6, 2, 2, 1) * 10
    folders = {"a": fabricate(tmp_path, "a", dirty, 3.0 * noise(1))}
    ((_, caption, figure),) = samples.side_by_side(config(("a",)), table({"a": 1.0}), folders)
    assert "Black" not in caption
    canvas = np.asarray(figure.axes[0].images[0].get_array())
    np.testing.assert_allclose(canvas[:, :2], dirty[0, ..., 0] / 255, atol=1e-6)


def test_runs_of_points_have_no_images_to_show(tmp_path, caplog):
    assert samples.side_by_side(config(base=plane3d.get_config()), table(), {"ddpm": tmp_path}) == []
    assert "side_by_side shows images, and no finished run has plots/data.npz" in caplog.text


def test_side_by_side_needs_a_metric():
    without = config()
    without.metrics = ()
    with pytest.raises(UserError, match=r"config\.metrics=\(\): side_by_side shows the first metric as bars"):
        report.check(without)


def test_the_page_begins_with_the_images_and_links_to_the_report_of_each_run(tmp_path):
    labels = ("p 90 #1/ddpm", "robust")
    finished = {label: [fabricate(tmp_path, label, noise(0), noise(1))] for label in labels}
    unreported = tmp_path / "robust" / "seed_1"
    finished["robust"].append(unreported)
    (tmp_path / "plots").mkdir()
    listed = config(labels)
    page = report.write(listed, tmp_path, table(dict.fromkeys(labels, 0.2)), finished, []).read_text()
    heads = [part.partition(">")[2].partition("</h2>")[0] for part in page.split("<h2 ")[1:]]
    assert heads[0] == "Side by side"
    assert heads.index("Results") < heads.index("Data and samples")
    assert (
        "<p>Noise energy above that of clean data (0.096): p 90 #1/ddpm 0.10, robust 0.10, the training data 0.30.</p>" in page
    )
    targets = [html.unescape(part.partition('"')[0]) for part in page.split('href="')[1:]]
    targets = [target for target in targets if not target.startswith("#s")]  # those are sections of the page
    assert [pathlib.Path(urllib.parse.unquote(target)) for target in targets] == [
        path[0].relative_to(tmp_path) / "report.html" for path in finished.values()
    ]
    assert all(urllib.parse.urlparse(target).path == target for target in targets)  # nothing of a label is a fragment
    assert "seed_0</a> seed_1</td>" in page
    assert (tmp_path / "plots" / "side_by_side.png").read_bytes().startswith(b"\x89PNG")


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """(config, data, folder) of digits after `preview.sections`."""
    one = expand(config(("a",)))[0].config
    data, plots = build_data(one), tmp_path_factory.mktemp("plots")
    preview.sections(one, data, {}, plots)
    return one, data, plots


def test_a_run_stores_a_spread_of_its_images_as_it_read_them(drawn):
    one, data, plots = drawn
    shown = pixels.evenly_spaced_indices(len(data.train), one.evaluation.grid)
    with np.load(plots / "data.npz") as stored:
        np.testing.assert_array_equal(stored["dirty"], data.train[shown])
        np.testing.assert_array_equal(stored["clean"], data.source.train[shown])


def test_all_images_of_a_run_have_the_range_of_its_training_data(drawn):
    one, data, _ = drawn
    limit = single.value_limit(data.train[: one.evaluation.grid])
    assert 1.2 < limit < 2.0  # digits under noise of std 0.2
    for examples in (data.train, data.source.train):
        canvas = np.asarray(preview.draw(one, data, examples).axes[0].images[0].get_array())
        np.testing.assert_allclose(canvas[1:9, 1:9], np.clip(examples[0, ..., 0] / (2 * limit) + 0.5, 0, 1), atol=1e-6)
