import json
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

import movq_jax
from movq_jax.errors import UserError
from movq_jax.models.pixels import from_uint8
from movq_jax.models.tokenizer import build_tokenizer
from movq_jax.pretrained.bundle import Bundle, read_bundle
from movq_jax.pretrained.exporting import folder, onnx_models
from movq_jax.pretrained.prior_bundle import read_prior_bundle

HERE = ("cpu",)
ALL = ("cpu", "cuda", "tpu")


def images(*shape, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (*shape, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def tok(tiny_bundle):
    return movq_jax.load(tiny_bundle, micro_batch=3)


@pytest.fixture(scope="module")
def exported(tiny_bundle, tmp_path_factory):
    """A tokenizer in two sizes for all platforms; the folder and its record."""
    out = tmp_path_factory.mktemp("exported") / "of" / "tiny"
    record = folder.export_stablehlo(
        read_bundle(tiny_bundle), out, image_sizes=[(16, 16), (8, 24)]
    )
    return out, record


def test_what_is_written(exported, tok):
    out, record = exported
    assert json.loads((out / "export.json").read_text()) == record
    assert sorted(path.name for path in out.iterdir()) == [
        "decoder-16x16.stablehlo",
        "decoder-8x24.stablehlo",
        "decoder.safetensors",
        "encoder-16x16.stablehlo",
        "encoder-8x24.stablehlo",
        "encoder.safetensors",
        "export.json",
    ]
    assert list(out.parent.iterdir()) == [out]  # nothing is left beside it
    assert record["format"] == "stablehlo" and record["kind"] == "tokenizer"
    assert record["fingerprint"] == tok.fingerprint and record["factor"] == 4
    encoder, decoder = record["programs"][2:]
    assert encoder["file"] == "encoder-8x24.stablehlo"
    assert tuple(encoder["platforms"]) == ALL and encoder["image_size"] == [8, 24]
    assert encoder["calling_convention_version"] >= 9
    assert encoder["inputs"] == [
        {
            "name": "images",
            "dtype": "uint8",
            "shape": ["b", 8, 24, 3],
            "values": "0 to 255",
        }
    ]
    ids = {"name": "ids", "dtype": "int32", "shape": ["b", 2, 6, 2]}
    assert encoder["output"] == decoder["inputs"][0] == ids | {"values": "0 to 31"}
    assert decoder["output"] == encoder["inputs"][0]


def test_each_program_has_the_weights_that_it_uses_and_no_others(exported, tiny_bundle):
    out, _ = exported
    bundle = read_bundle(tiny_bundle)
    for name, rooms in (
        ("encoder", {"encoder", "quant_conv"}),
        ("decoder", {"decoder", "post_quant_conv"}),
    ):
        weights = safetensors.numpy.load_file(out / f"{name}.safetensors")
        codes = weights.pop("cache.quantize.codebook.codes")
        np.testing.assert_array_equal(
            codes, bundle.params["quantize"]["codebook"]["rows"]
        )
        assert {key.split(".")[1] for key in weights} == rooms
        for key, array in weights.items():
            here = bundle.params
            for part in key.split(".")[1:]:
                here = here[part]
            np.testing.assert_array_equal(array, here)


def test_another_process_gets_the_same(exported, tok, call_elsewhere):
    """Of both sizes, and for numbers of images that were not known."""
    out, _ = exported
    x, wide = images(3, 16, 16), images(2, 8, 24)
    ids, wide_ids = tok.encode(x), tok.encode(wide)
    found = call_elsewhere(
        out,
        ("encoder-16x16.stablehlo", {"images": x}),
        ("encoder-8x24.stablehlo", {"images": wide}),
        ("decoder-8x24.stablehlo", {"ids": wide_ids}),
    )
    for codes, expected in zip(found[:2], (ids, wide_ids), strict=True):
        assert codes.dtype == np.int32
        np.testing.assert_array_equal(codes, expected)
    decoded = found[2]
    assert decoded.dtype == np.uint8
    difference = decoded.astype(int) - tok.decode(wide_ids)
    assert np.abs(difference).max() <= 1 and np.mean(difference != 0) < 1e-3


def test_float_pixels(tiny_bundle, tok, tmp_path, call_elsewhere):
    out = tmp_path / "exported"
    record = folder.export_stablehlo(
        read_bundle(tiny_bundle),
        out,
        image_sizes=[(16, 16)],
        pixels="float32",
        platforms=HERE,
    )
    encoder, decoder = record["programs"]
    assert encoder["file"] == "encoder.stablehlo" and encoder["platforms"] == ["cpu"]
    assert encoder["inputs"] == [decoder["output"]]
    assert decoder["output"]["values"] == "-1 to 1"
    x = np.asarray(from_uint8(jnp.asarray(images(3, 16, 16))))
    ids = tok.encode(x)
    codes, decoded = call_elsewhere(
        out, ("encoder.stablehlo", {"images": x}), ("decoder.stablehlo", {"ids": ids})
    )
    np.testing.assert_array_equal(codes, ids)
    assert decoded.dtype == np.float32 and np.abs(decoded).max() <= 1
    expected = tok.decode(ids, dtype="float32")
    np.testing.assert_allclose(decoded, expected, atol=1e-5)


QUANTIZERS = {
    "vq": {"codebook_size": 32, "dim": 8, "form": "l2"},
    "dual": {"codebook_size": 16, "dim": 8, "depth": 1, "heads": 1, "ffn": 8},
    "residual": {"codebook_size": 32, "dim": 8, "num_channels": 2},
    "fsq": {"levels": [8, 5, 5]},
    "lfq": {"bits": 6},
}


@pytest.fixture
def make_bundle(tiny_movq, fill):
    """A function that makes the bundle of an untrained tokenizer, by quantizer."""

    def make(name):
        model = tiny_movq | {
            "quantizer": {"name": name, **QUANTIZERS[name]},
            "multipliers": [1],
            "attention_factors": [],
        }
        params = fill(build_tokenizer(model), np.zeros((1, 1, 1, 3), np.float32))
        return Bundle("tokenizer", "f" * 64, model, {"weights": "random"}, params)

    return make


@pytest.mark.parametrize("name", QUANTIZERS)
def test_all_quantizers(name, make_bundle, tmp_path, call_elsewhere):
    bundle = make_bundle(name)
    out = tmp_path / "exported"
    folder.export_stablehlo(
        bundle, out, image_sizes=[(4, 4)], pixels="float32", platforms=HERE
    )
    tok = movq_jax.pretrained.tokenizer.PretrainedTokenizer(bundle, micro_batch=2)
    x = np.asarray(from_uint8(jnp.asarray(images(2, 4, 4))))
    ids = tok.encode(x)
    codes, decoded = call_elsewhere(
        out, ("encoder.stablehlo", {"images": x}), ("decoder.stablehlo", {"ids": ids})
    )
    np.testing.assert_array_equal(codes, ids)
    expected = tok.decode(ids, dtype="float32")
    np.testing.assert_allclose(decoded, expected, atol=1e-5)
    # The codes of a book under a transformer are its output, computed already.
    weights = safetensors.numpy.load_file(out / "encoder.safetensors")
    assert not any("layer" in key or "attention" in key for key in weights)


@pytest.fixture(params=["tiny_prior_bundle", "tiny_ar_bundle"])
def prior_path(request):
    return request.getfixturevalue(request.param)


def test_a_prior(prior_path, tmp_path, call_elsewhere):
    """A sampler for all classes, and the decoder for its size."""
    out = tmp_path / "exported"
    options = {"temperature": 0.9, "guidance": 1.5}
    record = folder.export_stablehlo(
        read_prior_bundle(prior_path), out, platforms=HERE, options=options
    )
    prior = movq_jax.load(prior_path, micro_batch=3)
    assert record["kind"] == "prior" and record["fingerprint"] == prior.fingerprint
    assert record["tokenizer"] == prior.tokenizer.fingerprint
    assert record["classes"] == ["cat", "dog", "sea horse"]
    sampler, decoder = record["programs"]
    assert [array["name"] for array in sampler["inputs"]] == [
        "seed",
        "numbers",
        "labels",
    ]
    assert sampler["inputs"][2]["values"] == "0 to 2, or 3 for no class"
    assert sampler["output"] == decoder["inputs"][0]
    assert sampler["image_size"] == decoder["image_size"] == [16, 16]
    assert record["sample"]["temperature"] == 0.9

    arrays = {
        "seed": np.uint32(7),
        "numbers": np.int32([5, 6, 7]),
        "labels": np.int32([2, 0, 3]),
    }
    ids = prior.sample(3, labels=[2, 0, 3], seed=7, first=5, **options)
    drawn, decoded = call_elsewhere(
        out, ("sampler.stablehlo", arrays), ("decoder.stablehlo", {"ids": ids})
    )
    np.testing.assert_array_equal(drawn, ids)
    assert np.abs(decoded.astype(int) - prior.decode(ids)).max() <= 1


def test_a_prior_without_classes(
    make_prior_bundle, tiny_masked, tmp_path, call_elsewhere
):
    """It takes no labels; and cuDNN's attention, of one kind of device, is left."""
    model = tiny_masked | {"num_classes": 0}
    model |= {"attention": "cudnn", "dtype": "bfloat16"}
    path = make_prior_bundle(model, classes=(), steps=2)
    out = tmp_path / "exported"
    record = folder.export_stablehlo(read_prior_bundle(path), out, platforms=ALL)
    inputs = record["programs"][0]["inputs"]
    assert [array["name"] for array in inputs] == ["seed", "numbers"]
    ids = movq_jax.load(path, micro_batch=2).sample(2, seed=1)
    arrays = {"seed": np.uint32(1), "numbers": np.int32([0, 1])}
    (drawn,) = call_elsewhere(out, ("sampler.stablehlo", arrays))
    assert np.mean(drawn == ids) > 0.9  # in 16 bits there are near ties


def test_options_that_do_not_fit(tiny_prior_bundle, tmp_path):
    prior = read_prior_bundle(tiny_prior_bundle)
    with pytest.raises(UserError, match="sample has no field 'temprature'"):
        folder.export_stablehlo(prior, tmp_path / "a", options={"temprature": 1})
    assert not list(tmp_path.iterdir())


def test_a_size_that_has_no_grid(tiny_bundle, tmp_path):
    bundle = read_bundle(tiny_bundle)
    with pytest.raises(UserError, match="8x10 have no grid .* multiples of 4"):
        folder.export_stablehlo(bundle, tmp_path / "a", image_sizes=[(8, 10)])
    with pytest.raises(UserError, match="no size of images is given"):
        folder.export_stablehlo(bundle, tmp_path / "a")
    assert not list(tmp_path.iterdir())


def test_a_folder_of_something_else_is_not_replaced(make_bundle, tmp_path):
    bundle = make_bundle("fsq")
    (tmp_path / "photo.jpg").write_bytes(b"")
    with pytest.raises(UserError, match="has files, but no export.json"):
        folder.export_stablehlo(bundle, tmp_path, image_sizes=[(4, 4)])
    with pytest.raises(UserError, match="photo.jpg: it is a file; name a folder"):
        folder.export_stablehlo(bundle, tmp_path / "photo.jpg", image_sizes=[(4, 4)])


def test_an_export_is_replaced_as_a_whole(make_bundle, tmp_path, monkeypatch):
    bundle, out = make_bundle("fsq"), tmp_path / "exported"
    out.mkdir()
    (out / "export.json").write_text("{}")
    (out / "old.stablehlo").write_text("of before")

    def fail(*args):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(folder, "to_stablehlo", fail)
        with pytest.raises(UserError, match="exported: No space left on device"):
            folder.export_stablehlo(bundle, out, image_sizes=[(4, 4)])
    assert (out / "old.stablehlo").exists() and list(tmp_path.iterdir()) == [out]
    folder.export_stablehlo(bundle, out, image_sizes=[(4, 4)], platforms=HERE)
    assert not (out / "old.stablehlo").exists()
    assert (out / "encoder.stablehlo").exists() and list(tmp_path.iterdir()) == [out]


def test_a_place_that_cannot_be_written(make_bundle, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        folder.export_stablehlo(
            make_bundle("fsq"), tmp_path / "file" / "out", image_sizes=[(4, 4)]
        )


def test_onnx_without_its_converter(make_bundle, tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_models.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r'pip install "movq_jax\[onnx\]"'):
        folder.export_onnx(make_bundle("fsq"), tmp_path / "a", image_sizes=[(4, 4)])


def test_diffusers(tiny_bundle, tmp_path):
    """What it holds is tested with the format; here, that it is handed over."""
    with pytest.raises(UserError, match="VQModel"):
        folder.export_diffusers(read_bundle(tiny_bundle), tmp_path / "a")
    assert not list(tmp_path.iterdir())


def test_importing_it_needs_no_converter():
    script = (
        "import sys, movq_jax.pretrained.exporting.folder\n"
        "assert not {'onnx', 'jax2onnx', 'torch', 'diffusers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
