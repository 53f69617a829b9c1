"""Files of weights: found, checked by their SHA-256, downloaded once, and refused by the tensor that does not fit."""

import functools
import hashlib
import http.server
import threading

import numpy as np
import pytest

from advdiff_jax.errors import InvalidArgument
from advdiff_jax.features import weights

CONTENT = b"weights"
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A server on this machine: (its address, its folder, the paths that were asked for)."""
    folder, asked = tmp_path_factory.mktemp("served"), []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            asked.append(self.path)

    (folder / "net.pth").write_bytes(CONTENT)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=folder)) as found:
        threading.Thread(target=found.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{found.server_port}", asked
        found.shutdown()


def test_a_path_is_taken_as_it_is(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    path = tmp_path / "net.pth"
    path.write_bytes(CONTENT)
    assert weights.locate(str(path)) == weights.locate("~/net.pth", DIGEST.upper()) == path


def test_a_url_is_downloaded_once_and_again_if_the_copy_is_damaged(server, tmp_path, caplog):
    address, asked = server
    url, before = f"{address}/net.pth?download=true", len(asked)
    path = weights.locate(url, DIGEST, str(tmp_path / "cache"))
    assert path.read_bytes() == CONTENT
    assert path.suffix == ".pth"
    assert weights.locate(url, DIGEST, str(tmp_path / "cache")) == path
    assert len(asked) == before + 1
    assert "damaged" not in caplog.text
    path.write_bytes(b"damaged")
    assert weights.locate(url, DIGEST, str(tmp_path / "cache")).read_bytes() == CONTENT
    assert "is damaged: it is downloaded again" in caplog.text
    assert len(asked) == before + 2
    assert [*path.parent.iterdir()] == [path]


@pytest.mark.parametrize(
    ("name", "sha256", "message"),
    [
        ("", "", "weights='' names no file: set weights to its path"),
        ("missing.pth", "", r"missing\.pth is not a file: set weights to the path of a file"),
        (".", "", r"weights=\S+ is not a file"),
        ("net.pth", "12ab", "weights_sha256='12ab' is not a SHA-256: set its 64 hexadecimal digits"),
        ("net.pth", "0" * 64, f"net.pth has the SHA-256 {DIGEST}, not 0000"),
        ("URL/net.pth", "", r"is a URL: set weights_sha256 to the SHA-256 of its file"),
        ("URL/net.pth", "0" * 64, f"has the SHA-256 {DIGEST}, not 0000"),
        ("URL/missing.pth", DIGEST, r"is not downloaded \(HTTP Error 404.*: fetch it, and set weights to its path"),
        ("http://[::1/net.pth", DIGEST, "is not downloaded"),
        ("http://127.0.0.1:1/net.pth", DIGEST, "is not downloaded"),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_line(name, sha256, message, server, tmp_path):
    (tmp_path / "net.pth").write_bytes(CONTENT)
    where = name.replace("URL", server[0]) if "//" in name or "URL" in name else name and str(tmp_path / name)
    with pytest.raises(InvalidArgument, match=message) as caught:
        weights.locate(where, sha256, str(tmp_path / "cache"))
    assert "\n" not in str(caught.value)
    assert not [*tmp_path.glob("cache/*")]


def test_a_cache_that_cannot_be_written_is_said(server, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(InvalidArgument, match=r"is not downloaded .*fetch it, and set weights to its path"):
        weights.locate(f"{server[0]}/net.pth", DIGEST, str(tmp_path / "file"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"b": None}, "not weights of a test: b is missing"),
        ({"a": np.zeros((3, 2))}, r"not weights of a test: a has the shape \[3, 2\], not \[2, 3\]"),
        ({"b": np.array([np.nan])}, "weights of a test are damaged: b holds numbers that are not finite"),
        ({"c": np.zeros(1)}, "not weights of a test: c is not in that network"),
    ],
)
def test_the_tensor_that_does_not_fit_is_named(change, message):
    tensors, shapes = {"a": np.zeros((2, 3)), "b": np.zeros(1), "b.count": np.zeros(1)}, {"a": (2, 3), "b": (1,)}
    weights.check_fits("a test", tensors, shapes, unused=r"\.count$")
    changed = {name: value for name, value in (tensors | change).items() if value is not None}
    with pytest.raises(InvalidArgument, match=message):
        weights.check_fits("a test", changed, shapes, unused=r"\.count$")
