"""What a suite of metrics refuses before long work: too few images, or a file."""

from collections.abc import Mapping, Sequence

from movq_jax.errors import UserError
from movq_jax.evaluation import protocols
from movq_jax.evaluation.metric_table import METRICS
from movq_jax.evaluation.protocols import Protocol
from movq_jax.evaluation.reference_files import SUFFIXES, ReferenceFile

KID_SUBSET = 1000
_LEAST = {"precision": 4, "recall": 4, "density": 6, "coverage": 6}


def check_counts(
    metrics: Sequence[str], count: int, *, kid_subset: int = KID_SUBSET
) -> None:
    """Refuse, before long work, metrics that so few images have no number for.

    Raises:
        UserError: there are too few for one of them.
    """
    least = _LEAST | {"kid": kid_subset}
    for name in metrics:
        metric = METRICS[name]
        needed = least.get(name, 2 if metric.is_frechet else 1)
        if count < needed:
            hint = " (or lower --kid-subset)" if name == "kid" else ""
            raise UserError(
                f"{name} needs at least {needed} images in each set, and there "
                f"{'is' if count == 1 else 'are'} {count}: give more{hint}, or leave "
                f"it out of --metrics"
            )


def check_reference(
    reference: ReferenceFile,
    protocol: Protocol,
    metrics: Sequence[str],
    fingerprints: Mapping[str, str],
) -> None:
    """Refuse a file of statistics that these metrics cannot be compared with.

    Raises:
        UserError: it lacks features and has no images to make them of, or was made by
            another protocol or with other weights.
    """
    for name in metrics:
        needs = METRICS[name].needs
        if needs in (*reference.moments, "score") or reference.has_images:
            continue
        wanted = f"'mu{SUFFIXES[needs]}'" if needs in SUFFIXES else "images, 'arr_0'"
        raise UserError(
            f"{reference.path} has no {wanted}, which {name} needs: give the images of "
            f"the reference, or leave {name} out of --metrics"
        )
    if reference.protocol is not None:
        differs = protocols.difference(protocol.as_record(), reference.protocol)
        if differs:
            raise UserError(
                f"{reference.path} was made by another protocol ({differs}): make it "
                "again by the same, or change --protocol or --image-size"
            )
    for network, digits in reference.networks.items():
        if fingerprints.get(network, digits) != digits:
            raise UserError(
                f"{reference.path} was made with other weights of {network}: make it "
                "again with the same"
            )
