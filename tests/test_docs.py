"""README and docs against the code: every name, path, key and link exists, and the code that is shown is the code that runs."""

import importlib.util
import pathlib
import re

import numpy as np
import pytest

import advdiff_jax
from advdiff_jax import modes
from advdiff_jax.builders.attack import SAMPLERS as ATTACKED
from advdiff_jax.builders.corruptions import CORRUPTIONS
from advdiff_jax.builders.diagnostics import DIAGNOSTICS
from advdiff_jax.builders.gain import build_closed_form, gain_curve
from advdiff_jax.builders.metrics import METRICS
from advdiff_jax.builders.operators import OPERATORS
from advdiff_jax.builders.outputs import COSTS
from advdiff_jax.builders.restored import RESTORED
from advdiff_jax.builders.restorers import RESTORERS
from advdiff_jax.builders.sources import SOURCES
from advdiff_jax.builders.steps import evaluations
from advdiff_jax.builders.validate import CHOICES, resolve
from advdiff_jax.diffusion.parameterization import PARAMETERIZATIONS
from advdiff_jax.sweep.report import FIGURES
from advdiff_jax.sweep.run import expand
from advdiff_jax.workdir import flatten
from configs import default, plane3d
from configs.variants import VARIANTS

ROOT = pathlib.Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
TEXT = {path.relative_to(ROOT).as_posix(): path.read_text() for path in PAGES}
KEYS = flatten(default.get_config())

every_page = pytest.mark.parametrize("page", TEXT)


