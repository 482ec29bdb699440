"""What FID, sFID, IS, KID, precision and recall look at: Inception's activations.

Images of any sizes are resized to 299 x 299 in one of three ways, which are three
metrics (`movq_jax.models.features.inception_input`), and go through the network with
its published weights:

    features = InceptionFeatures()
    made = features(images)  # made.pool: float32 [B, 2048], and so on
"""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np

from movq_jax import families
from movq_jax.errors import UserError
from movq_jax.evaluation.image_batches import (
    check_image,
    micro_batch_or_default,
    padded,
)
from movq_jax.models.features import inception_input
from movq_jax.models.features.inception import (
    CLASSES,
    POOL_WIDTH,
    SIDE,
    SPATIAL_WIDTH,
    Inception,
    InceptionOutput,
)
from movq_jax.pretrained.fingerprint import fingerprint
from movq_jax.pretrained.inception import load_inception

NAME = "inception-2015-12-05"


class InceptionFeatures:
    """Images to Inception's activations, in float32 at full precision.

    Attributes:
      name: of the network, for records.
      fingerprint: 64 hex digits that tell these weights from others, for records.
      resize: the way to 299 x 299: 'tf1', 'clean' or 'pytorch_fid'.
      width: 2048, of `pool`.
      spatial_width: 2023, of `spatial`.
      micro_batch: images a compiled call; the last one is padded. At a given
        micro-batch an image's result does not depend on the images beside it. 1 on
        the CPU and 32 elsewhere by default.
    """

    name = NAME
    width = POOL_WIDTH
    spatial_width = SPATIAL_WIDTH

    def __init__(
        self,
        weights: Path | str = "",
        *,
        resize: str = "tf1",
        micro_batch: int | None = None,
    ) -> None:
        """Reads the weights, see `load_inception`.

        Raises:
          UserError: an unknown way to resize, no weights or others than of this
            network, or `micro_batch` is below 1.
        """
        micro_batch = micro_batch_or_default(micro_batch)
        if resize not in _WAYS:
            raise UserError(
                f"Inception's resize is {resize!r}{families.nearest(resize, _WAYS)}"
            )
        self._scaled = _WAYS[resize]
        params = load_inception(weights)
        flat = flax.traverse_util.flatten_dict(params, sep=".")
        self.fingerprint = fingerprint(flat, {})
        self.resize = resize
        self.micro_batch = micro_batch
        self._variables = {"params": jax.tree.map(jnp.asarray, params)}

    def __call__(
        self, images: np.ndarray | jax.Array | Sequence[np.ndarray]
    ) -> InceptionOutput:
        """Images to activations.

        Args:
          images: uint8 [B, H, W, 3], or B of uint8 [H, W, 3] of any sizes. Images
            that are not square are squeezed to a square: crop them first. On the way
            of 'tf1' and 'pytorch_fid' each size compiles a small program.

        Returns:
          `InceptionOutput` of NumPy float32 arrays with B rows.

        Raises:
          UserError: an image of another shape or dtype.
        """
        made = InceptionOutput(
            *(
                np.empty((len(images), width), np.float32)
                for width in (POOL_WIDTH, SPATIAL_WIDTH, CLASSES, CLASSES)
            )
        )
        for start in range(0, len(images), self.micro_batch):
            part = images[start : start + self.micro_batch]
            part = [check_image(image, start + i) for i, image in enumerate(part)]
            inputs = self._scaled(part, self.micro_batch)
            output = _apply(self._variables, inputs)
            rows = slice(start, start + len(part))
            leaves = zip(jax.tree.leaves(made), jax.tree.leaves(output), strict=True)
            for kept, values in leaves:
                kept[rows] = np.asarray(values)[: len(part)]
        return made


@jax.jit
def _apply(variables: dict, x: jax.Array) -> InceptionOutput:
    """The network, compiled once for all objects of a micro-batch."""
    with jax.default_matmul_precision("highest"):
        return Inception().apply(variables, x)


@jax.jit
def _tf1(images: jax.Array) -> jax.Array:
    """uint8 [B, H, W, 3] -> Inception's input, as torch-fidelity and ADM make it."""
    resized = inception_input.tf1_resize(images.astype(jnp.float32))
    return inception_input.scale_255(resized)


@jax.jit
def _pytorch_fid(images: jax.Array) -> jax.Array:
    """uint8 [B, H, W, 3] -> Inception's input, as pytorch-fid makes it."""
    resized = inception_input.half_pixel_resize(images.astype(jnp.float32) / 255.0)
    return 2.0 * resized - 1.0


def _on_the_host(images: list[np.ndarray], count: int) -> jax.Array:
    """uint8 images -> Inception's input [count, 299, 299, 3], as clean-fid makes it."""
    resized = np.stack([inception_input.clean_resize(image) for image in images])
    return inception_input.scale_255(jnp.asarray(padded(resized, count)))


def _on_the_device(resize: Callable, images: list[np.ndarray], count: int) -> jax.Array:
    """uint8 images -> Inception's input [count, 299, 299, 3], by a compiled `resize`.

    Always `count` images of one size at a time: a program of another batch might round
    otherwise, and an image's result would depend on its neighbours'.
    """
    places = {}
    for place, image in enumerate(images):
        places.setdefault(image.shape, []).append(place)
    inputs = np.empty((count, SIDE, SIDE, 3), np.float32)
    for alike in places.values():
        stacked = padded(np.stack([images[place] for place in alike]), count)
        resized = resize(stacked)
        if len(places) == 1:  # as ever but for lists: nothing comes back to the host
            return resized
        inputs[alike] = np.asarray(resized)[: len(alike)]
    return jnp.asarray(padded(inputs[: len(images)], count))


_WAYS = {
    "tf1": functools.partial(_on_the_device, _tf1),
    "clean": _on_the_host,
    "pytorch_fid": functools.partial(_on_the_device, _pytorch_fid),
}
