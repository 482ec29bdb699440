"""The images' way through `movq tokenize`, from a dataset to the shards of a cache."""

import collections
import concurrent.futures
import contextlib
import itertools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from movq_jax.cores import usable_cores
from movq_jax.data.images import decode_image
from movq_jax.data.sources import Source
from movq_jax.data.tokens.manifest import Refused
from movq_jax.data.tokens.plan import Plan
from movq_jax.data.tokens.shards import write_shard
from movq_jax.data.transforms import Transform, mirror
from movq_jax.errors import UserError
from movq_jax.progress import Progress
from movq_jax.tools.feeding import is_out_of_memory


class Example(NamedTuple):
    """An image as the model sees it, or why there is none."""

    file: str
    label: int
    image: np.ndarray | None
    reason: str = ""


def write_shards(
    tok: Any,
    plan: Plan,
    source: Source,
    transform: Transform,
    folder: Path,
    shards: Sequence[int],
) -> list[Refused]:
    """Write these shards, and return what was refused."""
    numbers = [number for shard in shards for number in range(*plan.bounds(shard))]
    refused: list[Refused] = []
    with Progress(len(numbers), "images") as progress:
        examples = _read_ahead(source, transform, numbers, ahead=4 * tok.micro_batch)
        with contextlib.closing(examples):
            for shard in shards:
                start, stop = plan.bounds(shard)
                some = itertools.islice(examples, stop - start)
                records = _records(tok, plan, some, refused, progress)
                write_shard(folder, plan, shard, records)
    return refused


def encode(tok: Any, images: np.ndarray) -> np.ndarray:
    """Return `tok.encode(images)`.

    Raises:
        UserError: memory does not suffice.
    """
    try:
        return tok.encode(images)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        side = images.shape[1]
        raise UserError(
            f"there is not enough memory for {tok.micro_batch} images of {side} x "
            f"{side} at once: give a lower --micro-batch, or use another device"
        ) from error


def _records(
    tok: Any,
    plan: Plan,
    examples: Iterable[Example],
    refused: list[Refused],
    progress: Progress,
) -> Iterator[bytes | Refused]:
    """Yield what `write_shard` takes, in the order of the examples."""
    good: list[Example] = []
    for example in examples:
        if example.image is None:
            refused.append(Refused(example.file, example.reason))
            progress.note(f"refused: {example.reason}")
            progress.advance()
            yield refused[-1]
            continue
        good.append(example)
        if len(good) == tok.micro_batch:
            yield from _encoded(tok, plan, good)
            progress.advance(len(good))
            good = []
    if good:
        yield from _encoded(tok, plan, good)
        progress.advance(len(good))


def _encoded(tok: Any, plan: Plan, examples: Sequence[Example]) -> Iterator[bytes]:
    """Yield the records of at most a micro-batch."""
    images = [example.image for example in examples]
    variants = [encode(tok, np.stack(images))]
    if plan.flip:
        variants.append(encode(tok, np.stack([mirror(image) for image in images])))
    for example, ids in zip(examples, np.stack(variants, axis=1), strict=True):
        yield plan.pack(example.label, ids)


def _read_ahead(
    source: Source, transform: Transform, numbers: Sequence[int], *, ahead: int
) -> Iterator[Example]:
    """Yield the examples in order, while threads read and decode the next ones."""
    threads = usable_cores()
    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        waiting: collections.deque = collections.deque()
        try:
            for number in numbers:
                waiting.append(pool.submit(_read, source, transform, number))
                if len(waiting) > ahead + threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _read(source: Source, transform: Transform, number: int) -> Example:
    try:
        record = source[number]
    except UserError as error:
        return Example(f"record {number} of {source.name}", -1, None, str(error))
    where = f"{record['filename']} of {source.name}"
    try:
        image = decode_image(record["image"], where)
    except UserError as error:
        return Example(where, -1, None, str(error))
    except MemoryError as error:  # no property of the image: another try may do it
        raise UserError(f"there is not enough memory to decode {where}") from error
    try:
        # The generator of evaluation, should a transform want one.
        image = transform(image, np.random.default_rng(number))
    except UserError as error:
        return Example(where, -1, None, f"{where} {error}")
    return Example(where, record["label"], image)
