"""Estimating a codebook from encoder features by k-means.

Before the first step, so that no code is dead, and again at a few early steps, because
the encoder leaves its first features behind faster than the codes follow: "data-
dependent codebook reestimation" (Łańcucki et al., arXiv 2005.08520).
"""

from collections.abc import Callable, Iterable
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from movq_jax import families
from movq_jax.models.pixels import from_uint8
from movq_jax.models.quantizers.search import nearest_code
from movq_jax.models.tokenizer import Tokenizer, build_tokenizer
from movq_jax.randomness import named_key
from movq_jax.training.codebooks import ruled_books

STEPS = (0,)  # before these training steps, where the config names none


@partial(jax.jit, static_argnames=("num_codes", "iterations"))
def kmeans(
    key: jax.Array, features: jax.Array, num_codes: int, *, iterations: int
) -> jax.Array:
    """Lloyd's algorithm from random features; an empty cluster keeps its mean.

    Args:
      features: [N, D] float32.

    Returns:
      means [num_codes, D] float32; some are equal if N < num_codes.
    """
    rows = features.shape[0]
    start = jax.random.choice(key, features, (num_codes,), replace=rows < num_codes)

    def step(means, _):
        ids = nearest_code(features, means)
        sums = jax.ops.segment_sum(features, ids, num_segments=num_codes)
        counts = jax.ops.segment_sum(jnp.ones(rows), ids, num_segments=num_codes)
        counts = counts[:, None]
        return jnp.where(counts > 0, sums / jnp.maximum(counts, 1.0), means), None

    means, _ = jax.lax.scan(step, start, length=iterations)
    return means


def estimate_by_kmeans(
    config: ConfigDict,
    params: Any,
    batches: Iterable[dict[str, jax.Array]],
    step: int,
    *,
    steps: tuple[int, ...] = STEPS,
    features_per_code: int = 10,
    iterations: int = 10,
) -> dict[str, jax.Array]:
    """The codebooks that k-means finds in the features of as many batches as it takes.

    Args:
      step: the number of the coming step; each begins from other random features.
      steps: the training steps before which this happens, see `is_due`.
      features_per_code: features to gather, in units of K. One batch has too few to
        tell apart a thousand codes.
      iterations: Lloyd steps.

    Returns:
      rows [K, d] float32 of each book that can be set from features.
    """
    tokenizer = build_tokenizer(config.model)
    books = dict(zip(tokenizer.channel_books, tokenizer.codebook_sizes, strict=True))
    ruled = ruled_books(config)
    features_of = _make_features(tokenizer)
    parts = {book: [] for book in ruled}
    for batch in batches:
        found = features_of(params, batch["image"])
        for book in ruled:
            parts[book].append(found[book])
        if all(
            sum(map(len, parts[book])) >= features_per_code * books[book]
            for book in ruled
        ):
            break
    key = named_key(config.seed, "kmeans", step)
    return {
        book: kmeans(
            jax.random.fold_in(key, number) if number else key,
            jnp.concatenate(parts[book]),
            books[book],
            iterations=iterations,
        )
        for number, book in enumerate(ruled)
    }


@cache  # it is compiled once, not at each of the steps
def _make_features(tokenizer: Tokenizer) -> Callable:
    """(params, uint8 images) -> by book [N, d] float32, what it searches with."""

    def features(module, images):
        z = module.encode_latents(from_uint8(images))
        found = module.assigned(z, module.quantize(z).ids)
        return {book: features for book, (features, _) in found.items()}

    return jax.jit(
        lambda params, images: tokenizer.apply(
            {"params": params}, images, method=features
        )
    )


ESTIMATORS = {"kmeans": estimate_by_kmeans}


def is_due(config: ConfigDict, step: int) -> bool:
    """Whether codebooks are estimated before the training step `step`."""
    start = config.train.codebook_init
    return start.name != "none" and step in start.get("steps", STEPS)


def from_data(
    config: ConfigDict, params: Any, batches: Iterable, step: int
) -> dict[str, jax.Array]:
    """The rows by book that `config.train.codebook_init` asks for at `step`."""
    return families.make(
        ESTIMATORS,
        config.train.codebook_init,
        "config.train.codebook_init",
        config,
        params,
        batches,
        step,
    )
