"""`movq evaluate` needs no more memory for more images."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from movq_jax.pretrained.weights import VARIABLE

DISTINCT = 8
BOUND = 50_000_000  # bytes; each set of images would be more
# VmHWM and not ru_maxrss: that begins with what the parent, here pytest, once had.
SCRIPT = """
import sys
from pathlib import Path
from movq_jax.tools import command, evaluate
code = command.run(evaluate.main, sys.argv[1:])
lines = Path("/proc/self/status").read_text().splitlines()
print(*[line.split()[1] for line in lines if line.startswith("VmHWM:")])
sys.exit(code)
"""


def write_images(folder, *, count, side, seed):
    """Fill a folder with `count` images, of which few are distinct: it is quick."""
    rng = np.random.default_rng(seed)
    folder.mkdir()
    for number in range(count):
        path = folder / f"{number:05d}.png"
        if number < DISTINCT:
            pixels = rng.integers(0, 256, (side, side, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(path)
        else:
            os.link(folder / f"{number % DISTINCT:05d}.png", path)


def peak(folder, *flags):
    """Return the most bytes that the command had at once, in a process of its own."""
    # Compiled by both runs, as a user's first run does it.
    dropped = ("XLA_FLAGS", "JAX_COMPILATION_CACHE_DIR", VARIABLE)
    env = {name: value for name, value in os.environ.items() if name not in dropped}
    flags = (
        f"--images={folder / 'made'}",
        f"--reference={folder / 'photos'}",
        "--image-size=whole",
        *flags,
    )
    argv = [sys.executable, "-c", SCRIPT, *flags]
    done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return 1024 * int(done.stdout.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("metrics", "few", "many", "side"),
    [
        ("psnr,ssim", 1000, 4000, 96),
        ("squeezenet_fd", 100, 500, 224),  # a dozen images a second
    ],
)
def test_memory_does_not_grow_with_the_images(
    tmp_path, random_squeezenet, metrics, few, many, side
):
    if not Path("/proc/self/status").exists():
        pytest.skip("only Linux tells the peak of a process by itself")
    assert (many - few) * side**2 * 3 > 1.1 * BOUND
    peaks = []
    for count in (few, many):
        folder = tmp_path / f"{count}"
        folder.mkdir()
        for seed, name in enumerate(("made", "photos")):
            write_images(folder / name, count=count, side=side, seed=seed)
        flags = (f"--metrics={metrics}", f"--squeezenet={random_squeezenet}")
        peaks.append(peak(folder, *flags))
    assert peaks[1] - peaks[0] < BOUND
