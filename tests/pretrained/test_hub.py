import base64
import http.server
import json
import re
import shutil
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

import movq_jax
from movq_jax.errors import UserError
from movq_jax.pretrained import hub
from movq_jax.pretrained.bundle import read_bundle
from movq_jax.pretrained.prior_bundle import read_prior_bundle

FILES = {"README.md", "config.json", "model.safetensors"}


class FakeHub(http.server.BaseHTTPRequestHandler):
    """As much of the Hub as a commit and a snapshot need; its repositories are dicts.

    `server.repos`: name -> {"private": bool, "commits": {hex digits: {path: bytes}}}.
    """

    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Authorization") != "Bearer hf_mine":
            return self.answer({"error": "who are you"}, 401)
        self.server.posted.append(self.path)
        if self.path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}"
            known = name in self.server.repos
            private = asked.get("private") or asked.get("visibility") == "private"
            new = {"private": bool(private), "commits": {}}
            self.server.repos.setdefault(name, new)
            url = f"{self.server.url}/{name}"
            return self.answer({"url": url, "id": name}, 409 if known else 200)
        if self.path == "/api/validate-yaml":
            self.server.cards.append(json.loads(body)["content"])
            return self.answer({"errors": [], "warnings": []})
        name, what = re.fullmatch(
            r"/api/models/(me/\w+)/(\w+)/main", self.path
        ).groups()
        if what == "preupload":
            mode = {"uploadMode": "regular", "shouldIgnore": False}
            paths = [file["path"] for file in json.loads(body)["files"]]
            return self.answer({"files": [{"path": path, **mode} for path in paths]})
        lines = [json.loads(line)["value"] for line in body.splitlines()]
        files = {
            f["path"]: base64.b64decode(f["content"]) for f in lines if "path" in f
        }
        commits = self.server.repos[name]["commits"]
        before = list(commits.values())[-1] if commits else {}
        commit = f"{len(commits) + 1:040x}"
        commits[commit] = {**before, **files}
        self.server.messages += [line["summary"] for line in lines if "summary" in line]
        url = f"{self.server.url}/{name}/commit/{commit}"
        return self.answer({"commitUrl": url, "commitOid": commit, "success": True})

    def do_GET(self):
        self.server.got.append(self.path)
        match = re.match(r"/(?:api/models/)?(me/\w+)(?:/(\w+)/(\w+))?(.*)", self.path)
        name, what, revision, rest = match.groups() if match else [None] * 4
        repo = self.server.repos.get(name)
        if repo is None:
            return self.answer({"error": "no such repository"}, 404, "RepoNotFound")
        commits = repo["commits"]
        last = list(commits)[-1] if commits else "0" * 40
        commit = last if revision in (None, "main") else revision
        if commits and commit not in commits:
            return self.answer({"error": "no such revision"}, 404, "RevisionNotFound")
        if what == "resolve":
            return self.answer(commits[commit][rest.split("?")[0][1:]], commit=commit)
        if what == "tree":
            return self.answer(
                [
                    {"type": "file", "path": path, "size": len(data), "oid": "1" * 40}
                    for path, data in commits[commit].items()
                ]
            )
        return self.answer({"id": name, "sha": commit, "private": repo["private"]})

    do_HEAD = do_GET

    def answer(self, content, status=200, code=None, commit=None):
        if not isinstance(content, bytes):
            content = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Content-Type", "application/json")
        if code:
            self.send_header("X-Error-Code", code)
        if commit:
            self.send_header("X-Repo-Commit", commit)
            self.send_header("ETag", f'"{hash(content):x}"')
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


@pytest.fixture
def server(home, monkeypatch, tmp_path):
    """A Hub of one's own, which the package talks to, logged in."""
    package = pytest.importorskip("huggingface_hub")
    from huggingface_hub import constants

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), FakeHub) as server:
        server.repos, server.messages = {}, []
        server.posted, server.got, server.cards = [], [], []
        server.url = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setenv("HF_TOKEN", "hf_mine")
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        template = server.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        thread = threading.Thread(
            target=server.serve_forever, kwargs={"poll_interval": 0.01}
        )
        thread.start()
        yield server
        server.shutdown()
        thread.join()
        package.close_session()


def refused(function, *args, **named):
    with pytest.raises(UserError) as error:
        function(*args, **named)
    message = str(error.value)
    assert "\n" not in message
    return message


def test_a_tokenizer_goes_up_and_comes_back(server, tiny_bundle, tmp_path):
    done = hub.upload(tiny_bundle, "me/net", licence="apache-2.0")
    assert done.url == f"{server.url}/me/net/commit/{done.revision}"
    assert (
        set(done.files)
        == FILES
        == set(server.repos["me/net"]["commits"][done.revision])
    )
    assert server.messages == [f"movq_jax: tokenizer {done.fingerprint[:12]}"]
    tok = movq_jax.load("hf://me/net")
    assert tok.fingerprint == done.fingerprint == read_bundle(tiny_bundle).fingerprint
    assert tok.protocol == {"weights": "random", "licence": "apache-2.0"}
    images = np.random.default_rng(0).integers(0, 256, (1, 8, 8, 3), np.uint8)
    same = movq_jax.load(tiny_bundle)
    np.testing.assert_array_equal(tok.encode(images), same.encode(images))
    bundle = hub.download("me/net", tmp_path / "copies" / "net")
    assert bundle.fingerprint == done.fingerprint
    folder = tmp_path / "copies" / "net"
    assert {path.name for path in folder.iterdir()} == FILES
    assert not any(path.is_symlink() for path in folder.iterdir())
    assert [path.name for path in folder.parent.iterdir()] == ["net"]
    card = (folder / "README.md").read_text()
    assert server.cards == [card]  # the Hub looks at its front matter first
    assert 'license: "apache-2.0"' in card and 'movq_jax.load("hf://me/net")' in card


