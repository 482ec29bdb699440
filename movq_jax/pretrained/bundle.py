"""The model bundle: `model.safetensors` and `config.json` in one folder.

Beside them lies the model card for people, see `movq_jax.pretrained.model_card`.

`config.json` holds

- `format_version`: 2 (1, the first, had the codes at `quantize.codebook`)
- `kind`: 'tokenizer'
- `fingerprint`: see `movq_jax.pretrained.fingerprint`
- `model`: the config section that `build_tokenizer` takes
- `protocol`: how the weights came to be and what they were measured to reach; a number
  that is infinite or NaN is null

and `model.safetensors` the inference parameters (the averaged weights of a run) by
their path in the Linen tree, joined with dots: `encoder.conv_in.kernel`.

What a model cannot be used without lies in folders of its own beside the two, each an
ordinary bundle: see `movq_jax.pretrained.prior_bundle`.
"""

import contextlib
import json
import math
import os
from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.traverse_util
import jax
import numpy as np
import safetensors
import safetensors.numpy
from etils import epath

from movq_jax.errors import UserError
from movq_jax.pretrained.fingerprint import fingerprint, plain
from movq_jax.pretrained.model_card import CARD_FILE, model_card
from movq_jax.pretrained.places import local, no_such_place

FORMAT_VERSION = 2
FOLDER = "model"  # within a workdir
WEIGHTS_FILE = "model.safetensors"
CONFIG_FILE = "config.json"
_ROWS_IN_1, _ROWS = "quantize.codebook", "quantize.codebook.rows"
_KINDS = {"kind": str, "fingerprint": str, "model": dict, "protocol": dict}


class Bundle(NamedTuple):
    """A bundle's contents."""

    kind: str
    fingerprint: str
    model: dict[str, Any]
    protocol: dict[str, Any]
    params: dict[str, Any]  # nested, NumPy arrays
    format_version: int = FORMAT_VERSION


def write_bundle(
    folder: epath.PathLike,
    *,
    kind: str,
    params: Mapping[str, Any],
    model: Mapping[str, Any],
    protocol: Mapping[str, Any],
    inside: Mapping[str, Bundle] | None = None,
) -> str:
    """Writes a bundle and returns its fingerprint. An older one is replaced.

    The new bundle is complete beside the old one before it takes its place, with the
    bundles that are to lie in it: folder -> contents, `inside`.

    Raises:
      UserError: the place cannot be written.
    """
    folder = _without_links(folder)
    arrays = flatten(params)
    model = json.loads(json.dumps(model, default=plain, allow_nan=False))
    record = _record(kind, arrays, model, protocol)
    fresh, stale = _beside(folder, "new"), _beside(folder, "old")
    try:
        if stale.exists() and not folder.exists():
            stale.rename(folder)  # a writer was killed between its two moves
        for left_over in (fresh, stale):
            if left_over.exists():
                left_over.rmtree()
        _write_files(fresh, arrays, record)
        for name, bundle in (inside or {}).items():
            _write_again(fresh / name, bundle)
        if folder.exists():
            folder.rename(stale)
        fresh.rename(folder)
        if stale.exists():
            stale.rmtree()
    except (OSError, safetensors.SafetensorError) as error:
        _forget(fresh)
        raise UserError(f"cannot write the model bundle {folder}: {error}") from error
    except KeyboardInterrupt:
        _forget(fresh)
        raise
    return record["fingerprint"]


def _record(
    kind: str, arrays: Mapping[str, np.ndarray], model: Any, protocol: Any
) -> dict[str, Any]:
    """What config.json holds."""
    return {
        "format_version": FORMAT_VERSION,
        "kind": kind,
        "fingerprint": fingerprint(arrays, model),
        "model": model,
        "protocol": _finite(protocol),
    }


def _write_again(folder: epath.Path, bundle: Bundle) -> None:
    """Writes what was read, in the format it had: so its fingerprint stays."""
    arrays = flatten(bundle.params)
    if bundle.format_version == 1 and _ROWS in arrays:
        arrays[_ROWS_IN_1] = arrays.pop(_ROWS)
    record = _record(bundle.kind, arrays, bundle.model, bundle.protocol)
    _write_files(folder, arrays, record | {"format_version": bundle.format_version})


def _write_files(
    folder: epath.Path, arrays: dict[str, np.ndarray], record: Mapping[str, Any]
) -> None:
    folder.mkdir(parents=True)
    text = json.dumps(record, indent=2, allow_nan=False) + "\n"
    card = model_card(record, sum(array.size for array in arrays.values()))
    _save(folder / WEIGHTS_FILE, arrays)
    (folder / CONFIG_FILE).write_text(text)
    (folder / CARD_FILE).write_text(card)


def _without_links(folder: epath.PathLike) -> epath.Path:
    """Where a folder really is: moving a link away would not move what it points to."""
    folder = epath.Path(folder)
    is_local = "://" not in os.fspath(folder)
    return epath.Path(os.path.realpath(folder)) if is_local else folder


