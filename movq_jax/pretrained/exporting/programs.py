"""What is exported of a model: functions of weights and arrays.

A tokenizer has an encoder and a decoder, a prior has a sampler. Each is made for images
of one size, and for any number of them.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np

from movq_jax.errors import UserError
from movq_jax.models.pixels import from_uint8, to_uint8
from movq_jax.models.priors import build_prior
from movq_jax.models.priors.tokens import Tokens
from movq_jax.models.tokenizer import Tokenizer, build_tokenizer
from movq_jax.pretrained.bundle import Bundle
from movq_jax.pretrained.tokenizer import inference_variables
from movq_jax.sampling.autoregressive import decode_autoregressive
from movq_jax.sampling.keys import image_keys
from movq_jax.sampling.masked import decode_masked
from movq_jax.sampling.options import SampleOptions
from movq_jax.sampling.plan import autoregressive_plan, masked_plan

BATCH = "b"  # how the number of images is called in a shape
PIXELS = {"uint8": "0 to 255", "float32": "-1 to 1"}


class Array(NamedTuple):
    """An input or output of a program."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]  # with `BATCH` for the number of images
    values: str  # their range, for people


class Program(NamedTuple):
    """A function of arrays, and the weights that it works with."""

    name: str  # 'encoder', 'decoder' or 'sampler'
    image_size: tuple[int, int]  # (height, width) in pixels
    function: Callable[..., jax.Array]  # of (weights, *arrays)
    weights: dict[str, np.ndarray]  # also some that the function has no use for
    inputs: tuple[Array, ...]
    output: Array


def tokenizer_programs(
    bundle: Bundle,
    image_size: tuple[int, int],
    pixels: str = "uint8",
    *,
    one_by_one: bool = True,
) -> tuple[Program, Program]:
    """Encoder and decoder of a tokenizer.

    Args:
      bundle: the tokenizer's.
      image_size: (height, width), multiples of the tokenizer's factor.
      pixels: what images go in and come out as: 'uint8', 0 to 255, or 'float32', -1 to
        1, clipped to it.
      one_by_one: search the codes for one image after the other. So the memory of the
        search does not grow with the number of images, which may be unknown.

    Raises:
      UserError: a side is no multiple of the factor.
    """
    module = build_tokenizer(bundle.model)
    variables = inference_variables(module, bundle.params)
    weights = _flat(variables)
    grid = _grid(image_size, module.factor)
    images = Array("images", pixels, (BATCH, *image_size, 3), PIXELS[pixels])
    shape = (BATCH, *grid, module.num_channels)
    ids = Array("ids", "int32", shape, _id_range(module.codebook_sizes))

    encoded = _encode_one_by_one if one_by_one else _encode

    def encode(weights: Mapping[str, jax.Array], images: jax.Array) -> jax.Array:
        x = from_uint8(images) if pixels == "uint8" else images
        return encoded(module, _nested(weights), x)

    def decode(weights: Mapping[str, jax.Array], ids: jax.Array) -> jax.Array:
        x = module.apply(_nested(weights), ids, method="decode_ids")
        return to_uint8(x) if pixels == "uint8" else jnp.clip(x, -1.0, 1.0)

    size = tuple(image_size)
    return (
        Program("encoder", size, encode, weights, (images,), ids),
        Program("decoder", size, decode, weights, (ids,), images),
    )


def sampler_program(
    prior: Bundle, factor: int, options: Mapping[str, Any] | None = None
) -> Program:
    """What draws indices, with options that are part of the program.

    It takes a seed, the number of each image, and of a class-conditional prior the
    class of each: with these an image is what `PretrainedPrior.sample` draws.

    Args:
      prior: its bundle.
      factor: of its tokenizer.
      options: fields of `SampleOptions` that are to differ from the bundle's.

    Raises:
      UserError: the options do not fit the prior.
    """
    tokens = Tokens.of(prior.model["tokens"])
    # cuDNN's attention is for one kind of device.
    model = {**prior.model["prior"], "attention": "xla"}
    module = build_prior(model, tokens)
    chosen = SampleOptions.of(sample_options(prior, options))
    masked = model["name"] == "masked"
    plan = (masked_plan if masked else autoregressive_plan)(module, chosen)
    decode = decode_masked if masked else decode_autoregressive
    shape = (*tokens.grid, tokens.num_channels)
    nothing = jnp.zeros((1, tokens.num_positions, tokens.num_channels), jnp.int32)

    def draw(
        weights: Mapping[str, jax.Array],
        seed: jax.Array,
        numbers: jax.Array,
        *labels: jax.Array,
    ) -> jax.Array:
        variables = _nested(weights)

        # An image alone, so that inside all shapes are known.
        def draw_one(key: jax.Array, label: jax.Array) -> jax.Array:
            start = dict(keys=key[None], ids=nothing, known=nothing > 0)
            drawn = decode(module, variables, **start, labels=label[None], options=plan)
            return drawn.reshape(shape)

        keys = image_keys(seed, numbers)
        return jax.vmap(draw_one)(keys, labels[0] if labels else 0 * numbers)

    inputs = [
        Array("seed", "uint32", (), "0 to 4294967295"),
        Array("numbers", "int32", (BATCH,), "of the images, from 0"),
    ]
    if classes := model["num_classes"]:
        inputs.append(Array("labels", "int32", (BATCH,), _label_range(prior, classes)))
    ids = Array("ids", "int32", (BATCH, *shape), _id_range(tokens.codebook_sizes))
    size = tuple(side * factor for side in tokens.grid)
    weights = _flat({"params": prior.params})
    return Program("sampler", size, draw, weights, tuple(inputs), ids)


def sample_options(
    prior: Bundle, options: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """What a prior draws with: fields of `SampleOptions` that have no default."""
    return {**prior.protocol["sample"], **(options or {})}


def _encode(module: Tokenizer, variables: Any, x: jax.Array) -> jax.Array:
    return module.apply(variables, x, method="encode")


def _encode_one_by_one(module: Tokenizer, variables: Any, x: jax.Array) -> jax.Array:
    """The latents of all images at once, their codes for one image after the other."""

    def search(z: jax.Array) -> jax.Array:
        return module.apply(variables, z[None], method=_quantised)[0]

    return jax.lax.map(search, module.apply(variables, x, method="encode_latents"))


def _quantised(module: Tokenizer, z: jax.Array) -> jax.Array:
    return module.quantize(z).ids


def _grid(image_size: tuple[int, int], factor: int) -> tuple[int, int]:
    height, width = image_size
    if height % factor or width % factor:
        raise UserError(
            f"images of {height}x{width} have no grid of indices: both sides must be "
            f"multiples of {factor} for this model"
        )
    return height // factor, width // factor


def _id_range(sizes: tuple[int, ...]) -> str:
    if len(set(sizes)) == 1:
        return f"0 to {sizes[0] - 1}"
    return "0 to " + ", ".join(f"{size - 1}" for size in sizes) + " in the channels"


def _label_range(prior: Bundle, classes: int) -> str:
    known = f"0 to {classes - 1}"
    # A prior whose classes were never dropped does not know what "none" means.
    if prior.protocol.get("class_dropout") == 0:
        return known
    return f"{known}, or {classes} for no class"


def _flat(variables: Mapping[str, Any]) -> dict[str, np.ndarray]:
    flat = flax.traverse_util.flatten_dict(dict(variables), sep=".")
    return {name: np.asarray(array) for name, array in flat.items()}


def _nested(weights: Mapping[str, jax.Array]) -> dict[str, Any]:
    return flax.traverse_util.unflatten_dict(dict(weights), sep=".")
