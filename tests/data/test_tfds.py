"""TFDS's own builders on hand-made raw archives in the upstream layouts, without TensorFlow or a network."""

import gzip
import hashlib
import io
import logging
import pathlib
import shutil
import struct
import subprocess
import sys
import tarfile
import zipfile

import lmdb
import numpy as np
import pytest
from PIL import Image

from advdiff_jax.data import fingerprint, prepare, raw_archives, raw_readers
from advdiff_jax.data.records import Images
from advdiff_jax.data.tfds_source import NotPrepared, TfdsImages
from advdiff_jax.errors import UserError

DEBIAN = pathlib.Path("/usr/share/datasets/fashion-mnist")  # of the package dataset-fashion-mnist
CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


def random_images(count, height, width, seed):
    """Returns smooth images, which JPEG keeps recognisable, all different."""
    coarse = np.random.default_rng(seed).integers(0, 256, (count, 4, 4, 3), dtype=np.uint8)
    return np.stack([np.asarray(Image.fromarray(x).resize((width, height), Image.Resampling.BICUBIC)) for x in coarse])


def jpeg(image):
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=95)
    return file.getvalue()


def add(archive, name, data):
    info = tarfile.TarInfo(name)
    info.size = len(data)
    archive.addfile(info, io.BytesIO(data))


