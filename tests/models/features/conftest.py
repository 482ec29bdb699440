import numpy as np
import pytest


@pytest.fixture(scope="session")
def photographs():
    """Two photographs, a cat and a cup of coffee: float32 [2, 227, 227, 3]."""
    data = pytest.importorskip("skimage.data")
    image = pytest.importorskip("PIL.Image")

    def squared(name):
        picture = image.fromarray(getattr(data, name)())
        side = min(picture.size)
        left, top = ((length - side) // 2 for length in picture.size)
        picture = picture.crop((left, top, left + side, top + side))
        return np.asarray(picture.resize((227, 227), image.Resampling.BICUBIC))

    pictures = np.stack([squared("chelsea"), squared("coffee")])
    return pictures.astype(np.float32) / 127.5 - 1


@pytest.fixture
def noisy():
    """A function that adds noise of a given strength to images."""

    def noisy(x, strength):
        noise = np.random.default_rng(0).standard_normal(x.shape)
        return np.clip(x + strength * noise, -1, 1).astype(np.float32)

    return noisy
