"""What `movq evaluate` judges: stored images, reconstructions, or a prior's samples.

A source yields chunks of what is read or drawn once, and makes of a chunk what each
protocol looks at: `judge` gives entries of a name, an image and its partner.
"""

from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from movq_jax.data.padding import crop_back
from movq_jax.evaluation.image_sets import ImageSet, Item, Refuse, in_chunks
from movq_jax.evaluation.protocols import Protocol
from movq_jax.tools import sampling_flags
from movq_jax.tools.feeding import run_batches

CHUNK = 32  # images that are in memory at once, at least


class Judged(NamedTuple):
    """An image as a protocol looks at it, and what it is compared with."""

    name: str
    image: np.ndarray  # uint8 [H, W, 3]
    partner: np.ndarray | None = None


class Stored:
    """Images that are there, with their partners or without.

    Attributes:
        name: for people.
        enlarged: how many images each protocol had to make pixels up for, by its name.
        resized: how many pairs each protocol resized or cut.
        paths: of the files that are read.
    """

    def __init__(
        self,
        images: ImageSet,
        partners: ImageSet | None = None,
        *,
        micro_batch: int | None = None,
    ) -> None:
        """Take two sets whose entries belong together, or one.

        Args:
            images: to be judged.
            partners: what they are compared with.
            micro_batch: of the networks, or of the tokenizer.
        """
        self.name = images.name
        self.enlarged: Counter[str] = Counter()
        self.resized: Counter[str] = Counter()
        self.paths = [*images.paths, *(partners.paths if partners is not None else ())]
        self._images, self._partners = images, partners
        self._chunk = chunk_size(micro_batch or 1)

    def __len__(self) -> int:
        return len(self._images)

    def chunks(self, refuse: Refuse) -> Iterator[list[tuple[Item, Item | None]]]:
        """Yield images with their partners, as they are; unreadable ones are left."""
        partners: Any = iter(lambda: None, 0)  # None for ever
        if self._partners is not None:
            partners = self._partners.items(refuse)
        both = zip(self._images.items(refuse), partners, strict=False)
        needed = 1 if self._partners is None else 2
        whole = (pair for pair in both if sum(x is not None for x in pair) == needed)
        return in_chunks(whole, self._chunk)

    def judge(
        self,
        chunk: list[tuple[Item, Item | None]],
        protocol: Protocol,
        refuse: Refuse,
    ) -> list[Judged]:
        """Return a chunk as `protocol` looks at it."""
        judged = []
        for item, partner in chunk:
            both = [x.image for x in (item, partner) if x is not None]
            self.enlarged[protocol.name] += sum(map(protocol.enlarges, both))
            if partner is not None:
                self.resized[protocol.name] += any(map(protocol.changes, both))
            judged.append(Judged(item.name, *map(protocol.prepare, both)))
        return judged


class Reconstructed:
    """Images through a tokenizer and back; the partner is what went in."""

    def __init__(self, tok: Any, images: ImageSet) -> None:
        """Take what `movq_jax.load` returns, and images of any sizes."""
        self.name = f"reconstructions of {images.name}"
        self.resized: Counter[str] = Counter()  # of what is made here nothing is
        self.paths = images.paths
        self._tok = tok
        self._stored = Stored(images, micro_batch=tok.micro_batch)

    def __len__(self) -> int:
        return len(self._stored)

    @property
    def enlarged(self) -> Counter[str]:
        """How many images each protocol had to make pixels up for."""
        return self._stored.enlarged

    def chunks(self, refuse: Refuse) -> Iterator[list[tuple[Item, Item | None]]]:
        """Yield the originals as they are."""
        return self._stored.chunks(refuse)

    def judge(
        self,
        chunk: list[tuple[Item, Item | None]],
        protocol: Protocol,
        refuse: Refuse,
    ) -> list[Judged]:
        """Return the reconstructions of a chunk with the prepared originals."""
        originals = self._stored.judge(chunk, protocol, refuse)

        def there_and_back(padded: np.ndarray) -> np.ndarray:
            return decode(self._tok, self._tok.encode(padded), protocol.rounding)

        numbered = ((i, original.image) for i, original in enumerate(originals))
        results = run_batches(
            self._tok,
            numbered,
            there_and_back,
            refuse=lambda i, reason: refuse(originals[i].name, reason),
        )
        made = {
            i: Judged(originals[i].name, crop_back(result, *image.shape[:2]), image)
            for i, image, result in results
        }
        return [made[i] for i in sorted(made)]


class Drawn:
    """Samples of a prior, all classes equally often."""

    def __init__(
        self, prior: Any, num: int, seed: int, options: dict[str, Any]
    ) -> None:
        """Take what `movq_jax.load` returns, and how many images to draw, and how."""
        self.name = f"{num:,} samples of seed {seed}"
        self.enlarged: Counter[str] = Counter()
        self.resized: Counter[str] = Counter()
        self.paths = ()
        self._prior, self._num, self._seed = prior, num, seed
        self._options = options

    def __len__(self) -> int:
        return self._num

    def chunks(self, refuse: Refuse) -> Iterator[tuple[int, np.ndarray]]:
        """Yield the number of the first image and the indices of some."""
        most = chunk_size(self._prior.batch_size())
        for first in range(0, self._num, most):
            count = min(most, self._num - first)
            with sampling_flags.memory_explained(self._prior):
                ids = self._prior.sample(
                    count, seed=self._seed, first=first, **self._options
                )
            yield first, ids

    def judge(
        self, chunk: tuple[int, np.ndarray], protocol: Protocol, refuse: Refuse
    ) -> list[Judged]:
        """Return the images of a chunk."""
        first, ids = chunk
        with sampling_flags.memory_explained(self._prior):
            images = decode(self._prior.tokenizer, ids, protocol.rounding)
        self.enlarged[protocol.name] += sum(map(protocol.enlarges, images))
        return [
            Judged(f"{number:06d}", protocol.prepare(image))
            for number, image in enumerate(images, first)
        ]


def chunk_size(batch: int) -> int:
    """Return the least multiple of a compiled call's batch from `CHUNK` on."""
    return -(-CHUNK // batch) * batch


def decode(tok: Any, ids: np.ndarray, rounding: str) -> np.ndarray:
    """Return the images of indices as uint8, rounded as a protocol says."""
    if rounding == "round":
        return tok.decode(ids)
    x = tok.decode(ids, dtype="float32")
    return np.clip((x + 1) * 127.5, 0, 255).astype(np.uint8)
