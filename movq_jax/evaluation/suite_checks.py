"""What a suite of metrics refuses before long work: too few images, or a file."""

import itertools
from collections.abc import Mapping, Sequence

from movq_jax.errors import UserError
from movq_jax.evaluation import protocols
from movq_jax.evaluation.metric_table import METRICS
from movq_jax.evaluation.protocols import Protocol
from movq_jax.evaluation.reference_files import SUFFIXES, ReferenceFile

KID_SUBSET = 1000
IS_SPLITS = {"torch_fidelity": 10}  # blocks of a variant that must not be empty
_LEAST = {"precision": 4, "recall": 4, "density": 6, "coverage": 6}


def check_counts(
    metrics: Sequence[str],
    judged: int,
    others: int | None = None,
    *,
    is_variant: str = "",
    kid_subset: int = KID_SUBSET,
) -> None:
    """Refuse, before long work, metrics that so few images have no number for.

    Args:
        metrics: their names.
        judged: how many images there are.
        others: how many to compare them with, where that is known.
        is_variant: of the protocol.
        kid_subset: images in a subset of KID.

    Raises:
        UserError: there are too few for one of them.
    """
    least = _LEAST | {"kid": kid_subset, "is": IS_SPLITS.get(is_variant, 1)}
    for name in metrics:
        metric = METRICS[name]
        needed = least.get(name, 2 if metric.is_frechet else 1)
        compares = metric.needs_reference and others is not None
        count = min(judged, others) if compares else judged
        if count < needed:
            hint = " (or lower --kid-subset)" if name == "kid" else ""
            sets = " in each set" if metric.needs_reference else ""
            raise UserError(
                f"{name} needs at least {needed} images{sets}, and there "
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
    # What looks at images is free of how the file's statistics were made.
    metrics = [name for name in metrics if METRICS[name].needs in reference.moments]
    if reference.protocol is not None:
        keys = itertools.chain.from_iterable(METRICS[m].looks_at for m in metrics)
        differs = protocols.difference(
            protocol.as_record(), reference.protocol, dict.fromkeys(keys)
        )
        if differs:
            raise UserError(
                f"{reference.path} was made by another protocol ({differs}): make it "
                "again by the same, or change --protocol or --image-size"
            )
    for network in dict.fromkeys(METRICS[name].network for name in metrics):
        digits = fingerprints.get(network)
        if reference.networks.get(network, digits) != digits:
            raise UserError(
                f"{reference.path} was made with other weights of {network}: make it "
                "again with the same"
            )
