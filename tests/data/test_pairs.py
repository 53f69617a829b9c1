"""Pairs of example and time: the expectation that the docstring states, counted."""

import numpy as np
import pytest
import scipy.stats

from advdiff_jax.data.batches import BatchSource
from advdiff_jax.data.pairs import Pairs
from advdiff_jax.errors import InvalidArgument

RATIOS = np.geomspace(0.01, 10.0, 64)
STD = np.array([0.0, 0.2, 0.0, 0.5, 0.2])


def drawn(pairs, batches=200, size=256):
    parts = [pairs.draw(step, size) for step in range(batches)]
    return (np.concatenate(column) for column in zip(*parts, strict=True))


@pytest.mark.parametrize("margin", [1.05, 5.0])
def test_each_time_is_taught_by_every_example_that_may_alike(margin):
    indices, quantiles = drawn(Pairs(STD, RATIOS, margin, seed=0))
    cells = (quantiles * len(RATIOS)).astype(int)
    found = np.zeros((len(RATIOS), len(STD)))
    np.add.at(found, (cells, indices), 1.0)
    may = margin * STD[None] < RATIOS[:, None]
    expected = may / may.sum(1, keepdims=True) / len(RATIOS)  # times uniform, examples uniform among those that may
    assert not found[~may].any()
    np.testing.assert_allclose(found / len(indices), expected, atol=5 * np.sqrt(expected.max() / len(indices)))


def test_a_level_that_was_read_with_an_error_teaches_with_its_chance_to_lie_below():
    """The law of a level is log-normal; no chance lets an example teach within its own level."""
    std, error = np.array([0.0, 0.2]), 0.3
    indices, quantiles = drawn(Pairs(std, RATIOS, 2.0, 0, error), 400)
    u = RATIOS[(quantiles * len(RATIOS)).astype(int)]
    for level, rtol in ((0.33, 0.3), (0.4, 0.2), (0.5, 0.2)):
        near = np.abs(np.log(u / level)) < 0.06
        chance = scipy.stats.norm.cdf(np.log(level / 0.4) / error)
        np.testing.assert_allclose(np.mean(indices[near] == 1), chance / (1.0 + chance), rtol=rtol)
    assert u[indices == 1].min() > 1.01 * 0.2


def test_times_that_nothing_teaches_are_left_out():
    pairs = Pairs(np.array([0.2, 0.3]), RATIOS, 1.05, seed=0)
    _, quantiles = drawn(pairs, 20)
    first = np.argmax(RATIOS > 0.21) / len(RATIOS)
    assert pairs.wasted == first
    assert quantiles.min() >= first
    assert quantiles.max() > 0.99


def test_discarded_examples_are_never_drawn():
    indices, quantiles = drawn(Pairs(np.where(STD > 0, np.inf, 0.0), RATIOS, 5.0, seed=0), 20)
    assert {*indices} == {0, 2}
    assert quantiles.min() < 0.01


def test_nothing_to_teach_is_refused():
    with pytest.raises(InvalidArgument, match="no example may teach any noise level"):
        Pairs(np.array([np.inf, 20.0]), RATIOS, 1.05, seed=0)


def test_batches_are_shared_by_processes_and_hold_what_was_drawn():
    examples, pairs = np.arange(5.0)[:, None], Pairs(STD, RATIOS, 1.05, seed=3)
    whole = BatchSource(examples, 16, seed=3, noise_std=STD.__getitem__, pairs=pairs)
    parts = [BatchSource(examples, 16, 3, i, 2, noise_std=STD.__getitem__, pairs=pairs)[4] for i in range(2)]
    batch = whole[4]
    np.testing.assert_array_equal(whole.indices(4), batch["examples"][:, 0])
    np.testing.assert_array_equal(batch["noise_std"], STD[whole.indices(4)])
    for name, value in batch.items():
        np.testing.assert_array_equal(np.concatenate([part[name] for part in parts]), value)
    assert not np.array_equal(whole[5]["time_quantile"], batch["time_quantile"])
