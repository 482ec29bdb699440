"""The perceptual loss: how far images lie apart for a frozen, published network."""

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from movq_jax import families
from movq_jax.errors import UserError
from movq_jax.models.features import PERCEPTUAL
from movq_jax.pretrained.perceptual import abstract_perceptual, load_perceptual

WHERE = "config.loss.perceptual"
DTYPES = ("float32", "bfloat16")


def make_perceptual(options: Mapping[str, Any]) -> "PerceptualLoss | None":
    """The loss of `config.loss.perceptual`, or None for the name 'none'.

    No file is opened: `PerceptualLoss.load` does that.

    Raises:
      UserError: an unknown name, field or dtype, or a weight that is none.
    """
    fields = {**options}
    name = fields.pop("name", None)
    if name == "none":
        return None
    return families.call(PerceptualLoss, fields, f"{WHERE} ({name})", name)


class PerceptualLoss:
    """A distance of images, whose parameters are handed in at every call.

    Attributes:
      weight: of the loss; results are without it.
      min_side: of the images.
    """

    def __init__(self, name: str, weight: float, weights: str, dtype: str) -> None:
        """The fields of `config.loss.perceptual`."""
        module = families.member(PERCEPTUAL | {"none": None}, name, WHERE)
        if dtype not in DTYPES:
            raise UserError(
                f"{WHERE}.dtype is {dtype!r}{families.nearest(dtype, DTYPES)}"
            )
        if not (math.isfinite(weight) and weight >= 0):
            raise UserError(f"{WHERE}.weight is {weight}; it is a number from 0 on")
        self.weight = weight
        self.min_side = module.min_side
        self._name, self._weights = name, weights
        self._module = module(dtype=jnp.dtype(dtype))

    def load(self) -> dict[str, Any]:
        """The network's parameters: nested NumPy float32.

        Raises:
          UserError: see `movq_jax.pretrained.perceptual.load_perceptual`.
        """
        try:
            return load_perceptual(self._name, self._weights)
        except UserError as error:
            raise UserError(f"{WHERE}.weights: {error}") from error

    def abstract(self) -> dict[str, Any]:
        """The same as `jax.ShapeDtypeStruct`s; needs no file."""
        return abstract_perceptual(self._name)

    def __call__(self, params: Any, x: jax.Array, x_hat: jax.Array) -> jax.Array:
        """x, x_hat [B, H, W, 3] in [-1, 1] -> [B] float32, without `weight`.

        Its gradient goes to `x_hat` alone.

        Raises:
          UserError: images smaller than `min_side`.
        """
        if min(x.shape[1:3]) < self.min_side:
            raise UserError(
                f"{WHERE}.name is {self._name!r}, which needs images of at least "
                f"{self.min_side} pixels a side, and these are "
                f"{x.shape[1]}x{x.shape[2]}"
            )
        variables = {"params": params}
        with jax.named_scope("perceptual"):
            # The real image's maps are constants: nothing is kept for their gradient.
            fx, fy = (
                self._module.apply(variables, image, method="features")
                for image in (jax.lax.stop_gradient(x), x_hat)
            )
            fx = jax.lax.stop_gradient(fx)
            return self._module.apply(variables, fx, fy, method="distance")
