"""Config -> the parts of EM around plain denoising: what is known of the noise, and the E-step; registries of `config.em`."""

import functools
import logging
import pathlib
from collections.abc import Callable
from typing import NamedTuple

import ml_collections
import numpy as np

from advdiff_jax import rng
from advdiff_jax.builders import levels
from advdiff_jax.builders.data import Data
from advdiff_jax.builders.masks import build_mask, has_mask
from advdiff_jax.builders.objectives import objective_spec
from advdiff_jax.builders.process import SAMPLERS, build_process, build_sampler, build_times
from advdiff_jax.builders.registry import Choice, lookup
from advdiff_jax.data.pixels import FEWEST
from advdiff_jax.errors import UserError
from advdiff_jax.sampling import posterior, steps
from advdiff_jax.sampling.sample import prior, sample

log = logging.getLogger(__name__)


class Known(NamedTuple):
    """What an E-step knows of the N training examples y = A x + s n.

    Attributes:
        std: s of each, [N] float32.
        mask: indices [n] -> masks of these examples [n, H, W, 1], True where a pixel is seen; None: every pixel is.
    """

    std: np.ndarray
    mask: Callable[[np.ndarray], np.ndarray] | None = None

    def is_given(self, indices: np.ndarray) -> np.ndarray:
        """Returns which of these examples are clean and whole, [n]: there is nothing to draw."""
        whole = self.std[indices] == 0.0
        return whole if self.mask is None else whole & self.mask(indices).all(axis=(1, 2, 3))


# Where a lap's first model comes from: the training set as it is, its clean examples, or a Gaussian. See `modes.laps`.
STARTS = {
    "dirty": Choice(lambda c: None),
    "clean": Choice(lambda c: None),
    "gaussian": Choice(lambda c: None, reads=("em.gaussian_steps",)),
}


class EStepSpec(NamedTuple):
    """What is known of a name of `config.em.e_step`.

    Attributes:
        build: (config, process, shape of an example) -> draw(predict, keys [B], measurement) -> examples [B, ...].
        evaluations: (config, steps of its sampler's grid) -> network evaluations per example: forward 1, backward to the
            input 1.
        reads: keys of the config that it reads and other names may not.
        takes_masks: whether A may hide pixels.
    """

    build: Callable[..., Callable]
    evaluations: Callable[[ml_collections.ConfigDict, int], int]
    reads: tuple[str, ...]
    takes_masks: bool = False


def _moments(config, process, shape):
    solve, c = build_sampler(config, process.schedule), config.em

    def draw(predict, keys, measurement):
        start, own = rng.split(keys, 2)
        denoise = process.denoiser(predict)
        given = posterior.moments(process.schedule, denoise, measurement, c.cg_steps, config.sampling.clip or None)
        return solve(given, own, prior(start, shape, process.schedule.prior_std))

    return draw


def _dps(config, process, shape):
    times, schedule = build_times(config, process.schedule), process.schedule

    def draw(predict, keys, measurement):
        start, own = rng.split(keys, 2)
        denoise = process.denoiser(predict, config.sampling.clip or None)
        rule = posterior.dps(schedule, steps.ancestral(schedule), measurement, config.em.zeta)
        return sample(denoise, own, prior(start, shape, schedule.prior_std), times, rule)

    return draw


def _from_level(rule, config, process, shape):
    schedule, c = process.schedule, config.em

    def draw(predict, keys, measurement):
        denoise, (y, _, std) = process.denoiser(predict, config.sampling.clip or None), measurement
        return posterior.from_level(schedule, denoise, keys, y, std, rule(schedule), c.steps, config.sampling.rho)

    return draw


E_STEPS = {
    "moments": EStepSpec(
        _moments,
        evaluations=lambda config, n: (1 + config.em.cg_steps) * _sampler(config).evaluations(config.sampling, n),
        reads=("em.cg_steps",),
        takes_masks=True,
    ),
    "dps": EStepSpec(_dps, evaluations=lambda config, n: 2 * n, reads=("em.zeta", "sampling.grid"), takes_masks=True),
    "sde": EStepSpec(
        functools.partial(_from_level, steps.ancestral), evaluations=lambda config, n: config.em.steps, reads=("sampling.rho",)
    ),
    "ode": EStepSpec(
        functools.partial(_from_level, steps.dpm_solver_2m),
        evaluations=lambda config, n: config.em.steps,
        reads=("sampling.rho",),
    ),
}


def _sampler(config):
    return lookup(SAMPLERS, config, "sampling.method")


