"""The networks that metrics look through: loaded when one is needed, and once."""

import functools
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from movq_jax.errors import UserError
from movq_jax.evaluation.inception_features import InceptionFeatures
from movq_jax.evaluation.metrics.lpips_metric import LpipsMetric
from movq_jax.evaluation.squeezenet_fd import SqueezeNetFeatures
from movq_jax.pretrained.perceptual import SQUEEZENET_WANTED
from movq_jax.pretrained.weights import weights_folder
from movq_jax.regular_files import check_regular

SQUEEZENET_FILE = "squeezenet_v1.0.npz"


class Networks:
    """Where weights lie, and the networks that were made of them so far.

    Attributes:
        fingerprints: name of a network that was used -> 64 hex digits of its weights.
    """

    def __init__(
        self,
        *,
        inception: Path | str = "",
        squeezenet: Path | str = "",
        lpips: Path | str = "",
        micro_batch: int | None = None,
    ) -> None:
        """Load nothing yet.

        Args:
            inception: a file, see `load_inception`; '': the published one.
            squeezenet: the path of `squeezenet_v1.0.npz`; '': in the folder of weights.
            lpips: the folder of the backbones and heads; '': that of all weights.
            micro_batch: images a compiled call; None: what is best for the device.
        """
        self._inception = inception
        self._squeezenet = squeezenet or weights_folder() / SQUEEZENET_FILE
        self._lpips = lpips
        self._micro_batch = micro_batch
        self._by_resize: dict[str, InceptionFeatures] = {}
        self.fingerprints: dict[str, str] = {}

    def inception(self, resize: str) -> InceptionFeatures:
        """Return Inception behind one of its ways to resize.

        Raises:
            UserError: there are no such weights.
        """
        if resize not in self._by_resize:
            made = InceptionFeatures(
                self._inception, resize=resize, micro_batch=self._micro_batch
            )
            self._by_resize[resize] = made
            self.fingerprints["inception"] = made.fingerprint
        return self._by_resize[resize]

    @functools.cached_property
    def squeezenet(self) -> SqueezeNetFeatures:
        """SqueezeNet, for SqueezeNet-FD.

        Raises:
            UserError: there are no such weights.
        """
        self._check_squeezenet()
        made = SqueezeNetFeatures(self._squeezenet, self._micro_batch)
        self.fingerprints["squeezenet"] = made.fingerprint
        return made

    def perceptual(self, name: str) -> Callable[..., Any]:
        """Return a perceptual distance: two batches of uint8 images to one number each.

        Raises:
            UserError: there are no such weights.
        """
        if name == "squeezenet":
            self._check_squeezenet()
        weights = self._squeezenet if name == "squeezenet" else self._lpips
        made = LpipsMetric(name, weights, micro_batch=self._micro_batch)
        label = "squeezenet_perceptual" if name == "squeezenet" else name
        self.fingerprints[label] = made.fingerprint
        return made

    def _check_squeezenet(self) -> None:
        """Refuse what is no npz file, such as the page that a wrong link leads to."""
        path = Path(self._squeezenet).expanduser()
        check_regular(path)
        if path.exists() and not zipfile.is_zipfile(path):
            raise UserError(f"{path} is not an npz file; {SQUEEZENET_WANTED}")
