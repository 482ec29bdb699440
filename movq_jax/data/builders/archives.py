"""Files of a dataset with an official layout, unpacked or in archives as downloaded.

Nothing is extracted: a member of a zip, of a tar, or of a tar inside a tar is read
where it is. A builder asks for `train2017/`, which is the folder of that name or,
where there is none (or an empty one), what lies below that name in `train2017.zip`.
"""

import contextlib
import dataclasses
import functools
import os
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from movq_jax.errors import UserError

_UNREAD_END = 2**20  # an archive may be padded with so many zeros
_ENCRYPTED = 1  # a bit of a zip's flags
_LOCAL_HEADER = 30  # bytes before the name that stands in front of a zip's member


class Member(Protocol):
    """An encoded image that is no file of its own; `str` of it names it for people.

    It can be pickled, and several threads and processes may read at once.
    """

    @property
    def size(self) -> int:
        """How many bytes it has."""

    def read_bytes(self) -> bytes:
        """Return its content; OSError where it cannot be read."""


File = Path | Member


@dataclasses.dataclass(frozen=True, slots=True)
class TarMember:
    """A file inside a tar.

    Attributes:
        path: of the tar on disk.
        offset: where in it the content begins.
        size: how many bytes the content has.
        name: its own name, behind that of the inner tar where there is one.
    """

    path: Path
    offset: int
    size: int
    name: str

    def __str__(self) -> str:
        return f"{self.path}/{self.name}"

    def read_bytes(self) -> bytes:
        """Return its content.

        Raises:
            OSError: the tar cannot be read, or is shorter than it was.
        """
        return _read_at(self.path, self.offset, self.size)


@dataclasses.dataclass(frozen=True, slots=True)
class ZipMember:
    """A file inside a zip.

    Attributes:
        path: of the zip.
        header: where in it the member begins.
        size: how many bytes it has, unpacked.
        packed_size: how many bytes of the zip it takes.
        method: how it is packed, by `zipfile`'s number.
        crc: checksum of the content.
        name: its own name.
    """

    path: Path
    header: int
    size: int
    packed_size: int
    method: int
    crc: int
    name: str

    def __str__(self) -> str:
        return f"{self.path}/{self.name}"

    def read_bytes(self) -> bytes:
        """Return its content.

        Not by Python's `zipfile`: each process would read the whole list of members
        again, and its threads wait for each other.

        Raises:
            OSError: it is damaged (the checksum is compared), encrypted, or packed in
                another way than downloads are.
        """
        if self.method not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise OSError("it is encrypted, or not packed by deflate: unpack the zip")
        header = _read_at(self.path, self.header, _LOCAL_HEADER)
        if not header.startswith(b"PK\3\4"):
            raise OSError("the zip is damaged: there is no member where one should be")
        names = sum(int.from_bytes(header[i : i + 2], "little") for i in (26, 28))
        start = self.header + _LOCAL_HEADER + names
        data = _read_at(self.path, start, self.packed_size)
        if self.method == zipfile.ZIP_DEFLATED:
            try:
                unpack = zlib.decompressobj(-zlib.MAX_WBITS)
                data = unpack.decompress(data, self.size + 1)  # 0 would be no limit
            except zlib.error as error:
                raise OSError(f"the zip is damaged: {error}") from error
        if len(data) != self.size or zlib.crc32(data) != self.crc:
            raise OSError("the zip is damaged: the checksum differs")
        return data


def _read_at(path: Path, offset: int, size: int) -> bytes:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        parts = []
        while size:
            # Reads without a position that threads or processes would share.
            part = os.pread(descriptor, min(size, 2**30), offset)
            if not part:
                raise OSError("the archive is cut off")
            parts.append(part)
            offset += len(part)
            size -= len(part)
    finally:
        os.close(descriptor)
    return b"".join(parts)


def list_zip(path: Path) -> dict[str, ZipMember]:
    """Return name -> file of a zip, without folders and hidden files.

    Raises:
        UserError: the zip cannot be read, or is not whole.
    """
    try:
        status = path.stat()
        return dict(_zip_members(path, status.st_size, status.st_mtime_ns))
    except (zipfile.BadZipFile, NotImplementedError, ValueError) as error:
        raise UserError(
            f"{path} is not a whole zip file ({error}): download it again"
        ) from error
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error


@functools.lru_cache(maxsize=2)
def _zip_members(path: Path, size: int, changed: int) -> dict[str, ZipMember]:
    """Read the list of members once, though each split asks for it."""
    with zipfile.ZipFile(path) as archive:
        infos = archive.infolist()
    return {
        info.filename: ZipMember(
            path=path,
            header=info.header_offset,
            size=info.file_size,
            packed_size=info.compress_size,
            # No method has this number.
            method=-1 if info.flag_bits & _ENCRYPTED else info.compress_type,
            crc=info.CRC,
            name=info.filename,
        )
        for info in infos
        # Not `is_dir`, which fails for a member without a name.
        if info.filename[-1:] not in ("", "/") and not _is_hidden(info.filename)
    }


