"""What a prior's config leaves open: its tokenizer, its grid, its classes."""

import functools
from collections.abc import Callable
from typing import Any

from etils import epath
from ml_collections import ConfigDict

from movq_jax.config import forbidden_changes, load_config
from movq_jax.data.settings import read_settings
from movq_jax.data.sources import read_classes
from movq_jax.data.tokens.cache import TokenCache
from movq_jax.errors import UserError
from movq_jax.models.tokenizer import build_tokenizer
from movq_jax.pretrained.bundle import Bundle, find_bundle, read_bundle
from movq_jax.training.init_from import with_model
from movq_jax.training.prior_checks import check
from movq_jax.training.prior_inputs import open_cache
from movq_jax.training.ranges import check_ranges
from movq_jax.training.workdir import read_config, refuse_changes

FOLDER = "tokenizer"  # within a workdir, where the tokenizer is trained first
# Fields of `data` that say which images there are and how they are read.
_SHARED = ("dataset", "data_dir", "split_train", "split_eval", "num_threads")

Train = Callable[[ConfigDict, Any], Any]


def resolve(
    config: ConfigDict, workdir: epath.PathLike, train: Train | None
) -> ConfigDict:
    """`config` with its model, its tokenizer, trained, its tokens and its classes.

    Without `config.tokenizer`, that of `config.tokenizer_config` is trained into
    `<workdir>/tokenizer`, unless it is there; before that, everything else is checked.

    Args:
      config: left as it is.
      workdir: of the prior.
      train: (config, workdir) of a tokenizer -> trains it, or goes on; None: never.

    Raises:
      UserError: there is no tokenizer, no data, or they do not fit each other.
    """
    config = with_model(config, workdir)
    if config.tokenizer:
        bundle = read_tokenizer(config.tokenizer)
    else:
        bundle = _own_tokenizer(config, epath.Path(workdir) / FOLDER, train)
    stated = config.tokens.fingerprint
    if stated and stated != bundle.fingerprint:
        raise UserError(
            f"config.tokens.fingerprint is {stated:.12}..., but the tokenizer is "
            f"{bundle.fingerprint:.12}...: name the tokenizer that the config is for"
        )
    resolved = with_tokens(config, bundle.model, bundle.fingerprint)
    with resolved.unlocked():
        resolved.tokenizer = str(config.tokenizer or epath.Path(workdir) / FOLDER)
    for part in ("train", "eval"):
        if resolved.cache[part]:
            open_cache(resolved, part)
    return resolved


def read_tokenizer(place: epath.PathLike) -> Bundle:
    """The bundle at `place`.

    Raises:
      UserError: there is none, or it is no tokenizer's.
    """
    bundle = read_bundle(place)
    if bundle.kind != "tokenizer":
        raise UserError(
            f"the model in {place} is a {bundle.kind}, not a tokenizer: set "
            "config.tokenizer to a tokenizer's workdir or model folder"
        )
    return bundle


@functools.lru_cache(maxsize=1)
def frozen_tokenizer(place: str, fingerprint: str) -> Bundle:
    """The tokenizer of a run, read once: who replaces the file changes nothing.

    Raises:
      UserError: it was replaced already.
    """
    bundle = read_tokenizer(place)
    if bundle.fingerprint != fingerprint:
        raise UserError(
            f"the tokenizer in {place} was replaced by another one: start the run "
            "again when the tokenizer's training has ended"
        )
    return bundle


def _own_tokenizer(config: ConfigDict, folder: epath.Path, train: Train | None):
    """The bundle in `folder`, trained where it is not, or not to its end."""
    if config.cache.train or config.cache.eval:
        raise UserError(
            "config.cache names indices that were made already, but config.tokenizer "
            "is empty: set it to the tokenizer that made them"
        )
    if train is None:
        return read_tokenizer(folder)
    shared = [f"data.{name}={config.data[name]}" for name in _SHARED]
    own = load_config(config.tokenizer_config, shared)
    stored = read_config(folder)
    if stored is not None:
        refuse_changes(folder, forbidden_changes(stored, own))
    if not _is_trained(folder, own.train.num_steps):
        check_ranges(config)
        check(with_tokens(config, own.model, "not yet known"))
        train(own, folder)
    return read_tokenizer(folder)


