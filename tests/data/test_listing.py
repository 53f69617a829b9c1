"""Every file under a folder is listed once, or left out or refused with a reason."""

import io
import os
import pathlib
import pickle
import shutil
import tarfile
import zipfile

import pytest

from advdiff_jax.data import file_kinds, file_records, listing
from tests.data.files import encoded, noise


def put(folder, *names, data=b"x"):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)


def names(found):
    return [entry.name for entry in found.entries]


def test_links_are_followed_and_each_real_folder_is_listed_once(tmp_path):
    root, elsewhere = tmp_path / "root", tmp_path / "elsewhere"
    put(root, "a.png", "own/b.png")
    put(elsewhere, "c.png", "deep/d.png")
    (root / "cats").symlink_to(elsewhere)
    (root / "again").symlink_to(elsewhere / "deep")
    (root / "loop").symlink_to(root)
    (root / "alias").symlink_to(root / "own")
    (root / "file.png").symlink_to(elsewhere / "c.png")
    (elsewhere / "up").symlink_to(tmp_path)
    found = listing.list_folder(root)
    assert names(found) == ["a.png", "again/d.png", "cats/c.png", "file.png", "own/b.png"]
    again = ["alias", "cats/deep", "cats/up/elsewhere", "cats/up/root", "loop"]
    assert {reason: sorted(names) for reason, names in found.left_out.items()} == {
        "link to a folder that is listed already": again
    }
    assert found.doubles == ["file.png"]
    assert not found.refused


def test_links_into_a_cache_hide_the_cache(tmp_path):
    """As Hugging Face, DVC and git-annex keep files: under a hash, with a link of the file's name."""
    put(tmp_path, "blobs/0a1b", "blobs/2c3d", "blobs/unused")
    (tmp_path / "snapshots").mkdir()
    (tmp_path / "snapshots" / "x.png").symlink_to("../blobs/0a1b")
    (tmp_path / "snapshots" / "y.png").symlink_to("../blobs/2c3d")
    found = listing.list_folder(tmp_path)
    assert names(found) == ["blobs/unused", "snapshots/x.png", "snapshots/y.png"]
    assert found.left_out == {"target of a link that is listed": ["blobs/0a1b", "blobs/2c3d"]}
    assert not found.doubles


def test_hidden_files_and_copies_are_left_out_and_counted(tmp_path):
    put(
        tmp_path,
        "a.png",
        ".a.png",
        "._a.png",
        "__MACOSX/._b.png",
        ".thumbnails/c.png",
        "@eaDir/a.png/t.jpg",
        ".Trash-1/files/x.png",
    )
    put(tmp_path, "x/.ipynb_checkpoints/a-checkpoint.png", "a.png~", "a.png.bak", "b.jpg.crdownload")
    found = listing.list_folder(tmp_path)
    assert names(found) == ["a.png"]
    assert len(found.left_out["hidden"]) == 7
    assert ".Trash-1/files/x.png" in found.left_out["hidden"]
    assert found.left_out["backup or unfinished copy"] == ["a.png.bak", "a.png~", "b.jpg.crdownload"]


def test_a_folder_under_a_hidden_one_is_listed(tmp_path):
    put(tmp_path, ".cache/images/a.png")
    assert names(listing.list_folder(tmp_path / ".cache" / "images")) == ["a.png"]


def test_broken_links_pipes_and_folders_with_an_images_name(tmp_path):
    put(tmp_path, "a.png", "folder.png/b.png")
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere")
    (tmp_path / "self.png").symlink_to(tmp_path / "self.png")
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "pipe.png")
    found = listing.list_folder(tmp_path)
    assert names(found) == ["a.png", "folder.png/b.png"]
    assert found.refused == {"link that leads nowhere": ["gone.png", "self.png"]}
    assert found.left_out == {"link that leads nowhere": ["gone"], "pipe, socket or device": ["pipe.png"]}


