"""The penalty means the same in every process and every prediction: the same kappa, invariance of x0hat."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from advdiff_jax.diffusion.gain import SLOPES
from advdiff_jax.diffusion.parameterization import PARAMETERIZATIONS, denoiser, edm, inputs
from advdiff_jax.objectives import weights
from advdiff_jax.objectives.controls import shift_of_state, shift_of_x0
from advdiff_jax.objectives.robust import robust, shift_of_eps
from advdiff_jax.perturbation import radius
from advdiff_jax.perturbation.adversarial import adversarial
from advdiff_jax.perturbation.ball import LINF
from advdiff_jax.perturbation.random import random
from advdiff_jax.sampling import steps
from advdiff_jax.sampling.sample import sample
from tests.processes import ALL
from tests.slopes import linear, vertex

PREDICTIONS = PARAMETERIZATIONS | {"edm": edm(0.3)}
STD = 0.3


def _best_slope(schedule, parameterization, perturb, weight, u, n=40_000, shift_of=shift_of_eps):
    """Finds the slope that minimises the objective at one noise level: a parabola through three values."""
    t = schedule.time(jnp.full((n,), u))
    objective = robust(schedule, parameterization, radius.state_units(), perturb, weight, shift_of=shift_of)
    keys = jax.random.split(jax.random.key(0), n)
    x0 = STD * jax.random.normal(jax.random.key(1), (n, 1))

    @jax.jit
    def loss(slope):
        return jnp.mean(objective(linear(schedule, parameterization, slope), keys, x0, t)[0])

    return vertex(loss)


CASES = (
    [(process, "eps") for process in ALL]
    + [("vp_linear", name) for name in PREDICTIONS if name != "eps"]
    + [("edm", "edm"), ("ve", "v"), ("flow", "flow"), ("sub_vp", "x0")]
)


@pytest.mark.parametrize(("process", "prediction"), CASES)
def test_kappa_is_that_of_the_closed_form(process, prediction):
    """Optimal x0hat = s~^2 / (s~^2 + u^2) y with s~^2 = s^2 / (1 + kappa), kappa = lambda sqrt(3) r / (3 sigma^2)."""
    u = 0.2
    sigma = u / np.hypot(u, 1.0)
    r = sigma**2 + 8 / 255
    kappa = 0.3 * np.sqrt(3.0) / r * r**2 / 3.0 / sigma**2
    variance = STD**2 / (1.0 + kappa)
    found = _best_slope(ALL[process], PREDICTIONS[prediction], random(LINF), weights.paper(0.3), u)
    assert found == pytest.approx(variance / (variance + u**2), rel=0.02)


@pytest.mark.parametrize(("process", "prediction"), [("vp_linear", "eps"), ("edm", "v")])
def test_the_literal_reading_of_equation_9_has_its_closed_form(process, prediction):
    """State and target move by delta: a = (sigma + lambda m) / (alpha^2 s^2 + sigma^2 + lambda m) in the VP process."""
    u = 0.7
    alpha, sigma = np.array([1.0, u]) / np.hypot(u, 1.0)
    r = sigma**2 + 8 / 255
    lam_m = 0.3 * np.sqrt(3.0) / r * r**2 / 3.0
    a = (sigma + lam_m) / (alpha**2 * STD**2 + sigma**2 + lam_m)
    assert SLOPES["neither"](u**2, STD**2, lam_m / sigma**2) == pytest.approx(sigma * a)
    found = _best_slope(ALL[process], PREDICTIONS[prediction], random(LINF), weights.paper(0.3), u, shift_of=shift_of_state)
    assert found == pytest.approx(1.0 - sigma * a, rel=0.03)


@pytest.mark.parametrize("process", ["vp_linear", "edm"])
def test_a_cutoff_sets_kappa_itself(process):
    """The weight divides by the energy drawn: FGSM and random alike shrink by kappa0 / (1 + (u / cut)^4)."""
    kappa = 5.0 / (1.0 + (0.2 / 0.15) ** 4)
    variance = STD**2 / (1.0 + kappa)
    found = _best_slope(ALL[process], PREDICTIONS["eps"], adversarial(LINF), weights.cutoff(5.0, 0.15), 0.2)
    assert found == pytest.approx(variance / (variance + 0.04), rel=0.02)


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("process", ["sub_vp", "ve"])
def test_a_constant_x0hat_has_no_residual(process, prediction):
    """Equivariance is invariance of x0hat: a constant x0hat has no residual, except under the control."""
    schedule, parameterization = ALL[process], PREDICTIONS[prediction]
    n = 64
    t, keys = schedule.time(jnp.geomspace(0.1, 5.0, n)), jax.random.split(jax.random.key(2), n)
    x0 = jax.random.normal(jax.random.key(3), (n, 3))
    build = {"radius": radius.state_units(), "perturb": random(LINF), "weight": weights.paper()}
    predict = linear(schedule, parameterization, 0.0)
    equivariant = robust(schedule, parameterization, **build)(predict, keys, x0, t)[1]
    control = robust(schedule, parameterization, shift_of=shift_of_x0, **build)(predict, keys, x0, t)[1]
    assert np.max(equivariant["residual"] / control["residual"]) < 1e-4


@pytest.mark.parametrize("process", ["ve", "edm", "flow", "sub_vp"])
def test_the_same_network_samples_the_same_data_in_every_process(process):
    """A network that sees VP units and log_noise is one function everywhere: from the same start to the same end."""

    def run(name):
        schedule, parameterization = ALL[name], PREDICTIONS["eps"]
        feed = inputs(schedule, parameterization, "log_noise")

        def predict(x, t):
            state, time = feed(x, t)
            return jnp.sin(state) * jnp.tanh(time)[:, None]  # stands for any network

        levels = jnp.array([10.0, 3.0, 1.0, 0.3, 0.1])
        times = jnp.append(schedule.time(levels), 0.0)
        start = schedule.scale(times[0]) * jax.random.normal(jax.random.key(4), (8, 2))
        denoise = denoiser(schedule, parameterization, predict)
        return sample(denoise, jax.random.split(jax.random.key(5), 8), start, times, steps.edm(schedule))

    np.testing.assert_allclose(run(process), run("vp_linear"), atol=2e-3)
