"""A Fréchet distance of few images, to follow a run by: `config.eval.distance`.

What the model makes is compared with the evaluation split as `movq evaluate` compares
them by the protocol 'default'; but of few images, so the number carries a bias of about
1/N. Its name has the N (`fid_1000`), and it is to be compared only with itself.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from movq_jax import families
from movq_jax.errors import UserError
from movq_jax.evaluation.metric_table import METRICS
from movq_jax.evaluation.metrics.frechet import FeatureStatistics, frechet
from movq_jax.evaluation.networks import SQUEEZENET_FILE, Networks
from movq_jax.evaluation.protocols import find_protocol
from movq_jax.evaluation.set_features import SetFeatures
from movq_jax.pretrained.inception import FILE as INCEPTION_FILE
from movq_jax.pretrained.weights import weights_folder

WHERE = "config.eval.distance"
FILES = {"fid": INCEPTION_FILE, "squeezenet_fd": SQUEEZENET_FILE}
FEWEST = 2  # images that have a covariance


def make_set_distance(options: Mapping[str, Any]) -> "SetDistance | None":
    """The distance of `config.eval.distance`, or None where there is none to be had.

    'auto' is the first of `FILES` whose file lies in the folder of weights; nothing is
    fetched for it.

    Raises:
      UserError: an unknown name or field, or a number out of range.
    """
    fields = {**options}
    name = fields.pop("name", None)
    families.member({"none": None, "auto": None, **FILES}, name, WHERE)
    made = families.call(SetDistance, fields, f"{WHERE} ({name})", name)
    if name == "auto":
        if made.weights:
            raise UserError(
                f"{WHERE}.weights is {made.weights!r}, but of which network? Set "
                f"{WHERE}.name to one of {', '.join(FILES)}"
            )
        made.name = _first_there()
    return None if made.name == "none" else made


def _first_there() -> str:
    """The first of `FILES` that every process has, or 'none'."""
    there = [(weights_folder() / file).exists() for file in FILES.values()]
    if jax.process_count() > 1:
        there = multihost_utils.process_allgather(np.asarray(there)).all(axis=0)
    return next((name for name, has in zip(FILES, there, strict=True) if has), "none")


class SetDistance:
    """The distance of two sets of images that come batch by batch.

    Attributes:
      name: of the metric.
      num_examples: how many images of each set are enough.
      weights: the file of the network; '': see `Networks`.
    """

    def __init__(self, name: str, num_examples: int, weights: str) -> None:
        """The fields of `config.eval.distance`; loads nothing yet."""
        if num_examples < FEWEST:
            raise UserError(
                f"{WHERE}.num_examples is {num_examples}, but a covariance needs at "
                f"least {FEWEST}; for no distance set {WHERE}.name to none"
            )
        self.name = name
        self.num_examples = num_examples
        self.weights = weights
        self._networks: Networks | None = None
        self._reference: FeatureStatistics | None = None
        self._made = self._partners = None

    def load(self) -> None:
        """Loads the network.

        Raises:
          UserError: the weights are not there, or are others.
        """
        if self._networks is not None:
            return
        path = {}
        if self.weights:
            network = "inception" if self.name == "fid" else "squeezenet"
            path = {network: Path(self.weights).expanduser()}
        networks = Networks(**path)
        try:
            self._features(networks)
        except UserError as error:
            raise UserError(f"{WHERE}: {error}") from error
        self._networks = networks

    def begin(self) -> None:
        """Forgets the images that were judged; the reference stays known."""
        self.load()
        self._made = self._features(self._networks)
        self._partners = self._features(self._networks)

    def add(self, images: np.ndarray, partners: np.ndarray) -> None:
        """Takes in this process's part of a batch.

        Args:
          images: uint8 [B, H, W, 3], of the model.
          partners: as many, of the set that they are compared with.
        """
        self._made.add(images)
        if self._reference is None:
            self._partners.add(partners)

    def compute(self) -> dict[str, float]:
        """`{name_N: distance}` of the images of all processes; {} of fewer than two.

        Every process has to call it.
        """
        key = METRICS[self.name].needs
        made = gathered(self._made.statistics[key])
        if self._reference is None:
            self._reference = gathered(self._partners.statistics[key])
        if made.count < FEWEST:
            return {}
        return {f"{self.name}_{made.count}": frechet(made, self._reference)}

    def _features(self, networks: Networks) -> SetFeatures:
        needed = frozenset({METRICS[self.name].needs})
        return SetFeatures(needed, networks, find_protocol("default"))


def gathered(statistics: FeatureStatistics) -> FeatureStatistics:
    """The statistics of all processes together; every process has to call it."""
    if jax.process_count() == 1:
        return statistics
    # As whole numbers, because jax would make float32 of float64.
    parts = multihost_utils.process_allgather(statistics.to_array().view(np.uint32))
    merged = FeatureStatistics(statistics.width)
    for part in np.asarray(parts):
        array = np.ascontiguousarray(part).view(np.float64)
        merged = merged.merge(FeatureStatistics.from_array(array, statistics.width))
    return merged
