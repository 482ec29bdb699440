"""What a token cache says of itself.

A token cache is a split of a dataset as indices, to train a prior on:

    <folder>/
        plan.json                                    what is to be made; comes first
        tokens.array_record-00000-of-00008           records, in the split's order
        tokens.array_record-00000-of-00008.json      what that shard holds
        ...
        manifest.json                                the plan and all shards; comes last

Without manifest.json it is unfinished and nobody reads it. A record has a fixed number
of bytes, all of them little-endian::

    label = np.frombuffer(record, "<i8", count=1)[0]             # -1: none
    ids = np.frombuffer(record, manifest["dtype"], offset=8)
    ids = ids.reshape(-1, *manifest["grid"], manifest["num_channels"])
    # [1, h, w, M], or [2, h, w, M] with `flip`: then of the mirrored image, too

====================  ==============================================================
format_version        1
fingerprint           of the model that made the indices
codebook_sizes        M numbers: channel m has indices 0 .. codebook_sizes[m] - 1
channel_books         M names: which codebook channel m points into
num_channels          M
factor                pixels a position, both ways
image_size            side of the images, in pixels
grid                  [h, w], both image_size / factor
dtype                 'uint16', or 'uint32' where a codebook has more than 65,536 codes
preprocessing         {resize: {name, ...}, crop: {name, ...}, image_size}, as the
                      section `data.eval` of a config
flip                  whether the mirrored images' indices are there, too
micro_batch           images a compiled call
dataset               folder of the dataset in its data dir, with the version
dataset_fingerprint   of the files that it was prepared from; null: not known
split                 in the notation of TensorFlow Datasets
num_examples          that the split has
num_shards            files that they are spread over
classes               names of the labels 0, 1, ...
count                 records: num_examples without those that were refused
shards                [{file, records, bytes, sha256}, ...]
refused               [{file, reason}, ...]: images that could not be used
====================  ==============================================================

All up to `classes` is the plan.
"""

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from movq_jax import fields as checks
from movq_jax.data.tokens.plan import (
    Plan,
    damaged,
    parse_plan,
    read_object,
    to_text,
)
from movq_jax.errors import UserError

MANIFEST = "manifest.json"
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclasses.dataclass(frozen=True)
class Shard:
    """A file of records: its name in the folder, and what it holds."""

    file: str
    records: int
    bytes: int
    sha256: str


@dataclasses.dataclass(frozen=True)
class Refused:
    """An image that is not in the cache, and why."""

    file: str
    reason: str


@dataclasses.dataclass(frozen=True)
class Manifest:
    """What a finished cache holds."""

    plan: Plan
    shards: tuple[Shard, ...]
    refused: tuple[Refused, ...]

    @property
    def count(self) -> int:
        """How many records there are."""
        return sum(shard.records for shard in self.shards)

    def to_json(self) -> str:
        """Return the text of manifest.json."""
        return to_text(
            {
                **self.plan.as_record(),
                "count": self.count,
                "shards": [dataclasses.asdict(shard) for shard in self.shards],
                "refused": [dataclasses.asdict(image) for image in self.refused],
            }
        )


def read_manifest(path: Path) -> Manifest:
    """Read manifest.json and trust nothing in it.

    Raises:
        UserError: as `read_plan`.
    """
    record = read_object(path)
    plan = parse_plan(path, record)
    try:
        shards = tuple(
            parse_shard(f"shards[{number}]", shard, plan.shard_file(number))
            for number, shard in enumerate(_list(record, "shards"))
        )
        manifest = Manifest(plan, shards, parse_refused(record))
    except UserError as error:
        raise damaged(path, str(error)) from error
    refused, least = manifest.refused, plan.record_bytes
    wrong = None
    if len(shards) != plan.num_shards:
        wrong = f"'num_shards' is {plan.num_shards}, and {len(shards)} are listed"
    elif record.get("count") != manifest.count or not manifest.count:
        wrong = f"'count' is {record.get('count')!r}, the shards have {manifest.count}"
    elif manifest.count + len(refused) != plan.num_examples:
        wrong = (
            f"'num_examples' is {plan.num_examples}, with {manifest.count} records and "
            f"{len(refused)} refused"
        )
    elif any(shard.bytes < shard.records * least for shard in shards):
        wrong = f"a shard has too few bytes for records of {least}"
    if wrong:
        raise damaged(path, wrong)
    return manifest


def parse_shard(where: str, record: Any, file: str) -> Shard:
    """Check what JSON says of a shard called `file`.

    Raises:
        UserError: it makes no sense.
    """
    names = [field.name for field in dataclasses.fields(Shard)]
    if not isinstance(record, dict) or not set(names) <= record.keys():
        raise UserError(f"{where} is {record!r:.60}; it needs {', '.join(names)}")
    checks.check_size(f"{where}.records", record["records"], 0)
    checks.check_size(f"{where}.bytes", record["bytes"], 0)
    if record["file"] != file:  # nor would a path out of the folder be followed
        raise UserError(f"{where}.file is {record['file']!r:.60}, not {file!r}")
    if not isinstance(record["sha256"], str) or not _SHA256.fullmatch(record["sha256"]):
        raise UserError(f"{where}.sha256 is no SHA-256: {record['sha256']!r:.80}")
    return Shard(**{name: record[name] for name in names})


def parse_refused(record: Mapping[str, Any]) -> tuple[Refused, ...]:
    """Check the list `refused` in what JSON says of a shard or of a cache.

    Raises:
        UserError: it makes no sense.
    """
    refused = []
    for item in _list(record, "refused"):
        names = ("file", "reason")
        if not isinstance(item, dict) or not all(
            isinstance(item.get(name), str) for name in names
        ):
            raise UserError(f"'refused' has {item!r:.60}, no file with a reason")
        refused.append(Refused(item["file"], item["reason"]))
    return tuple(refused)


def _list(record: Mapping[str, Any], name: str) -> list:
    if not isinstance(record.get(name), list):
        raise UserError(f"{name!r} is no list")
    return record[name]
