"""The command line of training, up to where training begins."""

import subprocess
import sys
from pathlib import Path

import pytest

from movq_jax import compilation_cache, main
from movq_jax.tools import command
from movq_jax.training import loop

ROOT = Path(__file__).parents[1]


@pytest.fixture
def calls(monkeypatch):
    """What was called with what, instead of training."""
    monkeypatch.chdir(ROOT)
    made = []

    def record(name):
        return lambda *args, **named: made.append((name, *args, *named.values()))

    monkeypatch.setattr(loop, "train", record("train"))
    monkeypatch.setattr(loop, "evaluate", record("evaluate"))
    monkeypatch.setattr(compilation_cache, "enable", record("cache"))
    return made


def run(*argv):
    return command.run(main.main, list(argv))


def test_it_trains_the_config_with_its_overrides(calls):
    flags = ["--config.seed=3", "--config.train.batch_size", "16", "--workdir=runs/x"]
    assert run("--config=configs/movq_photos.py:tiny", *flags) == 0
    (cache, (name, config, workdir, profile)) = calls
    assert cache == ("cache",)
    assert (name, workdir, profile) == ("train", "runs/x", None)
    assert (config.seed, config.train.batch_size) == (3, 16)
    assert config.data.image_size == 32


@pytest.mark.parametrize(
    ("spec", "workdir"),
    [
        ("movq_photos", "runs/movq_photos"),
        ("configs/movq_f8.py:102m,tiny", "runs/movq_f8-102m-tiny"),
    ],
)
def test_the_workdir_is_called_after_the_config(calls, spec, workdir):
    assert run("--config", spec, "--mode=eval") == 0
    assert calls[-1][0] == "evaluate"
    assert calls[-1][2] == workdir


def test_twice_in_one_process(calls):
    assert run("--config=movq_photos:tiny", "--config.seed=1") == 0
    assert run("--config=movq_photos:tiny") == 0
    assert [call[1].seed for call in calls if call[0] == "train"] == [1, 0]


def test_steps_to_trace(calls):
    assert run("--config=movq_photos:tiny", "--profile=10:15") == 0
    assert calls[-1][-1] == range(10, 16)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "which experiment? Give --config=configs/movq_photos.py"),
        (["--confg=a"], "unknown flag --confg (did you mean '--config'?)"),
        (["--cofnig.seed=1"], "unknown flag --cofnig.seed (did you mean '--config'?)"),
        (["--config=movq_fotos"], "did you mean 'movq_photos'?"),
        (["--config=movq_photos:tny"], "there is no argument 'tny'"),
        (
            ["--config=movq_photos", "--config.trian.batch_size=1"],
            "no config.trian.batch_size; did you mean config.train.batch_size?",
        ),
        (
            ["--config=movq_photos", "--config.seed=x"],
            "config.seed expects a whole number, not 'x'",
        ),
        (["--config=movq_photos", "--mode=trian"], "--mode=trian"),
        (["--config=movq_photos", "--profile=5:2"], "--profile is '5:2', but must be"),
        (
            ["--config=movq_photos", "--profile=5", "--mode=eval"],
            "--profile traces training steps",
        ),
        (
            ["movq_photos"],
            "'movq_photos': did you mean --config=movq_photos?",
        ),
    ],
)
def test_a_typing_mistake_is_one_line_and_exit_code_2(calls, capsys, argv, message):
    assert run(*argv) == 2
    printed = capsys.readouterr()
    assert message in printed.err
    assert printed.err.startswith("error: ") and printed.err.count("\n") == 1
    assert printed.out == ""
    assert calls == []


def test_help(calls, capsys):
    assert run("--help") == 0
    text = capsys.readouterr().out
    for word in ("--config=configs/movq_photos.py", "--workdir", "<train|eval>"):
        assert word in text
    assert calls == []


def test_as_a_module_a_mistake_is_answered_without_waiting_for_jax():
    script = (
        "import runpy, sys; sys.argv = ['main', '--config=movq_photos:tny']\n"
        "try: runpy.run_module('movq_jax.main', run_name='__main__')\n"
        "except SystemExit as end: assert end.code == 2\n"
        "assert not {'jax', 'flax', 'tensorflow', 'grain'} & set(sys.modules)"
    )
    result = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert result.returncode == 0, result.stderr
    assert result.stderr.startswith("error: configs/movq_photos.py: ")