def check(config: ml_collections.ConfigDict) -> None:
    """Raises UserError for an EM whose parts do not fit together; does nothing for another objective."""
    spec, c = objective_spec(config), config.em
    if not spec.em:
        return
    if config.sampling.final_denoise:
        raise UserError(
            f"config.sampling.final_denoise={config.sampling.final_denoise!r} cleans samples of a model of noisy data, and "
            f"config.objective={config.objective} trains on clean draws: set 0"
        )
    if has_mask(config) and not lookup(E_STEPS, config, "em.e_step").takes_masks:
        known = " or ".join(name for name, one in E_STEPS.items() if one.takes_masks)
        raise UserError(f"config.em.e_step={c.e_step!r} needs whole examples, and the data have masks: set {known}")
    if has_mask(config) and spec.em == "measured":
        raise UserError(
            f"config.objective={config.objective} measures noise in whole examples, and the data have masks: set em, with "
            "config.data.noise_std"
        )
    if c.e_step == "moments" and "sampling.grid" not in _sampler(config).reads:
        raise UserError(
            f"config.em.e_step='moments' needs a sampler with a grid, which config.sampling.method={config.sampling.method!r} "
            "lacks: set ddpm"
        )
    if "sampling.grid" in lookup(E_STEPS, config, "em.e_step").reads or c.e_step == "moments":
        if config.sampling.grid == "respaced":
            raise UserError(
                f"config.sampling.grid='respaced' fixes the number of steps, and config.em.e_step={c.e_step!r} takes "
                "config.em.steps: set uniform"
            )
        try:
            build_times(_with_own_steps(config), build_process(config).schedule)
        except UserError as error:
            raise UserError(f"config.em.steps={c.steps}: {error}") from error
    if c.start == "clean" and spec.em == "guess":
        raise UserError(
            f"config.em.start='clean' needs examples without noise, and config.objective={config.objective} assumes noise in "
            "all: set dirty or gaussian, or the variant em_blind"
        )


def build_known(config: ml_collections.ConfigDict, data: Data, folder: pathlib.Path) -> Known:
    """Finds what the E-step knows of the training examples; `folder` keeps what is measured.

    Raises:
        UserError: there is no noise, or noise above the process's, or it cannot be measured; or see `build_mask`.
    """
    if objective_spec(config).em == "measured":
        found = levels.build_levels(config, data, folder)
        log.info("%s", levels.describe(found))
        std = found.used()
        if left_out := int(np.sum(np.isinf(std))):
            raise UserError(
                f"config.noise.file={config.noise.file} leaves {left_out:,} examples out, and an E-step draws all: give the "
                "noise.npz of --mode=noise, or set the variant ambient_blind"
            )
    else:
        std = np.full(len(data.train), config.baselines.guess * config.data.noise_std, np.float32)
        log.info("EM takes noise of std %.3g in every example (config.data.noise_std times config.baselines.guess)", std[0])
    schedule = build_process(config).schedule
    highest = float(schedule.noise_to_signal(np.float32(1.0)))
    if std.max() >= highest:
        raise UserError(
            f"config.objective={config.objective}: noise of std {std.max():.3g} is not below the largest noise-to-signal of "
            f"the process, {highest:.3g}: set another config.diffusion.schedule, or a smaller config.data.noise_std"
        )
    known = Known(std, build_mask(config, data.source, data.corrupted) if has_mask(config) else None)
    if known.is_given(np.arange(len(std))).all():
        raise UserError(
            f"config.objective={config.objective} finds no example with noise: there is nothing to draw; set the variant "
            "ddpm, or em with config.data.noise_std"
        )
    return known


def clean_rows(known: Known) -> np.ndarray:
    """Returns the indices of the clean and whole examples; raises UserError where training lacks them."""
    rows = np.flatnonzero(known.is_given(np.arange(len(known.std))))
    if len(rows) < FEWEST:
        raise UserError(
            f"config.em.start='clean' needs {FEWEST} clean examples, and there are {len(rows)}: set dirty or gaussian"
        )
    return rows


class EStep(NamedTuple):
    """The E-step of a config.

    Attributes:
        draw: (predict, keys [B], measurement) -> examples [B, ...].
        evaluations: of the network per example.
    """

    draw: Callable
    evaluations: int


def _with_own_steps(config):
    """The config of the E-step's sampler."""
    own = config.copy_and_resolve_references()
    own.sampling.steps = config.em.steps
    return own


def build_e_step(config: ml_collections.ConfigDict, shape: tuple[int, ...]) -> EStep:
    """Builds the E-step for examples of this shape; raises UserError as `build_sampler`."""
    own, process, spec = _with_own_steps(config), build_process(config), lookup(E_STEPS, config, "em.e_step")
    steps_of_grid = len(build_times(own, process.schedule)) - 1
    return EStep(spec.build(own, process, shape), spec.evaluations(own, steps_of_grid))