def _forget(fresh: epath.Path) -> None:
    with contextlib.suppress(OSError):
        if fresh.exists():
            fresh.rmtree()


def _save(path: epath.Path, arrays: dict[str, np.ndarray]) -> None:
    if "://" in os.fspath(path):
        path.write_bytes(safetensors.numpy.save(arrays))
        return
    # Array by array: a large model is not in memory twice.
    whole = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    safetensors.numpy.save_file(whole, os.fspath(path))


def _load(path: epath.Path) -> dict[str, np.ndarray]:
    if "://" in os.fspath(path):
        return safetensors.numpy.load(path.read_bytes())
    return safetensors.numpy.load_file(os.fspath(path))


def read_bundle(path: epath.PathLike) -> Bundle:
    """Reads a bundle.

    Args:
      path: the bundle's folder, or a workdir that holds one, or what else
        `movq_jax.pretrained.places` knows.

    Raises:
      UserError: there is no bundle, it is damaged or changed, or of a newer format.
    """
    folder = find_bundle(path)
    record = _read_record(folder / CONFIG_FILE)
    weights = folder / WEIGHTS_FILE
    try:
        arrays = _load(weights)
    except (OSError, safetensors.SafetensorError) as error:
        raise UserError(f"the weights {weights} cannot be read: {error}") from error
    if fingerprint(arrays, record["model"]) != record["fingerprint"]:
        raise UserError(
            f"the bundle {folder} is damaged or was changed: weights and config do not "
            "give the fingerprint that config.json states; copy or train it again"
        )
    if record["format_version"] == 1 and _ROWS_IN_1 in arrays:
        arrays[_ROWS] = arrays.pop(_ROWS_IN_1)
    return Bundle(
        kind=record["kind"],
        fingerprint=record["fingerprint"],
        model=record["model"],
        protocol=record["protocol"],
        params=flax.traverse_util.unflatten_dict(arrays, sep="."),
        format_version=record["format_version"],
    )


def find_bundle(path: epath.PathLike) -> epath.Path:
    """The bundle's folder, for that folder itself, a workdir, or a place elsewhere.

    Raises:
      UserError: none of them holds a bundle, or what is elsewhere cannot be fetched.
    """
    asked, path = path, epath.Path(local(path)).expanduser()
    places = [path, path / FOLDER]
    # Where a writer was killed between its two moves, the old one lies here.
    places += [_beside(place, "old") for place in places]
    for folder in places:
        if (folder / CONFIG_FILE).exists() and (folder / WEIGHTS_FILE).exists():
            return folder
    if not path.exists():
        raise UserError(f"there is no model at {path}: {no_such_place(asked)}")
    raise UserError(
        f"there is no model in {path}: expected {FOLDER}/{WEIGHTS_FILE} and "
        f"{FOLDER}/{CONFIG_FILE}, which training writes at each evaluation"
    )


def _beside(folder: epath.Path, age: str) -> epath.Path:
    """Where the next ('new') or the last ('old') bundle lies while one is replaced."""
    return folder.parent / f".{folder.name}.{age}"


def flatten(params: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Nested parameters -> {'a.b.kernel': array}, on the host."""
    flat = flax.traverse_util.flatten_dict(dict(params), sep=".")
    return {name: np.asarray(array) for name, array in flat.items()}


def check_fit(expected: Any, params: Any) -> None:
    """`params` has the names, shapes and dtypes of `expected`.

    Raises:
      UserError: it has not.
    """
    if _shapes(expected) != _shapes(params):
        raise UserError(
            "the bundle's weights do not fit the model that its config describes"
        )


def _shapes(params: Any) -> Any:
    return jax.tree.map(lambda x: (x.shape, str(x.dtype)), dict(params))


def _finite(value: Any) -> Any:
    """`value` with None for every number that JSON does not know."""
    if hasattr(value, "items"):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    if hasattr(value, "tolist"):  # arrays, and their scalars
        return _finite(value.tolist())
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _read_record(path: epath.Path) -> dict[str, Any]:
    try:
        # NaN is no JSON, but bundles of the first release may have it.
        record = json.loads(path.read_text(), parse_constant=lambda name: None)
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} is not readable JSON: {error}") from error
    wanted = ("format_version", "kind", "fingerprint", "model", "protocol")
    missing = [
        key for key in wanted if not isinstance(record, dict) or key not in record
    ]
    if missing:
        raise UserError(f"{path} is no bundle's config: it lacks {', '.join(missing)}")
    if record["format_version"] not in range(1, FORMAT_VERSION + 1):
        raise UserError(
            f"{path} has format version {record['format_version']}, this program "
            f"reads 1 to {FORMAT_VERSION}: use the version of movq_jax that wrote it"
        )
    for key, kind in _KINDS.items():
        if not isinstance(record[key], kind):
            raise UserError(
                f"{path} is no bundle's config: its {key!r} is {record[key]!r:.40}"
            )
    return record
