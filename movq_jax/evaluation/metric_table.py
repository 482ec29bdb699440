"""Which metrics there are: what each compares, and how people read it.

Without jax, so that a command can check its flags at once.
"""

import dataclasses
from collections.abc import Iterable

from movq_jax import families
from movq_jax.errors import UserError

PAIRS, SETS, PRIOR = "pairs", "sets", "prior"
_PREPARATION = ("size", "resize", "crop")


@dataclasses.dataclass(frozen=True)
class Metric:
    """A metric as a table has it.

    Attributes:
        kind: 'pairs' (an image and its partner; the mean over the images), 'sets' (all
            images at once) or 'prior' (what a prior thinks of indices).
        title: for people.
        higher_is_better: or lower.
        needs: of the features of a set: 'pool', 'spatial', 'kept' (pool features of
            every image in memory), 'score' or 'squeezenet'; empty for the others.
        digits: behind the point, in a table.
        network: whose weights the number depends on, as records call it.
        variants: what else of a protocol it depends on.
    """

    kind: str
    title: str
    higher_is_better: bool
    needs: str = ""
    digits: int = 4
    network: str = ""
    variants: tuple[str, ...] = ()

    @property
    def looks_at(self) -> tuple[str, ...]:
        """What of a protocol's record the number depends on, but for `rounding`."""
        if self.kind == PRIOR:
            return ()  # images are prepared as the prior's run did it
        if not self.needs or self.needs == "squeezenet":
            return _PREPARATION  # these networks have a resizing of their own
        return (*_PREPARATION, "network", "network_resize", *self.variants)

    @property
    def is_frechet(self) -> bool:
        """Whether it is a Fréchet distance, whose bias depends on the count."""
        return self.needs in ("pool", "spatial", "squeezenet")

    @property
    def needs_reference(self) -> bool:
        """Whether there is no such number of a set alone."""
        return self.kind == SETS and self.needs != "score"


def _inception(
    title: str, higher_is_better: bool, needs: str, digits: int, *variants: str
) -> Metric:
    return Metric(SETS, title, higher_is_better, needs, digits, "inception", variants)


METRICS = {
    "psnr": Metric(PAIRS, "PSNR, dB", True, digits=3),
    "ssim": Metric(PAIRS, "SSIM", True),
    "ssim_uniform": Metric(PAIRS, "SSIM, uniform 7 x 7", True),
    "ssim_torchmetrics": Metric(PAIRS, "SSIM as torchmetrics", True),
    "ms_ssim": Metric(PAIRS, "MS-SSIM", True),
    "ms_ssim_torchmetrics": Metric(PAIRS, "MS-SSIM as torchmetrics", True),
    "lpips_vgg": Metric(PAIRS, "LPIPS, VGG", False, network="lpips_vgg"),
    "lpips_alex": Metric(PAIRS, "LPIPS, AlexNet", False, network="lpips_alex"),
    "squeezenet_perceptual": Metric(
        PAIRS, "squeezenet perceptual", False, network="squeezenet_perceptual"
    ),
    "l1": Metric(PAIRS, "L1, of 0..1", False, digits=5),
    "mse": Metric(PAIRS, "MSE, of 0..1", False, digits=6),
    "squeezenet_fd": Metric(
        SETS, "SqueezeNet-FD", False, "squeezenet", 3, network="squeezenet"
    ),
    "fid": _inception("FID", False, "pool", 3),
    "sfid": _inception("sFID", False, "spatial", 3),
    "is": _inception("Inception score", True, "score", 3, "is_variant"),
    "kid": _inception("KID", False, "kept", 6),
    "precision": _inception("precision", True, "kept", 4, "precision_distance"),
    "recall": _inception("recall", True, "kept", 4, "precision_distance"),
    "density": _inception("density", True, "kept", 4),
    "coverage": _inception("coverage", True, "kept", 4),
    "nll": Metric(PRIOR, "bits a token", False),
}


def read_names(text: str) -> tuple[str, ...]:
    """Return the metrics of a list such as 'psnr,SSIM', each once, in its order.

    Raises:
        UserError: there is none of such a name, or none at all.
    """
    names = [name.strip().lower().replace("-", "_") for name in text.split(",")]
    names = [name for name in names if name]
    for name in names:
        if name not in METRICS:
            hint = families.nearest(name, METRICS)
            raise UserError(f"there is no metric {name!r}{hint}")
    if not names:
        raise UserError(f"no metric is named; known: {', '.join(METRICS)}")
    return tuple(dict.fromkeys(names))


def of_kind(names: Iterable[str], kind: str) -> tuple[str, ...]:
    """Return those of `names` that are of a kind."""
    return tuple(name for name in names if METRICS[name].kind == kind)


def needs_of(names: Iterable[str]) -> frozenset[str]:
    """Return what features of a set the metrics need."""
    return frozenset(METRICS[name].needs for name in names) - {""}
