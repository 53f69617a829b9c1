"""The comments of configs/default.py name what the registries hold, and every key that a spec reads is a key of a config."""

import re

import pytest

from advdiff_jax import modes, workdir
from advdiff_jax.builders.corruptions import CORRUPTIONS
from advdiff_jax.builders.validate import CHOICES
from advdiff_jax.data.records import ON_BAD
from advdiff_jax.sampling.steps import VARIANCES
from advdiff_jax.sweep.report import FIGURES
from configs import default
from tests.launching import ROOT

KEYS = workdir.flatten(default.get_config())
LINES = (ROOT / "configs" / "default.py").read_text().splitlines()
# Lists of two or more names, "a | b | c"; and what a comment says instead of a list that another key has.
LIST, SAME_AS = re.compile(r"\w+(?: \| \w+)+"), re.compile(r"a name of ([\w.]+)")

# key -> its names: those of the registries, and those that the library itself checks.
NAMED = {key: table for key, table in CHOICES.items() if not all(isinstance(name, bool) for name in table)}
NAMED |= {"sampling.variance": VARIANCES, "data.on_bad_image": ON_BAD}


def comment(key, lines=None):
    """Returns what is written above and beside the line that sets `key`, without what stands in brackets."""
    section, _, leaf = key.rpartition(".")
    lines = lines or LINES
    (at,) = [i for i, line in enumerate(lines) if line.startswith(f"    {section or 'config'}.{leaf} = ")]
    found = [lines[at].partition("  # ")[2]]
    while lines[at - 1].startswith("    # "):
        at -= 1
        found.insert(0, lines[at].removeprefix("    # "))
    text, inner = " ".join(found), re.compile(r" ?\([^()]*\)")
    while inner.search(text):
        text = inner.sub("", text)
    return text


def names(key):
    """Returns the names that the comment of `key` lists."""
    text = comment(key)
    if same := SAME_AS.search(text):
        return names(same[1])
    listed = LIST.search(text)
    return listed[0].split(" | ") if listed else [text.partition(":")[0]]


@pytest.mark.parametrize("key", NAMED)
def test_the_comment_of_a_choice_lists_the_names_of_its_registry(key):
    assert sorted(names(key)) == sorted(NAMED[key])


def test_every_comment_that_lists_names_is_compared():
    assert {key for key in KEYS if LIST.search(comment(key))} <= NAMED.keys()


def test_a_comment_that_lacks_a_name_is_found(monkeypatch):
    short = [line.replace("vp_linear | vp_cosine |", "vp_linear |") for line in LINES]
    monkeypatch.setitem(globals(), "LINES", short)
    assert set(CHOICES["diffusion.schedule"]) - set(names("diffusion.schedule")) == {"vp_cosine"}


def test_every_corruption_has_a_chance():
    assert {key.removeprefix("data.chance.") for key in KEYS if key.startswith("data.chance.")} == CORRUPTIONS.keys()


def test_every_choice_and_every_key_that_a_spec_reads_is_a_key():
    assert CHOICES.keys() <= KEYS.keys()
    for key, table in {**CHOICES, "--mode": modes.MODES}.items():
        for name, spec in table.items():
            assert {*spec.reads} <= KEYS.keys(), f"{key}={name}"


def test_the_value_of_every_choice_is_a_name_of_its_registry():
    for key, table in CHOICES.items():
        value = KEYS[key]
        assert {*(value if isinstance(value, list) else [value])} <= table.keys(), key


def test_the_figures_of_a_list_are_named_where_a_list_sets_them():
    text = comment("figures", (ROOT / "configs" / "ablations" / "common.py").read_text().splitlines())
    assert sorted(LIST.search(text)[0].split(" | ")) == sorted(FIGURES)
