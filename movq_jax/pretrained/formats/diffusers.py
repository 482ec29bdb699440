"""diffusers' `VQModel` in and out: `config.json` and its weights.

Traps: its modulated norms have 32 groups, whatever `norm_num_groups` says; its
`decode` quantises what it is given unless told not to; and with spatial norms its
latent and its codes must have the same number of channels.
"""

import json
from collections.abc import Mapping
from typing import Any

import safetensors.numpy
from etils import epath

from movq_jax import atomic
from movq_jax.errors import UserError
from movq_jax.models.layers import NORM_GROUPS, num_groups
from movq_jax.pretrained.bundle import Bundle, flatten
from movq_jax.pretrained.formats.diffusers_names import from_vqgan_name, to_vqgan_name
from movq_jax.pretrained.formats.vqgan_config import (
    check_groups,
    model_section,
    vq_section,
)
from movq_jax.pretrained.formats.vqgan_names import to_theirs, vqgan_names

__all__ = [
    "CONFIG_FILE",
    "WEIGHTS_FILES",
    "config_from_model",
    "from_vqgan_name",
    "model_from_config",
    "to_vqgan_name",
    "write_diffusers",
]

CLASS = "VQModel"
CONFIG_FILE = "config.json"
WEIGHTS_FILES = (
    "diffusion_pytorch_model.safetensors",
    "diffusion_pytorch_model.bin",
    "diffusion_pytorch_model.fp16.safetensors",
    "diffusion_pytorch_model.fp16.bin",
)
_DOWN, _UP = "DownEncoderBlock2D", "UpDecoderBlock2D"
_DOWN_TYPES = {_DOWN: False, f"Attn{_DOWN}": True}  # -> has attention
_UP_TYPES = {_UP: False, f"Attn{_UP}": True}
_DEFAULTS = {  # of the class, for fields that a file leaves out
    "in_channels": 3,
    "out_channels": 3,
    "down_block_types": [_DOWN],
    "up_block_types": [_UP],
    "block_out_channels": [64],
    "layers_per_block": 1,
    "act_fn": "silu",
    "latent_channels": 3,
    "num_vq_embeddings": 256,
    "norm_num_groups": 32,
    "vq_embed_dim": None,
    "norm_type": "group",
    "mid_block_add_attention": True,
}
_ONLY = {
    "in_channels": (3,),
    "out_channels": (3,),
    "act_fn": ("silu", "swish"),
    "norm_type": ("group", "spatial"),
    "mid_block_add_attention": (True,),
}


def model_from_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """diffusers' config -> the section that `build_tokenizer` takes.

    Raises:
      UserError: it is of another class, or has a value that our networks cannot have.
    """
    name = config.get("_class_name", CLASS)
    if name != CLASS:
        raise UserError(
            f"config.json is of diffusers' class {name!r:.60}: of diffusers' "
            f"autoencoders only {CLASS} has a codebook, and is read"
        )
    fields = {key: config.get(key, value) for key, value in _DEFAULTS.items()}
    for key, allowed in _ONLY.items():
        if fields[key] not in allowed:
            raise _odd(fields, key, f"only {' or '.join(map(repr, allowed))} is read")
    widths, latent = fields["block_out_channels"], fields["latent_channels"]
    _check_widths(fields)
    dim = fields["vq_embed_dim"]
    dim = latent if dim is None else dim
    for key in ("layers_per_block", "latent_channels", "num_vq_embeddings"):
        _check_count(fields, key)
    modulated = fields["norm_type"] == "spatial"
    if modulated and dim != latent:
        raise _odd(fields, "vq_embed_dim", f"with spatial norms it must be {latent}")
    return model_section(
        width=widths[0],
        widths=widths,
        res_blocks=fields["layers_per_block"],
        attention_factors=_attention(fields),
        z_channels=latent,
        norm_groups=fields["norm_num_groups"],
        modulated=modulated,
        quantizer=vq_section(fields["num_vq_embeddings"], dim),
    )


def _check_widths(fields: Mapping[str, Any]) -> None:
    widths = fields["block_out_channels"]
    _check_count(fields, "norm_num_groups")
    good = isinstance(widths, list) and widths
    if not good or not all(type(width) is int and width > 0 for width in widths):
        raise _odd(fields, "block_out_channels", "give the channels of each level")
    if any(width % widths[0] for width in widths):
        why = "only multiples of the first are read"
        raise _odd(fields, "block_out_channels", why)
    where = "config.json's block_out_channels"
    check_groups(widths, fields["norm_num_groups"], where)
    if fields["norm_type"] == "spatial":
        check_groups(widths, NORM_GROUPS, where)


def _check_count(fields: Mapping[str, Any], key: str) -> None:
    if type(fields[key]) is not int or fields[key] < 1:
        raise _odd(fields, key, "give a whole number from 1")


def _attention(fields: Mapping[str, Any]) -> list[int]:
    """The factors of the levels with attention, which both halves must agree on."""
    levels = len(fields["block_out_channels"])
    chosen = []
    for key, known in (
        ("down_block_types", _DOWN_TYPES),
        ("up_block_types", _UP_TYPES),
    ):
        types = fields[key]
        fits = isinstance(types, list) and len(types) == levels
        if not fits or not all(isinstance(t, str) and t in known for t in types):
            raise _odd(fields, key, f"give {levels} of {' and '.join(known)}")
        chosen.append([known[name] for name in types])
    down, up = chosen
    if down != up[::-1]:
        why = "attention is read where the encoder's same level has it, too"
        raise _odd(fields, "up_block_types", why)
    return [2**level for level in range(levels) if down[level]]


