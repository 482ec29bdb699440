"""Of many images: the means of their numbers, and which came out best and worst."""

import heapq
import math
from typing import Any

from movq_jax.evaluation.rows import Row


class Means:
    """Means of PSNR and SSIM that hold no rows: what `rows.summary` says of them."""

    def __init__(self) -> None:
        self._sums = {"psnr": 0.0, "ssim": 0.0}
        self._counts = {"psnr": 0, "ssim": 0}
        self._total = 0

    def add(self, row: Row) -> None:
        """Count an image in; what is not finite, or not there, is left out."""
        self._total += 1
        for key, value in (("psnr", row.psnr), ("ssim", row.ssim)):
            if value is not None and math.isfinite(value):
                self._sums[key] += value
                self._counts[key] += 1

    def summary(self) -> dict[str, float | int | None]:
        """Return psnr, ssim (None: of no image), psnr_left_out and ssim_left_out."""
        found: dict[str, float | int | None] = {}
        for key, count in self._counts.items():
            found[key] = self._sums[key] / count if count else None
            found[f"{key}_left_out"] = self._total - count
        return found


class Extremes:
    """The items with the highest and with the lowest scores.

    Of equal ones the earlier is the better. Of fewer than twice `most` items the
    better half are the best, so that none is in both.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        # Heaps of (score, -number, item) and (-score, number, item).
        self._best: list[tuple[float, int, Any]] = []
        self._worst: list[tuple[float, int, Any]] = []

    def wants(self, score: float, number: int) -> bool:
        """Tell whether `add` would keep it: making an item may cost something."""
        return any(
            len(heap) < self._most or key > heap[0][:2]
            for heap, key in self._keys(score, number)
        )

    def add(self, score: float, number: int, item: Any) -> None:
        """Take an item whose number no other one has."""
        for heap, key in self._keys(score, number):
            push = heapq.heappush if len(heap) < self._most else heapq.heappushpop
            push(heap, (*key, item))

    def best_and_worst(self) -> tuple[list[Any], list[Any]]:
        """Return the best, the best first, and the worst, the worst first."""
        kept = {(-score, -number): item for score, number, item in self._best}
        kept |= {(score, number): item for score, number, item in self._worst}
        ranked = [kept[key] for key in sorted(kept)]
        count = min(self._most, (len(ranked) + 1) // 2)
        return ranked[:count], ranked[count:][::-1][: self._most]

    def _keys(self, score: float, number: int) -> list[tuple[list, tuple[float, int]]]:
        """The heaps, each with what it orders by."""
        return [(self._best, (score, -number)), (self._worst, (-score, number))]
