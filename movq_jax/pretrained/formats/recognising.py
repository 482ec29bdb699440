"""Which format a file of weights has, by its first bytes; or what it is instead."""

import os
from pathlib import Path

from movq_jax.errors import UserError

INDEX = ".safetensors.index.json"
KNOWN = "safetensors, what torch.save wrote (.bin, .pt, .pth, .ckpt) and flax's msgpack"
_LEGACY_TORCH = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
_COMPRESSED = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
    b"(\xb5/\xfd": "Zstandard",
    b"7z\xbc\xaf": "7z",
    b"Rar!": "RAR",
}
_OTHERS = {
    b"\x89HDF": "HDF5 (as Keras writes it)",
    b"\x93NUMPY": "one array of NumPy",
    b"GGUF": "GGUF",
    b"\x89PNG": "a PNG image",
    b"\xff\xd8\xff": "a JPEG image",
}


def recognise(path: Path) -> tuple[Path, str]:
    """The file to read and its format.

    Args:
      path: a file; or a folder with an index of sharded safetensors, which is then
        the file.

    Returns:
      (path, 'safetensors', 'index', 'torch' or 'msgpack')

    Raises:
      UserError: there is no such file, or it is something else; the message says what,
        and what to do.
    """
    if path.is_dir():
        return _index_in(path), "index"
    try:
        with path.open("rb") as file:
            start = file.read(512)
            size = file.seek(0, os.SEEK_END)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    if path.name.endswith(INDEX) and start.lstrip().startswith(b"{"):
        return path, "index"
    return path, _known(start) or _explain(path, start, size)


def _known(start: bytes) -> str | None:
    if start.startswith((b"PK\x03\x04", _LEGACY_TORCH)):
        return "torch"
    # The length of a header of less than 2 GiB in eight bytes, and the header's start.
    if start[8:9] == b"{" and start[4:8] == bytes(4):
        return "safetensors"
    return "msgpack" if _is_flax(start) else None


def _is_flax(start: bytes) -> bool:
    """Whether a dict of msgpack begins, whose first key is a text."""
    # Of 1 to 15 entries, or of more; one of none begins as a pickle does.
    marks = dict.fromkeys(range(0x81, 0x90), 1) | {0xDE: 3, 0xDF: 5}
    if not start or start[0] not in marks:
        return False
    key = start[marks[start[0]] :][:1]
    return b"\xa0" <= key <= b"\xbf" or key in (b"\xd9", b"\xda", b"\xdb")


def _index_in(folder: Path) -> Path:
    indices = sorted(p for p in folder.iterdir() if p.name.endswith(INDEX))
    if len(indices) == 1:
        return indices[0]
    names = sorted(p.name for p in folder.iterdir() if p.is_file())
    listed = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
    raise UserError(
        f"{folder} is a folder, and a file of weights is wanted: name the one in it"
        + (f" ({listed})" if names else ", though it holds no files")
    )


def _explain(path: Path, start: bytes, size: int) -> str:
    """Raises the UserError; of the type that `recognise` needs."""
    text = start.removeprefix(b"\xef\xbb\xbf").lstrip()
    if size == 0:
        raise UserError(f"{path} is empty: get it again")
    if text.startswith(b"<"):
        raise UserError(f"{path} is a web page, not a checkpoint: download it again")
    if text.startswith(b"version https://git-lfs"):
        raise UserError(
            f"{path} is not the weights but git-lfs's pointer to them: get them with "
            "'git lfs pull', or download the file itself"
        )
    if text.startswith((b"{", b"[")):
        raise UserError(
            f"{path} is a text (JSON), not a checkpoint: it begins {_shown(text)}"
        )
    for magic, name in _COMPRESSED.items():
        if start.startswith(magic):
            raise UserError(f"{path} is compressed ({name}): unpack it first")
    if start[257:262] == b"ustar":
        raise UserError(f"{path} is a tar archive: unpack it first")
    for magic, name in _OTHERS.items():
        if start.startswith(magic):
            raise UserError(f"{path} is {name}, which is not read; known are {KNOWN}")
    if start[:1] == b"\x80" and len(start) > 1 and start[1] in range(2, 6):
        raise UserError(
            f"{path} is a bare pickle, which would run code when it is loaded: save "
            "the state dict with torch.save, or as safetensors"
        )
    raise UserError(
        f"{path} is no checkpoint that is known: it begins {_shown(start)}, and known "
        f"are {KNOWN}"
    )


def _shown(data: bytes) -> str:
    return repr(data[:16]).removeprefix("b")
