"""Differentiable augmentation of what a discriminator sees, real and made alike.

DiffAugment (arXiv 2006.10738), with the constants of StyleGAN-T's and XQ-GAN's code.
Every operation draws anew for each image and passes gradients back to it. Nothing is
rounded or clipped: colours may leave [-1, 1].
"""

import zlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key
from ml_collections import ConfigDict

from movq_jax import families
from movq_jax.errors import UserError

Images = Float[Array, "B H W C"]
PRNGKey = Key[Array, ""]
Augment = Callable[[PRNGKey, Images], Images]

WHERE = "config.loss.adversarial.augment"  # for error messages

MAX_SHIFT = 0.125  # of a side


def translation(key: PRNGKey, x: Images) -> Images:
    """Shifts by whole pixels, up to an eighth of a side either way; zeros come in."""
    batch, height, width, _ = x.shape
    row_key, column_key = jax.random.split(key)
    rows = _moves(row_key, batch, height).astype(x.dtype)
    columns = _moves(column_key, batch, width).astype(x.dtype)
    # Products with 0 and 1 in full precision, which are exact: unlike a gather of
    # each image's own slice, their gradient is no scatter, and a sharded batch stays.
    x = jnp.einsum("bij,bjwc->biwc", rows, x, precision="highest")
    return jnp.einsum("bij,bhjc->bhic", columns, x, precision="highest")


def _moves(key: PRNGKey, batch: int, size: int) -> Bool[Array, "B size size"]:
    """[b, to, from]: whether the shift drawn for b moves position `from` to `to`."""
    most = _rounded(MAX_SHIFT * size)
    shifts = jax.random.randint(key, (batch, 1), -most, most + 1)
    positions = jnp.arange(size)
    sources = positions[None, :] - shifts
    return sources[:, :, None] == positions[None, None, :]


def color(key: PRNGKey, x: Images) -> Images:
    """Brightness, saturation and contrast, in this order.

    With u of U(0, 1): x + (u - ½); 2 u times the difference to the pixel's mean over
    channels; (u + ½) times the difference to the image's mean.
    """
    u = jax.random.uniform(key, (3, x.shape[0], 1, 1, 1), x.dtype)
    x = x + (u[0] - 0.5)
    grey = jnp.mean(x, axis=-1, keepdims=True)
    x = grey + (x - grey) * (2 * u[1])
    mean = jnp.mean(x, axis=(1, 2, 3), keepdims=True)
    return mean + (x - mean) * (u[2] + 0.5)


def cutout(key: PRNGKey, x: Images, side: float) -> Images:
    """Zeros in a rectangle of `side` times the image's sides around any pixel.

    DiffAugment's own code has side 0.5; 0.2 is StyleGAN-T's. At the border a part of
    the rectangle lies outside.
    """
    batch, height, width, _ = x.shape
    row_key, column_key = jax.random.split(key)
    rows = _interval(row_key, batch, height, _rounded(side * height))
    columns = _interval(column_key, batch, width, _rounded(side * width))
    hole = rows[:, :, None, None] & columns[:, None, :, None]
    return jnp.where(hole, 0.0, x)


def _interval(
    key: PRNGKey, batch: int, size: int, length: int
) -> Bool[Array, "B size"]:
    """A run of `length` around a centre that is drawn for each image.

    An even length has its centre between pixels, of which there is one more.
    """
    centers = jax.random.randint(key, (batch, 1), 0, size + (length + 1) % 2)
    distance = jnp.arange(size)[None, :] - (centers - length // 2)
    return (distance >= 0) & (distance < length)


def _rounded(value: float) -> int:
    return int(value + 0.5)


AUGMENTATIONS = {"translation": translation, "color": color, "cutout": cutout}


def make_augment(options: Mapping[str, Any] | ConfigDict) -> Augment:
    """The function (key, x) -> x of `config.loss.adversarial.augment`.

    Args:
      options: policies, names of `AUGMENTATIONS`, applied in their order, none: x
        comes back as it is; probability, with which each of them is applied, to the
        whole batch at once; cutout, the hole's side in units of the image's.

    Raises:
      UserError: an unknown field or policy, one given twice, numbers outside 0..1.
    """
    return families.call(_augment, options, WHERE)


def _augment(policies: Sequence[str], probability: float, cutout: float) -> Augment:
    _check_policies(policies)
    for name, value in (("probability", probability), ("cutout", cutout)):
        if not 0 <= value <= 1:
            raise UserError(f"{WHERE}.{name} is {value}; it lies in 0..1")
    operations = {name: AUGMENTATIONS[name] for name in policies}
    if "cutout" in operations:
        operations["cutout"] = partial(operations["cutout"], side=cutout)

    def augment(key: PRNGKey, x: Images) -> Images:
        for name, operation in operations.items():
            # By name: a policy draws the same whatever else is chosen.
            draw_key, coin_key = jax.random.split(
                jax.random.fold_in(key, zlib.crc32(name.encode()))
            )
            applied = jax.random.bernoulli(coin_key, probability)
            x = jnp.where(applied, operation(draw_key, x), x)
        return x

    return augment


def _check_policies(policies: Sequence[str]) -> None:
    if isinstance(policies, str):
        raise UserError(
            f"{WHERE}.policies is {policies!r}; give a tuple of names, as in "
            f"({policies!r},)"
        )
    for name in policies:
        if name not in AUGMENTATIONS:
            hint = families.nearest(name, AUGMENTATIONS)
            raise UserError(f"{WHERE}.policies has {name!r}{hint}")
    if len(set(policies)) < len(policies):
        raise UserError(f"{WHERE}.policies is {policies}; give each name once")
