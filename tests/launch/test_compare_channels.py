"""The comparison as a whole is hours; here its runs are pretended."""

import importlib.util
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

from movq_jax.tools import command

FILE = Path(__file__).parents[2] / "launch/compare_channels.py"


@pytest.fixture
def module():
    spec = importlib.util.spec_from_file_location("compare_channels", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def compare(module, monkeypatch, tmp_path):
    """Call it with flags; `.trained` are the runs' arguments by name."""
    cached, trained = [], {}

    def run(words, **_):
        (place,) = [w for w in words if w.startswith("--workdir=")]
        trained[Path(place.partition("=")[2]).parent.name] = words
        return subprocess.CompletedProcess(words, 0)

    def measure(jobs, args, output, features):
        for run, (name, row, seed) in jobs.items():
            numbers = {key: 1.0 + seed for key in module.COLUMNS}
            result = {"row": f"{name}, {row}", "tokenizer": name, **numbers}
            module.comparing.write_json(output / run / "result.json", result)

    monkeypatch.setattr(module.comparing.subprocess, "run", run)
    monkeypatch.setattr(module, "_tokenize", lambda name, *_: cached.append(name))
    monkeypatch.setattr(module, "_measure", measure)

    def call(*flags):
        places = [f"--output={tmp_path / 'runs'}", "--data-dir=d"]
        rows = ["--rows=depth,parallel", "--seeds=0,1"]
        tokenizers = ["--tokenizers", "movq=a", "dual=b"]
        return command.run(module.main, [*places, *rows, *tokenizers, *flags])

    call.trained, call.cached, call.output = trained, cached, tmp_path / "runs"
    return call


def test_each_run_once_and_a_table(compare):
    assert compare("--steps=5") == 0
    assert compare.cached == ["movq", "dual"]
    assert len(compare.trained) == 8
    words = compare.trained["dual-parallel-1"]
    for word in (
        "--config=channels_small:parallel",
        "--config.seed=1",
        "--config.tokenizer=b",
        f"--config.cache.train={compare.output / 'tokens' / 'dual-train'}",
        f"--config.cache.eval={compare.output / 'tokens' / 'dual-validation'}",
        "--config.train.num_steps=5",
    ):
        assert word in words
    table = (compare.output / "table.md").read_text().splitlines()
    rows = [line.split(" | ")[0] for line in table[2:]]
    assert rows == [
        f"| {name}, {row}" for name in ("movq", "dual") for row in ("depth", "parallel")
    ]
    assert "| 1.500 ± 0.500 |" in table[2]


def test_what_is_refused(compare, capsys):
    assert compare("--steps=5") == 0
    assert compare("--steps=6") == 2
    assert "another --output, or the same flags" in capsys.readouterr().err
    assert compare("--rows=deep") == 2
    assert compare("--tokenizers", "movq") == 2
    assert "give each as NAME=FOLDER" in capsys.readouterr().err


def test_weights_are_read_before_anything_is_trained(compare, capsys):
    assert compare("--squeezenet=nowhere.npz") == 2
    assert "nowhere.npz: No such file" in capsys.readouterr().err
    assert not compare.trained and not compare.cached


def test_numbers_of_a_run(module, make_prior_bundle, tiny_masked, tmp_path):
    (tmp_path / "run").symlink_to(make_prior_bundle(tiny_masked, ("a", "b", "c")))
    module.comparing.write_json(tmp_path / "training.json", {"minutes": 2.5})
    metrics = {"val/bits_per_token": 4.5, "val/bits_per_image": 144.0}
    distances = SimpleNamespace(
        of_samples=lambda prior: float(prior.num_classes),
        of_reconstructions=lambda tok: float(tok.num_channels),
    )
    numbers = module._numbers_of(tmp_path, distances, metrics)
    assert numbers["squeezenet_fd"] == 3.0 and numbers["floor"] == 2.0
    assert numbers["bits_per_token"] == 4.5 and numbers["train_minutes"] == 2.5
    assert numbers["parameters"] > 1000 and set(module.COLUMNS) <= set(numbers)
