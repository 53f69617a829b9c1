"""Config -> the diagnostic `local_gain`: the largest local gain of x0hat over t, at noised samples."""

import functools

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from advdiff_jax import workdir
from advdiff_jax.builders.diagnosis import Diagnosis, DiagnosticInputs, DiagnosticSpec
from advdiff_jax.builders.outputs import Output
from advdiff_jax.builders.process import build_process
from advdiff_jax.data import pixels
from advdiff_jax.evaluation import curves, local_gain, report
from advdiff_jax.sampling import grids

LEVEL = 10.0  # sigma / alpha: above, a prediction of eps divides its error by a small alpha


def _local_gain(config: ml_collections.ConfigDict, inputs: DiagnosticInputs) -> Diagnosis:
    """Computes the gain at the noised states of the run's samples, over times that are even in the log noise level.

    The estimate of x0 is not clipped, since clipping would hide the network's gain.
    """
    c, process = config.evaluation.local_gain, build_process(config)
    schedule, denoise = process.schedule, process.denoiser(inputs.predict)
    x0 = jnp.asarray(pixels.evenly_spaced(np.asarray(inputs.samples), c.examples))
    keys = jax.random.split(jax.random.key(config.evaluation.seed), len(x0))
    of = jax.jit(functools.partial(local_gain.local_gain, schedule, denoise, steps=c.iterations))
    times = grids.log_snr(c.levels, schedule)[:-1][::-1]  # ascending, without 0
    gains = np.stack([np.asarray(of(keys, x0, jnp.float32(t))) for t in times])
    u, sigma = (np.asarray(f(jnp.asarray(times))) for f in (schedule.noise_to_signal, schedule.sigma))
    mean, top = gains.mean(axis=1), int(np.argmax(gains.mean(axis=1)))
    numbers = {
        "local_gain": float(mean[top]),
        "local_gain_max": float(gains.max()),
        "local_gain_level": float(u[top]),
        "local_gain_displacement": float((sigma * mean)[u <= max(LEVEL, u[0])].max()),
    }
    band = {"low": np.percentile(gains, 5, axis=1), "high": np.percentile(gains, 95, axis=1)}
    axis = "noise level u = sigma / alpha"
    panels = [
        curves.Panel(
            "local gain of x0hat",
            axis,
            "top singular value of dx0hat / dx",
            {config.variant: curves.Series(u, mean, **band)},
            xscale="log",
            yscale="log",
        ),
        curves.Panel(
            "displacement of x0hat per kappa",
            axis,
            "sigma times the gain",
            {config.variant: curves.Series(u, sigma * mean, **{name: sigma * values for name, values in band.items()})},
            xscale="log",
            yscale="log",
        ),
    ]
    workdir.write_json(inputs.plots / "local_gain.json", curves.as_json(panels))
    curves.draw(panels).savefig(inputs.plots / "local_gain.png")
    text = (
        f"At {len(x0)} noised samples for each of {len(times)} levels, by {c.iterations} steps of power iteration, which bound "
        "the gain from below. The band holds 90 % of the samples."
    )
    image = report.image(inputs.plots / "local_gain.png", "How far a small shift of the state moves x0hat.", wide=True)
    return Diagnosis(numbers, [report.Section("Local gain", text=text, images=[image])])


SPEC = DiagnosticSpec(
    _local_gain,
    {
        "local_gain": Output(
            "largest local gain of x0hat over t: the mean over samples at the worst level; see the curve", None
        ),
        "local_gain_max": Output("the same of the worst sample at the worst level", None),
        "local_gain_level": Output("noise level sigma / alpha of the largest mean local gain", None),
        "local_gain_displacement": Output(
            "displacement of x0hat per kappa, sigma times the local gain: the largest mean at levels below 10", None
        ),
    },
    reads=tuple(f"evaluation.local_gain.{key}" for key in ("levels", "iterations", "examples")),
)
