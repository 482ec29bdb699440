"""Which element stands where, epoch after epoch: a function of (count, seed)."""

import functools
import zlib

import grain
import numpy as np


class Order:
    """Which element stands at each position of an endless row: a permutation an epoch.

    Positions `epoch * count` to `(epoch + 1) * count - 1` hold each element once.

    Grain computes a permutation element by element and stores nothing, which suits a
    large one. But the cost grows as the set shrinks: 8 us an element of 100,000, 4 ms
    of 6. So a small one is drawn as a whole.
    """

    _DRAWN_BELOW = 2**16

    def __init__(self, count: int, seed: int):
        self._count, self._seed = count, seed
        self._computed = grain.MapDataset.range(count).shuffle(seed=seed).repeat()
        # Threads at the end of an epoch ask for two of them.
        self._drawn = functools.lru_cache(maxsize=2)(self._draw)

    def __getitem__(self, position: int) -> int:
        if self._count >= self._DRAWN_BELOW:
            return self._computed[position]
        epoch, place = divmod(position, self._count)
        return int(self._drawn(epoch)[place])

    def _draw(self, epoch: int) -> np.ndarray:
        # Raw bits, because NumPy may change how it makes permutations of them.
        bits = np.random.Philox(key=self._seed, counter=epoch << 64)
        return np.argsort(bits.random_raw(self._count), kind="stable")


def fold(seed: int, name: str) -> int:
    """Return the 32-bit seed of one purpose, such as the order of images."""
    entropy = [seed % 2**64, zlib.crc32(name.encode())]
    return int(np.random.SeedSequence(entropy).generate_state(1)[0])
