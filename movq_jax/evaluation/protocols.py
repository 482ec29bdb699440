"""Evaluation protocols by name: all that a number depends on besides the images.

The same reconstructions have an rFID of 1.5 or 2.2, depending on how the reference was
cropped; so a protocol is chosen by name, goes into every record, and results of two are
never set side by side without saying so.
"""

import dataclasses
import functools
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from jaxtyping import UInt8

from movq_jax import families
from movq_jax.data.transforms import CROPS, RESIZES, Transform
from movq_jax.errors import UserError

ROUNDINGS = {
    "round": "clipped, scaled to 0..255, rounded half to even, uint8",
    "truncate": "clipped, scaled to 0..255, rounded down, uint8",
}
_CENTER: Mapping[str, Any] = {"name": "center"}
_BICUBIC: Mapping[str, Any] = {"name": "short_side", "resample": "bicubic"}


@dataclasses.dataclass(frozen=True)
class Protocol:
    """How images are prepared and looked at.

    Attributes:
        name: of the protocol.
        size: the side of the square that images are made to; 0: they are taken as they
            are.
        resize: `{name, ...fields}` of `movq_jax.data.transforms.RESIZES`.
        crop: the same of `CROPS`.
        rounding: how a model's output becomes uint8: 'round' or 'truncate'. Files and
            datasets are uint8 already.
        network: of the Inception metrics.
        network_resize: to 299 x 299: 'tf1', 'clean' or 'pytorch_fid', see
            `inception_features`. SqueezeNet-FD and LPIPS have their own, always.
        is_variant: of the Inception score: 'adm' (blocks of 5,000 in the images'
            order), 'torch_fidelity' (ten shuffled splits) or 'one_block'.
        precision_distance: 'float32', or 'adm_float16' as ADM's code has it.
        reference: whose it is, and what its authors compare with.
    """

    name: str
    size: int
    resize: Mapping[str, Any]
    crop: Mapping[str, Any]
    rounding: str
    network: str
    network_resize: str
    is_variant: str
    precision_distance: str
    reference: str

    def as_record(self) -> dict[str, Any]:
        """Return all fields, for JSON; what is not applied is 'none'."""
        record = {
            field.name: getattr(self, field.name) for field in dataclasses.fields(self)
        }
        for step in ("resize", "crop"):
            record[step] = dict(record[step]) if self.size else {"name": "none"}
        return record

    def with_size(self, size: int) -> "Protocol":
        """Return the same for squares of another side; 0: images as they are."""
        return dataclasses.replace(self, size=size)

    def prepare(
        self, image: UInt8[np.ndarray, "h w 3"]
    ) -> UInt8[np.ndarray, "h2 w2 3"]:
        """Return an image as this protocol looks at it.

        Args:
            image: uint8 [H, W, 3].

        Returns:
            uint8 [size, size, 3]; the image itself where `size` is 0.

        Raises:
            UserError: resize and crop leave an image of another size.
        """
        if not self.size:
            return image
        # No evaluation crop draws a number; the generator is there for the others.
        return self._transform(image, np.random.default_rng(0))

    def enlarges(self, image: np.ndarray) -> bool:
        """Tell whether `prepare` makes pixels up."""
        return min(image.shape[:2]) < self.size

    def changes(self, image: np.ndarray) -> bool:
        """Tell whether `prepare` resizes or cuts."""
        return bool(self.size) and image.shape[:2] != (self.size, self.size)

    @functools.cached_property
    def _transform(self) -> Transform:
        steps = {
            "resize": families.make(
                RESIZES, self.resize, "resize", image_size=self.size
            ),
            "crop": families.make(CROPS, self.crop, "crop", image_size=self.size),
        }
        return Transform(image_size=self.size, flip=False, **steps)


def find_protocol(name: str) -> Protocol:
    """Return one of `PROTOCOLS`.

    Raises:
        UserError: there is none of that name.
    """
    if name not in PROTOCOLS:
        hint = families.nearest(name, PROTOCOLS)
        raise UserError(f"there is no protocol {name!r}{hint}")
    return PROTOCOLS[name]


def difference(
    ours: Mapping[str, Any], theirs: Mapping[str, Any], keys: Iterable[str]
) -> str:
    """Say how two protocols' records differ in `keys`, or ''.

    Names may differ: what counts is what is done to an image.
    """
    return "; ".join(
        f"{key} {said(theirs.get(key))} there, {said(ours.get(key))} here"
        for key in keys
        if theirs.get(key) != ours.get(key)
    )


def said(value: Any) -> str:
    """Return a field of a protocol's record as people read it."""
    if isinstance(value, Mapping):
        return " ".join(str(part) for part in value.values())
    return str(value)


_DEFAULT = Protocol(
    name="default",
    size=256,
    resize=_BICUBIC,
    crop=_CENTER,
    rounding="round",
    network="inception-2015-12-05",
    network_resize="tf1",
    is_variant="adm",
    precision_distance="float32",
    reference="antialiased bicubic, middle square; compare with the same crops",
)

PROTOCOLS = {
    "default": _DEFAULT,
    "titok": dataclasses.replace(
        _DEFAULT,
        name="titok",
        resize={**_BICUBIC, "rounding": "down"},
        crop={**_CENTER, "rounding": "nearest"},
        rounding="truncate",
        is_variant="one_block",
        reference="TiTok, MaskGIT-VQGAN in 1d-tokenizer: validation crops",
    ),
    # Theirs compares floats; here reconstructions are rounded to uint8 like all others,
    # which moves a pixel by half a grey level at most.
    "taming": dataclasses.replace(
        _DEFAULT,
        name="taming",
        resize={"name": "short_side", "resample": "linear_no_antialias"},
        is_variant="torch_fidelity",
        reference="taming-transformers, SEED: OpenCV's linear filter, no antialias; "
        "validation crops (theirs are floats, here uint8)",
    ),
    "clean": dataclasses.replace(
        _DEFAULT,
        name="clean",
        size=0,
        network_resize="clean",
        is_variant="torch_fidelity",
        reference="clean-fid, mode clean: files as they are",
    ),
    "adm": dataclasses.replace(
        _DEFAULT,
        name="adm",
        resize={"name": "adm"},
        rounding="truncate",
        precision_distance="adm_float16",
        reference="guided-diffusion's evaluator: 50,000 samples against the stored "
        "statistics of the training set",
    ),
    "pytorch_fid": dataclasses.replace(
        _DEFAULT,
        name="pytorch_fid",
        size=0,
        network_resize="pytorch_fid",
        is_variant="torch_fidelity",
        reference="pytorch-fid: files as they are",
    ),
    "torch_fidelity": dataclasses.replace(
        _DEFAULT,
        name="torch_fidelity",
        size=0,
        is_variant="torch_fidelity",
        reference="torch-fidelity: files as they are",
    ),
}
