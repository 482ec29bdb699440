"""A tree of parameters from published arrays: each finds its place, or it fails."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np

from movq_jax.errors import UserError

Params = dict[str, Any]  # nested, NumPy float32


def abstract_distance(module: nn.Module) -> Params:
    """The tree that a member of `models.features.PERCEPTUAL` is to have.

    Its leaves are `jax.ShapeDtypeStruct`s; nothing is drawn.
    """
    image = jnp.zeros((1, module.min_side, module.min_side, 3))
    return jax.eval_shape(module.init, jax.random.key(0), image, image)["params"]


def convolutions(names: Mapping[str, str]) -> dict[str, str]:
    """Our layer -> theirs becomes our parameter -> theirs, for kernel and bias."""
    return {
        f"{ours}.{a}": f"{theirs}.{b}"
        for ours, theirs in names.items()
        for a, b in (("kernel", "weight"), ("bias", "bias"))
    }


def fill(
    expected: Params,
    names: Mapping[str, str],
    arrays: Mapping[str, np.ndarray],
    path: Path | str,
) -> Params:
    """The tree of `expected`, filled with the file's arrays; each must fit.

    Args:
      expected: nested, of `jax.ShapeDtypeStruct`s.
      names: our parameter, by its path joined with dots -> its name in the file.
      arrays: of the file. Kernels come as [out, in, height, width], or [out, in] of a
        dense layer, and LPIPS' heads as [1, C, 1, 1].
      path: of the file, for errors.

    Raises:
      UserError: an array is missing, one is too many, or one has another shape, is of
        whole numbers, or not finite.
    """
    unknown = set(arrays) - set(names.values())
    if unknown:
        raise UserError(f"{path} is of another network: {min(unknown)} is not of this")
    filled = {}
    for ours, struct in flax.traverse_util.flatten_dict(expected, sep=".").items():
        theirs = names[ours]
        if theirs not in arrays:
            raise UserError(f"{path} lacks {theirs}")
        filled[ours] = _placed(ours, struct.shape, theirs, arrays[theirs], path)
    return flax.traverse_util.unflatten_dict(filled, sep=".")


def _placed(
    ours: str,
    shape: tuple[int, ...],
    theirs: str,
    array: np.ndarray,
    path: Path | str,
) -> np.ndarray:
    """One array in our layout, once it has been looked over."""
    wanted = shape
    if ours.endswith("kernel"):
        wanted = (
            shape[::-1] if len(shape) == 2 else tuple(shape[i] for i in (3, 2, 0, 1))
        )
    elif ours.startswith("head"):
        wanted = (1, *shape, 1, 1)
    if array.shape != wanted or array.dtype.kind != "f":
        raise UserError(
            f"{path}: {theirs} is {array.dtype} {list(array.shape)}, but should be "
            f"float {list(wanted)}"
        )
    if array.ndim == 4:
        array = array.transpose(2, 3, 1, 0).reshape(shape)
    elif array.ndim == 2:
        array = array.T
    array = np.ascontiguousarray(array, dtype=np.float32)
    if not np.isfinite(array).all():
        raise UserError(f"{path}: {theirs} has numbers that are not finite")
    return array
