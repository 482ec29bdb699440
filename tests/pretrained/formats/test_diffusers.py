"""Names and configs of diffusers, without diffusers."""

import json

import pytest
import safetensors.numpy

from movq_jax.errors import UserError
from movq_jax.pretrained.bundle import Bundle
from movq_jax.pretrained.formats.diffusers import (
    config_from_model,
    from_vqgan_name,
    model_from_config,
    to_vqgan_name,
    write_diffusers,
)
from movq_jax.pretrained.formats.vqgan_config import infer_model

# As Kandinsky 2.2 publishes its decoder's.
KANDINSKY = {
    "_class_name": "VQModel",
    "_diffusers_version": "0.17.0.dev0",
    "act_fn": "silu",
    "block_out_channels": [128, 256, 256, 512],
    "down_block_types": [*["DownEncoderBlock2D"] * 3, "AttnDownEncoderBlock2D"],
    "in_channels": 3,
    "latent_channels": 4,
    "layers_per_block": 2,
    "norm_num_groups": 32,
    "norm_type": "spatial",
    "num_vq_embeddings": 16384,
    "out_channels": 3,
    "sample_size": 32,
    "scaling_factor": 0.18215,
    "up_block_types": ["AttnUpDecoderBlock2D", *["UpDecoderBlock2D"] * 3],
    "vq_embed_dim": 4,
}


@pytest.fixture
def refused():
    """A function that tries something, and returns what it complains of."""

    def refused(function, *args):
        with pytest.raises(UserError) as error:
            function(*args)
        return str(error.value)

    return refused


@pytest.mark.parametrize("modulated", [True, False])
def test_names_go_there_and_back(vqgan_shapes, modulated):
    names = vqgan_shapes(
        multipliers=(1, 2, 2, 4), blocks=2, attention=(1, 3), modulated=modulated
    )
    theirs = [from_vqgan_name(name, 4) for name in names]
    assert [to_vqgan_name(name, 4) for name in theirs] == list(names)
    assert len(set(theirs)) == len(names)


BY_HAND = {  # each `.weight`
    "encoder.down.2.attn.1.norm": "down_blocks.2.attentions.1.group_norm",
    "encoder.down.0.downsample.conv": "down_blocks.0.downsamplers.0.conv",
    "decoder.up.3.block.0.nin_shortcut": "up_blocks.0.resnets.0.conv_shortcut",
    "decoder.up.1.upsample.conv": "up_blocks.2.upsamplers.0.conv",
    "decoder.mid.block_2.conv1": "mid_block.resnets.1.conv1",
    "decoder.mid.attn_1.proj_out": "mid_block.attentions.0.to_out.0",
    "decoder.mid.attn_1.norm.conv_y": "mid_block.attentions.0.spatial_norm.conv_y",
    "decoder.norm_out.conv_b": "conv_norm_out.conv_b",
}


@pytest.mark.parametrize("name", BY_HAND)
def test_names_by_hand(name):
    theirs = f"{name.partition('.')[0]}.{BY_HAND[name]}.weight"
    assert from_vqgan_name(f"{name}.weight", 4) == theirs
    assert to_vqgan_name(theirs, 4) == f"{name}.weight"


def test_names_of_old_and_of_others():
    old = "encoder.mid_block.attentions.0.proj_attn.weight"
    assert to_vqgan_name(old, 4) == "encoder.mid.attn_1.proj_out.weight"
    for name in (
        "text_model.embeddings",
        "encoder.down_blocks.0.upsamplers.0.conv.weight",
        "encoder.down_blocks.0.downsamplers.1.conv.weight",
        "encoder.mid_block.downsamplers.0.conv.weight",
        "encoder.mid_block.attentions.1.to_q.weight",
        "encoder.mid_block.resnets.2.conv1.weight",
        "encoder.up_blocks.0.resnets.0.conv1.weight",
        "encoder.mid_block.attentions.0.q.weight",
        "encoder.down_blocks.0.resnets.0.time_emb_proj.weight",
        "decoder.up_blocks.4.resnets.0.conv1.weight",
        f"decoder.up_blocks.{'9' * 5000}.resnets.0.conv1.weight",
    ):
        assert to_vqgan_name(name, 4) is None
    with pytest.raises(ValueError, match="no VQGAN-style name"):
        from_vqgan_name("quantizer.project.weight", 4)


def test_kandinskys_config_is_the_f8_model(vqgan_shapes):
    sizes = {"width": 128, "multipliers": (1, 2, 2, 4), "blocks": 2}
    shapes = vqgan_shapes(**sizes, attention=(3,), codes=16384, modulated=True)
    model = model_from_config(KANDINSKY)
    assert model == infer_model(shapes)
    again = config_from_model(model)
    assert again == {key: KANDINSKY[key] for key in again}


