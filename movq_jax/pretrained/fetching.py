"""A file from the net: there as a whole or not at all, with its SHA-256."""

import hashlib
import http.client
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from movq_jax import atomic
from movq_jax._version import __version__
from movq_jax.progress import Progress

TIMEOUT = 30.0  # seconds without a byte
CHUNK = 1 << 20


class NotFetched(Exception):
    """Why a file did not come: a part of a sentence, for the caller's message."""


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, 64 hex digits. Raises OSError where it cannot be read."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def fetch(url: str, path: Path, *, size: int = 0, sha256: str = "") -> str:
    """Fetches a file, which gets its name when all of it is there and checked.

    Args:
      url: of the file.
      path: where to; its folder is made.
      size: in bytes; 0 where it was not published: what the server says holds then.
      sha256: empty where it was not published.

    Returns:
      its SHA-256.

    Raises:
      NotFetched: nothing came, or something else.
      UserError: the place cannot be written.
    """
    digest = hashlib.sha256()
    with atomic.replacing(path) as temporary, Path(temporary).open("wb") as target:
        for chunk in _download(url, path, size):
            target.write(chunk)
            digest.update(chunk)
        if sha256 not in ("", digest.hexdigest()):
            raise NotFetched(f"what came has the SHA-256 {digest.hexdigest()}")
    return digest.hexdigest()


def _download(url: str, path: Path, size: int) -> Iterator[bytes]:
    """The bytes of the file, and not more of them than it has."""
    request = urllib.request.Request(
        url, headers={"User-Agent": f"movq_jax/{__version__}"}
    )
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
            if response.headers.get_content_type() == "text/html":
                raise NotFetched("what came is a web page")
            size = size or int(response.headers.get("Content-Length") or 0)
            with Progress(size, "bytes") as progress:
                told = f"{size:,} bytes" if size else "of unknown size"
                progress.note(f"fetching {url} ({told}) into {path.parent}")
                for chunk in _all_of(response, size):
                    if size:
                        progress.advance(len(chunk))
                    yield chunk
    except (OSError, http.client.HTTPException) as error:
        reason = str(error) or type(error).__name__
        if isinstance(error, urllib.error.HTTPError):
            error.close()
        elif isinstance(error, urllib.error.URLError):
            reason = str(error.reason)
        raise NotFetched(reason) from error


def _all_of(response: http.client.HTTPResponse, size: int) -> Iterator[bytes]:
    done = 0
    while chunk := response.read(min(CHUNK, size - done + 1) if size else CHUNK):
        done += len(chunk)
        if size and done > size:
            raise NotFetched(f"what came has more than its {size} bytes")
        yield chunk
    if done < size:
        raise NotFetched(f"what came has fewer than its {size} bytes")
