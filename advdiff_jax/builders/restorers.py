"""Config -> how images are restored: the registry of `--mode=restore`, posterior samplers and what needs no model."""

import functools
import logging
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from advdiff_jax import rng
from advdiff_jax.builders.draw import final_level
from advdiff_jax.builders.objectives import objective_spec
from advdiff_jax.builders.operators import OperatorOf, operator_spec, read_kernel
from advdiff_jax.builders.outputs import Output
from advdiff_jax.builders.process import Process
from advdiff_jax.builders.registry import find
from advdiff_jax.data import classical
from advdiff_jax.diffusion.schedules import bcast
from advdiff_jax.errors import InvalidArgument, UserError
from advdiff_jax.sampling import grids, posterior, steps
from advdiff_jax.sampling.ambient_dps import ambient_dps
from advdiff_jax.sampling.final import final_denoise
from advdiff_jax.sampling.sample import prior, sample

log = logging.getLogger(__name__)

OUTPUTS = {
    "restore_*_psnr": Output(
        "PSNR of images that METHOD restored, against the clean ones, dB; as_measured: of the dirty images", "highest"
    ),
    "restore_*_ssim": Output("SSIM of the same", "highest"),
    "restore_*_lpips": Output("LPIPS of the same"),
    "restore_*_spread": Output("mean standard deviation of the draws", None),
    "restore_*_seconds": Output("seconds that the method took for all images", None),
}


class Problem(NamedTuple):
    """Images to restore.

    Attributes:
        y: as measured, [N, H, W, C] of float32 in [-1, 1].
        std: of the noise in each, [N].
        masks: pixels that are seen, [N, H, W, 1] of bool; None: the operator has no mask.
        operator: masks of a batch -> the operator that measured it.
        is_clipped: the images are stored in 8 bits, which clip noise at black and white.
    """

    y: np.ndarray
    std: np.ndarray
    masks: np.ndarray | None
    operator: OperatorOf
    is_clipped: bool = False


class Prior(NamedTuple):
    """The model.

    Attributes:
        process: of the model.
        predict: (params, x_t [B, ...], t [B]) -> the network's prediction.
        params: of the network.
        least: noise-to-signal below which the model has learnt nothing: draws go from there to the estimate of x0.
    """

    process: Process
    predict: Callable
    params: Any
    least: float = 0.0

    def denoiser(self, clip: float | None = None) -> Callable:
        """Builds denoise(x, t); see `Process.denoiser`."""
        return self.process.denoiser(functools.partial(self.predict, self.params), clip=clip)


# (`Problem`) -> restored images [K, N, H, W, C], K draws.
Restorer = Callable[[Problem], np.ndarray]


class RestorerSpec(NamedTuple):
    """What is known of a name of `config.restore.method`.

    Attributes:
        build: (config, `Prior`, or None if it needs no model) -> `Restorer`.
        means: what it does, in words.
        fits: kinds of operators that it takes, see `operators.OperatorSpec`.
        reads: keys of the config that it reads and other restorers may not.
        needs_model: whether it needs the model.
    """

    build: Callable[[ml_collections.ConfigDict, Prior | None], Restorer]
    means: str
    fits: tuple[str, ...]
    reads: tuple[str, ...] = ()
    needs_model: bool = True


def unclipped(keys: jax.Array, y: jax.Array, std: jax.Array) -> jax.Array:
    """Draws the noise that 8 bits have clipped: what is black or white goes on beyond by the half of a Gaussian.

    Where the clean image is black or white this makes its noise Gaussian again. A model takes clipped noise for content.

    Args:
        keys: typed keys, [B].
        y: images in [-1, 1], [B, ...].
        std: of their noise, [B].
    """
    beyond = bcast(std, y) * jnp.abs(rng.normal(keys, y))
    return jnp.where(y <= -1.0, y - beyond, jnp.where(y >= 1.0, y + beyond, y))


