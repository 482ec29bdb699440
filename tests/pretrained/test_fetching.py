import hashlib
import http.server
import threading

import pytest

from movq_jax.errors import UserError
from movq_jax.pretrained.fetching import NotFetched, fetch, sha256_of

DATA = bytes(range(256)) * 9000
DIGEST = hashlib.sha256(DATA).hexdigest()


@pytest.fixture
def answer(home):
    """A function that serves one answer, of these headers, and returns its address."""
    threads = []

    def answer(body, **headers):
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(200)
                for name, value in headers.items():
                    self.send_header(name.replace("_", "-"), str(value))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args):
                pass

        server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        threads.append((server, thread))
        return f"http://127.0.0.1:{server.server_port}/net"

    yield answer
    for server, thread in threads:
        thread.join()
        server.server_close()


def test_a_file_of_unknown_size(answer, tmp_path, capsys):
    path = tmp_path / "new" / "net.pth"
    assert fetch(answer(DATA), path) == DIGEST == sha256_of(path)
    assert "of unknown size" in capsys.readouterr().err
    assert [p.name for p in path.parent.iterdir()] == ["net.pth"]


def test_the_size_that_the_server_states_holds(answer, tmp_path, capsys):
    url = answer(DATA, Content_Length=len(DATA))
    assert fetch(url, tmp_path / "net.pth") == DIGEST
    assert f"({len(DATA):,} bytes) into {tmp_path}" in capsys.readouterr().err
    (tmp_path / "net.pth").unlink()
    url = answer(DATA[:-1], Content_Length=len(DATA))
    with pytest.raises(NotFetched, match=f"fewer than its {len(DATA)} bytes"):
        fetch(url, tmp_path / "net.pth")
    assert not (tmp_path / "net.pth").exists()


@pytest.mark.parametrize(
    ("headers", "known", "reason"),
    [
        ({"Content_Type": "text/html; charset=utf-8"}, {}, "is a web page"),
        ({}, {"size": len(DATA) - 1}, "more than its"),
        ({}, {"size": len(DATA) + 1}, "fewer than its"),
        ({}, {"sha256": "0" * 64}, f"has the SHA-256 {DIGEST}"),
    ],
)
def test_what_is_another_leaves_what_was_there(
    answer, tmp_path, headers, known, reason
):
    (tmp_path / "net.pth").write_text("the old one")
    with pytest.raises(NotFetched, match=reason):
        fetch(answer(DATA, **headers), tmp_path / "net.pth", **known)
    assert (tmp_path / "net.pth").read_text() == "the old one"
    assert len(list(tmp_path.iterdir())) == 1


def test_no_server(home, tmp_path):
    with pytest.raises(NotFetched, match="refused"):
        fetch("http://127.0.0.1:9/net", tmp_path / "net.pth")
    assert not list(tmp_path.iterdir())


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        fetch("http://127.0.0.1:9/net", tmp_path / "file" / "net.pth")
