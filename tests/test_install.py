"""A wheel holds the package, the program and the configs, and its command runs from any folder without a checkout."""

import json
import shutil
import subprocess
import sys

import pytest

from tests.launching import ROOT, TINY, environment

HELD = {"advdiff_jax": "advdiff_jax", "configs": "advdiff_command/configs"}  # folder here -> folder in the wheel


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The folder of an installed wheel, built from a copy, because a build leaves files beside its sources."""
    copy, wheels, folder = (tmp_path_factory.mktemp(name) for name in ("copy", "wheels", "installed"))
    for name in ("advdiff_jax", "configs"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("launch.py", "setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    offline = ["--quiet", "--no-deps", "--no-index", "--disable-pip-version-check"]
    pip = [sys.executable, "-m", "pip"]
    subprocess.run([*pip, "wheel", *offline, "--no-build-isolation", "--wheel-dir", wheels, copy], check=True)
    (wheel,) = wheels.iterdir()
    subprocess.run([*pip, "install", *offline, "--no-compile", "--target", folder, wheel], check=True)
    return folder


def advdiff(installed, cwd, *args):
    """Runs the console command from another folder; the checkout is not on the path."""
    env = environment() | {"PYTHONPATH": str(installed)}
    command = [sys.executable, installed / "bin" / "advdiff", *map(str, args)]
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=240, check=False)


def test_a_wheel_holds_every_file_of_the_package_and_the_configs(installed):
    for here, there in HELD.items():
        files = {path.relative_to(ROOT / here) for path in (ROOT / here).rglob("*") if path.suffix in (".py", ".j2")}
        found = {
            path.relative_to(installed / there) for path in (installed / there).rglob("*") if path.suffix in (".py", ".j2")
        }
        assert found == files
    tops = {path.name for path in installed.iterdir()} - {"bin"}
    assert {name for name in tops if not name.endswith(".dist-info")} == {"advdiff_jax", "advdiff_command"}


def test_the_command_runs_as_launch_py_does(installed, tmp_path):
    """Workers too: they are started anew and import the command."""
    args = (
        *TINY,
        "--config.data.num_workers=1",
        "--config.evaluation.metrics=('plane',)",
        "--config.evaluation.field_levels=()",
    )
    process = advdiff(installed, tmp_path, "--config=configs/plane3d.py:robust_ran", *args)
    assert process.returncode == 0, process.stderr
    assert process.stdout.splitlines()[-1] == f"open {tmp_path}/runs/plane3d-robust_ran/report.html"
    assert json.loads((tmp_path / "runs/plane3d-robust_ran/results.json").read_text())["off_plane_rms"] > 0.0


def test_a_config_of_ones_own_extends_the_shipped_ones(installed, tmp_path):
    text = "from configs.ablations import plane3d_variants\n\n\ndef get_config():\n    return plane3d_variants.get_config()\n"
    (tmp_path / "mine.py").write_text(text)
    process = advdiff(installed, tmp_path, "--config=mine.py", "--config.base.robust.nonsense=1")
    assert process.returncode == 2
    assert process.stderr.startswith("error: no such key: 'nonsense'")
    process = advdiff(installed, tmp_path, "--config=configs/nowhere.py")
    assert process.returncode == 2
    assert "set one of configs/ablations/anomaly.py, " in process.stderr
