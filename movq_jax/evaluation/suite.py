"""The chosen metrics of one protocol, over images that come batch by batch.

    suite = Suite(find_protocol("default"), ("psnr", "fid"), Networks())
    for names, images, partners in batches:
        suite.add(names, images, partners)
    print(suite.compute())

Metrics of pairs compare an image with its partner; metrics of sets compare all images
with the set of the partners, or with another set (`add_reference`), or with the
statistics of a file.
"""

import functools
import hashlib
from collections.abc import Mapping, Sequence
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
STATISTICS = "statistics"  # of a file, which metrics of sets may compare with


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
        self._names: list[str] = []  # in the order of the pairs' numbers
        self._seen = {kind: hashlib.sha256() for kind in (PAIRS, SETS)}
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
            self._see(PAIRS, partners)
        if self._pairs:
            for rows in _of_one_size(names, images, partners):
                self._names += rows[0]
                for values in self._pairs:
                    values.add(*rows)
        self._made.add(images)

    def add_reference(self, images: Sequence[np.ndarray]) -> None:
        """Take a batch of the set that metrics of sets compare with."""
        self._see(SETS, images)
        self._reference.add(images)

    def compute(self) -> dict[str, dict[str, Any]]:
        """Return a record for each metric: value, low, high, count, and more.

        A metric that cannot be computed has the value None, and a `reason`.
        """
        records = {values.name: values.record() for values in self._pairs}
        for name in of_kind(self.metrics, SETS):
            if not (self._statistics_only and METRICS[name].needs_reference):
                records[name] = self._record_of_sets(name)
        for name, record in records.items():
            kind = self._reference_of(name)
            if kind:
                record["reference"] = kind
        return {name: records[name] for name in self.metrics if name in records}

    def references(self) -> dict[str, dict[str, Any]]:
        """Return what metrics compared with, by what they call it in `reference`.

        'pairs' are the partners, 'sets' the images of the reference set and
        'statistics' those of a file. Each has a `count` (None: unknown) and a
        `fingerprint` of 64 hex digits, of the pixels that the protocol made: other
        crops are another reference.
        """
        counts = {PAIRS: self._partners, SETS: self._reference.count}
        found = {
            kind: {"count": counts[kind], "fingerprint": seen.hexdigest()}
            for kind, seen in self._seen.items()
        }
        if self._file is not None:
            digits = self._file.fingerprint
            found[STATISTICS] = {"count": self._file.count, "fingerprint": digits}
        used = [self._reference_of(name) for name in self.metrics]
        return {kind: found[kind] for kind in found if kind in used}

    def per_image(self) -> tuple[list[str], dict[str, list[float]]]:
        """Return the names of the pairs, and of each metric of pairs their numbers.

        A number is infinite of equal images' PSNR, and NaN where there is none.
        """
        return self._names, {values.name: values.values for values in self._pairs}

    def worst(self) -> dict[str, list[Shown]]:
        """Return for each metric of pairs those with the worst numbers."""
        return {values.name: values.worst() for values in self._pairs}

    @property
    def count(self) -> int:
        """How many images were judged."""
        return self._made.count

    @property
    def statistics(self) -> Mapping[str, FeatureStatistics]:
        """Of the images, as far as the metrics need them."""
        return self._made.statistics

    def warnings(self) -> list[str]:
        """Say what a reader of the numbers has to know."""
        said = []
        names = [n for n in self.metrics if METRICS[n].is_frechet]
        others = [
            found["count"]
            for kind, found in self.references().items()
            if kind in map(self._reference_of, names)
        ]
        known = [self.count, *(count for count in others if count is not None)]
        if names and not self._statistics_only and min(known) < FEW_FOR_FRECHET:
            titles = " and ".join(METRICS[name].title for name in names)
            said.append(
                f"{titles} of {min(known):,} images: biased; compare only with "
                f"distances of the same N (below {FEW_FOR_FRECHET:,} the bias is large)"
            )
        if STATISTICS in self.references() and self._file.protocol is None:
            said.append(
                f"{self._file.path} does not say by which protocol its statistics "
                "were made: make sure that it is the same"
            )
        return said

    def _see(self, kind: str, images: Sequence[np.ndarray]) -> None:
        for image in images:
            self._seen[kind].update(f"{image.shape}".encode())
            self._seen[kind].update(np.ascontiguousarray(image).tobytes())

    def _reference_of(self, name: str) -> str:
        """What a metric compares with: a key of `references`, or ''."""
        metric = METRICS[name]
        if metric.kind == PAIRS:
            return PAIRS
        if self._statistics_only or not metric.needs_reference:
            return ""
        from_file = self._file is not None and metric.needs in self._file.moments
        return STATISTICS if from_file else SETS

    def _record_of_sets(self, name: str) -> dict[str, Any]:
        try:
            found = self._measure(name)
        except UserError as error:
            found = {"reason": str(error)}
        return {**_empty(name, self._made.count), **found}

    def _measure(self, name: str) -> dict[str, Any]:
        """Return what there is to a metric of sets besides its count.

        Raises:
            UserError: it cannot be computed of these images.
        """
        if METRICS[name].is_frechet:
            return {"value": self._frechet(METRICS[name].needs)}
        if name == "is":
            mean, std = self._made.inception_score()
            return {"value": mean, "std": std}
        if name == "kid":
            size = self._kid_subset
            mean, std = kid(self._made.kept, self._reference.kept, subset_size=size)
            return {"value": mean, "std": std, "subset_size": size}
        if name in ("precision", "recall"):
            return {"value": self._precision_recall[name == "recall"]}
        return {"value": self._density_coverage[name == "coverage"]}

    def _frechet(self, key: str) -> float:
        from_file = self._file.moments if self._file is not None else {}
        sides = [
            self._made.statistics[key],
            from_file[key] if key in from_file else self._reference.statistics[key],
        ]
        (a, cov_a), (b, cov_b) = ((side.mean, side.covariance) for side in sides)
        return frechet_distance(a, cov_a, b, cov_b)

    # Two numbers of one long computation each.

    @functools.cached_property
    def _precision_recall(self) -> tuple[float, float]:
        return precision_recall(
            self._reference.kept,
            self._made.kept,
            distance=self.protocol.precision_distance,
        )

    @functools.cached_property
    def _density_coverage(self) -> tuple[float, float]:
        return density_coverage(self._reference.kept, self._made.kept)


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