def test_unreadable_folders_are_refused(tmp_path, monkeypatch):
    put(tmp_path, "a.png", "shut/b.png")
    scan = os.scandir

    def deny(path):
        if str(path).endswith("shut"):
            raise PermissionError(13, "Permission denied", path)
        return scan(path)

    monkeypatch.setattr(listing.os, "scandir", deny)
    found = listing.list_folder(tmp_path)
    assert names(found) == ["a.png"]
    assert found.refused == {"unreadable folder: Permission denied": ["shut"]}


def test_a_file_that_vanishes_while_listing_is_refused(tmp_path, monkeypatch):
    put(tmp_path, "a.png", "b.png")
    scan = os.scandir

    class Vanishing:
        def __init__(self, item):
            self._item, self.name, self.path = item, item.name, item.path

        def is_symlink(self):
            return False

        def stat(self):
            if self.name == "b.png":
                raise FileNotFoundError(2, "No such file or directory")
            return self._item.stat()

    class Items:
        def __init__(self, path):
            self._items = scan(path)

        def __enter__(self):
            return map(Vanishing, self._items)

        def __exit__(self, *error):
            self._items.close()

    monkeypatch.setattr(listing.os, "scandir", Items)
    found = listing.list_folder(tmp_path)
    assert names(found) == ["a.png"]
    assert found.refused == {"unreadable: No such file or directory": ["b.png"]}


def test_odd_names_are_kept_and_shown_in_one_line(tmp_path):
    odd = [
        "with space.png",
        "ümläut.png",
        "new\nline.png",
        "tab\t.png",
        "quote'\".png",
        "-dash.png",
        "%s%d.png",
        "esc\x1b[31m.png",
    ]
    put(tmp_path, *odd)
    with open(os.fsencode(tmp_path) + b"/latin\xe9.png", "wb") as file:
        file.write(b"x")
    found = names(listing.list_folder(tmp_path))
    assert found == sorted([*odd, os.fsdecode(b"latin\xe9.png")])
    for name in found:
        shown = file_kinds.shown(name)
        assert shown.isprintable()
        shown.encode()  # a terminal can print it
    assert file_kinds.shown("with space.png") == "with space.png"
    assert file_kinds.shown("new\nline.png") == r"'new\nline.png'"


def archive_of_images(path, count=5, names=None):
    names = names or [f"00000/img{i}.png" for i in range(count)]
    files = {name: encoded(noise(seed=seed)) for seed, name in enumerate(names)}
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in files.items():
                archive.writestr(name, data)
    else:
        with tarfile.open(path, "w") as archive:
            for name, data in files.items():
                info = tarfile.TarInfo(name)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    return files


@pytest.mark.parametrize("suffix", [".zip", ".tar"])
def test_members_of_archives_are_read_in_place(tmp_path, suffix):
    given = ["./b.png", "a/c.png", "__MACOSX/._b.png", "a/.hidden.png"]
    files = archive_of_images(tmp_path / f"x{suffix}", names=given)
    found = listing.list_archives(tmp_path, [f"x{suffix}"])
    assert names(found) == [f"x{suffix}/a/c.png", f"x{suffix}/b.png"]
    assert len(found.left_out["hidden"]) == 2
    members = file_records.Members(tmp_path, found.entries)
    for copy in (members, pickle.loads(pickle.dumps(members))):  # as a worker process opens it
        assert copy.read([1, 0, 1]) == [files["./b.png"], files["a/c.png"], files["./b.png"]]
        assert copy.head(0, 8) == b"\x89PNG\r\n\x1a\n"
    assert members.name(0) == str(tmp_path / f"x{suffix}/a/c.png")


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("suffix", [".zip", ".tar"])
def test_of_members_of_one_name_the_last_is_read_and_paths_stay_inside(tmp_path, suffix):
    """As unpacking would leave them; the others are counted."""
    given, path = ["a.png", "b.png", "./a.png", "../c.png"], tmp_path / f"x{suffix}"
    files = archive_of_images(path, names=given)
    found = listing.list_archives(tmp_path, [path.name])
    assert names(found) == [f"{path.name}/a.png", f"{path.name}/b.png"]
    assert file_records.Members(tmp_path, found.entries).read([0, 1]) == [files["./a.png"], files["b.png"]]
    assert found.left_out == {
        "replaced by a later member of the same name": [f"{path.name}/a.png"],
        "path out of the archive": [f"{path.name}/../c.png"],
    }
    again = {"w": files["b.png"], "a": files["./a.png"]}
    for mode, data in again.items():  # the very same name, written twice
        if suffix == ".zip":
            with zipfile.ZipFile(path, mode) as archive:
                archive.writestr("same.png", data)
        else:
            with tarfile.open(path, mode) as archive:
                info = tarfile.TarInfo("same.png")
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    found = listing.list_archives(tmp_path, [path.name])
    assert file_records.Members(tmp_path, found.entries).read(range(len(found.entries))) == [files["./a.png"]]


