import json

import numpy as np
import pytest
import safetensors.numpy

import movq_jax
from movq_jax.errors import UserError
from movq_jax.pretrained.bundle import read_bundle
from movq_jax.pretrained.converting import check_out, convert, write_converted
from movq_jax.pretrained.fetching import sha256_of
from movq_jax.pretrained.formats.diffusers import write_diffusers


@pytest.fixture
def save(tmp_path):
    """A function that saves arrays as safetensors, and returns the path."""

    def save(arrays, name="x.safetensors"):
        path = tmp_path / name
        safetensors.numpy.save_file(arrays, path)
        return path

    return save


@pytest.fixture
def refused():
    """A function that tries something, and returns what it complains of."""

    def refused(function, *args):
        with pytest.raises(UserError) as error:
            function(*args)
        return str(error.value)

    return refused


def test_a_file_becomes_a_model(tmp_path, save, vqgan_shapes, drawn):
    path = save(drawn(vqgan_shapes(modulated=True)))
    conversion = convert(path)
    assert (conversion.kind, conversion.format) == ("tokenizer", "vqgan")
    assert conversion.source["sha256"] == sha256_of(path)
    fingerprint = write_converted(conversion, tmp_path / "out")
    tok = movq_jax.load(tmp_path / "out")
    assert tok.fingerprint == fingerprint
    assert (tok.factor, tok.codebook_size, tok.num_channels) == (2, 64, 1)
    protocol = tok.protocol
    assert protocol["weights"] == "converted from x.safetensors"
    assert protocol["source"] == conversion.source
    assert "step" not in protocol  # it would look like a run that was cut short
    assert tok.decode(np.zeros((1, 2, 2, 1), np.int32)).shape == (1, 4, 4, 3)


def test_both_dialects_and_diffusers_are_one_model(
    tmp_path, save, vqgan_shapes, drawn, tiny_tokenizer
):
    arrays = drawn(vqgan_shapes(modulated=True))  # those of tiny_tokenizer
    linear = {
        name: array[:, :, 0, 0]
        if ".attn" in name and ".norm." not in name and array.ndim == 4
        else array
        for name, array in arrays.items()
    }
    write_diffusers(tiny_tokenizer, tmp_path / "diffusers")
    alone = tmp_path / "alone.safetensors"
    alone.hardlink_to(tmp_path / "diffusers" / "diffusion_pytorch_model.safetensors")
    conversions = [
        convert(save(arrays, "conv.safetensors")),
        convert(save(linear, "linear.safetensors")),
        convert(tmp_path / "diffusers"),
        convert(alone),  # without a config.json
    ]
    formats = [conversion.format for conversion in conversions]
    assert formats == ["vqgan", "vqgan-linear", "diffusers", "diffusers"]
    prints = [
        write_converted(conversion, tmp_path / f"out{i}")
        for i, conversion in enumerate(conversions)
    ]
    assert len(set(prints)) == 1
    assert conversions[2].source["config"]["_class_name"] == "VQModel"
    assert "config" not in conversions[3].source


def test_diffusers_before_its_names_changed(tmp_path, save, tiny_tokenizer):
    write_diffusers(tiny_tokenizer, tmp_path / "new")
    path = tmp_path / "new" / "diffusion_pytorch_model.safetensors"
    arrays = safetensors.numpy.load_file(path)
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    renamed = {}
    for name, array in arrays.items():
        for today, before in old.items():
            name = name.replace(f".{today}.", f".{before}.")
        renamed[name] = array
    fingerprints = [
        write_converted(convert(file), tmp_path / f"out{i}")
        for i, file in enumerate([path, save(renamed)])
    ]
    assert fingerprints[0] == fingerprints[1]
    twice = renamed | {k: v for k, v in arrays.items() if "to_q" in k}
    with pytest.raises(UserError, match="the same tensor under two names"):
        convert(save(twice, "twice.safetensors"))


def test_dual_codebook_vq(tmp_path, save, dual_shapes, drawn):
    arrays = drawn(dual_shapes(depth=2))
    conversion = convert(save(arrays))
    assert conversion.format == "dualvq"
    book = conversion.params["quantize"]["global_codebook"]
    theirs = arrays["quantize.transformer.layers.1.self_attn.in_proj_weight"]
    np.testing.assert_array_equal(book["layers_1"]["in_proj"]["kernel"], theirs.T)
    write_converted(conversion, tmp_path / "out")
    tok = movq_jax.load(tmp_path / "out")
    assert tok.codebook_sizes == (32, 32)


