"""Published weights of LPIPS v0.1: torchvision's trunk, and the authors' heads."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from movq_jax.errors import UserError
from movq_jax.models.features import PERCEPTUAL, alexnet, vgg
from movq_jax.pretrained.filling import (
    Params,
    abstract_distance,
    convolutions,
    fill,
)
from movq_jax.pretrained.fingerprint import fingerprint
from movq_jax.pretrained.npz_files import read_npz
from movq_jax.pretrained.torch_files import read_torch_file
from movq_jax.pretrained.weights import find_or_fetch, weights_folder


@dataclasses.dataclass(frozen=True)
class Published:
    """Where the numbers of one LPIPS come from.

    Attributes:
      trunk_file: of torchvision.
      heads_file: of the authors.
      heads_npz: a file of the same heads by `numpy.savez`, for want of the authors'.
      heads_fingerprint: over their names, shapes and numbers: holds for both files.
      layers: our convolution -> torchvision's.
    """

    trunk_file: str
    heads_file: str
    heads_npz: str
    heads_fingerprint: str
    layers: Mapping[str, str]


def _vgg_layers() -> dict[str, str]:
    """conv1_1 -> features.0 and so on: ReLUs and pools are counted, too."""
    names, index = {}, 0
    for block, depth in enumerate(vgg.DEPTHS, 1):
        for i in range(1, depth + 1):
            names[f"conv{block}_{i}"] = f"features.{index}"
            index += 2
        index += 1
    return names


def _alexnet_layers() -> dict[str, str]:
    """conv1 -> features.0 and so on, as above."""
    names, index = {}, 0
    for i in range(1, 1 + len(alexnet.WIDTHS)):
        index += i in alexnet.POOL_BEFORE
        names[f"conv{i}"] = f"features.{index}"
        index += 2
    return names


PUBLISHED = {
    "lpips_vgg": Published(
        trunk_file="vgg16-397923af.pth",
        heads_file="vgg.pth",
        heads_npz="v0.1_vgg.npz",
        heads_fingerprint=(
            "c9888fcc23e840f90ba263030289fa5c46da7e8959aec63355dc8b649238459c"
        ),
        layers=_vgg_layers(),
    ),
    "lpips_alex": Published(
        trunk_file="alexnet-owt-7be5be79.pth",
        heads_file="alex.pth",
        heads_npz="v0.1_alex.npz",
        heads_fingerprint=(
            "c94c5cb1dc0757c255a44cab76af8e3d737480c2e40b492a129352431a1599b0"
        ),
        layers=_alexnet_layers(),
    ),
}


def load_lpips(name: str, folder: Path | str = "") -> Params:
    """The parameters of `PERCEPTUAL[name]`, for a name of `PUBLISHED`.

    Args:
      name: 'lpips_vgg' or 'lpips_alex'.
      folder: has, or is to have, the files of `PUBLISHED[name]`, see `weights_folder`.

    Raises:
      UserError: no file, or another than the published one; see `fill`.
    """
    published = PUBLISHED[name]
    trunk = find_or_fetch(published.trunk_file, folder)
    # Its classifier, nine tenths of the file, is not read.
    trunk = read_torch_file(trunk, prefix="features."), trunk
    return lpips_params(name, trunk, read_heads(name, folder))


def lpips_params(
    name: str,
    trunk: tuple[Mapping[str, np.ndarray], Path | str],
    heads: tuple[Mapping[str, np.ndarray], Path | str],
) -> Params:
    """The parameters of `PERCEPTUAL[name]` from arrays, each with its origin.

    Args:
      name: as above.
      trunk: torchvision's `features.0.weight` (OIHW) and so on.
      heads: `lin0.model.1.weight` [1, C, 1, 1] to `lin4.model.1.weight`.

    Raises:
      UserError: see `fill`.
    """
    expected = abstract_distance(PERCEPTUAL[name]())
    layers = convolutions(PUBLISHED[name].layers)
    filled = fill(expected.pop("trunk"), layers, *trunk)
    names = {head: f"lin{head[-1]}.model.1.weight" for head in expected}
    return {"trunk": filled} | fill(expected, names, *heads)


def read_heads(
    name: str, folder: Path | str = ""
) -> tuple[dict[str, np.ndarray], Path]:
    """The heads as published, or as an npz of the same numbers if that lies there.

    Raises:
      UserError: neither is there and they cannot be fetched, or they are others.
    """
    published = PUBLISHED[name]
    npz = weights_folder(folder) / published.heads_npz
    if not npz.exists() or (npz.parent / published.heads_file).exists():
        path = find_or_fetch(published.heads_file, folder)
        return read_torch_file(path), path
    arrays = read_npz(npz)
    if fingerprint(arrays, {}) != published.heads_fingerprint:
        raise UserError(
            f"{npz} is damaged, or does not have the published heads of LPIPS v0.1 "
            f"for {name}; delete it, and {published.heads_file} is fetched"
        )
    return arrays, npz
