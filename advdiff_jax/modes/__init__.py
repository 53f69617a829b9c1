"""What `--mode` does: one file per mode, with `run(config, folder) -> the file to open`, and a line in `MODES`.

A mode with `joint` also has `run_many(runs, folder, title)`, which shows a list of runs as one. Of several processes the first
alone runs a mode that claims no run. Files are imported when their mode runs, so that a typing mistake on the command line
does not cost the import of jax.
"""

import importlib
import pathlib
from collections.abc import Callable
from typing import NamedTuple


class ModeSpec(NamedTuple):
    """What is known of a mode.

    Attributes:
        help: what it does, in words.
        output: folder under the workdir that it writes without claiming a run; "": it trains or evaluates the run.
        joint: whether it shows a list of runs as one.
        judges: whether it writes numbers about a finished run to a folder of its own in the run's; a list of runs has them
            joined on one page.
        reads: keys of the config that this mode alone reads.
        needs_network: whether it asks what the network is; if so, a pretrained one has to be named.
        of_runs: whether it shows finished runs, in the folders that it is given: then it is in `sweep`, not here, and the
            command needs no config.
    """

    help: str
    output: str = ""
    joint: bool = False
    judges: bool = False
    reads: tuple[str, ...] = ()
    needs_network: bool = True
    of_runs: bool = False


MODES = {
    "train": ModeSpec("trains or resumes, then samples and evaluates"),
    "sample": ModeSpec("draws from the newest checkpoint"),
    "evaluate": ModeSpec("samples and evaluates again", reads=("evaluation.samples",)),
    "prepare": ModeSpec("downloads and prepares the data, then previews them", output="preview", needs_network=False),
    "preview": ModeSpec("shows the training set, clean and corrupted", output="preview", needs_network=False),
    "poison": ModeSpec(
        "writes an adversarially poisoned training set",
        output="poison",
        reads=tuple(
            f"poison.{key}" for key in ("checkpoint", "radius", "ball", "attack_steps", "step_size", "draws", "batch_size")
        ),
    ),
    "reference": ModeSpec(
        "writes the statistics of the clean images that distances compare with",
        output="reference",
        needs_network=False,
        reads=("evaluation.features", "evaluation.features_batch"),
    ),
    "noise": ModeSpec(
        "measures the noise of every training example, given the data alone",
        output="noise",
        needs_network=False,
        reads=("noise.atypical_share",),
    ),
    "restore": ModeSpec(
        "restores dirty images by the model of a run: posterior mean and draws",
        judges=True,
        reads=tuple(
            f"restore.{key}"
            for key in (
                *("images", "clean", "count", "value_range", "array_key", "operator", "noise_std"),
                *("method", "beside", "shown", "unclip"),
            )
        ),
    ),
    "purify": ModeSpec(
        "accuracy of a classifier behind noise and the reverse process, under attack",
        judges=True,
        reads=(
            *("classifier.file", "classifier.steps"),
            *(f"purify.{key}" for key in ("samplers", "balls", "linf_radii", "linf_times", "l2_radii", "l2_times", "steps")),
            *(f"purify.{key}" for key in ("attack_steps", "draws", "examples", "batch_size")),
        ),
    ),
    "certify": ModeSpec(
        "certified accuracy of a classifier behind one step of the denoiser",
        judges=True,
        reads=(
            *("classifier.file", "classifier.steps"),
            *(f"certify.{key}" for key in ("noise_stds", "first_draws", "draws", "failure", "radii", "examples", "batch_size")),
        ),
    ),
    "anomaly": ModeSpec(
        "finds planted patches by what the model changes in an image",
        judges=True,
        reads=(
            *(f"anomaly.{key}" for key in ("source", "path", "tfds_name", "patch_side", "examples", "levels", "draws")),
            "anomaly.components",
        ),
    ),
    "inspect": ModeSpec("prints a model's architecture, parameters and unused tensors", output="inspect"),
    "export": ModeSpec("writes the model as a folder that diffusers loads, with a model card"),
    "gain": ModeSpec("plots, before training, what radius and weight do to the data", output="gain", joint=True),
    "compare": ModeSpec(
        "one report of finished runs: --config.compare.runs=FOLDER,FOLDER,...",
        output="compare",
        reads=("compare.runs", "compare.metrics"),
        needs_network=False,
        of_runs=True,
    ),
}

# Folders that may be in a workdir before a run is; evaluations holds what was said of given samples.
PREVIEWS = ("evaluations", *(spec.output for spec in MODES.values() if spec.output))


def load(name: str) -> Callable[..., pathlib.Path]:
    """Imports a mode and returns its `run`."""
    return importlib.import_module(f"{__name__}.{name}").run


def load_joint(name: str) -> Callable[..., pathlib.Path]:
    """Imports a joint mode and returns its `run_many`."""
    return importlib.import_module(f"{__name__}.{name}").run_many
