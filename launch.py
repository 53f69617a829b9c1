"""Trains, samples and evaluates: python launch.py --config=configs/celeba.py[:VARIANT] [--workdir=DIR] [--config.a.b=value].

The only place that reads flags. A mistake of the user's ends in one line and exit status 2.
"""

import logging
import os
import pathlib
import platform
import re
import sys

# XLA's own log; ours goes through `logging` below.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from absl import flags
from ml_collections import config_flags

from advdiff_jax.errors import UserError

_CONFIG = config_flags.DEFINE_config_file("config", None, "configs/NAME.py[:VARIANT], or a file under configs/ablations/.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run; default runs/NAME-VARIANT. A run there is resumed.")
_MODE = flags.DEFINE_enum(
    "mode",
    "train",
    ["train", "sample", "evaluate", "prepare", "preview", "poison", "transfer"],
    "train also samples and evaluates at the end; prepare gets the data, preview shows them, poison attacks them; "
    "transfer shows what radius and weight will do, before any training.",
)
_SHARD = flags.DEFINE_string("shard", "0/1", "Ablations: i/n runs every n-th run of the list, from the i-th (0 <= i < n).")
_DISTRIBUTED = flags.DEFINE_bool("distributed", False, "Call jax.distributed.initialize(): one process a host of a pod.")


def main(argv: list[str]) -> int:
    """Returns the exit status: 0, 2 after a mistake of the user's, 130 after Ctrl-C."""
    logging.basicConfig(format="%(message)s", stream=sys.stderr)
    logging.getLogger("advdiff_jax").setLevel(logging.INFO)
    logging.getLogger("absl").setLevel(logging.ERROR)  # Orbax's running commentary
    try:
        config = _parse(argv)
        print(f"open {_launch(config)}")
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; run the same command again to go on from where it stopped", file=sys.stderr)
        return 130
    return 0


def _parse(argv):
    try:
        rest = flags.FLAGS(argv)
        if rest[1:]:
            raise UserError(f"{rest[1]!r} is not a flag: values are given as --config.a.b=value")
        if _CONFIG.value is None:
            raise UserError("no config: give --config=configs/NAME.py[:VARIANT]; see configs/")
        config = _CONFIG.value
        "runs" in config  # noqa: B015 - a file that is missing is reported at the first look into the config
        return config
    except OSError as error:
        raise _not_a_config(config_flags.get_config_filename(flags.FLAGS["config"])) from error
    # What a config file raises while it is read is the user's, as is a bad flag.
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError) as error:
        if getattr(error, "name", None) == "get_config":
            raise _not_a_config(error.obj.__file__) from error
        if "get_config() takes 0 positional arguments" in str(error):
            raise UserError("this config takes no variant: leave out the colon and what follows it") from error
        if isinstance(error, KeyError | AttributeError):
            (reason, *_) = error.args[0].args if isinstance(error.args[0], KeyError) else error.args
            reason = re.sub("Other fields present: .*?(?=Did you mean|$)", "", str(reason), flags=re.DOTALL).split()
            raise UserError(f"no such key: {' '.join(reason)} (a list of runs has those of its runs in config.base)") from error
        # A config's own message, without the traceback that the flag's parser puts around it.
        own = error.__context__
        while own is not None and (not isinstance(own, UserError) or "Traceback" in str(own)):
            own = own.__context__
        raise UserError(" ".join(str(own or error).split())) from error


def _not_a_config(path):
    known = sorted(str(file) for file in pathlib.Path("configs").rglob("*.py") if "def get_config(" in file.read_text())
    return UserError(f"{path} is not a config that can be read: choose one of {', '.join(known)}")


def _launch(config) -> pathlib.Path:
    import jax  # after the flags are checked: a typing mistake should not cost the seconds of this import

    from advdiff_jax import ablation, cache, overrides, run

    if _DISTRIBUTED.value:
        jax.distributed.initialize()
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        # A resumed run starts at once. Per host: what XLA compiles for one CPU may not run on another.
        jax.config.update("jax_compilation_cache_dir", str(cache.directory() / f"xla-{platform.node()}"))
    folder = ablation.default_workdir(config) if _WORKDIR.value is None else pathlib.Path(_WORKDIR.value)
    folder = folder.expanduser().absolute()
    if "runs" in config:
        return ablation.run_all(config, folder, _MODE.value, _SHARD.value)
    overrides.check(config, list(config_flags.get_override_values(flags.FLAGS["config"])))
    return run.run(config, folder, _MODE.value)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
