"""Trains, samples and evaluates: python launch.py --config=configs/celeba.py[:VARIANT] [--workdir=DIR] [--config.a.b=value].

The only place that reads flags. A user's mistake ends with one line and exit status 2; a bug keeps its traceback.
"""

import errno
import importlib.util
import logging
import os
import pathlib
import platform
import re
import sys
import traceback

# XLA's own log; ours goes through `logging` below.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import ml_collections
from absl import flags
from ml_collections import config_flags

from advdiff_jax import modes
from advdiff_jax.errors import UserError

_ROOT = pathlib.Path(__file__).parent
_CONFIG = config_flags.DEFINE_config_file("config", None, "configs/NAME.py[:VARIANT], or a file under configs/ablations/.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run; default runs/NAME-VARIANT. A run there is resumed.")
_MODE = flags.DEFINE_enum(
    "mode", "train", list(modes.MODES), "; ".join(f"{name}: {spec.help}" for name, spec in modes.MODES.items())
)
_SHARD = flags.DEFINE_string("shard", "0/1", "Lists of runs: i/n does every n-th run, from the i-th (0 <= i < n).")
_DISTRIBUTED = flags.DEFINE_bool("distributed", False, "Run as one process of several, one per host, all with this command.")
_COORDINATOR = flags.DEFINE_string("coordinator", None, "--distributed: HOST:PORT of process 0; TPU pods and Slurm know it.")
_NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "--distributed: number of processes, with --coordinator.")
_PROCESS_ID = flags.DEFINE_integer("process_id", None, "--distributed: number of this process from 0, with --coordinator.")


