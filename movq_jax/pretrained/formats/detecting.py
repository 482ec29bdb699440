"""Which of the known formats a file of weights has, by the names of its tensors."""

from collections.abc import Mapping
from typing import Any

from movq_jax.errors import UserError

FORMATS = {
    "diffusers": "VQModel of diffusers",
    "vqgan": "VQGAN-style: taming-transformers, SBER-MoVQGAN, Kandinsky",
    "vqgan-linear": "VQGAN-style with linear layers in its attention",
    "dualvq": "Dual Codebook VQ of its authors",
    "maskgit-tokenizer": "the tokenizer of MaskGIT (flax)",
    "maskgit-prior": "the transformer of MaskGIT (flax)",
}


def detect(
    shapes: Mapping[str, tuple[int, ...]], config: Mapping[str, Any] | None = None
) -> str:
    """The format of weights: one of `FORMATS`.

    Args:
      shapes: name -> shape of the file's tensors.
      config: of a config.json beside the file, if there is one.

    Raises:
      UserError: none of them; the message names some tensors, and what is known.
    """
    name = _by_names(shapes)
    if name is not None:
        return name
    known = "; ".join(f"{name}: {what}" for name, what in FORMATS.items())
    kind = (config or {}).get("_class_name")
    of_class = f" (of class {kind!r:.40})" if kind else ""
    raise UserError(
        f"the weights{of_class} are of no known format: their {len(shapes)} tensors "
        f"are called {', '.join(_some(list(shapes)))}. Known are {known}"
    )


def _by_names(shapes: Mapping[str, tuple[int, ...]]) -> str | None:
    names = {name.removeprefix("params/") for name in shapes}
    if any(name.startswith("MlmLayer_0/") for name in names):
        return "maskgit-prior"
    if any(name.startswith("encoder/ResBlock_") for name in names):
        return "maskgit-tokenizer"
    if any(
        name.startswith(("encoder.down_blocks.", "encoder.mid_b")) for name in names
    ):
        return "diffusers"
    if not any(name.startswith(("encoder.down.", "encoder.mid.")) for name in names):
        return None
    if "quantize.global_codebook" in names:
        return "dualvq"
    rank = len(shapes.get("encoder.mid.attn_1.q.weight", ()))
    return "vqgan-linear" if rank == 2 else "vqgan"


def _some(names: list[str]) -> list[str]:
    """A few of them, from all over the list."""
    return names[:: max(1, len(names) // 5)][:5]
