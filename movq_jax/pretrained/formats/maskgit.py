"""MaskGIT's published checkpoints (arXiv 2202.04200) as parameters of ours.

They are Flax trees. A tensor's name is its path joined by '/', with or without the
'params' in front: `encoder/ResBlock_4/Conv_2/kernel`. Flax numbers the modules of a
kind in the order in which they are called, and layouts of arrays are ours already, so
all there is to do is to rename, to stack the transformer's layers, and to cut the table
of words. Early versions of Flax stored a norm's scale as [1, 1, 1, C].
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import flax.traverse_util
import jax
import numpy as np

from movq_jax.errors import UserError
from movq_jax.models.priors import Tokens, build_prior
from movq_jax.models.tokenizer import build_tokenizer
from movq_jax.pretrained.formats.flax_tensors import FlaxTensors, Read, Shape

CODES = 1024  # of the published tokenizers; no tensor of a prior tells
_TOKENIZER, _PRIOR = "tokenizer of MaskGIT", "prior of MaskGIT"
_MAX_LEVELS = 12  # the published ones have 5
_LAYER = "TransformerLayer_"

# Of a block of the tokenizer: ours -> theirs.
_BLOCK_PARTS = {
    "norm1.norm": "GroupNorm_0",
    "conv1": "Conv_0",
    "norm2.norm": "GroupNorm_1",
    "conv2": "Conv_1",
    "conv_shortcut": "Conv_2",
}
# Of a prior: ours, within a layer or as a whole -> theirs.
_LAYER_NAMES = {
    **{
        f"attention.{part}.{kind}": f"Attention_0/self_attention/{part}/{kind}"
        for part in ("query", "key", "value", "out")
        for kind in ("kernel", "bias")
    },
    "attention_norm.scale": "Attention_0/attention_output_ln/scale",
    "attention_norm.bias": "Attention_0/attention_output_ln/bias",
    "intermediate.kernel": "Mlp_0/intermediate_output/kernel",
    "intermediate.bias": "Mlp_0/intermediate_output/bias",
    "output.kernel": "Mlp_0/layer_output/kernel",
    "output.bias": "Mlp_0/layer_output/bias",
    "output_norm.scale": "Mlp_0/layer_output_ln/scale",
    "output_norm.bias": "Mlp_0/layer_output_ln/bias",
}
_WHOLE_NAMES = {
    "places": "Embed_0/position_embeddings/embedding",
    "norm.scale": "Embed_0/embeddings_ln/scale",
    "norm.bias": "Embed_0/embeddings_ln/bias",
    "head.dense_0.kernel": "MlmLayer_0/mlm_dense/kernel",
    "head.dense_0.bias": "MlmLayer_0/mlm_dense/bias",
    "head.norm_0.scale": "MlmLayer_0/mlm_ln/scale",
    "head.norm_0.bias": "MlmLayer_0/mlm_ln/bias",
}
_WORDS = "Embed_0/word_embeddings/embedding"
_WORD_BIAS = "MlmLayer_0/mlm_bias/bias"


def tokenizer_from(
    shapes: Mapping[str, Shape], read: Read
) -> tuple[dict[str, Any], dict[str, Any]]:
    """A published tokenizer as ours.

    Args:
      shapes: name -> shape, of all tensors of the file.
      read: name -> array, called once for each.

    Returns:
      the model section, see `build_tokenizer`, and the parameters: nested, float32.

    Raises:
      UserError: it is none: tensors are missing, left over, or of other shapes.
    """
    tensors = FlaxTensors(shapes, read, _TOKENIZER)
    model = _tokenizer_model(tensors)
    tokenizer = build_tokenizer(model)
    image = jax.ShapeDtypeStruct((1, tokenizer.factor, tokenizer.factor, 3), "float32")
    ours = jax.eval_shape(tokenizer.init, jax.random.key(0), image)["params"]
    sizes = {
        name: array.shape
        for name, array in flax.traverse_util.flatten_dict(ours, sep=".").items()
    }
    names = tokenizer_names(len(model["multipliers"]), model["res_blocks"], sizes)
    tensors.check({names[name]: shape for name, shape in sizes.items()})
    return model, _nested({name: tensors.read(names[name]) for name in sizes})


def tokenizer_names(
    levels: int, res_blocks: int, parameters: Iterable[str]
) -> dict[str, str]:
    """The published name of each of our dotted `parameters` of a tokenizer."""
    modules = {"quantize.codebook": "quantizer"}
    for net in ("encoder", "decoder"):
        blocks, convs = _order(net, levels, res_blocks)
        for i, block in enumerate(blocks):
            for part, name in _BLOCK_PARTS.items():
                modules[f"{net}.{block}.{part}"] = f"{net}/ResBlock_{i}/{name}"
        for i, conv in enumerate(convs):
            modules[f"{net}.{conv}"] = f"{net}/Conv_{i}"
        modules[f"{net}.norm_out.norm"] = f"{net}/GroupNorm_0"
    names = {}
    for parameter in parameters:
        module, _, kind = parameter.rpartition(".")
        kind = "codebook" if kind == "rows" else kind
        names[parameter] = f"{modules[module]}/{kind}"
    return names


def _order(net: str, levels: int, res_blocks: int) -> tuple[list[str], list[str]]:
    """Our names of the net's blocks and convolutions, in the order of their calls."""

    def blocks(name):
        return [f"{name}_{i}" for i in range(res_blocks)]

    mid = blocks("mid_block")
    if net == "encoder":
        down = [block for n in range(levels) for block in blocks(f"down_{n}_block")]
        return down + mid, ["conv_in", "conv_out"]
    downwards = list(reversed(range(levels)))
    up = [block for n in downwards for block in blocks(f"up_{n}_block")]
    upsamples = [f"up_{n}_upsample.conv" for n in downwards[:-1]]
    return mid + up, ["conv_in", *upsamples, "conv_out"]