def main(argv: list[str]) -> int:
    """Returns the exit status: 0, 2 after a user's mistake or on a full disk, 130 after Ctrl-C."""
    logging.basicConfig(format="%(message)s", stream=sys.stderr)
    logging.getLogger("advdiff_jax").setLevel(logging.INFO)
    for name in ("absl", "asyncio"):  # Orbax's running commentary; its errors are raised as well
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        _add_config(argv)
        _check_config_file(argv)
        if (opened := _launch(_parse(argv))) is not None:  # of several processes, some have nothing to show
            print(f"open {opened}")
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        print(f"error: {error}: make room and run the same command again", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; run the same command again to go on from where it stopped", file=sys.stderr)
        return 130
    return 0


def command() -> int:
    """Runs `main` as the installed console command `advdiff`, which has the configs beside this file."""
    sys.path.insert(0, str(_ROOT))  # as Python does for `python launch.py`: configs import each other
    return main(sys.argv)


def _add_config(argv):
    """Adds the defaults where a mode shows finished runs, each of which has a config of its own."""
    given = [arg.lstrip("-") for arg in argv[1:]]
    of_runs = any(f"mode={name}" in given for name, spec in modes.MODES.items() if spec.of_runs)
    if of_runs and not any(arg.startswith("config=") for arg in given):
        argv.insert(1, "--config=configs/default.py")


def _check_config_file(argv):
    """Loads the config file by itself, so that whatever the flags' parser raises later is about the command line."""
    place = next((i for i, arg in enumerate(argv) if i and re.match("--?config=", arg)), None)
    if place is None:
        return
    path, _, variant = argv[place].partition("=")[2].partition(":")
    if not pathlib.Path(path).is_file() and (_ROOT / path).is_file():  # a config of this checkout, from another folder
        path = str(_ROOT / path)
        argv[place] = ":".join([f"--config={path}", *([variant] if variant else [])])
    spec = importlib.util.spec_from_file_location("config_file", path)
    if spec is None or not pathlib.Path(path).is_file():
        raise _not_a_config(path)
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        if not hasattr(module, "get_config"):
            raise _not_a_config(path)
        if variant and not module.get_config.__code__.co_argcount:
            raise UserError(f"{path} takes no variant: leave out :{variant}")
        module.get_config(*([variant] if variant else []))
    except (AttributeError, KeyError) as error:
        frames = traceback.extract_tb(error.__traceback__)
        if "ml_collections" not in frames[-1].filename:
            raise  # a bug in the file
        where = next(frame for frame in reversed(frames) if "ml_collections" not in frame.filename)
        raise UserError(f"{where.filename}, line {where.lineno}: {_no_such_key(error)}") from error


def _parse(argv):
    try:
        rest = flags.FLAGS(argv)
    except flags.Error as error:
        raise UserError(" ".join(str(error).split())) from error
    except (AttributeError, KeyError) as error:
        raise UserError(f"{_no_such_key(error)} (a list of runs has the keys of its runs in config.base)") from error
    except (TypeError, ValueError) as error:
        raise UserError(f"{' '.join(str(error).split())}: give a value of the key's type") from error
    if rest[1:]:
        raise UserError(f"{rest[1]!r} is not a flag: values are given as --config.a.b=value")
    if _CONFIG.value is None:
        raise UserError("no config: give --config=configs/NAME.py[:VARIANT]; see configs/")
    return _CONFIG.value


def _no_such_key(error):
    reason = error.args[0] if error.args else ""
    reason = reason.args[0] if isinstance(reason, KeyError) else reason
    return "no such key: " + " ".join(
        re.sub("Other fields present: .*?(?=Did you mean|$)", "", str(reason), flags=re.S).split()
    )


def _not_a_config(path):
    files = (file for file in (_ROOT / "configs").rglob("*.py") if "def get_config(" in file.read_text())
    known = sorted(str(file.relative_to(_ROOT)) for file in files)
    return UserError(f"{path} is not a config that can be read: set one of {', '.join(known)}")


def _start_devices(jax):
    given = (_COORDINATOR.value, _NUM_PROCESSES.value, _PROCESS_ID.value)
    if any(value is not None for value in given) and (None in given or not _DISTRIBUTED.value):
        raise UserError("--coordinator, --num_processes and --process_id go together, with --distributed: give all four")
    try:
        if _DISTRIBUTED.value:
            jax.distributed.initialize(*given)
    except (RuntimeError, ValueError) as error:
        raise UserError(
            f"--distributed found no other processes ({' '.join(str(error).split())[:200]}): outside a TPU pod or Slurm give "
            "--coordinator=HOST:PORT --num_processes=N --process_id=I"
        ) from error
    try:
        jax.devices()
    except RuntimeError as error:
        wanted = os.environ.get("JAX_PLATFORMS") or "any"
        raise UserError(
            f"JAX_PLATFORMS={wanted}: no such device could be started ({' '.join(str(error).split())[:200]}): install the "
            "jaxlib of the accelerator, or set JAX_PLATFORMS=cpu"
        ) from error


def _launch(config: ml_collections.ConfigDict) -> pathlib.Path | None:
    import jax  # after the flags are checked: a typing mistake should not cost the seconds of this import

    from advdiff_jax import cache, workdir
    from advdiff_jax.builders.validate import resolve
    from advdiff_jax.sweep import compare
    from advdiff_jax.sweep.run import run_all
    from advdiff_jax.training import parallel

    _start_devices(jax)
    with parallel.end_together():
        if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
            # A resumed run starts at once. Per host: what XLA compiles for one CPU may not run on another.
            jax.config.update("jax_compilation_cache_dir", str(cache.directory() / f"xla-{platform.node()}"))
        is_list = "runs" in config
        default = pathlib.Path("runs") / (config.name if is_list else f"{config.name}-{config.variant}")
        folder = pathlib.Path(default if _WORKDIR.value is None else os.path.expanduser(_WORKDIR.value)).absolute()
        workdir.check_usable(folder)
        overrides = config_flags.get_override_values(flags.FLAGS["config"])
        values = {f"config.{key}": value for key, value in workdir.flatten(config).items() if key not in workdir.HOST_KEYS}
        parallel.check_same({"--workdir": str(folder), "--mode": _MODE.value, "--shard": _SHARD.value, **values})
        if modes.MODES[_MODE.value].of_runs:
            if is_list:
                raise UserError(f"--mode={_MODE.value} takes finished runs: leave out --config={config.name}, a list of runs")
            return compare.run(resolve(config, overrides, modes.MODES, _MODE.value), folder)
        if is_list:
            return run_all(config, folder, _MODE.value, _SHARD.value, overrides)
        return modes.load(_MODE.value)(resolve(config, overrides, modes.MODES, _MODE.value), folder)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
