"""Image files: a folder, or zip and tar archives. Each is decoded once before training, so that bad ones are counted early."""

import hashlib
import logging
import os
import pathlib
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import PIL

from advdiff_jax.data import masks
from advdiff_jax.data.check import check_all
from advdiff_jax.data.file_kinds import HEAD, READABLE, REMEDIES, kind_of, shown
from advdiff_jax.data.file_records import Files, Members
from advdiff_jax.data.inventory import Inventory
from advdiff_jax.data.listing import Entry, Listing, list_archives, list_folder, os_reason
from advdiff_jax.data.pixels import FEWEST, height_width
from advdiff_jax.data.records import Images, check_arguments
from advdiff_jax.errors import UserError

log = logging.getLogger(__name__)

_RULES = 2  # of the check; findings of other rules are not used
_ARCHIVES = ("zip", "tar")
_DARK = 0.25  # share of the range below which a deep file may have fewer bits than its format


def image_folder(
    path: str,
    size: int | Sequence[int],
    channels: int,
    crop: int = 0,
    on_bad: str = "fail",
    cache_dir: pathlib.Path | None = None,
    value_range: tuple[float, float] | None = None,
    pad: bool = False,
    mask: str = "none",
    mask_path: str = "",
    fewest: int = FEWEST,
) -> Images:
    """Opens all images under a folder at any depth, sorted by path, or in an archive; subfolders are not classes.

    Decides by content which files are images, follows links, and leaves out hidden files. Archives in a folder are read if
    it holds no other image. Logs what is used, left out and refused. The findings about each file are cached in `cache_dir`
    until it changes.

    Args:
        path: the folder, or a zip or tar archive.
        size: side in pixels after crop and resize, or (height, width).
        channels: 1 (grey) or 3 (RGB); images of other modes are converted.
        crop: shorter side in pixels of the centred part to keep, see `records.fit`.
        on_bad: "fail" raises an error for images that cannot be read or decoded, "skip" leaves them out.
        cache_dir: folder of the cached findings; None does not cache them.
        value_range: values that become black and white in files deeper than 8 bits; None: found from the files, if they
            have one reading.
        pad: whether a smaller image gets a black border instead of being enlarged, see `records.fit`.
        mask: "none", "alpha" (pixels that are not opaque are not known) or "folder" (the files of `mask_path`).
        mask_path: folder or archive with a mask for each image, of the same name and size: white where it is known.
        fewest: images that there must be.

    Raises:
        InvalidArgument: a value is out of range.
        UserError: the folder is missing, holds fewer than `fewest` images, holds bad images and `on_bad` is "fail", the
            range of the values is not clear, or a mask is missing or does not fit its image.
    """
    check_arguments(size, channels, crop, on_bad)  # before the check of the files, which may take minutes
    usable = _usable(path, "path", on_bad, cache_dir, fewest)
    root, base, used, findings, inventory = usable
    where = shown(str(root))
    values = _range_of(path, where, used, findings, value_range)
    _warn_of_small_range(path, where, used, findings)
    _log_summary(where, used, findings, size, channels)
    shape = (len(used), *height_width(size), channels)
    return Images(
        _records(base, used),
        size,
        channels,
        crop,
        on_bad if mask == "none" else "fail",  # an image in the place of another would have the other's mask
        values,
        inventory.table(),
        pad,
        {tuple(findings[entry.name]["size"]) for entry in used},
        _masks(usable, shape, crop, pad, mask, mask_path, cache_dir, fewest),
    )


class _Usable(NamedTuple):
    """The images of a folder or an archive that are used: where they lie, their entries, and what was found."""

    root: pathlib.Path
    base: pathlib.Path
    entries: list[Entry]
    findings: dict[str, dict]
    inventory: Inventory


