"""How unlikely the images of a split are to a prior, as `main --mode=eval` has it."""

import hashlib
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from movq_jax.errors import UserError
from movq_jax.evaluation.image_sets import DatasetImages, Refuse, in_chunks
from movq_jax.evaluation.metrics.intervals import bootstrap_mean

CHUNK = 64
DEFAULT_MASKINGS = 8


def likelihood(
    prior: Any,
    images: DatasetImages,
    prepare: Callable[[np.ndarray], np.ndarray],
    *,
    config: Mapping[str, Any] | None,
    refuse: Refuse,
    advance: Callable[[int], None],
) -> dict[str, Any]:
    """Return the record of `nll`: bits a token and an image, with intervals.

    It has all that they depend on: the split, the hash of its prepared pixels, the
    tokenizer, and of a masked prior seed and number of maskings.

    Exact for an autoregressive prior; for a masked one the mean of its bound over some
    maskings an image. What is masked depends on the run's seed and the image's number
    in the split, as in training: with the whole split the numbers are those of
    `main --mode=eval`.

    Args:
        prior: what `movq_jax.load` returns.
        images: a split with the labels that the prior knows.
        prepare: from uint8 [H, W, 3] to what the tokenizer is to see.
        config: of the prior's run, if it is there: its seed and number of maskings.
        refuse: takes the name of an image that cannot be used, and why.
        advance: called with the number of images that are done.

    Raises:
        UserError: a label is no class of the prior, or images have another size.
    """
    labels = images.labels()
    _check_labels(prior, labels, images.name)
    ids, kept, seen = [], [], hashlib.sha256()
    numbered = enumerate(images.items(refuse))
    readable = ((i, item) for i, item in numbered if item is not None)
    for chunk in in_chunks(readable, CHUNK):
        prepared = [prepare(item.image) for _, item in chunk]
        for (_, item), image in zip(chunk, prepared, strict=True):
            _check_size(prior, image, item.name)
            seen.update(np.ascontiguousarray(image).tobytes())
        ids.append(prior.tokenizer.encode(np.stack(prepared)))
        kept += [number for number, _ in chunk]
        advance(len(chunk))
    if not ids:
        raise UserError(f"no image of {images.name} could be read: nothing to measure")
    run = config or {}
    samples = (run.get("eval") or {}).get("nll_samples") or DEFAULT_MASKINGS
    seed = run.get("seed") or 0
    nats = prior.nll(
        np.concatenate(ids),
        labels=labels[kept] if prior.num_classes else None,
        samples=samples,
        seed=seed,
    ).total
    record = _record(np.asarray(nats, np.float64) / math.log(2), prior.tokens.units)
    record |= {
        "split": images.name,
        "fingerprint": seen.hexdigest(),
        "tokenizer": prior.tokenizer.fingerprint,
    }
    if prior.kind == "masked":
        record |= {"maskings": samples, "seed": seed}
    return record


def _record(bits: np.ndarray, tokens: int) -> dict[str, Any]:
    """Of the bits of each image [N], float64."""
    low = high = None
    if len(bits) > 1:
        low, high = (end / tokens for end in bootstrap_mean(bits))
    return {
        "value": float(bits.mean() / tokens),
        "low": low,
        "high": high,
        "count": len(bits),
        "higher_is_better": False,
        "bits_per_image": float(bits.mean()),
        "tokens": tokens,
    }


def _check_labels(prior: Any, labels: np.ndarray, name: str) -> None:
    if not prior.num_classes:
        return
    wrong = labels[(labels < 0) | (labels >= prior.num_classes)]
    if wrong.size:
        label = "an image without a label" if wrong[0] < 0 else f"the label {wrong[0]}"
        raise UserError(
            f"{name} has {label}, but the prior has the classes 0 to "
            f"{prior.num_classes - 1}: nll needs the data that it was trained on"
        )


def _check_size(prior: Any, image: np.ndarray, name: str) -> None:
    if image.shape[:2] != prior.image_size:
        height, width = prior.image_size
        raise UserError(
            f"{name} is {image.shape[1]} x {image.shape[0]} when it is ready, and the "
            f"prior models images of {width} x {height}: give --image-size={width}"
        )
