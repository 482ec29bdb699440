"""Published lists of which images a paper held out for validation.

They are not part of this package. Each is fetched once into the folder of published
weights (`$MOVQ_JAX_WEIGHTS`, else `~/.cache/movq_jax/weights`), or given as a file, in
which a line ends in a number or in a file's name that does: `69000/69999.png`. Either
must hold the numbers that were published.
"""

import hashlib
import http.client
import re
import urllib.error
import urllib.request
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from movq_jax import atomic
from movq_jax.errors import UserError
from movq_jax.pretrained import weights
from movq_jax.pretrained.fetching import TIMEOUT

_MOST_BYTES = 2**22
_TAMING = "https://raw.githubusercontent.com/CompVis/taming-transformers/master/data"


class SplitList(NamedTuple):
    """A published list of numbers."""

    what: str
    url: str
    count: int
    sha256: str  # of the numbers in rising order, each with a line feed

    @property
    def file_name(self) -> str:
        """What it is called."""
        return self.url.rpartition("/")[2]


FFHQ_TAMING = SplitList(
    what="the 10,000 images of FFHQ that the VQ papers validate on",
    url=f"{_TAMING}/ffhqvalidation.txt",
    count=10_000,
    sha256="5df3d17983e70159e681ba1204b52b05767cbf2f628f50932371a8afa042a743",
)
CELEBAHQ_TAMING = SplitList(
    what="the 5,000 images of CelebA-HQ that the VQ papers validate on",
    url=f"{_TAMING}/celebahqvalidation.txt",
    count=5_000,
    sha256="68e0d4e44e5997546d7d1d263b94215d9af2d59e572b195ee055fb636713877a",
)


def read_split_list(split_list: SplitList, path: str | None = None) -> frozenset[int]:
    """Return the numbers of a published list.

    Args:
        split_list: which one.
        path: of a file that holds it; None: of the fetched one, which is fetched now
            if it is not there.

    Raises:
        UserError: the file is not there, is no such list, or holds other numbers than
            the published one; or it cannot be fetched.
    """
    if path is not None:
        return _read(split_list, Path(path).expanduser(), "give the published list")
    place = weights.weights_folder() / split_list.file_name
    if not place.exists():
        _fetch(split_list, place)
    return _read(split_list, place, "delete it, and it is fetched again")


def _read(split_list: SplitList, path: Path, remedy: str) -> frozenset[int]:
    try:
        text = path.read_bytes()
    except OSError as error:
        raise UserError(
            f"cannot read the split list {path}: {error.strerror or error}"
        ) from error
    try:
        return _parse(split_list, text)
    except ValueError as error:
        raise UserError(
            f"{path} is not {split_list.file_name} of {split_list.url}, "
            f"{split_list.what}: {error}; {remedy}"
        ) from error


def _parse(split_list: SplitList, text: bytes) -> frozenset[int]:
    """Return the numbers, ValueError where they are not the published ones."""
    lines = [line.strip() for line in text.decode().splitlines()]
    numbers = [_number(line) for line in lines if line and not line.startswith("#")]
    if len(numbers) != split_list.count:
        raise ValueError(f"it has {len(numbers):,} lines, not {split_list.count:,}")
    content = "".join(f"{number}\n" for number in sorted(numbers))
    digest = hashlib.sha256(content.encode()).hexdigest()
    if digest != split_list.sha256:
        raise ValueError(
            f"the SHA-256 of its sorted numbers is {digest}, not {split_list.sha256}"
        )
    return frozenset(numbers)


def _number(line: str) -> int:
    digits = re.findall(r"[0-9]+", PurePosixPath(line).stem)
    if not digits:
        raise ValueError(f"there is no number in the line {line[:40]!r}")
    return int(digits[-1])


def _fetch(split_list: SplitList, place: Path) -> None:
    try:
        with urllib.request.urlopen(split_list.url, timeout=TIMEOUT) as response:
            text = response.read(_MOST_BYTES)
        _parse(split_list, text)
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = str(error) or type(error).__name__
        if isinstance(error, urllib.error.HTTPError):
            error.close()
        elif isinstance(error, urllib.error.URLError):
            reason = str(error.reason)
        raise UserError(
            f"cannot fetch {split_list.url}, {split_list.what}: {reason}; get that "
            f"file on another machine, and give it as --split-list=FILE or put it "
            f"into ${weights.VARIABLE}, else {weights.DEFAULT_FOLDER}"
        ) from error
    with atomic.replacing(place) as temporary:
        Path(temporary).write_bytes(text)
