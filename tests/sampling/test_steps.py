"""Step rules with exact scores: orders of convergence, moments, EDM's own algorithm, shared limits."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from advdiff_jax import rng
from advdiff_jax.diffusion import exact
from advdiff_jax.diffusion.parameterization import Denoised
from advdiff_jax.errors import InvalidArgument
from advdiff_jax.sampling import grids, steps
from advdiff_jax.sampling.sample import prior, sample
from tests.processes import ALL, CONTINUOUS

MEAN, COVARIANCE = np.array([0.3, -0.2]), np.array([[0.5, 0.2], [0.2, 0.3]])
GAUSSIAN = exact.gaussian(MEAN, COVARIANCE)
MIXTURE = exact.mixture(
    np.array([0.3, 0.7]), np.array([[0.8, 0.2], [-0.5, -0.4]]), np.stack([0.1 * np.eye(2), np.diag([0.05, 0.2])])
)
DISTRIBUTIONS = {"gaussian": GAUSSIAN, "mixture": MIXTURE}
RULES = {
    "ancestral_small": steps.ancestral,
    "ancestral_large": lambda s: steps.ancestral(s, "large"),
    "ddim": steps.ddim,
    "ddim_eta": lambda s: steps.ddim(s, 0.7),
    "euler_maruyama": steps.euler_maruyama,
    "predictor_corrector": lambda s: steps.predictor_corrector(s, steps.euler_maruyama(s)),
    "euler": lambda s: steps.edm(s, order=1),
    "heun": lambda s: steps.edm(s, order=2),
    "heun_churn": lambda s: steps.edm(s, order=2, gamma=0.1, churn_noise=1.0),
    "dpm_solver_2m": steps.dpm_solver_2m,
}


def _keys(n, seed=0):
    return jax.random.split(jax.random.key(seed), n)


def _run(distribution, schedule, rule, times, x, trajectory=False):
    denoise = exact.denoiser(distribution, schedule)
    return jax.jit(lambda x: sample(denoise, _keys(len(x)), x, times, rule(schedule), trajectory))(x)


@functools.cache
def _fine(name, process, n):
    """Computes the flow of n fixed starts on a grid that is at least 8 times as fine as any under test."""
    schedule = CONTINUOUS[process]
    x = prior(_keys(n, 1), (2,), schedule.prior_std)
    return x, _run(DISTRIBUTIONS[name], schedule, RULES["heun"], _open(1024, schedule), x)


def _open(n, schedule):
    return grids.edm(n, schedule)[:-1]  # without the last step, to sigma = 0, whose order differs


@pytest.mark.parametrize(
    ("process", "name"), [("vp_linear", "gaussian"), ("vp_linear", "mixture"), ("edm", "mixture"), ("flow", "gaussian")]
)
@pytest.mark.parametrize(("rule", "order"), [("euler", 1), ("heun", 2), ("dpm_solver_2m", 2)])
def test_order_of_convergence(process, name, rule, order):
    """The mean error over 64 starts falls as steps^-order when the number of steps doubles."""
    schedule = CONTINUOUS[process]
    x, end = _fine(name, process, 64)
    counts = (64, 128) if order == 1 else (48, 96)
    ends = [_run(DISTRIBUTIONS[name], schedule, RULES[rule], _open(n + 1, schedule), x) for n in counts]
    coarse, fine = (float(np.mean(np.linalg.norm(found - end, axis=1))) for found in ends)
    assert np.log2(coarse / fine) == pytest.approx(order, abs=0.25), (coarse, fine)


def test_gaussian_end_is_the_closed_form():
    """The flow of N(m, s^2) keeps (x - alpha m) / std; the grid's last step, from u = 0.01, errs by 5e-4."""
    schedule = CONTINUOUS["vp_linear"]
    distribution = exact.gaussian(np.array([0.4]), np.array([[0.09]]))
    x = prior(_keys(50, 2), (1,), 1.0)
    end = _run(distribution, schedule, RULES["heun"], grids.edm(400, schedule), x)
    std = np.hypot(0.3 * schedule.alpha(jnp.float32(1.0)), schedule.sigma(jnp.float32(1.0)))
    np.testing.assert_allclose(end, 0.4 + 0.3 * (x - 0.4 * schedule.alpha(jnp.float32(1.0))) / std, atol=6e-4)