def list_tar(tar: Path | TarMember) -> dict[str, TarMember]:
    """Return name -> file of a tar, which may itself lie in a tar.

    Raises:
        UserError: the tar cannot be read, is compressed, or is not whole.
    """
    try:
        if isinstance(tar, TarMember):
            path, start, end = tar.path, tar.offset, tar.offset + tar.size
            prefix = f"{tar.name}/"
        else:
            path, start, end, prefix = tar, 0, tar.stat().st_size, ""
        with path.open("rb") as file:
            file.seek(start)
            return {
                name: TarMember(path, info.offset_data, info.size, prefix + name)
                for info in _tar_infos(file, end)
                if info.isreg() and not _is_hidden(name := info.name.removeprefix("./"))
            }
    # tarfile raises some of the others on headers that are none.
    except (tarfile.TarError, ValueError, OverflowError, EOFError) as error:
        raise UserError(
            f"{tar} is not a whole tar file ({error}): download it again"
        ) from error
    except OSError as error:
        raise UserError(f"cannot read {tar}: {error.strerror or error}") from error


def _tar_infos(file, end: int) -> Iterator[tarfile.TarInfo]:
    """Yield what a tar names that begins at the file's position and is over at `end`.

    `tarfile` by itself takes a damaged header in the middle for the end.
    """
    with tarfile.TarFile(fileobj=file) as tar:
        while (info := tar.next()) is not None:
            if info.offset_data + info.size > end:
                raise tarfile.ReadError("unexpected end of data")
            yield info
            if tar.offset >= end:
                return
        file.seek(tar.offset)
        rest = file.read(min(end - tar.offset, _UNREAD_END + 1))
        if len(rest) > _UNREAD_END or rest.strip(b"\0"):
            raise tarfile.ReadError(f"it ends at byte {tar.offset:,} of {end:,}")


def list_files(root: Path, folder: str, archive: str) -> dict[str, File]:
    """Return the files of `root/folder`, else those below `folder/` in `root/archive`.

    Args:
        root: where the user put the dataset.
        folder: what is asked for, `/` between its parts.
        archive: name of the zip that has this folder in it.

    Returns:
        Name relative to `folder` -> file, hidden files left out; empty where neither
        the folder nor the zip is there.

    Raises:
        UserError: the folder or the zip cannot be read, or the zip is not whole.
    """
    files = files_below(root / folder)
    if files or not is_file(root / archive):
        return files
    prefix = f"{folder}/"
    members = list_zip(root / archive)
    found = {
        name.removeprefix(prefix): member
        for name, member in members.items()
        if name.startswith(prefix)
    }
    if not found and members and not any("/" in name for name in members):
        # Packed anew, without the folder.
        return dict(members)
    return found


def files_below(folder: Path) -> dict[str, File]:
    """Return name relative to `folder` -> file; empty where there is no such folder.

    Raises:
        UserError: it cannot be read.
    """
    return {path.relative_to(folder).as_posix(): path for path in walk(folder)}


def find_file(root: Path, name: str, archive: str) -> File | None:
    """Return the file `root/name`, else the member `name` of `root/archive`, or None.

    Raises:
        UserError: the zip cannot be read, or is not whole.
    """
    if is_file(root / name):
        return root / name
    if not is_file(root / archive):
        return None
    return list_zip(root / archive).get(name)


def is_file(path: Path) -> bool:
    """Whether there is such a file.

    Raises:
        UserError: its folder cannot be read.
    """
    with _readable(path):
        return path.is_file()


def is_folder(path: Path) -> bool:
    """Whether there is such a folder.

    Raises:
        UserError: the folder that it would lie in cannot be read.
    """
    with _readable(path):
        return path.is_dir()


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error


def source_folder(source: str | None, dataset: str, how_to_get: str) -> Path:
    """Return the folder that `--source` names.

    Args:
        source: what the user gave.
        dataset: what is prepared from it.
        how_to_get: what belongs into the folder, and where it comes from.

    Raises:
        UserError: nothing was given, or no folder that can be read.
    """
    if source is None:
        raise UserError(
            f"--dataset={dataset} needs --source=DIR, a folder: {how_to_get}"
        )
    root = Path(source).expanduser()
    try:
        os.scandir(root).close()
        os.stat(root / ".")  # its files, too, can be looked at
        return root
    except FileNotFoundError:
        problem = f"does not exist: {how_to_get}"
    except NotADirectoryError:
        problem = f"is a file, not a folder: {how_to_get}"
    except OSError as error:
        problem = f"cannot be read: {error.strerror or error}"
    raise UserError(f"--source={source} {problem}")


def walk(root: Path) -> Iterator[Path]:
    """Yield the files under `root` that are not hidden, through links too.

    Nothing where there is no such folder.

    Raises:
        UserError: a folder cannot be read.
    """
    seen = set()
    for folder, folders, names in os.walk(root, onerror=_refuse, followlinks=True):
        # A link to a folder above would otherwise be followed without end.
        seen.add(os.path.realpath(folder))
        folders[:] = sorted(
            name
            for name in folders
            if not name.startswith(".")
            and os.path.realpath(os.path.join(folder, name)) not in seen
        )
        yield from (Path(folder, n) for n in sorted(names) if not n.startswith("."))


def _refuse(error: OSError) -> None:
    # Python's default is to pass over it, as if the folder were empty.
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        raise UserError(
            f"cannot read the folder {error.filename}: {error.strerror or error}"
        ) from error


def _is_hidden(name: str) -> bool:
    parts = name.split("/")
    # A Mac adds the first to what it packs.
    return parts[0] == "__MACOSX" or any(part.startswith(".") for part in parts)