def _by_model(restore_batch: Callable, is_random: bool = True, fills: bool = True) -> Callable:
    """Builds `RestorerSpec.build` from restore_batch(config, prior, keys [B], measurement) -> images [B, ...].

    Args:
        restore_batch: one draw of a batch.
        is_random: draws differ, even of images that are not clipped; else such images have one draw.
        fills: draws what was clipped, see `unclipped`.
    """

    def build(config, model):
        c = config.restore

        def restored(problem):
            count, size = len(problem.y), min(config.sampling.batch_size, len(problem.y))

            @jax.jit
            def one(params, keys, y, std, masks):
                clip_keys, keys = rng.split(keys, 2)
                y = unclipped(clip_keys, y, std) if problem.is_clipped and fills else y
                measured = posterior.Measurement(y, problem.operator(masks).forward, std)
                return restore_batch(config, model._replace(params=params), keys, measured)

            def draw(number):
                keys = _keys(config.sampling.seed, number, count)
                rows = [np.minimum(np.arange(i, i + size), count - 1) for i in range(0, count, size)]  # one program serves all
                pick = lambda x, at: None if x is None else x[at]  # noqa: E731
                parts = [one(model.params, keys[at], problem.y[at], problem.std[at], pick(problem.masks, at)) for at in rows]
                return np.concatenate(parts)[:count]

            found, draws = [], c.draws if is_random or (problem.is_clipped and fills) else 1
            for number in range(draws):
                start = time.monotonic()
                found.append(draw(number))
                log.info("draw %d of %d: %.1f s", number + 1, draws, time.monotonic() - start)
            return np.stack(found)

        return restored

    return build


def _keys(seed, draw, count):
    key = jax.random.fold_in(jax.random.key(seed), draw)
    return jax.vmap(lambda index: jax.random.fold_in(key, index))(jnp.arange(count))


def _from_prior(config, model, keys, like, rule, denoise):
    """Samples from pure noise down to 0 by a rule, on EDM's grid of `restore.steps`."""
    schedule = model.process.schedule
    times = grids.edm(config.restore.steps, schedule, config.sampling.rho)
    with jax.ensure_compile_time_eval():
        learnt = np.asarray(schedule.noise_to_signal(jnp.asarray(times))) > model.least
    times = times[learnt | (times == 0.0)]
    start_keys, step_keys = rng.split(keys, 2)
    return sample(denoise, step_keys, prior(start_keys, like.shape[1:], schedule.prior_std), times, rule)


def _moments(config, model, keys, measured):
    schedule = model.process.schedule
    clip = config.sampling.clip or None
    denoise = posterior.moments(schedule, model.denoiser(), measured, config.restore.cg_steps, clip)
    # Of second order: ancestral draws of as many steps have a quarter less variance.
    return _from_prior(config, model, keys, measured.y, steps.dpm_solver_2m(schedule), denoise)


def _dps(config, model, keys, measured):
    schedule = model.process.schedule
    rule = posterior.dps(schedule, steps.ancestral(schedule), measured, config.restore.zeta)
    return _from_prior(config, model, keys, measured.y, rule, model.denoiser(config.sampling.clip or None))


def _a_dps(config, model, keys, measured):
    rule = ambient_dps(model.process.schedule, measured, config.restore.zeta)
    return _from_prior(config, model, keys, measured.y, rule, model.denoiser(config.sampling.clip or None))


def _raised(model, keys, measured):
    """Returns images as states z = x + u n, and u [B]: what has less noise than the model has learnt gets more."""
    level = jnp.maximum(measured.noise_std, 1.001 * model.least)
    added = jnp.sqrt(jnp.maximum(level**2 - measured.noise_std**2, 0.0))  # a fused multiply-add may round below 0
    return measured.y + bcast(added, measured.y) * rng.normal(keys, measured.y), level


def _sdedit(config, model, keys, measured):
    schedule, c = model.process.schedule, config.restore
    denoise, rule = model.denoiser(config.sampling.clip or None), steps.dpm_solver_2m(schedule, stochastic=True)
    more_keys, step_keys = rng.split(keys, 2)
    z, level = _raised(model, more_keys, measured)
    return posterior.from_level(schedule, denoise, step_keys, z, level, rule, c.steps, config.sampling.rho, model.least)


def _one_step(config, model, keys, measured):
    schedule, (z, level) = model.process.schedule, _raised(model, keys, measured)
    t = schedule.time(level)
    return model.denoiser(config.sampling.clip or None)(bcast(schedule.alpha(t), z) * z, t).x0


