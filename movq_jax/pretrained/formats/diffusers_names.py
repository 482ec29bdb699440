"""The names of diffusers' `VQModel`, and those of VQGAN-style files.

The same network under other names: levels of the decoder count from the latent up, the
middle's blocks are lists, and attention has linear layers. Before diffusers 0.18 the
attention's four maps had other names, which its own loader still reads, and this one.
"""

import re

_HALVES = "encoder", "decoder"
_SAME = ("quantize.", "quant_conv.", "post_quant_conv.")
_ENDS = {"conv_in": "conv_in", "conv_norm_out": "norm_out", "conv_out": "conv_out"}
_DIFFUSERS = re.compile(
    r"(encoder|decoder)\."
    r"(?:(down|up)_blocks\.(\d{1,3})|mid_block)\."
    r"(resnets|attentions|downsamplers|upsamplers)\.(\d{1,3})\.(.+)"
)
_VQGAN = re.compile(
    r"(encoder|decoder)\."
    r"(?:(?:down|up)\.(\d+)\.(block|attn|downsample|upsample)\.(?:(\d+)\.)?"
    r"|mid\.(block|attn)_([12])\.)(.+)"
)
_SIDES = {"encoder": ("down", "downsample"), "decoder": ("up", "upsample")}
_MAPS = {"to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
_OLD_MAPS = {"query": "q", "key": "k", "value": "v", "proj_attn": "proj_out"}
_NORMS = {"group_norm": "norm", "spatial_norm": "norm"}
_BLOCK = {part: part for part in ("norm1", "conv1", "norm2", "conv2")}
_PARTS = {
    "resnets": {**_BLOCK, "conv_shortcut": "nin_shortcut"},
    "attentions": {**_MAPS, **_OLD_MAPS, **_NORMS},
    "downsamplers": {"conv": "conv"},
    "upsamplers": {"conv": "conv"},
}
_KINDS = {"resnets": "block", "attentions": "attn"}
_MIDDLE = {("resnets", "0"), ("resnets", "1"), ("attentions", "0")}
_BACK = {theirs: ours for ours, theirs in _MAPS.items()}


def to_vqgan_name(name: str, levels: int) -> str | None:
    """diffusers' name -> the VQGAN-style one; None for a name that is of no `VQModel`.

    Args:
      name: of a tensor.
      levels: of the network: the decoder's are counted the other way round.
    """
    if name.startswith(_SAME):
        return name
    half, _, rest = name.partition(".")
    part, _, leaf = rest.partition(".")
    if half in _HALVES and part in _ENDS:
        return f"{half}.{_ENDS[part]}.{leaf}"
    match = _DIFFUSERS.fullmatch(name)
    if match is None:
        return None
    half, side, level, kind, number, leaf = match.groups()
    leaf = _renamed(leaf, _PARTS[kind])
    if leaf is None:
        return None
    if level is None:
        known = (kind, number) in _MIDDLE
        place = f"{half}.mid.{_KINDS.get(kind)}_{int(number) + 1}.{leaf}"
        return place if known else None
    counted = _counted(half, int(level), levels)
    own_side, sampler = _SIDES[half]
    if counted < 0 or side != own_side:
        return None
    place = f"{half}.{side}.{counted}"
    if kind in _KINDS:
        return f"{place}.{_KINDS[kind]}.{number}.{leaf}"
    fits = kind == f"{sampler}rs" and number == "0"
    return f"{place}.{sampler}.{leaf}" if fits else None


def from_vqgan_name(name: str, levels: int) -> str:
    """The inverse: a VQGAN-style name -> diffusers'.

    Raises:
      ValueError: no `VQModel` has such a tensor.
    """
    if name.startswith(_SAME):
        return name
    half, _, rest = name.partition(".")
    part, _, leaf = rest.partition(".")
    for theirs, ours in _ENDS.items():
        if half in _HALVES and part == ours:
            return f"{half}.{theirs}.{leaf}"
    match = _VQGAN.fullmatch(name)
    if match is None:
        raise ValueError(f"{name} is no VQGAN-style name")
    half, level, kind, number, middle, place, leaf = match.groups()
    side, _ = _SIDES[half]
    where = "mid_block"
    if middle:
        kind, number = middle, str(int(place) - 1 if middle == "block" else 0)
    else:
        where = f"{side}_blocks.{_counted(half, int(level), levels)}"
    if kind == "block":
        leaf = _renamed(leaf, _BLOCK | {"nin_shortcut": "conv_shortcut"})
        return f"{half}.{where}.resnets.{number}.{leaf}"
    if kind == "attn":
        modulated = leaf.startswith(("norm.norm_layer", "norm.conv_"))
        norm = "spatial_norm" if modulated else "group_norm"
        leaf = _renamed(leaf, _BACK | {"norm": norm})
        return f"{half}.{where}.attentions.{number}.{leaf}"
    return f"{half}.{where}.{kind}rs.0.{leaf}"


def count_levels(names: list[str]) -> int:
    """How many levels a network with tensors of these names has."""
    matches = (re.match(r"encoder\.down_blocks\.(\d{1,3})\.", name) for name in names)
    return 1 + max((int(match[1]) for match in matches if match), default=-1)


def _counted(half: str, level: int, levels: int) -> int:
    return levels - 1 - level if half == "decoder" else level


def _renamed(leaf: str, parts: dict[str, str]) -> str | None:
    """`leaf` with its first part, which may have a dot, named anew; None for others."""
    for old, new in parts.items():
        if leaf.startswith(f"{old}."):
            return new + leaf.removeprefix(old)
    return None
