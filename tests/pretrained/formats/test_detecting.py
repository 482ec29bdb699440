import pytest

from movq_jax.errors import UserError
from movq_jax.pretrained.formats.detecting import FORMATS, detect


def test_each_format_is_known(vqgan_shapes, dual_shapes):
    assert detect(vqgan_shapes()) == "vqgan"
    assert detect(vqgan_shapes(modulated=True)) == "vqgan"
    assert detect(vqgan_shapes(linear=True)) == "vqgan-linear"
    assert detect(dual_shapes()) == "dualvq"
    diffusers = {"encoder.down_blocks.0.resnets.0.conv1.weight": (8, 8, 3, 3)}
    assert detect(diffusers, {"_class_name": "VQModel"}) == "diffusers"
    for top in ("", "params/"):
        tokenizer = {f"{top}encoder/ResBlock_0/Conv_0/kernel": (3, 3, 8, 8)}
        assert detect(tokenizer) == "maskgit-tokenizer"
        assert detect({f"{top}MlmLayer_0/mlm_bias/bias": (9,)}) == "maskgit-prior"


def test_what_is_unknown_is_told_with_what_is_known():
    shapes = {f"blocks.{i}.attn.qkv.weight": (8, 8) for i in range(100)}
    with pytest.raises(UserError) as error:
        detect(shapes, {"_class_name": "ViT"})
    said = str(error.value)
    assert "'ViT'" in said and "their 100 tensors" in said
    assert "blocks.0.attn.qkv.weight" in said and "blocks.80" in said
    assert "blocks.1.attn" not in said
    assert all(f"{name}: {what}" in said for name, what in FORMATS.items())
