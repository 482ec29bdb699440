"""A look at every byte of a prepared dataset: is it what was written, does it decode?

Nothing but the dataset is needed. One that TensorFlow Datasets prepared has no hashes
to compare: of it the records are counted and decoded.
"""

import concurrent.futures
import contextlib
import dataclasses
import functools
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import tensorflow_datasets as tfds
from array_record.python.array_record_data_source import ArrayRecordDataSource
from tensorflow_datasets.proto import tf_example_pb2

from movq_jax.cores import usable_cores
from movq_jax.data.checksums import file_sha256
from movq_jax.data.images import ImageError, decode_image
from movq_jax.data.preparing.prepared import MANIFEST, Prepared, read_manifest
from movq_jax.data.preparing.workers import run_tasks
from movq_jax.data.preparing.writing import suitable_jobs
from movq_jax.data.sources import count_records, find_dataset
from movq_jax.errors import UserError

_AHEAD = 64  # records at a time


@dataclasses.dataclass(frozen=True)
class Verified:
    """What a look at a dataset showed.

    Attributes:
        folder: where it lies.
        images: split -> how many images it should have.
        shards: split -> number of its files.
        bytes: split -> size of its encoded images.
        problems: what is wrong, a line each; none where the dataset is whole.
        prepared: what was written down of it; None where `movq prepare` did not.
    """

    folder: Path
    images: dict[str, int]
    shards: dict[str, int]
    bytes: dict[str, int]
    problems: list[str]
    prepared: Prepared | None


@dataclasses.dataclass(frozen=True)
class _File:
    """A shard as it should be: so many records and, where it is known, this hash."""

    path: Path
    records: int
    sha256: str | None


def verify_dataset(
    dataset: str,
    data_dir: Path,
    *,
    on_start: Callable[[int], None] = lambda images: None,
    on_image: Callable[[str | None], None] = lambda problem: None,
    jobs: int | None = 1,
) -> Verified:
    """Count, hash and decode all that a prepared dataset consists of.

    Args:
        dataset: as `data.dataset` names it.
        data_dir: the folder of all datasets.
        on_start: called before, with the number of images.
        on_image: called for each image, with None or with what is wrong with it.
        jobs: processes to do it; None: as many as `write_dataset` would use.

    Raises:
        UserError: there is no such dataset, or its metadata cannot be read.
    """
    folder = find_dataset(dataset, data_dir)
    info = _info(folder)
    prepared = read_manifest(folder)
    hashes = prepared.sha256 if prepared else {}
    files = {
        name: [
            _File(Path(path), records, hashes.get(Path(path).name))
            for path, records in zip(split.filepaths, split.shard_lengths, strict=True)
        ]
        for name, split in info.splits.items()
    }
    tasks = [file for group in files.values() for file in group]
    on_start(sum(file.records for file in tasks))
    size = {name: split.num_bytes for name, split in info.splits.items()}
    jobs = max(1, min(jobs or suitable_jobs(sum(size.values())), len(tasks)))
    verify = functools.partial(_verify_file, threads=max(1, usable_cores() // jobs))
    found = run_tasks(verify, tasks, jobs=jobs, on_item=on_image, folder=folder)
    problems = _disagreements(info, prepared, folder)
    return Verified(
        folder=folder,
        images={name: split.num_examples for name, split in info.splits.items()},
        shards={name: len(group) for name, group in files.items()},
        bytes=size,
        problems=problems + [problem for group in found for problem in group],
        prepared=prepared,
    )


def _info(folder: Path) -> tfds.core.DatasetInfo:
    try:
        info = tfds.builder_from_directory(folder).info
        whole = "image" in info.features and all(
            len(split.filepaths) == len(split.shard_lengths)
            for split in info.splits.values()
        )
    # Damaged JSON fails in as many ways as there are fields.
    except Exception as error:
        raise UserError(
            f"the metadata of {folder} cannot be read ({error}): delete that folder "
            f"and prepare the dataset again"
        ) from error
    if info.file_format != tfds.core.FileFormat.ARRAY_RECORD or not whole:
        raise UserError(f"{folder} is not a dataset of images in array_record files")
    return info


def _disagreements(
    info: tfds.core.DatasetInfo, prepared: Prepared | None, folder: Path
) -> list[str]:
    """Return where the two descriptions of a dataset contradict each other."""
    if prepared is None:
        damaged = (folder / MANIFEST).exists()
        return [f"{MANIFEST} cannot be read"] if damaged else []
    problems = []
    counts = {name: split.num_examples for name, split in info.splits.items()}
    if counts != prepared.images:
        problems.append(
            f"{MANIFEST} says {prepared.images}, and dataset_info.json {counts} images"
        )
    paths = [path for split in info.splits.values() for path in split.filepaths]
    if prepared.sha256 and prepared.sha256.keys() != {Path(p).name for p in paths}:
        problems.append(f"{MANIFEST} and dataset_info.json name different files")
    return problems


def _verify_file(
    file: _File, report: Callable[[str | None], None], *, threads: int
) -> list[str]:
    """Return what is wrong with a shard; report each of its images."""
    name = file.path.name
    if not file.path.is_file():
        return [f"{name} is missing"]
    problems = []
    if file.sha256 is not None and _sha256(file.path) != file.sha256:
        problems.append(f"{name} is not as it was written (its SHA-256 differs)")
    records = count_records(file.path)
    if records != file.records:
        problems.append(f"{name} has {records} of {file.records} records")
    if not records:
        return problems
    # Threads of their own, because decoding lets go of the interpreter.
    with contextlib.closing(_problems(file.path, records, threads)) as found:
        for problem in found:
            report(problem)
            if problem is not None:
                problems.append(problem)
    return problems


def _problems(path: Path, count: int, threads: int) -> Iterator[str | None]:
    records = ArrayRecordDataSource([os.fspath(path)])
    look = functools.partial(_problem, records, path.name)
    pool = concurrent.futures.ThreadPoolExecutor(threads)
    try:
        for start in range(0, count, _AHEAD):
            yield from pool.map(look, range(start, min(start + _AHEAD, count)))
    finally:
        pool.shutdown(cancel_futures=True)


def _problem(records: Sequence[bytes], shard: str, index: int) -> str | None:
    """Return what is wrong with a record, None where it holds a picture."""
    name = f"record {index} of {shard}"
    try:
        example = tf_example_pb2.Example.FromString(records[index])
        features = example.features.feature
        data = features["image"].bytes_list.value[0]
        if "filename" in features:
            name += f" ({features['filename'].bytes_list.value[0].decode()})"
        decode_image(data, name=name)
    except MemoryError:
        raise
    except ImageError as error:
        return str(error)
    # ArrayRecord and protobuf raise their own kinds on damaged files.
    except Exception as error:
        return f"{name} cannot be read: {error}"
    return None


def _sha256(path: Path) -> str | None:
    try:
        return file_sha256(path)
    except OSError:
        return None
