"""LPIPS and the squeezenet perceptual distance as metrics of 8-bit images."""

from pathlib import Path

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float64

from movq_jax import families
from movq_jax.errors import UserError
from movq_jax.evaluation.image_batches import micro_batch_or_default, padded
from movq_jax.evaluation.metrics.image_pairs import check_pair
from movq_jax.models.features import PERCEPTUAL
from movq_jax.models.pixels import from_uint8
from movq_jax.pretrained.fingerprint import fingerprint
from movq_jax.pretrained.perceptual import load_perceptual


class LpipsMetric:
    """The distance of two images by a member of `PERCEPTUAL`, with published weights.

    Everything is float32 at full precision, also where the hardware would round
    factors to fewer bits. Images are compared at the size they have; each size is
    compiled once.

    Attributes:
      name: of the member of `PERCEPTUAL`.
      micro_batch: pairs a compiled call; the last one is padded. At a given
        micro-batch a pair's distance does not depend on the pairs beside it.
        1 on the CPU, where that is fastest, and 32 elsewhere by default.
      fingerprint: 64 hex digits that tell these weights from others, for records.
    """

    def __init__(
        self, name: str, weights: Path | str = "", micro_batch: int | None = None
    ) -> None:
        """Reads the weights.

        Args:
          name: 'lpips_vgg', 'lpips_alex' or 'squeezenet'.
          weights: see `load_perceptual`.
          micro_batch: see above.

        Raises:
          UserError: an unknown name, no weights, or others than the network's; or
            `micro_batch` is below 1.
        """
        micro_batch = micro_batch_or_default(micro_batch)
        module = families.member(PERCEPTUAL, name, "perceptual")()
        params = load_perceptual(name, weights)
        flat = flax.traverse_util.flatten_dict(params, sep=".")
        self.name = name
        self.fingerprint = fingerprint(flat, {})
        self.micro_batch = micro_batch
        self._min_side = module.min_side
        self._variables = {"params": jax.tree.map(jnp.asarray, params)}

        def distance(variables: dict, a: jax.Array, b: jax.Array) -> jax.Array:
            with jax.default_matmul_precision("highest"):
                return module.apply(variables, from_uint8(a), from_uint8(b))

        self._distance = jax.jit(distance)

    def __call__(self, a: np.ndarray, b: np.ndarray) -> Float64[np.ndarray, " b"]:
        """The distances of pairs of images.

        Args:
          a: uint8 [B, H, W, 3].
          b: uint8, of the same shape.

        Returns:
          float64 [B], 0 for equal images; the numbers are those of float32.

        Raises:
          UserError: another shape or dtype, or images too small for the network.
        """
        a, b = np.asarray(a), np.asarray(b)
        check_pair(a, b, self._min_side, self.name)
        if a.ndim != 4 or a.shape[-1] != 3:
            raise UserError(
                f"{self.name} compares images [B, H, W, 3], not {list(a.shape)}"
            )
        distances = np.empty(len(a))
        for start in range(0, len(a), self.micro_batch):
            part = slice(start, start + self.micro_batch)
            pair = (padded(images[part], self.micro_batch) for images in (a, b))
            made = np.asarray(self._distance(self._variables, *pair))
            distances[part] = made[: len(a[part])]
        return distances
