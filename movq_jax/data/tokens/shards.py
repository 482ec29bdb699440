"""The shards of a token cache as they come into being, in one process or in many.

A shard is written beside its place, moved into it when it is whole, and vouched for by
a small JSON file that comes after it: {plan, file, records, bytes, sha256, refused}. So
a shard counts only if that file is there, names the plan's digest, and the shard has
the bytes and records it tells. A process that is killed leaves at most a file that ends
in `.part`; the next one makes the shard anew, with the same bytes.

Several processes write different shards into one folder and need not know of one
another. Whoever finds all shards finished writes the manifest: it follows from the
plan and those JSON files alone.
"""

import contextlib
import dataclasses
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from array_record.python.array_record_module import ArrayRecordWriter

from movq_jax.atomic import is_left_over, own_name, write_text
from movq_jax.data.checksums import file_sha256
from movq_jax.data.sources import count_records
from movq_jax.data.tokens.manifest import (
    MANIFEST,
    Manifest,
    Refused,
    Shard,
    parse_refused,
    parse_shard,
)
from movq_jax.data.tokens.plan import PLAN, Plan, difference, read_plan
from movq_jax.errors import UserError

# Records are read one by one and at random, and indices hardly shrink.
_OPTIONS = "group_size:1,uncompressed"


def find_plan(folder: Path) -> Plan | None:
    """Return the plan of the cache in a folder, None where there is none.

    Raises:
        UserError: the folder is a file, or the plan cannot be read.
    """
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file: name a folder for the token cache")
    for path in (folder / PLAN, folder / MANIFEST):
        if path.exists():
            return read_plan(path)
    return None


def check_plan(folder: Path, plan: Plan) -> None:
    """See that the cache in a folder, where there is one, is that of `plan`.

    Raises:
        UserError: it is another one, or something else lies there.
    """
    found = find_plan(folder)
    if found is not None:
        other = difference(plan, found)
        if other:
            raise UserError(
                f"{folder} holds another token cache: {other}; choose another --out, "
                f"or delete that folder"
            )
    elif folder.exists():
        _check_only_ours(folder, plan)


def begin(folder: Path, plan: Plan) -> list[int]:
    """Write down the plan, and return the shards that are not finished.

    Raises:
        UserError: as `check_plan`, or the folder cannot be written.
    """
    check_plan(folder, plan)
    missing = missing_shards(folder, plan)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if missing:
            # It says that all shards are there.
            (folder / MANIFEST).unlink(missing_ok=True)
        if not (folder / PLAN).exists():
            _write_new(folder / PLAN, plan.to_json())
    except OSError as error:
        raise _cannot_write(folder, error) from error
    check_plan(folder, plan)  # another process may have been faster
    return missing


def missing_shards(folder: Path, plan: Plan) -> list[int]:
    """Return the numbers of the shards that are not finished."""
    shards = range(plan.num_shards)
    return [shard for shard in shards if _finished(folder, plan, shard) is None]


def write_shard(
    folder: Path, plan: Plan, shard: int, records: Iterable[bytes | Refused]
) -> None:
    """Write a shard and vouch for it.

    Args:
        folder: of the cache, where `begin` was called.
        plan: of the cache.
        shard: its number.
        records: what `plan.pack` returned, or what stands for an image without one.

    Raises:
        UserError: it cannot be written in full.
    """
    path = folder / plan.shard_file(shard)
    vouching = _vouching(path)
    refused: list[Refused] = []

    def wanted() -> Iterator[bytes]:
        for record in records:
            if isinstance(record, Refused):
                refused.append(record)
            else:
                yield record

    with _part_of(path) as part:
        count = _write_records(part, wanted())
        found = Shard(path.name, count, part.stat().st_size, file_sha256(part))
        # Not even for a moment may the old one vouch for the new file.
        vouching.unlink(missing_ok=True)
        part.replace(path)
    content = {
        "plan": plan.digest,
        **dataclasses.asdict(found),
        "refused": [dataclasses.asdict(image) for image in refused],
    }
    write_text(vouching, json.dumps(content, indent=2) + "\n")


