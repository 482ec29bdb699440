"""Pictures of which an autoregressive prior draws the lower part anew.

    movq complete --model=runs/ar --input=photos/ --output=out/ --rows=0.5 --num=4

keeps the upper rows of each picture's indices and draws the others, `--num` times. It
writes `completions/<name>-0.png` and so on, `side_by_side/<name>.png` (the original,
what was kept, the completions) and `overview.png`.

Pictures are cut to the size that the prior draws: the largest middle of that shape,
resized. A picture's completions are a function of the picture, the seed and their
number, whatever else is completed. A file that cannot be used is named and left out,
and the exit code is 4.
"""

import argparse
import itertools
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import movq_jax
from movq_jax.data.resampling import resize
from movq_jax.errors import UserError
from movq_jax.evaluation.pictures import thumbnail
from movq_jax.evaluation.sample_sheets import hatched
from movq_jax.progress import Progress
from movq_jax.tools import command, feeding, sampling_flags
from movq_jax.tools.edit_sheets import CELL, Overview
from movq_jax.tools.feeding import Refusals, read_images
from movq_jax.tools.files import (
    InputFile,
    check_places,
    find_files,
    output_folder,
    refuse_overwriting,
    write_png,
)

MAX_NUM = 1000


class Request(NamedTuple):
    """What is asked of the prior."""

    rows: int  # of indices that are kept
    labels: np.ndarray | None  # [R] of the completions of a picture
    titles: list[str]  # of the completions
    seed: int
    options: dict[str, Any]


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command.

    Raises:
        UserError: a flag, a path or the model is wrong.
        InputsRefused: some files were no usable images; the others are done.
    """
    args = _parser().parse_args(argv)
    if args.num > MAX_NUM:
        raise UserError(f"--num={args.num} is above {MAX_NUM}: draw fewer at a time")
    output = output_folder(args.output)
    files = find_files(args.input, output=output)
    check_places([output / "complete.json"])
    prior = _load(args)
    request = _request(args, prior)
    places = _Places(output, files, len(request.titles))
    refuse_overwriting(places, inputs=files)
    check_places(places)
    refusals, overview = Refusals(total=len(files)), Overview(args.overview)
    with Progress(len(files), "pictures") as progress:
        pictures = read_images(
            files, max_side=args.max_side, refusals=refusals, progress=progress
        )
        for index, original, made in complete(prior, pictures, request):
            for number, image in enumerate(made):
                write_png(places.completion(index, number), image)
            kept = _kept(prior, original, request.rows)
            panels = [("original", original, ""), ("kept", kept, "")]
            panels += zip(request.titles, made, itertools.repeat(""))
            sheet = Overview(1)
            sheet.add(files[index].name, panels)
            overview.add(files[index].name, panels)
            write_png(places.side_by_side(index), sheet.draw())
            progress.advance()
    done = len(files) - len(refusals.reasons)
    if done:
        write_png(output / "overview.png", overview.draw())
    record = {
        "tool": "complete",
        "version": movq_jax.__version__,
        "model": {"path": args.model, "fingerprint": prior.fingerprint},
        "output": args.output,
        "num_pictures": done,
        "completions": request.titles,
        "rows": request.rows,
        "of_rows": prior.grid[0],
        "settings": {
            "seed": args.seed,
            "micro_batch": prior.micro_batch,
            **prior.chosen(**request.options),
        },
        "refused": refusals.as_records(),
    }
    command.emit_json(record, str(output / "complete.json"))
    command.emit_json(record, args.json)
    if done:
        print(
            f"pictures: {done}, completions of each: {len(request.titles)}; wrote "
            f"{output}",
            file=command.human_stream(args.json),
        )
    refusals.raise_if_any()


def complete(
    prior: Any, pictures: Iterator[tuple[int, np.ndarray]], request: Request
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Yield (number, the picture as it was cut, its completions), in batches.

    Args:
        prior: what `movq_jax.load` returns.
        pictures: pairs of a number and uint8 [H, W, 3] of any size.
        request: what to draw.

    Yields:
        The number, uint8 [H, W, 3] and uint8 [R, H, W, 3].
    """
    count = len(request.titles)
    together = max(1, prior.batch_size() // count)
    known = np.zeros((*prior.grid, prior.num_channels), bool)
    known[: request.rows] = True
    while batch := list(itertools.islice(pictures, together)):
        images = np.stack([_cut(image, prior.image_size) for _, image in batch])
        with sampling_flags.memory_explained(prior):
            ids = prior.tokenizer.encode(images).repeat(count, axis=0)
            labels = request.labels
            drawn = prior.sample(
                len(ids),
                labels=None if labels is None else np.tile(labels, len(batch)),
                seed=request.seed,
                first=np.tile(np.arange(count), len(batch)),
                ids=ids,
                known=np.broadcast_to(known, ids.shape),
                **request.options,
            )
            made = prior.decode(drawn)
        made = made.reshape(len(batch), count, *made.shape[1:])
        for (number, _), image, results in zip(batch, images, made, strict=True):
            yield number, image, results


class _Places(Sequence):
    """All PNGs that the command may write."""

    def __init__(self, output: Path, files: Sequence[InputFile], count: int) -> None:
        self._output, self._files, self._count = output, files, count

    def completion(self, index: int, number: int) -> Path:
        name = f"{self._files[index].name}-{number + 1}.png"
        return self._output / "completions" / name

    def side_by_side(self, index: int) -> Path:
        return self._output / "side_by_side" / f"{self._files[index].name}.png"

    def __len__(self) -> int:
        return 1 + len(self._files) * (self._count + 1)

    def __getitem__(self, place: int) -> Path:
        if not 0 <= place < len(self):
            raise IndexError(place)
        if place == 0:
            return self._output / "overview.png"
        index, number = divmod(place - 1, self._count + 1)
        if number == self._count:
            return self.side_by_side(index)
        return self.completion(index, number)


def _load(args: argparse.Namespace) -> Any:
    """Return the prior of `--model`.

    Raises:
        UserError: it is none, or a masked one.
    """
    prior = sampling_flags.load_prior(args.model, args.micro_batch)
    if prior.kind != "autoregressive":
        raise UserError(
            f"the prior in {args.model} is masked, and needs no fixed order: use "
            "`movq edit outpaint` or `movq edit inpaint`"
        )
    return prior


def _request(args: argparse.Namespace, prior: Any) -> Request:
    """Return what the flags ask for.

    Raises:
        UserError: the prior has no use for one of them.
    """
    options = sampling_flags.options(args)
    sampling_flags.check_options(prior, options)
    sampling_flags.without_classes(prior, args.classes, options)
    titles = [f"completion {number + 1}" for number in range(args.num)]
    labels = None
    if args.classes is not None:
        numbers = sampling_flags.classes(prior, args.classes)
        labels = np.repeat(numbers, args.num)
        names = prior.classes or [str(k) for k in range(prior.num_classes)]
        titles = [
            names[label] + (f" ({i % args.num + 1})" if args.num > 1 else "")
            for i, label in enumerate(labels)
        ]
    elif prior.num_classes:
        labels = np.full(args.num, prior.num_classes)
    rows = _rows(args.rows, prior.grid[0])
    return Request(rows, labels, titles, args.seed, options)


def _rows(text: str, of: int) -> int:
    """Return how many rows of indices are kept.

    Raises:
        UserError: none, or all of them.
    """
    try:
        rows = int(text) if text.isdecimal() else round(float(text) * of)
    except (ValueError, OverflowError):
        rows = 0
    if not 0 < rows < of:
        raise UserError(
            f"--rows={text} keeps none or all of the {of} rows of indices: give a "
            f"number from 1 to {of - 1}, or a share such as 0.5"
        )
    return rows


def _cut(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return the largest middle of an image that has the shape of `size`, resized."""
    height, width = image.shape[:2]
    scale = min(height / size[0], width / size[1])
    cut = [max(1, round(side * scale)) for side in size]
    top, left = (height - cut[0]) // 2, (width - cut[1]) // 2
    middle = image[top : top + cut[0], left : left + cut[1]]
    return resize(np.ascontiguousarray(middle), *size, "lanczos")


def _kept(prior: Any, image: np.ndarray, rows: int) -> np.ndarray:
    known = np.zeros(prior.grid, bool)
    known[:rows] = True
    return hatched(thumbnail(image, (CELL, CELL)), known)


def _parser() -> command.ArgumentParser:
    parser = command.ArgumentParser(prog="movq complete", description=__doc__)
    sampling_flags.add_model_flags(parser)
    feeding.add_input_flags(parser, "pictures")
    parser.add_argument("--output", required=True, help="the folder to write to")
    parser.add_argument(
        "--rows",
        default="0.5",
        metavar="R",
        help="rows of indices to keep: a share, or their number (default: %(default)s)",
    )
    parser.add_argument(
        "--num",
        type=command.positive_int,
        default=4,
        metavar="N",
        help="completions a picture, or a picture and class (default: %(default)s)",
    )
    parser.add_argument(
        "--classes",
        metavar="A,B,3",
        help="names or numbers of classes to complete each picture with, --num times "
        "(default: no class)",
    )
    parser.add_argument(
        "--overview",
        type=command.positive_int,
        default=12,
        help="pictures on the overview at most (default: %(default)s)",
    )
    sampling_flags.add_flags(parser, masked=False)
    command.add_json_flag(parser)
    return parser


if __name__ == "__main__":
    sys.exit(command.run(main))
