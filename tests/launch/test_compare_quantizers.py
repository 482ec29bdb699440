"""The comparison as a whole is hours; here its runs are pretended."""

import importlib.util
import json
import subprocess
from pathlib import Path

import pytest

from movq_jax.tools import command

FILE = Path(__file__).parents[2] / "launch/compare_quantizers.py"


@pytest.fixture
def compare(monkeypatch, tmp_path):
    """Call it with flags; `.trained` are the runs, `.code` is how they end."""
    spec = importlib.util.spec_from_file_location("compare_quantizers", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    trained = []

    def run(words, **_):
        (place,) = [w for w in words if w.startswith("--workdir=")]
        trained.append(Path(place.partition("=")[2]).parent.name)
        return subprocess.CompletedProcess(words, call.code)

    def measure(jobs, args, output, features):
        for row, seed in jobs:
            numbers = {key: 1.0 + seed for key in module.COLUMNS}
            numbers["squeezenet_fd"] = None
            result = {"row": row, **numbers}
            module.comparing.write_json(output / f"{row}-{seed}/result.json", result)

    monkeypatch.setattr(module.comparing.subprocess, "run", run)
    monkeypatch.setattr(module, "_measure", measure)

    def call(*flags):
        places = [f"--output={tmp_path / 'runs'}", "--data-dir=d"]
        rows = ["--rows=vq,dual", "--seeds=0,1"]
        return command.run(module.main, [*places, *rows, *flags])

    call.trained, call.code, call.output = trained, 0, tmp_path / "runs"
    return call


def test_each_run_once_and_a_table(compare):
    assert compare("--steps=5") == 0
    assert compare.trained == ["vq-0", "dual-0", "vq-1", "dual-1"]
    table = (compare.output / "table.md").read_text().splitlines()
    assert table[2].startswith("| vq | 2 ± 0 | 1.50 ± 0.50 | 1.500 ± 0.500 | - |")
    assert compare("--steps=5") == 0 and len(compare.trained) == 4


def test_a_run_that_fails_is_done_again(compare, capsys):
    compare.code = 75
    assert compare() == 2
    assert "vq-0 left with exit code 75" in capsys.readouterr().err
    assert json.loads((compare.output / "vq-0/training.json").read_text())["done"] == 0
    compare.code = 0
    assert compare() == 0
    assert compare.trained.count("vq-0") == 2


def test_other_settings_are_refused(compare, capsys):
    assert compare("--steps=5") == 0
    assert compare("--steps=6") == 2
    assert "another --output, or the same flags" in capsys.readouterr().err
    assert compare("--steps=5", "--arg=kmeans") == 2
    assert compare("--rows=vqq") == 2
    assert compare("--steps=5", "--jobs=1000") == 2
    assert compare("--steps=5", "--squeezenet=nowhere.npz") == 2
    assert len(compare.trained) == 4
