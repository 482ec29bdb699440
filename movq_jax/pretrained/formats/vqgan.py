"""VQGAN-style weights and those of diffusers, as a model section and parameters."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from movq_jax.errors import UserError
from movq_jax.pretrained.formats.accounting import check_account, filled, their_shapes
from movq_jax.pretrained.formats.checkpoint_files import CheckpointFile
from movq_jax.pretrained.formats.diffusers import (
    from_vqgan_name,
    model_from_config,
    to_vqgan_name,
)
from movq_jax.pretrained.formats.diffusers_names import count_levels
from movq_jax.pretrained.formats.vqgan_config import infer_model
from movq_jax.pretrained.formats.vqgan_names import (
    Place,
    abstract_params,
    vqgan_names,
)

# What a training keeps beside the weights, and a model has no use for.
_STATE = {
    "quantize.embedding.cluster_size": "running counts of the training's codebook",
    "quantize.embedding.embed_avg": "running sums of the training's codebook",
}


class Weights(NamedTuple):
    """What a file became.

    Attributes:
      model: the section that `build_tokenizer` takes.
      params: nested, float32.
      skipped: name in the file -> why it was left out.
    """

    model: dict[str, Any]
    params: dict[str, Any]
    skipped: dict[str, str]


def read_vqgan(checkpoint: CheckpointFile, dialect: str) -> Weights:
    """Reads VQGAN-style weights.

    Args:
      checkpoint: the open file.
      dialect: of its attention, see `vqgan_names`.

    Raises:
      UserError: they are of another model, or not all there.
    """
    skipped = {name: why for name, why in _STATE.items() if name in checkpoint.shapes}
    shapes = {n: s for n, s in checkpoint.shapes.items() if n not in skipped}
    model = infer_model(shapes)
    places = vqgan_names(model, dialect)
    check_account(
        their_shapes(places, abstract_params(model)), shapes, checkpoint.dtypes
    )
    return Weights(model, filled(places, checkpoint.read), skipped)


def read_diffusers(
    checkpoint: CheckpointFile, config: Mapping[str, Any] | None
) -> Weights:
    """Reads the weights of a `VQModel`.

    Args:
      checkpoint: the open file.
      config: of its config.json. Without one the norms are taken to have 32 groups.

    Raises:
      UserError: they are of another model, not all there, or not of that config.
    """
    stated = None if config is None else model_from_config(config)
    levels = count_levels(list(checkpoint.shapes))
    names = _vqgan_names_of(checkpoint, levels)
    shapes = {name: checkpoint.shapes[theirs] for name, theirs in names.items()}
    groups = {} if stated is None else {"norm_groups": stated["norm_groups"]}
    model = infer_model(shapes, **groups)
    if stated is not None:
        _check_config(stated, model)
    places = {
        ours: Place(from_vqgan_name(place.name, levels), place.layout)
        for ours, place in vqgan_names(model, "linear").items()
    }
    # Old names of the attention's maps are counted under today's.
    today = {from_vqgan_name(name, levels): names[name] for name in names}
    strangers = set(checkpoint.shapes) - set(names.values())
    found = {name: checkpoint.shapes[theirs] for name, theirs in today.items()}
    found |= {name: checkpoint.shapes[name] for name in sorted(strangers)}
    dtypes = {name: checkpoint.dtypes[theirs] for name, theirs in today.items()}
    check_account(their_shapes(places, abstract_params(model)), found, dtypes)
    return Weights(model, filled(places, lambda n: checkpoint.read(today[n])), {})


def _vqgan_names_of(checkpoint: CheckpointFile, levels: int) -> dict[str, str]:
    """VQGAN-style name -> the file's, of all tensors that have one.

    Raises:
      UserError: two tensors have the same.
    """
    names: dict[str, str] = {}
    for theirs in checkpoint.shapes:
        name = to_vqgan_name(theirs, levels)
        if name in names:
            raise UserError(
                f"{theirs} and {names[name]} are the same tensor under two names of "
                "diffusers: keep one of them"
            )
        if name is not None:
            names[name] = theirs
    return names


def _check_config(stated: Mapping[str, Any], model: Mapping[str, Any]) -> None:
    """What config.json says is what the tensors' shapes say.

    Raises:
      UserError: it is not.
    """
    said, found = dict(stated), dict(model)
    for section in (said, found):
        section |= {f"codebook's {k}": v for k, v in section.pop("quantizer").items()}
    differs = [key for key in said if said[key] != found[key]]
    if differs:
        listed = [f"{key} {said[key]!r}, not {found[key]!r}" for key in differs]
        raise UserError(
            f"config.json describes other weights than those beside it: it says "
            f"{'; '.join(listed)}: use the config.json that came with the weights"
        )
