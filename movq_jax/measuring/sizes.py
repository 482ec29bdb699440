"""How large a model is: parameters, indices, work for an image, memory of its state."""

import math
from collections.abc import Iterable
from typing import Any

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from movq_jax.errors import UserError
from movq_jax.measuring import programs
from movq_jax.measuring.programs import Program, Shapes
from movq_jax.models.tokenizer import Tokenizer, build_tokenizer
from movq_jax.training import sharding, tokenizer_task

RAW_BITS = 24  # of a pixel: three bytes

# Modules of the tokenizer that are reported together.
PARTS = {
    "encoder": ("encoder",),
    "quantizer": ("quant_conv", "quantize", "post_quant_conv"),
    "decoder": ("decoder",),
}


def describe_model(model: Any, image_size: int) -> dict[str, Any]:
    """What a config's `model` section alone decides, for square images.

    Returns:
      `parameters` by part, `grid`, `tokens_per_image`, bits, `flops` of an image.

    Raises:
      UserError: the model is wrong, or its factor does not divide the size.
    """
    tokenizer = build_tokenizer(model)
    if image_size % tokenizer.factor:
        raise UserError(
            f"the image size is {image_size}, but must be a multiple of "
            f"{tokenizer.factor}, the factor of config.model"
        )
    shapes = Shapes(1, image_size, one_device())
    parts = [
        *programs.tokenizer_parts(model, shapes),
        programs.encode(model, shapes),
        programs.decode(model, shapes),
    ]
    params = parts[0].arguments[0]
    return {
        "image_size": image_size,
        "parameters": _parameters(params),
        **_code(tokenizer, shapes),
        "flops": _flops(parts, shapes),
    }


def describe_training(config: ConfigDict) -> dict[str, Any]:
    """What the rest of a config adds: its loss networks, its steps, its state.

    Returns:
      `parameters` and `flops` (of an image) of the networks of the losses,
      `train_step`: FLOPs of an image by phase (with lazy R1 the mean over its steps),
      and `state_bytes` by part.
    """
    size = config.data.image_size
    shapes = Shapes(1, size, one_device())
    parts = list(programs.loss_parts(config, shapes))
    frozen = tokenizer_task.abstract_frozen(config)
    state = jax.eval_shape(lambda: tokenizer_task.init_state(config))
    # Of a whole batch: the search goes in chunks where it is large.
    batch = Shapes(config.train.batch_size, size, one_device())
    steps = {
        phase: programs.flops_per_image(
            programs.train_step(config, phase, batch), batch
        )
        for phase in programs.phases(config)
    }
    state_bytes = {
        "parameters": bytes_of((state.gen_params, state.disc_params)),
        "optimizers": bytes_of((state.gen_opt, state.disc_opt)),
        "average": bytes_of(state.ema_params),
        "others": bytes_of(state.variables),
        "loss_networks": bytes_of(frozen),
    }
    return {
        "parameters": {
            "discriminator": count_of(state.disc_params),
            "perceptual": count_of(frozen),
        },
        "flops": _flops(parts, shapes),
        "train_step": steps,
        "state_bytes": state_bytes | {"total": sum(state_bytes.values())},
    }


def _code(tokenizer: Tokenizer, shapes: Shapes) -> dict[str, Any]:
    """The grid of indices, and how many bits it takes."""
    _, height, width, channels = programs.grid_shape(tokenizer, shapes)
    bits = tokenizer.bits_per_position
    total = height * width * bits
    pixels = shapes.image_size**2
    return {
        "factor": tokenizer.factor,
        "grid": [height, width, channels],
        "codebook_size": tokenizer.codebook_size,
        "codebook_sizes": list(tokenizer.codebook_sizes),
        "tokens_per_image": height * width * channels,
        "bits_per_position": bits,
        "bits_per_image": total,
        "bits_per_pixel": total / pixels,
        "compression_ratio": RAW_BITS * pixels / total if total else math.inf,
    }


def _parameters(params: Any) -> dict[str, int]:
    counts = {
        part: sum(count_of(params[name]) for name in names if name in params)
        for part, names in PARTS.items()
    }
    return counts | {"tokenizer": count_of(params)}


def _flops(parts: Iterable[Program], shapes: Shapes) -> dict[str, int]:
    return {part.name: programs.flops_per_image(part, shapes) for part in parts}


def count_of(tree: Any) -> int:
    """Numbers in a pytree of arrays or shapes."""
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def bytes_of(tree: Any) -> int:
    """Bytes of a pytree of arrays or shapes."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def one_device() -> Mesh:
    """A mesh of the first device."""
    return sharding.make_mesh(jax.devices()[:1])
