"""Checks bars, grids of settings, frontiers and side-by-side images, on tables that are made up."""

import numpy as np
import pytest

from advdiff_jax.sweep import figures
from advdiff_jax.sweep.figures import Moments, Row


def one(mean, std=0.0):
    return Moments(mean, std, 1)


def test_bars_show_means_and_errors():
    (axes,) = figures.bars({"a": {"w2": one(1.0, 0.1)}, "b": {"w2": one(2.0, 0.2)}}, ["w2"]).axes
    assert [patch.get_width() for patch in axes.patches] == [1.0, 2.0]
    errors = [path.vertices[:, 0] for collection in axes.collections for path in collection.get_paths()]
    np.testing.assert_allclose(errors, [[0.9, 1.1], [1.8, 2.2]])


def test_numbers_of_the_data_are_lines_in_the_panel_of_their_metric():
    table = {run: {"m": one(x), "m_clean": one(0.5), "m_dirty": one(3.0)} for run, x in (("a", 1.0), ("b", 2.0))}
    (panel,) = figures.bars(table, ["m", "m_clean", "m_dirty"]).axes
    assert [line.get_xdata()[0] for line in panel.lines] == [0.5, 3.0]
    assert [text.get_text() for text in panel.get_legend().get_texts()] == ["clean", "dirty"]


def test_a_run_without_a_metric_keeps_its_row_in_all_panels_of_bars():
    table = {"a": {"w2": one(1.0), "fd": one(3.0)}, "b": {"w2": one(2.0)}, "c": {"w2": one(4.0), "fd": one(5.0)}}
    w2, fd = figures.bars(table, ["w2", "fd"]).axes
    assert w2.get_ylim() == fd.get_ylim()
    assert [patch.get_y() for patch in w2.patches] == [patch.get_y() for patch in fd.patches]
    assert [label.get_text() for label in w2.get_yticklabels()] == list(table)


def images(count, value):
    return np.full((count, 2, 2, 1), value) + np.arange(count)[:, None, None, None] / 10


ROWS = [
    Row("training data", images(8, -1.0), one(0.4), is_data=True),
    Row("a", images(8, -0.5), one(0.3, 0.05), is_data=False),
    Row("b", images(8, 0.0), None, is_data=False),
    Row("clean data", images(8, 0.5), one(0.1), is_data=True),
]


def test_rows_of_images_hold_the_same_columns_in_one_grey_range():
    *panels, _ = figures.side_by_side(ROWS, 2.0, "noise_energy").axes
    assert [axes.get_title(loc="left") for axes in panels] == ["training data", "a", "b", "clean data"]
    for axes, row in zip(panels, ROWS, strict=True):
        canvas = np.asarray(axes.images[0].get_array())
        assert canvas.shape == (2, 5 * 2 + 4)  # five images of two pixels, with gaps between
        assert axes.images[0].get_clim() == (0.0, 1.0)
        for i in range(5):
            np.testing.assert_allclose(canvas[:, 3 * i : 3 * i + 2], row.images[i, ..., 0] / 4.0 + 0.5)


def test_a_bar_stands_beside_its_row_with_its_number_and_the_data_are_lines():
    figure = figures.side_by_side(ROWS, 2.0, "noise_energy")
    *panels, bars = figure.axes
    assert [bar.get_width() for bar in bars.patches] == [0.4, 0.3, 0.1]
    middle = [bars.transData.transform((0.0, bar.get_y() + bar.get_height() / 2))[1] for bar in bars.patches]
    rows = [panels[i].bbox.y0 + panels[i].bbox.height / 2 for i in (0, 1, 3)]
    np.testing.assert_allclose(middle, rows)
    assert [text.get_text() for text in bars.texts] == ["0.40", "0.30", "0.10", "noise energy"]
    lines = {float(c.get_segments()[0][0, 0]) for c in bars.collections if c.get_linestyle()[0][1] is not None}
    assert lines == {0.4, 0.1}
    assert [text.get_text() for text in figure.texts] == ["black: -2, white: 2"]


def test_numbers_to_compare_have_the_decimals_of_the_largest():
    assert figures.formatted([0.268, 0.0056, -0.001, np.nan]) == ["0.27", "0.01", "0.00", "nan"]
    assert figures.formatted([97.04, 5.2]) == ["97", "5"]
    assert figures.formatted([1234.5, 0.0]) == ["1234", "0"]
    assert figures.formatted([0.0]) == ["0"]


@pytest.mark.parametrize("value", [None, Moments(np.nan, np.nan, 1)])
def test_rows_without_numbers_are_images_alone(value):
    figure = figures.side_by_side([row._replace(bar=value) for row in ROWS], 1.0, "noise_energy")
    assert len(figure.axes) == len(ROWS)
    assert not figure.texts  # the range is that of a viewer


def test_colours_and_few_examples_are_drawn_as_they_are():
    colours = np.random.default_rng(0).uniform(-1, 1, (3, 4, 4, 3))
    axes, _ = figures.side_by_side([Row("a", colours, one(-1.0), is_data=False)], 1.0, "m").axes
    canvas = np.asarray(axes.images[0].get_array())
    assert canvas.shape == (4, 3 * 4 + 2, 3)
    np.testing.assert_allclose(canvas[:, 5:9], colours[1] / 2 + 0.5)
