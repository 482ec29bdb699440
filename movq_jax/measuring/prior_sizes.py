"""How large a prior is: parameters, work for an image, memory of its state."""

import math
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from movq_jax.measuring import prior_programs, programs
from movq_jax.measuring.programs import Shapes
from movq_jax.measuring.sizes import bytes_of, count_of, one_device
from movq_jax.training.prior_model import make_prior

# Parameters that are reported together; what is not named here is the embedding's.
_PARTS = {"layers": "trunk", "norm": "trunk", "head": "head"}


def describe_prior(config: ConfigDict) -> dict[str, Any]:
    """What a settled config says, see `prior_programs.settle`.

    Returns:
      `parameters` by part, the grid, `flops` of an image (of `forward`, one pass; of
      `sample`, drawing as `config.sample` says; of `train_step`), the calls of the
      trunk that drawing takes, and `state_bytes`.
    """
    shapes = Shapes(1, config.data.image_size, one_device())
    state = prior_programs.abstract_state(config)
    parts = {
        "forward": prior_programs.forward(config, shapes),
        "sample": prior_programs.sample(config, shapes),
        "train_step": prior_programs.train_step(_one_batch(config), shapes),
    }
    state_bytes = {
        "parameters": bytes_of(state.gen_params),
        "optimizers": bytes_of(state.gen_opt),
        "average": bytes_of(state.ema_params),
    }
    return {
        **_code(config),
        "classes": config.model.num_classes,
        "parameters": parameters_of(state.gen_params),
        "sample_calls": _calls(config),
        "flops": {
            name: programs.flops_per_image(part, shapes) for name, part in parts.items()
        },
        "state_bytes": state_bytes | {"total": sum(state_bytes.values())},
    }


def parameters_of(params: Mapping[str, Any]) -> dict[str, int]:
    """Numbers in the embedding, the trunk, the head, and all of them: `prior`."""
    counts = {"embedding": 0, "trunk": 0, "head": 0}
    for name, tree in params.items():
        counts[_PARTS.get(name, "embedding")] += count_of(tree)
    return counts | {"prior": sum(counts.values())}


def _one_batch(config: ConfigDict) -> ConfigDict:
    """For a batch of one image."""
    config = config.copy_and_resolve_references()
    config.train.accumulation = 1
    return config


def _code(config: ConfigDict) -> dict[str, Any]:
    tokens = config.tokens
    height, width = tokens.grid
    bits = sum(math.log2(size) for size in tokens.codebook_sizes)
    return {
        "image_size": height * tokens.factor,
        "factor": tokens.factor,
        "grid": [height, width, len(tokens.codebook_sizes)],
        "codebook_sizes": list(tokens.codebook_sizes),
        "tokens_per_image": height * width * len(tokens.codebook_sizes),
        "bits_per_position": bits,
        "bits_per_image": bits * height * width,
    }


def _calls(config: ConfigDict) -> int:
    """Of the trunk, for an image; with guidance each of them is two."""
    if config.model.name == "masked":
        return config.sample.steps
    return make_prior(config).num_steps
