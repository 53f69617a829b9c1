"""Decodes each image once, in threads, and keeps what it finds about each file until the file changes."""

import concurrent.futures
import json
import logging
import os
import pathlib
import threading
import time
from collections.abc import Sequence
from typing import Any

from advdiff_jax.data import decoding
from advdiff_jax.data.file_kinds import FORMATS, HEAD, PHOTOGRAPHS, RAW_SUFFIXES, kind_of
from advdiff_jax.data.file_records import Files, Members
from advdiff_jax.data.listing import Entry, has_image_suffix, os_reason
from advdiff_jax.data.records import fit
from advdiff_jax.errors import InvalidArgument

log = logging.getLogger(__name__)

SECONDS = 10.0  # between two lines of progress
_TOGETHER = 8  # files that a thread checks at once


def check_all(records: Files | Members, entries: Sequence[Entry], cached: pathlib.Path | None) -> dict[str, dict[str, Any]]:
    """Returns name -> finding of each entry, from the cache for files that have not changed.

    A finding of a good image has `size` (width, height), `mode`, `notes`, and the least and largest value: as `range` of the
    decoded image, or as `values` of a file deeper than 8 bits. One of a bad image has `bad`, the reason; one of another file
    `left`, its kind. What interrupts the check keeps the findings so far; a reading error is not kept.

    Args:
        records: reads the entries.
        entries: the files.
        cached: the file of findings; None keeps none.
    """
    known = _load(cached) if cached else {}
    findings, todo = {}, []
    for index, entry in enumerate(entries):
        stamp, finding = known.get(entry.name, (None, None))
        if stamp == [entry.size, entry.mtime_ns]:
            findings[entry.name] = finding
        else:
            todo.append(index)
    if todo:
        log.info("decoding %d images once, to find damaged ones%s", len(todo), f" ({len(findings)} known)" if findings else "")
        findings |= _check_new(records, entries, todo, cached)
    return findings


def _check_new(records, entries, todo, cached):
    """Returns the findings about the entries `todo`, by name; keeps those that there are also when it is interrupted."""
    found: list[tuple[int, dict[str, Any]]] = []  # threads append to it
    stop, started, kept = threading.Event(), time.monotonic(), 0
    shown_at = started

    def check_some(indices):
        for index in indices:
            if stop.is_set():
                return
            found.append((index, check_one(records, index, entries[index].name)))

    pool = concurrent.futures.ThreadPoolExecutor(os.cpu_count())
    try:
        parts = [todo[i : i + _TOGETHER] for i in range(0, len(todo), _TOGETHER)]
        for future in concurrent.futures.as_completed([pool.submit(check_some, part) for part in parts]):
            future.result()
            now, done = time.monotonic(), len(found)
            if now - shown_at > SECONDS:
                shown_at, left = now, (now - started) / done * (len(todo) - done)
                log.info("checked %d of %d (%.0f %%), %.0f s left", done, len(todo), 100 * done / len(todo), left)
                kept = _append(cached, entries, found, kept)
    finally:
        stop.set()
        pool.shutdown(wait=False, cancel_futures=True)
        _append(cached, entries, found, kept)
    return {entries[index].name: finding for index, finding in found}


def check_one(records: Files | Members, index: int, name: str) -> dict[str, Any]:
    """Reads and decodes one entry, and returns its finding."""
    try:
        head = records.head(index, HEAD)
        kind = kind_of(head)
        if name.lower().endswith(RAW_SUFFIXES):
            kind = "camera raw"
        is_named_so = has_image_suffix(name)
        if kind not in FORMATS or (kind == "PPM" and not is_named_so):  # text may begin as PPM does
            bad = is_named_so or kind in PHOTOGRAPHS
            return {"bad": decoding.not_an_image(kind)} if bad else {"left": "text" if kind == "PPM" else _LEFT.get(kind, kind)}
        data = records.read([index])[0]
    except OSError as error:
        return {"bad": f"unreadable: {os_reason(error)}", "passing": True}
    try:
        decoded = decoding.decode(data, value_range=_ANY, thorough=True)
        fit(decoded.image, 1, 3)
    except InvalidArgument as error:
        return {"bad": str(error)}
    finding = {"size": decoded.image.size, "mode": decoded.mode}
    if decoded.values:
        finding["values"] = decoded.values
    else:
        extrema = decoded.image.getextrema()
        finding["range"] = (min(low for low, _ in extrema), max(high for _, high in extrema))
    return finding | ({"notes": decoded.notes} if decoded.notes else {})


_LEFT = {"unknown": "not of a known kind", "empty": "empty"}
_ANY = (0.0, 1.0)  # the set's own range is found from the findings


def _load(cached):
    try:
        lines = cached.read_text().splitlines()
    except OSError:
        return {}
    known = {}
    for line in lines:
        try:
            name, stamp, finding = json.loads(line)
        except (ValueError, TypeError):  # cut off by a kill, or written by two processes at once
            continue
        known[name] = stamp, finding
    return known


def _append(cached, entries, found, first):
    """Appends the findings from `first` on to the file, but for reading errors that may pass; returns how many there are."""
    count = len(found)
    lines = [
        json.dumps([entries[index].name, [entries[index].size, entries[index].mtime_ns], finding]) + "\n"
        for index, finding in found[first:count]
        if not finding.get("passing")
    ]
    try:
        if cached is not None and lines:
            cached.parent.mkdir(parents=True, exist_ok=True)
            with cached.open("a") as file:
                file.write("".join(lines))
    except OSError as error:
        log.warning("the check is not cached in %s: %s", cached, os_reason(error))
    return count
