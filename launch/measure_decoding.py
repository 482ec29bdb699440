"""Compares decoders of JPEG: time of one core, and whether pixels are the same.

    pip install simplejpeg opencv-python-headless
    python launch/measure_decoding.py photographs/ --image-size=256

Decoders that are not installed are left out. `decode` is decoding alone, `and resize`
with the transform of training behind it (short side, random crop, mirror), in images a
second of processor time of one core: the median of the rounds, in which all take turns.
`differing` is the share of values that are not what Pillow gives. `reduced` is Pillow
as `data.train.reduced_decoding` has it.
"""

import argparse
import importlib
import io
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from movq_jax.data.images import decode_image
from movq_jax.data.transforms import RandomCrop, ShortSide, Transform
from movq_jax.tools import command

Decoder = Callable[[bytes], np.ndarray]


def main(argv: list[str] | None = None) -> None:
    """Measure, and print a table."""
    args = _parser().parse_args(argv)
    files = sorted(p for folder in args.folders for p in Path(folder).rglob("*.jpg"))
    # Decoders differ in what they make of grey and CMYK; no dataset has many.
    images = [p.read_bytes() for p in files[:: max(1, len(files) // args.num)]]
    images = [data for data in images if Image.open(io.BytesIO(data)).mode == "RGB"]
    if not images:
        raise SystemExit(f"error: no JPEG in colour in {', '.join(args.folders)}")
    size = args.image_size
    transform = Transform(size, ShortSide(size), RandomCrop(size), flip=True)
    decoders = _decoders(transform)
    times = _times(decoders, images, transform, args.rounds)
    print(f"{len(images)} images, to {size} x {size}")
    print(f"{'':<12}{'decode':>8}{'and resize':>12}{'differing':>11}")
    for name, decode in decoders.items():
        alone, both = (statistics.median(seconds) for seconds in times[name])
        rates = f"{len(images) / alone:>8,.0f}{len(images) / both:>12,.0f}"
        print(f"{name:<12}{rates}{_differing(decode, images):>11}")


def _decoders(transform: Transform) -> dict[str, Decoder]:
    """Return name -> decoder, of those that are installed."""
    reduced = partial(decode_image, least_side=transform.least_side)
    decoders: dict[str, Decoder] = {"Pillow": decode_image, "reduced": reduced}
    if (simplejpeg := _installed("simplejpeg")) is not None:
        decoders["simplejpeg"] = lambda data: simplejpeg.decode_jpeg(data, "RGB")
    if (cv2 := _installed("cv2")) is not None:
        cv2.setNumThreads(0)
        decoders["OpenCV"] = lambda data: cv2.imdecode(
            np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB
        )
    return decoders


def _installed(name: str):
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def _times(
    decoders: dict[str, Decoder],
    images: Sequence[bytes],
    transform: Transform,
    rounds: int,
) -> dict[str, tuple[list[float], list[float]]]:
    """Return of each decoder the seconds of each round: alone, and with `transform`."""
    times = {name: ([], []) for name in decoders}
    for _ in range(rounds):
        for name, decode in decoders.items():
            rng = np.random.default_rng(0)
            start = time.thread_time()
            for data in images:
                decode(data)
            middle = time.thread_time()
            for data in images:
                transform(decode(data), rng)
            times[name][0].append(middle - start)
            times[name][1].append(time.thread_time() - middle)
    return times


def _differing(decode: Decoder, images: Sequence[bytes]) -> str:
    different = total = 0
    for data in images:
        expected, found = decode_image(data), decode(data)
        if found.shape != expected.shape:
            return "another size"
        different += np.count_nonzero(found != expected)
        total += found.size
    return f"{different / total:.2%}" if different else "none"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="+", help="folders of JPEG files")
    parser.add_argument("--num", type=command.positive_int, default=200)
    parser.add_argument("--image-size", type=command.positive_int, default=256)
    parser.add_argument("--rounds", type=command.positive_int, default=7)
    return parser


if __name__ == "__main__":
    main()
