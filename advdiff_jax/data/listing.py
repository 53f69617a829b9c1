"""The files under a folder or in an archive: those that may be images, and those that are left out, with the reason."""

import os
import pathlib
import stat
import tarfile
import zipfile
from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

from advdiff_jax.data.file_kinds import HEAD, SUFFIXES, kind_of

# Folders of systems and network drives, which hold copies and thumbnails. All names that begin with a dot are hidden too.
SYSTEM_NAMES = ("__MACOSX", "@eaDir", "$RECYCLE.BIN", "System Volume Information", "lost+found")
COPY_SUFFIXES = ("~", ".bak", ".orig", ".old", ".tmp", ".part", ".partial", ".crdownload", ".download", ".swp")


class Entry(NamedTuple):
    """A file that may be an image.

    Attributes:
        name: path under the root; for a member of an archive, the archive's name and the member's.
        size: bytes.
        mtime_ns: time of the last change; for a member, the archive's.
        archive: name of the archive that holds it; "" for a file.
        member: where the archive holds it: a zip's name, or a tar's offset.
    """

    name: str
    size: int
    mtime_ns: int
    archive: str = ""
    member: str | int = ""


def own_path(entry: Entry) -> str:
    """Returns the path of an entry under its root, or under the archive that holds it."""
    return entry.name.removeprefix(f"{entry.archive}/") if entry.archive else entry.name


def without_ending(path: str) -> str:
    """Returns a path by which an image finds its mask, or its clean image, whatever their endings."""
    return pathlib.PurePosixPath(path).with_suffix("").as_posix()


class Listing(NamedTuple):
    """What lies under a folder or in an archive.

    Attributes:
        entries: files that may be images, sorted by name.
        left_out: reason -> names of files that are not looked at.
        refused: reason -> names of what should be looked at and cannot be.
        doubles: names of links to files that are listed under another name too.
    """

    entries: list[Entry]
    left_out: dict[str, list[str]]
    refused: dict[str, list[str]]
    doubles: list[str]


def os_reason(error: Exception) -> str:
    """Returns the reason of an error without the path that an OSError repeats."""
    return getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__


def has_image_suffix(name: str) -> bool:
    return name.lower().endswith(SUFFIXES)


def list_folder(root: pathlib.Path) -> Listing:
    """Lists the files at any depth under a folder. Follows links; visits each real folder once, under its own name first."""
    found = Listing([], defaultdict(list), defaultdict(list), [])
    seen, folders, linked = {_identity(os.stat(root))}, [""], []
    identities: list[tuple[tuple[int, int], bool]] = []  # of each entry: (device, inode), whether it is a link
    while folders or linked:
        if not folders:
            _follow(root, linked.pop(0), seen, folders, found)
            continue
        folder = folders.pop(0)
        try:
            with os.scandir(root / folder) as items:
                items = sorted(items, key=lambda item: item.name)
        except OSError as error:
            found.refused[f"unreadable folder: {error.strerror}"].append(folder or ".")
            continue
        for item in items:
            name = f"{folder}/{item.name}" if folder else item.name
            try:
                _sort_in(item, name, seen, folders, linked, identities, found)
            except OSError as error:
                _refuse_or_leave(found, name, f"unreadable: {error.strerror}")
    _drop_targets(found, identities)
    found.entries.sort()
    return found


def _follow(root, name, seen, folders, found):
    try:
        identity = _identity(os.stat(root / name))
    except OSError as error:
        found.refused[f"unreadable folder: {error.strerror}"].append(name)
        return
    if identity in seen:
        found.left_out["link to a folder that is listed already"].append(name)
    else:
        seen.add(identity)
        folders.append(name)


