"""Published weights of `Inception`, the network of FID.

The published file and its ports have the same 472 tensors, 23,885,392 numbers:
`<layer>.conv.weight` and `<layer>.bn.{weight, bias, running_mean, running_var}` of each
of 94 convolutions, `fc.weight` and `fc.bias`.
"""

from pathlib import Path

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy

from movq_jax.errors import UserError
from movq_jax.models.features.inception import SIDE, Inception
from movq_jax.pretrained.filling import Params, fill
from movq_jax.pretrained.npz_files import read_npz
from movq_jax.pretrained.torch_files import read_torch_file
from movq_jax.pretrained.weights import find_or_fetch

FILE = "pt_inception-2015-12-05-6726825d.pth"
# Of each convolution: our parameter -> theirs.
_PARTS = {
    "kernel": "conv.weight",
    "scale": "bn.weight",
    "bias": "bn.bias",
    "mean": "bn.running_mean",
    "var": "bn.running_var",
}
_COUNTERS = ".bn.num_batches_tracked"  # of training; in a state dict of today's torch


def load_inception(weights: Path | str = "") -> Params:
    """The parameters of `Inception`.

    Args:
      weights: '' for the published file in `$MOVQ_JAX_WEIGHTS`, else
        `~/.cache/movq_jax/weights`, which is fetched if it is not there; a folder that
        has, or is to have, that file; or a file of tensors of the same names: .npz,
        .safetensors, and all else as torch saves it. Counters of training batches,
        `<layer>.bn.num_batches_tracked`, may be there and are left out.

    Raises:
      UserError: no file, the published one is another, or a file that lacks a tensor,
        has one too many or one of another shape, or numbers that are none.
    """
    path = Path(weights).expanduser() if weights else None
    if path is None or path.is_dir():
        path = find_or_fetch(FILE, path or "")
    arrays = _read(path)
    expected = abstract_inception()
    names = published_names(expected)
    known = {n.removesuffix(".conv.weight") for n in names.values()}
    arrays = {
        name: array
        for name, array in arrays.items()
        if not (name.endswith(_COUNTERS) and name.removesuffix(_COUNTERS) in known)
    }
    params = fill(expected, names, arrays, path)
    for name, array in flax.traverse_util.flatten_dict(params, sep=".").items():
        if name.endswith(".var") and array.min() < 0:
            raise UserError(f"{path}: {names[name]} has negative numbers, no variances")
    return params


def abstract_inception() -> Params:
    """The parameters as `jax.ShapeDtypeStruct`s; needs no file."""
    image = jax.ShapeDtypeStruct((1, SIDE, SIDE, 3), jnp.float32)
    return jax.eval_shape(Inception().init, jax.random.key(0), image)["params"]


def published_names(params: Params) -> dict[str, str]:
    """Our parameters, by their path joined with dots -> the published names.

    Args:
      params: the tree of them, with any leaves.
    """
    names = {}
    for ours in flax.traverse_util.flatten_dict(params, sep="."):
        layer, part = ours.rsplit(".", 1)
        theirs = {"kernel": "weight"}.get(part, part) if layer == "fc" else _PARTS[part]
        names[ours] = f"{layer}.{theirs}"
    return names


def _read(path: Path) -> dict[str, np.ndarray]:
    if path.suffix == ".npz":
        return read_npz(path)
    if path.suffix != ".safetensors":
        return read_torch_file(path)
    try:
        return safetensors.numpy.load_file(path)
    except (OSError, KeyError, safetensors.SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"cannot read {path}: {reason}") from error
