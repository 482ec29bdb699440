"""How codebooks move besides, or instead of, the optimizer: EMA, revival, CVQ anchors.

A rule looks at all features of a training step at once: those of the global batch, of
all micro-batches together, and the codes that they were given, found with the rows as
they were before the step. It works after the optimizer, and its state lies beside the
parameters in `TrainState.variables['codebooks']`. One decision, from one key, holds for
all devices.

Which books have rules, a quantizer says (`ruled_books`): not those whose rows are taken
through a transformer or a linear map.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from movq_jax import families
from movq_jax.errors import UserError
from movq_jax.fields import check_choice, check_number, check_share
from movq_jax.models.quantizers.base import normalised

WHERE = "config.train.codebook_update"
EPSILON = 1e-5  # of Laplace smoothing
SCORE_BYTES = 64 * 2**20  # of scores of codes against features, held at once


class BookUpdate(NamedTuple):
    """What a rule makes of a book."""

    rows: jax.Array  # [K, d]
    state: dict[str, jax.Array]
    anew: jax.Array  # bool [K]: rows that have nothing to do with what they were


class Rule(NamedTuple):
    """A way to move the rows [K, d] of a codebook."""

    # Whether the optimizer trains the rows as well.
    by_gradient: bool
    # rows -> state {name: array}
    init: Callable[[jax.Array], dict[str, jax.Array]]
    # (rows, state, features [N, d], ids [N], key) -> BookUpdate; None: nothing to do
    update: Callable[..., BookUpdate] | None


def by_gradient(*, revive_below: float = 0.0, decay: float = 0.99) -> Rule:
    """The optimizer alone trains the rows; with `revive_below`, dead ones are revived.

    Args:
      revive_below: rows whose running count of features a step is below it become
        random features of the step and count as `_newcomer` says. 0: never.
      decay: of the running count.
    """
    check_number(f"{WHERE}.revive_below", revive_below)
    _check_decay(decay)
    if not revive_below:
        return Rule(by_gradient=True, init=lambda rows: {}, update=None)

    start = _newcomer(revive_below)

    def update(rows, state, features, ids, key):
        count = _ema(decay, state["count"], _count(ids, rows.shape[0]))
        dead = count < revive_below
        rows = jnp.where(dead[:, None], random_features(key, features, len(rows)), rows)
        return BookUpdate(rows, {"count": jnp.where(dead, start, count)}, dead)

    def init(rows):
        return {"count": jnp.full(rows.shape[0], start)}

    return Rule(by_gradient=True, init=init, update=update)


def by_average(*, decay: float = 0.99, revive_below: float = 0.0) -> Rule:
    """Rows are running means of the features that chose them (VQ-VAE, 1711.00937, A.1).

    `n <- g n + (1-g) count; m <- g m + (1-g) sum of features; e = m / n`, n with
    Laplace smoothing. n starts at 1 and m at e. The optimizer does not see the rows,
    so of the VQ loss the commitment term alone has an effect.

    Args:
      decay: g.
      revive_below: rows whose n is below it become random features of the step
        (RQ-VAE's code: below 1; others take 2), and n what `_newcomer` says, with
        which it then starts, too. 0: never.
    """
    check_number(f"{WHERE}.revive_below", revive_below)
    _check_decay(decay)
    start = _newcomer(revive_below)

    def init(rows):
        return {"count": jnp.full(rows.shape[0], start), "sum": start * rows}

    def update(rows, state, features, ids, key):
        size = rows.shape[0]
        count = _ema(decay, state["count"], _count(ids, size))
        summed = jax.ops.segment_sum(features, ids, num_segments=size)
        total = _ema(decay, state["sum"], summed)
        dead = count < revive_below
        if revive_below:
            anew = start * random_features(key, features, size)
            total = jnp.where(dead[:, None], anew, total)
            count = jnp.where(dead, start, count)
        everything = jnp.sum(count)
        smooth = (count + EPSILON) / (everything + size * EPSILON) * everything
        return BookUpdate(total / smooth[:, None], {"count": count, "sum": total}, dead)

    return Rule(by_gradient=False, init=init, update=update)


def by_anchors(
    *, anchor: str = "probrandom", distance: str = "cosine", decay: float = 0.99
) -> Rule:
    """Codes are drawn towards features, the more the less they are used (CVQ).

    "Online Clustered Codebook" (arXiv 2307.15139): with p_k the running share of the
    features that chose code k, `a_k = exp(-p_k K 10 / (1 - g) - 1e-3)` and
    `e_k <- (1 - a_k) e_k + a_k anchor_k`; the optimizer trains the rows as well.
    Deviations: 'random' takes features of this step, not of a pool of several; and
    `distance` is that of the anchors alone, where the authors' code looks codes up by
    the cosine, too (here: form 'l2' of the quantizer).

    Args:
      anchor: 'closest': the feature nearest to the code; 'random': any;
        'probrandom': drawn with a probability that grows with the nearness, softmax of
        `-distance²` or of the cosine over all features.
      distance: 'cosine' or 'l2', of anchors alone.
      decay: g.
    """
    check_choice(f"{WHERE}.anchor", anchor, ("closest", "random", "probrandom"))
    check_choice(f"{WHERE}.distance", distance, ("cosine", "l2"))
    _check_decay(decay)

    def init(rows):
        return {"share": jnp.zeros(rows.shape[0])}

    def update(rows, state, features, ids, key):
        size = rows.shape[0]
        share = _count(ids, size) / ids.shape[0]
        share = _ema(decay, state["share"], share)
        if anchor == "random":
            anchors = random_features(key, features, size)
        else:
            draw = key if anchor == "probrandom" else None
            anchors = features[_nearest_features(rows, features, distance, draw)]
        pull = jnp.exp(-share * size * 10 / (1 - decay) - 1e-3)[:, None]
        rows = (1 - pull) * rows + pull * anchors
        return BookUpdate(rows, {"share": share}, jnp.zeros(size, bool))

    return Rule(by_gradient=True, init=init, update=update)


RULES = {"gradient": by_gradient, "ema": by_average, "cvq": by_anchors}


def make_rule(options: Mapping[str, Any]) -> Rule:
    """The rule that `config.train.codebook_update` asks for.

    Raises:
      UserError: an unknown rule or field, or a number out of its range.
    """
    fields = {**options}
    if fields.get("name") == "cvq" and not fields.get("revive_below"):
        fields.pop("revive_below", None)  # 0 stands in every config
    return families.make(RULES, fields, WHERE)


def _newcomer(revive_below: float) -> float:
    """The running count of a new row: with nothing to its credit, but time to get it.

    With the threshold itself a row that is chosen less often than that on average
    would be replaced at the next step. Twice of it last ln 2 / (1 - decay) steps.
    """
    return max(1.0, 2 * revive_below)


def _check_decay(decay: Any) -> None:
    check_share(f"{WHERE}.decay", decay)
    if decay == 1:
        raise UserError(f"{WHERE}.decay is 1, so nothing would ever move: use 0.99")


def random_features(
    key: jax.Array, features: Float[Array, "N d"], count: int
) -> jax.Array:
    """`count` features [count, d], all different where there are so many.

    Where there are fewer, they are repeated, with noise of 1 % of the features' spread,
    so that no two codes are equal.
    """
    rows = features.shape[0]
    order_key, noise_key = jax.random.split(key)
    order = jax.random.permutation(order_key, rows)
    if rows >= count:
        return features[order[:count]]
    drawn = features[order[jnp.arange(count) % rows]]
    spread = jnp.std(features)
    return drawn + 0.01 * spread * jax.random.normal(noise_key, drawn.shape)


def _nearest_features(
    rows: Float[Array, "K d"],
    features: Float[Array, "N d"],
    distance: str,
    key: jax.Array | None,
) -> Int[Array, " K"]:
    """For each code the index of a feature: the nearest, or with a key a drawn one.

    Codes go by in chunks: the K x N scores are never held at once. To add Gumbel noise
    to the scores and take the largest is to draw from their softmax.
    """
    if distance == "cosine":
        rows, features = normalised(rows), normalised(features)
    squares = jnp.sum(jnp.square(features), axis=-1)

    def choose(inputs):
        row, number = inputs
        scores = jnp.einsum("d,nd->n", row, features, precision="highest")
        if distance == "l2":
            scores = 2 * scores - squares  # -|e - z|², up to |e|²
        if key is not None:
            scores += jax.random.gumbel(jax.random.fold_in(key, number), scores.shape)
        return jnp.argmax(scores).astype(jnp.int32)

    numbers = jnp.arange(rows.shape[0])
    at_once = max(1, SCORE_BYTES // (4 * features.shape[0]))
    return jax.lax.map(choose, (rows, numbers), batch_size=min(at_once, len(rows)))


def _count(ids: Int[Array, " N"], size: int) -> jax.Array:
    """How many of the features chose each code, [size] float32."""
    return jax.ops.segment_sum(jnp.ones(ids.shape), ids, num_segments=size)


def _ema(decay: float, old: jax.Array, new: jax.Array) -> jax.Array:
    return decay * old + (1 - decay) * new
