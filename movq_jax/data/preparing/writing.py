"""A listing becomes a dataset on disk: checked, in shards, whole or not there at all.

    <data dir>/<name>[/<config>]/1.0.0/
        <name>-<split>.array_record-00000-of-00002   encoded files, untouched
        dataset_info.json, features.json, ...        of TensorFlow Datasets
        prepared.json                                what it was made from

Everything is written to a hidden folder beside and moved in one step at the end. The
same listing gives the same bytes, however often the work was interrupted and whatever
number of processes did it.
"""

import collections
import concurrent.futures
import contextlib
import functools
import io
import os
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordWriter
from tensorflow_datasets.proto import tf_example_pb2

from movq_jax.cores import usable_cores
from movq_jax.data.builders.listing import Example, Listing
from movq_jax.data.checksums import file_sha256
from movq_jax.data.images import ImageError, decode_image
from movq_jax.data.preparing.prepared import (
    VERSION,
    Prepared,
    features_of,
    read_manifest,
    summarise,
    write_metadata,
)
from movq_jax.data.preparing.shards import (
    CONTENT,
    Finished,
    Shard,
    note_finished,
    plan_shards,
    read_note,
    sync,
)
from movq_jax.data.preparing.workers import run_tasks
from movq_jax.data.preparing.working_folder import working_folder, working_folder_of
from movq_jax.data.sources import METADATA, count_records
from movq_jax.errors import UserError

_FEATURES = "features.json"  # of TensorFlow Datasets, as METADATA
SHARD_BYTES = 2**28
_NAME = re.compile(r"[a-z][a-z0-9_]*")
_FORMAT = 1  # of the working folder; with another one, nothing in it is of use
# What the files of a dataset need on the disk besides the images, at most.
_BYTES_AN_IMAGE, _BYTES_A_SHARD = 1024, 2**18


def find_prepared(name: str, data_dir: Path, listing: Listing) -> Prepared | None:
    """Return the dataset called `name` if it was made from `listing`, None if absent.

    Raises:
        UserError: the name cannot be one, or belongs to another dataset.
    """
    if not _NAME.fullmatch(name):
        raise UserError(
            f"{name!r} cannot be the name of a dataset: use lower-case letters, digits "
            f"and _, starting with a letter"
        )
    folder = _place(name, data_dir, listing)
    try:
        if folder not in _children(folder.parent):
            return None
    except OSError as error:
        raise UserError(f"cannot read {data_dir}: {error.strerror or error}") from error
    prepared = read_manifest(folder)
    if prepared is None or prepared.fingerprint != listing.fingerprint():
        raise UserError(
            f"{folder} holds another dataset: choose another --name or --data-dir, or "
            f"delete that folder"
        )
    for file in (METADATA, _FEATURES, *prepared.sha256):
        if not (folder / file).is_file():
            raise UserError(
                f"{folder} is damaged, {file} is missing: delete that folder and start "
                f"the same command again"
            )
    # What a process left that was killed in its very last moment.
    shutil.rmtree(working_folder_of(folder), ignore_errors=True)
    return prepared


def _children(folder: Path) -> list[Path]:
    return list(folder.iterdir()) if folder.is_dir() else []


def unfinished(name: str, data_dir: Path, listing: Listing) -> Path | None:
    """Return the folder of work on a dataset that stopped, None where there is none."""
    folder = working_folder_of(_place(name, data_dir, listing))
    return folder if folder.is_dir() else None


