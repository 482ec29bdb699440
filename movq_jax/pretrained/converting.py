"""Weights that others published, as models of this project.

    conversion = convert("movqgan_67M.ckpt")
    write_converted(conversion, "models/movqgan-67m")
    tok = movq_jax.load("models/movqgan-67m")

The formats are those of `movq_jax.pretrained.formats.detecting`.
"""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from etils import epath

from movq_jax import __version__
from movq_jax.atomic import check_folder_to_replace
from movq_jax.errors import UserError
from movq_jax.models.tokenizer import build_tokenizer
from movq_jax.pretrained.bundle import Bundle, read_bundle, write_bundle
from movq_jax.pretrained.fetching import sha256_of
from movq_jax.pretrained.formats import maskgit
from movq_jax.pretrained.formats.checkpoint_files import CheckpointFile, open_checkpoint
from movq_jax.pretrained.formats.detecting import detect
from movq_jax.pretrained.formats.diffusers import CONFIG_FILE
from movq_jax.pretrained.formats.finding import find_weights, read_config
from movq_jax.pretrained.formats.vqgan import Weights, read_diffusers, read_vqgan
from movq_jax.pretrained.prior_bundle import write_prior_bundle


class Conversion(NamedTuple):
    """A model made of a published file; `write_converted` makes it a bundle.

    Attributes:
      kind: 'tokenizer' or 'prior'.
      format: the file's, see `movq_jax.pretrained.formats.detecting`.
      model: what `build_tokenizer` takes; of a prior {"prior": what `build_prior`
        takes, "tokens": what `Tokens.of` takes}.
      params: nested, NumPy float32.
      source: `file` (its name), `sha256` (of an index of several files, the index's),
        `format`, `part` (of the file), `skipped`
        (what of it was left out -> why), and `config`, of diffusers where it has one.
    """

    kind: str
    format: str
    model: dict[str, Any]
    params: dict[str, Any]
    source: dict[str, Any]


def convert(path: epath.PathLike) -> Conversion:
    """Reads a published model, whichever of the known formats it has.

    Nothing in the file is executed. Each of its tensors finds its place, or was left
    out for a reason that `source["skipped"]` gives.

    Args:
      path: a file of weights, or a folder with one; beside diffusers' should lie its
        config.json.

    Raises:
      UserError: there is no such file, it cannot be read, it is of no known format, or
        its tensors are not exactly those of the model that it seems to hold.
    """
    file = find_weights(Path(path).expanduser())
    with open_checkpoint(file) as checkpoint:
        try:
            return _converted(checkpoint, file)
        except UserError as error:
            if str(error).startswith(f"cannot read {file}"):
                raise
            raise UserError(f"cannot convert {file}: {error}") from error


def _converted(checkpoint: CheckpointFile, file: Path) -> Conversion:
    config = read_config(file.parent / CONFIG_FILE)
    if config is not None and "_class_name" not in config:
        config = None  # something else's
    name = detect(checkpoint.shapes, config)
    kind, weights = _READERS[name](checkpoint, config)
    source = {
        "file": file.name,
        "sha256": sha256_of(file),
        "format": name,
        "part": checkpoint.part,
        "skipped": checkpoint.skipped | weights.skipped,
    }
    if name == "diffusers" and config is not None:
        source["config"] = config
    return Conversion(kind, name, weights.model, weights.params, source)


_Read = tuple[str, Weights]


def _vqgan(dialect: str) -> Callable[[CheckpointFile, Any], _Read]:
    return lambda checkpoint, _: ("tokenizer", read_vqgan(checkpoint, dialect))


def _diffusers(checkpoint: CheckpointFile, config: dict[str, Any] | None) -> _Read:
    return "tokenizer", read_diffusers(checkpoint, config)


def _maskgit_tokenizer(checkpoint: CheckpointFile, _: Any) -> _Read:
    model, params = maskgit.tokenizer_from(checkpoint.shapes, checkpoint.read)
    return "tokenizer", Weights(model, params, {})


