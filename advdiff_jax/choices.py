"""A config's names to what they name; a mistake there is the user's."""

import contextlib
from collections.abc import Callable
from typing import Any

import ml_collections

from advdiff_jax.errors import UserError


def pick(table: dict[str, Any], config: ml_collections.ConfigDict, key: str) -> Any:
    """The entry of `table` that `config.<key>` names; raises UserError if it has none of that name."""
    name = config
    for part in key.split("."):
        name = name[part]
    if name not in table:
        raise UserError(f"config.{key}={name!r} is not known: choose one of {', '.join(table)}")
    return table[name]


def choose(table: dict[str, Callable], config: ml_collections.ConfigDict, key: str, *args) -> Any:
    """Builds what `config.<key>` names: table[name](section of the config that holds the key, *args).

    Raises:
        UserError: the table has no such name, or the factory refuses a value.
    """
    factory, section = pick(table, config, key), key.rpartition(".")[0]
    with refused(f"config.{section or key}"):
        return factory(config[section] if section else config, *args)


@contextlib.contextmanager
def refused(where: str):
    """A factory's refusal of an argument is the mistake of whoever wrote the config: ValueError becomes UserError."""
    try:
        yield
    except UserError:
        raise  # says already what, where, and what to do
    except ValueError as error:
        raise UserError(f"{where}: {error}") from error