def cifar10(folder, per_file=20):
    """Writes cifar-10-binary.tar.gz: a byte of label, then red, green and blue planes; returns the training images."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (6 * per_file, 32, 32, 3), dtype=np.uint8)
    labels = rng.integers(0, 10, (6 * per_file, 1), dtype=np.uint8)
    rows = np.concatenate([labels, images.transpose(0, 3, 1, 2).reshape(len(images), -1)], axis=1)
    names = [f"data_batch_{i}.bin" for i in range(1, 6)] + ["test_batch.bin"]
    with tarfile.open(folder / "cifar-10-binary.tar.gz", "w:gz") as archive:
        add(archive, "cifar-10-batches-bin/batches.meta.txt", ("\n".join(CLASSES) + "\n\n").encode())
        for i, name in enumerate(names):
            add(archive, f"cifar-10-batches-bin/{name}", rows[i * per_file : (i + 1) * per_file].tobytes())
    return images[: 5 * per_file]


def celeba(folder, count=12):
    """Writes img_align_celeba.zip and its lists; every third image is not for training; returns the training files."""
    files = [jpeg(image) for image in random_images(count, 218, 178, seed=1)]
    names = [f"{i + 1:06d}.jpg" for i in range(count)]
    with zipfile.ZipFile(folder / "img_align_celeba.zip", "w") as archive:
        for name, file in zip(names, files, strict=True):
            archive.writestr(f"img_align_celeba/{name}", file)
    attributes = (
        "5_o_Clock_Shadow Arched_Eyebrows Attractive Bags_Under_Eyes Bald Bangs Big_Lips Big_Nose Black_Hair Blond_Hair "
        "Blurry Brown_Hair Bushy_Eyebrows Chubby Double_Chin Eyeglasses Goatee Gray_Hair Heavy_Makeup High_Cheekbones Male "
        "Mouth_Slightly_Open Mustache Narrow_Eyes No_Beard Oval_Face Pale_Skin Pointy_Nose Receding_Hairline Rosy_Cheeks "
        "Sideburns Smiling Straight_Hair Wavy_Hair Wearing_Earrings Wearing_Hat Wearing_Lipstick Wearing_Necklace "
        "Wearing_Necktie Young"
    )
    landmarks = "lefteye_x lefteye_y righteye_x righteye_y nose_x nose_y leftmouth_x leftmouth_y rightmouth_x rightmouth_y"
    rows = {
        "list_eval_partition.txt": ["0" if i % 3 else "1" if i % 2 else "2" for i in range(count)],
        "list_attr_celeba.txt": [" ".join(["-1", "1"] * 20)] * count,
        "list_landmarks_align_celeba.txt": [" ".join(map(str, range(10)))] * count,
        "identity_CelebA.txt": [str(i) for i in range(count)],
    }
    heads = {"list_attr_celeba.txt": f"{count}\n{attributes}\n", "list_landmarks_align_celeba.txt": f"{count}\n{landmarks}\n"}
    for file, values in rows.items():
        lines = "".join(f"{name} {value}\n" for name, value in zip(names, values, strict=True))
        (folder / file).write_text(heads.get(file, "") + lines)
    return [file for i, file in enumerate(files) if i % 3]


def lsun(folder, count=6):
    """Writes bedroom_{train,val}_lmdb.zip: an lmdb of encoded images by hash; returns the training files."""
    for split, seed in [("train", 2), ("val", 3)]:
        files = [jpeg(image) for image in random_images(count, 256, 300, seed)]
        place = folder / f"bedroom_{split}_lmdb"
        environment = lmdb.open(str(place), map_size=2**24)
        with environment.begin(write=True) as transaction:
            for i, file in enumerate(files):
                transaction.put(f"{i:040x}".encode(), file)
        environment.close()
        with zipfile.ZipFile(folder / f"bedroom_{split}_lmdb.zip", "w") as archive:
            archive.write(place / "data.mdb", f"bedroom_{split}_lmdb/data.mdb")
        shutil.rmtree(place)
        if split == "train":
            train = files
    return train


def imagenet64(folder, count=5):
    """Writes train_64x64.tar and valid_64x64.tar of PNG files; returns the training images."""
    images = random_images(count, 64, 64, seed=4)
    for split in ("train", "valid"):
        with tarfile.open(folder / f"{split}_64x64.tar", "w") as archive:
            for i, image in enumerate(images):
                file = io.BytesIO()
                Image.fromarray(image).save(file, "PNG")
                add(archive, f"{split}_64x64/{i:07d}.png", file.getvalue())
    return images


def idx(array):
    """Returns the bytes of an idx file: two zeros, type, number of axes, each length as a big-endian integer, values."""
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def fashion(folder, count=30):
    """Writes the four archives of Fashion-MNIST; returns the training images [count, 28, 28, 1]."""
    rng = np.random.default_rng(5)
    for split, n in [("t10k", 10), ("train", count)]:
        images, labels = rng.integers(0, 256, (n, 28, 28), dtype=np.uint8), rng.integers(0, 10, n, dtype=np.uint8)
        for kind, array in [("images-idx3", images), ("labels-idx1", labels)]:
            (folder / f"{split}-{kind}-ubyte.gz").write_bytes(gzip.compress(idx(array)))
    return images[..., None]


def same_set(found, expected):
    """Says whether both hold the same images, each once, in any order: TFDS shuffles when it writes."""
    return sorted(x.tobytes() for x in found) == sorted(x.tobytes() for x in expected)


@pytest.fixture(scope="module")
def cifar(tmp_path_factory):
    """Returns (data_dir, training images) of a prepared CIFAR-10."""
    root = tmp_path_factory.mktemp("cifar")
    (root / "raw").mkdir()
    images = cifar10(root / "raw")
    prepare.prepare("cifar10", str(root / "tfds"), str(root / "raw"), check_archives=False)
    return root / "tfds", images


def test_cifar10_is_pixel_exact(cifar):
    data_dir, expected = cifar
    images = Images(TfdsImages("cifar10", "train", data_dir), 32, 3)
    assert same_set(images[np.arange(100)], expected)
    assert len(TfdsImages("cifar10", "train[:30%]", data_dir)) == 30
    assert len(TfdsImages("cifar10", "test", data_dir)) == 20


def test_tfds_itself_reads_the_prepared_set(cifar):
    import tensorflow_datasets as tfds

    examples = tfds.builder("cifar10", data_dir=cifar[0]).as_data_source("train")
    example, own = examples[0], TfdsImages("cifar10", "train", cifar[0])
    assert own.has_labels
    assert own.labels().tolist() == [one["label"] for one in examples]
    assert example["image"].shape == (32, 32, 3)
    assert example["id"].startswith(b"train_")
    assert any(np.array_equal(example["image"], image) for image in cifar[1])


@pytest.mark.parametrize("is_terminal", [False, True])
def test_tfdss_bars_are_for_a_terminal(tmp_path, is_terminal, capsys, monkeypatch):
    imagenet64(tmp_path)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: is_terminal)
    prepare.prepare("downsampled_imagenet/64x64", str(tmp_path / "tfds"), str(tmp_path), check_archives=False)
    assert ("examples/s" in capsys.readouterr().err) == is_terminal


def test_celeba_from_zip_and_lists(tmp_path):
    files = celeba(tmp_path)
    prepare.prepare("celeb_a", str(tmp_path / "tfds"), str(tmp_path), check_archives=False)
    source = TfdsImages("celeb_a", "train", tmp_path / "tfds")
    assert sorted(source.read(range(8))) == sorted(files)  # the very bytes
    images = Images(source, 178, 3)[np.arange(8)]
    assert same_set(images, [np.asarray(Image.open(io.BytesIO(file)))[20:198] for file in files])


def test_celeba_needs_its_images_and_partition_alone(tmp_path, caplog):
    files = celeba(tmp_path)
    for name in ("list_attr_celeba.txt", "list_landmarks_align_celeba.txt", "identity_CelebA.txt"):
        (tmp_path / name).unlink()
    with caplog.at_level(logging.WARNING):
        prepare.prepare("celeb_a", str(tmp_path / "tfds"), str(tmp_path), check_archives=False)
    assert "only the images are prepared" in caplog.text
    assert sorted(TfdsImages("celeb_a", "train", tmp_path / "tfds").read(range(8))) == sorted(files)
    (tmp_path / "list_eval_partition.txt").unlink()
    with pytest.raises(UserError, match=r"list_eval_partition\.txt is missing: download it from https"):
        prepare.prepare("celeb_a", str(tmp_path / "other"), str(tmp_path), check_archives=False)


def test_a_cut_partition_of_celeba_is_named(tmp_path):
    celeba(tmp_path)
    partition = tmp_path / "list_eval_partition.txt"
    partition.write_text("".join(partition.read_text().splitlines(keepends=True)[:5]))
    with pytest.raises(UserError, match=r"list_eval_partition\.txt is not the archive that TFDS knows: it has 65 bytes of"):
        prepare.prepare("celeb_a", str(tmp_path / "tfds"), str(tmp_path))
    with pytest.raises(UserError, match=r"names 5 images, and img_align_celeba\.zip holds 12: download both again"):
        prepare.prepare("celeb_a", str(tmp_path / "tfds"), str(tmp_path), check_archives=False)


def test_archives_are_compared_with_their_known_size_and_checksum(tmp_path):
    from tensorflow_datasets.core.download.checksums import UrlInfo

    data = np.random.default_rng(0).bytes(100_000)
    known = {name: UrlInfo(len(data), hashlib.sha256(data).hexdigest(), name) for name in ("a.zip", "b.txt")}
    for name in known:
        (tmp_path / name).write_bytes(data)
    raw_archives.check(tmp_path, known)
    (tmp_path / "b.txt").write_bytes(data[:-1] + b"!")
    with pytest.raises(UserError, match=r"b\.txt is damaged: its SHA-256 is \w{12}\.\.\., and TFDS knows \w{12}"):
        raw_archives.check(tmp_path, known)
    (tmp_path / "a.zip").write_bytes(data[:50_000])
    with pytest.raises(UserError, match=r"a\.zip is not the archive that TFDS knows: it has 50,000 bytes of 100,000; download"):
        raw_archives.check(tmp_path, known)
    (tmp_path / "a.zip").write_text("<!DOCTYPE html><title>Google Drive - Virus scan warning</title>")
    with pytest.raises(UserError, match=r"of 100,000, a web page: the download was refused or asks for a confirmation"):
        raw_archives.check(tmp_path, known)


@pytest.mark.parametrize("content", [b"<!DOCTYPE html>", b"PK\x03\x04" + bytes(50)])
def test_a_page_or_a_cut_zip_that_is_not_checked_is_still_no_traceback(tmp_path, content):
    celeba(tmp_path)
    (tmp_path / "img_align_celeba.zip").write_bytes(content)
    with pytest.raises(UserError, match="tfds_name='celeb_a': preparing it failed"):
        prepare.prepare("celeb_a", str(tmp_path / "tfds"), str(tmp_path), check_archives=False)


def test_a_prepared_set_is_known_by_its_shards(cifar):
    before = fingerprint.of(Images(TfdsImages("cifar10", "train", cifar[0]), 32, 3))
    assert before["kind"] == "tfds cifar10 3.0.2, split train, 100 examples"
    assert before == fingerprint.of(Images(TfdsImages("cifar10", "train", cifar[0]), 16, 3))
    other = fingerprint.of(Images(TfdsImages("cifar10", "train[:30%]", cifar[0]), 32, 3))
    assert "split train, 100 examples then, tfds cifar10 3.0.2, split train[:30%], 30 examples now" in fingerprint.difference(
        before, other
    )


def test_lsun_from_lmdb(tmp_path):
    files = lsun(tmp_path)
    prepare.prepare("lsun/bedroom", str(tmp_path / "tfds"), str(tmp_path), check_archives=False)
    source = TfdsImages("lsun/bedroom", "train", tmp_path / "tfds")
    assert sorted(source.read(range(6))) == sorted(files)
    images = Images(source, 256, 3)[np.arange(6)]
    assert same_set(images, [np.asarray(Image.open(io.BytesIO(file)))[:, 22:278] for file in files])


def test_a_damaged_lmdb_is_named(tmp_path):
    lsun(tmp_path)
    with zipfile.ZipFile(tmp_path / "bedroom_train_lmdb.zip", "w") as archive:
        archive.writestr("bedroom_train_lmdb/data.mdb", bytes(5000))
    with pytest.raises(UserError, match=r"bedroom_train_lmdb\.zip holds a damaged lmdb"):
        prepare.prepare("lsun/bedroom", str(tmp_path / "tfds"), str(tmp_path), check_archives=False)


def test_imagenet64_from_tar(tmp_path):
    expected = imagenet64(tmp_path)
    prepare.prepare("downsampled_imagenet/64x64", str(tmp_path / "tfds"), str(tmp_path), check_archives=False)
    source = TfdsImages("downsampled_imagenet/64x64", "train", tmp_path / "tfds")
    assert same_set(Images(source, 64, 3)[np.arange(5)], expected)


def test_fashion_mnist_from_idx_files_is_pixel_exact_in_its_black_frame(tmp_path, caplog):
    expected = fashion(tmp_path)
    prepare.prepare("fashion_mnist", str(tmp_path / "tfds"), str(tmp_path), check_archives=False)
    assert "train-images-idx3-ubyte holds 30 images, and TFDS knows 60,000" in caplog.text
    source = TfdsImages("fashion_mnist", "train", tmp_path / "tfds")
    assert same_set(Images(source, 28, 1)[np.arange(30)], expected)
    framed = Images(source, 32, 1, pad=True)[np.arange(30)]
    assert same_set(framed, np.pad(expected, ((0, 0), (2, 2), (2, 2), (0, 0))))
    assert len(TfdsImages("fashion_mnist", "test", tmp_path / "tfds")) == 10


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"<html>", r"preparing it failed \(BadGzipFile: Not a gzipped file"),
        (gzip.compress(b"<html>" * 9), r"train-images-idx3-ubyte is not an idx file of bytes with 3 axes"),
        (gzip.compress(idx(np.zeros((30, 28, 28), np.uint8))[:-5]), r"holds 23,515 values of 23,520; download the archive"),
        (gzip.compress(idx(np.zeros((29, 28, 28), np.uint8))), r"holds 29 images, and train-labels-idx1-ubyte 30 labels"),
    ],
    ids=["a page", "a packed page", "cut", "an image short"],
)
def test_a_damaged_idx_file_is_named(tmp_path, content, said):
    fashion(tmp_path)
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(content)
    with pytest.raises(UserError, match=said):
        prepare.prepare("fashion_mnist", str(tmp_path / "tfds"), str(tmp_path), check_archives=False)


@pytest.mark.skipif(not DEBIAN.is_dir(), reason="needs the archives: apt-get install dataset-fashion-mnist")
def test_the_real_archives_of_fashion_mnist(tmp_path):
    """Read by the reader of the builder; the mean and the standard deviation are those that the field normalises with."""
    paths = []
    for kind in ("images-idx3", "labels-idx1"):
        paths.append(tmp_path / kind)
        paths[-1].write_bytes(gzip.decompress((DEBIAN / f"train-{kind}-ubyte.gz").read_bytes()))
    examples = [example for _, example in raw_readers.READERS["fashion_mnist"](None, 60_000, *paths)]
    assert np.bincount([example["label"] for example in examples]).tolist() == [6000] * 10
    x = np.stack([example["image"] for example in examples])
    assert x.shape == (60_000, 28, 28, 1)
    np.testing.assert_allclose([x.mean() / 255, x.std(dtype=np.float64) / 255], [0.2860, 0.3530], atol=5e-5)
    with pytest.raises(UserError, match=r"is not the archive that TFDS knows.*data\.check_archives=False"):  # packed anew
        prepare.prepare("fashion_mnist", str(tmp_path / "tfds"), str(DEBIAN))


def test_reading_and_preparing_import_no_tensorflow(cifar):
    """Runs a process in which TensorFlow cannot be found, even if it is installed."""
    code = f"""
