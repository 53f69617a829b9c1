"""What several runs share and how they differ, from the config.json and the setup.json that each run left."""

import json
from typing import Any

import ml_collections

from advdiff_jax import workdir
from advdiff_jax.evaluation import report
from advdiff_jax.sweep.curves import Finished

SHARED = "The config that all runs share"
MOST_COMPARED = 12  # runs with a column each in the table of keys that differ
OF_A_RUN = ("name", "variant")  # said by the label of a run
UNREAD = (*workdir.OF_A_MODE, "classifier.", "purify.", "certify.", "anomaly.")  # sections that no run reads
ABSENT = "(not there)"  # a key of a newer version


def configs(finished: Finished) -> dict[str, ml_collections.ConfigDict]:
    """Returns label -> config of the first finished seed, as its run stored it."""
    paths = {label: folders[0] / "config.json" for label, folders in finished.items()}
    return {label: unflatten(workdir.read_config(path)) for label, path in paths.items() if path.exists()}


def unflatten(flat: dict[str, Any]) -> ml_collections.ConfigDict:
    """Builds a config from {"a.b": value}; lists become tuples."""
    tree: dict[str, Any] = {}
    for key, value in flat.items():
        *sections, leaf = key.split(".")
        place = tree
        for section in sections:
            place = place.setdefault(section, {})
        place[leaf] = tuple(value) if isinstance(value, list) else value
    return ml_collections.ConfigDict(tree)


def nested(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """Returns a config as JSON values."""
    return json.loads(config.to_json_best_effort())


def shared(found: dict[str, ml_collections.ConfigDict]) -> dict[str, Any]:
    """Returns the keys that have one value in all configs, as nested JSON values; {} without configs."""
    flat = [workdir.flatten(config) for config in found.values()]
    if not flat:
        return {}
    common = {key: value for key, value in flat[0].items() if all(one.get(key, ABSENT) == value for one in flat)}
    return nested(unflatten(common))


def differing(found: dict[str, ml_collections.ConfigDict]) -> dict[str, list[Any]]:
    """Returns key -> its value in each config, for keys that have several; those of the host left out."""
    flat = [workdir.flatten(config) for config in found.values()]
    ignored = {*workdir.HOST_KEYS, *OF_A_RUN}
    keys = dict.fromkeys(key for one in flat for key in one if key not in ignored and not key.startswith(UNREAD))
    values = {key: [one.get(key, ABSENT) for one in flat] for key in keys}
    return {key: row for key, row in values.items() if any(value != row[0] for value in row)}


def _stored(finished):
    """Returns the set-up of each run; {} where a run is too old to have one, for then nothing is known to be shared."""
    paths = {label: folders[0] / "setup.json" for label, folders in finished.items()}
    if not all(path.exists() for path in paths.values()):
        return {}
    return {label: json.loads(path.read_text()) for label, path in paths.items()}


def facts(finished: Finished) -> list[tuple[str, str]]:
    """Returns the set-up in words, of what is the same in all runs; see `builders.words`."""
    first, *others = [*_stored(finished).values()] or [{}]
    return [(term, words) for term, words in first.items() if all(one.get(term) == words for one in others)]


def sections(finished: Finished, found: dict[str, ml_collections.ConfigDict]) -> list[report.Section]:
    """Builds the section on how the runs differ: in words, and key by key for a few runs; none for one run.

    Args:
        finished: label -> folders.
        found: the `configs` of these runs.
    """
    stored, same = _stored(finished), dict(facts(finished))
    terms = list(dict.fromkeys(term for one in stored.values() for term in one if term not in same))
    rows = [[label, *(one.get(term, "") for term in terms)] for label, one in stored.items()]
    parts = [report.Section("How the runs differ", table=[["run", *terms], *rows])] if terms and rows else []
    keys = differing(found)
    if keys and len(found) <= MOST_COMPARED:
        cells = [[key, *(_shown(value) for value in values)] for key, values in keys.items()]
        parts.append(report.Section("Keys that differ", table=[["key", *found], *cells]))
    return parts


def _shown(value):
    return f"{value:.6g}" if isinstance(value, float) else str(value)
