"""`--data`: the images of files, or of a prepared dataset, one after the other."""

import argparse
import dataclasses
import glob
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from movq_jax import families
from movq_jax.errors import UserError
from movq_jax.progress import Progress
from movq_jax.tools import command, feeding
from movq_jax.tools.feeding import Refusals
from movq_jax.tools.files import InputFile, find_files

SPLIT = "validation"
WHOLE = "whole"
MAX_IMAGE_SIDE = 16384  # of what images are resized to: 800 MB a piece
AS_THEY_ARE = "images as they are"


@dataclasses.dataclass
class ImageData:
    """Images by number.

    Attributes:
        name: of the data, for people.
        split: of a dataset; None for files.
        names: what number i is called, for i in 0..len - 1.
        paths: what number i is called in a refusal.
        files: those that are read; none of a dataset.
    """

    name: str
    split: str | None
    names: Callable[[int], str]
    paths: Sequence[Any]
    files: Sequence[InputFile]
    _read: Callable[..., Iterator[tuple[int, np.ndarray]]]

    def __len__(self) -> int:
        return len(self.paths)

    def images(
        self,
        transform: Callable | None,
        *,
        max_side: int,
        refusals: Refusals,
        progress: Progress,
    ) -> Iterator[tuple[int, np.ndarray]]:
        """Yield (number, uint8 [H, W, 3]) of each image that can be used.

        The others are named on stderr and noted in `refusals`.
        """
        # A transform makes small ones of large ones.
        most = max_side if transform is None else 2**31
        images = self._read(max_side=most, refusals=refusals, progress=progress)
        for number, image in images:
            if transform is not None:
                try:
                    image = transform(image, np.random.default_rng(number))
                except UserError as error:
                    path = str(self.paths[number])
                    refusals.add(path, f"{path} {error}", progress)
                    continue
            yield number, image


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags that name images."""
    parser.add_argument(
        "--data",
        required=True,
        nargs="+",
        action="extend",
        help="a prepared dataset, or image files, folders, patterns such as 'a/*.jpg'",
    )
    parser.add_argument(
        "--data-dir",
        metavar="DIR",
        help="folder of datasets (default: $TFDS_DATA_DIR, ~/tensorflow_datasets)",
    )
    parser.add_argument(
        "--split", help=f"of a dataset, such as 'train[:10%%]' (default: {SPLIT})"
    )
    parser.add_argument(
        "--num",
        type=command.positive_int,
        metavar="N",
        help="the first N images (default: all)",
    )
    parser.add_argument(
        "--image-size",
        type=_image_size,
        metavar="N",
        help=f"short side resized to N, and the middle cut out; or '{WHOLE}' (default: "
        "files whole; of a dataset what the model was evaluated on in training)",
    )
    parser.add_argument(
        "--max-side",
        type=command.positive_int,
        default=feeding.MAX_SIDE,
        help="refuse whole images with a longer side (default: %(default)s)",
    )


def find_images(args: argparse.Namespace, *, output: Path) -> ImageData:
    """Return what the flags name.

    What exists as a file or folder is that, unless --data-dir or --split ask for a
    dataset.

    Raises:
        UserError: it is neither, or empty.
    """
    asked = args.data_dir is not None or args.split is not None
    if asked and len(args.data) > 1:
        raise UserError(
            "--data names several things, and --split and --data-dir are for one "
            "dataset: leave them out, or name one"
        )
    if asked or (len(args.data) == 1 and not _is_path(args.data[0])):
        return _dataset(args.data[0], args.data_dir, args.split or SPLIT, args.num)
    files = find_files(args.data, output=output)[: args.num]

    def read(**keywords: Any) -> Iterator[tuple[int, np.ndarray]]:
        return feeding.read_images(files, **keywords)

    paths = [file.path for file in files]
    name = ", ".join(args.data)
    return ImageData(name, None, lambda i: files[i].name, paths, files, read)


def run_config(model: str) -> dict[str, Any] | None:
    """The config of the run that a bundle lies in, if there is one to read."""
    from movq_jax.pretrained.bundle import find_bundle

    try:
        config = json.loads((find_bundle(model).parent / "config.json").read_text())
    except (OSError, ValueError):
        return None
    return config if isinstance(config, dict) else None


def make_transform(
    size: int | str | None, tok: Any, run_config: Mapping[str, Any] | None
) -> tuple[Callable | None, str]:
    """Return what is done to an image, or None, and how people say it.

    Args:
        size: the value of --image-size; None: as the model was evaluated in training,
            as far as that is known.
        tok: what `movq_jax.load` returns.
        run_config: of the run that the model comes from, if it is there.
    """
    if size == WHOLE:
        return None, AS_THEY_ARE
    if size is None:
        evaluated = tok.protocol.get("eval") or {}
        trained = (run_config or {}).get("data") or {}
        size = evaluated.get("image_size") or trained.get("image_size")
        if not size or "resize" not in evaluated or "crop" not in evaluated:
            return None, AS_THEY_ARE
        steps = {"resize": evaluated["resize"], "crop": evaluated["crop"]}
        why = ", as in training"
    else:
        steps = {"resize": {"name": "short_side"}, "crop": {"name": "center"}}
        why = ""
    # Only now: flags are read without waiting for what transforms need.
    from movq_jax.data.transforms import CROPS, RESIZES, Transform

    both = {"resize": RESIZES, "crop": CROPS}
    made = {
        key: families.make(both[key], fields, f"the model's {key}", image_size=size)
        for key, fields in steps.items()
    }
    text = f"{_said(steps)}, to {size} x {size}{why}"
    return Transform(image_size=size, flip=False, **made), text


def _dataset(name: str, data_dir: str | None, split: str, num: int | None) -> ImageData:
    from movq_jax.data.images import decode_image
    from movq_jax.data.sources import open_split

    try:
        source = open_split(
            SimpleNamespace(dataset=name, data_dir=data_dir or ""), split
        )
    except UserError as error:
        if Path(name).suffix or name.startswith((".", "/", "~")) or name.endswith("/"):
            raise UserError(
                f"{name} is neither a file or a folder nor a prepared dataset: give a "
                "path that exists, or the name of a dataset"
            ) from error
        raise
    count = len(source) if num is None else min(num, len(source))

    def filename(number: int) -> str:
        return source[number]["filename"]

    def read(
        *, max_side: int, refusals: Refusals, progress: Progress
    ) -> Iterator[tuple[int, np.ndarray]]:
        for number in range(count):
            record = source[number]
            where = f"{record['filename']} of {source.name}"
            try:
                image = decode_image(record["image"], where)
                _check_side(where, image, max_side)
            except (UserError, MemoryError) as error:
                reason = str(error)
                if isinstance(error, MemoryError):
                    reason = f"there is not enough memory to decode {where}"
                refusals.add(where, reason, progress)
                continue
            yield number, image

    return ImageData(source.name, split, filename, _Places(source, count), [], read)


class _Places(Sequence):
    """How the images of a dataset are called, read when one is asked for."""

    def __init__(self, source: Any, count: int) -> None:
        self._source, self._count = source, count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, number: int) -> str:
        return f"{self._source[number]['filename']} of {self._source.name}"


def _check_side(where: str, image: np.ndarray, max_side: int) -> None:
    height, width = image.shape[:2]
    if max(height, width) > max_side:
        raise UserError(
            f"{where} is {width} x {height}, above --max-side={max_side}: raise it, "
            "or give --image-size=256, or another size to resize and cut to"
        )


def _is_path(text: str) -> bool:
    return Path(text).expanduser().exists() or glob.has_magic(text)


def _said(steps: Mapping[str, Any]) -> str:
    """Resize and crop with their fields, as a config has them."""
    words = []
    for key, fields in steps.items():
        fields = dict(fields)
        name = fields.pop("name").replace("_", " ")
        rest = ", ".join(f"{field} {value}" for field, value in fields.items())
        words.append(f"{key} {name}" + (f" ({rest})" if rest else ""))
    return ", ".join(words)


def _image_size(text: str) -> int | str:
    return WHOLE if text == WHOLE else image_side(text)


def image_side(text: str) -> int:
    """Read a side that images are resized and cut to."""
    side = command.positive_int(text)
    if side > MAX_IMAGE_SIDE:
        raise argparse.ArgumentTypeError(
            f"{text} is above {MAX_IMAGE_SIDE}, more than an image's side can be"
        )
    return side