def test_a_config_that_leaves_fields_out():
    model = model_from_config({})
    assert (model["width"], model["multipliers"], model["z_channels"]) == (64, [1], 3)
    assert model["quantizer"]["dim"] == 3 and model["attention_factors"] == []
    few = model_from_config(KANDINSKY | {"norm_num_groups": 8})
    assert few["norm_groups"] == 8 and few["decoder_norm"]["groups"] == 32
    assert model_from_config(config_from_model(few)) == few
    other = KANDINSKY | {"norm_type": "group", "vq_embed_dim": 8}
    assert model_from_config(other)["quantizer"]["dim"] == 8


@pytest.mark.parametrize(
    "field, value, said",
    [
        ("_class_name", "AutoencoderKL", "class 'AutoencoderKL'"),
        ("act_fn", "relu", "act_fn in config.json is 'relu'; only 'silu' or 'swish'"),
        ("in_channels", 1, "only 3 is read"),
        ("norm_type", "layer", "only 'group' or 'spatial'"),
        ("mid_block_add_attention", False, "only True is read"),
        ("block_out_channels", [], "give the channels of each level"),
        ("block_out_channels", [128, 192, 256, 512], "only multiples of the first"),
        ("block_out_channels", ["128"] * 4, "give the channels of each level"),
        ("block_out_channels", [48, 48, 48, 96], "no multiple of the 32 groups"),
        ("norm_num_groups", 0, "give a whole number from 1"),
        ("norm_num_groups", 24, "no multiple of the 24 groups"),
        ("layers_per_block", 2.0, "give a whole number from 1"),
        ("latent_channels", None, "give a whole number from 1"),
        ("vq_embed_dim", 8, "with spatial norms it must be 4"),
        ("down_block_types", ["DownEncoderBlock2D"], "give 4 of DownEncoderBlock2D"),
        ("down_block_types", [*["DownEncoderBlock2D"] * 3, 7], "give 4 of"),
        ("up_block_types", ["UpDecoderBlock2D"] * 4, "the encoder's same level"),
    ],
)
def test_configs_that_are_not_read(refused, field, value, said):
    assert said in refused(model_from_config, KANDINSKY | {field: value})


def test_models_that_they_cannot_hold(refused, tiny_movq):
    model = model_from_config(KANDINSKY)
    quantizer = model["quantizer"]

    def said(**changes):
        return refused(config_from_model, model | changes)

    assert "'multichannel' with 2 channels" in refused(config_from_model, tiny_movq)
    assert "its quantizer is 'dual'" in said(quantizer=quantizer | {"name": "dual"})
    assert "of the form 'l2'" in said(quantizer=quantizer | {"form": "l2"})
    assert "its codes 8" in said(quantizer=quantizer | {"dim": 8})
    assert "2 times as wide" in said(multipliers=[2, 2])
    assert "spatial norms have 8 groups" in said(
        norm_groups=8, decoder_norm={"name": "spatial"}
    )
    assert "group norms have 16 or 32 groups" in said(
        width=16, multipliers=[1, 2], decoder_norm={"name": "group"}
    )
    assert "those of maskgit" in said(architecture="maskgit")
    one = quantizer | {"name": "multichannel", "num_channels": 1}
    assert config_from_model(model | {"quantizer": one}) == config_from_model(model)


def test_a_tokenizer_is_written(tmp_path, refused, vqgan_shapes, tiny_tokenizer):
    folder = tmp_path / "deep" / "folder"
    write_diffusers(tiny_tokenizer, folder)
    config = json.loads((folder / "config.json").read_text())
    assert config == config_from_model(tiny_tokenizer.model)
    weights = folder / "diffusion_pytorch_model.safetensors"
    with safetensors.safe_open(weights, "np") as file:
        assert file.metadata() == {"format": "pt"}
    tensors = safetensors.numpy.load_file(weights)
    shapes = vqgan_shapes(modulated=True, linear=True)
    expected = {from_vqgan_name(name, 2): shape for name, shape in shapes.items()}
    assert {name: array.shape for name, array in tensors.items()} == expected
    write_diffusers(tiny_tokenizer, folder)  # again
    assert len(list(folder.iterdir())) == 2
    prior = Bundle("prior", "", {}, {}, {})
    assert "is a prior" in refused(write_diffusers, prior, folder)
    (tmp_path / "file").touch()
    said = refused(write_diffusers, tiny_tokenizer, tmp_path / "file" / "x")
    assert "cannot write" in said