def prior_from(
    shapes: Mapping[str, Shape], read: Read, codebook_size: int = CODES
) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """A published prior as our `MaskedPrior` of one channel.

    One table has the codes, the classes and [MASK], in that order. Of the bias of its
    logits, the entries of classes and [MASK] are left out: neither is ever drawn. It
    never learned to go without a class; the row for that is zeros, and `prior_protocol`
    has what makes tools refuse to guide by it.

    Args:
      shapes, read: see `tokenizer_from`.
      codebook_size: K of the tokenizer. No tensor tells where the codes end.

    Returns:
      the model section, see `build_prior`; the tokens, as `Tokens.of` takes them, still
      without the tokenizer's fingerprint; and the parameters: nested, float32.

    Raises:
      UserError: it is none: tensors are missing, left over, or of other shapes.
    """
    tensors = FlaxTensors(shapes, read, _PRIOR)
    model, tokens = _prior_model(tensors, codebook_size)
    build_prior(model, Tokens.of(tokens))  # refuses sizes that make no sense
    expected = prior_shapes(model, tokens)
    tensors.check(expected)
    params = {name: tensors.read(theirs) for name, theirs in _WHOLE_NAMES.items()}
    words, bias = tensors.read(_WORDS), tensors.read(_WORD_BIAS)
    no_class = np.zeros_like(words[:1])
    params |= {
        "embedding.table_0": words[:codebook_size].copy(),
        "classes": np.concatenate([words[codebook_size:-1], no_class]),
        "embedding.mask": words[-1:].copy(),
        "head.bias_0": bias[:codebook_size].copy(),
    }
    for name, theirs in _LAYER_NAMES.items():
        layers = [f"{_LAYER}{i}/{theirs}" for i in range(model["depth"])]
        stack = np.empty((len(layers), *expected[layers[0]]), np.float32)
        for i, layer in enumerate(layers):
            stack[i] = tensors.read(layer)
        params[f"layers.block.{name}"] = stack
    return model, tokens, _nested(params)


def prior_protocol(tokens: Mapping[str, Any]) -> dict[str, Any]:
    """What the protocol of a published prior's bundle must say, from its tokens.

    The steps are the paper's: 8 at 256², whose grid is 16 x 16, and 12 at 512². It
    never saw an image without a class.
    """
    few = math.prod(tokens["grid"]) <= 256
    return {
        "sample": {
            "steps": 8 if few else 12,
            "schedule": {"name": "cosine"},
            "choice_temperature": 4.5,
            "order": {"name": "confidence"},
        },
        "class_dropout": 0.0,
        "classes": [],
    }


