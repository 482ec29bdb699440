"""The names of published models at their full sizes, without their numbers."""

import math

import numpy as np
import pytest

from movq_jax.config import load_config
from movq_jax.errors import UserError
from movq_jax.pretrained.formats.accounting import their_shapes
from movq_jax.pretrained.formats.vqgan_config import infer_model
from movq_jax.pretrained.formats.vqgan_names import (
    Place,
    abstract_params,
    to_ours,
    to_theirs,
    vqgan_names,
)

F8 = {"multipliers": (1, 2, 2, 4), "attention": (3,), "codes": 16384, "modulated": True}
F16 = {"multipliers": (1, 1, 2, 2, 4), "attention": (4,), "z": 256, "blocks": 2}
PUBLISHED = {
    "movq_f8:67m": (67_832_495, {**F8, "width": 128, "blocks": 2}),
    "movq_f8:102m": (101_614_255, {**F8, "width": 128, "blocks": 4}),
    "movq_f8:270m": (270_669_103, {**F8, "width": 256, "blocks": 2}),
    "vqgan_imagenet": (72_141_699, {**F16, "width": 128, "codes": 1024, "dim": 256}),
}


@pytest.mark.parametrize(
    "config, dialect",
    [*((config, "conv") for config in PUBLISHED), ("movq_f8:67m", "linear")],
)
def test_a_published_model_has_these_names_and_shapes(vqgan_shapes, config, dialect):
    parameters, sizes = PUBLISHED[config]
    shapes = vqgan_shapes(**sizes, linear=dialect == "linear")
    model = infer_model(shapes)
    places = vqgan_names(model, dialect)
    assert their_shapes(places, abstract_params(model)) == shapes
    assert sum(map(math.prod, shapes.values())) == parameters
    if config == "movq_f8:67m":
        assert len(shapes) == 431
    # A model that this project trains to reproduce it is the same one.
    section = load_config(f"configs/{config.replace(':', '.py:')}").model.to_dict()
    section["multipliers"] = list(section["multipliers"])
    section["attention_factors"] = list(section["attention_factors"])
    section["quantizer"] = model["quantizer"] | section["quantizer"]
    assert model == section


def test_the_authors_dual_codebook(dual_shapes):
    sizes = {**F16, "width": 128, "depth": 6, "codes": 512, "dim": 256, "ffn": 2048}
    shapes = dual_shapes(**sizes)
    model = infer_model(shapes)
    quantizer = load_config("configs/dualvq_coco.py").model.quantizer.to_dict()
    assert model["quantizer"] == quantizer
    places = vqgan_names(model)
    assert their_shapes(places, abstract_params(model)) == shapes
    transformer = {n: s for n, s in shapes.items() if ".transformer." in n}
    assert sum(map(math.prod, transformer.values())) == 3_558_144
    layer = "quantize.global_codebook.layers_5"
    theirs = "quantize.transformer.layers.5.self_attn"
    assert places[f"{layer}.in_proj.kernel"] == Place(
        f"{theirs}.in_proj_weight", "linear"
    )
    assert places[f"{layer}.out_proj.bias"] == Place(f"{theirs}.out_proj.bias", "plain")


def test_a_few_places_by_hand(vqgan_shapes):
    model = infer_model(vqgan_shapes(modulated=True))
    places = vqgan_names(model)
    norm, kernel = "decoder.up_1_attn_0.norm", "encoder.mid.attn_1.q.kernel"
    expected = {
        "encoder.down_1_block_0.conv_shortcut.kernel": (
            "encoder.down.1.block.0.nin_shortcut.weight",
            "conv",
        ),
        "encoder.down_0_downsample.conv.bias": (
            "encoder.down.0.downsample.conv.bias",
            "plain",
        ),
        "encoder.norm_out.norm.scale": ("encoder.norm_out.weight", "plain"),
        kernel: ("encoder.mid.attn_1.q.weight", "conv1x1"),
        f"{norm}.norm.scale": ("decoder.up.1.attn.0.norm.norm_layer.weight", "plain"),
        f"{norm}.conv_y.kernel": ("decoder.up.1.attn.0.norm.conv_y.weight", "conv"),
        "quantize.codebook.rows": ("quantize.embedding.weight", "plain"),
    }
    assert {ours: tuple(places[ours]) for ours in expected} == expected
    assert vqgan_names(model, "linear")[kernel].layout == "linear"
    assert len({place.name for place in places.values()}) == len(places)


@pytest.mark.parametrize(
    "layout, shape, theirs",
    [
        ("conv", (3, 5, 2, 4), (4, 2, 3, 5)),
        ("linear", (2, 4), (4, 2)),
        ("conv1x1", (2, 4), (4, 2, 1, 1)),
        ("plain", (2, 4), (2, 4)),
    ],
)
def test_layouts_there_and_back(layout, shape, theirs):
    array = np.arange(math.prod(shape)).reshape(shape)
    moved = to_theirs(array, layout)
    assert moved.shape == theirs
    np.testing.assert_array_equal(to_ours(moved, layout), array)
    if layout == "conv":
        assert moved[3, 1, 2, 4] == array[2, 4, 1, 3]


@pytest.mark.parametrize("name", ["residual", "lfq"])
def test_a_quantizer_that_they_do_not_have(tiny_movq, name):
    fields = {"residual": {"codebook_size": 8, "dim": 4}, "lfq": {"bits": 4}}
    tiny_movq["quantizer"] = {"name": name, **fields[name]}
    if name == "lfq":  # it has no parameters, so there is nothing to place
        assert not any(n.startswith("quantize.") for n in vqgan_names(tiny_movq))
        return
    tiny_movq["quantizer"]["form"] = "linear"
    with pytest.raises(UserError, match="no place for quantize.codebook.map.bias"):
        vqgan_names(tiny_movq)
