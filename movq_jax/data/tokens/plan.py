"""What a token cache is made of: `plan.json`, which comes before all else.

Its fields are in the table of `movq_jax.data.tokens.manifest`.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int32

from movq_jax import fields as checks
from movq_jax.data.codes import MAX_MICRO_BATCH
from movq_jax.errors import UserError

FORMAT_VERSION = 1
PLAN = "plan.json"
_LABEL = np.dtype("<i8")
_UINT16_CODES = 2**16
_INT32_CODES = 2**31  # indices are int32 when they are read
MAX_SHARDS = 99_999  # five digits in the names of files
_NAMES = {"fingerprint": "model's fingerprint"}


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a cache is made of; all fields are in the table.

    Attributes:
        num_channels: M.
        grid: (h, w).
        dtype: of the stored indices.
        variants: V, 2 where mirrored images are there, too.
        record_bytes: of each record.
        digest: what tells this plan from others, 64 hex digits.
    """

    fingerprint: str
    codebook_sizes: tuple[int, ...]
    channel_books: tuple[str, ...]
    factor: int
    image_size: int
    preprocessing: Mapping[str, Any]
    flip: bool
    micro_batch: int
    dataset: str
    dataset_fingerprint: str | None
    split: str
    num_examples: int
    num_shards: int
    classes: tuple[str, ...]

    @property
    def num_channels(self) -> int:
        return len(self.codebook_sizes)

    @property
    def grid(self) -> tuple[int, int]:
        return (self.image_size // self.factor,) * 2

    @property
    def dtype(self) -> str:
        return "uint16" if max(self.codebook_sizes) <= _UINT16_CODES else "uint32"

    @property
    def variants(self) -> int:
        return 1 + self.flip

    @property
    def record_bytes(self) -> int:
        positions = self.variants * self.grid[0] * self.grid[1]
        indices = positions * self.num_channels * np.dtype(self.dtype).itemsize
        return _LABEL.itemsize + indices

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    def shard_file(self, shard: int) -> str:
        """Return the name of the file with this number."""
        return f"tokens.array_record-{shard:05d}-of-{self.num_shards:05d}"

    def bounds(self, shard: int) -> tuple[int, int]:
        """Return the first number of a shard's examples, and the next shard's."""
        start = shard * self.num_examples // self.num_shards
        return start, (shard + 1) * self.num_examples // self.num_shards

    def pack(self, label: int, ids: Int32[np.ndarray, "v h w m"]) -> bytes:
        """Return the record of an image."""
        stored = ids.astype(np.dtype(self.dtype).newbyteorder("<"))
        return np.array(label, _LABEL).tobytes() + stored.tobytes()

    def unpack(self, record: bytes) -> tuple[int, Int32[np.ndarray, "v h w m"]]:
        """Return label and indices of a record of the right length."""
        dtype = np.dtype(self.dtype).newbyteorder("<")
        ids = np.frombuffer(record, dtype, offset=_LABEL.itemsize)
        shape = self.variants, *self.grid, self.num_channels
        label = np.frombuffer(record, _LABEL, count=1)[0]
        return int(label), ids.reshape(shape).astype(np.int32)

    def as_record(self) -> dict[str, Any]:
        """Return what JSON takes, with what follows from the fields."""
        return {
            "format_version": FORMAT_VERSION,
            "fingerprint": self.fingerprint,
            "codebook_sizes": list(self.codebook_sizes),
            "channel_books": list(self.channel_books),
            "num_channels": self.num_channels,
            "factor": self.factor,
            "image_size": self.image_size,
            "grid": list(self.grid),
            "dtype": self.dtype,
            "preprocessing": dict(self.preprocessing),
            "flip": self.flip,
            "micro_batch": self.micro_batch,
            "dataset": self.dataset,
            "dataset_fingerprint": self.dataset_fingerprint,
            "split": self.split,
            "num_examples": self.num_examples,
            "num_shards": self.num_shards,
            "classes": list(self.classes),
        }

    def to_json(self) -> str:
        """Return the text of plan.json."""
        return to_text(self.as_record())


def read_plan(path: Path) -> Plan:
    """Read plan.json, or the plan in manifest.json, and trust nothing in it.

    Raises:
        UserError: it cannot be read, is of a newer format, or makes no sense.
    """
    return parse_plan(path, read_object(path))


def difference(ours: Plan, theirs: Plan) -> str | None:
    """Say in words what tells two plans apart first, None where nothing does."""
    there = theirs.as_record()
    for key, value in ours.as_record().items():
        if there[key] != value:
            name = _NAMES.get(key, repr(key))
            return f"its {name} is {_said(there[key])}, not {_said(value)}"
    return None


def to_text(record: Mapping[str, Any]) -> str:
    """Return an object as JSON, the same bytes each time."""
    return json.dumps(record, indent=2, allow_nan=False) + "\n"


def read_object(path: Path) -> dict[str, Any]:
    """Return the object of a JSON file whose `format_version` this release reads.

    Raises:
        UserError: there is none.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise damaged(path, f"not readable JSON ({error})") from error
    if not isinstance(record, dict):
        raise damaged(path, "no JSON object")
    version = record.get("format_version")
    if not checks.is_whole(version) or version < 1:
        raise damaged(path, f"'format_version' is {version!r}")
    if version > FORMAT_VERSION:
        raise UserError(
            f"{path} has format {version}, newer than the {FORMAT_VERSION} that this "
            f"release reads: update movq_jax"
        )
    return record


def damaged(path: Path, wrong: str) -> UserError:
    """Return the error for a file that this program did not write like that."""
    return UserError(
        f"{path} is damaged or was changed: {wrong}; delete it and run `movq tokenize` "
        f"again, which keeps the shards that are whole"
    )


def parse_plan(path: Path, record: Mapping[str, Any]) -> Plan:
    """Return the plan in what was read from `path`.

    Raises:
        UserError: a field is missing, or makes no sense.
    """
    names = [field.name for field in dataclasses.fields(Plan)]
    derived = ["num_channels", "grid", "dtype"]
    missing = [name for name in [*names, *derived] if name not in record]
    if missing:
        raise damaged(path, f"it lacks {', '.join(missing)}")
    try:
        for name, check in _CHECKS.items():
            check(f"{name!r}", record[name])
    except UserError as error:
        raise damaged(path, str(error)) from error
    values = {name: record[name] for name in names}
    for name in ("codebook_sizes", "channel_books", "classes"):
        values[name] = tuple(values[name])
    plan = Plan(**values)
    _check_sense(path, plan)
    for name in derived:
        if record[name] != plan.as_record()[name]:
            right = plan.as_record()[name]
            raise damaged(path, f"{name!r} is {record[name]!r:.60}, not {right!r}")
    return plan


def _said(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 200 else f"{text[:200]}..."


def _check_sense(path: Path, plan: Plan) -> None:
    """Refuse fields that contradict one another."""
    wrong = None
    if len(plan.channel_books) != len(plan.codebook_sizes):
        wrong = "'codebook_sizes' and 'channel_books' need one entry a channel, both"
    elif plan.image_size % plan.factor:
        wrong = f"'image_size' is no multiple of {plan.factor}, the 'factor'"
    elif plan.num_shards > min(plan.num_examples, MAX_SHARDS):
        wrong = f"'num_shards' is above 'num_examples', or above {MAX_SHARDS}"
    elif plan.micro_batch > MAX_MICRO_BATCH:
        wrong = f"'micro_batch' is {plan.micro_batch}, above {MAX_MICRO_BATCH}"
    if wrong:
        raise damaged(path, wrong)


def _check_text(where: str, value: Any) -> None:
    if not isinstance(value, str) or not value:
        raise UserError(f"{where} is {value!r:.60}; give a text")


def _check_texts(where: str, value: Any) -> None:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise UserError(f"{where} is {value!r:.60}; give a list of texts")


def _check_sizes(where: str, value: Any) -> None:
    fits = isinstance(value, list) and value and all(map(checks.is_whole, value))
    if not fits or not all(1 <= size <= _INT32_CODES for size in value):
        raise UserError(f"{where} is {value!r:.60}; give a list of codebook sizes")


def _check_steps(where: str, value: Any) -> None:
    if not isinstance(value, dict):
        raise UserError(f"{where} is {value!r:.60}; give resize, crop and image_size")


def _check_optional_text(where: str, value: Any) -> None:
    if value is not None:
        _check_text(where, value)


_CHECKS = {
    "fingerprint": _check_text,
    "codebook_sizes": _check_sizes,
    "channel_books": _check_texts,
    "factor": checks.check_size,
    "image_size": checks.check_size,
    "preprocessing": _check_steps,
    "flip": checks.check_flag,
    "micro_batch": checks.check_size,
    "dataset": _check_text,
    "dataset_fingerprint": _check_optional_text,
    "split": _check_text,
    "num_examples": checks.check_size,
    "num_shards": checks.check_size,
    "classes": _check_texts,
}