def test_archives_that_are_damaged_compressed_or_locked(tmp_path):
    archive_of_images(tmp_path / "cut.zip")
    (tmp_path / "cut.zip").write_bytes((tmp_path / "cut.zip").read_bytes()[:3000])
    with tarfile.open(tmp_path / "x.tar.gz", "w:gz") as archive:
        archive.addfile(tarfile.TarInfo("a.png"))
    archive_of_images(tmp_path / "locked.zip")
    data = bytearray((tmp_path / "locked.zip").read_bytes())
    for at in (data.index(b"PK\x01\x02") + 8, 6):
        data[at] |= 1  # says that the first member is encrypted
    (tmp_path / "locked.zip").write_bytes(data)
    found = listing.list_archives(tmp_path, ["cut.zip", "x.tar.gz", "locked.zip"])
    assert [name for reason, members in found.refused.items() for name in members] == ["cut.zip", "x.tar.gz"]
    assert any("damaged archive" in reason for reason in found.refused)
    members = file_records.Members(tmp_path, found.entries)
    with pytest.raises(OSError, match="encrypted"):
        members.read([0])
    assert len(members.read([1, 2, 3, 4])) == 4


@pytest.mark.parametrize("suffix", ["zip", "tar"])
def test_an_archive_that_is_written_anew_is_not_read_on(tmp_path, suffix):
    put(tmp_path / "in", "a.png", "b.png", data=b"12345")
    archive = pathlib.Path(shutil.make_archive(str(tmp_path / "x"), suffix, tmp_path / "in"))
    members = file_records.Members(tmp_path, listing.list_archives(tmp_path, [archive.name]).entries)
    assert members.read([0, 1]) == [b"12345"] * 2
    before = archive.read_bytes()
    archive.write_bytes(before.replace(b"12345", b"54321"))
    os.utime(archive, ns=(0, archive.stat().st_mtime_ns + 1))
    with pytest.raises(OSError, match=rf"x\.{suffix} has changed since the start|CRC"):
        members.read([0])


def test_files_say_when_they_have_changed(tmp_path):
    put(tmp_path, "a.png", "b.png", data=b"12345")
    files = file_records.Files(tmp_path, listing.list_folder(tmp_path).entries)
    assert files.read([1, 0]) == [b"12345"] * 2
    put(tmp_path, "b.png", data=b"54321")
    os.utime(tmp_path / "b.png", ns=(0, files.fingerprint()["files"]["b.png"][1] + 1))  # clocks of disks may be coarse
    with pytest.raises(OSError, match="changed since the start: as many bytes, written anew"):
        files.read([1])
    put(tmp_path, "a.png", data=b"123")
    with pytest.raises(OSError, match="changed since the start: 5 bytes then, 3 now"):
        files.read([0])
    (tmp_path / "b.png").unlink()
    with pytest.raises(FileNotFoundError):
        files.read([1])
    fingerprint = files.fingerprint()
    assert (fingerprint["count"], fingerprint["bytes"]) == (2, 10)
    assert list(fingerprint["files"]) == ["a.png", "b.png"]
