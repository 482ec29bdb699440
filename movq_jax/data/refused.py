"""Which training images could not be read, and how many rows others stood in."""

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from movq_jax.data.rows import NOT_BROKEN, Images
from movq_jax.errors import UserError


class Refused:
    """Counts of rows, and the broken images among them, each once.

    Attributes:
        seen: rows so far.
        replaced: those of them in which another image stands.
    """

    def __init__(self, images: Images):
        """Nothing was refused so far; `images` tell why one cannot be read."""
        self._images = images
        self._reasons: dict[int, str] = {}
        self.seen = 0
        self.replaced = 0

    @property
    def epoch(self) -> int:
        """How many images the split has."""
        return len(self._images)

    @property
    def reasons(self) -> Mapping[int, str]:
        """Number of an image -> a sentence that names it, and says what is wrong."""
        return MappingProxyType(self._reasons)

    def add(self, broken: np.ndarray) -> None:
        """Count the rows of a batch: int32 [b], an image's number or -1."""
        self.seen += len(broken)
        for index in broken[broken != NOT_BROKEN].tolist():
            self.replaced += 1
            if index not in self._reasons:
                self._reasons[index] = self._reason(index)

    def _reason(self, index: int) -> str:
        # Another process may have read it, so it is read once more.
        try:
            name = self._images.read(index).name
        except UserError as error:
            return str(error)
        return (
            f"{name} could not be read, and can be now: the disk or the network is at "
            f"fault"
        )