def _odd(fields: Mapping[str, Any], key: str, what: str) -> UserError:
    return UserError(f"{key} in config.json is {fields[key]!r:.100}; {what}")


def config_from_model(model: Mapping[str, Any]) -> dict[str, Any]:
    """The section that `build_tokenizer` takes -> diffusers' config.

    Raises:
      UserError: no `VQModel` is like this model; the message says why.
    """
    quantizer = _plain_quantizer(model)
    multipliers = model["multipliers"]
    if multipliers[0] != 1:
        raise _inexpressible(
            f"its first level is {multipliers[0]} times as wide as its first "
            "convolution, and there they are equal"
        )
    widths = [model["width"] * multiplier for multiplier in multipliers]
    modulated = model["decoder_norm"]["name"] == "spatial"
    if modulated and model["z_channels"] != quantizer["dim"]:
        raise _inexpressible(
            f"its latent has {model['z_channels']} channels and its codes "
            f"{quantizer['dim']}, and with spatial norms they are equal there"
        )
    groups = _encoder_groups(model, widths, modulated)
    attention = [2**level in model["attention_factors"] for level in range(len(widths))]
    return {
        "_class_name": CLASS,
        "act_fn": "silu",
        "block_out_channels": widths,
        "down_block_types": ["Attn" * has + _DOWN for has in attention],
        "in_channels": 3,
        "latent_channels": model["z_channels"],
        "layers_per_block": model["res_blocks"],
        "norm_num_groups": groups,
        "norm_type": "spatial" if modulated else "group",
        "num_vq_embeddings": quantizer["codebook_size"],
        "out_channels": 3,
        "up_block_types": ["Attn" * has + _UP for has in attention[::-1]],
        "vq_embed_dim": quantizer["dim"],
    }


def _plain_quantizer(model: Mapping[str, Any]) -> Mapping[str, Any]:
    if "architecture" in model:
        raise _inexpressible(f"its networks are those of {model['architecture']}")
    quantizer = model["quantizer"]
    name, channels = quantizer["name"], quantizer.get("num_channels", 1)
    if name not in ("vq", "multichannel") or (name != "vq" and channels != 1):
        several = f" with {channels} channels" if channels > 1 else ""
        raise _inexpressible(
            f"its quantizer is {name!r}{several}, and there a position has one index "
            "into one plain codebook"
        )
    if quantizer.get("form", "plain") != "plain":
        raise _inexpressible(
            f"its codes are of the form {quantizer['form']!r}, and there they are plain"
        )
    return quantizer


def _encoder_groups(
    model: Mapping[str, Any], widths: list[int], modulated: bool
) -> int:
    """The one number of groups that all group norms have, as `VQModel` needs it."""
    most = model.get("norm_groups", NORM_GROUPS)
    own = model["decoder_norm"].get("groups", most)
    encoder = {num_groups(width, most) for width in widths}
    decoder = {num_groups(width, own) for width in widths}
    if modulated and decoder != {NORM_GROUPS}:
        raise _inexpressible(
            f"its spatial norms have {_either(decoder)} groups, and there "
            f"{NORM_GROUPS}: train with config.model.decoder_norm.groups="
            f"{NORM_GROUPS} and widths that are multiples of it"
        )
    both = encoder if modulated else encoder | decoder
    if len(both) > 1:
        raise _inexpressible(
            f"its group norms have {_either(both)} groups, and there all have the same "
            "number: let config.model.norm_groups divide the width of every level"
        )
    return both.pop()


def _either(numbers: set[int]) -> str:
    return " or ".join(map(str, sorted(numbers)))


def _inexpressible(why: str) -> UserError:
    return UserError(f"diffusers' {CLASS} cannot hold this model: {why}")


def write_diffusers(bundle: Bundle, folder: epath.PathLike) -> None:
    """Writes a tokenizer as diffusers does: `VQModel.from_pretrained(folder)`.

    Files of the same names are replaced; the config is the last to be there.

    Args:
      bundle: as `read_bundle` gives it.
      folder: made if it is not there.

    Raises:
      UserError: no `VQModel` can hold the model, or the folder cannot be written.
    """
    if bundle.kind != "tokenizer":
        raise UserError(
            f"the model is a {bundle.kind}: diffusers' {CLASS} holds tokenizers alone"
        )
    config = config_from_model(bundle.model)
    arrays = flatten(bundle.params)
    levels = len(config["block_out_channels"])
    tensors = {
        from_vqgan_name(place.name, levels): to_theirs(arrays[ours], place.layout)
        for ours, place in vqgan_names(bundle.model, "linear").items()
    }
    folder = epath.Path(folder)
    try:
        # Weights of before with this config, or the reverse, are never there.
        (folder / CONFIG_FILE).unlink(missing_ok=True)
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(f"cannot write {folder}: {reason}") from error
    contiguous = {name: array.copy(order="C") for name, array in tensors.items()}
    # diffusers asks for this mark of whose layout the tensors have.
    data = safetensors.numpy.save(contiguous, metadata={"format": "pt"})
    with atomic.replacing(folder / WEIGHTS_FILES[0]) as temporary:
        temporary.write_bytes(data)
    text = json.dumps(config, indent=2, sort_keys=True) + "\n"
    atomic.write_text(folder / CONFIG_FILE, text)