def _maskgit_prior(checkpoint: CheckpointFile, _: Any) -> _Read:
    model, tokens, params = maskgit.prior_from(checkpoint.shapes, checkpoint.read)
    return "prior", Weights({"prior": model, "tokens": tokens}, params, {})


_READERS: dict[str, Callable[[CheckpointFile, dict[str, Any] | None], _Read]] = {
    "diffusers": _diffusers,
    "vqgan": _vqgan("conv"),
    "vqgan-linear": _vqgan("linear"),
    "dualvq": _vqgan("conv"),
    "maskgit-tokenizer": _maskgit_tokenizer,
    "maskgit-prior": _maskgit_prior,
}


def write_converted(
    conversion: Conversion,
    out: epath.PathLike,
    tokenizer: epath.PathLike | None = None,
) -> str:
    """Writes the bundle of a conversion, and returns its fingerprint.

    Args:
      conversion: what `convert` gave.
      out: the bundle's folder. One that holds nothing, or an older conversion, is
        replaced.
      tokenizer: of a prior, the bundle or workdir of its tokenizer; a copy of it goes
        into the folder. Of a tokenizer, None.

    Raises:
      UserError: the folder holds something else or cannot be written, or the tokenizer
        is missing, of no use, or not the prior's.
    """
    out = epath.Path(out).expanduser()
    check_out(out)
    protocol = {
        "weights": f"converted from {conversion.source['file']}",
        "source": conversion.source,
        "version": __version__,
    }
    if conversion.kind == "tokenizer":
        if tokenizer is not None:
            raise UserError(
                f"{conversion.source['file']} holds a tokenizer itself, and needs no "
                f"other: leave {tokenizer} out"
            )
        return write_bundle(
            out,
            kind="tokenizer",
            params=conversion.params,
            model=conversion.model,
            protocol=protocol,
        )
    if tokenizer is None:
        raise UserError(
            f"{conversion.source['file']} holds a prior, which draws indices of a "
            "tokenizer: convert that first, and give its folder as --tokenizer"
        )
    tokens, beside = conversion.model["tokens"], read_bundle(tokenizer)
    return write_prior_bundle(
        out,
        params=conversion.params,
        model=conversion.model["prior"],
        tokens=_tokens_of(tokens, beside, tokenizer),
        protocol=protocol | maskgit.prior_protocol(tokens),
        tokenizer=beside,
    )


def _tokens_of(
    tokens: Mapping[str, Any], bundle: Bundle, path: epath.PathLike
) -> dict[str, Any]:
    """The prior's tokens as those of that tokenizer.

    Raises:
      UserError: the tokenizer makes others.
    """
    if bundle.kind != "tokenizer":
        raise UserError(f"the model in {path} is a {bundle.kind}, not a tokenizer")
    module = build_tokenizer(bundle.model)
    wanted = tuple(tokens["codebook_sizes"])
    if wanted != module.codebook_sizes:
        raise UserError(
            f"the prior draws indices of {_sizes(wanted)} codes, but the tokenizer in "
            f"{path} has {_sizes(module.codebook_sizes)}: give the one it came with"
        )
    return {
        **tokens,
        "books": module.channel_books,
        "fingerprint": bundle.fingerprint,
    }


def _sizes(sizes: tuple[int, ...]) -> str:
    return " x ".join(map(str, sizes))


def check_out(out: epath.PathLike) -> None:
    """A conversion may be written to `out`: it replaces nothing but another one.

    Raises:
      UserError: it may not.
    """
    folder = epath.Path(out).expanduser()
    if "://" not in os.fspath(folder):
        check_folder_to_replace(folder)
    if not folder.exists():
        return
    if not any(folder.iterdir()):
        return
    record = read_config(folder / CONFIG_FILE) or {}
    protocol = record.get("protocol")
    if not isinstance(protocol, dict) or "source" not in protocol:
        raise UserError(
            f"{folder} holds something else than a converted model, which would be "
            "lost: give a new folder"
        )
