"""Images of a split by number: read, decoded, transformed, put into a batch's rows.

An image or record that cannot be read is an error in evaluation. In training another
image stands in for it, so that one damaged file does not end a run of weeks: which
one is a function of (seed, position) like everything else, so that all processes and
every run that resumes put the same pixels there.
"""

import contextlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

from movq_jax.data.images import decode_image
from movq_jax.data.sources import Source
from movq_jax.data.transforms import Transform
from movq_jax.errors import UserError

NOT_BROKEN = -1
NO_LABEL = -1
_TRIES = 16  # images drawn to stand in for one that cannot be read


class Decoded(NamedTuple):
    """An image of a split."""

    image: np.ndarray  # uint8 [h, w, 3]
    name: str  # for people
    label: int  # number of its class, or NO_LABEL


class Images:
    """The images of a split by number, decoded at each reading or only once."""

    def __init__(self, source: Source, *, keep: bool, least_side: int | None = None):
        """Read from `source`.

        Args:
            source: the records.
            keep: decode each image once, and keep it in memory.
            least_side: a JPEG may be decoded at a fraction of its size, as far as
                `decode_image` allows for this short side; None: at its full size.
        """
        self._source = source
        self._keep = keep
        self._least_side = least_side
        self._kept: dict[int, Decoded] = {}

    def __len__(self) -> int:
        return len(self._source)

    def read(self, index: int) -> Decoded:
        """Return the image with this number.

        Raises:
            UserError: the record or the image in it is damaged; the message names it.
        """
        return self._kept.get(index) or self._decode(index)

    def _decode(self, index: int) -> Decoded:
        record = self._source[index]
        name = f"{record['filename']} of {self._source.name}"
        image = decode_image(record["image"], name, least_side=self._least_side)
        decoded = Decoded(image, name, record["label"])
        if self._keep:
            # Two threads may get here with one image: they store the same.
            self._kept[index] = decoded
        return decoded


class TrainRows:
    """Puts training images into batches; sent as it is to the processes that work."""

    def __init__(
        self, images: Images, transform: Transform, *, crop_key: int, other_key: int
    ):
        """Draw transforms by `crop_key`, and what stands in by `other_key`."""
        self.images, self._transform = images, transform
        self._crop_key, self._other_key = crop_key, other_key

    @property
    def side(self) -> int:
        """Of the images."""
        return self._transform.image_size

    def fill(
        self, rows: UInt8[np.ndarray, "b size size 3"], first: int, indices: Sequence
    ) -> dict[str, np.ndarray]:
        """Put images into all `rows` of a batch, or of a slice of one.

        Args:
            rows: written to; what they held is lost.
            first: position of the first row in the endless row of training images.
            indices: number of the image at each position.

        Returns:
            label, int32 [b]: class of the image in each row, or -1; and broken, int32
            [b]: the number of an image that could not be read, and for which another
            one stands there, else -1.

        Raises:
            UserError: a transform does not fit its image, or no image can be read.
        """
        broken = np.full(len(rows), NOT_BROKEN, np.int32)
        labels = np.full(len(rows), NO_LABEL, np.int32)
        for row, index in enumerate(indices):
            position = first + row
            decoded, found = self._readable(position, index)
            if found != index:
                broken[row] = index
            # Each position of the row has a stream of its own, so each epoch too.
            bits = np.random.Philox(key=self._crop_key, counter=position << 64)
            rng = np.random.Generator(bits)
            # Straight into the batch: fresh memory for each image, and stacking
            # them, would cost as much as half of their decoding.
            rows[row] = _transformed(decoded, self._transform, rng)
            labels[row] = decoded.label
        return {"label": labels, "broken": broken}

    def _readable(self, position: int, index: int) -> tuple[Decoded, int]:
        """Return an image and its number: `index`, or what stands in for it."""
        try:
            return self.images.read(index), index
        except UserError as error:
            reason = error
        for other in self._others(position):
            with contextlib.suppress(UserError):
                return self.images.read(other), other
        raise UserError(
            f"{reason}. Nor can any of the {_TRIES} images that were drawn to stand in "
            f"for it"
        ) from reason

    def _others(self, position: int) -> Iterator[int]:
        # Drawn, and not the next ones in the split: damage on a disk is to records
        # that lie together. Raw bits, because NumPy may change how it draws integers.
        bits = np.random.Philox(key=self._other_key, counter=position << 64)
        return (int(draw % len(self.images)) for draw in bits.random_raw(_TRIES))


class EvalRows:
    """Puts images of a split, in its order, into batches: those below `count`."""

    def __init__(self, images: Images, transform: Transform, count: int):
        self._images, self._transform, self._count = images, transform, count

    @property
    def side(self) -> int:
        """Of the images."""
        return self._transform.image_size

    def fill(
        self, rows: UInt8[np.ndarray, "b size size 3"], first: int
    ) -> dict[str, np.ndarray]:
        """Put the images from number `first` on into zeroed `rows`.

        Returns:
            label, int32 [b]: class of the image in each row, or -1; and mask, bool
            [b]: which rows have an image.

        Raises:
            UserError: an image cannot be read, or a transform does not fit it.
        """
        indices = np.arange(len(rows)) + first
        mask = indices < self._count
        labels = np.full(len(rows), NO_LABEL, np.int32)
        for row, index in enumerate(indices[mask]):
            # A generator all the same: one may evaluate on random crops.
            rng = np.random.default_rng(index)
            decoded = self._images.read(int(index))
            rows[row] = _transformed(decoded, self._transform, rng)
            labels[row] = decoded.label
        return {"label": labels, "mask": mask}


def _transformed(
    decoded: Decoded, transform: Transform, rng: np.random.Generator
) -> UInt8[np.ndarray, "size size 3"]:
    try:
        return transform(decoded.image, rng)
    except UserError as error:
        raise UserError(f"{decoded.name} {error}") from error
