"""Where our parameters lie in VQGAN-style files, and how their arrays change.

Names of this style have taming-transformers (VQGAN, arXiv 2012.09841), SBER-MoVQGAN and
Kandinsky, whose decoder has spatial norms, and Dual Codebook VQ (arXiv 2503.10832). Two
dialects differ in attention alone: its four maps are 1x1 convolutions, or linear
layers.
"""

import functools
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np

from movq_jax.errors import UserError
from movq_jax.models.tokenizer import Tokenizer, build_tokenizer

DIALECTS = ("conv", "linear")

# Of the quantizers that are of this style, the rows of the books.
_BOOKS = {
    "quantize.codebook.rows": "quantize.embedding.weight",
    "quantize.global_codebook.rows": "quantize.global_codebook",
    "quantize.local_codebook.rows": "quantize.local_codebook.weight",
}
# From our layer's path to theirs, one after the other.
_LAYERS = [
    (r"\.(down|up)_(\d+)_(block|attn)_(\d+)", r".\1.\2.\3.\4"),
    (r"\.(down|up)_(\d+)_(downsample|upsample)", r".\1.\2.\3"),
    (r"\.conv_shortcut$", ".nin_shortcut"),
]
_LEAVES = {"kernel": "weight", "scale": "weight", "bias": "bias"}
_TRANSFORMER = re.compile(r"quantize\.global_codebook\.layers_(\d+)\.(\w+)$")
_ATTENTION_MAP = re.compile(r"\.(q|k|v|proj_out)\.kernel$")


class Place(NamedTuple):
    """Where a parameter lies in a file.

    Attributes:
      name: the key.
      layout: how the array lies there: 'conv' is [out, in, height, width] of our
        [height, width, in, out], 'linear' [out, in] of our [in, out], 'conv1x1' [out,
        in, 1, 1] of our [in, out], 'plain' the same.
    """

    name: str
    layout: str


def abstract_params(model: Mapping[str, Any]) -> dict[str, jax.ShapeDtypeStruct]:
    """The parameters of a model section by their path joined with dots; no arrays."""
    return _abstract(build_tokenizer(model))


@functools.lru_cache(maxsize=4)  # tracing a large model takes seconds
def _abstract(module: Tokenizer) -> dict[str, jax.ShapeDtypeStruct]:
    image = jnp.zeros((1, module.factor, module.factor, 3))
    params = jax.eval_shape(module.init, jax.random.key(0), image)["params"]
    return flax.traverse_util.flatten_dict(dict(params), sep=".")


def vqgan_names(model: Mapping[str, Any], dialect: str = "conv") -> dict[str, Place]:
    """Our parameters, by their path joined with dots -> where they lie.

    Args:
      model: the config section that `build_tokenizer` takes.
      dialect: of the attention, 'conv' or 'linear'.

    Raises:
      UserError: the model has a part that files of this style do not know.
    """
    modulated = model["decoder_norm"]["name"] == "spatial"
    places = {}
    for ours, struct in abstract_params(model).items():
        layout = _layout(ours, len(struct.shape), dialect)
        places[ours] = Place(_their_name(ours, modulated), layout)
    return places


def _their_name(ours: str, modulated: bool) -> str:
    if ours in _BOOKS:
        return _BOOKS[ours]
    layer, leaf = ours.rsplit(".", 1)
    if layer.startswith("quantize."):
        return _transformer_name(layer, leaf)
    if layer.endswith(".norm"):
        # Our norm layers hold Flax's as 'norm'; theirs do so in spatial norms alone.
        own = modulated and layer.startswith("decoder.")
        layer = layer.removesuffix(".norm") + (".norm_layer" if own else "")
    for pattern, replacement in _LAYERS:
        layer = re.sub(pattern, replacement, layer)
    return f"{layer}.{_LEAVES[leaf]}"


def _transformer_name(layer: str, leaf: str) -> str:
    """The key in Dual Codebook VQ's global book, a stack of torch's encoder layers."""
    match = _TRANSFORMER.match(layer)
    if match is None:
        raise UserError(
            f"VQGAN-style files have no place for {layer}.{leaf}: their quantizers are "
            "'vq' and 'dual' with plain codes"
        )
    number, part = match.groups()
    if part == "in_proj":  # q, k and v in one, which torch gives no layer of its own
        part = f"self_attn.in_proj_{_LEAVES[leaf]}"
    else:
        part = f"self_attn.{part}" if part == "out_proj" else part
        part = f"{part}.{_LEAVES[leaf]}"
    return f"quantize.transformer.layers.{number}.{part}"


def _layout(ours: str, rank: int, dialect: str) -> str:
    if dialect not in DIALECTS:
        raise ValueError(f"dialect {dialect!r} is none of {DIALECTS}")
    if not ours.endswith(".kernel"):
        return "plain"
    if rank == 4:
        return "conv"
    is_map = _ATTENTION_MAP.search(ours) and not ours.startswith("quantize.")
    return "conv1x1" if is_map and dialect == "conv" else "linear"


def to_ours(array: np.ndarray, layout: str) -> np.ndarray:
    """An array of a file as a parameter of ours: a view where that is possible."""
    if layout == "conv":
        return array.transpose(2, 3, 1, 0)
    if layout == "conv1x1":
        return array[:, :, 0, 0].T
    return array.T if layout == "linear" else array


def to_theirs(array: np.ndarray, layout: str) -> np.ndarray:
    """The inverse of `to_ours`."""
    if layout == "conv":
        return array.transpose(3, 2, 0, 1)
    if layout == "conv1x1":
        return array.T[:, :, None, None]
    return array.T if layout == "linear" else array


def their_shape(shape: tuple[int, ...], layout: str) -> tuple[int, ...]:
    """The shape in a file of a parameter that has `shape` here."""
    if layout == "conv":
        return tuple(shape[axis] for axis in (3, 2, 0, 1))
    if layout == "conv1x1":
        return (*shape[::-1], 1, 1)
    return shape[::-1] if layout == "linear" else tuple(shape)
