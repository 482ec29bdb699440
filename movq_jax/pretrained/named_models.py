"""Published models that have a name here: which files they are, and of what licence.

None of these files had a published SHA-256 when the table was made, so what the first
download has is recorded and held to, see `movq_jax.pretrained.named`. `verified` says
whether this project has compared its conversion of exactly these files with what the
original program makes of them.
"""

from typing import NamedTuple

_HUB = "https://huggingface.co"
_KANDINSKY = f"{_HUB}/kandinsky-community/kandinsky-2-2-decoder"
_SBER = f"{_HUB}/ai-forever"
_MASKGIT = "https://storage.googleapis.com/maskgit-public/checkpoints"
_TAMING = "https://heibox.uni-heidelberg.de/f"


class NamedFile(NamedTuple):
    """A published file.

    Attributes:
      name: under which it is kept.
      url: of the file.
      sha256: empty where none was published.
    """

    name: str
    url: str
    sha256: str = ""


class NamedModel(NamedTuple):
    """A published model.

    Attributes:
      about: what it is, in some words.
      page: where its authors tell of it.
      licence: as the authors state it for the weights: an identifier, or 'unknown'.
      files: one checkpoint, or what makes a folder that can be converted.
      tokenizer: of a prior, the name of its tokenizer.
      verified: see above.
    """

    about: str
    page: str
    licence: str
    files: tuple[NamedFile, ...]
    tokenizer: str = ""
    verified: bool = False


def _sber(size: str) -> NamedModel:
    # The repository states no licence. The authors' README links the 67M file under
    # the name of the 270M one.
    name = f"movqgan_{size}.ckpt"
    url = f"{_SBER}/MoVQGAN/resolve/main/{name}"
    return NamedModel(
        about=f"SBER-MoVQGAN {size}, factor 8, 16,384 codes",
        page="https://github.com/ai-forever/MoVQGAN",
        licence="unknown",
        files=(NamedFile(name, url),),
    )


def _maskgit(kind: str, size: int) -> NamedModel:
    # The program's licence is Apache-2.0; of the weights nothing is said.
    name = f"{kind}_imagenet{size}_checkpoint"
    is_prior = kind == "maskgit"
    what = "prior of classes" if is_prior else "tokenizer, factor 16, 1,024 codes"
    return NamedModel(
        about=f"MaskGIT's {what}, ImageNet {size} x {size}",
        page="https://github.com/google-research/maskgit",
        licence="unknown",
        files=(NamedFile(name, f"{_MASKGIT}/{name}"),),
        tokenizer=f"maskgit-vqgan-{size}" if is_prior else "",
    )


def _taming(codes: int, share: str) -> NamedModel:
    # The program's licence is MIT; of the weights nothing is said.
    return NamedModel(
        about=f"VQGAN, ImageNet, factor 16, {codes:,} codes",
        page="https://github.com/CompVis/taming-transformers",
        licence="unknown",
        files=(NamedFile("last.ckpt", f"{_TAMING}/{share}/?dl=1"),),
    )


NAMED_MODELS = {
    "kandinsky-2.2-movq": NamedModel(
        about="the MoVQ of Kandinsky 2.2, factor 8, 16,384 codes",
        page=_KANDINSKY,
        licence="Apache-2.0",
        files=tuple(
            NamedFile(name, f"{_KANDINSKY}/resolve/main/movq/{name}")
            for name in ("config.json", "diffusion_pytorch_model.safetensors")
        ),
    ),
    "kandinsky-2.1-movq": NamedModel(
        about="the MoVQ of Kandinsky 2.1, factor 8, 16,384 codes",
        page=f"{_SBER}/Kandinsky_2.1",
        licence="Apache-2.0",
        files=(
            NamedFile(
                "movq_final.ckpt",
                f"{_SBER}/Kandinsky_2.1/resolve/main/movq_final.ckpt",
            ),
        ),
    ),
    "movqgan-67m": _sber("67M"),
    "movqgan-102m": _sber("102M"),
    "movqgan-270m": _sber("270M"),
    "maskgit-vqgan-256": _maskgit("tokenizer", 256),
    "maskgit-vqgan-512": _maskgit("tokenizer", 512),
    "maskgit-256": _maskgit("maskgit", 256),
    "maskgit-512": _maskgit("maskgit", 512),
    "vqgan-imagenet-f16-1024": _taming(1024, "140747ba53464f49b476"),
    "vqgan-imagenet-f16-16384": _taming(16384, "867b05fc8c4841768640"),
}