def write_dataset(
    listing: Listing,
    *,
    name: str,
    data_dir: Path,
    skip_broken: bool = False,
    on_image: Callable[[str | None], None] = lambda refusal: None,
    on_start: Callable[[int, int], None] = lambda to_do, kept: None,
    jobs: int | None = 1,
) -> Prepared:
    """Decode every image of `listing`, and write those that can be decoded.

    When it stops, by an error or killed, what is finished is kept, and the same call
    goes on with it; see `unfinished`.

    Args:
        listing: what to write.
        name: of the dataset, for which `find_prepared` returned None.
        data_dir: the folder of all datasets.
        skip_broken: leave out images that cannot be decoded, instead of raising.
        on_image: called for each image, with None or with why it is refused.
        on_start: called before, with the number of images to be read, and of those
            in shards that are finished already.
        jobs: processes to do it; None: one for each full shard, at most the cores.

    Raises:
        ImageError: an image cannot be decoded, and `skip_broken` is False.
        UserError: a split has no image left, there is not room for all, or the place
            cannot be written.
    """
    # Before the writing: files that change meanwhile make another dataset.
    fingerprint = listing.fingerprint()
    place = _place(name, data_dir, listing)
    shards = plan_shards(listing, name, SHARD_BYTES)
    plan = {
        "format": _FORMAT,
        "fingerprint": fingerprint,
        "name": name,
        "shard_bytes": SHARD_BYTES,
    }
    features = features_of(listing)
    with working_folder(place, plan, shards) as work:
        finished = {s.file_name: note for s in shards if (note := _kept(s, work))}
        refused = [r for note in finished.values() for r in note.refused.values()]
        if refused and not skip_broken:
            raise ImageError(refused[0])
        to_do = [shard for shard in shards if shard.file_name not in finished]
        _check_space(place, to_do)
        on_start(_count(to_do), _count(shards) - _count(to_do))
        jobs = jobs or suitable_jobs(sum(shard.size for shard in to_do))
        write = functools.partial(
            _write_shard,
            work=work,
            features=features,
            skip_broken=skip_broken,
            threads=max(1, usable_cores() // max(1, min(jobs, len(to_do)))),
        )
        notes = run_tasks(write, to_do, jobs=jobs, on_item=on_image, folder=work)
        finished |= {s.file_name: note for s, note in zip(to_do, notes, strict=True)}
        prepared = summarise(place, fingerprint, listing, shards, finished)
        write_metadata(work / CONTENT, name, listing, prepared, shards, finished)
    return prepared


def suitable_jobs(size: int) -> int:
    """Return how many processes `size` bytes of images are worth."""
    return max(1, min(usable_cores(), size // SHARD_BYTES))


def _place(name: str, data_dir: Path, listing: Listing) -> Path:
    return data_dir / name / listing.config / VERSION


def _count(shards: Sequence[Shard]) -> int:
    return sum(len(shard.examples) for shard in shards)


def _check_space(place: Path, shards: Sequence[Shard]) -> None:
    """Refuse to begin what the disk cannot hold."""
    needed = sum(shard.size for shard in shards)
    needed += _count(shards) * _BYTES_AN_IMAGE + len(shards) * _BYTES_A_SHARD
    free = shutil.disk_usage(place.parent).free
    if needed > free:
        raise UserError(
            f"{place} needs {needed / 1e9:.3g} GB, and {free / 1e9:.3g} GB are free "
            f"there: make room, or choose another --data-dir"
        )


def _kept(shard: Shard, work: Path) -> Finished | None:
    """Return what is in a shard of an earlier run, None where it must be written."""
    note = read_note(shard, work)
    if note is None:
        return None
    noted_at = shard.note(work).stat().st_mtime_ns
    # A member of an archive has the path of that.
    sources = (getattr(e.path, "path", e.path) for e in shard.examples)
    paths = {source for source in sources if isinstance(source, Path)}
    if any(_changed_at(path) > noted_at for path in paths):
        return None
    examples = {str(example.path): example for example in shard.examples}
    for file, reason in note.refused.items():
        # It may be readable by now, or the source may have been moved.
        data = _read(examples[file]) if file in examples else b""
        if isinstance(data, bytes) or str(data) != reason:
            return None
    return note


def _changed_at(path: Path) -> int:
    # Not the time of modification: a copy may have that of its original.
    try:
        return path.stat().st_ctime_ns
    except OSError:
        return 0


def _write_shard(
    shard: Shard,
    report: Callable[[str | None], None],
    *,
    work: Path,
    features: tfds.features.FeaturesDict,
    skip_broken: bool,
    threads: int,
) -> Finished:
    """Write one shard, and note what is in it; report each image as `on_image` says."""
    part = work / f"{shard.file_name}.part"
    images = size = 0
    refused: dict[str, str] = {}
    try:
        with _writable(part):
            # One record a group: the files are read at random.
            writer = ArrayRecordWriter(os.fspath(part), "group_size:1")
        with contextlib.closing(_checked(shard.examples, threads)) as checked:
            for example, data in checked:
                if isinstance(data, ImageError):
                    if not skip_broken:
                        raise data
                    refused[str(example.path)] = str(data)
                    report(str(data))
                    continue
                record = _serialize(features, example, data)
                with _writable(part):
                    writer.write(record)
                images += 1
                size += len(data)
                report(None)
        with _writable(part):
            writer.close()
        # A full disk does not always make the writer fail.
        if count_records(part) != images:
            raise UserError(f"{part} was not written in full: is the disk full?")
        finished = _finish(part, shard.content(work), images, size, refused)
        note_finished(shard, work, finished)
        return finished
    finally:
        part.unlink(missing_ok=True)


@contextlib.contextmanager
def _writable(path: Path) -> Iterator[None]:
    """Turn what the writer of records raises into an error that names the file."""
    try:
        yield
    except RuntimeError as error:
        reason = str(error).partition(";")[0]
        raise UserError(
            f"{path} was not written in full ({reason}): is the disk full?"
        ) from error


def _finish(
    part: Path, path: Path, images: int, size: int, refused: dict[str, str]
) -> Finished:
    """Give a shard that is whole its name, and return what is in it."""
    sync(part)
    sha256 = file_sha256(part)
    file_size = part.stat().st_size
    part.replace(path)
    sync(path.parent)
    return Finished(images, size, file_size, sha256, refused)


def _serialize(
    features: tfds.features.FeaturesDict, example: Example, data: bytes
) -> bytes:
    record = features.serialize_example(
        {
            "image": io.BytesIO(data),
            "filename": example.key,
            "label": example.label,
            **example.extra,
        }
    )
    # The features come in an order that changes from process to process.
    parsed = tf_example_pb2.Example.FromString(record)
    return parsed.SerializeToString(deterministic=True)


def _checked(
    examples: Sequence[Example], threads: int
) -> Iterator[tuple[Example, bytes | ImageError]]:
    """Yield each example with its encoded bytes, or with what is wrong with them."""
    pool = concurrent.futures.ThreadPoolExecutor(threads)
    ahead: collections.deque = collections.deque()
    try:
        for example in examples:
            ahead.append((example, pool.submit(_read, example)))
            if len(ahead) > 4 * threads:
                first, future = ahead.popleft()
                yield first, future.result()
        for first, future in ahead:
            yield first, future.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _read(example: Example) -> bytes | ImageError:
    try:
        data = example.path.read_bytes()
    except OSError as error:
        reason = error.strerror or error
        return ImageError(f"cannot read {example.path}: {reason}")
    try:
        decode_image(data, name=str(example.path))
    except ImageError as error:
        return error
    except MemoryError as error:
        raise UserError(
            f"memory does not suffice to decode {example.path}: use fewer --jobs"
        ) from error
    return data
