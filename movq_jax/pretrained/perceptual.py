"""Published weights as parameters of the networks in `movq_jax.models.features`.

Every number of the network comes from the files, or loading fails: nothing is ever
left as it was drawn.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np

from movq_jax import families
from movq_jax.errors import UserError
from movq_jax.models.features import PERCEPTUAL
from movq_jax.models.features.squeezenet import FIRES, SqueezeNet
from movq_jax.models.features.vgg import DEPTHS, WIDTHS
from movq_jax.pretrained.fingerprint import fingerprint
from movq_jax.pretrained.npz_files import read_npz
from movq_jax.pretrained.torch_files import read_torch_file
from movq_jax.pretrained.weights import find_or_fetch, weights_folder

VGG_FILE = "vgg16-397923af.pth"
HEADS_FILE = "vgg.pth"
HEADS_NPZ = "v0.1_vgg.npz"
# Nothing to fetch, and no hash: the release is in a compressed form of its own.
SQUEEZENET_WANTED = (
    "squeezenet needs the path of squeezenet_v1.0.npz as weights: the 26 convolutions "
    "of the Caffe release at https://github.com/songhan/SqueezeNet-Deep-Compression "
    "(BSD license), written by numpy.savez with the names and shapes that "
    "movq_jax.pretrained.perceptual.load_squeezenet documents"
)
# Over names, shapes and numbers of the published heads: holds for both files.
HEADS_FINGERPRINT = "c9888fcc23e840f90ba263030289fa5c46da7e8959aec63355dc8b649238459c"

Params = dict[str, Any]  # nested, NumPy float32


def load_perceptual(name: str, weights: Path | str) -> Params:
    """The parameters of `PERCEPTUAL[name]`.

    Args:
      name: 'lpips_vgg' or 'squeezenet'.
      weights: of lpips_vgg a folder that has, or is to have, `vgg16-397923af.pth` and
        `vgg.pth` as published (or the heads as `v0.1_vgg.npz`); '' is
        `$MOVQ_JAX_WEIGHTS`, else `~/.cache/movq_jax/weights`. Of squeezenet the path
        of `squeezenet_v1.0.npz`.

    Raises:
      UserError: an unknown name, no file, another than the published one, or one
        that lacks a tensor, has one too many, or one of another shape.
    """
    return families.member(_LOADERS, name, "perceptual")(weights)


def abstract_perceptual(name: str) -> Params:
    """The same as `jax.ShapeDtypeStruct`s; needs no file.

    Raises:
      UserError: an unknown name.
    """
    module = families.member(PERCEPTUAL, name, "perceptual")()
    image = jnp.zeros((1, module.min_side, module.min_side, 3))
    return jax.eval_shape(module.init, jax.random.key(0), image, image)["params"]


def load_squeezenet(path: Path | str) -> Params:
    """The parameters of `SqueezeNet`, its classifier included, from an npz.

    The file is made from the Caffe release (github.com/songhan/
    SqueezeNet-Deep-Compression, BSD license): a `weight` [out, in, height, width] and a
    `bias` [out], of floats, for each of 26 convolutions. Ours by their names in Caffe,
    for the fires n = 2 to 9 with s = 16, 16, 32, 32, 48, 48, 64, 64:

    - `conv1` is conv1: [96, 3, 7, 7] on BGR, `conv_final` conv10: [1000, 512, 1, 1];
    - `fire<n>.conv1x1_1` is fire<n>/squeeze1x1: [s, in, 1, 1];
    - `fire<n>.conv1x1_2` is fire<n>/expand1x1: [4 s, s, 1, 1];
    - `fire<n>.conv3x3_2` is fire<n>/expand3x3: [4 s, s, 3, 3].

    Raises:
      UserError: no path, no file, or not the arrays of this network.
    """
    if not str(path):
        raise UserError(SQUEEZENET_WANTED)
    path = Path(path).expanduser()
    if not path.exists():
        raise UserError(f"{path}: No such file; {SQUEEZENET_WANTED}")
    module = SqueezeNet()
    image = jax.ShapeDtypeStruct((1, 227, 227, 3), jnp.float32)
    expected = jax.eval_shape(
        lambda x: module.init(jax.random.key(0), x, method="classify"), image
    )["params"]
    names = {"conv1": "conv1", "conv_final": "conv_final"}
    for i in range(2, 2 + len(FIRES)):
        names[f"fire{i}.squeeze"] = f"fire{i}.conv1x1_1"
        names[f"fire{i}.expand1x1"] = f"fire{i}.conv1x1_2"
        names[f"fire{i}.expand3x3"] = f"fire{i}.conv3x3_2"
    return _fill(expected, _convolutions(names), read_npz(path), path)


def _load_squeezenet_perceptual(path: Path | str) -> Params:
    params = load_squeezenet(path)
    del params["conv_final"]
    return {"trunk": params}


def _load_lpips_vgg(folder: Path | str) -> Params:
    trunk = find_or_fetch(VGG_FILE, folder)
    # Its classifier, nine tenths of the file, is not read.
    trunk = read_torch_file(trunk, prefix="features."), trunk
    return lpips_vgg_params(trunk, _read_heads(folder))


def lpips_vgg_params(
    trunk: tuple[Mapping[str, np.ndarray], Path | str],
    heads: tuple[Mapping[str, np.ndarray], Path | str],
) -> Params:
    """The parameters of `LPIPSVGG` from published arrays, each with its origin.

    Args:
      trunk: torchvision's `features.0.weight` (OIHW) and so on.
      heads: `lin0.model.1.weight` [1, C, 1, 1] to `lin4.model.1.weight`.

    Raises:
      UserError: see `load_perceptual`.
    """
    expected = abstract_perceptual("lpips_vgg")
    filled = _fill(expected.pop("trunk"), _convolutions(_vgg_names()), *trunk)
    names = {f"head_{i}": f"lin{i}.model.1.weight" for i in range(len(WIDTHS))}
    return {"trunk": filled} | _fill(expected, names, *heads)


def _vgg_names() -> dict[str, str]:
    """conv1_1 -> features.0 and so on: ReLUs and pools are counted, too."""
    names, index = {}, 0
    for block, depth in enumerate(DEPTHS, 1):
        for i in range(1, depth + 1):
            names[f"conv{block}_{i}"] = f"features.{index}"
            index += 2
        index += 1
    return names


def _read_heads(folder: Path | str) -> tuple[dict[str, np.ndarray], Path]:
    """The heads as published, or as an npz of the same numbers if that lies there."""
    npz = weights_folder(folder) / HEADS_NPZ
    if not npz.exists() or (npz.parent / HEADS_FILE).exists():
        path = find_or_fetch(HEADS_FILE, folder)
        return read_torch_file(path), path
    arrays = read_npz(npz)
    if fingerprint(arrays, {}) != HEADS_FINGERPRINT:
        raise UserError(
            f"{npz} is damaged, or does not have the published heads of LPIPS v0.1 "
            f"for VGG16; delete it, and {HEADS_FILE} is fetched"
        )
    return arrays, npz


def _convolutions(names: Mapping[str, str]) -> dict[str, str]:
    """Our layer -> theirs becomes our parameter -> theirs."""
    return {
        f"{ours}.{a}": f"{theirs}.{b}"
        for ours, theirs in names.items()
        for a, b in (("kernel", "weight"), ("bias", "bias"))
    }


def _fill(
    expected: Params,
    names: Mapping[str, str],
    arrays: Mapping[str, np.ndarray],
    path: Path | str,
) -> Params:
    """The tree of `expected`, filled with the file's arrays; each must fit.

    Kernels come as [out, in, height, width], heads as [1, C, 1, 1].
    """
    unknown = set(arrays) - set(names.values())
    if unknown:
        raise UserError(f"{path} is of another network: {min(unknown)} is not of this")
    filled = {}
    for ours, struct in flax.traverse_util.flatten_dict(expected, sep=".").items():
        theirs = names[ours]
        if theirs not in arrays:
            raise UserError(f"{path} lacks {theirs}")
        array = arrays[theirs]
        wanted = struct.shape
        if ours.endswith("kernel"):
            wanted = tuple(struct.shape[i] for i in (3, 2, 0, 1))
        elif ours.startswith("head"):
            wanted = (1, *struct.shape, 1, 1)
        if array.shape != wanted or array.dtype.kind != "f":
            raise UserError(
                f"{path}: {theirs} is {array.dtype} {list(array.shape)}, but should "
                f"be float {list(wanted)}"
            )
        if array.ndim == 4:
            array = array.transpose(2, 3, 1, 0).reshape(struct.shape)
        filled[ours] = np.ascontiguousarray(array, dtype=np.float32)
        if not np.isfinite(filled[ours]).all():
            raise UserError(f"{path}: {theirs} has numbers that are not finite")
    return flax.traverse_util.unflatten_dict(filled, sep=".")


_LOADERS: dict[str, Callable[[Path | str], Params]] = {
    "lpips_vgg": _load_lpips_vgg,
    "squeezenet": _load_squeezenet_perceptual,
}