def prior_shapes(
    model: Mapping[str, Any], tokens: Mapping[str, Any]
) -> dict[str, Shape]:
    """Name -> shape, of all tensors of the published prior with those sizes."""
    width, mlp, heads = model["width"], model["mlp"], model["heads"]
    words = tokens["codebook_sizes"][0] + model["num_classes"] + 1
    parts = (heads, width // heads)
    layer = {
        **{name: (width,) for name in _LAYER_NAMES.values()},
        "Attention_0/self_attention/out/kernel": (*parts, width),
        "Mlp_0/intermediate_output/kernel": (width, mlp),
        "Mlp_0/intermediate_output/bias": (mlp,),
        "Mlp_0/layer_output/kernel": (mlp, width),
    }
    for part in ("query", "key", "value"):
        layer[f"Attention_0/self_attention/{part}/kernel"] = (width, *parts)
        layer[f"Attention_0/self_attention/{part}/bias"] = parts
    whole = {name: (width,) for name in _WHOLE_NAMES.values()}
    whole[_WHOLE_NAMES["places"]] = (math.prod(tokens["grid"]) + 1, width)
    whole[_WHOLE_NAMES["head.dense_0.kernel"]] = (width, width)
    whole |= {_WORDS: (words, width), _WORD_BIAS: (words,)}
    for i in range(model["depth"]):
        whole |= {f"{_LAYER}{i}/{name}": shape for name, shape in layer.items()}
    return whole


def _tokenizer_model(tensors: FlaxTensors) -> dict[str, Any]:
    """The model section that the shapes tell of."""
    width = tensors.shape("encoder/Conv_0/kernel", 4)[-1]
    codes, dim = tensors.shape("quantizer/codebook", 2)
    # The decoder has one convolution in front, one behind each level.
    levels = tensors.count("decoder/Conv_") - 1
    blocks = tensors.count("encoder/ResBlock_")
    fits = 1 <= levels <= _MAX_LEVELS and blocks and blocks % (levels + 1) == 0
    if not fits:
        raise UserError(
            f"the checkpoint is no {_TOKENIZER}: {blocks} residual blocks of the "
            f"encoder do not fit {max(levels, 0)} levels, which the convolutions of "
            "the decoder tell of"
        )
    res_blocks = blocks // (levels + 1)
    firsts = [f"encoder/ResBlock_{n * res_blocks}" for n in range(levels)]
    widths = [tensors.shape(f"{block}/Conv_0/kernel", 4)[-1] for block in firsts]
    if any(each % width for each in widths):
        raise UserError(
            f"the checkpoint is no {_TOKENIZER}: its levels have {widths} "
            f"channels, which are no multiples of the first convolution's {width}"
        )
    return {
        "architecture": "maskgit",
        "width": width,
        "multipliers": [each // width for each in widths],
        "res_blocks": res_blocks,
        "dtype": "float32",
        "quantizer": {
            "name": "vq",
            "codebook_size": codes,
            "dim": dim,
            "beta": 0.25,
            "legacy": False,
        },
    }


def _prior_model(
    tensors: FlaxTensors, codebook_size: int
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The model section and the tokens that the shapes tell of."""
    words, width = tensors.shape(_WORDS, 2)
    length, _ = tensors.shape(_WHOLE_NAMES["places"], 2)
    query = f"{_LAYER}0/Attention_0/self_attention/query/kernel"
    _, heads, _ = tensors.shape(query, 3)
    _, mlp = tensors.shape(f"{_LAYER}0/Mlp_0/intermediate_output/kernel", 2)
    side = math.isqrt(length - 1)
    if side**2 != length - 1:
        raise UserError(
            f"the checkpoint is no {_PRIOR}: it has {length} positions, which "
            "are not a class and a square"
        )
    num_classes = words - codebook_size - 1
    if num_classes < 1:
        raise UserError(
            f"the prior's table has {words} rows, too few for the {codebook_size} "
            "codes of its tokenizer, classes and a mask: it was trained on another one"
        )
    model = {
        "name": "masked",
        "width": width,
        "depth": tensors.count(_LAYER),
        "heads": heads,
        "mlp": mlp,
        "dropout": 0.1,
        "channels": {"name": "parallel"},
        "num_classes": num_classes,
        "attention": "xla",
        "dtype": "float32",
    }
    tokens = {
        "grid": [side, side],
        "codebook_sizes": [codebook_size],
        "books": ["codebook"],
    }
    return model, tokens


def _nested(params: dict[str, np.ndarray]) -> dict[str, Any]:
    return flax.traverse_util.unflatten_dict(params, sep=".")
