"""The `data` section of a config, read once and checked as a whole.

dataset        'photos', 'clothing', 'coco/2017', ...: prepared under data_dir
split_train    'train', 'train[:90%]', ...
split_eval     'validation'
data_dir       '': $TFDS_DATA_DIR, else ~/tensorflow_datasets
image_size     side of the training images, in pixels
train          {resize: {name, ...}, crop: {name, ...}, flip: bool,
               permute_channels: bool, reduced_decoding: bool}; the last: decode a JPEG
               at a fraction of its size where resizing makes it smaller still
eval           {resize: {name, ...}, crop: {name, ...}, image_size}; 0: as above
num_threads    that decode; 0: none besides the caller's; workers share them out
num_workers    processes that make training batches, where one process is not fast
               enough; 0: none besides the caller's. Evaluation has threads alone: it
               begins and ends too often for processes
prefetch       batches made ahead; with workers at least two for each
decode_once    keep decoded images in memory, each process for itself: for few and
               large photographs
max_broken_share   of the training images that could not be read and were replaced by
               others: above it training stops
"""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from movq_jax import families
from movq_jax import fields as checks
from movq_jax.data.transforms import CROPS, RESIZES, Transform
from movq_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Settings:
    """What the fields of the `data` section mean (see the module)."""

    dataset: str
    split_train: str
    split_eval: str
    data_dir: str
    image_size: int
    train: Transform
    eval: Transform
    reduced_decoding: bool
    num_threads: int
    num_workers: int
    prefetch: int
    decode_once: bool
    max_broken_share: float


_LEAST = {"image_size": 1, "num_threads": 0, "num_workers": 0, "prefetch": 1}
_TRAIN = ["resize", "crop", "flip", "permute_channels", "reduced_decoding"]


def read_settings(data_config: Mapping[str, Any], where: str = "data") -> Settings:
    """Check every field of a `data` section and build its transforms.

    Args:
        data_config: a ConfigDict or dict, with exactly the fields of the module's
            docstring.
        where: its path in the config, for error messages.

    Raises:
        UserError: a field is unknown, missing, or its value makes no sense.
    """
    names = [field.name for field in dataclasses.fields(Settings)]
    names.remove("reduced_decoding")  # a field of `train`
    _check_fields(data_config, names, where)
    fields = {**data_config}
    for name, least in _LEAST.items():
        _check_at_least(fields[name], least, f"{where}.{name}")
    checks.check_share(f"{where}.max_broken_share", fields["max_broken_share"])
    train, evaluation = fields["train"], fields["eval"]
    _check_fields(train, _TRAIN, f"{where}.train")
    _check_fields(evaluation, ["resize", "crop", "image_size"], f"{where}.eval")
    _check_at_least(evaluation["image_size"], 0, f"{where}.eval.image_size")
    checks.check_flag(f"{where}.train.reduced_decoding", train["reduced_decoding"])
    fields["reduced_decoding"] = train["reduced_decoding"]
    fields["train"] = dataclasses.replace(
        _transform(train, fields["image_size"], f"{where}.train"),
        flip=train["flip"],
        permute_channels=train["permute_channels"],
    )
    fields["eval"] = _transform(
        evaluation, evaluation["image_size"] or fields["image_size"], f"{where}.eval"
    )
    return Settings(**fields)


def _transform(fields: Mapping[str, Any], image_size: int, where: str) -> Transform:
    size = {"image_size": image_size}
    return Transform(
        image_size=image_size,
        resize=families.make(RESIZES, fields["resize"], f"{where}.resize", **size),
        crop=families.make(CROPS, fields["crop"], f"{where}.crop", **size),
        flip=False,
    )


def _check_fields(fields: Mapping[str, Any], known: Iterable[str], where: str) -> None:
    known = list(known)
    for name in fields:
        if name not in known:
            raise UserError(
                f"{where} has no field {name!r}{families.nearest(name, known)}"
            )
    missing = [name for name in known if name not in fields]
    if missing:
        raise UserError(f"{where} lacks {', '.join(missing)}")


def _check_at_least(value: Any, least: int, where: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise UserError(f"{where} is {value!r}: a whole number from {least} is needed")
