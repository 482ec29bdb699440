"""Tiny configs, and shapes on one device or all."""

import jax
import pytest

from movq_jax.config import load_config
from movq_jax.measuring.programs import Shapes
from movq_jax.training.sharding import make_mesh

TINY = [
    "model.width=8",
    "model.multipliers=(1,2)",
    "model.attention_factors=(2,)",
    "model.z_channels=8",
    "data.image_size=16",
    "data.eval.image_size=16",
    "loss.discriminator.layers=1",
]


@pytest.fixture
def tiny_config():
    """Make a config of seconds: `tiny_config("train.num_steps=3", ...)`."""

    def make(*overrides, spec="vqgan_imagenet:tiny"):
        return load_config(spec, [*TINY, *overrides])

    return make


@pytest.fixture
def shapes():
    """Make shapes: 16 images of 16² on 8 devices by default."""

    def make(batch_size=16, image_size=16, devices=8):
        mesh = make_mesh(jax.devices()[:devices])
        return Shapes(batch_size, image_size, mesh)

    return make
