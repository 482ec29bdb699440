"""Indices to images: the npz of `movq encode` as PNG files.

    movq decode --model=runs/a --input=codes.npz --output=out/

writes `<name>.png` for each image, the same bits as `movq reconstruct`. The model must
be the one that made the indices. An image for which there is not enough memory is named
and left out, and the exit code is 4.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import movq_jax
from movq_jax.data.codes import Codes, read_codes
from movq_jax.data.padding import crop_back
from movq_jax.errors import UserError
from movq_jax.progress import Progress
from movq_jax.tools import command
from movq_jax.tools.feeding import (
    Refusals,
    is_out_of_memory,
    load_tokenizer,
    same_size_batches,
    too_large,
)
from movq_jax.tools.files import (
    check_places,
    output_folder,
    refuse_overwriting,
    write_png,
)

_ADVICE = "use another device, or encode it smaller or with a lower --micro-batch"


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command.

    Raises:
        UserError: a flag or a path is wrong, the file is damaged, or its indices
            are not the model's.
        InputsRefused: memory did not suffice for some images; the others are done.
    """
    args = _parser().parse_args(argv)
    source, output = Path(args.input), output_folder(args.output)
    if (source / "manifest.json").is_file() or (source / "plan.json").is_file():
        raise UserError(
            f"--input={source} is a token cache, made to train on: `movq decode` takes "
            "the npz of `movq encode`"
        )
    codes = read_codes(source)
    outputs = [output / f"{name}.png" for name in codes.names]
    refuse_overwriting(outputs)
    check_places(outputs)
    # The same number of images a call as in encoding: the same bits.
    tok = load_tokenizer(args.model, codes.micro_batch)
    check_model(tok, args.model, codes, source)

    refusals = Refusals(total=len(codes.names))
    with Progress(len(codes.names), "images") as progress:
        refuse = refusals.of([f"{source}: {name}" for name in codes.names], progress)
        for index, image in decode(tok, codes, refuse=refuse):
            write_png(outputs[index], image)
            progress.advance()
    written = len(outputs) - len(refusals.reasons)
    record = {
        "tool": "decode",
        "version": movq_jax.__version__,
        "model": {"path": args.model, "fingerprint": tok.fingerprint},
        "input": args.input,
        "output": args.output,
        "num_images": written,
        "micro_batch": codes.micro_batch,
        "refused": refusals.as_records(),
    }
    command.emit_json(record, args.json)
    print(
        f"wrote {written} images to {output}",
        file=command.human_stream(args.json),
    )
    refusals.raise_if_any()


def check_model(tok: Any, path: str, codes: Codes, source: Path) -> None:
    """Refuse indices that another model made, or that the codebook does not have.

    Args:
        tok: what `movq_jax.load(path)` returned.
        path: for the message.
        codes: what `read_codes(source)` returned.
        source: for the message.

    Raises:
        UserError: names what does not fit.
    """
    if codes.fingerprint != tok.fingerprint:
        raise UserError(
            f"{source} was made by the model {codes.fingerprint}, but {path} is "
            f"{tok.fingerprint}: give the model that made it"
        )
    for name, ids in zip(codes.names, codes.ids, strict=True):
        if ids.shape[-1] != tok.num_channels:
            raise UserError(
                f"{source}: {name} has {ids.shape[-1]} indices a position, "
                f"the model has {tok.num_channels}"
            )
        for channel, size in enumerate(tok.codebook_sizes):
            low, high = int(ids[..., channel].min()), int(ids[..., channel].max())
            if low < 0 or high >= size:
                raise UserError(
                    f"{source}: the indices of {name} go from {low} to {high}, "
                    f"the model has 0 to {size - 1}"
                )
    if codes.factor != tok.factor:
        raise UserError(
            f"{source}: a position is {codes.factor} pixels wide, "
            f"the model's is {tok.factor}"
        )


def decode(
    tok: Any, codes: Codes, *, refuse: Callable[[int, str], None]
) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (number, uint8 [H, W, 3]), a batch of one size at a time.

    Args:
        tok: what `movq_jax.load` returns.
        codes: of this model.
        refuse: takes the number of an image that memory does not suffice for, and why.

    Yields:
        The number of the image in `codes`, and the image at its original size.
    """

    def padded_size(index: int) -> tuple[int, int]:
        h, w = codes.ids[index].shape[:2]
        return h * codes.factor, w * codes.factor

    batches = same_size_batches(
        range(len(codes.ids)), size=padded_size, batch_size=tok.micro_batch
    )
    for batch in batches:
        try:
            images = tok.decode(np.stack([codes.ids[index] for index in batch]))
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            for index in batch:
                refuse(index, too_large(codes.sizes[index], tok.micro_batch, _ADVICE))
            continue
        for index, image in zip(batch, images, strict=True):
            yield index, crop_back(image, *codes.sizes[index])


def _parser() -> command.ArgumentParser:
    parser = command.ArgumentParser(prog="movq decode", description=__doc__)
    parser.add_argument(
        "--model", required=True, help="a run's folder, or the model folder in it"
    )
    parser.add_argument("--input", required=True, help="the npz of `movq encode`")
    parser.add_argument("--output", required=True, help="the folder to write to")
    command.add_json_flag(parser)
    return parser


if __name__ == "__main__":
    sys.exit(command.run(main))
