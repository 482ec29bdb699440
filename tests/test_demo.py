"""`make demo`, without the installation: what the README promises of it."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]
PSNR_MARGIN = 1.0  # dB: other processors round otherwise, and training amplifies it
LEAST_PSNR = 25.0
LEAST_USAGE = 0.8
MOST_BITS = 7.5  # an index; 8 would be to know nothing of 256 codes

pytestmark = pytest.mark.demo


def demo(workdir, data_dir, script="demo.sh", **settings):
    """Run a script as the Makefile does; return what it printed."""
    # The tests' own settings (8 CPU devices) are not a user's.
    kept = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    result = subprocess.run(
        [ROOT / "launch" / script, workdir],
        env={
            **kept,
            **settings,
            "PYTHON": sys.executable,
            "TFDS_DATA_DIR": str(data_dir),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def promised_psnr():
    """Return the PSNR that the README states."""
    readme = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    return float(re.search(r"reaches ([\d.]+) dB PSNR", readme)[1])


def records(workdir):
    """Return the lines of the run's log."""
    lines = (workdir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def test_the_demo_keeps_its_promises(tmp_path):
    workdir = tmp_path / "run"
    printed = demo(workdir, tmp_path / "data")

    overview = workdir / "reconstructions" / "overview.png"
    assert str(overview) in printed
    with Image.open(overview) as picture:
        assert picture.width > 256
    metrics = json.loads((workdir / "reconstructions" / "metrics.json").read_text())
    assert len(metrics["images"]) == 2 and not metrics["refused"]
    assert metrics["mean"]["psnr"] >= max(LEAST_PSNR, promised_psnr() - PSNR_MARGIN)
    log = records(workdir)
    assert log[-1]["val/codebook_usage"] >= LEAST_USAGE
    assert list((workdir / "tensorboard").iterdir())

    demo(workdir, tmp_path / "data")  # again: nothing is trained twice
    assert records(workdir) == log

    the_prior_learns(tmp_path, workdir)


def the_prior_learns(tmp_path, tokenizer):
    """Stage 2, on the tokenizer of the demo."""
    workdir = tmp_path / "prior"
    settings = {"script": "demo_prior.sh", "TOKENIZER": str(tokenizer)}
    printed = demo(workdir, tmp_path / "data", **settings)

    for place in ("samples/grid.png", "inpaint/overview.png"):
        assert str(workdir / place) in printed
        with Image.open(workdir / place) as picture:
            assert picture.width > 200
    assert len(list((workdir / "samples" / "samples").glob("*.png"))) == 32
    log = records(workdir)
    bits = [record["val/bits_per_token"] for record in log if "val/accuracy" in record]
    assert bits[-1] < min(bits[0], MOST_BITS)

    demo(workdir, tmp_path / "data", **settings)  # again: nothing is trained twice
    assert records(workdir) == log
