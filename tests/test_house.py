"""The house rules that a program can check: which part may import which, and how large some things may be."""

import ast
import functools
import pathlib
import subprocess
import sys

import pytest

from tests.launching import ROOT

PACKAGE = ROOT / "advdiff_jax"
ROOT_MODULES = {"errors", "rng", "cache", "workdir"}
LIBRARY = {
    "diffusion",
    "networks",
    "perturbation",
    "data",
    "objectives",
    "sampling",
    "training",
    "evaluation",
    "features",
    "interop",
    "noise",
}

# What a part may import of the package, beside itself and what all may: `errors` and `rng`. Imports point one way.
MAY_IMPORT = {
    "errors": set(),
    "rng": set(),
    "cache": set(),
    "features": {"data", "cache", "interop", "networks"},  # of trained networks, and of weights in safe formats
    "workdir": set(),
    "diffusion": set(),
    "networks": set(),
    "perturbation": set(),
    "data": set(),
    "interop": {"diffusion", "networks"},
    "noise": {"data"},
    "objectives": {"diffusion", "perturbation", "data"},
    "sampling": {"diffusion", "perturbation", "data"},
    "training": {"objectives", "data", "diffusion", "perturbation"},
    "evaluation": {"sampling", "objectives", "perturbation", "diffusion", "data", "features"},
    "builders": LIBRARY | ROOT_MODULES,
    "modes": LIBRARY | ROOT_MODULES | {"builders"},
    "sweep": LIBRARY | ROOT_MODULES | {"builders", "modes"},
}


@functools.cache
def modules() -> dict[str, pathlib.Path]:
    """Returns dotted name -> file of every module of the package."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@functools.cache
def imports(name: str) -> frozenset[str]:
    """Returns all that a module imports, also inside functions: modules of the package, and others by their first name."""
    found = set()
    for node in ast.walk(ast.parse(modules()[name].read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{name} has a relative import"
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {one if one in modules() else node.module for one in names}
    return frozenset(one if one in modules() else one.partition(".")[0] for one in found)


def closure(name: str) -> set[str]:
    """Returns the modules of the package that importing `name` imports, itself among them."""
    found, pending = set(), [name]
    while pending:
        one = pending.pop()
        if one not in found:
            found.add(one)
            pending += [other for other in imports(one) if other in modules()]
            pending += [parent] if (parent := one.rpartition(".")[0]) else []
    return found


def part(name: str) -> str:
    return name.split(".")[1] if "." in name else ""


def test_the_walker_sees_what_python_imports():
    assert {"advdiff_jax.builders.registry", "ml_collections", "copy"} <= imports("advdiff_jax.builders.corruptions")
    assert "sklearn" in imports("advdiff_jax.data.sources")  # inside a function
    assert "advdiff_jax.data.pixels" in closure("advdiff_jax.modes.train")


@pytest.mark.parametrize("name", MAY_IMPORT)
def test_imports_point_one_way(name):
    allowed = MAY_IMPORT[name] | {name, "errors", "rng"}
    wrong = {
        f"{module} imports {other}"
        for module in modules()
        if part(module) == name
        for other in imports(module)
        if other in modules() and part(other) not in allowed
    }
    assert wrong == set()


def test_every_part_has_its_rule():
    assert {part(name) for name in modules()} - {""} == MAY_IMPORT.keys()


def test_data_are_read_without_the_rest():
    """The readers of files are imported by the source that needs them: these are what every run imports to get its data."""
    everything = closure("advdiff_jax.builders.data")
    assert {part(name) for name in everything} - {""} <= {"builders", "data", "cache", "errors", "rng"}
    program = "import sys, advdiff_jax.builders.data; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    found = {name for name in loaded if name in modules() and modules()[name].name != "__init__.py"}
    assert "advdiff_jax.data.corruption" in found
    assert found < everything
    readers = ("decoding", "folder", "foreign", "jpeg", "png_colour", "raw_readers", "tfds_source")
    assert not found & {f"advdiff_jax.data.{name}" for name in readers}


def test_the_package_knows_no_config_file():
    known = {"configs", "benchmarks", "tests", "launch"}
    assert {name: found for name in modules() if (found := imports(name) & known)} == {}


def test_the_command_line_is_parsed_without_jax():
    """A typing mistake should not cost the seconds of that import."""
    found = {one for name in closure("advdiff_jax.modes") for one in imports(name)}
    assert not found & {"jax", "flax", "optax", "numpy"}


def test_the_root_of_the_package_is_small():
    assert len([path for path in PACKAGE.iterdir() if path.is_file()]) <= 6


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_bytes()) <= 6 * 1024


def test_files_are_short():
    lines = {name: len(path.read_text().splitlines()) for name, path in modules().items()}
    assert {name: count for name, count in lines.items() if count > 330} == {}