def test_a_prior_takes_its_tokenizer_along(server, tiny_prior_bundle, tmp_path):
    done = hub.upload(tiny_prior_bundle / "model", "me/prior")
    assert set(done.files) == FILES | {f"tokenizer/{name}" for name in FILES}
    hub.download("me/prior", tmp_path / "prior")
    there, here = (
        read_prior_bundle(tmp_path / "prior"),
        read_prior_bundle(tiny_prior_bundle),
    )
    assert there.prior.fingerprint == here.prior.fingerprint == done.fingerprint
    assert there.tokenizer.fingerprint == here.tokenizer.fingerprint
    original = (tiny_prior_bundle / "model" / "config.json").read_bytes()
    assert (tmp_path / "prior" / "config.json").read_bytes() == original


def test_a_revision(server, tiny_bundle, tiny_prior_bundle, tmp_path):
    first = hub.upload(tiny_bundle, "me/net").revision
    hub.upload(tiny_prior_bundle, "me/net")
    kinds = [read_bundle(f"hf://me/net{at}").kind for at in ("", "@main", f"@{first}")]
    assert kinds == ["prior", "prior", "tokenizer"]
    hub.download("me/net", tmp_path / "first", first)
    assert {path.name for path in (tmp_path / "first").iterdir()} == FILES
    message = refused(movq_jax.load, "hf://me/net@nothing")
    assert message == "hf://me/net has no revision 'nothing'"


def test_what_was_fetched_needs_no_network(server, tiny_bundle, monkeypatch):
    hub.upload(tiny_bundle, "me/net")
    read_bundle("hf://me/net")
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert read_bundle("hf://me/net").kind == "tokenizer"
    assert "the Hub cannot be used: " in refused(read_bundle, "hf://me/other")


def test_private(server, tiny_bundle):
    hub.upload(tiny_bundle, "me/hidden", private=True)
    assert server.repos["me/hidden"]["private"]
    hub.upload(tiny_bundle, "me/hidden", private=True)
    hub.upload(tiny_bundle, "me/open")
    commits = dict(server.repos["me/open"]["commits"])
    message = refused(hub.upload, tiny_bundle, "me/open", private=True)
    assert "is there already, and public" in message
    assert server.repos["me/open"]["commits"] == commits


def test_no_such_repository(server):
    message = refused(movq_jax.load, "hf://me/nothing")
    assert "the Hub has no repository me/nothing, or none that you may see" in message


def test_who_is_not_logged_in(server, tiny_bundle, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_another")
    assert "hf auth login" in refused(hub.upload, tiny_bundle, "me/net")


def test_a_repository_of_something_else(server):
    commits = {"1" * 40: {"config.json": b"{}", "pytorch_model.bin": b"pickle"}}
    server.repos["me/other"] = {"private": False, "commits": commits}
    message = refused(movq_jax.load, "hf://me/other")
    assert "hf://me/other holds no model of movq_jax" in message
    assert not any("pytorch_model" in path for path in server.got)


def test_what_came_is_damaged(server, tiny_bundle, tmp_path):
    commit = hub.upload(tiny_bundle, "me/net").revision
    files = server.repos["me/net"]["commits"][commit]
    files["model.safetensors"] = files["model.safetensors"][:-1] + b"x"
    message = refused(hub.download, "me/net", tmp_path / "net")
    assert "is damaged or was changed" in message
    assert not (tmp_path / "net").exists()


def test_a_damaged_bundle_is_not_uploaded(server, tiny_bundle, tmp_path):
    shutil.copytree(tiny_bundle, tmp_path / "run")
    path = tmp_path / "run" / "model" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    assert "is damaged or was changed" in refused(hub.upload, tmp_path / "run", "me/a")
    assert not server.repos


def test_a_folder_that_is_there_is_left_alone(server, tiny_bundle, tmp_path):
    hub.upload(tiny_bundle, "me/net")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for name in ("full", "file"):
        assert "there already" in refused(hub.download, "me/net", tmp_path / name)
    assert "cannot write" in refused(hub.download, "me/net", tmp_path / "file" / "net")
    (tmp_path / "empty").mkdir()
    assert hub.download("me/net", tmp_path / "empty").kind == "tokenizer"


@pytest.mark.parametrize("repo", ["", "net", "me/net/more", "me/ne t", "../net", "/a"])
def test_what_is_no_repository(repo, tiny_bundle, tmp_path):
    for message in (
        refused(movq_jax.load, f"hf://{repo}"),
        refused(hub.upload, tiny_bundle, repo),
        refused(hub.download, repo, tmp_path / "out"),
    ):
        assert "is no repository of the Hub: give USER/NAME" in message


def test_without_the_package(monkeypatch, tiny_bundle):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    for message in (
        refused(movq_jax.load, "hf://me/net"),
        refused(hub.upload, tiny_bundle, "me/net"),
    ):
        assert (
            "needs the package huggingface_hub: pip install 'movq_jax[hub]'" in message
        )


def test_only_files_of_a_bundle_are_asked_for(monkeypatch, tiny_bundle):
    asked = {}

    def snapshot_download(**arguments):
        asked.update(arguments)
        return str(tiny_bundle / "model")

    package = pytest.importorskip("huggingface_hub")
    monkeypatch.setattr(package, "snapshot_download", snapshot_download)
    assert hub.fetch_from_hub("hf://me/net@v1.0") == Path(tiny_bundle / "model")
    assert asked["repo_id"] == "me/net" and asked["revision"] == "v1.0"
    assert set(asked["allow_patterns"]) == FILES | {f"tokenizer/{f}" for f in FILES}
