"""New pictures, drawn by a prior and decoded by its tokenizer.

    movq sample --model=runs/b --output=out/ --num=64 --classes=cat,dog

writes `samples/000000.png` and so on, `grid.png` (a row a class), `labels.csv` and
`settings.json`; with `--npz` all of them as `samples.npz`, as ADM's evaluation reads
it, and with `--strip=4` how the first four came to be, as strips and GIFs.

The same command goes on where it was stopped, and a larger `--num` adds to what is
there. Each picture is a function of the seed and its number: it is the same, however
many are drawn and on however many devices. Each class is drawn equally often.
"""

import argparse
import contextlib
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np

import movq_jax
from movq_jax.atomic import replacing
from movq_jax.cores import usable_cores
from movq_jax.errors import UserError
from movq_jax.evaluation import sample_sheets
from movq_jax.progress import Progress
from movq_jax.tools import command, sampling_flags
from movq_jax.tools.files import write_png
from movq_jax.tools.sample_folder import SampleFolder

MAX_NUM = 10_000_000
MAX_FRAMES = 48  # of a GIF
MAX_SHOWN = 64  # images on the grid of an unconditional prior
ROW = 8  # images of a class on the grid
ROWS = 16  # classes on the grid


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command.

    Raises:
        UserError: a flag, the model or the folder is wrong.
        Preempted: a notice to stop arrived; the same command goes on.
    """
    args = _parser().parse_args(argv)
    _check_flags(args)
    folder = SampleFolder(args.output)
    prior = sampling_flags.load_prior(args.model, args.micro_batch)
    options = sampling_flags.options(args)
    sampling_flags.check_options(prior, options)
    classes = args.classes and sampling_flags.classes(prior, args.classes)
    settings = _settings(prior, args.seed, classes, options)
    folder.begin(settings)
    labels = prior.labels(args.num, classes=classes, seed=args.seed)
    missing = folder.missing(args.num)
    with _stoppable(folder):
        _draw(prior, folder, missing, labels, args.seed, options)
        for number in range(min(args.strip, args.num)):
            _write_strip(prior, folder, number, labels, args.seed, options)
        # A smaller number than before takes nothing off the sheets.
        there = folder.whole(args.num)
        labels = prior.labels(there, classes=classes, seed=args.seed)
        _write_sheets(prior, folder, labels)
        npz = None
        if args.npz:
            npz = folder.write_npz(there, labels if prior.num_classes else None)
    record = {
        "tool": "sample",
        "version": movq_jax.__version__,
        "model": {"path": args.model, "fingerprint": prior.fingerprint},
        "output": args.output,
        "num_images": args.num,
        "drawn": len(missing),
        "npz": npz,
        "num_in_npz": there if npz else None,  # with those of an earlier, larger --num
        "settings": settings,
    }
    command.emit_json(record, args.json)
    kept = args.num - len(missing)
    kept = f"; {kept} were there" if kept else ""
    if npz and there > args.num:
        kept += f"; {npz.name} has all {there} that are in the folder"
    many = "1 image" if len(missing) == 1 else f"{len(missing)} images"
    print(
        f"drew {many} to {folder.path}{kept}",
        file=command.human_stream(args.json),
    )


def _settings(
    prior: Any, seed: int, classes: list[int] | None, options: dict[str, Any]
) -> dict[str, Any]:
    """Return all that the images depend on."""
    return {
        "model": prior.fingerprint,
        "tokenizer": prior.tokenizer.fingerprint,
        "seed": seed,
        "classes": classes,
        "micro_batch": prior.micro_batch,
        "decode_micro_batch": prior.tokenizer.micro_batch,
        **prior.chosen(**options),
    }


def _draw(
    prior: Any,
    folder: SampleFolder,
    missing: Sequence[int],
    labels: np.ndarray,
    seed: int,
    options: dict[str, Any],
) -> None:
    """Draw images and write them; those of a batch while the next one is drawn."""
    waiting: list[Future] = []
    with (
        Progress(len(missing), "images") as progress,
        ThreadPoolExecutor(max(1, usable_cores())) as pool,
    ):
        for first, count in _runs(missing, prior.batch_size()):
            images = _images(prior, first, labels[first : first + count], seed, options)
            _finish(waiting, progress)
            waiting = [
                pool.submit(write_png, folder.image(first + i), image)
                for i, image in enumerate(images)
            ]
        _finish(waiting, progress)


def _finish(waiting: Sequence[Future], progress: Progress) -> None:
    for future in waiting:
        future.result()
        progress.advance()


def _images(
    prior: Any, first: int, labels: np.ndarray, seed: int, options: dict[str, Any]
) -> np.ndarray:
    """Return the images from number `first` on, uint8 [n, H, W, 3]."""
    with sampling_flags.memory_explained(prior):
        asked = labels if prior.num_classes else None
        ids = prior.sample(len(labels), labels=asked, seed=seed, first=first, **options)
        return prior.decode(ids)


def _write_strip(
    prior: Any,
    folder: SampleFolder,
    number: int,
    labels: np.ndarray,
    seed: int,
    options: dict[str, Any],
) -> None:
    """Write how an image came to be, unless that is there."""
    strip, gif = folder.strip(number, ".png"), folder.strip(number, ".gif")
    if strip.exists() and gif.exists():
        return
    with sampling_flags.memory_explained(prior):
        asked = labels[number : number + 1] if prior.num_classes else None
        trace = prior.trace(1, labels=asked, seed=seed, first=number, **options)
        ids, known, confidence = (part[0] for part in trace)
        images = prior.decode(ids)
    steps = [
        sample_sheets.Step(image, position.all(axis=-1), certain)
        for image, position, certain in zip(images, known, confidence, strict=True)
    ]
    write_png(strip, sample_sheets.decoding_strip(steps))
    scale = sample_sheets.scale_of(steps)
    shown = np.linspace(0, len(steps) - 1, min(len(steps), MAX_FRAMES)).round()
    frames = [
        sample_sheets.decoding_frame(steps[i], i + 1, len(steps), scale)
        for i in shown.astype(int).tolist()
    ]
    with replacing(gif) as temporary, temporary.open("wb") as file:
        sample_sheets.write_gif(file, frames)


def _write_sheets(prior: Any, folder: SampleFolder, labels: np.ndarray) -> None:
    """Write the grid, and which class each image is of."""
    path = folder.path / "grid.png"
    if not prior.num_classes:
        shown = range(min(len(labels), MAX_SHOWN))
        write_png(path, sample_sheets.sample_grid([folder.read(i) for i in shown]))
        return
    folder.write_labels(labels, prior.classes)
    shown = _first_of_each(labels)
    names = [prior.classes[k] if prior.classes else f"{k}" for k, _ in shown]
    images = [folder.read(number) for _, number in shown]
    write_png(path, sample_sheets.class_grid(images, names, columns=ROW))


def _first_of_each(labels: np.ndarray) -> list[tuple[int, int]]:
    """Return (class, number) of the first images of the first classes, by class."""
    shown = []
    for label in np.unique(labels)[:ROWS]:
        shown += [(int(label), int(i)) for i in np.flatnonzero(labels == label)[:ROW]]
    return shown


def _runs(numbers: Sequence[int], most: int) -> Iterator[tuple[int, int]]:
    """Yield (first, count) of neighbours among ascending numbers, `most` at once."""
    start = 0
    for stop in range(1, len(numbers) + 1):
        ends = stop == len(numbers) or numbers[stop] != numbers[stop - 1] + 1
        if ends or stop - start == most:
            yield numbers[start], stop - start
            start = stop


@contextlib.contextmanager
def _stoppable(folder: SampleFolder) -> Iterator[None]:
    """Leave in good order when the machine is wanted back, or at Ctrl-C."""
    goes_on = "finished images are kept, the same command goes on"
    try:
        with command.sigterm_stops(
            f"stopped while drawing to {folder.path}: {goes_on}"
        ):
            yield
    except KeyboardInterrupt:
        print(goes_on, file=sys.stderr)
        raise


def _check_flags(args: Any) -> None:
    if args.num > MAX_NUM:
        raise UserError(f"--num={args.num} is above {MAX_NUM:,}: draw fewer at a time")


def _whole(text: str) -> int:
    if not text.isdecimal() or int(text) > MAX_NUM:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a whole number from 0 to {MAX_NUM:,}"
        )
    return int(text)


def _parser() -> command.ArgumentParser:
    parser = command.ArgumentParser(prog="movq sample", description=__doc__)
    sampling_flags.add_model_flags(parser)
    parser.add_argument("--output", required=True, help="the folder to write to")
    parser.add_argument(
        "--num",
        type=command.positive_int,
        default=16,
        metavar="N",
        help="pictures (default: %(default)s)",
    )
    parser.add_argument(
        "--classes",
        metavar="A,B,3",
        help="names or numbers of the classes to draw, equally often (default: all)",
    )
    parser.add_argument(
        "--npz", action="store_true", help="write samples.npz, too, for evaluation"
    )
    parser.add_argument(
        "--strip",
        type=_whole,
        default=0,
        metavar="N",
        help="write how the first N came to be, with the confidence (default: 0)",
    )
    sampling_flags.add_flags(parser)
    command.add_json_flag(parser)
    return parser


if __name__ == "__main__":
    sys.exit(command.run(main))
