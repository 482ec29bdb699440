"""Statistics of a reference set in an npz file: read with care, and written.

Three kinds are read: ADM's (`mu`, `sigma`, `mu_s`, `sigma_s`, mostly with images in
`arr_0`), pytorch-fid's and clean-fid's (`mu`, `sigma`), and ours, which has `protocol`
besides, a JSON string, and may have `mu_squeezenet` and `sigma_squeezenet`. In ours an
array that was not asked for is missing. Nothing is unpickled.
"""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64

from movq_jax.atomic import replacing
from movq_jax.errors import UserError
from movq_jax.evaluation import npz_images
from movq_jax.evaluation.metrics.frechet import FeatureStatistics
from movq_jax.pretrained.fingerprint import fingerprint
from movq_jax.pretrained.npz_files import DAMAGED

# What features of a set are called in a file: 'pool' is `mu` and `sigma`.
SUFFIXES = {"pool": "", "spatial": "_s", "squeezenet": "_squeezenet"}
WIDTHS = {"pool": 2048, "spatial": 2023, "squeezenet": 512}
_PROTOCOL = "protocol"


@dataclasses.dataclass(frozen=True)
class Moments:
    """Mean and covariance of the features of a set."""

    mean: Float64[np.ndarray, " d"]
    covariance: Float64[np.ndarray, "d d"]


@dataclasses.dataclass(frozen=True)
class ReferenceFile:
    """What an npz file of statistics has.

    Attributes:
        path: of the file.
        moments: 'pool', 'spatial' or 'squeezenet' -> its mean and covariance.
        has_images: whether there are images beside them, in `arr_0`.
        count: of the images that the statistics are of; None where nobody wrote it.
        protocol: the record that they were made with; None in files of others.
        networks: of each network the fingerprint of its weights; empty if unknown.
    """

    path: Path
    moments: Mapping[str, Moments]
    has_images: bool
    count: int | None = None
    protocol: Mapping[str, Any] | None = None
    networks: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def fingerprint(self) -> str:
        """64 hex digits that tell these statistics from others."""
        arrays = {}
        for key, moments in self.moments.items():
            arrays |= {f"mu_{key}": moments.mean, f"sigma_{key}": moments.covariance}
        return fingerprint(arrays, {})


def has_statistics(path: Path) -> bool:
    """Tell whether an npz file has a mean of any features.

    Raises:
        UserError: it is not there, or no npz file.
    """
    names = npz_images.members(path)
    return any(f"mu{suffix}" in names for suffix in SUFFIXES.values())


def read_statistics(path: Path) -> ReferenceFile:
    """Read a file of statistics.

    Raises:
        UserError: the file is damaged, holds pickled objects, or its numbers are no
            mean and covariance of these features.
    """
    names = npz_images.members(path)
    moments = {}
    for key, suffix in SUFFIXES.items():
        mean, covariance = f"mu{suffix}", f"sigma{suffix}"
        there = [name in names for name in (mean, covariance)]
        if any(there):
            if not all(there):
                missing = covariance if there[0] else mean
                raise UserError(f"{path} has no {missing!r}: statistics need both")
            pair = (_read_array(path, name) for name in (mean, covariance))
            moments[key] = _checked(path, suffix, WIDTHS[key], *pair)
    header = _read_header(path) if _PROTOCOL in names else {}
    return ReferenceFile(
        path=path,
        moments=moments,
        has_images=npz_images.IMAGES in names,
        count=header.get("count"),
        protocol=header.get("protocol"),
        networks=header.get("networks", {}),
    )


def write_statistics(
    path: Path,
    statistics: Mapping[str, FeatureStatistics],
    *,
    protocol: Mapping[str, Any],
    networks: Mapping[str, str],
) -> None:
    """Write the statistics of a set; other programs read `mu` and `sigma` of it.

    Args:
        path: of the npz file.
        statistics: 'pool', 'spatial' or 'squeezenet' -> of all images.
        protocol: the record that they were made with.
        networks: of each network the fingerprint of its weights.

    Raises:
        UserError: there are no statistics, of fewer than two images, or the place
            cannot be written.
    """
    if not statistics:
        raise UserError(
            "there are no statistics to save: name a Fréchet distance in --metrics, "
            "such as fid, sfid or squeezenet_fd"
        )
    arrays = {}
    for key, found in statistics.items():
        arrays[f"mu{SUFFIXES[key]}"] = found.mean
        arrays[f"sigma{SUFFIXES[key]}"] = found.covariance
    counts = {found.count for found in statistics.values()}
    header = {
        "count": max(counts),
        "protocol": dict(protocol),
        "networks": dict(networks),
    }
    arrays[_PROTOCOL] = np.asarray(json.dumps(header, sort_keys=True))
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **arrays)


def _read_array(path: Path, name: str) -> np.ndarray:
    try:
        with np.load(path, allow_pickle=False) as archive:
            return archive[name]
    except DAMAGED as error:
        raise UserError(f"{path}: {name!r} cannot be read: {error}") from error


def _read_header(path: Path) -> dict[str, Any]:
    text = _read_array(path, _PROTOCOL)
    try:
        header = json.loads(str(text))
    except (ValueError, RecursionError):
        header = None
    wrong = _wrong_in(header)
    if wrong:
        raise UserError(
            f"{path}: {wrong} is not what `movq evaluate --save-statistics` writes: "
            "make the file again"
        )
    return header


def _wrong_in(header: Any) -> str:
    """What in the header is not as it is written, or ''."""
    if not isinstance(header, dict) or not isinstance(header.get("protocol"), dict):
        return repr(_PROTOCOL)
    count, networks = header.get("count"), header.get("networks")
    # Of one image there is no covariance. In Python True is 1.
    if not isinstance(count, int) or isinstance(count, bool) or count < 2:
        return f"its count of images, {count!r:.40},"
    if not isinstance(networks, dict) or not all(
        isinstance(digits, str) for digits in networks.values()
    ):
        return f"its networks, {networks!r:.40},"
    return ""


def _checked(
    path: Path, suffix: str, width: int, mean: np.ndarray, covariance: np.ndarray
) -> Moments:
    """Both as float64, once they are found to be a mean and a covariance."""
    names = f"'mu{suffix}' and 'sigma{suffix}'"
    for array in (mean, covariance):
        if array.dtype.kind not in "fiu":
            raise UserError(f"{path}: {names} must be numbers, not {array.dtype}")
    if mean.shape != (width,) or covariance.shape != (width, width):
        raise UserError(
            f"{path}: {names} must be [{width}] and [{width}, {width}], not "
            f"{list(mean.shape)} and {list(covariance.shape)}: another network's?"
        )
    mean, covariance = mean.astype(np.float64), covariance.astype(np.float64)
    if not (np.isfinite(mean).all() and np.isfinite(covariance).all()):
        raise UserError(f"{path}: {names} are not finite: make the file again")
    largest = np.abs(covariance).max()
    if np.abs(covariance - covariance.T).max() > 1e-6 * largest:
        raise UserError(f"{path}: 'sigma{suffix}' is no covariance: not symmetric")
    if (np.diagonal(covariance) < 0).any():
        raise UserError(f"{path}: 'sigma{suffix}' is no covariance: negative variance")
    eigenvalues = np.linalg.eigvalsh(covariance)
    # What `frechet_distance` allows to rounding, also of float32 files.
    if -eigenvalues[0] > 1e-3 * max(eigenvalues[-1], 0):
        raise UserError(
            f"{path}: 'sigma{suffix}' is no covariance: it has negative eigenvalues"
        )
    return Moments(mean, covariance)
