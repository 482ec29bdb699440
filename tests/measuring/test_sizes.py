import jax
import numpy as np
import pytest

from movq_jax.errors import UserError
from movq_jax.measuring import sizes
from movq_jax.training import tokenizer_task


def test_the_model(tiny_movq):
    record = sizes.describe_model(tiny_movq, 16)
    assert record["factor"] == 4 and record["grid"] == [4, 4, 2]
    assert record["tokens_per_image"] == 32
    assert record["bits_per_position"] == 10  # two indices of 32 codes
    assert record["bits_per_image"] == 160
    assert record["bits_per_pixel"] == pytest.approx(160 / 256)
    assert record["compression_ratio"] == pytest.approx(24 * 256 / 160)
    counts = record["parameters"]
    parts = counts["encoder"] + counts["quantizer"] + counts["decoder"]
    assert counts["tokenizer"] == parts
    # A codebook of 32 x 4, and convolutions 8 -> 8 before and after it.
    assert counts["quantizer"] == 32 * 4 + 2 * (8 * 8 + 8)
    flops = record["flops"]
    assert flops["encode"] == flops["encoder"] + flops["quantizer"]
    assert flops["quantizer"] == 2 * 32 * 4 * 32  # tokens x depth x codes
    assert flops["decode"] == flops["decoder"]


def test_the_factor_must_divide_the_image(tiny_movq):
    with pytest.raises(UserError, match="18, but must be a multiple of 4"):
        sizes.describe_model(tiny_movq, 18)


def test_the_training(tiny_config):
    config = tiny_config("loss.adversarial.start=2", "loss.adversarial.warmup=1")
    record = sizes.describe_training(config)
    state = jax.eval_shape(lambda: tokenizer_task.init_state(config))

    def total(tree):
        return sum(np.prod(leaf.shape, dtype=int) for leaf in jax.tree.leaves(tree))

    assert record["parameters"] == {
        "discriminator": total(state.disc_params),
        "perceptual": 0,
    }
    assert list(record["flops"]) == ["discriminator"]
    steps = record["train_step"]
    assert list(steps) == ["reconstruction", "warmup", "adversarial"]
    assert steps["reconstruction"] < steps["warmup"] < steps["adversarial"]
    memory = record["state_bytes"]
    both = total(state.gen_params) + total(state.disc_params)
    assert memory["parameters"] == 4 * both
    assert memory["optimizers"] == pytest.approx(2 * 4 * both, abs=64)
    assert memory["average"] == 4 * total(state.gen_params)
    assert memory["total"] == sum(v for k, v in memory.items() if k != "total")


def test_the_perceptual_net_is_counted(tiny_config):
    config = tiny_config(
        "loss.perceptual.name=lpips_vgg",
        "loss.adversarial.name=none",
        "data.image_size=32",
    )
    record = sizes.describe_training(config)
    assert record["parameters"]["discriminator"] == 0
    count = record["parameters"]["perceptual"]
    assert 14_700_000 < count < 14_730_000
    assert record["state_bytes"]["loss_networks"] == 4 * count
    assert list(record["flops"]) == ["perceptual"]
