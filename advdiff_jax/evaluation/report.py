"""`report.html`: one self-contained page. Sections in, file out; the pictures are embedded."""

import base64
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import jinja2

MEANING = {
    "off_plane_rms": "RMS distance to the plane, 0 is perfect",
    "spread_ratio": "standard deviation kept, 1 is perfect",
    "w2": "exact 2-Wasserstein distance to clean data, of as many points; of parts the root mean square",
    "w2_floor": "the same between two clean draws: about what a perfect model has; another pair of draws differs by a tenth",
    "score_error": "mean square error of the score, in units of eps, against the clean law's, over noise levels; 0 is perfect",
    "score_error_grid": "RMS error of the estimate of x0 on the grid of the pictures of the field, in the data's units",
    "bits_per_dimension": "negative log-likelihood of clean points under the model, base 2, per dimension; lower is better",
    "subspace_distance": "RMS distance to the true subspace, in the data's units; 0 is perfect",
    "subspace_distance_dirty": "the same for the training data",
    "subspace_distance_clean": "the same for clean data",
    "subspace_psnr": "PSNR of pictures against their projection to the true subspace, dB",
    "subspace_psnr_dirty": "the same for the training data",
    "subspace_psnr_clean": "the same for clean data",
    "principal_angle_mean": "mean angle between the true subspace and the one found in the samples, degrees; 0: recovered",
    "principal_angle_mean_dirty": "the same for the one found in the training data",
    "principal_angle_mean_clean": "the same for as many clean data",
    "principal_angle_max": "largest of these angles; 90: a direction is missing",
    "principal_angle_max_dirty": "the same for the one found in the training data",
    "principal_angle_max_clean": "the same for as many clean data",
    "noise_energy": "RMS in the directions of the clean data's smallest variance; best near noise_energy_clean: "
    "above it there is noise, below it signal is smoothed away",
    "noise_energy_clean": "the same for clean data",
    "noise_energy_dirty": "the same for the training data",
    "fd_digits_cnn": "Fréchet distance to clean data in a small classifier's features, lower is closer",
    "fd_digits_cnn_dirty": "the same for the training data: this network hardly sees noise",
    "nn_distance_ratio": "nearest over second nearest training example; near 1: no memorisation",
    "near_duplicates": "share of samples much nearer to one training example than to any other",
    "noise_level": "sigma / alpha at which plain training told a share robust.explained of the noise: follows the data's noise",
    "network_evaluations": "passes of an example through the network: forward 1, backward to the input 1, full backward 2; "
    "of this run alone, without those of the run it began from (init_from)",
    "inner_pgd10_over_fgsm": "second term under ten small steps over that under the perturbation trained against; far above 1: "
    "catastrophic overfitting",
    "inner_worst10_over_fgsm": "the same under ten small steps on the violation itself, whatever training maximises",
    "inner_random_over_fgsm": "the same under a random perturbation of the same radius",
    "inner_free_over_fgsm": "the same along the gradient of the denoising loss, which costs no pass of its own",
    "gain_largest": "standard deviation of samples over the training data's, in the direction where that is largest",
    "gain_smallest": "the same where it is smallest: below 1 where noise was left out, or signal smoothed away",
    "gain_error": "RMS over principal directions of that gain minus the linear model's; see the transfer curve",
    "flops_per_step": "floating point operations of a training step",
    "steps_per_second": "training speed",
    "train_seconds": "time spent training",
}


class Picture(NamedTuple):
    """An embedded PNG."""

    caption: str
    base64: str
    wide: bool = False


class Section(NamedTuple):
    """A heading with, in this order, what is given: text, a table (first row: heads), pictures, preformatted text."""

    heading: str
    text: str = ""
    table: Sequence[Sequence[str]] = ()
    pictures: Sequence[Picture] = ()
    pre: str = ""


def picture(path: pathlib.Path, caption: str, wide: bool = False) -> Picture:
    """Reads a PNG for embedding."""
    return Picture(caption, base64.b64encode(path.read_bytes()).decode(), wide)


def number(value: float) -> str:
    """Four significant digits, large numbers with an exponent."""
    return f"{value:.4g}"


def write_report(path: pathlib.Path, title: str, summary: str, sections: Sequence[Section]) -> None:
    """Renders the page to `path`."""
    environment = jinja2.Environment(loader=jinja2.PackageLoader("advdiff_jax.evaluation"), autoescape=True, trim_blocks=True)
    page = environment.get_template("report.html.j2").render(title=title, summary=summary, sections=sections)
    path.write_text(page, encoding="utf-8")