def _final(config, model, keys, measured):
    c, std = config.sampling, measured.noise_std
    level = final_level(c, std, measured.y.shape[1:])
    safe = jnp.where(level > 0.0, level, 1.0)
    found = final_denoise(model.process.schedule, model.denoiser(), keys, measured.y, std, safe, c.final_draws)
    return jnp.where(bcast(level > 0.0, found), found, measured.y)


def _ambient(config, model):
    if not objective_spec(config).gives_mask:
        raise InvalidArgument("method='a_dps' is for models that are given a mask (objective ambient_mask): set dps or moments")
    return _by_model(_a_dps)(config, model)


def _plain(function: Callable[..., np.ndarray]) -> Callable:
    return lambda config, model: lambda problem: function(config, problem)[None]


_STEPS = ("restore.steps", "restore.draws", "sampling.rho")
_ANY = ("noise", "mask", "blur", "linear")

RESTORERS = {
    "moments": RestorerSpec(
        _by_model(_moments),
        "posterior draws; the denoiser's Jacobian gives the covariance, conjugate gradients the measurement's pull (DiEM)",
        _ANY,
        reads=(*_STEPS, "restore.cg_steps"),
    ),
    "dps": RestorerSpec(
        _by_model(_dps),
        "ancestral draws, each step with a gradient step towards the measurement (DPS)",
        _ANY,
        reads=(*_STEPS, "restore.zeta"),
    ),
    "a_dps": RestorerSpec(
        _ambient, "the same for models that are given a mask, in Euler steps (A-DPS)", _ANY, reads=(*_STEPS, "restore.zeta")
    ),
    "sdedit": RestorerSpec(
        _by_model(_sdedit), "the reverse process from the image's own noise level down (SDEdit)", ("noise",), reads=_STEPS
    ),
    "one_step": RestorerSpec(
        _by_model(_one_step, is_random=False),
        "the posterior mean, by one evaluation at the image's own noise level",
        ("noise",),
        reads=("restore.draws",),
    ),
    "final": RestorerSpec(
        _by_model(_final, is_random=False, fills=False),  # the noise in the model's data is clipped too
        "one posterior mean by a model whose training data have as much noise (the final step)",
        ("noise",),
    ),
    "nl_means": RestorerSpec(
        _plain(lambda config, problem: classical.nl_means(problem.y)), "non-local means", ("noise",), needs_model=False
    ),
    "wavelet": RestorerSpec(
        _plain(lambda config, problem: classical.wavelet(problem.y)), "wavelet shrinkage", ("noise",), needs_model=False
    ),
    "inpaint": RestorerSpec(
        _plain(lambda config, problem: classical.inpaint(problem.y, problem.masks)),
        "a biharmonic surface through the known pixels",
        ("mask",),
        needs_model=False,
    ),
    "wiener": RestorerSpec(
        _plain(lambda config, problem: classical.wiener(problem.y, read_kernel(config.restore))),
        "a Wiener filter that finds its own regularisation",
        ("blur",),
        needs_model=False,
    ),
}


def chosen(config: ml_collections.ConfigDict) -> list[str]:
    """Returns the names of `restore.method` and `restore.beside`; of an empty `beside`, all that fit and need no model.

    Raises:
        UserError: a name is unknown, or does not take the operator.
    """
    c, kind = config.restore, operator_spec(config).kind
    cheap = [name for name, spec in RESTORERS.items() if kind in spec.fits and not spec.needs_model]
    keys = dict.fromkeys(c.beside or cheap, "restore.beside") | {c.method: "restore.method"}
    for name, key in keys.items():
        if kind not in find(RESTORERS, name, key).fits:
            fitting = " or ".join(other for other, spec in RESTORERS.items() if kind in spec.fits)
            raise UserError(f"config.{key}={name!r} does not take config.restore.operator={c.operator!r}: set {fitting}")
    return [c.method, *(name for name in keys if name != c.method)]


def build_restorer(config: ml_collections.ConfigDict, name: str, model: Prior) -> Restorer:
    """Builds a restorer by its name.

    Raises:
        InvalidArgument: the model is not of the kind that it needs.
    """
    return RESTORERS[name].build(config, model if RESTORERS[name].needs_model else None)
