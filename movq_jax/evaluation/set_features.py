"""What metrics of sets need to know of one set of images, gathered batch by batch."""

from collections.abc import Sequence

import numpy as np

from movq_jax.evaluation.metrics.frechet import FeatureStatistics
from movq_jax.evaluation.metrics.inception_score import InceptionScore
from movq_jax.evaluation.networks import Networks
from movq_jax.evaluation.protocols import Protocol
from movq_jax.evaluation.reference_files import WIDTHS

_INCEPTION = frozenset({"pool", "spatial", "kept", "score"})


class SetFeatures:
    """The features of a set, as far as they are asked for.

    Means and covariances are summed up, so memory does not grow with the images; but
    'kept' holds 8 kB an image, and 'score' 4 kB where the protocol shuffles.

    Attributes:
        count: images so far.
        statistics: 'pool', 'spatial' and 'squeezenet', as far as asked for.
    """

    def __init__(
        self, wanted: frozenset[str], networks: Networks, protocol: Protocol
    ) -> None:
        """Load the networks for what is `wanted`, see `metric_table.Metric.needs`."""
        self.count = 0
        self.statistics = {
            key: FeatureStatistics(width)
            for key, width in WIDTHS.items()
            if key in wanted
        }
        self._wanted = wanted
        self._protocol = protocol
        self._kept: list[np.ndarray] = []
        self._logits: list[np.ndarray] = []
        self._score = _SCORES.get(protocol.is_variant, lambda: None)()
        self._inception = self._squeezenet = None
        if wanted & _INCEPTION:
            self._inception = networks.inception(protocol.network_resize)
        if "squeezenet" in wanted:
            self._squeezenet = networks.squeezenet

    def add(self, images: Sequence[np.ndarray]) -> None:
        """Take a batch of images, uint8 [H, W, 3] each."""
        self.count += len(images)
        if self._squeezenet is not None:
            self.statistics["squeezenet"].update(self._squeezenet(images))
        if self._inception is None:
            return
        made = self._inception(images)
        for key in ("pool", "spatial"):
            if key in self.statistics:
                self.statistics[key].update(getattr(made, key))
        if "kept" in self._wanted:
            self._kept.append(np.asarray(made.pool))
        if "score" in self._wanted:
            logits = np.asarray(made.logits_unbiased)
            if self._score is None:
                self._logits.append(logits)
            else:
                self._score.update(logits)

    @property
    def kept(self) -> np.ndarray:
        """The pool features of all images, float32 [N, 2048]."""
        return np.concatenate(self._kept) if self._kept else np.zeros((0, 2048))

    def inception_score(self) -> tuple[float, float]:
        """Return the mean and the standard deviation over the protocol's blocks.

        Raises:
            UserError: there are too few images for them.
        """
        if self._score is not None:
            return self._score.compute()
        # Only now is it known how many images could be read.
        score = InceptionScore.torch_fidelity(self.count)
        for logits in self._logits:
            score.update(logits)
        return score.compute()


_SCORES = {"adm": InceptionScore.adm, "one_block": InceptionScore.one_block}
