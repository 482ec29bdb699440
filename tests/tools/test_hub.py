import json

import pytest

from movq_jax.pretrained import hub
from movq_jax.pretrained.bundle import read_bundle
from movq_jax.tools import command
from movq_jax.tools.hub import main


@pytest.fixture
def calls(monkeypatch, tiny_bundle):
    """What the Hub was asked for."""
    calls = []

    def upload(path, repo, *, private, licence):
        calls.append((path, repo, private, licence))
        url = f"https://huggingface.co/{repo}/commit/1"
        return hub.Uploaded("f" * 64, url, "1", ("config.json",))

    def download(repo, out, revision):
        calls.append((repo, out, revision))
        return read_bundle(tiny_bundle)

    monkeypatch.setattr(hub, "upload", upload)
    monkeypatch.setattr(hub, "download", download)
    return calls


def test_upload(calls, capsys):
    argv = ["upload", "--model=runs/a", "--repo=me/net", "--licence=mit", "--private"]
    main(argv)
    assert calls == [("runs/a", "me/net", True, "mit")]
    out = capsys.readouterr().out
    assert out == (
        "runs/a -> hf://me/net, https://huggingface.co/me/net/commit/1, "
        "fingerprint ffffffffffff\n"
    )


def test_download(calls, capsys, tmp_path):
    record = tmp_path / "record.json"
    main(
        ["download", "--repo=me/net", "--out=net", "--revision=v1", f"--json={record}"]
    )
    assert calls == [("me/net", "net", "v1")]
    assert "hf://me/net -> net, a tokenizer" in capsys.readouterr().out
    record = json.loads(record.read_text())
    assert record["tool"] == "hub" and record["action"] == "download"
    assert record["revision"] == "v1" and len(record["fingerprint"]) == 64


def test_the_record_alone_on_stdout(calls, capsys):
    main(["upload", "--model=runs/a", "--repo=me/net", "--json"])
    record = json.loads(capsys.readouterr().out)
    assert record["url"].endswith("/commit/1") and record["files"] == ["config.json"]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "the following arguments are required: action"),
        (["send"], "invalid choice: 'send'"),
        (["upload", "--repo=me/net"], "movq hub upload needs --model"),
        (["upload", "--model=runs/a"], "movq hub upload needs --repo"),
        (["download", "--repo=me/net"], "movq hub download needs --out"),
        (
            ["download", "--repo=me/net", "--out=a", "--private"],
            "--private is for movq hub upload, not for movq hub download",
        ),
        (
            ["upload", "--repo=me/net", "--model=a", "--out=b"],
            "--out is for movq hub download, not for movq hub upload",
        ),
        (["upload", "--repo=me/net", "--modle=a"], "did you mean '--model'?"),
    ],
)
def test_flags_that_are_wrong(calls, argv, message, capsys):
    assert command.run(main, argv) == 2
    assert message in capsys.readouterr().err and not calls