def _sort_in(item, name, seen, folders, linked, identities, found):
    reason, is_link = _reason_to_leave(item.name), item.is_symlink()
    try:
        status = item.stat()
    except OSError:
        if not is_link:
            raise
        _refuse_or_leave(found, name, "link that leads nowhere")
        return
    if stat.S_ISDIR(status.st_mode):
        if reason:
            found.left_out[reason] += _files_in(item.path, name)
        elif is_link:
            linked.append(name)
        elif _identity(status) not in seen:
            seen.add(_identity(status))
            folders.append(name)
        else:
            found.left_out["link to a folder that is listed already"].append(name)
    elif reason:
        found.left_out[reason].append(name)
    elif stat.S_ISREG(status.st_mode):
        found.entries.append(Entry(name, status.st_size, status.st_mtime_ns))
        identities.append((_identity(status), is_link))
    else:
        found.left_out["pipe, socket or device"].append(name)


def _identity(status):
    return status.st_dev, status.st_ino


def _refuse_or_leave(found, name, reason):
    (found.refused if has_image_suffix(name) else found.left_out)[reason].append(name)


def _reason_to_leave(name):
    if name.startswith(".") or name in SYSTEM_NAMES:
        return "hidden"
    return "backup or unfinished copy" if name.lower().endswith(COPY_SUFFIXES) else ""


def _files_in(path, name):
    """Returns the names of the files in a folder that is left out, or the folder's own if it holds none."""
    below = [os.path.relpath(os.path.join(folder, file), path) for folder, _, files in os.walk(path) for file in files]
    return [f"{name}/{file}" for file in sorted(below)] or [f"{name}/"]


def _drop_targets(found, identities):
    """Leaves out files without an image's suffix to which a listed link leads: caches hold images so, beside links to them."""
    targets = {identity for identity, is_link in identities if is_link}
    if not targets:
        return
    files = {identity for identity, is_link in identities if not is_link}
    kept = []
    for entry, (identity, is_link) in zip(found.entries, identities, strict=True):
        if not is_link and identity in targets and not has_image_suffix(entry.name):
            found.left_out["target of a link that is listed"].append(entry.name)
            files.discard(identity)
        else:
            kept.append(entry)
    pairs = zip(found.entries, identities, strict=True)
    found.doubles.extend(entry.name for entry, (identity, is_link) in pairs if is_link and identity in files)
    found.entries[:] = kept


def list_archives(root: pathlib.Path, names: Sequence[str]) -> Listing:
    """Lists the members of zip and tar archives, whose names are relative to `root`; of several of a name the last."""
    found = Listing([], defaultdict(list), defaultdict(list), [])
    for name in names:
        path = root / name
        try:
            with path.open("rb") as file:
                kind = kind_of(file.read(HEAD))
            members = {"zip": _zip_members, "tar": _tar_members}[kind](path)
            mtime_ns = path.stat().st_mtime_ns
        except KeyError:
            found.refused[f"an archive of kind {kind} is not read"].append(name)
            continue
        # The readers of archives raise errors of their own for damage, among them RuntimeError and struct.error.
        except Exception as error:
            found.refused[f"damaged archive: {' '.join(str(error).split())[:200] or type(error).__name__}"].append(name)
            continue
        latest = {member.removeprefix("./"): index for index, (member, _, _) in enumerate(members)}
        for index, (member, size, where) in enumerate(members):
            member = member.removeprefix("./")
            parts = member.split("/")
            reason = next(filter(None, map(_reason_to_leave, parts)), "")
            if latest[member] != index:
                found.left_out["replaced by a later member of the same name"].append(f"{name}/{member}")
            elif ".." in parts:
                found.left_out["path out of the archive"].append(f"{name}/{member}")
            elif reason:
                found.left_out[reason].append(f"{name}/{member}")
            elif where is None:
                found.left_out["link in an archive"].append(f"{name}/{member}")
            else:
                found.entries.append(Entry(f"{name}/{member}", size, mtime_ns, name, where))
    found.entries.sort()
    return found


def _zip_members(path):
    with zipfile.ZipFile(path) as archive:
        return [(info.filename, info.file_size, info.filename) for info in archive.infolist() if not info.is_dir()]


def _tar_members(path):
    with tarfile.open(path, "r:") as archive:
        return [
            (info.name, info.size, info.offset_data if info.isreg() and not info.issparse() else None)
            for info in archive
            if not info.isdir()
        ]