def _usable(path, key, on_bad, cache_dir, fewest):
    """Looks through the folder or archive `path`, which `config.data.KEY` names; raises UserError as `image_folder`."""
    root = pathlib.Path(os.path.expanduser(path)).absolute()
    if not path or not (os.path.isdir(root) or os.path.isfile(root)):  # pathlib's raise errors for names that are too long
        said = f"config.data.{key}={path!r} is not a folder{_why_not(root) if path else ''}"
        raise UserError(f"{said}: set a folder of images, or a zip or tar archive of them")
    if root.is_file() and (kind := _kind(root)) not in _ARCHIVES:
        remedy = REMEDIES.get(kind, "set a folder of images, or a zip or tar archive of them")
        raise UserError(f"config.data.{key}={path!r} is not a folder, but a file of kind {kind}: {remedy}")
    cached = None if cache_dir is None else cache_dir / f"images-{_key(root)}.jsonl"
    base, found, findings = _look(root, cached)
    inventory = Inventory(found, findings)
    inventory.log(shown(str(root)))
    if on_bad != "skip" and inventory.refused:
        raise UserError(
            f"config.data.{key}={path!r}: {inventory.count_refused()} of {inventory.count_looked_at():,} images are unusable: "
            f"{inventory.named_refused()}; repair or remove them, or set --config.data.on_bad_image=skip"
        )
    if inventory.refused:
        refused, looked_at = inventory.count_refused(), inventory.count_looked_at()
        log.warning("%s: %d of %d images are skipped: %s", shown(str(root)), refused, looked_at, inventory.named_refused())
    used = inventory.used
    if len(used) < fewest:
        raise UserError(_too_few(f"config.data.{key}={path!r}", inventory))
    return _Usable(root, base, used, findings, inventory)


def _records(base, entries):
    return (Members if entries[0].archive else Files)(base, entries)


def _masks(usable, shape, crop, pad, mask, mask_path, cache_dir, fewest):
    """Returns the masks of the images, or None."""
    if mask == "alpha":
        return masks.RecordMasks(_records(usable.base, usable.entries), masks.of_alpha, shape, crop, pad)
    if mask == "folder":
        found = _usable(mask_path, "mask_path", "fail", cache_dir, fewest)
        paired = masks.pair(mask_path, usable.entries, usable.findings, found.entries, found.findings)
        return masks.RecordMasks(_records(found.base, paired), masks.of_mask, shape, crop, pad)
    return None


def _why_not(path):
    try:
        os.stat(path)
    except OSError as error:
        return f" ({os_reason(error)})"
    return ""


def _kind(file):
    try:
        with file.open("rb") as opened:
            return kind_of(opened.read(HEAD))
    except OSError as error:
        raise UserError(f"{shown(str(file))} is unreadable ({error.strerror}): set another config.data.path") from error


def _key(root):
    rules = f"{_RULES} {PIL.__version__} {root}"
    return hashlib.sha256(rules.encode(errors="surrogateescape")).hexdigest()[:16]


def _look(root, cached) -> tuple[pathlib.Path, Listing, dict[str, dict]]:
    """Returns (folder of the names, listing, findings); archives are opened only if there is no image beside them."""
    if root.is_file():
        base, found, archives, findings = root.parent, Listing([], {}, {}, []), [root.name], {}
    else:
        base, found = root, list_folder(root)
        findings = check_all(Files(root, found.entries), found.entries, cached)
        archives = [entry.name for entry in found.entries if findings[entry.name].get("left") in _ARCHIVES]
        if not archives or any("size" in finding for finding in findings.values()):
            beside = {"left": "archive beside images: to read it, set config.data.path to it"}
            return base, found, findings | dict.fromkeys(archives, beside)
    inside = list_archives(base, archives)
    inner = check_all(Members(base, inside.entries), inside.entries, cached)
    outer = [entry for entry in found.entries if entry.name not in set(archives)]
    merged = Listing(
        outer + inside.entries, _merge(found.left_out, inside.left_out), _merge(found.refused, inside.refused), found.doubles
    )
    return base, merged, {**findings, **inner}


def _merge(first, second):
    return {reason: [*first.get(reason, []), *second.get(reason, [])] for reason in {**first, **second}}


def _too_few(where, inventory):
    looked_at, used = inventory.count_looked_at(), len(inventory.used)
    if not looked_at:
        kinds = {reason: names[0] for reason, names in inventory.left_out.items()}
        remedies = [f"{shown(name)} is {kind}: {REMEDIES[kind]}" for kind, name in kinds.items() if kind in REMEDIES]
        others = ", ".join(f"{len(names)} {reason} ({shown(names[0])})" for reason, names in inventory.left_out.items())
        return (
            f"{where} holds no image ({inventory.count_left_out()} files, none of them {READABLE}"
            f"{f': {others}' if others else ''}): {'; '.join(remedies) or 'set another folder'}"
        )
    if not used:
        return f"{where} holds {looked_at:,} images, all unusable: {inventory.named_refused()}; set another folder"
    return f"{where} holds {used} usable image{'s' * (used > 1)}, and training needs {FEWEST} or more: add images"


