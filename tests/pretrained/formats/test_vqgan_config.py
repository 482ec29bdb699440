import pytest

from movq_jax.errors import UserError
from movq_jax.pretrained.formats.vqgan_config import infer_model


@pytest.fixture
def refused():
    """A function that infers a model from shapes, and returns what it complains of."""

    def refused(shapes, **options):
        with pytest.raises(UserError) as error:
            infer_model(shapes, **options)
        return str(error.value)

    return refused


def test_what_the_shapes_tell(vqgan_shapes):
    model = infer_model(
        vqgan_shapes(64, (1, 2, 1), 3, attention=(0, 2), z=8, codes=100, dim=6)
    )
    told = {
        "width": 64,
        "multipliers": [1, 2, 1],
        "res_blocks": 3,
        "attention_factors": [1, 4],
        "z_channels": 8,
        "norm_groups": 32,
        "decoder_norm": {"name": "group"},
    }
    assert {key: model[key] for key in told} == told
    quantizer = model["quantizer"]
    assert (quantizer["name"], quantizer["codebook_size"]) == ("vq", 100)
    assert quantizer["dim"] == 6 and quantizer["legacy"]


def test_a_first_level_that_is_wider_than_the_first_convolution(vqgan_shapes):
    assert infer_model(vqgan_shapes(32, (2, 4)))["multipliers"] == [2, 4]


def test_spatial_norms_keep_their_32_groups(vqgan_shapes):
    shapes = vqgan_shapes(modulated=True)
    norm = {"name": "spatial", "init": "torch"}
    assert infer_model(shapes)["decoder_norm"] == norm
    assert infer_model(shapes, norm_groups=8)["decoder_norm"] == norm | {"groups": 32}


def test_a_dual_codebook(dual_shapes):
    quantizer = infer_model(dual_shapes(depth=2))["quantizer"]
    assert (quantizer["name"], quantizer["depth"], quantizer["ffn"]) == ("dual", 2, 24)
    assert (quantizer["codebook_size"], quantizer["dim"]) == (32, 16)
    assert infer_model(dual_shapes(depth=0))["quantizer"]["depth"] == 0


def test_other_networks_are_named(vqgan_shapes, refused):
    shapes = vqgan_shapes()
    kl = {n: s for n, s in shapes.items() if not n.startswith("quantize.")}
    said = refused(kl)
    assert "no quantize.embedding.weight" in said and "it has quant_conv" in said
    assert "it has quantize.proj" in refused(
        {"quantize.proj.weight": (8, 4, 1, 1), **kl}
    )
    assert "there is no encoder.conv_in.weight" in refused({"a": (1,)})
    assert "is not VQGAN's" in refused({"encoder.conv_in.weight": (32, 3, 3, 3)})


def test_odd_shapes_are_named(vqgan_shapes, refused):
    shapes = vqgan_shapes()
    codes = shapes | {"quantize.embedding.weight": (64, 2)}
    assert "codes of 2 numbers, but quant_conv gives 4" in refused(codes)
    flat = shapes | {"encoder.conv_in.weight": (32,)}
    assert "encoder.conv_in.weight has the shape [32]" in refused(flat)
    nothing = shapes | {"encoder.conv_in.weight": (0, 3, 3, 3)}
    assert "none of them 0" in refused(nothing)
    uneven = shapes | {"encoder.down.1.block.0.conv1.weight": (48, 32, 3, 3)}
    assert "level 1 of the encoder has 48 channels" in refused(uneven)
    assert "24 channels, no multiple of the 32 groups" in refused(vqgan_shapes(24))
    assert infer_model(vqgan_shapes(24), norm_groups=8)["norm_groups"] == 8
