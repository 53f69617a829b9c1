"""`--mode=inspect`: prints a model's architecture, process and parameters, and each tensor that is not used or missing."""

import pathlib

import jax
import ml_collections

from advdiff_jax.builders import pretrained
from advdiff_jax.builders.data import build_data
from advdiff_jax.builders.experiment import build_experiment
from advdiff_jax.builders.validate import read_keys
from advdiff_jax.data import pixels
from advdiff_jax.training import parallel
from advdiff_jax.workdir import flatten


def run(config: ml_collections.ConfigDict, folder: pathlib.Path) -> pathlib.Path:
    """Describes the model that `config.init_from` names, or the run in `folder`, into `folder`/inspect/inspect.txt.

    Claims no run. Tensors that do not fit are listed, and are no error here.

    Raises:
        UserError: see `builders`, or there is no model.
    """
    return _write(describe(config, folder), folder / "inspect" / "inspect.txt")  # all processes open the model


@parallel.on_first_process
def _write(text, path):
    print(text, end="\n\n")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text + "\n")
    return path


def describe(config: ml_collections.ConfigDict, folder: pathlib.Path) -> str:
    """Returns the description as text; arguments and errors as for `run`."""
    of_tensors = bool(config.init_from) and pretrained.origin_of(config.init_from).layout is not None
    experiment = build_experiment(config, _shape(config) if of_tensors else build_data(config).train.shape[1:])
    read = read_keys(config)
    settings = {
        key: value for key, value in flatten(config).items() if key in read and key.startswith(("network.", "diffusion."))
    }
    width = max(map(len, settings))
    lines = [f"model  {config.init_from or folder}", "", *(f"{key:{width}}  {_shown(settings[key])}" for key in settings), ""]
    if of_tensors:
        conversion = pretrained.convert(config, experiment)
        params, tensors = conversion.params, {"missing": conversion.missing, "not used": conversion.unused}
        tensors["of another shape"] = conversion.misshapen
    else:
        params, tensors = pretrained.restore(config, experiment, folder).state.ema_params, {}
    return "\n".join([*lines, *_counts(params), *_listed(tensors)])


def _shape(config):
    return (*pixels.height_width(config.data.size), config.data.channels)


def _shown(value):
    if isinstance(value, list) and len(value) > 12:
        return f"{len(value)} values, {value[0]:g} to {value[-1]:g}"
    return ", ".join(map(str, value)) if isinstance(value, list) else value


def _counts(params):
    """Returns lines with the number of parameters, by the part of the network that a block's name begins with."""
    parts = {}
    for block, layers in params.items():
        part = block.partition("_")[0]
        parts[part] = parts.get(part, 0) + sum(leaf.size for leaf in jax.tree.leaves(layers))
    shown = {"parameters": sum(parts.values())} | {f"  {part}": count for part, count in parts.items()}
    width = max(map(len, shown))
    return [f"{name:{width}}  {count:>13,}" for name, count in shown.items()]


def _listed(tensors):
    lines = []
    for what, names in tensors.items():
        lines += ["", f"tensors {what}: {len(names) or 'none'}", *(f"  {name}" for name in names)]
    return lines
