"""What tells one model from another: a hash over its parameters and its config."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np


def fingerprint(arrays: Mapping[str, np.ndarray], model_config: Mapping) -> str:
    """SHA-256, as 64 hex digits, over parameters and model config.

    Covers (name, dtype, shape, bytes) of every parameter, sorted by name, and the
    canonical JSON of the config, so that it is the same after saving, converting
    and loading.
    """
    digest = hashlib.sha256(canonical_json(model_config).encode())
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        header = f"\n{name} {array.dtype.name} {list(array.shape)}\n"
        digest.update(header.encode())
        digest.update(array.astype(array.dtype.newbyteorder("<")).tobytes())
    return digest.hexdigest()


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and no spaces; tuples and lists are the same.

    Raises:
      ValueError: a number is infinite or NaN, which JSON does not know.
    """
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), default=plain, allow_nan=False
    )


def plain(value: Any) -> dict | list:
    """For `json.dumps`: mappings such as ConfigDict as dicts, the rest as lists."""
    return dict(value) if hasattr(value, "items") else list(value)