def test_every_tensor_is_accounted_for(save, vqgan_shapes, drawn, refused):
    arrays = drawn(vqgan_shapes())
    kernel = arrays.pop("encoder.mid.block_1.conv1.weight")
    arrays["second_stage.0.weight"] = kernel
    arrays["decoder.conv_in.bias"] = np.zeros(3, np.float32)
    path = save(arrays)
    said = refused(convert, path)
    assert said.startswith(f"cannot convert {path}: ")
    assert "1 tensor is missing (encoder.mid.block_1.conv1.weight)" in said
    assert "1 tensor is unexpected (second_stage.0.weight)" in said
    assert "1 tensor is misshapen (decoder.conv_in.bias is [3] instead of [64])" in said


def test_what_training_kept_is_left_out_and_said(save, vqgan_shapes, drawn):
    arrays = drawn(vqgan_shapes())
    arrays["quantize.embedding.cluster_size"] = np.zeros(64, np.float32)
    arrays["loss.discriminator.main.0.weight"] = np.zeros(2, np.float32)
    skipped = convert(save(arrays)).source["skipped"]
    assert "counts" in skipped.pop("quantize.embedding.cluster_size")
    assert skipped and all("loss" in name for name in skipped)


def test_half_precision_becomes_single(save, vqgan_shapes, drawn):
    arrays = drawn(vqgan_shapes())
    half = {name: array.astype(np.float16) for name, array in arrays.items()}
    params = convert(save(half)).params
    expected = half["encoder.conv_in.bias"].astype(np.float32)
    found = params["encoder"]["conv_in"]["bias"]
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, expected)


def test_diffusers_with_the_config_of_another(tmp_path, tiny_tokenizer, refused):
    write_diffusers(tiny_tokenizer, tmp_path)
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    config |= {"layers_per_block": 3, "num_vq_embeddings": 99}
    path.write_text(json.dumps(config))
    said = refused(convert, tmp_path)
    assert "res_blocks 3, not 1" in said
    assert "codebook's codebook_size 99, not 64" in said


def test_diffusers_that_lack_a_tensor_are_told_in_their_names(
    tmp_path, tiny_tokenizer, refused
):
    write_diffusers(tiny_tokenizer, tmp_path)
    path = tmp_path / "diffusion_pytorch_model.safetensors"
    arrays = safetensors.numpy.load_file(path)
    name = "decoder.mid_block.attentions.0.spatial_norm.conv_y.bias"
    arrays["decoder.mid_block.strange"] = arrays.pop(name)
    safetensors.numpy.save_file(arrays, path)
    said = refused(convert, tmp_path)
    assert f"is missing ({name})" in said
    assert "is unexpected (decoder.mid_block.strange)" in said


def test_files_that_are_none(tmp_path, save, refused):
    path = save({"a.b": np.zeros(2, np.float32)})
    assert "are of no known format" in refused(convert, path)
    page = tmp_path / "page.ckpt"
    page.write_text("<!DOCTYPE html><html>")
    said = refused(convert, page)
    assert said.startswith(f"{page} is a web page")


def test_where_a_conversion_may_be_written(
    tmp_path, save, vqgan_shapes, drawn, tiny_bundle, refused
):
    conversion = convert(save(drawn(vqgan_shapes())))
    out = tmp_path / "out"
    out.mkdir()
    first = write_converted(conversion, out)
    assert write_converted(conversion, out) == first  # an older conversion
    trained = tiny_bundle / "model"
    before = read_bundle(trained).fingerprint
    for folder in (trained, tiny_bundle, tmp_path):
        assert "would be lost: give a new folder" in refused(
            write_converted, conversion, folder
        )
    assert read_bundle(trained).fingerprint == before
    assert "it is a file" in refused(check_out, tmp_path / "x.safetensors")
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "config.json").write_text('{"protocol": 3}')
    assert "would be lost" in refused(check_out, tmp_path / "odd")
    said = refused(write_converted, conversion, tmp_path / "new", out)
    assert "holds a tokenizer itself" in said