def blocks(page, language):
    """The fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", TEXT[page], re.MULTILINE | re.DOTALL)


def spans(text):
    """What stands between backticks within a line, outside fenced blocks."""
    return re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL))


def section(page, heading):
    """The text of a page from a heading to the next one of its level."""
    return re.search(rf"^## {heading}\n(.*?)(?=^## |\Z)", TEXT[page], re.MULTILINE | re.DOTALL).group(1)


def launches(page):
    """The arguments of the commands of a page that call launch.py, without comments."""
    joined = "\n".join(blocks(page, "sh")).replace("\\\n", " ")
    return [line.partition("#")[0].partition("launch.py ")[2] for line in joined.splitlines() if "launch.py" in line]


# --- README ---------------------------------------------------------------------------------------------------------------


def test_readme_is_short_and_begins_with_the_two_commands():
    assert len((ROOT / "README.md").read_bytes()) <= 6144
    first = re.search(r"```sh\n(.*?)```", TEXT["README.md"], re.DOTALL).group(1).splitlines()
    assert [line.partition("#")[0].strip() for line in first] == ["make demo", "make test"]
    assert all("#" in line for line in first)


def test_equation_9_is_shown_as_the_code_has_it():
    code = (line.strip() for line in (ROOT / "advdiff_jax/objectives/robust.py").read_text().splitlines())
    (shown,) = [block for block in blocks("README.md", "python") if "eq. 9" in block]
    lines = [line.strip() for line in shown.splitlines() if line.strip() not in ("", "...")]
    assert len(lines) >= 8
    for line in lines:
        assert line in code, f"{line!r} is not in robust.py, or in another order"  # `in` consumes: the order counts


def test_every_variant_is_in_the_readme_and_the_cost_is_right():
    assert VARIANTS.keys() <= set(spans(section("README.md", "Variants")))
    config = resolve(plane3d.get_config("robust_fast"))
    steps = config.train.steps
    assert evaluations(config, steps) / (3.0 * steps) == pytest.approx(1.08, abs=0.005)


def test_every_extension_names_a_registry_and_files_that_exist():
    for kind in ("Data set", "Corruption", "Objective", "Sampler", "Metric"):
        (bullet,) = re.findall(rf"^- \*\*{kind}\*\*: (.*?)(?=^- |^$)", TEXT["README.md"], re.MULTILINE | re.DOTALL)
        assert re.search(r"a line in `[A-Z]+` \(`builders/\w+\.py`\)", " ".join(bullet.split())), kind


# --- examples -------------------------------------------------------------------------------------------------------------


def test_the_example_with_ones_own_network_removes_noise_and_keeps_the_data():
    (program,) = blocks("docs/library.md", "python")
    names = {}
    exec(compile(program, "docs/library.md", "exec"), names)
    along, across = np.array([0.6, 0.8]), np.array([0.8, -0.6])
    samples, data = np.asarray(names["samples"]), np.asarray(names["data"])
    rms = lambda x: float(np.sqrt(np.mean(x**2)))
    assert samples.shape == (1000, 2)
    assert rms(data @ across) == pytest.approx(0.1 * np.sqrt(0.9), rel=0.03)  # 90 % of the data carry noise of std 0.1
    assert rms(samples @ across) < 0.4 * rms(data @ across)
    assert np.std(samples @ along) == pytest.approx(np.std(names["clean"] @ along), rel=0.12)
    assert np.abs(np.mean(samples, axis=0)).max() < 0.08


def test_the_list_of_runs_that_is_shown_expands():
    (program,) = blocks("docs/ablations.md", "python")
    names = {}
    exec(compile(program, "docs/ablations.md", "exec"), names)
    runs = expand(names["get_config"]())
    assert len(runs) == 2 * 4 * 3
    assert {(one.config.robust.cut, one.config.data.noise_std) for one in runs if one.label == "s20/cut_025"} == {(0.025, 0.2)}


def test_the_table_of_gains_is_that_of_the_code():
    rows = [line.strip("| ").split(" | ") for line in TEXT["docs/method.md"].splitlines() if line.startswith("| ")]
    heads, *table = [row for row in rows if len(row) == 8]
    assert heads[0].startswith("gain T(s)")
    assert len(table) == 7
    settings = {"lambda": "robust.lam", "kappa0": "robust.kappa0", "cut": "robust.cut"}
    for name, *gains in table:
        config = plane3d.get_config(re.match(r"`(\w+)`", name).group(1))
        for word, value in re.findall(r"(lambda|kappa0|cut) ([\d.]+)", name):
            config.update_from_flattened_dict({settings[word]: float(value)})
        if "noise units" in name:
            config.robust.radius = "noise_units"
        found = gain_curve(build_closed_form(resolve(config), lambda: None), np.array(heads[1:], float))
        np.testing.assert_allclose(found, np.array(gains, float), atol=0.0051, err_msg=name)


# --- names ----------------------------------------------------------------------------------------------------------------


@every_page
def test_every_file_exists(page):
    named = re.findall(r"\b(?:configs|advdiff_jax|benchmarks|docs|tests)/[\w./]*\w", TEXT[page])
    named += [span for span in spans(TEXT[page]) if re.fullmatch(r"[\w/]+\.(py|txt|cfg)", span)]
    assert named
    places = [ROOT, ROOT / "advdiff_jax", ROOT / "advdiff_jax/objectives"]
    assert not [name for name in named if not any((place / name).exists() for place in places)]


def anchors(file):
    """The anchors that GitHub gives the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", file.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@every_page
def test_every_link_resolves(page):
    broken = []
    for link in re.findall(r"\]\(([^)]+)\)", TEXT[page]):
        path, _, anchor = link.partition("#")
        file = (ROOT / page).parent / path if path else ROOT / page
        if "://" not in link and not (file.exists() and (not anchor or anchor in anchors(file))):
            broken.append(link)
    assert broken == []


@every_page
def test_every_config_key_exists(page):
    sections = {".".join(key.split(".")[:depth]) for key in KEYS for depth in (1, 2)}
    known = {*KEYS, *sections, "json", "base"}
    named = set(re.findall(r"\bconfig\.((?:base\.)?[a-z]\w*(?:\.\w+)*)", TEXT[page])) - {"base.a.b", "a.b"}
    assert not [key for key in named if key.removeprefix("base.") not in known]
    for key, value in re.findall(r"\bconfig\.([a-z][\w.]*)=\"?([\w.]+)\"?", TEXT[page]):
        if key in CHOICES:
            assert value in CHOICES[key], f"{key}={value}"


