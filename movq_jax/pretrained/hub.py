"""Model bundles on the Hugging Face Hub: a repository is a bundle's folder.

Needs the package huggingface_hub: pip install 'movq_jax[hub]'. Who one is and where the
Hub lies is that package's matter: `hf auth login`, or $HF_TOKEN and $HF_ENDPOINT.
"""

import contextlib
import importlib
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from etils import epath

from movq_jax import atomic
from movq_jax.errors import UserError
from movq_jax.pretrained.bundle import (
    CONFIG_FILE,
    WEIGHTS_FILE,
    Bundle,
    find_bundle,
    flatten,
    read_bundle,
)
from movq_jax.pretrained.model_card import CARD_FILE, model_card
from movq_jax.pretrained.places import HUB
from movq_jax.pretrained.prior_bundle import TOKENIZER_FOLDER, read_prior_bundle

_FILES = (CARD_FILE, CONFIG_FILE, WEIGHTS_FILE)
_ALL_FILES = [*_FILES, *(f"{TOKENIZER_FOLDER}/{name}" for name in _FILES)]
_REPO = r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*"


class Uploaded(NamedTuple):
    """What `upload` did."""

    fingerprint: str
    url: str  # of the commit
    revision: str  # the commit
    files: tuple[str, ...]


def fetch_from_hub(place: str) -> Path:
    """The folder of a bundle in the Hub's cache on this machine, fetched if it is not.

    Args:
      place: 'hf://USER/NAME', or with '@REVISION', which is a branch, tag or commit.

    Raises:
      UserError: the package is missing, there is no such repository or revision, it
        holds no bundle, or nothing can be fetched.
    """
    repo, _, revision = place.removeprefix(HUB).partition("@")
    return fetch(repo, revision or None)


def fetch(repo: str, revision: str | None = None) -> Path:
    """`fetch_from_hub`, for what stands in its place."""
    _check_repo(repo)
    with _explained(repo, revision) as package:
        found = package.snapshot_download(
            repo_id=repo, revision=revision, allow_patterns=_ALL_FILES
        )
    folder = Path(found)
    if not all((folder / name).exists() for name in (CONFIG_FILE, WEIGHTS_FILE)):
        raise UserError(
            f"{HUB}{repo} holds no model of movq_jax, which is {CONFIG_FILE} and "
            f"{WEIGHTS_FILE}: download what it has, and try `movq convert`"
        )
    return folder


def download(repo: str, out: epath.PathLike, revision: str | None = None) -> Bundle:
    """Puts a repository's bundle into a folder of its own, and returns what it holds.

    Raises:
      UserError: as `fetch_from_hub`, and where the folder is there already, cannot be
        written, or what came is damaged.
    """
    out = Path(out).expanduser()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} is there already: name a new folder, or an empty one")
    source = fetch(repo, revision)
    bundle = _read_whole(source)
    fresh = out.parent / f".{atomic.own_name()}"
    try:
        for name in _ALL_FILES:
            if (source / name).exists():
                (fresh / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source / name, fresh / name)
        fresh.rename(out)
    except OSError as error:
        raise UserError(f"cannot write {out}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return bundle


def upload(
    path: epath.PathLike, repo: str, *, private: bool = False, licence: str = ""
) -> Uploaded:
    """Puts a bundle into a repository, in one commit; makes it where there is none.

    Args:
      path: the bundle's folder, or a workdir.
      repo: 'USER/NAME'.
      private: whether a new repository is for its owner alone.
      licence: of the weights; goes into the uploaded record and card. Empty: what the
        bundle says.

    Raises:
      UserError: there is no whole bundle, the package is missing, the Hub refuses, or
        the repository is there and public, but is to be private.
    """
    _check_repo(repo)
    folder = find_bundle(path)
    bundle = _read_whole(folder)
    contents = _contents(folder, bundle, repo, licence)
    if bundle.kind == "prior":
        inside = folder / TOKENIZER_FOLDER
        tokenizer = _contents(inside, read_bundle(inside), repo, "")
        contents |= {f"{TOKENIZER_FOLDER}/{k}": v for k, v in tokenizer.items()}
    with _explained(repo, None) as package:
        api = package.HfApi()
        api.create_repo(repo_id=repo, private=private or None, exist_ok=True)
        if private and not api.repo_info(repo_id=repo).private:
            raise UserError(
                f"{HUB}{repo} is there already, and public: make it private on the "
                "Hub, or name another; nothing was uploaded"
            )
        commit = api.create_commit(
            repo_id=repo,
            operations=[
                package.CommitOperationAdd(path_in_repo=name, path_or_fileobj=content)
                for name, content in contents.items()
            ],
            commit_message=f"movq_jax: {bundle.kind} {bundle.fingerprint[:12]}",
        )
    return Uploaded(
        bundle.fingerprint, str(commit.commit_url), commit.oid, tuple(contents)
    )


def _contents(
    folder: epath.Path, bundle: Bundle, repo: str, licence: str
) -> dict[str, Any]:
    """The files of a bundle: name -> bytes, or the path of what is not changed."""
    text = (folder / CONFIG_FILE).read_bytes()
    record = json.loads(text, parse_constant=lambda name: None)
    if licence:
        record["protocol"]["licence"] = licence
        text = (json.dumps(record, indent=2, allow_nan=False) + "\n").encode()
    numbers = sum(array.size for array in flatten(bundle.params).values())
    return {
        CARD_FILE: model_card(record, numbers, f"{HUB}{repo}").encode(),
        CONFIG_FILE: text,
        WEIGHTS_FILE: str(folder / WEIGHTS_FILE),
    }


def _read_whole(folder: epath.PathLike) -> Bundle:
    """The bundle, of which every part has its fingerprint."""
    bundle = read_bundle(folder)
    if bundle.kind == "prior":
        read_prior_bundle(folder, bundle)
    return bundle


def _check_repo(repo: str) -> None:
    if not re.fullmatch(_REPO, repo):
        raise UserError(
            f"{repo!r} is no repository of the Hub: give USER/NAME; where a model is "
            f"asked for, {HUB}USER/NAME or {HUB}USER/NAME@REVISION"
        )


@contextlib.contextmanager
def _explained(repo: str, revision: str | None) -> Iterator[Any]:
    """Gives the package, and says what went wrong with it.

    Raises:
      UserError: it is missing, or one of its calls failed.
    """
    try:
        package = importlib.import_module("huggingface_hub")
        errors = importlib.import_module("huggingface_hub.errors")
    except ImportError as error:
        raise UserError(
            f"{HUB}{repo} needs the package huggingface_hub: "
            "pip install 'movq_jax[hub]'"
        ) from error
    try:
        yield package
    except errors.GatedRepoError as error:
        raise UserError(
            f"{HUB}{repo} is for those who accepted its terms: do so on its page, and "
            "log in with `hf auth login`"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise UserError(
            f"the Hub has no repository {repo}, or none that you may see: look at its "
            "name, and log in with `hf auth login`, or set $HF_TOKEN"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise UserError(f"{HUB}{repo} has no revision {revision!r}") from error
    # What its transport raises without an answer of the Hub has the same bases.
    except (OSError, ValueError, *errors.HfHubHTTPError.__bases__) as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        if getattr(getattr(error, "response", None), "status_code", 0) in (401, 403):
            reason += "; log in with `hf auth login`, or set $HF_TOKEN, to one that may"
        raise UserError(f"{HUB}{repo}: the Hub cannot be used: {reason}") from error
