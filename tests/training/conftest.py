"""A tiny config, its batches, and the photographs prepared once for all tests."""

import numpy as np
import pytest

from movq_jax.config import load_config
from movq_jax.tools import prepare


@pytest.fixture(scope="session")
def photos_dir(tmp_path_factory):
    """A data dir with the prepared `photos`."""
    pytest.importorskip("skimage", reason="the photographs are in its wheel")
    data_dir = tmp_path_factory.mktemp("data")
    prepare.main(["--dataset=photos", f"--data-dir={data_dir}"])
    return data_dir


@pytest.fixture
def tiny_config():
    """Make a config of seconds: `tiny_config("train.num_steps=3", ...)`."""

    def make(*overrides, spec="movq_photos:tiny"):
        small = [
            "model.width=8",
            "model.multipliers=(1,2)",
            "model.z_channels=8",
            "data.image_size=16",
            "data.eval.image_size=16",
            "loss.reconstruction.name=l1",
            "loss.reconstruction.weight=1.0",
            "loss.quantizer_weight=1.0",
            "optim.gen.learning_rate=1e-3",
        ]
        return load_config(spec, [*small, *overrides])

    return make


@pytest.fixture
def adversarial_config(tiny_config):
    """The same with a discriminator."""

    def make(*overrides):
        return tiny_config(
            "loss.adversarial.name=hinge",
            "loss.adversarial.start=0",
            "loss.discriminator.layers=1",
            *overrides,
        )

    return make


@pytest.fixture
def batch():
    """Smooth coloured images, always the same ones: uint8 [8, 16, 16, 3]."""
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 255, (8, 2, 2, 3))
    t = np.linspace(0, 1, 16)
    weights = np.stack([1 - t, t])
    images = np.einsum("brcd,ry,cx->byxd", corners, weights, weights)
    return {"image": images.astype(np.uint8)}
