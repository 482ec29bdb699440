"""Files of a dataset with an official layout, unpacked or in the zips as downloaded.

Nothing is extracted: a member of a zip is read where it is. A builder asks for
`train2017/`, which is the folder of that name or, where there is none (or an empty
one), what lies below that name in `train2017.zip`.
"""

import os
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

from movq_jax.errors import UserError


class ZipMember:
    """A file inside a zip; of a `Path` it has what reading needs.

    Several threads may read members of one zip at once.
    """

    def __init__(self, archive: "_Zip", info: zipfile.ZipInfo):
        """Refer to the member `info`; nothing is read yet."""
        self._archive, self._info = archive, info

    def __str__(self) -> str:
        return f"{self._archive.path}/{self._info.filename}"

    @property
    def size(self) -> int:
        """How many bytes it has, unpacked."""
        return self._info.file_size

    def read_bytes(self) -> bytes:
        """Return its content.

        Raises:
            OSError: it is damaged (the checksum is compared), encrypted, or packed in
                a way that Python does not know.
        """
        return self._archive.read(self._info)


File = Path | ZipMember


class _Zip:
    """An open zip file, which its members share."""

    def __init__(self, path: Path):
        self.path = path
        # Python's reader counts what is open without a lock of its own.
        self._lock = threading.Lock()
        try:
            self._file = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, NotImplementedError, ValueError) as error:
            raise UserError(
                f"{path} is not a whole zip file ({error}): download it again"
            ) from error
        except OSError as error:
            raise UserError(f"cannot read {path}: {error.strerror or error}") from error

    def members(self) -> Iterator[zipfile.ZipInfo]:
        """Yield the files in it, without the folders."""
        return (info for info in self._file.infolist() if not info.is_dir())

    def read(self, info: zipfile.ZipInfo) -> bytes:
        try:
            with self._lock:
                return self._file.read(info)
        except (OSError, MemoryError):
            raise
        # zlib.error, BadZipFile, EOFError, RuntimeError, struct.error, ...
        except Exception as error:
            raise OSError(str(error) or type(error).__name__) from error


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
        UserError: the zip cannot be read, or is not whole.
    """
    place = root / folder
    files: dict[str, File] = {
        path.relative_to(place).as_posix(): path for path in walk(place)
    }
    if files or not (root / archive).is_file():
        return files
    opened = _Zip(root / archive)
    prefix = f"{folder}/"
    return {
        name: ZipMember(opened, info)
        for info in opened.members()
        if (name := info.filename.removeprefix(prefix)) != info.filename
        and not any(part.startswith(".") for part in name.split("/"))
    }


def find_file(root: Path, name: str, archive: str) -> File | None:
    """Return the file `root/name`, else the member `name` of `root/archive`, or None.

    Raises:
        UserError: the zip cannot be read, or is not whole.
    """
    if (root / name).is_file():
        return root / name
    if not (root / archive).is_file():
        return None
    opened = _Zip(root / archive)
    found = (info for info in opened.members() if info.filename == name)
    return next((ZipMember(opened, info) for info in found), None)


def walk(root: Path) -> Iterator[Path]:
    """Yield the files under `root` that are not hidden, through links too."""
    seen = set()
    for folder, folders, names in os.walk(root, followlinks=True):
        # A link to a folder above would otherwise be followed without end.
        seen.add(os.path.realpath(folder))
        folders[:] = sorted(
            name
            for name in folders
            if not name.startswith(".")
            and os.path.realpath(os.path.join(folder, name)) not in seen
        )
        yield from (Path(folder, n) for n in sorted(names) if not n.startswith("."))