def complete(folder: Path, plan: Plan) -> Manifest | None:
    """Write the manifest if all shards are finished; return it, or None.

    Raises:
        UserError: it cannot be written, or no image could be used.
    """
    found = [_finished(folder, plan, shard) for shard in range(plan.num_shards)]
    if None in found:
        return None
    shards, refused = zip(*found, strict=True)
    manifest = Manifest(
        plan, shards, tuple(image for some in refused for image in some)
    )
    if not manifest.count:
        raise UserError(
            f"no image of {plan.dataset} {plan.split} can be used, so {folder} is no "
            f"token cache: delete it"
        )
    path, text = folder / MANIFEST, manifest.to_json()
    if not _has(path, text):
        try:
            write_text(path, text)
        except UserError:
            # Another process may have cleared away what this one was to move there.
            if not _has(path, text):
                raise
    _clear_left_overs(folder)
    return manifest


def is_whole(path: Path, shard: Shard) -> bool:
    """Whether a file has the bytes and the records that it should have."""
    if not path.is_file() or path.stat().st_size != shard.bytes:
        return False
    return not shard.records or count_records(path) == shard.records


def _finished(
    folder: Path, plan: Plan, number: int
) -> tuple[Shard, tuple[Refused, ...]] | None:
    """Return what is vouched for of a shard, None where it is not whole."""
    path = folder / plan.shard_file(number)
    try:
        content = json.loads(_vouching(path).read_text(encoding="utf-8"))
        shard = parse_shard(path.name, content, path.name)
        refused = parse_refused(content)
        start, stop = plan.bounds(number)
        fits = (
            content.get("plan") == plan.digest
            and shard.records + len(refused) == stop - start
            and is_whole(path, shard)
        )
    except (OSError, ValueError, RecursionError, UserError):
        return None
    return (shard, refused) if fits else None


def _vouching(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def _has(path: Path, text: str) -> bool:
    return path.is_file() and path.read_bytes() == text.encode()


def _clear_left_overs(folder: Path) -> None:
    """Remove what killed processes left; others may still write the same shards."""
    with contextlib.suppress(OSError):
        for path in folder.iterdir():
            if path.suffix in (".part", ".tmp") and is_left_over(path):
                path.unlink(missing_ok=True)


def _check_only_ours(folder: Path, plan: Plan) -> None:
    """Refuse a folder with other files than those of a cache without its plan."""
    shards = [folder / plan.shard_file(shard) for shard in range(plan.num_shards)]
    ours = {*shards, *map(_vouching, shards)}
    try:
        others = [
            path
            for path in folder.iterdir()
            if not path.name.startswith(".")
            and path.suffix != ".part"
            and path not in ours
        ]
    except OSError as error:
        raise _cannot_write(folder, error) from error
    if others:
        raise UserError(
            f"{folder} holds {min(others).name} and no token cache: name another folder"
        )


@contextlib.contextmanager
def _part_of(path: Path) -> Iterator[Path]:
    """Yield a name beside `path` that no other process uses; nothing stays there."""
    part = path.with_name(f"{path.name}.{own_name()}.part")
    try:
        yield part
    except OSError as error:
        raise _cannot_write(path, error) from error
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


def _write_records(path: Path, records: Iterable[bytes]) -> int:
    """Write an ArrayRecord file to its last byte, and return how many it holds."""
    count = 0
    with _errors_of_writer(path):
        writer = ArrayRecordWriter(os.fspath(path), _OPTIONS)
    try:
        for record in records:
            with _errors_of_writer(path):
                writer.write(record)
            count += 1
    except BaseException:
        with contextlib.suppress(RuntimeError):
            writer.close()
        raise
    with _errors_of_writer(path):
        writer.close()
    # A full disk does not always make the writer fail.
    if count and count_records(path) != count:
        raise UserError(f"{path} was not written in full: is the disk full?")
    with path.open("rb") as file:
        os.fsync(file.fileno())
    return count


@contextlib.contextmanager
def _errors_of_writer(path: Path) -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:  # also for a full disk
        raise UserError(f"cannot write {path}: {error}") from error


def _write_new(path: Path, text: str) -> None:
    """Write a file that is not there yet; leave the one that another process wrote."""
    temporary = path.with_name(f".{own_name()}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        try:
            os.link(temporary, path)
        except FileExistsError:
            return
        except OSError:  # a file system without links
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _cannot_write(path: Path, error: OSError) -> UserError:
    return UserError(f"cannot write {path}: {error.strerror or error}")
