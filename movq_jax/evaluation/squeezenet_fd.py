"""SqueezeNet-FD: a Fréchet distance with features of a network small enough for a CPU.

Each image is resized to 227 x 227 and goes through SqueezeNet v1.0 as published; its
512 features are the mean over the positions of fire9 (after its ReLU). What is compared
are the means and covariances of two sets of them:

    features = SqueezeNetFeatures("squeezenet_v1.0.npz")
    a, b = features.statistics(images), features.statistics(reconstructions)
    distance = frechet(a, b)

where both are batches of images.

This is no FID: network, resizing and scale are others, and numbers of the two cannot be
compared. With fewer than 513 images the covariances have not full rank, see `frechet`.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float32, UInt8

from movq_jax.data.transforms import resize
from movq_jax.evaluation.image_batches import (
    check_image,
    micro_batch_or_default,
    padded,
)
from movq_jax.evaluation.metrics.frechet import FeatureStatistics
from movq_jax.models.features.squeezenet import FIRES, SqueezeNet
from movq_jax.models.pixels import from_uint8
from movq_jax.pretrained.fingerprint import fingerprint
from movq_jax.pretrained.perceptual import load_squeezenet

SIDE = 227
WIDTH = 2 * FIRES[-1][1]


class SqueezeNetFeatures:
    """Images to the features of SqueezeNet-FD, with the published weights.

    Resizing is antialiased and bicubic (a = -0.5), by Pillow on the host, in integers
    and rounded to uint8: the same bits on every machine. All else is float32 at full
    precision, also where the hardware would round factors to fewer bits.

    Attributes:
      width: 512, the number of features.
      micro_batch: images a compiled call; the last one is padded. At a given
        micro-batch an image's features do not depend on the images beside it.
        1 on the CPU, where that is fastest, and 32 elsewhere by default.
      fingerprint: 64 hex digits that tell these weights from others, for records.
    """

    width = WIDTH

    def __init__(self, weights: Path | str, micro_batch: int | None = None) -> None:
        """Reads the weights from the path of `squeezenet_v1.0.npz`.

        Raises:
          UserError: no path, no file, or not the arrays of this network; or
            `micro_batch` is below 1.
        """
        micro_batch = micro_batch_or_default(micro_batch)
        params = load_squeezenet(weights)
        del params["conv_final"]  # the classifier
        flat = flax.traverse_util.flatten_dict(params, sep=".")
        self.fingerprint = fingerprint(flat, {})
        self.micro_batch = micro_batch
        self._variables = {"params": jax.tree.map(jnp.asarray, params)}
        self._apply = jax.jit(_features)

    def __call__(
        self, images: np.ndarray | jax.Array | Sequence[np.ndarray]
    ) -> Float32[np.ndarray, "b 512"]:
        """Images to features.

        Args:
          images: uint8 [B, H, W, 3], or B of uint8 [H, W, 3] of any sizes. Images
            that are not square are squeezed to a square: crop them first.

        Returns:
          float32 [B, 512].

        Raises:
          UserError: an image of another shape or dtype.
        """
        features = np.empty((len(images), WIDTH), np.float32)
        for start in range(0, len(images), self.micro_batch):
            part = images[start : start + self.micro_batch]
            squares = [_square(image, start + i) for i, image in enumerate(part)]
            inputs = padded(np.stack(squares), self.micro_batch)
            made = np.asarray(self._apply(self._variables, inputs))
            features[start : start + len(part)] = made[: len(part)]
        return features

    def statistics(
        self, batches: Iterable[np.ndarray | jax.Array | Sequence[np.ndarray]]
    ) -> FeatureStatistics:
        """Mean and covariance of the features of all images in the batches.

        Raises:
          UserError: see `__call__`.
        """
        found = FeatureStatistics(self.width)
        for batch in batches:
            found.update(self(batch))
        return found


def _features(variables: dict, images: jax.Array) -> jax.Array:
    """uint8 [B, 227, 227, 3] -> float32 [B, 512]."""
    with jax.default_matmul_precision("highest"):
        fire9 = SqueezeNet().apply(variables, from_uint8(images))[-1]
    return jnp.mean(fire9, axis=(1, 2))


def _square(
    image: np.ndarray | jax.Array, index: int
) -> UInt8[np.ndarray, "227 227 3"]:
    """The image as the network sees it; `index` is for the error."""
    image = check_image(image, index)
    return resize(image, SIDE, SIDE, "bicubic")
