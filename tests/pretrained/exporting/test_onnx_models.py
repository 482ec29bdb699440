"""Models that onnxruntime runs. Skipped without the extra `onnx`."""

import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest

from movq_jax.errors import UserError
from movq_jax.models.pixels import from_uint8
from movq_jax.models.tokenizer import build_tokenizer
from movq_jax.pretrained.bundle import Bundle, read_bundle
from movq_jax.pretrained.exporting import folder
from movq_jax.pretrained.tokenizer import PretrainedTokenizer

pytest.importorskip("jax2onnx")
onnxruntime = pytest.importorskip("onnxruntime")

# Of the packages that read these files.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture(autouse=True)
def unchecked():
    """The search takes an unknown number of rows here, which is no int."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def run(path, **arrays):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, arrays)
    return found


def images(*shape):
    x = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    return np.array(from_uint8(jnp.asarray(x)))


def test_encoder_and_decoder(tiny_bundle, tmp_path):
    """A number of images that was not known; two sizes; spatial norms and attention."""
    bundle, out = read_bundle(tiny_bundle), tmp_path / "exported"
    record = folder.export_onnx(
        bundle, out, image_sizes=[(16, 16), (8, 24)], pixels="float32"
    )
    assert record["format"] == "onnx" and record["jax2onnx"]
    assert [program["batch"] for program in record["programs"]] == ["b"] * 4
    tok = PretrainedTokenizer(bundle, micro_batch=3)
    for size in ((16, 16), (8, 24)):
        name = "{}x{}.onnx".format(*size)
        x = images(3, *size)
        ids = tok.encode(x)
        np.testing.assert_array_equal(run(out / f"encoder-{name}", images=x), ids)
        decoded = run(out / f"decoder-{name}", ids=ids)
        expected = tok.decode(ids, dtype="float32")
        assert decoded.dtype == np.float32
        np.testing.assert_allclose(decoded, expected, atol=1e-5)


@pytest.fixture
def make_bundle(tiny_movq, fill):
    """A function that makes the bundle of an untrained tokenizer, by quantizer."""

    def make(quantizer):
        levels = {"multipliers": [1], "attention_factors": []}
        model = tiny_movq | levels | {"quantizer": quantizer}
        params = fill(build_tokenizer(model), np.zeros((1, 1, 1, 3), np.float32))
        return Bundle("tokenizer", "f" * 64, model, {"weights": "random"}, params)

    return make


QUANTIZERS = {
    "vq": ({"codebook_size": 32, "dim": 8, "form": "l2"}, "b"),
    "dual": (
        {"codebook_size": 16, "dim": 8, "depth": 1, "heads": 1, "ffn": 8},
        "b",
    ),
    "residual": ({"codebook_size": 32, "dim": 8, "num_channels": 2}, "b"),
    "fsq": ({"levels": [8, 5, 5]}, 1),  # its decoder needs to know the number
}


@pytest.mark.parametrize("name", QUANTIZERS)
def test_all_quantizers(name, make_bundle, tmp_path):
    fields, batch = QUANTIZERS[name]
    bundle = make_bundle({"name": name, **fields})
    record = folder.export_onnx(bundle, tmp_path / "a", image_sizes=[(4, 4)])
    encoder, decoder = record["programs"]
    assert (encoder["batch"], decoder["batch"]) == ("b", batch)
    tok = PretrainedTokenizer(bundle, micro_batch=1)
    x = np.random.default_rng(0).integers(0, 256, (1, 4, 4, 3), dtype=np.uint8)
    ids = tok.encode(x)
    np.testing.assert_array_equal(run(tmp_path / "a" / "encoder.onnx", images=x), ids)
    decoded = run(tmp_path / "a" / "decoder.onnx", ids=ids)
    assert decoded.dtype == np.uint8
    assert np.abs(decoded.astype(int) - tok.decode(ids)).max() <= 1


def test_what_cannot_be_converted_is_refused(make_bundle, tmp_path):
    """jax2onnx writes an operation that ONNX does not have, and says nothing."""
    bundle = make_bundle({"name": "lfq", "bits": 6})
    with pytest.raises(UserError, match="cannot convert the encoder: .*BitShift"):
        folder.export_onnx(bundle, tmp_path / "a", image_sizes=[(4, 4)])
    assert not list(tmp_path.iterdir())
