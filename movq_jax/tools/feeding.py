"""Images from files to a model, in batches of one size."""

import argparse
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

import movq_jax
from movq_jax.data.codes import MAX_MICRO_BATCH
from movq_jax.data.images import decode_image
from movq_jax.data.padding import pad_to_multiple, padded_size
from movq_jax.errors import InputsRefused, UserError
from movq_jax.progress import Progress
from movq_jax.tools import command
from movq_jax.tools.files import InputFile

MAX_SIDE = 2048
MAX_WAITING_PIXELS = 2**26  # 200 MB of uint8 images

Item = TypeVar("Item")


@dataclasses.dataclass
class Refusals:
    """The files that could not be used, and why."""

    total: int
    reasons: dict[str, str] = dataclasses.field(default_factory=dict)

    def add(self, file: object, reason: str, progress: Progress) -> None:
        """Note that `file` is refused, say why on stderr, and count it as finished."""
        self.reasons[str(file)] = reason
        progress.note(f"refused: {reason}")
        progress.advance()

    def of(
        self, files: Sequence[object], progress: Progress
    ) -> Callable[[int, str], None]:
        """Return a function that adds one of `files` by its number, with a reason."""

        def refuse(index: int, reason: str) -> None:
            self.add(files[index], f"{files[index]}: {reason}", progress)

        return refuse

    def raise_if_any(self) -> None:
        """Raise `InputsRefused` when a file was refused; each was named before."""
        refused = len(self.reasons)
        if refused:
            rest = "; the others are done" if refused < self.total else ""
            raise InputsRefused(
                f"{refused} of {self.total} files refused, see above{rest}"
            )

    def as_records(self) -> list[dict[str, str]]:
        """Return them for a JSON record."""
        return [{"file": file, "reason": why} for file, why in self.reasons.items()]


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of a command that feeds images to a model."""
    parser.add_argument(
        "--model", required=True, help="a run's folder, or the model folder in it"
    )
    add_input_flags(parser, "images")
    parser.add_argument(
        "--micro-batch",
        type=command.micro_batch,
        help=f"images a compiled call, at most {MAX_MICRO_BATCH} "
        "(default: the model's choice for this device)",
    )


def add_input_flags(parser: argparse.ArgumentParser, what: str) -> None:
    """Add `--input` and `--max-side`; `what` people call the images there."""
    parser.add_argument(
        "--input",
        required=True,
        nargs="+",
        action="extend",
        help="image files, folders with all they hold, patterns such as 'a/*.jpg'",
    )
    parser.add_argument(
        "--max-side",
        type=command.positive_int,
        default=MAX_SIDE,
        help=f"refuse {what} with a longer side (default: %(default)s)",
    )


def load_tokenizer(path: str, micro_batch: int | None) -> Any:
    """Return the tokenizer at `path`, its compiled programs kept on disk.

    Each size of image is a program of its own; the second start waits for none.

    Raises:
        UserError: there is none, or it is a prior.
    """
    # Only now: jax takes a second to import, which --help need not wait for.
    from movq_jax import compilation_cache

    compilation_cache.enable()
    model = movq_jax.load(path, micro_batch=micro_batch)
    if not hasattr(model, "encode"):
        raise UserError(
            f"the model in {path} is a prior, not a tokenizer: its tokenizer lies in "
            "the folder model/tokenizer in it"
        )
    return model


def read_images(
    files: Sequence[InputFile],
    *,
    max_side: int,
    refusals: Refusals,
    progress: Progress,
) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (position in `files`, uint8 [H, W, 3]) of each image that can be read.

    A file that is no image, is a pipe or a device (which are not opened), or has a
    side above `max_side`, is named on stderr, noted in `refusals` and left out.
    """
    for index, file in enumerate(files):
        try:
            _check_kind(file.path)
            image = decode_image(file.path)
            _check_side(file, image, max_side)
        except (UserError, MemoryError) as error:
            reason = str(error)
            if isinstance(error, MemoryError):
                reason = f"there is not enough memory to decode {file.path}"
            refusals.add(file.path, reason, progress)
            continue
        yield index, image


