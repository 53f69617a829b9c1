"""Config -> the diagnostic `noise_levels`: the noise in samples and in the training set, read alike, without clean data."""

import jax
import ml_collections
import numpy as np

from advdiff_jax import workdir
from advdiff_jax.builders.diagnosis import Diagnosis, DiagnosticInputs, DiagnosticSpec
from advdiff_jax.builders.outputs import Output
from advdiff_jax.builders.process import build_process
from advdiff_jax.data import classical, pixels
from advdiff_jax.diffusion.model import Model
from advdiff_jax.errors import InvalidArgument
from advdiff_jax.evaluation import noise_levels, report

MOST = 2000  # images that are read, evenly spaced
TITLES = {"wavelet": "by wavelets", "model": "by the model"}


def read_by_model(config: ml_collections.ConfigDict, model: Model, images: np.ndarray) -> np.ndarray:
    """Estimates the noise in images [N, ...] by what the model explains at `evaluation.reading_level`: [N].

    Images at one index have one noise in every set: the sets are read alike.
    """
    c, size = config.evaluation, min(config.sampling.batch_size, len(images))
    keys = jax.random.split(jax.random.key(c.seed), len(images))
    explained = jax.jit(
        lambda keys, y: noise_levels.explained(model.schedule, model.denoise, keys, y, c.reading_level, c.reading_draws)
    )
    shares = [explained(keys[i : i + size], images[i : i + size]) for i in range(0, len(images), size)]
    return noise_levels.from_share(np.concatenate(shares), c.reading_level)


def trusted(shape: tuple[int, ...]) -> str:
    """Returns the better reading for images of `shape` [H, W, C]: "model" below 16 x 16 pixels, else "wavelet"."""
    return "wavelet" if min(shape[:2]) >= classical.SMALLEST else "model"


def read(config: ml_collections.ConfigDict, model: Model, images: np.ndarray) -> dict[str, np.ndarray]:
    """Returns each reading of the noise in images [N, H, W, C]: "wavelet" and "model" -> [N]."""
    return {"wavelet": classical.by_wavelets(images), "model": read_by_model(config, model, images)}


def _noise_levels(config: ml_collections.ConfigDict, inputs: DiagnosticInputs) -> Diagnosis:
    """Compares the noise in samples with that in the training set; warns of samples smoother than its cleanest tenth."""
    shape = inputs.data.train.shape[1:]
    if len(shape) != 3:
        raise InvalidArgument(f"noise_levels needs images, and data.source={config.data.source} has none")
    process = build_process(config)
    model = Model(process.schedule, process.denoiser(inputs.predict))
    sets = [pixels.evenly_spaced(examples, MOST) for examples in (inputs.samples, inputs.data.train)]
    samples, train = (read(config, model, images) for images in sets)
    readings = {name: (samples[name], train[name]) for name in samples}
    numbers = {
        f"noise_std_{name}{suffix}": value
        for name, pair in readings.items()
        for suffix, value in noise_levels.summary(*pair).items()
    }
    better = trusted(shape)
    warning = _smoother(numbers, better) if noise_levels.is_smoother(*readings[better]) else ""
    noise_levels.draw({TITLES[name]: pair for name, pair in readings.items()}).savefig(inputs.plots / "noise_levels.png")
    workdir.write_json(
        inputs.plots / "noise_levels.json",
        {name: {"samples": a.tolist(), "train": b.tolist()} for name, (a, b) in readings.items()},
    )
    floor = "no level" if inputs.noise_floor is None else f"{inputs.noise_floor:.3g}"
    text = (
        f"Estimated in {len(sets[0]):,} samples and {len(sets[1]):,} training examples, clean data unseen. For images of "
        f"{shape[0]} x {shape[1]} the reading {TITLES[better]} is the better one. The noise floor that plain training "
        f"measured: {floor}."
    )
    caption = "Noise in each image, estimated alike in samples and in the training set."
    section = report.Section(
        "Noise levels without clean data",
        text=f"{text} Warning: {warning}." if warning else text,
        images=[report.image(inputs.plots / "noise_levels.png", caption, wide=True)],
    )
    return Diagnosis(numbers, [section], warning)


def _smoother(numbers, better):
    name = f"noise_std_{better}"
    return (
        f"half of the samples have less noise ({TITLES[better]}: median {numbers[name]:.3g}) than three quarters of the "
        f"cleanest tenth of the training set (median {numbers[name + '_cleanest']:.3g}): the model smooths detail away, or "
        "less than a tenth of the set is clean"
    )


def _outputs(name, how):
    return {
        f"noise_std_{name}": Output(f"median noise level of samples, estimated {how} without clean data", None),
        f"noise_std_{name}_dirty": Output("the same of the training set", None),
        f"noise_std_{name}_cleanest": Output("the same of the cleanest tenth of the training set, by this estimate", None),
    }


SPEC = DiagnosticSpec(
    _noise_levels,
    _outputs("wavelet", "by wavelets") | _outputs("model", "by what the model explains"),
    reads=("evaluation.reading_level", "evaluation.reading_draws"),
)
