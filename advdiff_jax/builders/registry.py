"""A config's names and what they stand for: registries are plain dictionaries, name -> spec."""

import contextlib
import difflib
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import ml_collections

from advdiff_jax.errors import InvalidArgument, UserError


class Choice(NamedTuple):
    """A spec of a name that only needs to be built.

    Attributes:
        build: (config section that holds the name, *arguments) -> the object.
        reads: keys of the config that it reads and that other names of its registry may not, as "section.key".
    """

    build: Callable
    reads: tuple[str, ...] = ()


def get(config: ml_collections.ConfigDict, key: str) -> Any:
    """Returns `config.<key>`, for a key such as "data.source"."""
    for part in key.split("."):
        config = config[part]
    return config


def lookup(table: dict[str, Any], config: ml_collections.ConfigDict, key: str) -> Any:
    """Returns the spec that `config.<key>` names; raises UserError if the registry has no such name."""
    return find(table, get(config, key), key)


def lookup_all(table: dict[str, Any], config: ml_collections.ConfigDict, key: str) -> dict[str, Any]:
    """Returns name -> spec for the names in the tuple `config.<key>`; raises UserError as `lookup`."""
    return {name: find(table, name, key) for name in get(config, key)}


def find(table: dict[str, Any], name: Any, key: str) -> Any:
    """Returns the spec of `name`, which stands at `key`; raises UserError if the registry has no such name."""
    if name not in table:
        known = ", ".join(map(str, table))
        raise UserError(f"config.{key}={name!r} is unknown{nearest(name, table)}: set one of {known}")
    return table[name]


def nearest(name: Any, known: Iterable[Any]) -> str:
    """Returns "; did you mean NAME?" or ""."""
    near = difflib.get_close_matches(str(name), list(map(str, known)), 1)
    return f"; did you mean {near[0]}?" if near else ""


def build(table: dict[str, Any], config: ml_collections.ConfigDict, key: str, *args) -> Any:
    """Builds what `config.<key>` names: spec.build(section of the config that holds the key, *args).

    Raises:
        UserError: the registry has no such name, or the factory refuses a value.
    """
    spec, section = lookup(table, config, key), key.rpartition(".")[0]
    with as_user_error(f"config.{section or key}"):
        return spec.build(config[section] if section else config, *args)


@contextlib.contextmanager
def as_user_error(where: str):
    """Re-raises InvalidArgument as UserError, prefixed with the config key or section `where`."""
    try:
        yield
    except InvalidArgument as error:
        raise UserError(f"{where}: {error}") from error
