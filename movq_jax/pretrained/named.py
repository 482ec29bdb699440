"""A published model by its name: fetched and converted once, then read from disk.

    $MOVQ_JAX_WEIGHTS/models/NAME/source/      the files, as they were published
    $MOVQ_JAX_WEIGHTS/models/NAME/bundle/      the model that was made of them
    $MOVQ_JAX_WEIGHTS/models/NAME/SHA256.json  what both were when they were new

A file that was put into `source` by hand is as good as a fetched one. What was
published without a SHA-256 gets one the first time: it is said, recorded, and held to.
The files in `source` may be deleted once there is a bundle.
"""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

from movq_jax import atomic
from movq_jax.errors import UserError
from movq_jax.families import nearest
from movq_jax.pretrained import model_card
from movq_jax.pretrained.fetching import NotFetched, fetch, sha256_of
from movq_jax.pretrained.named_models import NAMED_MODELS, NamedFile, NamedModel
from movq_jax.pretrained.weights import VARIABLE, weights_folder

MODELS_FOLDER = "models"
SOURCE_FOLDER = "source"
BUNDLE_FOLDER = "bundle"
RECORD_FILE = "SHA256.json"
_CONFIG_FILE = "config.json"


def named_folder(name: str) -> Path:
    """Where the model of that name is kept."""
    return weights_folder() / MODELS_FOLDER / name


def find_or_convert(name: str) -> Path:
    """The folder of the bundle of one of `NAMED_MODELS`, made if it is not there.

    Raises:
      UserError: there is no such name; a file is not there and cannot be fetched, is
        another than the recorded one, or cannot be converted; or the bundle is another
        than the one that was made.
    """
    if name not in NAMED_MODELS:
        raise UserError(
            f"no published model is called {name}{nearest(name, NAMED_MODELS)}"
        )
    model, folder = NAMED_MODELS[name], named_folder(name)
    bundle = folder / BUNDLE_FOLDER
    try:
        if (bundle / _CONFIG_FILE).exists():
            _check_bundle(folder, bundle)
        else:
            _make_bundle(name, model, folder)
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(f"{folder} cannot be used: {reason}") from error
    return bundle


def _make_bundle(name: str, model: NamedModel, folder: Path) -> None:
    # Only now: a bundle that is there needs none of the formats' readers.
    from movq_jax.pretrained.converting import convert, write_converted

    _clear(folder)
    tokenizer = find_or_convert(model.tokenizer) if model.tokenizer else None
    digests = {file.name: _find_or_fetch(name, folder, file) for file in model.files}
    source = folder / SOURCE_FOLDER
    path = source / model.files[0].name if len(model.files) == 1 else source
    _say(f"converting {name} ({model.about}) into {folder / BUNDLE_FOLDER}")
    fresh = folder / f".{atomic.own_name()}"
    try:
        conversion = convert(path)
        about = {
            "name": name,
            "page": model.page,
            "urls": [file.url for file in model.files],
            "files": digests,
            "licence": model.licence,
            "verified": model.verified,
        }
        conversion = conversion._replace(source={**conversion.source, **about})
        fingerprint = write_converted(conversion, fresh, tokenizer)
        _put(fresh, folder / BUNDLE_FOLDER)
    except UserError as error:
        _forget_first(folder, model)
        raise UserError(
            f"{name} cannot be converted: {error} (delete {folder} to fetch it again)"
        ) from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    _add_to_record(folder, {"bundle": fingerprint})
    _tell(name, model)


def _clear(folder: Path) -> None:
    """Removes what processes that were killed left half done: it may be large."""
    for place in (folder, folder / SOURCE_FOLDER):
        for path in place.glob(".*-*-*"):
            if atomic.is_left_over(path):
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def _put(fresh: Path, place: Path) -> None:
    try:
        fresh.rename(place)
    except OSError:
        # Another process was faster: what it made is the same.
        if not (place / _CONFIG_FILE).exists():
            raise


def _tell(name: str, model: NamedModel) -> None:
    if model.licence == model_card.UNKNOWN:
        _say(f"{name}: the licence of the weights is unknown; see {model.page}")
    else:
        _say(f"{name}: the licence of the weights is {model.licence} ({model.page})")
    if not model.verified:
        _say(f"{name}: not yet compared with the original program on these weights")


def _find_or_fetch(name: str, folder: Path, file: NamedFile) -> str:
    """The SHA-256 of a file that is in the `source` folder from now on."""
    path = folder / SOURCE_FOLDER / file.name
    known = _read_record(folder).get("files", {}).get(file.name, "")
    expected = file.sha256 or known
    if path.exists():
        digest = sha256_of(path)
    else:
        try:
            digest = fetch(file.url, path, sha256=expected)
        except NotFetched as error:
            stated = f" (SHA-256 {expected})" if expected else ""
            raise UserError(
                f"{file.name} of {name} is not in {path.parent} and could not be "
                f"fetched from {file.url}: {error}; try again, or put the file there "
                f"by hand{stated}, or let ${VARIABLE} name a folder that has it"
            ) from error
    if expected not in ("", digest):
        raise UserError(
            f"{path} is another file than the "
            f"{'published' if file.sha256 else 'first'} one: its SHA-256 is {digest}, "
            f"not {expected}; delete it, and it is fetched from {file.url}"
        )
    if not expected:
        _say(f"{file.name}: no SHA-256 was published; from now on it is {digest}")
    if not known:
        _add_to_record(folder, {"files": {file.name: digest}})
    return digest


def _check_bundle(folder: Path, bundle: Path) -> None:
    """The bundle is the one that was made; that it is whole, its reader finds out."""
    recorded = _read_record(folder).get("bundle")
    try:
        stated = json.loads((bundle / _CONFIG_FILE).read_text())["fingerprint"]
    except (ValueError, LookupError, TypeError):
        stated = None
    if recorded not in (None, stated):
        raise UserError(
            f"the bundle {bundle} is not the one that was made of the published files, "
            f"{str(recorded)[:12]}... by {RECORD_FILE}: delete it, and it is made anew"
        )


def _read_record(folder: Path) -> dict[str, Any]:
    path = folder / RECORD_FILE
    if not path.exists():
        return {}
    try:
        record = json.loads(path.read_text())
        if not isinstance(record.get("files", {}), dict):
            raise ValueError("'files' is no section")
        return record
    except (ValueError, AttributeError) as error:
        raise UserError(
            f"{path}, the record of what was fetched, is damaged ({error}): delete "
            f"{folder} to fetch the model again"
        ) from error


def _add_to_record(folder: Path, news: dict[str, Any]) -> None:
    record = _read_record(folder)
    files = {**record.get("files", {}), **news.get("files", {})}
    text = json.dumps({**record, **news, "files": files}, indent=2) + "\n"
    atomic.write_text(folder / RECORD_FILE, text)


def _forget_first(folder: Path, model: NamedModel) -> None:
    """What was of no use the first time is not what later files have to be."""
    record = _read_record(folder)
    published = {file.name for file in model.files if file.sha256}
    if "bundle" not in record and "files" in record:
        kept = {n: d for n, d in record["files"].items() if n in published}
        text = json.dumps({**record, "files": kept}, indent=2) + "\n"
        atomic.write_text(folder / RECORD_FILE, text)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