@every_page
def test_every_variant_exists(page):
    named = set(re.findall(r"\bconfigs/\w+\.py:(\w+)", TEXT[page]))
    looks_like_one = re.compile(r"(robust|ambient|ddpm)_\w+|ddpm|at_diff|jvp|invariance|pseudo_huber|huber|gsure")
    named |= {span for span in spans(TEXT[page]) if looks_like_one.fullmatch(span)}
    assert named <= VARIANTS.keys() | ATTACKED.keys()  # whose samplers are named alike


@every_page
def test_every_command_can_be_given(page):
    flags = set(re.findall(r"DEFINE_\w+\(\s*\"(\w+)\"", (ROOT / "launch.py").read_text()))
    assert {"config", "mode"} <= flags
    for command in launches(page):
        assert re.search(r"--config=configs/\S+\.py|--mode=compare ", command), (
            command
        )  # compare takes its configs from the runs
        assert set(re.findall(r"--(\w+)", command)) <= flags, command
    assert set(re.findall(r"--mode=(\w+)", TEXT[page])) <= modes.MODES.keys()
    for module in re.findall(r"python -m ([\w.]+)", TEXT[page]):
        assert importlib.util.find_spec(module), module


@every_page
def test_every_registry_is_in_its_file(page):
    text = " ".join(TEXT[page].split())
    for name, path in re.findall(r"`([A-Z]{4,})`(?: \(| in )`([\w/]+\.py)`", text):
        file = next(place / path for place in (ROOT, ROOT / "advdiff_jax") if (place / path).exists())
        assert re.search(rf"^{name}\b.* = \{{", file.read_text(), re.MULTILINE), f"{name} in {path}"


@pytest.mark.parametrize(
    ("page", "table"),
    [
        ("docs/data.md", SOURCES),
        ("docs/data.md", CORRUPTIONS),
        ("docs/data.md", RESTORED),
        ("docs/evaluation.md", METRICS),
        ("docs/evaluation.md", DIAGNOSTICS),
        ("docs/evaluation.md", COSTS),
        ("docs/restore.md", OPERATORS),
        ("docs/restore.md", RESTORERS),
    ],
)
def test_every_name_of_a_registry_is_explained(page, table):
    known = set(spans(TEXT[page]))
    assert not [name for name in table if name not in known]
    outputs = [name for spec in table.values() for name in getattr(spec, "outputs", ())]
    named = [name for name in outputs if "*" not in name and not name.endswith(("_clean", "_dirty"))]
    assert not [name for name in named if name not in known]


def test_every_figure_of_a_list_and_every_config_is_explained():
    assert {f'"{name}"' for name in FIGURES} <= set(spans(TEXT["docs/ablations.md"]))
    lists = {f"configs/ablations/{path.name}" for path in (ROOT / "configs/ablations").glob("*.py")} - {
        "configs/ablations/__init__.py"
    }
    assert lists <= set(spans(TEXT["docs/ablations.md"]))
    data_sets = {f"configs/{path.name}" for path in (ROOT / "configs").glob("*.py") if "data.source = " in path.read_text()}
    assert data_sets - {"configs/default.py"} <= set(spans(TEXT["docs/data.md"]))


def test_every_part_that_the_library_offers_exists():
    program = "\n".join(path.read_text() for path in (ROOT / "advdiff_jax").rglob("*.py"))
    offered = section("docs/library.md", "What to exchange").partition("\nImages")[0]
    for span in spans(offered):
        if span.startswith('"'):
            assert span.strip('"') in PARAMETERIZATIONS
        elif "/" not in span:
            name = re.match(r"(?:steps\.)?(\w+)", span).group(1)
            assert re.search(rf"^(?:def|class) {name}\b|^{name}\b.* = ", program, re.MULTILINE), name


def test_the_citation_is_of_this_version():
    citation = (ROOT / "CITATION.cff").read_text()
    assert re.search(r"^version: (.+)$", citation, re.MULTILINE).group(1) == advdiff_jax.__version__
    for part in ("license: Apache-2.0", "name: advdiff_jax contributors", "2505.21742", "year: 2026"):
        assert part in citation
