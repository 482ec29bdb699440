import json

import numpy as np
import pytest
import safetensors.numpy

from movq_jax.models.tokenizer import build_tokenizer
from movq_jax.pretrained.bundle import Bundle, read_bundle
from movq_jax.pretrained.fetching import sha256_of
from movq_jax.pretrained.formats.diffusers import write_diffusers
from movq_jax.tools import command, convert

MODEL = {
    "width": 8,
    "multipliers": [1, 2],
    "res_blocks": 1,
    "attention_factors": [2],
    "z_channels": 4,
    "norm_groups": 8,
    "decoder_norm": {"name": "group"},
    "quantizer": {"name": "vq", "codebook_size": 16, "dim": 4},
}


@pytest.fixture
def published(tmp_path, fill):
    """A folder as diffusers writes it: factor 2, 16 codes x 4."""
    image = np.zeros((1, 4, 4, 3), np.float32)
    params = fill(build_tokenizer(MODEL), image)
    write_diffusers(Bundle("tokenizer", "", MODEL, {}, params), tmp_path / "published")
    return tmp_path / "published"


def run(capsys, source, out, *flags):
    """Return exit code, stdout and stderr."""
    code = command.run(convert.main, [f"--from={source}", f"--out={out}", *flags])
    return code, *capsys.readouterr()


def test_it_prints_what_it_made(tmp_path, published, capsys):
    out, record = tmp_path / "out", tmp_path / "record.json"
    code, text, err = run(capsys, published, out, f"--json={record}")
    assert (code, err) == (0, "")
    bundle = read_bundle(out)
    assert "VQModel of diffusers" in text
    assert "2x2 pixels a position, codebook 16, 4 bits a position" in text
    assert f"wrote {out}, fingerprint {bundle.fingerprint}" in text
    record = json.loads(record.read_text())
    file = published / "diffusion_pytorch_model.safetensors"
    assert record["source"]["sha256"] == sha256_of(file)
    assert record["format"] == "diffusers" and record["kind"] == "tokenizer"
    tensors = safetensors.numpy.load_file(file)
    assert record["tensors"] == len(tensors)
    assert record["parameters"] == sum(array.size for array in tensors.values())
    assert record["model"] == {"path": str(out), "fingerprint": bundle.fingerprint}
    assert (record["factor"], record["codebook_sizes"]) == (2, [16])


def test_what_was_left_out_is_said(tmp_path, published, capsys):
    path = published / "diffusion_pytorch_model.safetensors"
    arrays = safetensors.numpy.load_file(path)
    arrays["loss.logvar"] = np.zeros(1, np.float32)
    safetensors.numpy.save_file(arrays, path)
    code, text, _ = run(capsys, published, tmp_path / "out")
    assert code == 0 and "left out: loss" in text


def test_mistakes_are_one_sentence(tmp_path, published, tiny_bundle, capsys):
    def refused(source, out, *flags):
        code, text, err = run(capsys, source, out, *flags)
        assert (code, text) == (2, "") and err.count("\n") == 1
        return err

    new = tmp_path / "new"
    assert "there is no file or folder" in refused(tmp_path / "none", new)
    assert "is a model of this project already" in refused(tiny_bundle, new)
    assert "would be lost" in refused(published, tiny_bundle / "model")
    assert "there is no model at" in refused(published, new, "--tokenizer=none")
    said = refused(published, new, f"--tokenizer={tiny_bundle}")
    assert "holds a tokenizer itself" in said
    assert not new.exists()
