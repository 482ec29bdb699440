"""Images through a tokenizer and back, with PSNR and SSIM of each.

    movq reconstruct --model=runs/a --input=photos/ --output=out/

writes `reconstructions/<name>.png`, `side_by_side/<name>.png` (the original beside
it), `overview.png` (the first of them on one sheet) and `metrics.json`, and prints
the table. Images may have any size: their edges are repeated up to the model's grid
and cut back. A file that cannot be used is named and left out, and the exit code is 4.
"""

import dataclasses
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import movq_jax
from movq_jax.data.padding import crop_back
from movq_jax.evaluation import pictures
from movq_jax.evaluation.rows import Row, measure, summary, table
from movq_jax.progress import Progress
from movq_jax.tools import command, feeding
from movq_jax.tools.feeding import (
    Refusals,
    load_tokenizer,
    read_images,
    run_batches,
    too_large,
)
from movq_jax.tools.files import (
    InputFile,
    check_places,
    find_files,
    output_folder,
    refuse_overwriting,
    write_png,
)

OVERVIEW_CELL = 256  # pixels an image in the overview


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command.

    Raises:
        UserError: a flag or a path is wrong.
        InputsRefused: some files were no usable images; the others are done.
    """
    args = _parser().parse_args(argv)
    output = output_folder(args.output)
    files = find_files(args.input, output=output)
    refuse_overwriting(_outputs(output, files), inputs=files)
    check_places([*_outputs(output, files), output / "metrics.json"])
    tok = load_tokenizer(args.model, args.micro_batch)

    refusals = Refusals(total=len(files))
    rows: dict[int, Row] = {}
    overview = Overview(args.overview)
    with Progress(len(files), "images") as progress:
        images = read_images(
            files, max_side=args.max_side, refusals=refusals, progress=progress
        )
        refuse = refusals.of([file.path for file in files], progress)
        for index, original, result in reconstruct(tok, images, refuse=refuse):
            try:
                row = measure(files[index].name, original, result)
                save_pair(output, row, original, result)
            except MemoryError:
                refuse(index, too_large(original.shape[:2], micro_batch=1))
                continue
            rows[index] = row
            overview.add(index, row, original, result)
            progress.advance()

    done = [(files[index], rows[index]) for index in sorted(rows)]
    record = make_record(tok, args.model, done, refusals)
    command.emit_json(record, str(output / "metrics.json"))
    command.emit_json(record, args.json)
    if done:
        overview.write(output / "overview.png")
        text = f"{table([row for _, row in done])}\nwrote {output}"
        print(text, file=command.human_stream(args.json))
    refusals.raise_if_any()


def reconstruct(
    tok: Any,
    images: Iterator[tuple[int, np.ndarray]],
    *,
    refuse: Callable[[int, str], None],
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Yield (number, original, reconstruction), a batch of one size at a time.

    Args:
        tok: what `movq_jax.load` returns.
        images: pairs of a number and uint8 [H, W, 3] of any size.
        refuse: takes the number of an image that memory does not suffice for, and why.

    Yields:
        The number, the original and its reconstruction, uint8 [H, W, 3] both.
    """

    def there_and_back(padded: np.ndarray) -> np.ndarray:
        return tok.decode(tok.encode(padded))

    results = run_batches(tok, images, there_and_back, refuse=refuse)
    for index, original, result in results:
        yield index, original, crop_back(result, *original.shape[:2])


def save_pair(output: Path, row: Row, original: np.ndarray, result: np.ndarray) -> None:
    """Write the reconstruction, and the original beside it."""
    caption = f"{row.name}   PSNR {row.psnr_text}   SSIM {row.ssim_text}"
    beside = pictures.side_by_side(original, result, caption=caption)
    write_png(_reconstruction(output, row.name), result)
    write_png(_side_by_side(output, row.name), beside)


class Overview:
    """The first pairs of many, kept small until the sheet is drawn."""

    def __init__(self, max_images: int) -> None:
        """Keep at most `max_images` pairs: those of the lowest numbers."""
        self._max_images = max_images
        self._pairs: dict[int, tuple[np.ndarray, np.ndarray, str]] = {}

    def add(
        self, index: int, row: Row, original: np.ndarray, result: np.ndarray
    ) -> None:
        """Take a pair, unless enough of lower numbers are there."""
        if len(self._pairs) == self._max_images:
            if index > max(self._pairs):
                return
            del self._pairs[max(self._pairs)]
        box = (OVERVIEW_CELL, OVERVIEW_CELL)
        self._pairs[index] = (
            pictures.thumbnail(original, box),
            pictures.thumbnail(result, box),
            f"{row.name}   {row.psnr_text}",
        )

    def write(self, path: Path) -> None:
        """Draw the sheet of the pairs taken, of at least one."""
        pairs = [self._pairs[index] for index in sorted(self._pairs)]
        originals, results, captions = zip(*pairs, strict=True)
        sheet = pictures.comparison_grid(
            originals,
            results,
            captions=captions,
            max_images=len(pairs),
            cell=OVERVIEW_CELL,
        )
        write_png(path, sheet)


def make_record(
    tok: Any, model: str, done: Sequence[tuple[InputFile, Row]], refusals: Refusals
) -> dict[str, Any]:
    """Return the result with the protocol that gives its numbers their meaning."""
    rows = [row for _, row in done]
    return {
        "tool": "reconstruct",
        "version": movq_jax.__version__,
        "model": {"path": model, "fingerprint": tok.fingerprint},
        "protocol": {
            "num_images": len(rows),
            "resize": "none",
            "crop": "none",
            "padding": f"edges repeated to multiples of {tok.factor}, cut back",
            "rounding": "clipped, scaled to 0..255, rounded half to even, uint8",
            "psnr": "per image on uint8/255, averaged; null where exact",
            "ssim": "Gaussian 11, sigma 1.5, interior; null below 11 pixels",
            "micro_batch": tok.micro_batch,
            "model": tok.protocol,
        },
        "mean": summary(rows),
        "images": [
            {"file": file.path, **dataclasses.asdict(row)} for file, row in done
        ],
        "refused": refusals.as_records(),
    }


def _parser() -> command.ArgumentParser:
    parser = command.ArgumentParser(prog="movq reconstruct", description=__doc__)
    feeding.add_flags(parser)
    parser.add_argument("--output", required=True, help="the folder to write to")
    parser.add_argument(
        "--overview",
        type=command.positive_int,
        default=24,
        help="images on the overview at most (default: %(default)s)",
    )
    command.add_json_flag(parser)
    return parser


def _outputs(output: Path, files: Sequence[InputFile]) -> Iterator[Path]:
    """Yield all PNGs that the command may write."""
    yield output / "overview.png"
    for file in files:
        yield _reconstruction(output, file.name)
        yield _side_by_side(output, file.name)


def _reconstruction(output: Path, name: str) -> Path:
    return output / "reconstructions" / f"{name}.png"


def _side_by_side(output: Path, name: str) -> Path:
    return output / "side_by_side" / f"{name}.png"


if __name__ == "__main__":
    sys.exit(command.run(main))
