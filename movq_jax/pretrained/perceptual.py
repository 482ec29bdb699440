"""Published weights as parameters of the networks in `movq_jax.models.features`.

Every number of the network comes from the files, or loading fails: nothing is ever
left as it was drawn.
"""

import functools
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp

from movq_jax import families
from movq_jax.errors import UserError
from movq_jax.models.features import PERCEPTUAL
from movq_jax.models.features.squeezenet import FIRES, SqueezeNet
from movq_jax.pretrained.filling import (
    Params,
    abstract_distance,
    convolutions,
    fill,
)
from movq_jax.pretrained.lpips import PUBLISHED, load_lpips
from movq_jax.pretrained.npz_files import read_npz

# Nothing to fetch, and no hash: the release is in a compressed form of its own.
SQUEEZENET_WANTED = (
    "squeezenet needs the path of squeezenet_v1.0.npz as weights: the 26 convolutions "
    "of the Caffe release at https://github.com/songhan/SqueezeNet-Deep-Compression "
    "(BSD license), written by numpy.savez with the names and shapes that "
    "movq_jax.pretrained.perceptual.load_squeezenet documents"
)


def load_perceptual(name: str, weights: Path | str) -> Params:
    """The parameters of `PERCEPTUAL[name]`.

    Args:
      name: 'lpips_vgg', 'lpips_alex' or 'squeezenet'.
      weights: of LPIPS a folder that has, or is to have, the published files:
        `vgg16-397923af.pth` and `vgg.pth` (or the heads as `v0.1_vgg.npz`), and
        `alexnet-owt-7be5be79.pth` and `alex.pth` (or `v0.1_alex.npz`); '' is
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
    return abstract_distance(families.member(PERCEPTUAL, name, "perceptual")())


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
    return fill(expected, convolutions(names), read_npz(path), path)


def _load_squeezenet_perceptual(path: Path | str) -> Params:
    params = load_squeezenet(path)
    del params["conv_final"]
    return {"trunk": params}


_LOADERS: dict[str, Callable[[Path | str], Params]] = {
    **{name: functools.partial(load_lpips, name) for name in PUBLISHED},
    "squeezenet": _load_squeezenet_perceptual,
}
