"""Config -> how the images of `--mode=restore` were measured: the registry of `sampling.operators`."""

import importlib.util
import pathlib
from collections.abc import Callable
from typing import NamedTuple

import jax
import ml_collections
import numpy as np
from PIL import Image

from advdiff_jax.builders.registry import build, lookup
from advdiff_jax.errors import InvalidArgument
from advdiff_jax.sampling import operators
from advdiff_jax.sampling.operators import Operator

# masks of a batch [B, H, W, 1], or None -> its operator.
OperatorOf = Callable[[jax.Array | None], Operator]


class OperatorSpec(NamedTuple):
    """What is known of a name of `config.restore.operator`.

    Attributes:
        build: (section `restore` of a config, shape of an image) -> `OperatorOf`.
        kind: "noise" (A = I) | "mask" (A is 0/1 on pixels) | "blur" | "linear" (any other): restorers say which they take.
        mask: name of `data.mask` by which the images have their masks.
        reads: keys of the config that it reads and other operators may not.
    """

    build: Callable[[ml_collections.ConfigDict, tuple[int, ...]], OperatorOf]
    kind: str
    mask: str = "none"
    reads: tuple[str, ...] = ()


def _path(c, what):
    path = pathlib.Path(c.file).expanduser()
    if not c.file or not path.is_file():
        raise InvalidArgument(f"file={c.file!r} is not a file: name that of the {what}")
    return path


def read_grid(path: pathlib.Path) -> np.ndarray:
    """Reads numbers [h, w]: an .npy file, or an image as grey values.

    Raises:
        InvalidArgument: it is neither.
    """
    try:
        found = np.load(path, allow_pickle=False) if path.suffix == ".npy" else np.asarray(Image.open(path).convert("L"))
    except (OSError, ValueError) as error:
        raise InvalidArgument(f"file={str(path)!r} is neither an .npy file nor an image ({error}): name another") from error
    if found.ndim != 2:
        raise InvalidArgument(f"file={str(path)!r} has shape {list(found.shape)}: name one of two axes, [height, width]")
    return found


def read_kernel(c: ml_collections.ConfigDict) -> np.ndarray:
    """Reads the kernel of a blur, [h, w]; that of an image is scaled to sum 1. Raises InvalidArgument as `read_grid`."""
    path = _path(c, "kernel, an .npy file or a grey image")
    kernel = read_grid(path).astype(np.float32)
    return kernel if path.suffix == ".npy" else kernel / max(kernel.sum(), 1.0)


def _blur(c, shape):
    operator = operators.blurred(read_kernel(c), shape)
    return lambda mask: operator


def _k_space(c, shape):
    found = read_grid(_path(c, "mask, an .npy file or a grey image, zero frequency in the middle"))
    if found.shape != shape[:2]:
        sizes = ("x".join(map(str, pair)) for pair in (found.shape, shape[:2]))
        raise InvalidArgument("file={!r}: the mask of {} does not fit images of {}".format(c.file, *sizes))
    is_image = pathlib.Path(c.file).suffix != ".npy"
    operator = operators.k_space(np.fft.ifftshift(found >= 128 if is_image else found > 0))
    return lambda mask: operator


def _python(c, shape):
    path = _path(c, "operator, Python with forward(x) and perhaps adjoint(y)")
    spec = importlib.util.spec_from_file_location("operator_file", path)
    if spec is None:
        raise InvalidArgument(f"file={c.file!r} is not Python: name a file that ends in .py")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # the user's own program
        raise InvalidArgument(f"file={c.file!r} does not run ({type(error).__name__}: {error}): mend it") from error
    if not hasattr(module, "forward"):
        raise InvalidArgument(f"file={c.file!r} has no function forward: write forward(x), images [B, H, W, C] to such images")
    try:
        found = jax.eval_shape(module.forward, jax.ShapeDtypeStruct((2, *shape), np.float32))
    except Exception as error:
        said = str(error).partition("\n")[0]
        raise InvalidArgument(
            f"file={c.file!r}: forward fails on images {[2, *shape]} ({type(error).__name__}: {said}): write it with jax.numpy"
        ) from error
    if found.shape != (2, *shape):
        raise InvalidArgument(
            f"file={c.file!r}: forward makes {list(found.shape)} of {[2, *shape]}: return images of the shape that it takes"
        )
    operator = operators.from_function(module.forward, shape, getattr(module, "adjoint", None))
    return lambda mask: operator


def _masked(c, shape):
    return operators.masked


_FILE = ("restore.file",)

OPERATORS = {
    "noise": OperatorSpec(lambda c, shape: lambda mask: operators.identity(), "noise"),
    "alpha": OperatorSpec(_masked, "mask", "alpha"),
    "folder": OperatorSpec(_masked, "mask", "folder", reads=_FILE),
    "nan": OperatorSpec(_masked, "mask", "nan"),
    "blur": OperatorSpec(_blur, "blur", reads=_FILE),
    "k_space": OperatorSpec(_k_space, "linear", reads=_FILE),
    "python": OperatorSpec(_python, "linear", reads=_FILE),
}


def operator_spec(config: ml_collections.ConfigDict) -> OperatorSpec:
    """Returns the spec of `restore.operator`; raises UserError if it is unknown."""
    return lookup(OPERATORS, config, "restore.operator")


def build_operator(config: ml_collections.ConfigDict, shape: tuple[int, ...]) -> OperatorOf:
    """Builds the operator of `restore.operator` for images of `shape`.

    Raises:
        UserError: its file is missing or does not fit, or it has no adjoint.
    """
    return build(OPERATORS, config, "restore.operator", shape)
