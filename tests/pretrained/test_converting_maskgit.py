"""MaskGIT's files from msgpack to a prior that draws; see formats/test_maskgit.py."""

import flax.serialization
import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import movq_jax
from movq_jax.errors import UserError
from movq_jax.models.tokenizer import build_tokenizer
from movq_jax.pretrained.converting import convert, write_converted
from movq_jax.pretrained.formats.maskgit import (
    CODES,
    prior_shapes,
    tokenizer_names,
)

TOKENIZER = {
    "architecture": "maskgit",
    "width": 32,
    "multipliers": [1, 2],
    "res_blocks": 1,
    "quantizer": {"name": "vq", "codebook_size": CODES, "dim": 4},
}
PRIOR = {"width": 16, "mlp": 24, "heads": 2, "depth": 1, "num_classes": 3}
TOKENS = {"grid": [4, 4], "codebook_sizes": [CODES]}


@pytest.fixture
def publish(tmp_path, drawn):
    """A function that writes tensors of those shapes as MaskGIT was published."""

    def publish(name, shapes):
        arrays = flax.traverse_util.unflatten_dict(drawn(shapes), sep="/")
        data = flax.serialization.msgpack_serialize({"params": arrays})
        (tmp_path / name).write_bytes(data)
        return tmp_path / name

    return publish


@pytest.fixture
def tokenizer_file(publish):
    module, image = build_tokenizer(TOKENIZER), jnp.zeros((1, 2, 2, 3))
    params = jax.eval_shape(module.init, jax.random.key(0), image)["params"]
    flat = flax.traverse_util.flatten_dict(params, sep=".")
    names = tokenizer_names(2, 1, flat)
    shapes = {names[ours]: struct.shape for ours, struct in flat.items()}
    return publish("tokenizer_imagenet_checkpoint", shapes)


def test_tokenizer_and_prior(tmp_path, publish, tokenizer_file, tiny_bundle):
    first = convert(tokenizer_file)
    assert (first.kind, first.format) == ("tokenizer", "maskgit-tokenizer")
    fingerprint = write_converted(first, tmp_path / "tokenizer")
    second = convert(publish("maskgit_checkpoint", prior_shapes(PRIOR, TOKENS)))
    assert (second.kind, second.format) == ("prior", "maskgit-prior")

    with pytest.raises(UserError, match="give its folder as --tokenizer"):
        write_converted(second, tmp_path / "prior")
    with pytest.raises(UserError, match="of 1024 codes, but the tokenizer in"):
        write_converted(second, tmp_path / "prior", tiny_bundle)
    assert not (tmp_path / "prior").exists()

    write_converted(second, tmp_path / "prior", tmp_path / "tokenizer")
    with pytest.raises(UserError, match="is a prior, not a tokenizer"):
        write_converted(second, tmp_path / "x", tmp_path / "prior")
    prior = movq_jax.load(tmp_path / "prior")
    assert prior.tokenizer.fingerprint == fingerprint
    assert prior.grid == (4, 4) and prior.num_classes == 3
    assert prior.protocol["source"]["format"] == "maskgit-prior"
    assert prior.options.steps == 8
    ids = prior.sample(2, labels=np.array([0, 2]), seed=0)
    assert ids.shape == (2, 4, 4, 1) and ids.max() < CODES
