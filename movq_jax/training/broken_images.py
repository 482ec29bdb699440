"""Training images that cannot be read: told by name, counted, a stop above a share."""

import json
from collections.abc import Iterable

import jax
import numpy as np
from jax.experimental import multihost_utils
from ml_collections import ConfigDict

from movq_jax.data.refused import Refused
from movq_jax.errors import UserError
from movq_jax.training.console import Console

# A share says little of few images: it counts from so many broken ones on, or when
# every image of the split was seen once.
ENOUGH = 20
_LISTED = 20


class BrokenImages:
    """What a run, of one process or several, knows of its broken images."""

    def __init__(self, config: ConfigDict, console: Console) -> None:
        self._most = config.data.max_broken_share
        self._console = console
        self._seen = self._replaced = 0  # of all processes
        self._sentences: list[str] = []
        self._taken = 0

    def watch(self, refused: Refused | None) -> None:
        """`refused` is what this process counts from now on; None: no images."""
        self._refused = refused
        self._told = 0
        self._counted = np.zeros(2, np.int64)  # seen and replaced

    def look(self) -> None:
        """Counts and tells what is new; all processes have to call it together.

        Raises:
          UserError: too many of the images so far were broken; it lists them.
        """
        refused = self._refused
        if refused is None:
            return
        counts = np.array([refused.seen, refused.replaced])
        seen, replaced, sentences = _of_all_processes(
            counts - self._counted, list(refused.reasons.values())[self._told :]
        )
        self._counted, self._told = counts, len(refused.reasons)
        self._seen += seen
        self._replaced += replaced
        for sentence in sentences:
            # Several processes may meet the same image.
            if sentence not in self._sentences:
                self._sentences.append(sentence)
                self._console.say(f"replaced by another image: {sentence}")
        if self._too_many(refused.epoch):
            raise UserError(self._complaint())

    def take(self) -> int:
        """How many images were replaced since the last time, as `look` found them."""
        new, self._taken = self._replaced - self._taken, self._replaced
        return new

    def _too_many(self, epoch: int) -> bool:
        if not self._replaced or self._replaced <= self._most * self._seen:
            return False
        return self._replaced >= ENOUGH or self._seen >= epoch or self._most == 0

    def _complaint(self) -> str:
        listed = self._sentences[:_LISTED]
        if len(self._sentences) > _LISTED:
            listed.append(f"and {len(self._sentences) - _LISTED} more")
        lines = "".join(f"\n  {line}" for line in listed)
        return (
            f"{self._replaced} of {self._seen} training images "
            f"({self._replaced / self._seen:.2%}) could not be read, above "
            f"config.data.max_broken_share={self._most}: prepare the dataset again, or "
            f"raise that share. The state is saved. Broken are:{lines}"
        )


def _of_all_processes(
    counts: np.ndarray, sentences: Iterable[str]
) -> tuple[int, int, list[str]]:
    """The sum of two counts, and all sentences, of the processes of a run."""
    if jax.process_count() == 1:
        return *counts.tolist(), list(sentences)
    text = np.frombuffer(json.dumps(list(sentences)).encode(), np.uint8)
    sizes = multihost_utils.process_allgather(
        np.array([*counts, text.size], np.int32)
    )  # [processes, 3]
    padded = np.full(sizes[:, 2].max(), ord(" "), np.uint8)
    padded[: text.size] = text
    texts = multihost_utils.process_allgather(padded)
    found = [json.loads(bytes(text)) for text in np.asarray(texts)]
    return *sizes[:, :2].sum(axis=0).tolist(), sum(found, [])