@pytest.mark.parametrize(
    ("process", "rule"),
    [("vp_linear", rule) for rule in RULES]
    + [
        ("ddpm_grid", "euler_maruyama"),
        ("ve", "ancestral_large"),
        ("ve", "predictor_corrector"),
        ("edm", "heun_churn"),
        ("edm", "dpm_solver_2m"),
    ]
    + [("sub_vp", "euler_maruyama"), ("flow", "ddim_eta")],
)
def test_moments_within_sampling_error(rule, process):
    """After 200 steps 10,000 samples have the data's mean and covariance, to four standard errors and the rule's bias."""
    schedule, n = ALL[process], 10_000
    x = prior(_keys(n, 3), (2,), schedule.prior_std)
    out = np.asarray(_run(GAUSSIAN, schedule, RULES[rule], grids.edm(200, schedule), x), np.float64)
    bias = 0.02  # of a first-order rule after 200 steps
    np.testing.assert_allclose(out.mean(0), MEAN, atol=4 * np.sqrt(0.5 / n))
    np.testing.assert_allclose(np.cov(out.T), COVARIANCE, atol=4 * 0.5 * np.sqrt(2 / n) + bias)


def _algorithm_2(denoise, sigmas, x, noises, churn, churn_min, churn_max, churn_noise):
    """Runs algorithm 2 of Karras et al. 2022 line by line, in float64."""
    count = len(sigmas) - 1
    for i in range(count):
        gamma = min(churn / count, np.sqrt(2) - 1) if churn_min <= sigmas[i] <= churn_max else 0.0
        raised = sigmas[i] + gamma * sigmas[i]
        x_hat = x + np.sqrt(raised**2 - sigmas[i] ** 2) * churn_noise * noises[i]
        d = (x_hat - denoise(x_hat, raised)) / raised
        x = x_hat + (sigmas[i + 1] - raised) * d
        if sigmas[i + 1] != 0:
            d_next = (x - denoise(x, sigmas[i + 1])) / sigmas[i + 1]
            x = x_hat + (sigmas[i + 1] - raised) * (0.5 * d + 0.5 * d_next)
    return x


@pytest.mark.parametrize("churn", [0.0, 20.0])
def test_heun_is_edms_algorithm_2(churn):
    """Both agree to 1e-5 on EDM's process and grid, given the same denoiser and the same noise."""
    schedule, n, count = CONTINUOUS["edm"], 16, 18
    times = grids.edm(count, schedule)
    x = prior(_keys(n, 4), (2,), schedule.prior_std)

    def shrink(y, sigma):  # any smooth function of state and noise level will do
        return np.tanh(y) / (1.0 + sigma**2) if isinstance(y, np.ndarray) else jnp.tanh(y) / (1.0 + sigma**2)

    def denoise(x, t):
        sigma = schedule.sigma(t)[:, None]
        x0 = shrink(x, sigma)
        return Denoised(x0, (x - x0) / sigma)

    gamma = min(churn / count, np.sqrt(2) - 1)
    out = sample(denoise, _keys(n), x, times, steps.edm(schedule, 2, gamma, 0.05, 50.0, 1.003))
    noises = [np.asarray(rng.normal(rng.fold_in(_keys(n), i), x), np.float64) for i in range(count)]
    sigmas = 80.0 * np.asarray(times, np.float64)
    wanted = _algorithm_2(shrink, sigmas, np.asarray(x, np.float64), noises, churn, 0.05, 50.0, 1.003)
    np.testing.assert_allclose(out, wanted, atol=1e-5, rtol=1e-5)


def test_heun_evaluates_the_network_twice_a_step_and_once_in_the_last():
    schedule, levels = CONTINUOUS["edm"], []

    def denoise(x, t):
        jax.debug.callback(lambda t: levels.append(float(t)), t[0])
        return Denoised(0.5 * x, x)

    times = grids.edm(5, schedule)
    sample(denoise, _keys(3), jnp.ones((3, 2)), times, steps.edm(schedule)).block_until_ready()
    jax.effects_barrier()
    assert sorted(levels) == pytest.approx(sorted([*times[:-1], *times[1:-1]]))