def _range_of(path, where, used: Sequence[Entry], findings, value_range):
    """Returns the values that become black and white in files deeper than 8 bits; one range for the set."""
    deep = [entry for entry in used if findings[entry.name].get("values")]
    if not deep:
        return value_range
    values = [findings[entry.name]["values"] for entry in deep]
    least, largest = min(low for low, _ in values), max(high for _, high in values)
    is_float = {findings[entry.name]["mode"] == "F" for entry in deep}
    if value_range is None:
        value_range = None if len(is_float) > 1 else _reading(least, largest, *is_float)
    said = f"{len(deep):,} images deeper than 8 bits, such as {shown(deep[0].name)}, with values from {least:g} to {largest:g}"
    if value_range is None:
        raise UserError(
            f"config.data.path={path!r} holds {said}: set --config.data.value_range=(BLACK,WHITE), the values that become "
            f"black and white, such as ({min(0.0, least):g},{largest:g})"
        )
    _warn_of_fewer_bits(where, deep, findings, value_range)
    log.info("%s: %s become black, %s white", said, *(f"{value:g}" for value in value_range))
    return value_range


def _warn_of_fewer_bits(where, deep, findings, value_range):
    dark = [e for e in deep if findings[e.name]["mode"] != "F" and findings[e.name]["values"][1] < _DARK * value_range[1]]
    if dark:
        log.warning(
            "%s: %d of %d deep images have no value above %g, a quarter of the range, such as %s: dark, or of fewer bits",
            *(where, len(dark), len(deep), _DARK * value_range[1], shown(dark[0].name)),
        )


def _reading(least, largest, is_float):
    """Returns the one sensible range of values from least to largest, or None."""
    if is_float:
        if least >= -1.0 and largest <= 1.0:
            return (0.0, 1.0) if least >= 0.0 else (-1.0, 1.0)
        return None
    # 16 bits; cameras and X-rays store 10, 12 or 14 bits in them.
    return (0.0, 65535.0) if least >= 0.0 and 2**14 <= largest < 2**16 else None


def _warn_of_small_range(path, where, used, findings):
    ranges = [findings[entry.name].get("range", (0, 255)) for entry in used]
    least, largest = min(low for low, _ in ranges), max(high for _, high in ranges)
    if largest <= 1:
        raise UserError(
            f"config.data.path={path!r} holds black images only, with values from {least} to {largest} of 255: multiply them "
            "by 255, or set another folder"
        )
    if largest - least < 64:
        log.warning("%s: the values of all images lie in %d to %d of 0 to 255", where, least, largest)
    black = [entry.name for entry, (_, high) in zip(used, ranges, strict=True) if high <= 1]
    if black:
        log.warning("%s: %d images are black, with no value above 1 of 255, such as %s", where, len(black), shown(black[0]))


def _log_summary(where, used, findings, size, channels):
    height, width = height_width(size)
    sizes = sorted((tuple(findings[entry.name]["size"]) for entry in used), key=lambda pair: (pair[0] * pair[1], pair))
    modes = Counter(findings[entry.name]["mode"] for entry in used)
    log.info(
        "%s: %d images of %dx%d to %dx%d pixels (%s), cropped and resized to %dx%dx%d",
        *(where, len(used), *sizes[0], *sizes[-1]),
        *(", ".join(f"{count} {mode}" for mode, count in modes.most_common()), width, height, channels),
    )
    if small := sum(pair[0] < width or pair[1] < height for pair in sizes):
        pixels = width if width == height else f"{width}x{height}"
        log.warning("%s: %d images are smaller than %s pixels and are enlarged", where, small, pixels)
    folders = Counter(entry.name.partition("/")[0] if "/" in entry.name else "." for entry in used)
    if 1 < len(folders) <= 20:
        log.info("%s: by folder: %s", where, ", ".join(f"{shown(name)} {count:,}" for name, count in sorted(folders.items())))
