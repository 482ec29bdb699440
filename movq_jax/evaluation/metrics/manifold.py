"""Precision, recall, density and coverage: do two sets of features fill one region?

A set's region is the union of balls around its features, each as large as the distance
to its k-th nearest neighbour in the set. Distances are made tile by tile, so memory
grows with the number of images and not with its square.
"""

import functools
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np

from movq_jax import families
from movq_jax.errors import UserError
from movq_jax.evaluation.metrics.feature_arrays import check_two_sets

ROWS, COLUMNS = 1024, 8192  # of a tile of distances: 32 MiB in float32


def precision_recall(
    real: np.ndarray, fake: np.ndarray, *, k: int = 3, distance: str = "float32"
) -> tuple[float, float]:
    """Precision and recall by nearest neighbours.

    Precision is the share of fake images within a ball of a real one, recall that of
    real images within a ball of a fake one; a ball has its border, and an image is not
    its own neighbour (Kynkäänniemi et al., arXiv 1904.06991, equations 1 and 2).

    Distances in 'float32' are squared ones, off by about 1e-7 of the squared norms
    around the mean; torch-fidelity compares their roots, which is the same but for
    ties by rounding. 'adm_float16' is what ADM (arXiv 2105.05233) evaluates with: the
    features, the norms, the products and their sums are each rounded to float16 (and
    added up in float32), which moves results by up to 1e-3. A tile with a distance
    that is no finite float16 is made in float32 instead; ADM's tiles are larger, which
    matters only where squared norms reach 65,504, a hundred times those of Inception.

    Args:
      real: [N, D], any real dtype; N above k.
      fake: [M, D]; M above k.
      k: the neighbour that tells the radius.
      distance: 'float32' or 'adm_float16', see above.

    Returns:
      (precision, recall), each in 0..1.

    Raises:
      UserError: k or fewer images in a set, features that are not finite or of two
        widths, or another distance.
    """
    if distance not in _SQUARED_DISTANCES:
        known = families.nearest(distance, _SQUARED_DISTANCES)
        raise UserError(f"distance is {distance!r}{known}")
    squared = _SQUARED_DISTANCES[distance]
    real, fake = _two_sets(real, fake, k)
    if distance == "float32":
        real, fake = _centred(real, fake)
    real, fake = (x.astype(np.float32) for x in (real, fake))
    real_radii, fake_radii = (_radii(x, k, squared) for x in (real, fake))
    real_inside, fake_inside = np.zeros(len(real), bool), np.zeros(len(fake), bool)
    for rows, columns in _tiles(len(real), len(fake)):
        in_rows, in_columns = _inside(
            real[rows], fake[columns], real_radii[rows], fake_radii[columns], squared
        )
        real_inside[rows] |= np.asarray(in_rows)
        fake_inside[columns] |= np.asarray(in_columns)
    return float(fake_inside.mean()), float(real_inside.mean())


def density_coverage(
    real: np.ndarray, fake: np.ndarray, *, k: int = 5
) -> tuple[float, float]:
    """Density and coverage (Naeem et al., arXiv 2002.09797, section 3).

    Density is the number of real balls that a fake image lies in, over k, averaged
    over fake images; it may exceed 1. Coverage is the share of real balls with a fake
    image inside. A ball is without its border here, an image not its own neighbour.

    Args:
      real: [N, D], any real dtype; N above k.
      fake: [M, D]; M above k, although only one would be needed: a set so small says
        nothing.
      k: the neighbour that tells the radius.

    Returns:
      (density, coverage).

    Raises:
      UserError: k or fewer images in a set, or features that are not finite or of two
        widths.
    """
    real, fake = _centred(*_two_sets(real, fake, k))
    radii = _radii(real, k, _squared_float32)
    held = np.zeros(len(real), np.int64)  # how many fake images are in a real ball
    for rows, columns in _tiles(len(real), len(fake)):
        held[rows] += np.asarray(_held(real[rows], fake[columns], radii[rows]))
    return float(held.sum() / (k * len(fake))), float((held > 0).mean())


