"""The folder of a run: claimed, locked, refused."""

import json
import os
import subprocess
import sys

import pytest

from movq_jax.config import to_json
from movq_jax.errors import UserError
from movq_jax.training import workdir as workdirs


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{}", "is not a run's config: it lacks model, loss"),
        ("[1]", "is not a run's config: not a JSON object"),
        ("torn {", "is not a run's config"),
        ("\xff", "is not a run's config"),
    ],
)
def test_nonsense_instead_of_a_config(tiny_config, tmp_path, text, words):
    (tmp_path / "config.json").write_text(text, encoding="latin-1")
    for function in (workdirs.claim, workdirs.config_to_evaluate):
        with pytest.raises(UserError, match=words):
            function(tmp_path, tiny_config())


def test_a_section_that_is_none(tiny_config, tmp_path):
    stored = json.loads(to_json(tiny_config())) | {"model": 3}
    (tmp_path / "config.json").write_text(json.dumps(stored))
    with pytest.raises(UserError, match="model is 3, not a section"):
        workdirs.claim(tmp_path, tiny_config())


def test_a_run_of_a_version_with_fewer_keys_is_not_evaluated(tiny_config, tmp_path):
    stored = json.loads(to_json(tiny_config()))
    del stored["train"]["max_bad_steps"]
    (tmp_path / "config.json").write_text(json.dumps(stored))
    with pytest.raises(UserError, match="lacks config.train.max_bad_steps: another"):
        workdirs.config_to_evaluate(tmp_path, tiny_config())


def test_what_is_evaluated_is_what_was_trained(tiny_config, tmp_path):
    workdirs.claim(tmp_path, tiny_config("seed=3"))
    assert workdirs.config_to_evaluate(tmp_path, tiny_config()).seed == 3


@pytest.mark.parametrize(
    ("place", "words"),
    [("gs://bucket/run", "please install|Please install"), ("foo://a", "unknown kind")],
)
def test_a_place_that_cannot_be_reached(monkeypatch, place, words):
    for package in ("gcsfs", "google.cloud.storage"):
        monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError, match=words):
        workdirs.check_place(place)


def test_the_lock_ends_with_the_process(tmp_path):
    script = (
        "import sys, os\n"
        "from movq_jax.training.workdir import locked\n"
        f"with locked({os.fspath(tmp_path / 'run')!r}):\n"
        "    print('locked', flush=True)\n"
        "    sys.stdin.readline()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=-1, stdout=-1, text=True
    ) as process:
        assert process.stdout.readline() == "locked\n"
        with pytest.raises(UserError, match="another process is training in .*run"):
            with workdirs.locked(tmp_path / "run"):
                pass
        process.kill()
    with workdirs.locked(tmp_path / "run"):
        pass


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        with workdirs.locked(tmp_path / "file" / "run"):
            pass


def test_a_bucket_has_no_lock():
    with workdirs.locked("gs://bucket/run"):
        pass
