"""The images' way through `movq codebook`, and what is kept of them."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from movq_jax.data.padding import crop_back
from movq_jax.evaluation.codebooks.sheets import shown
from movq_jax.evaluation.extremes import Extremes, Means
from movq_jax.evaluation.rows import measure
from movq_jax.tools.feeding import run_batches
from movq_jax.tools.reconstruct import reconstruct

MOST_SHOWN = 9  # of the best images, and of the worst


class Findings:
    """What is kept of the images that went by.

    Attributes:
        tally: how often each code was chosen, see `evaluation.codebooks`.
        num_images: how many were added.
        bits: the least, the most and the sum of the bits of an image.
        means: PSNR and SSIM of each model.
        extremes: those with the highest and the lowest PSNR of the first model.
    """

    def __init__(self, tok: Any, *, num_models: int) -> None:
        """Keep nothing yet."""
        from movq_jax.evaluation.codebooks.tally import CodeTally

        self._bits_per_position = tok.bits_per_position
        self.tally = CodeTally(tok.codebook_sizes, tok.channel_books)
        self.num_images = 0
        self.bits = {"least": float("inf"), "most": 0.0, "sum": 0.0}
        self.means = [Means() for _ in range(num_models)]
        self.extremes = Extremes(MOST_SHOWN)
        self._error = 0.0

    @property
    def quantisation_mse(self) -> float:
        """The mean over all elements of all latents."""
        return self._error / max(1, self.tally.positions)

    def add(
        self,
        number: int,
        original: np.ndarray,
        results: Sequence[np.ndarray],
        ids: np.ndarray,
        error: float,
    ) -> None:
        """Take an image, what each model made of it, its ids [h, w, M] and its MSE."""
        # First what may fail for want of memory: an image counts in all or in none.
        rows = [measure("", original, result) for result in results]
        score = rows[0].psnr
        if self.extremes.wants(score, number):
            item = number, shown("", [original, *results], rows)
            self.extremes.add(score, number, item)
        for mean, row in zip(self.means, rows, strict=True):
            mean.add(row)
        self.tally.add(ids)
        positions = ids[..., 0].size
        self._error += float(error) * positions
        bits = positions * self._bits_per_position
        self.bits["least"] = min(self.bits["least"], bits)
        self.bits["most"] = max(self.bits["most"], bits)
        self.bits["sum"] += bits
        self.num_images += 1


def there_and_back(
    tok: Any,
    second: Any | None,
    images: Iterator[tuple[int, np.ndarray]],
    *,
    refuse: Callable[[int, str], None],
) -> Iterator[tuple[int, np.ndarray, list[np.ndarray], np.ndarray, float]]:
    """Yield the arguments of `Findings.add`, a batch of one size at a time.

    Args:
        tok: what `movq_jax.load` returns.
        second: another model, of any factor, or None.
        images: pairs of a number and uint8 [H, W, 3] of any size.
        refuse: takes the number of an image that memory does not suffice for, and why.
    """
    from movq_jax.evaluation.codebooks.probe import Probe

    probe = Probe(tok)

    def encode_and_decode(padded: np.ndarray) -> Any:
        ids, errors = probe.quantise(padded)
        return list(zip(tok.decode(ids), ids, errors, strict=True))

    firsts = run_batches(tok, images, encode_and_decode, refuse=refuse)
    if second is None:
        for number, original, (result, ids, error) in firsts:
            yield number, original, [crop_back(result, *original.shape[:2])], ids, error
        return

    waiting: dict[int, Any] = {}  # no more than wait in the second model's batches

    def pass_on() -> Iterator[tuple[int, np.ndarray]]:
        for number, original, result in firsts:
            waiting[number] = result
            yield number, original

    def refuse_both(number: int, reason: str) -> None:
        del waiting[number]
        refuse(number, reason)

    for number, original, other in reconstruct(second, pass_on(), refuse=refuse_both):
        result, ids, error = waiting.pop(number)
        yield (
            number,
            original,
            [crop_back(result, *original.shape[:2]), other],
            ids,
            error,
        )
