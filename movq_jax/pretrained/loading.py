"""A trained model of any kind from its bundle."""

from typing import Any

import numpy as np
from etils import epath

from movq_jax.errors import UserError
from movq_jax.pretrained.bundle import Bundle, read_bundle
from movq_jax.pretrained.places import local
from movq_jax.pretrained.prior import PretrainedPrior
from movq_jax.pretrained.prior_bundle import read_prior_bundle
from movq_jax.pretrained.tokenizer import PretrainedTokenizer


def load(
    path: epath.PathLike, micro_batch: int | None = None
) -> PretrainedTokenizer | PretrainedPrior:
    """Loads a tokenizer or a prior, whichever the bundle holds.

    Args:
      path: a workdir, or the `model` folder in it; or the name of a published model,
        `movq_jax.pretrained.named_models`, which is fetched and converted the first
        time; or `hf://USER/NAME[@REVISION]`, a bundle on the Hugging Face Hub. A
        folder that has a model's name wins over it.
      micro_batch: see `PretrainedTokenizer.micro_batch`, `PretrainedPrior.micro_batch`.

    Raises:
      UserError: there is no bundle, it is damaged or of another kind, or cannot be
        fetched; or `micro_batch` is no whole number from 1.

    Example:
      >>> tok = movq_jax.load("runs/a")
      >>> tok = movq_jax.load("kandinsky-2.2-movq")
      >>> ids = tok.encode(images)
      >>> prior = movq_jax.load("runs/b")
      >>> images = prior.tokenizer.decode(prior.sample(16))
    """
    path = local(path)
    return _made(path, read_bundle(path), micro_batch)


def _made(
    path: epath.PathLike, bundle: Bundle, micro_batch: int | None
) -> PretrainedTokenizer | PretrainedPrior:
    if micro_batch is not None:
        _check_micro_batch(micro_batch)
    if bundle.kind not in ("tokenizer", "prior"):
        raise UserError(
            f"the model in {path} is a {bundle.kind}, neither a tokenizer nor a prior"
        )
    try:
        if bundle.kind == "tokenizer":
            return PretrainedTokenizer(bundle, micro_batch=micro_batch)
        return PretrainedPrior(read_prior_bundle(path, bundle), micro_batch=micro_batch)
    except UserError as error:
        raise UserError(f"the model in {path} cannot be used: {error}") from error


def load_tokenizer(
    path: epath.PathLike, micro_batch: int | None = None
) -> PretrainedTokenizer:
    """Loads a tokenizer, and nothing else.

    Raises:
      UserError: as `load`, and where the model is a prior.
    """
    path = local(path)
    bundle = read_bundle(path)
    if bundle.kind == "prior":
        raise UserError(
            f"the model in {path} is a prior, not a tokenizer: its tokenizer lies in "
            "the folder model/tokenizer in it"
        )
    return _made(path, bundle, micro_batch)


def load_prior(path: epath.PathLike, micro_batch: int | None = None) -> PretrainedPrior:
    """Loads a prior, and nothing else.

    Raises:
      UserError: as `load`, and where the model is a tokenizer.
    """
    model = load(path, micro_batch)
    if not isinstance(model, PretrainedPrior):
        raise UserError(
            f"the model in {path} is a tokenizer, which draws nothing new: give a "
            "prior that was trained on its indices"
        )
    return model


def _check_micro_batch(micro_batch: Any) -> None:
    if isinstance(micro_batch, bool) or not isinstance(micro_batch, (int, np.integer)):
        raise UserError(f"micro_batch is {micro_batch!r}; give a whole number")
    if micro_batch < 1:
        raise UserError(f"micro_batch is {micro_batch}; it must be at least 1")