def _two_sets(
    real: np.ndarray, fake: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """Both sets as they were given, once looked over."""
    real, fake = check_two_sets(real, fake, ("real", "fake"))
    if k < 1:
        raise UserError(f"k is {k}; the nearest neighbour is that of k = 1")
    for features, which in ((real, "real"), (fake, "fake")):
        if len(features) <= k:
            raise UserError(
                f"a neighbour number {k} needs more than {k} images, and there are "
                f"{len(features)} {which} ones: give more images, or a smaller k"
            )
    return real, fake


def _centred(real: np.ndarray, fake: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both sets moved to about 0, where float32 distances lose the fewest digits.

    The shift is a whole number, so that it is exact for features that are.
    """
    shift = np.round(real.mean(axis=0, dtype=np.float64))
    return tuple((x - shift).astype(np.float32) for x in (real, fake))


def _tiles(rows: int, columns: int) -> Iterator[tuple[slice, slice]]:
    """The tiles of a matrix of that size."""
    for top in range(0, rows, ROWS):
        for left in range(0, columns, COLUMNS):
            yield slice(top, top + ROWS), slice(left, left + COLUMNS)


def _radii(features: np.ndarray, k: int, squared: Callable) -> np.ndarray:
    """Squared distances to the k-th nearest neighbours, float32 [N].

    The nearest of all is the image itself, unless others are equal to it.
    """
    nearest = np.full((len(features), k + 1), np.inf, np.float32)
    for rows, columns in _tiles(len(features), len(features)):
        found = _nearest(features[rows], features[columns], k + 1, squared)
        both = np.concatenate([nearest[rows], np.asarray(found)], axis=1)
        nearest[rows] = np.partition(both, k, axis=1)[:, : k + 1]
    return nearest.max(axis=1)


@functools.partial(jax.jit, static_argnums=(2, 3))
def _nearest(u: jax.Array, v: jax.Array, count: int, squared: Callable) -> jax.Array:
    """The `count` smallest distances of each row of u to those of v, or all."""
    distances = squared(u, v)
    return -jax.lax.top_k(-distances, min(count, distances.shape[1]))[0]


@functools.partial(jax.jit, static_argnums=4)
def _inside(
    u: jax.Array,
    v: jax.Array,
    u_radii: jax.Array,
    v_radii: jax.Array,
    squared: Callable,
) -> tuple[jax.Array, jax.Array]:
    """Whether each of u is in a ball of v's, and each of v in one of u's: bool."""
    distances = squared(u, v)
    in_v = jnp.any(distances <= v_radii[None, :], axis=1)
    return in_v, jnp.any(distances <= u_radii[:, None], axis=0)


@jax.jit
def _held(u: jax.Array, v: jax.Array, u_radii: jax.Array) -> jax.Array:
    """How many of v each ball of u's holds, int32 [n]."""
    return jnp.sum(_squared_float32(u, v) < u_radii[:, None], axis=1)


def _products(u: jax.Array, v: jax.Array) -> jax.Array:
    """u . v of all pairs [n, m], in float32 also where hardware has something less."""
    return jnp.matmul(u, v.T, precision="highest", preferred_element_type=jnp.float32)


def _squared_float32(u: jax.Array, v: jax.Array) -> jax.Array:
    """Squared distances of all pairs [n, m], at least 0."""
    norms_u, norms_v = (jnp.sum(x * x, axis=1) for x in (u, v))
    squared = norms_u[:, None] - 2 * _products(u, v) + norms_v[None, :]
    return jnp.maximum(squared, 0)


def _squared_adm_float16(u: jax.Array, v: jax.Array) -> jax.Array:
    """The same with every result rounded to float16, if all of them are finite.

    Rounding is by `reduce_precision`, which a compiler may not leave out as it may a
    conversion there and back; below 6e-5 it gives 0, where float16 has a few more.
    """
    half = functools.partial(
        jax.lax.reduce_precision, exponent_bits=5, mantissa_bits=10
    )
    half_u, half_v = half(u), half(v)
    norms_u, norms_v = (half(jnp.sum(half(x * x), axis=1)) for x in (half_u, half_v))
    twice = half(2 * half(_products(half_u, half_v)))
    squared = half(half(norms_u[:, None] - twice) + norms_v[None, :])
    finite = jnp.all(jnp.isfinite(squared))
    return jax.lax.cond(
        finite, lambda: jnp.maximum(squared, 0), lambda: _squared_float32(u, v)
    )


_SQUARED_DISTANCES = {
    "float32": _squared_float32,
    "adm_float16": _squared_adm_float16,
}
