"""A name that is registered in its registry, and nowhere else, is trained, sampled, measured, ranked and reported."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from advdiff_jax.builders import closed_form
from advdiff_jax.builders.corruptions import CORRUPTIONS, CorruptionSpec
from advdiff_jax.builders.data import build_data
from advdiff_jax.builders.metrics import METRICS, MetricSpec
from advdiff_jax.builders.objectives import OBJECTIVES, ObjectiveSpec, build_denoising
from advdiff_jax.builders.outputs import Output
from advdiff_jax.builders.process import SAMPLERS, SamplerSpec, build_schedule
from advdiff_jax.builders.sources import SOURCES, SourceSpec
from advdiff_jax.builders.validate import resolve
from advdiff_jax.data.sources import Source
from advdiff_jax.errors import UserError
from advdiff_jax.evaluation import gain_figure
from advdiff_jax.modes import preview
from advdiff_jax.sweep import report
from advdiff_jax.sweep.figures import Moments
from advdiff_jax.sweep.run import expand, run_all
from configs import plane3d
from configs.ablations.common import list_of_runs

pytestmark = pytest.mark.usefixtures("unpainted")

TIME = 0.2
SHIFT = np.array([3.0, 0.0], np.float32)


def twice_the_loss(config, process, variance_loss, noise_floor):
    """An objective: denoising, counted twice."""
    plain = build_denoising(config, process, variance_loss)

    def objective(predict, keys, x0, t):
        loss, aux = plain(predict, keys, x0, t)
        return 2.0 * loss, aux

    return objective


def in_one_step(c, schedule, times):
    """A sampler: takes the start for a state at TIME, and ends with the estimate of x0."""
    del c, schedule, times
    return lambda denoise, keys, x: denoise(x, jnp.full(len(x), TIME)).x0


def two_clouds(c):
    """A source: points about (-1, 0) and (1, 0)."""

    def draw(rng, n):
        sides = rng.choice([-1.0, 1.0], (n, 1)) * np.array([1.0, 0.0])
        return (sides + np.array([0.1, 0.2]) * rng.standard_normal((n, 2))).astype(np.float32)

    return Source(draw(np.random.default_rng(c.seed), c.num_examples), draw)


@pytest.fixture
def toys(monkeypatch):
    """Registers a toy of each kind, of samplers two."""
    objective = ObjectiveSpec(twice_the_loss, reads=("criterion",), cost=lambda config: 5.0, closed_form=closed_form.no_penalty)
    metric = MetricSpec(
        lambda config, inputs: {"toy_score": 10.0 * config.baselines.gamma},
        {"toy_score": Output("how toy-like the samples are", "highest")},
        reads=("baselines.gamma",),
    )
    linear = SamplerSpec(in_one_step, reads=("sampling.eta",), stochastic=lambda c: False)
    source = SourceSpec(two_clouds, reads=("data.num_examples",))
    corruption = CorruptionSpec(lambda c, clean: lambda rng, x, index=0: x + SHIFT, reads=("data.blur_std",))
    monkeypatch.setitem(OBJECTIVES, "toy_objective", objective)
    monkeypatch.setitem(METRICS, "toy_metric", metric)
    monkeypatch.setitem(SAMPLERS, "toy_linear", linear)
    monkeypatch.setitem(SAMPLERS, "toy_bent", linear._replace(linear=False))
    monkeypatch.setitem(SOURCES, "toy_source", source)
    monkeypatch.setitem(CORRUPTIONS, "toy_corruption", corruption)


def toy_list():
    """Two runs that differ by the sampler, and by what the toy metric reads."""
    base = plane3d.get_config()
    overrides = {
        "data": {"source": "toy_source", "num_examples": 200, "corruptions": ("toy_corruption",), "fraction": 0.5},
        "network": {"width": 8, "depth": 1},
        "train": {"steps": 6, "batch_size": 16, "warmup_steps": 1, "log_every": 2},
        "sampling": {"batch_size": 8},
        "evaluation": {"metrics": ("toy_metric",), "diagnostics": ("gain", "overfitting"), "num_samples": 64},
    }
    base.update(overrides)
    runs = {
        f"toys/{name}": {
            "variant": "ddpm",
            "objective": "toy_objective",
            "sampling": {"method": f"toy_{name}"},
            "baselines": {"gamma": gamma},
        }
        for name, gamma in (("linear", 0.3), ("bent", 0.2))
    }
    return list_of_runs("toys", "Toys.", base, runs, seeds=(0,), metrics=("toy_score",), figures=("grid",))


def test_toy_names_need_their_registry_alone(toys, tmp_path, monkeypatch):
    curves, draw = [], gain_figure.draw_measured

    def draw_measured(stds, gains, shown, noise):
        curves.extend(shown)
        return draw(stds, gains, shown, noise)

    monkeypatch.setattr(gain_figure, "draw_measured", draw_measured)
    config = toy_list()
    page = run_all(config, tmp_path, "train", "0/1").read_text()

    results = {}
    for name in ("linear", "bent"):
        folder = tmp_path / "toys" / name / "seed_0"
        rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        assert [row["loss"] / row["denoising"] for row in rows] == pytest.approx([2.0] * 3, rel=1e-5)  # the toy objective
        results[name] = json.loads((folder / "results.json").read_text())
        assert results[name]["network_evaluations"] == 6 * 16 * 5.0  # its cost
        text = (folder / "report.html").read_text()
        assert "how toy-like the samples are" in text
        assert "training examples corrupted by toy_corruption" in text
        assert not [key for key in results[name] if key.startswith("overfitting")]  # it perturbs nothing
    assert {name: found["toy_score"] for name, found in results.items()} == pytest.approx({"linear": 3.0, "bent": 2.0})

    # The joint report: what the number means, and that the highest is the best.
    assert "how toy-like the samples are" in page
    assert "| linear | **3** |" in (tmp_path / "table.md").read_text()
    table = {name: {"toy_score": Moments(found["toy_score"], 0.0, 1)} for name, found in results.items()}
    assert report.best_of(table, "toy_score")({"linear": "linear", "bent": "bent"}) == "linear"
    assert (tmp_path / "plots" / "grid_toy_score.png").read_bytes().startswith(b"\x89PNG")

    # The gain under the toy sampler, of a linear model: that of its estimate of x0; and none where the sampler bends.
    linear, bent = curves
    schedule = build_schedule(config.base)
    expected = schedule.prior_std / schedule.alpha(TIME) * linear.stds / (schedule.noise_to_signal(TIME) ** 2 + linear.stds**2)
    np.testing.assert_allclose(linear.sampled, expected, rtol=1e-3)
    assert bent.sampled is None
    np.testing.assert_array_equal(bent.gain, linear.gain)


def test_a_toy_corruption_changes_the_examples_it_should_and_the_preview_describes_it(toys, tmp_path):
    first, _ = expand(toy_list())
    data = build_data(first.config)
    assert data.is_corrupted.mean() == pytest.approx(0.5, abs=0.15)
    np.testing.assert_array_equal(
        data.train, np.where(data.is_corrupted[:, None], data.source.train + SHIFT, data.source.train)
    )
    page = preview.run(first.config, tmp_path)
    numbers = json.loads((page.parent / "statistics.json").read_text())
    assert [numbers[f"change_rms{which}"] for which in ("", "_min", "_max")] == pytest.approx([3.0 / np.sqrt(2.0)] * 3)
    assert numbers["corrupted_fraction"] == data.is_corrupted.mean()
    assert "toy_source: " in page.read_text()
    assert f"{data.is_corrupted.mean():.0%} of 200 training examples corrupted by toy_corruption" in page.read_text()


def test_the_keys_that_a_toy_reads_may_be_overridden(toys):
    (run, _) = expand(toy_list())
    read = ["criterion", "baselines.gamma", "sampling.eta", "data.num_examples", "data.blur_std"]
    resolve(run.config, read)
    for unread in ("robust.lazy_interval", "sampling.steps", "data.half_width", "data.noise_std"):
        with pytest.raises(UserError, match=f"{unread}=.* would not be read"):
            resolve(run.config, [unread])
