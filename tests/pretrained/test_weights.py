import hashlib
import http.server
import threading
from pathlib import Path

import pytest

from movq_jax.errors import UserError
from movq_jax.pretrained import weights
from movq_jax.pretrained.weights import KNOWN_FILES, WeightsFile, find_or_fetch

DATA = bytes(range(256)) * 9000


@pytest.fixture
def server(web, home):
    """`web`, which has the file `net.pth`."""
    (web.folder / "net.pth").write_bytes(DATA)
    return web


@pytest.fixture
def publish(monkeypatch):
    """A function that replaces the table of files by the one file `net.pth`."""

    def publish(url, data=DATA, size=None):
        size = len(data) if size is None else size
        file = WeightsFile(url, size, hashlib.sha256(data).hexdigest(), "CC0-1.0")
        monkeypatch.setattr(weights, "KNOWN_FILES", {"net.pth": file})
        return file

    return publish


@pytest.fixture(autouse=True)
def nobodys(home):
    """No test may touch the folder of the one who runs it, or ask a proxy."""


def refused(folder=""):
    with pytest.raises(UserError) as error:
        find_or_fetch("net.pth", folder)
    message = str(error.value)
    assert "\n" not in message
    return message


def test_the_table():
    for name, file in KNOWN_FILES.items():
        assert file.url.startswith("https://") and file.url.endswith("/" + name)
        assert len(bytes.fromhex(file.sha256)) == 32 and file.size > 0 and file.licence
    assert KNOWN_FILES["vgg16-397923af.pth"].sha256.startswith("397923af")


def test_a_missing_file_is_fetched_once(server, publish, home, capsys):
    publish(server.url + "/net.pth")
    path = find_or_fetch("net.pth")
    assert path == home / ".cache/movq_jax/weights/net.pth"
    assert path.read_bytes() == DATA
    assert f"fetching {server.url}/net.pth" in capsys.readouterr().err
    assert find_or_fetch("net.pth") == path
    assert server.asked == ["/net.pth"]
    assert [p.name for p in path.parent.iterdir()] == ["net.pth"]


def test_the_folder_of_the_variable_and_the_one_given(
    server, publish, home, tmp_path, monkeypatch
):
    publish(server.url + "/net.pth")
    monkeypatch.setenv("MOVQ_JAX_WEIGHTS", "~/net")
    assert find_or_fetch("net.pth") == home / "net" / "net.pth"
    (tmp_path / "given").mkdir()
    assert find_or_fetch("net.pth", tmp_path / "given").parent == tmp_path / "given"
    with pytest.raises(UserError, match=r"there is no folder .*/missing"):
        find_or_fetch("net.pth", tmp_path / "missing")
    assert not (tmp_path / "missing").exists()


def test_a_placed_file_needs_no_network(publish, tmp_path):
    publish("http://127.0.0.1:9/net.pth")
    (tmp_path / "net.pth").write_bytes(DATA)
    assert find_or_fetch("net.pth", tmp_path) == tmp_path / "net.pth"


def test_a_placed_file_that_is_another(server, publish, tmp_path):
    file = publish(server.url + "/net.pth")
    (tmp_path / "net.pth").write_bytes(DATA[:-1])
    message = refused(tmp_path)
    assert str(tmp_path / "net.pth") in message and file.sha256 in message
    assert (tmp_path / "net.pth").exists() and not server.asked


def test_no_network(publish, tmp_path):
    file = publish("http://127.0.0.1:9/net.pth")
    message = refused(tmp_path)
    for part in ("net.pth", file.url, file.sha256, str(tmp_path), "MOVQ_JAX_WEIGHTS"):
        assert part in message
    assert "refused" in message and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("data", "size", "reason"),
    [
        (DATA[:-1] + b"x", None, "what came has the SHA-256"),
        (DATA, len(DATA) + 1, "fewer than its"),
        (DATA, len(DATA) - 1, "more than its"),
        (DATA, 7, "more than its 7 bytes"),
    ],
)
def test_what_comes_is_another(server, publish, tmp_path, data, size, reason):
    folder = tmp_path / "folder"
    folder.mkdir()
    publish(server.url + "/net.pth", data, size)
    assert reason in refused(folder)
    assert not list(folder.iterdir())


def test_the_address_is_gone(server, publish, home):
    publish(server.url + "/other.pth")
    assert "HTTP Error 404" in refused()
    assert not list((home / ".cache/movq_jax/weights").iterdir())


def test_a_connection_that_breaks(publish, tmp_path):
    class Short(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Length", str(len(DATA)))
            self.end_headers()
            self.wfile.write(DATA[:1000])

        def log_message(self, *args):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Short) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        publish(f"http://127.0.0.1:{server.server_port}/net.pth")
        assert "could not be fetched" in refused(tmp_path)
        thread.join()
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written(server, publish, tmp_path, monkeypatch):
    publish(server.url + "/net.pth")
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MOVQ_JAX_WEIGHTS", str(tmp_path / "file" / "sub"))
    assert "cannot write" in refused() or "cannot be read" in refused()


def test_a_folder_in_place_of_the_file(publish, tmp_path):
    publish("http://127.0.0.1:9/net.pth")
    Path(tmp_path / "net.pth").mkdir()
    assert "cannot be read: Is a directory" in refused(tmp_path)