import sys
from importlib.machinery import PathFinder
find = PathFinder.find_spec
PathFinder.find_spec = lambda name, *rest: None if name.partition(".")[0] == "tensorflow" else find(name, *rest)
import numpy as np
from advdiff_jax.data import prepare, records, tfds_source
prepare.prepare("cifar10", {str(cifar[0])!r})
x = records.Images(tfds_source.TfdsImages("cifar10", "train", {str(cifar[0])!r}), 32, 3)[np.arange(100)]
assert "tensorflow" not in sys.modules
print(int(x.astype(int).sum()))
"""
    root = pathlib.Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root, check=True)
    assert int(done.stdout.split()[-1]) == int(cifar[1].astype(int).sum())


def as_tfrecord(prepared):
    """Rewrites a prepared set as TFRecord, as TFDS writes it, but with checksums of 0, which nothing reads."""
    from array_record.python.array_record_module import ArrayRecordReader

    for shard in prepared.glob("*.array_record*"):
        reader = ArrayRecordReader(str(shard))
        with (prepared / shard.name.replace("array_record", "tfrecord")).open("wb") as file:
            for record in reader.read_all():
                file.write(struct.pack("<QI", len(record), 0) + record + struct.pack("<I", 0))
        reader.close()
        shard.unlink()
    info = prepared / "dataset_info.json"
    info.write_text(info.read_text().replace('"array_record"', '"tfrecord"'))


def test_tfrecord_on_disk_is_named_and_converted(cifar, tmp_path):
    shutil.copytree(cifar[0] / "cifar10", tmp_path / "cifar10")
    prepared = tmp_path / "cifar10" / "3.0.2"
    as_tfrecord(prepared)
    with pytest.raises(NotPrepared, match="tfrecord files, which have no random access"):
        TfdsImages("cifar10", "train", tmp_path)
    prepare.prepare("cifar10", str(tmp_path))
    images = Images(TfdsImages("cifar10", "train", tmp_path), 32, 3)
    assert same_set(images[np.arange(100)], cifar[1])
    assert not list(prepared.glob("*tfrecord*"))


def test_a_truncated_tfrecord_is_not_converted(cifar, tmp_path):
    shutil.copytree(cifar[0] / "cifar10", tmp_path / "cifar10")
    prepared = tmp_path / "cifar10" / "3.0.2"
    as_tfrecord(prepared)
    shard = next(prepared.glob("*train*"))
    shard.write_bytes(shard.read_bytes()[:-7])
    with pytest.raises(UserError, match="is truncated"):
        prepare.prepare("cifar10", str(tmp_path))
    assert shard.exists()


def test_missing_sets_splits_and_names(cifar, tmp_path):
    with pytest.raises(NotPrepared, match=r"tfds_name='cifar10' is not prepared: .* is missing"):
        TfdsImages("cifar10", "train", tmp_path)
    with pytest.raises(UserError, match=r"split='valid' is not a split of cifar10 .*set one of (test, train|train, test),"):
        TfdsImages("cifar10", "valid", cifar[0])
    with pytest.raises(UserError, match="tfds_name='cifar_ten' is not in TFDS"):
        TfdsImages("cifar_ten", "train", cifar[0])


def test_archives_that_are_missing_or_damaged(tmp_path):
    with pytest.raises(UserError, match="is not a folder"):
        prepare.prepare("cifar10", str(tmp_path / "tfds"), str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match=r"cifar-10-binary\.tar\.gz is missing: download it from https"):
        prepare.prepare("cifar10", str(tmp_path / "tfds"), str(tmp_path), check_archives=False)
    cifar10(tmp_path)
    archive = tmp_path / "cifar-10-binary.tar.gz"
    archive.write_bytes(archive.read_bytes()[:100_000])
    with pytest.raises(
        UserError, match=r"binary\.tar\.gz is not the archive that TFDS knows: it has 100,000 bytes of 170,052,171;"
    ):
        prepare.prepare("cifar10", str(tmp_path / "tfds"), str(tmp_path))
    with pytest.raises(UserError, match="tfds_name='cifar10': preparing it failed"):
        prepare.prepare("cifar10", str(tmp_path / "tfds"), str(tmp_path), check_archives=False)
    with pytest.raises(NotPrepared):  # nothing half-made is left behind
        TfdsImages("cifar10", "train", tmp_path / "tfds")


def test_not_enough_disk(tmp_path, monkeypatch):
    cifar10(tmp_path)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(prepare.shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(UserError, match=r"needs about 0\.0 GB of disk and has 0\.0 GB free.*--config\.data\.data_dir"):
        prepare.prepare("cifar10", str(tmp_path / "tfds"), str(tmp_path), check_archives=False)
    with pytest.raises(UserError, match=r"about 137\.8 GB"):  # LSUN's own sizes, before anything is downloaded
        prepare.prepare("lsun/bedroom", str(tmp_path / "tfds"))


def test_without_raw_archives_tfds_downloads_them(tmp_path, monkeypatch):
    """TFDS's own download manager fetches the archives, here from a folder; the rest is the same."""
    import tensorflow_datasets as tfds

    expected, asked = cifar10(tmp_path), []
    monkeypatch.setattr(
        tfds.download.DownloadManager,
        "download",
        lambda self, url: asked.append(url) or tmp_path / url.rsplit("/", 1)[-1],
    )
    prepare.prepare("cifar10", str(tmp_path / "tfds"))
    assert asked == ["https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"]
    images = Images(TfdsImages("cifar10", "train", tmp_path / "tfds"), 32, 3)
    assert same_set(images[np.arange(100)], expected)


def test_a_failed_download_names_the_archives_to_download_by_hand(tmp_path, monkeypatch):
    import tensorflow_datasets as tfds

    def fail(self, url):
        raise tfds.download.DownloadError("no route")

    monkeypatch.setattr(tfds.download.DownloadManager, "download", fail)
    with pytest.raises(UserError, match=r"no route.*cifar-10-binary\.tar\.gz.*--config\.data\.manual_dir"):
        prepare.prepare("cifar10", str(tmp_path / "tfds"))
