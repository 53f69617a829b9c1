"""Every number of a config has a range, and a number out of it is refused by its key."""

import math

import pytest

from advdiff_jax import workdir
from advdiff_jax.builders.ranges import RANGES, WORDS, check_ranges, contains, range_of
from advdiff_jax.builders.validate import CHOICES, resolve
from advdiff_jax.errors import UserError
from configs import default, plane3d


def is_number(value):
    return isinstance(value, int | float) and not isinstance(value, bool)


KEYS = workdir.flatten(default.get_config())
NAMES = {*CHOICES, "compare.metrics"}  # tuples that hold names, when they are not empty
NUMERIC = [
    key
    for key, value in KEYS.items()
    if is_number(value) or key in WORDS or (isinstance(value, list) and all(map(is_number, value)) and key not in NAMES)
]
WITHOUT_RANGE = ()  # numeric keys that may have any value: none


def ends(key):
    """Yields (a number just out of the range, the number at or next to that end inside it) of each finite end."""
    interval, value = range_of(key), KEYS[key]
    first = next(iter(value), 0.0) if isinstance(value, list) else value
    whole = isinstance(first, int)
    for end, closed, outward in zip(interval[1:-1].split(","), (interval[0] == "[", interval[-1] == "]"), (-1, 1), strict=True):
        limit = float(end)
        if math.isfinite(limit):
            step = 1.0 if whole else 1e-6 * max(1.0, abs(limit))
            yield (limit + outward * step if closed else limit), (limit if closed else limit - outward * step)


def test_every_numeric_key_has_a_range():
    assert [key for key in NUMERIC if range_of(key) is None] == list(WITHOUT_RANGE)


def test_every_range_is_of_a_numeric_key():
    assert [key for key in RANGES if not any(key in (one, f"{one.rpartition('.')[0]}.*") for one in NUMERIC)] == []


@pytest.mark.parametrize("key", NUMERIC)
def test_a_number_out_of_its_range_is_refused_by_its_key(key):
    several = isinstance(KEYS[key], list)
    check_ranges({key: KEYS[key]})
    for outside, inside in ends(key):
        check_ranges({key: [inside] if several else inside})
        with pytest.raises(UserError, match="is out of range: set a value in") as caught:
            check_ranges({key: [inside, outside] if several else outside})
        assert str(caught.value).startswith(f"config.{key}=")
        assert range_of(key) in str(caught.value)
    for never in (math.nan, math.inf, -math.inf):
        with pytest.raises(UserError, match=f"config.{key}="):
            check_ranges({key: never})


@pytest.mark.parametrize(
    ("interval", "inside", "outside"),
    [
        ("[0, 1)", (0.0, 0.999), (-1e-9, 1.0)),
        ("(0, inf)", (1e-30, 1e30), (0.0, -1.0, math.inf)),
        ("(-inf, inf)", (-1e30, 1e30), (math.nan, -math.inf)),
        ("[1, 95]", (1, 95), (0, 96)),
    ],
)
def test_what_an_interval_contains(interval, inside, outside):
    assert all(contains(interval, value) for value in inside)
    assert not any(contains(interval, value) for value in outside)


def test_resolve_checks_the_ranges():
    config = plane3d.get_config("robust_adv")
    config.data.fraction = 1.5
    with pytest.raises(UserError, match=r"^config\.data\.fraction=1\.5 is out of range: set a value in \[0, 1\]$"):
        resolve(config)
