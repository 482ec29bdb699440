"""Which files a command reads, and how its pictures are called and written."""

import dataclasses
import glob
import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

import numpy as np
from jaxtyping import UInt8
from PIL import Image, PngImagePlugin

from movq_jax.atomic import check_writable, replacing
from movq_jax.data.images import IMAGE_SUFFIXES
from movq_jax.errors import UserError

SOFTWARE = "movq_jax"  # the mark in the PNG files of this program


@dataclasses.dataclass(frozen=True)
class InputFile:
    """A file to read, and what its result is called.

    `name` is relative, has no suffix, uses forward slashes and is unique among the
    files of one command, also where upper and lower case are the same.
    """

    path: Path
    name: str


def write_png(path: Path, image: UInt8[np.ndarray, "h w 3"]) -> None:
    """Write uint8 [H, W, 3] as a PNG, marked as made by this program."""
    marks = PngImagePlugin.PngInfo()
    marks.add_text("Software", SOFTWARE)
    with replacing(path) as temporary, temporary.open("wb") as file:
        Image.fromarray(image).save(file, format="PNG", pnginfo=marks)


def find_files(inputs: Sequence[str], *, output: Path) -> list[InputFile]:
    """Return the files that `inputs` name, in a fixed order, each of them once.

    Of a folder those are passed over, and counted on stderr, whose suffix is not that
    of an image; a file without a suffix, or named by itself, is not.

    Args:
        inputs: files, folders (with their sub-folders, without hidden files) and
            patterns such as `photos/*.jpg`.
        output: where the command writes. When it lies inside a folder of `inputs`
            it is left out, so that a second run does not read the results of the
            first.

    Raises:
        UserError: a path does not exist, there is no file to read, or `output` is
            itself one of the inputs.
    """
    output = output.resolve()
    found: dict[Path, PurePosixPath] = {}
    others: set[Path] = set()
    for root in (path for text in inputs for path in _expand(text)):
        if root.resolve() == output:
            raise UserError(f"--output is the input {root}: choose another place")
        for path, relative in _walk(root, leave_out=output):
            if path == root or path.suffix.lower() in {"", *IMAGE_SUFFIXES}:
                found.setdefault(path, relative)
            else:
                others.add(path)
    others -= found.keys()
    skipped = _count(others) if others else ""
    if not found:
        rest = f", only {skipped}" if others else ""
        raise UserError(f"no files in {', '.join(inputs)}{rest}")
    if others:
        print(f"passed over: {skipped}", file=sys.stderr)
    names = _unique_names(list(found.values()))
    return [InputFile(path, name) for path, name in zip(found, names, strict=True)]


def _count(others: Iterable[Path]) -> str:
    kinds = sorted({path.suffix.lower() for path in others})
    number = len(set(others))
    files = "1 file that is no image" if number == 1 else f"{number} files, no images"
    return f"{files} by name ({', '.join(kinds)})"


def output_folder(text: str) -> Path:
    """Return the folder that `--output` names; it need not exist yet."""
    path = Path(text).expanduser()
    if path.exists() and not path.is_dir():
        raise UserError(f"--output={text} is a file: name a folder")
    return path


def refuse_overwriting(
    outputs: Iterable[Path], *, inputs: Sequence[InputFile] = ()
) -> None:
    """Let no PNG be written over an input, or over another's picture.

    Raises:
        UserError: a path of `outputs` is one of `inputs`, or a file that
            `write_png` did not write.
    """
    sources = {file.path.resolve() for file in inputs}
    for output in outputs:
        if output.resolve() in sources:
            raise UserError(
                f"{output} would overwrite an input: choose another --output"
            )
        # Of a pipe or a device nothing is read: that might never end.
        if output.exists() and not (output.is_file() and _is_ours(output)):
            raise UserError(
                f"{output} exists and is not a result of movq: choose another --output"
            )


def refuse_same_file(outputs: Mapping[str, Path], inputs: Iterable[Path]) -> None:
    """Let no result be written over an input, or over another result.

    Args:
        outputs: where results go, by their flags.
        inputs: what is read.

    Raises:
        UserError: two are one file.
    """
    flags: dict[object, str] = {}
    for flag, path in outputs.items():
        other = flags.setdefault(_identity(path), flag)
        if other != flag:
            raise UserError(f"{flag} and {other} are one file, {path}: name two")
    there = {_identity(path): flag for flag, path in outputs.items() if path.exists()}
    if not there:
        return  # what is not there yet is no input
    for path in inputs:
        flag = there.get(_identity(path))
        if flag is not None:
            raise UserError(f"{flag} would overwrite the input {path}: name another")


def _identity(path: Path) -> object:
    """What is the same of two names of one file."""
    try:
        found = path.stat()
    except OSError:
        return path.resolve()
    return found.st_dev, found.st_ino


def check_places(outputs: Iterable[Path]) -> None:
    """Find out, before long work, whether files could be written there.

    Raises:
      UserError: one of the folders cannot be written to.
    """
    for path in {output.parent: output for output in outputs}.values():
        check_writable(path)


def _is_ours(path: Path) -> bool:
    try:
        with Image.open(path) as image:
            return image.info.get("Software") == SOFTWARE
    except (OSError, ValueError, SyntaxError):  # how Pillow says "no image of mine"
        return False


def _expand(text: str) -> list[Path]:
    """Return the paths that one argument means."""
    path = Path(text).expanduser()
    if path.exists():
        return [path]
    if glob.has_magic(text):
        matches = sorted(glob.glob(str(path), recursive=True))
        if matches:
            return [Path(match) for match in matches]
        raise UserError(f"no file matches {text}")
    raise UserError(f"{text} does not exist")


def _walk(root: Path, leave_out: Path) -> Iterator[tuple[Path, PurePosixPath]]:
    """Yield the files under `root`, sorted, with their names relative to it."""
    if not root.is_dir():
        yield root, PurePosixPath(root.name)
        return
    for folder, folders, names in os.walk(root):
        here = Path(folder)
        for name in folders:
            # A link may lead back to where it lies.
            if not name.startswith(".") and (here / name).is_symlink():
                print(
                    f"passed over: {here / name} is a link to a folder; name it itself "
                    "to read it",
                    file=sys.stderr,
                )
        # In place: this is how os.walk is told where not to go.
        folders[:] = sorted(
            name
            for name in folders
            if not name.startswith(".") and (here / name).resolve() != leave_out
        )
        for name in sorted(names):
            path = here / name
            if not name.startswith(".") and path.resolve() != leave_out:
                yield path, PurePosixPath(path.relative_to(root).as_posix())


def _unique_names(paths: Sequence[PurePosixPath]) -> list[str]:
    """Return a name without suffix for each path, no two alike.

    `a.jpg` is called `a`; beside an `a.png` the two are called `a.jpg` and `a.png`;
    what still is alike (two folders with an `a.jpg` each) gets `-2`, `-3`, ...
    """
    short = Counter(str(path.with_suffix("")).casefold() for path in paths)
    names, taken = [], set()
    for path in paths:
        stem = str(path.with_suffix(""))
        base = stem if short[stem.casefold()] == 1 else str(path)
        name, count = base, 1
        while name.casefold() in taken:
            count += 1
            name = f"{base}-{count}"
        taken.add(name.casefold())
        names.append(name)
    return names
