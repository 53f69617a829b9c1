"""The comments of configs/default.py name what the registries hold, and every key that a spec reads is a key of a config."""

import re

import pytest

from advdiff_jax import modes, workdir
from advdiff_jax.builders.data import CORRUPTIONS
from advdiff_jax.builders.validate import CHOICES
from configs import default
from tests.launching import ROOT

KEYS = workdir.flatten(default.get_config())
LINES = (ROOT / "configs" / "default.py").read_text().splitlines()
# Lists of two or more names, "a | b | c"; and what a comment says instead of a list that another key has.
LIST, SAME_AS = re.compile(r"\w+(?: \| \w+)+"), re.compile(r"a name of ([\w.]+)")


def comment(key):
    """Returns what is written above and beside the line that sets `key`, without what stands in brackets."""
    section, _, leaf = key.rpartition(".")
    (at,) = [i for i, line in enumerate(LINES) if line.startswith(f"    {section or 'config'}.{leaf} = ")]
    found = [LINES[at].partition("  # ")[2]]
    while LINES[at - 1].startswith("    # "):
        at -= 1
        found.insert(0, LINES[at].removeprefix("    # "))
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


@pytest.mark.parametrize("key", [key for key, table in CHOICES.items() if not all(isinstance(name, bool) for name in table)])
def test_the_comment_of_a_choice_lists_the_names_of_its_registry(key):
    assert sorted(names(key)) == sorted(CHOICES[key])


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