def _is_trained(folder: epath.Path, num_steps: int) -> bool:
    """Whether there is a tokenizer, trained to its end, or put there by a person."""
    if not folder.exists():
        return False
    try:
        find_bundle(folder)
    except UserError:
        return False
    protocol = read_tokenizer(folder).protocol
    return "step" not in protocol or protocol["step"] >= num_steps


def with_tokens(
    config: ConfigDict,
    model: Any,
    fingerprint: str,
    classes: tuple[str, ...] | None = None,
) -> ConfigDict:
    """`config` with what follows from a tokenizer's model and from the data.

    Raises:
      UserError: there is no data, or it does not fit; with `classes` the data is not
        looked at.
    """
    tokenizer = build_tokenizer(model)
    resolved = config.copy_and_resolve_references()
    if classes is None:
        classes = _classes(config)
    with resolved.unlocked():
        resolved.model.num_classes = len(classes)
        resolved.tokens.update(
            fingerprint=fingerprint,
            grid=_grid(config, tokenizer.factor),
            codebook_sizes=tuple(tokenizer.codebook_sizes),
            books=tuple(tokenizer.channel_books),
            factor=tokenizer.factor,
            classes=classes,
        )
    return resolved.lock()


def _grid(config: ConfigDict, factor: int) -> tuple[int, int]:
    if config.cache.train:
        grid = TokenCache.open(config.cache.train).manifest.plan.grid
        if not config.cache.eval:
            _check_evaluation_size(config, tuple(side * factor for side in grid))
        return grid
    settings = read_settings(config.data)
    side = settings.image_size
    if side % factor:
        raise UserError(
            f"config.data.image_size is {side}, but must be a multiple of {factor}, "
            "the factor of the tokenizer"
        )
    if not config.cache.eval and settings.eval.image_size != side:
        raise UserError(
            f"config.data.eval.image_size is {settings.eval.image_size}, but a prior "
            f"is of one size of images: set it to {side}, or to 0"
        )
    return (side // factor,) * 2


def _check_evaluation_size(config: ConfigDict, trained: tuple[int, int]) -> None:
    """Images to evaluate on have the size of those that the cache was made of."""
    side = read_settings(config.data).eval.image_size
    if (side, side) != trained:
        raise UserError(
            f"config.cache.train is of images of {trained[0]} x {trained[1]} pixels, "
            f"but those to evaluate on are of {side} x {side}: set "
            f"config.data.eval.image_size to {trained[0]}, or config.cache.eval to a "
            "cache of the evaluation split"
        )


def _classes(config: ConfigDict) -> tuple[str, ...]:
    """Names of the classes that the prior learns, () for one without."""
    wanted = config.model.num_classes
    if wanted == 0:
        return ()
    if config.cache.train:
        source = f"the token cache {config.cache.train}"
        classes = TokenCache.open(config.cache.train).manifest.plan.classes
    else:
        source = f"the dataset {config.data.dataset!r}"
        classes = read_classes(read_settings(config.data))
    if not classes:
        raise UserError(
            f"config.model.num_classes is {wanted}, but {source} has no labels: set it "
            "to 0, or prepare data with a folder for each class"
        )
    if wanted not in (-1, len(classes)):
        raise UserError(
            f"config.model.num_classes is {wanted}, but {source} has {len(classes)}: "
            "set it to -1, which is as many as there are"
        )
    if config.cache.train and not config.cache.eval:
        _check_evaluation_classes(config, classes, source)
    return classes


def _check_evaluation_classes(
    config: ConfigDict, classes: tuple[str, ...], source: str
) -> None:
    """Labels of the images to evaluate on mean the same."""
    others = read_classes(read_settings(config.data))
    if others != classes:
        raise UserError(
            f"{source} has the classes {', '.join(classes):.80}, but the dataset "
            f"{config.data.dataset!r}, to evaluate on, has "
            f"{', '.join(others) or 'none':.80}: set config.data.dataset to the one "
            "that the cache was made of, or config.cache.eval"
        )
