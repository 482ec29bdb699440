"""The model section of VQGAN-style weights, inferred from the shapes of their tensors.

What shapes do not tell is what all published files have: norms of 32 groups; of Dual
Codebook VQ's transformer, 8 heads.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from movq_jax.errors import UserError
from movq_jax.models.layers import NORM_GROUPS

Shapes = Mapping[str, tuple[int, ...]]

_DUAL_HEADS = 8  # of the authors' code


def infer_model(shapes: Shapes, norm_groups: int = NORM_GROUPS) -> dict[str, Any]:
    """The config section of VQGAN-style weights, as `build_tokenizer` takes it.

    Args:
      shapes: name -> shape, in either dialect of the attention.
      norm_groups: of the group norms, which no shape tells.

    Raises:
      UserError: a tensor that tells of the model is not there, or has a shape that no
        model of this style has; the message names it.
    """
    width = _shape(shapes, "encoder.conv_in.weight", 4)[0]
    levels = _count(shapes, r"encoder\.down\.(\d{1,3})\.block\.")
    tops = [
        _shape(shapes, f"encoder.down.{level}.block.0.conv1.weight", 4)[0]
        for level in range(levels)
    ]
    if not tops:
        raise UserError("the encoder has no encoder.down.0: it is not VQGAN's")
    attention = [
        2**level
        for level in range(levels)
        if f"encoder.down.{level}.attn.0.q.weight" in shapes
    ]
    modulated = "decoder.norm_out.conv_y.weight" in shapes
    return model_section(
        widths=tops,
        width=_checked_width(width, tops, norm_groups),
        res_blocks=_count(shapes, r"encoder\.down\.0\.block\.(\d{1,3})\."),
        attention_factors=attention,
        z_channels=_shape(shapes, "encoder.conv_out.weight", 4)[0],
        norm_groups=norm_groups,
        modulated=modulated,
        quantizer=_quantizer(shapes),
    )


def model_section(
    *,
    width: int,
    widths: Sequence[int],
    res_blocks: int,
    attention_factors: Sequence[int],
    z_channels: int,
    norm_groups: int,
    modulated: bool,
    quantizer: Mapping[str, Any],
) -> dict[str, Any]:
    """The section with all its keys, as a config of this project has them.

    Args:
      width: of the first convolution.
      widths: of each level, multiples of `width`.
      norm_groups: of the group norms. Published spatial norms have 32 in any case.
      modulated: whether the decoder has spatial norms.
      quantizer: its section.
      res_blocks, attention_factors, z_channels: see `Encoder`.
    """
    norm: dict[str, Any] = {"name": "group"}
    if modulated:
        # How a norm starts is of no use to weights that are there: torch's, as theirs.
        norm = {"name": "spatial", "init": "torch"}
        if norm_groups != NORM_GROUPS:
            norm["groups"] = NORM_GROUPS
    return {
        "width": width,
        "multipliers": [each // width for each in widths],
        "res_blocks": res_blocks,
        "attention_factors": list(attention_factors),
        "z_channels": z_channels,
        "norm_groups": norm_groups,
        "dropout": 0.0,
        "dtype": "float32",
        "decoder_norm": norm,
        "quantizer": dict(quantizer),
    }


def vq_section(size: int, dim: int) -> dict[str, Any]:
    """The section of a plain quantizer of `size` codes x `dim`.

    `legacy`: all published models of this style were trained so, see `vq_loss`.
    """
    return {
        "name": "vq",
        "codebook_size": size,
        "dim": dim,
        "beta": 0.25,
        "legacy": True,
        "form": "plain",
        "estimator": "straight_through",
    }


def check_groups(widths: Sequence[int], groups: int, where: str) -> None:
    """Each width is a multiple of `groups`, as torch's group norm needs it.

    Raises:
      UserError: one is not.
    """
    for width in widths:
        if width % groups:
            raise UserError(
                f"{where} has a level of {width} channels, no multiple of the "
                f"{groups} groups of its norms: no published network is like that"
            )


def _checked_width(width: int, widths: Sequence[int], norm_groups: int) -> int:
    for level, each in enumerate(widths):
        if not width or each % width:
            raise UserError(
                f"level {level} of the encoder has {each} channels, no multiple of the "
                f"{width} of encoder.conv_in: networks of VQGAN have multiples"
            )
    check_groups([width, *widths], norm_groups, "the encoder")
    return width


def _quantizer(shapes: Shapes) -> dict[str, Any]:
    if "quantize.global_codebook" in shapes:
        return _dual(shapes)
    if "quantize.embedding.weight" not in shapes:
        there = [name for name in shapes if name.startswith(("quantize", "quant"))]
        hint = f": it has {', '.join(there[:4])}" if there else ""
        raise UserError(
            "there is no quantize.embedding.weight, the codebook of VQGAN's quantizer"
            f"{hint}; other quantizers, and autoencoders without codes, are not read"
        )
    size, dim = _shape(shapes, "quantize.embedding.weight", 2)
    latent = _shape(shapes, "quant_conv.weight", 4)[0]
    if latent != dim:
        raise UserError(
            f"quantize.embedding.weight has codes of {dim} numbers, but quant_conv "
            f"gives {latent}: with one code a position they are the same"
        )
    return vq_section(size, dim)


def _dual(shapes: Shapes) -> dict[str, Any]:
    """Of Dual Codebook VQ, as its authors' code names it."""
    sizes = [
        _shape(shapes, name, 2)
        for name in ("quantize.global_codebook", "quantize.local_codebook.weight")
    ]
    (rows, dim), (local_rows, local_dim) = sizes
    depth = _count(shapes, r"quantize\.transformer\.layers\.(\d{1,3})\.")
    ffn = 2048
    if depth:
        ffn = _shape(shapes, "quantize.transformer.layers.0.linear1.weight", 2)[0]
    return {
        "name": "dual",
        "codebook_size": rows if rows == local_rows else [rows, local_rows],
        "dim": 2 * dim if dim == local_dim else [dim, local_dim],
        "global_half": "first",
        "depth": depth,
        "heads": _DUAL_HEADS,
        "ffn": ffn,
        "dropout": 0.1,
        "beta": 0.25,
        "legacy": False,
    }


def _shape(shapes: Shapes, name: str, rank: int) -> tuple[int, ...]:
    if name not in shapes:
        raise UserError(f"there is no {name}, which every VQGAN has")
    shape = tuple(shapes[name])
    if len(shape) != rank or 0 in shape:
        raise UserError(
            f"{name} has the shape {list(shape)}, but must have {rank} dimensions, "
            "none of them 0"
        )
    return shape


def _count(shapes: Shapes, pattern: str) -> int:
    """How many numbers 0, 1, ... a part of the names takes, without a gap."""
    matches = (re.match(pattern, name) for name in shapes)
    found = {int(match[1]) for match in matches if match}
    return next(n for n in range(len(found) + 1) if n not in found)
