"""A stand-in for a model, and a folder of photographs to feed it."""

from types import SimpleNamespace

import jax
import numpy as np
import pytest
from PIL import Image

import movq_jax
from movq_jax import compilation_cache


class FakeTokenizer:
    """Looks like what `movq_jax.load` returns; the mean of a 4 x 4 block is its code.

    What it decodes depends on the place in the batch and on the batch's size: two
    commands agree to the bit only where they make the same batches.
    """

    factor, codebook_size, num_channels = 4, 32, 3
    codebook_sizes = (32, 32, 32)

    def __init__(self, fingerprint="abc123", micro_batch=1):
        self.fingerprint, self.micro_batch = fingerprint, micro_batch
        self.protocol = {"weights": "ema"}
        self.batches = []
        self.max_height = None  # of images that memory suffices for

    def encode(self, images):
        assert images.dtype == np.uint8 and len(images) <= self.micro_batch
        self.batches.append(images.shape)
        batch, height, width, _ = images.shape
        self._check_memory(height)
        blocks = images.reshape(batch, height // 4, 4, width // 4, 4, 3)
        return (blocks.mean(axis=(2, 4)) / 8).astype(np.int32)

    def decode(self, ids, dtype="uint8"):
        assert ids.dtype == np.int32 and dtype == "uint8"
        self._check_memory(4 * ids.shape[1])
        images = (ids * 8 + 3).repeat(4, axis=1).repeat(4, axis=2).astype(np.uint8)
        images[:, 0, 0] = len(ids)
        images[:, 1, 1] = np.arange(len(ids), dtype=np.uint8)[:, None]
        return images

    def _check_memory(self, height):
        if self.max_height is not None and height > self.max_height:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory")


@pytest.fixture
def fake(monkeypatch):
    """Let `movq_jax.load` return a stand-in; `fake.made` has what it returned."""
    state = SimpleNamespace(
        fingerprint="abc123", default_micro_batch=1, max_height=None, made=[]
    )

    def load(path, micro_batch=None):
        size = micro_batch or state.default_micro_batch
        state.made.append(FakeTokenizer(state.fingerprint, size))
        state.made[-1].max_height = state.max_height
        return state.made[-1]

    monkeypatch.setattr(compilation_cache, "enable", lambda: None)
    monkeypatch.setattr(movq_jax, "load", load, raising=False)
    return state


def photograph(height, width, seed=0):
    """Return uint8 [H, W, 3] with some structure."""
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x / (5 + seed) + c) + np.cos(y / (7 + c)) for c in range(3)]
    return np.uint8(np.stack(waves, axis=-1) * 60 + 128)


@pytest.fixture
def photos(tmp_path):
    """Return a folder of images of several sizes and formats, and a sub-folder."""
    folder = tmp_path / "photos"
    (folder / "trip").mkdir(parents=True)
    sizes = {
        "a.jpg": (24, 32),
        "a.png": (24, 32),
        "b.png": (21, 30),  # padded to 24 x 32
        "c.webp": (40, 17),
        "tiny.png": (3, 5),
        "trip/a.png": (22, 31),
    }
    for seed, (name, size) in enumerate(sizes.items()):
        Image.fromarray(photograph(*size, seed)).save(folder / name)
    return folder
