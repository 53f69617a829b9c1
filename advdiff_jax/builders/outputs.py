"""What is known of each number in results.json: its meaning, and which value is best."""

import fnmatch
from typing import NamedTuple


class Output(NamedTuple):
    """What is known of a number in results.json.

    Attributes:
        meaning: in words, for reports.
        best: "lowest", "highest", "one" (nearest to 1), "clean" (nearest to the number of clean data, NAME_clean); None: no
            value is better than another.
    """

    meaning: str
    best: str | None = "lowest"


def describe(outputs: dict[str, Output], name: str) -> Output:
    """Returns what is known of a number; of an unknown one that it has no meaning, and that the lowest is best."""
    if name in outputs:
        return outputs[name]
    return next((value for pattern, value in outputs.items() if fnmatch.fnmatchcase(name, pattern)), Output(""))


# What every run reports besides its metrics.
COSTS = {
    "noise_level": Output(
        "sigma / alpha at which plain training explained a share robust.explained of the noise variance; follows the data's "
        "noise",
        None,
    ),
    "network_evaluations": Output(
        "passes of an example through the network: forward 1, backward to the input 1, full backward 2; of all laps of EM, "
        "without those of the run that init_from names",
        None,
    ),
    "nonfinite_samples": Output("samples that are not finite, and are left out"),
    "flops_per_step": Output("floating point operations of a training step", None),
    "steps_per_second": Output("training speed", None),
    "train_seconds": Output("time spent training, and in E-steps", None),
}
