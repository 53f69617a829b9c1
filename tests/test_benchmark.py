"""The cost model of method.md section 5, by the compiler's own count of the compiled step."""

import json
import subprocess
import sys

import pytest

from tests.launching import ROOT, environment


def test_flops_of_the_variants_are_those_of_the_cost_model():
    """forward 1, input-only backward 1, full backward 2: DDPM 3, Robust_ran 6, Robust_adv 8 (clean forward reused)."""
    process = subprocess.run(
        [sys.executable, "-m", "advdiff_jax.benchmark", "--json", "--rounds=1", "--steps=1"],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    table = json.loads(process.stdout)["variants"]
    assert table["ddpm"]["flops_ratio"] == table["ddpm"]["seconds_ratio"] == 1.0
    assert table["robust_ran"]["flops_ratio"] == pytest.approx(2.00, abs=0.05)
    for variant in ("robust_adv", "robust_adv_cutoff", "invariance"):
        assert table[variant]["flops_ratio"] == pytest.approx(8 / 3, abs=0.07)
    for row in table.values():
        assert row.keys() == {"flops", "flops_ratio", "temp_bytes_ratio", "seconds", "seconds_ratio"}
        assert row["seconds"] > 0
        assert row["temp_bytes_ratio"] >= 1.0