@pytest.mark.parametrize("process", ["vp_linear", "edm"])
def test_rules_share_their_limits(process):
    """DDIM is Euler without churn; DDIM with eta = 1 is the ancestral step; no correction leaves the predictor."""
    schedule = CONTINUOUS[process]
    x, times = prior(_keys(32, 5), (2,), schedule.prior_std), grids.edm(10, schedule)
    for t, s in (times[:2], times[4:6], times[-2:]):
        step = lambda rule: rule.update(exact.denoiser(MIXTURE, schedule), _keys(32), (), x, t, s)[0]  # noqa: B023
        ddim = step(steps.ddim(schedule))
        np.testing.assert_allclose(step(RULES["euler"](schedule)), ddim, atol=2e-4, rtol=2e-4)
        uncorrected = steps.predictor_corrector(schedule, steps.ddim(schedule), corrections=0)
        np.testing.assert_array_equal(step(uncorrected), ddim)
        ancestral = step(steps.ancestral(schedule))
        np.testing.assert_allclose(step(steps.ddim(schedule, 1.0)), ancestral, atol=2e-4, rtol=2e-4)


@pytest.mark.parametrize(("raw", "variance"), [(-1.0, "small"), (1.0, "large")])
def test_learned_variance_lies_between_ddpms_two(raw, variance):
    schedule = ALL["ddpm_grid"]
    denoise = exact.denoiser(GAUSSIAN, schedule)

    def learned(x, t):
        return denoise(x, t)._replace(variance=jnp.full(x.shape, raw))

    x, times = prior(_keys(32, 6), (2,), 1.0), grids.ddpm(20, 1000)
    out = sample(learned, _keys(32), x, times, steps.ancestral(schedule, "learned"))
    np.testing.assert_allclose(out, sample(denoise, _keys(32), x, times, steps.ancestral(schedule, variance)), atol=1e-5)


@pytest.mark.parametrize("rule", RULES)
def test_a_sampler_is_one_scan_whose_body_is_traced_once(rule):
    schedule, traces = CONTINUOUS["vp_linear"], []
    step = RULES[rule](schedule)

    def counted(*args):
        traces.append(1)
        return step.update(*args)

    def run(x):
        times = grids.edm(30, schedule)
        return sample(exact.denoiser(GAUSSIAN, schedule), _keys(4), x, times, steps.Step(step.init, counted))

    jaxpr = jax.make_jaxpr(run)(prior(_keys(4, 7), (2,), 1.0))
    assert len(traces) == 1
    assert str(jaxpr).count("length=30") == 1


@pytest.mark.parametrize("rule", ["ancestral_small", "dpm_solver_2m"])
def test_a_trajectory_goes_from_the_start_to_the_sample(rule):
    schedule = CONTINUOUS["vp_linear"]
    x, times = prior(_keys(4, 7), (2,), 1.0), grids.edm(30, schedule)
    states = _run(GAUSSIAN, schedule, RULES[rule], times, x, trajectory=True)
    assert states.shape == (31, 4, 2)
    np.testing.assert_array_equal(states[0], x)
    np.testing.assert_allclose(states[-1], _run(GAUSSIAN, schedule, RULES[rule], times, x), atol=1e-5)


def test_an_example_does_not_depend_on_its_batch():
    schedule = CONTINUOUS["vp_linear"]
    x = prior(_keys(6, 8), (2,), 1.0)
    rule, times = RULES["predictor_corrector"](schedule), grids.uniform(10)
    whole = sample(exact.denoiser(MIXTURE, schedule), _keys(6), x, times, rule)
    part = sample(exact.denoiser(MIXTURE, schedule), _keys(6)[2:4], x[2:4], times, rule)
    np.testing.assert_allclose(whole[2:4], part, atol=1e-5)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda s: steps.ancestral(s, "medium"), "variance='medium' is unknown: set one of small, large, learned"),
        (lambda s: steps.ddim(s, -0.1), r"eta=-0\.1 must be at least 0"),
        (lambda s: steps.edm(s, order=3), "order=3 is unknown: set 1 or 2"),
        (lambda s: steps.edm(s, gamma=-0.1), r"gamma=-0\.1 must be at least 0"),
        (lambda s: steps.predictor_corrector(s, steps.ddim(s), snr=0.0), r"snr=0\.0 must be positive"),
        (lambda s: steps.predictor_corrector(s, steps.ddim(s), corrections=-1), "corrections=-1 must be at least 0"),
    ],
)
def test_bad_values_are_refused(build, message):
    with pytest.raises(InvalidArgument, match=message):
        build(CONTINUOUS["edm"])