def run_batches(
    tok: Any,
    images: Iterable[tuple[int, np.ndarray]],
    function: Callable[[np.ndarray], np.ndarray],
    *,
    refuse: Callable[[int, str], None],
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Yield (number, image, its part of `function`'s result), a batch after the other.

    Args:
        tok: what `movq_jax.load` returns.
        images: pairs of a number and uint8 [H, W, 3] of any size.
        function: called with uint8 [B, H', W', 3], the images of a batch, padded.
        refuse: called with the number and a reason for each image of a batch for
            which there is not enough memory; the next batch is tried all the same.
    """
    for batch, padded in padded_batches(tok, images):
        try:
            results = function(padded)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            for index, image in batch:
                refuse(index, too_large(image.shape[:2], tok.micro_batch))
            continue
        for (index, image), result in zip(batch, results, strict=True):
            yield index, image, result


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether the host, or jax's device, had no memory left."""
    # jax's error is a RuntimeError whose message begins with XLA's name of the kind.
    named = isinstance(error, RuntimeError) and "RESOURCE_EXHAUSTED" in str(error)
    return named or isinstance(error, MemoryError)


def too_large(size: tuple[int, int], micro_batch: int, advice: str = "") -> str:
    """Return why an image of (height, width) is refused, and what to do about it."""
    height, width = size
    lower = " lower --micro-batch," if micro_batch > 1 else ""
    advice = advice or (
        f"make it smaller,{lower} or use another device "
        f"(--max-side={max(size) - 1} refuses such images at once)"
    )
    return (
        f"it is {width} x {height}, and there is not enough memory for {micro_batch} "
        f"of that size at once: {advice}"
    )


def padded_batches(
    tok: Any, images: Iterable[tuple[int, np.ndarray]]
) -> Iterator[tuple[list[tuple[int, np.ndarray]], np.ndarray]]:
    """Yield batches of (number, image), and beside each what the model wants to see.

    Args:
        tok: what `movq_jax.load` returns.
        images: pairs of a number and uint8 [H, W, 3] of any size.

    Yields:
        The pairs of a batch, and uint8 [B, H', W', 3]: their images, padded.
    """
    batches = same_size_batches(
        images,
        size=lambda item: padded_size(*item[1].shape[:2], tok.factor),
        batch_size=tok.micro_batch,
    )
    for batch in batches:
        padded = [pad_to_multiple(image, tok.factor) for _, image in batch]
        yield batch, np.stack(padded)


def same_size_batches(
    items: Iterable[Item],
    *,
    size: Callable[[Item], tuple[int, int]],
    batch_size: int,
) -> Iterator[list[Item]]:
    """Yield lists of at most `batch_size` items of one size.

    A list goes out when it is full; the rest at the end, and the largest before
    that when too many pixels wait. What is in a list depends on the order and the
    sizes of the items alone: so encoding and decoding meet the same batches.

    Args:
        items: whatever is batched.
        size: (height, width) of an item in pixels.
        batch_size: the most items in a list.
    """
    waiting: dict[tuple[int, int], list[Item]] = {}

    def pixels(key: tuple[int, int]) -> int:
        return key[0] * key[1] * len(waiting[key])

    for item in items:
        key = size(item)
        waiting.setdefault(key, []).append(item)
        if len(waiting[key]) == batch_size:
            yield waiting.pop(key)
        elif sum(map(pixels, waiting)) > MAX_WAITING_PIXELS:
            yield waiting.pop(max(waiting, key=pixels))
    yield from waiting.values()


def _check_kind(path: Path) -> None:
    # What is not there, decode_image tells.
    if path.exists() and not path.is_file():
        raise UserError(f"{path} is no file but a folder, a pipe or a device")


def _check_side(file: InputFile, image: np.ndarray, max_side: int) -> None:
    height, width = image.shape[:2]
    if max(height, width) > max_side:
        raise UserError(
            f"{file.path} is {width} x {height}, above --max-side={max_side}: make it "
            f"smaller, or raise --max-side (the time for attention grows with the "
            f"square of the area)"
        )
