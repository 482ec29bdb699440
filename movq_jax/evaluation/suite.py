"""The chosen metrics of one protocol, over images that come batch by batch.

    suite = Suite(find_protocol("default"), ("psnr", "fid"), Networks())
    for names, images, partners in batches:
        suite.add(names, images, partners)
    print(suite.compute())

Metrics of pairs compare an image with its partner; metrics of sets compare all images
with the set of the partners, or with another set (`add_reference`), or with the
statistics of a file.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from movq_jax.errors import UserError
from movq_jax.evaluation.metric_table import METRICS, PAIRS, SETS, needs_of, of_kind
from movq_jax.evaluation.metrics.frechet import FeatureStatistics, frechet_distance
from movq_jax.evaluation.metrics.kid import kid
from movq_jax.evaluation.metrics.manifold import density_coverage, precision_recall
from movq_jax.evaluation.networks import Networks
from movq_jax.evaluation.pair_values import PairValues, Shown
from movq_jax.evaluation.protocols import Protocol
from movq_jax.evaluation.reference_files import ReferenceFile
from movq_jax.evaluation.set_features import SetFeatures
from movq_jax.evaluation.suite_checks import KID_SUBSET, check_reference

FEW_FOR_FRECHET = 10_000


class Suite:
    """What is measured under one protocol.

    Attributes:
        protocol: of the images, which come prepared by it.
        metrics: their names.
    """

    def __init__(
        self,
        protocol: Protocol,
        metrics: Sequence[str],
        networks: Networks,
        *,
        reference: ReferenceFile | None = None,
        statistics_only: bool = False,
        kid_subset: int = KID_SUBSET,
        worst: int = 0,
    ) -> None:
        """Load the networks that the metrics need.

        Args:
            protocol: how the images were prepared, and how they are looked at.
            metrics: names of `METRICS`, of pairs and of sets.
            networks: loads each network once, for all suites.
            reference: statistics of the reference set, instead of its images.
            statistics_only: there is no reference; what compares with one is left out.
            kid_subset: images in a subset of KID.
            worst: how many pairs to keep for each metric of pairs.

        Raises:
            UserError: weights are missing, or the reference file has other features
                than the metrics need, or its protocol is another one.
        """
        self.protocol = protocol
        self.metrics = tuple(metrics)
        self._kid_subset = kid_subset
        self._file = reference
        self._statistics_only = statistics_only
        sets = of_kind(metrics, SETS)
        wanted = needs_of(sets)
        self._pairs = [
            PairValues(name, networks, worst=worst) for name in of_kind(metrics, PAIRS)
        ]
        self._made = SetFeatures(wanted, networks, protocol)
        from_file = set(reference.moments) if reference else set()
        wanted = wanted - from_file - {"score"}
        if reference is not None:
            check_reference(reference, protocol, sets, networks.fingerprints)
        self._reference = SetFeatures(frozenset(wanted), networks, protocol)
        self.needs_reference_images = bool(wanted) and not statistics_only
        self._seen = hashlib.sha256()  # the pixels of the reference
        self._partners = 0

    def add(
        self,
        names: Sequence[str],
        images: Sequence[np.ndarray],
        partners: Sequence[np.ndarray] | None = None,
    ) -> None:
        """Take a batch to be judged.

        Args:
            names: of the images.
            images: uint8 [H, W, 3] each, prepared.
            partners: as many, for metrics of pairs.

        Raises:
            UserError: an image and its partner are of two sizes.
        """
        if partners is not None:
            self._partners += len(partners)
            self._see(partners)
        if self._pairs:
            for rows in _of_one_size(names, images, partners):
                for values in self._pairs:
                    values.add(*rows)
        self._made.add(images)

    def add_reference(self, images: Sequence[np.ndarray]) -> None:
        """Take a batch of the set that metrics of sets compare with."""
        if not self._partners:  # else they were seen
            self._see(images)
        self._reference.add(images)

    def compute(self) -> dict[str, dict[str, Any]]:
        """Return a record for each metric: value, low, high, count, and more.

        A metric that cannot be computed has the value None, and a `reason`.
        """
        records = {values.name: values.record() for values in self._pairs}
        for values in self._pairs:
            if values.reason:
                records[values.name]["reason"] = values.reason
        computed: dict[Any, dict[str, dict[str, Any]]] = {}
        for name in of_kind(self.metrics, SETS):
            if self._statistics_only and METRICS[name].needs_reference:
                continue
            # Precision and recall come together, and so do density and coverage.
            how = _HOW[name]
            key = name if METRICS[name].is_frechet else how
            if key not in computed:
                computed[key] = self._try(how, name)
            found = computed[key].get(name, computed[key].get("", {}))
            records[name] = {**_empty(name, self._made.count), **found}
        return {name: records[name] for name in self.metrics if name in records}

    def worst(self) -> dict[str, list[Shown]]:
        """Return for each metric of pairs those with the worst numbers."""
        return {values.name: values.worst() for values in self._pairs}

    @property
    def count(self) -> int:
        """How many images were judged."""
        return self._made.count

    @property
    def reference_count(self) -> int | None:
        """Of how many images the reference is; None if there is none, or it is open."""
        if self._file is not None and self._file.moments:
            return self._file.count
        return self._reference.count or self._partners or None

    @property
    def reference_fingerprint(self) -> str | None:
        """64 hex digits of the reference's pixels, or of a file's statistics.

        Pixels are those that the protocol made: other crops are another reference.
        """
        if self._file is not None and self._file.moments:
            return self._file.fingerprint
        seen = self._reference.count or self._partners
        return self._seen.hexdigest() if seen else None

    @property
    def statistics(self) -> Mapping[str, FeatureStatistics]:
        """Of the images, as far as the metrics need them."""
        return self._made.statistics

    def warnings(self) -> list[str]:
        """Say what a reader of the numbers has to know."""
        said = []
        names = [n for n in self.metrics if METRICS[n].is_frechet]
        known = [n for n in (self.count, self.reference_count) if n is not None]
        if names and not self._statistics_only and min(known) < FEW_FOR_FRECHET:
            titles = " and ".join(METRICS[name].title for name in names)
            said.append(
                f"{titles} of {min(known):,} images: biased; compare only with "
                f"distances of the same N (below {FEW_FOR_FRECHET:,} the bias is large)"
            )
        if self._file is not None and self._file.protocol is None:
            said.append(
                f"{self._file.path} does not say by which protocol its statistics "
                "were made: make sure that it is the same"
            )
        return said

    def _see(self, images: Sequence[np.ndarray]) -> None:
        for image in images:
            self._seen.update(f"{image.shape}".encode())
            self._seen.update(np.ascontiguousarray(image).tobytes())

    def _try(self, how: Callable, name: str) -> dict[str, dict[str, Any]]:
        try:
            return how(self, name)
        except UserError as error:
            return {"": {"reason": str(error)}}

    def _frechet(self, name: str) -> dict[str, dict[str, Any]]:
        key = METRICS[name].needs
        ours = self._made.statistics[key]
        mean, covariance = ours.mean, ours.covariance
        if self._file is not None and key in self._file.moments:
            theirs = self._file.moments[key]
            other = theirs.mean, theirs.covariance
        else:
            theirs = self._reference.statistics[key]
            other = theirs.mean, theirs.covariance
        return {name: {"value": frechet_distance(mean, covariance, *other)}}

    def _inception_score(self, _: str) -> dict[str, dict[str, Any]]:
        mean, std = self._made.inception_score()
        return {"is": {"value": mean, "std": std}}

    def _kid(self, _: str) -> dict[str, dict[str, Any]]:
        mean, std = kid(
            self._made.kept, self._reference.kept, subset_size=self._kid_subset
        )
        return {"kid": {"value": mean, "std": std, "subset_size": self._kid_subset}}

    def _precision_recall(self, _: str) -> dict[str, dict[str, Any]]:
        precision, recall = precision_recall(
            self._reference.kept,
            self._made.kept,
            distance=self.protocol.precision_distance,
        )
        return {"precision": {"value": precision}, "recall": {"value": recall}}

    def _density_coverage(self, _: str) -> dict[str, dict[str, Any]]:
        density, coverage = density_coverage(self._reference.kept, self._made.kept)
        return {"density": {"value": density}, "coverage": {"value": coverage}}


def _empty(name: str, count: int) -> dict[str, Any]:
    return {
        "value": None,
        "low": None,
        "high": None,
        "count": count,
        "higher_is_better": METRICS[name].higher_is_better,
    }


def _of_one_size(
    names: Sequence[str],
    images: Sequence[np.ndarray],
    partners: Sequence[np.ndarray] | None,
) -> list[tuple[list[str], np.ndarray, np.ndarray]]:
    """Return the pairs as batches [B, H, W, 3] of one size each."""
    if partners is None:
        raise UserError("metrics of pairs need a partner for each image")
    groups: dict[tuple[int, ...], list[int]] = {}
    for i, (image, partner) in enumerate(zip(images, partners, strict=True)):
        if image.shape != partner.shape:
            ours, theirs = (f"{x.shape[1]} x {x.shape[0]}" for x in (image, partner))
            raise UserError(
                f"{names[i]} is {ours} and its partner {theirs}: metrics of pairs need "
                "one size; --image-size=N prepares both alike"
            )
        groups.setdefault(image.shape, []).append(i)
    return [
        (
            [names[i] for i in rows],
            np.stack([images[i] for i in rows]),
            np.stack([partners[i] for i in rows]),
        )
        for rows in groups.values()
    ]


_HOW: dict[str, Callable] = {
    "squeezenet_fd": Suite._frechet,
    "fid": Suite._frechet,
    "sfid": Suite._frechet,
    "is": Suite._inception_score,
    "kid": Suite._kid,
    "precision": Suite._precision_recall,
    "recall": Suite._precision_recall,
    "density": Suite._density_coverage,
    "coverage": Suite._density_coverage,
}
