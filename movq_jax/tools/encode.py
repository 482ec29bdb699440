"""Images to indices: one npz with the codes of all of them.

    movq encode --model=runs/a --input=photos/ --output=codes.npz

`movq decode` makes images of it again, the same bits as `movq reconstruct`. The file
is described in `movq_jax.data.codes`; NumPy alone reads it. A file that cannot be
used is named and left out, and the exit code is 4.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import movq_jax
from movq_jax.atomic import check_writable, replacing
from movq_jax.data.codes import Codes, write_codes
from movq_jax.errors import UserError
from movq_jax.progress import Progress
from movq_jax.tools import command, feeding
from movq_jax.tools.feeding import (
    Refusals,
    load_tokenizer,
    read_images,
    run_batches,
)
from movq_jax.tools.files import find_files


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command.

    Raises:
        UserError: a flag or a path is wrong.
        InputsRefused: some files were no usable images; the others are done.
    """
    args = _parser().parse_args(argv)
    output = Path(args.output)
    if output.suffix != ".npz" or output.is_dir():
        raise UserError(f"--output={output} must name a file that ends in .npz")
    check_writable(output)
    files = find_files(args.input, output=output)
    tok = load_tokenizer(args.model, args.micro_batch)

    refusals = Refusals(total=len(files))
    ids: dict[int, np.ndarray] = {}
    sizes: dict[int, tuple[int, int]] = {}
    with Progress(len(files), "images") as progress:
        images = read_images(
            files, max_side=args.max_side, refusals=refusals, progress=progress
        )
        refuse = refusals.of([file.path for file in files], progress)
        for index, size, image_ids in encode(tok, images, refuse=refuse):
            ids[index], sizes[index] = image_ids, size
            progress.advance()

    done = sorted(ids)
    if done:
        codes = Codes(
            fingerprint=tok.fingerprint,
            micro_batch=tok.micro_batch,
            factor=tok.factor,
            codebook_size=tok.codebook_size,
            names=[files[index].name for index in done],
            sizes=[sizes[index] for index in done],
            ids=[ids[index] for index in done],
        )
        with replacing(output) as temporary, temporary.open("wb") as file:
            write_codes(file, codes)
        _report(args, codes, refusals)
    refusals.raise_if_any()


def encode(
    tok: Any,
    images: Iterator[tuple[int, np.ndarray]],
    *,
    refuse: Callable[[int, str], None],
) -> Iterator[tuple[int, tuple[int, int], np.ndarray]]:
    """Yield (number, (height, width), ids [h, w, M]), a batch of one size at a time.

    Args:
        tok: what `movq_jax.load` returns.
        images: pairs of a number and uint8 [H, W, 3] of any size.
        refuse: takes the number of an image that memory does not suffice for, and why.

    Yields:
        The number, the image's size before padding, and its indices.
    """
    for index, image, ids in run_batches(tok, images, tok.encode, refuse=refuse):
        yield index, image.shape[:2], ids


def _report(args: Any, codes: Codes, refusals: Refusals) -> None:
    count = sum(ids.size for ids in codes.ids)
    record = {
        "tool": "encode",
        "version": movq_jax.__version__,
        "model": {"path": args.model, "fingerprint": codes.fingerprint},
        "output": args.output,
        "num_images": len(codes.names),
        "num_indices": count,
        "codebook_size": codes.codebook_size,
        "micro_batch": codes.micro_batch,
        "refused": refusals.as_records(),
    }
    command.emit_json(record, args.json)
    print(
        f"wrote {args.output}: {len(codes.names)} images as {count:,} indices",
        file=command.human_stream(args.json),
    )


def _parser() -> command.ArgumentParser:
    parser = command.ArgumentParser(prog="movq encode", description=__doc__)
    feeding.add_flags(parser)
    parser.add_argument("--output", required=True, help="the .npz file to write")
    command.add_json_flag(parser)
    return parser


if __name__ == "__main__":
    sys.exit(command.run(main))
