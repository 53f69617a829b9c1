"""Lets each metric and diagnostic stand alone: one that fails leaves the others as they are, and says why."""

import logging
from collections.abc import Callable
from typing import Any

import numpy as np

from advdiff_jax.errors import InvalidArgument, UserError

log = logging.getLogger(__name__)


def attempt(name: str, compute: Callable[[], Any], failures: dict[str, str]) -> Any:
    """Returns what `compute` does; or None, with a line in `failures` and in the log, if it raises an error."""
    try:
        return compute()
    # Whatever a metric or a library under it raises: the model is trained, and the other numbers are good.
    except Exception as error:
        failures[name] = " ".join(str(error).split()) or type(error).__name__
        log.error("%s failed: %s", name, failures[name], exc_info=not isinstance(error, InvalidArgument | UserError))
        return None


def finite(numbers: dict[str, float], failures: dict[str, str]) -> dict[str, float]:
    """Returns the finite numbers; the others get a line in `failures` and in the log."""
    for name, value in numbers.items():
        if not np.isfinite(value):
            failures[name] = f"it is {value}"
            log.error("%s failed: it is %s", name, value)
    return {name: value for name, value in numbers.items() if name not in failures}
