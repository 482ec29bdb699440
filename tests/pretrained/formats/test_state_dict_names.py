from typing import NamedTuple

import pytest

from movq_jax.pretrained.formats.state_dict_names import (
    plain_names,
    within_diffusion,
    without_training,
    without_twins,
)
from movq_jax.pretrained.refusals import Refused


class Fake(NamedTuple):
    origin: str
    shape: tuple[int, ...] = (2,)


def fakes(*names):
    return {name: Fake(name) for name in names}


@pytest.mark.parametrize(
    "name",
    [
        "encoder.weight",
        "module.encoder.weight",
        "_orig_mod.encoder.weight",
        "module._orig_mod.module.encoder.weight",
        "encoder._orig_mod.weight",
    ],
)
def test_wrappers(name):
    assert list(plain_names(fakes(name))) == ["encoder.weight"]


def test_names_within_are_left_alone():
    assert list(plain_names(fakes("a.module.b"))) == ["a.module.b"]


def test_two_of_one_name():
    with pytest.raises(Refused, match="'a' twice"):
        plain_names(fakes("a", "module.a"))


def test_losses_and_discriminators():
    names = ("loss.a", "encoder.loss.b", "losses.c", "discriminator.d", "loss.e")
    kept, skipped = without_training(fakes(*names))
    assert list(kept) == ["encoder.loss.b", "losses.c"]
    assert skipped == {
        "loss.*": "2 tensors of the training's loss",
        "discriminator.*": "1 tensor of the training's discriminator",
    }


def test_no_diffusion_model():
    tensors = fakes("a", "b")
    assert within_diffusion(tensors) == (tensors, {}, "")


def averages(root, *names):
    return fakes(
        f"{root}.decay", f"{root}.num_updates", *(f"{root}.{n}" for n in names)
    )


def test_averages_of_everything():
    tensors = fakes("a.b.weight", "a.bias", "frozen") | averages(
        "model_ema", "abweight", "abias"
    )
    kept, skipped, found = without_twins(tensors, averaged=True)
    assert {name: tensor.origin for name, tensor in kept.items()} == {
        "a.b.weight": "model_ema.abweight",
        "a.bias": "model_ema.abias",
        "frozen": "frozen",
    }
    assert found
    assert skipped == {"model_ema.*": "averages that take the place of 2 tensors"}
    kept, skipped, found = without_twins(tensors, averaged=False)
    assert kept == fakes("a.b.weight", "a.bias", "frozen") and not found
    assert skipped == {"model_ema.*": "2 tensors, averages"}


@pytest.mark.parametrize("root", ["ema_encoder", "encoder_ema"])
def test_averages_of_modules(root):
    tensors = fakes("encoder.conv.weight", "decoder.conv.weight", "quant.weight")
    tensors |= averages(root, "convweight") | averages("ema_quant", "weight")
    kept, skipped, found = without_twins(tensors, averaged=True)
    assert {name: tensor.origin for name, tensor in kept.items()} == {
        "encoder.conv.weight": f"{root}.convweight",
        "decoder.conv.weight": "decoder.conv.weight",
        "quant.weight": "ema_quant.weight",
    }
    assert set(skipped) == {f"{root}.*", "ema_quant.*"} and found


@pytest.mark.parametrize(
    "twins",
    [
        averages("model_ema"),
        averages("model_ema", "aweight", "other"),
        averages("model_ema", "aweight") | {"model_ema.aweight": Fake("x", (3,))},
        averages("model_ema", "bcd"),  # of b.c.d or of bc.d
    ],
)
def test_averages_that_do_not_fit(twins):
    plain = fakes("a.weight", "b.c.d", "bc.d")
    kept, skipped, found = without_twins(plain | twins, averaged=True)
    assert kept == plain and not found
    assert "averages of none of the others" in skipped["model_ema.*"]


def test_without_averages():
    tensors = fakes("a.decay", "a.num", "model_ema.x")
    assert without_twins(tensors, averaged=True) == (tensors, {}, False)
