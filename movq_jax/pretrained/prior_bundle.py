"""The bundle of a prior: that of a model, with its tokenizer's in a folder inside.

    model/config.json             kind 'prior'
    model/model.safetensors       the prior's weights
    model/tokenizer/config.json   an ordinary tokenizer bundle
    model/tokenizer/model.safetensors

The prior's `model` section is `{"prior": ..., "tokens": ...}`: what `build_prior`
takes, and which tokens it models, with the tokenizer's fingerprint. Its `protocol` has
`sample`, the options to sample with unless others are given, and `classes`, the names
of the classes.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from etils import epath

from movq_jax.errors import UserError
from movq_jax.pretrained.bundle import Bundle, find_bundle, read_bundle, write_bundle

TOKENIZER_FOLDER = "tokenizer"


class PriorBundle(NamedTuple):
    """A prior and its tokenizer."""

    prior: Bundle
    tokenizer: Bundle


def write_prior_bundle(
    folder: epath.PathLike,
    *,
    params: Mapping[str, Any],
    model: Mapping[str, Any],
    tokens: Mapping[str, Any],
    protocol: Mapping[str, Any],
    tokenizer: Bundle,
) -> str:
    """Writes a prior's bundle and returns its fingerprint. An older one is replaced.

    Args:
      folder: the bundle's.
      params: the prior's weights.
      model: what `build_prior` takes.
      tokens: what `Tokens.of` takes, and `fingerprint`, the tokenizer's.
      protocol: with `sample` and `classes`.
      tokenizer: as `read_bundle` gives it; a copy of it goes into the folder.

    Raises:
      UserError: the place cannot be written, or the tokenizer is another one.
    """
    _check_tokenizer(folder, tokens, tokenizer)
    return write_bundle(
        folder,
        kind="prior",
        params=params,
        model={"prior": model, "tokens": tokens},
        protocol=protocol,
        inside={TOKENIZER_FOLDER: tokenizer},
    )


def read_prior_bundle(path: epath.PathLike, prior: Bundle | None = None) -> PriorBundle:
    """Reads the bundle of a prior at `path`: the bundle's folder, or a workdir.

    Args:
      path: of the bundle.
      prior: what `read_bundle` made of it, where that was asked already.

    Raises:
      UserError: there is none, it is damaged, it is no prior's, or the tokenizer inside
        is not the one that the prior was trained on.
    """
    folder = find_bundle(path)
    prior = read_bundle(folder) if prior is None else prior
    if prior.kind != "prior":
        raise UserError(f"the model in {path} is a {prior.kind}, not a prior")
    lacking = [key for key in ("prior", "tokens") if key not in prior.model]
    lacking += [key for key in ("sample", "classes") if key not in prior.protocol]
    if lacking:
        raise UserError(f"the bundle {folder} lacks {', '.join(lacking)}")
    try:
        tokenizer = read_bundle(folder / TOKENIZER_FOLDER)
    except UserError as error:
        raise UserError(
            f"the prior in {path} comes without a tokenizer that can be used: {error}"
        ) from error
    _check_tokenizer(path, prior.model["tokens"], tokenizer)
    return PriorBundle(prior, tokenizer)


def _check_tokenizer(
    path: epath.PathLike, tokens: Mapping[str, Any], tokenizer: Bundle
) -> None:
    if tokenizer.kind != "tokenizer":
        raise UserError(
            f"the prior in {path} has a {tokenizer.kind} where its tokenizer should be"
        )
    if tokens["fingerprint"] != tokenizer.fingerprint:
        raise UserError(
            f"the prior in {path} was trained on the indices of the tokenizer "
            f"{tokens['fingerprint']}, but the one beside it is "
            f"{tokenizer.fingerprint}: copy the whole model folder again"
        )
