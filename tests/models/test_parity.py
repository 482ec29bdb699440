"""Against diffusers' `VQModel` in float64, on random weights.

Ours runs in float32: what remains is our rounding alone.
"""

import re
import warnings

import flax.traverse_util
import jax
import numpy as np
import pytest

from movq_jax.models.layers import SpatialNorm
from movq_jax.models.tokenizer import build_tokenizer

pytestmark = pytest.mark.parity

WIDTHS = (32, 64)
NORMS = {"spatial": {"name": "spatial", "init": "torch"}, "group": {"name": "group"}}

# From a parameter's path in Linen to diffusers', one after the other.
RENAMED = [
    (r"\.down_(\d)_block_", r".down_blocks.\1.resnets."),
    (r"\.down_(\d)_attn_", r".down_blocks.\1.attentions."),
    (r"\.down_(\d)_downsample", r".down_blocks.\1.downsamplers.0"),
    # The decoder's levels count from the latent up.
    (r"\.up_(\d)_", lambda m: f".up_blocks.{len(WIDTHS) - 1 - int(m[1])}."),
    (r"(up_blocks\.\d)\.block_", r"\1.resnets."),
    (r"(up_blocks\.\d)\.attn_", r"\1.attentions."),
    (r"(up_blocks\.\d)\.upsample", r"\1.upsamplers.0"),
    (r"\.mid\.block_(\d)", lambda m: f".mid_block.resnets.{int(m[1]) - 1}"),
    (r"\.mid\.attn_1", ".mid_block.attentions.0"),
    (r"(attentions\.\d)\.([qkv])\.", r"\1.to_\2."),
    (r"\.proj_out\.", ".to_out.0."),
    (r"(encoder.*attentions\.\d)\.norm\.", r"\1.group_norm."),
    (r"(decoder.*attentions\.\d)\.norm\.", r"\1.spatial_norm."),
    (r"\.norm_out", ".conv_norm_out"),
    (r"(encoder.*norm.*)\.norm\.", r"\1."),
    (r"(decoder.*norm.*)\.norm\.", r"\1.norm_layer."),
    (r"quantize\.codebook\.rows", "quantize.embedding.weight"),
    (r"\.(kernel|scale)$", ".weight"),
]
WITHOUT_MODULATION = [(r"\.norm_layer\.", "."), (r"spatial_norm", "group_norm")]


@pytest.fixture(scope="module")
def diffusers(torch):
    with warnings.catch_warnings(action="ignore"):
        return pytest.importorskip("diffusers")


@pytest.fixture
def their_spatial_norm(diffusers):
    return pytest.importorskip("diffusers.models.attention_processor").SpatialNorm


@pytest.fixture
def draw():
    rng = np.random.default_rng(0)
    return lambda *shape: rng.standard_normal(shape, dtype=np.float32)


@pytest.fixture
def load(torch):
    """A function that fills a torch module with our parameters, each of them."""

    def torch_layout(path, array):
        if path.endswith("kernel"):  # HWIO -> OIHW, IO -> OI
            array = array.transpose(3, 2, 0, 1) if array.ndim == 4 else array.T
        return torch.tensor(array.copy(), dtype=torch.float64)

    def load(module, params, modulated=True):
        flat = flax.traverse_util.flatten_dict(params, sep=".")
        state = {}
        for path, array in flat.items():
            name = path
            for pattern, replacement in RENAMED + WITHOUT_MODULATION * (not modulated):
                name = re.sub(pattern, replacement, name)
            state[name] = torch_layout(path, array)
        module.double().eval().requires_grad_(False)
        module.load_state_dict(state, strict=True)

    return load


@pytest.fixture
def to_torch(torch):
    """A function from [B, H, W, C] in NumPy to [B, C, H, W] in torch."""
    return lambda x: torch.tensor(np.moveaxis(x, -1, 1).astype(np.float64))


def from_torch(x):
    return np.moveaxis(x.numpy(), 1, -1)


@pytest.mark.parametrize("factor", [1, 2, 4])
def test_spatial_norm(torch, their_spatial_norm, load, to_torch, draw, fill, factor):
    x, z_q = draw(2, 8 * factor, 12 * factor, 64), draw(2, 8, 12, 4)
    ours = SpatialNorm()
    params = fill(ours, x, z_q)
    theirs = their_spatial_norm(64, 4)
    nested = torch.nn.ModuleDict({"conv_norm_out": theirs})
    load(torch.nn.ModuleDict({"decoder": nested}), {"decoder": {"norm_out": params}})
    y = jax.jit(ours.apply)({"params": params}, x, z_q)
    expected = from_torch(theirs(to_torch(x), to_torch(z_q)))
    np.testing.assert_allclose(y, expected, atol=1e-5)


@pytest.mark.parametrize("norm", NORMS)
def test_the_whole_model(diffusers, load, to_torch, draw, fill, norm):
    x = draw(2, 32, 32, 3).clip(-1, 1)
    ours = build_tokenizer(
        {
            "width": WIDTHS[0],
            "multipliers": [width // WIDTHS[0] for width in WIDTHS],
            "res_blocks": 1,
            "attention_factors": [2],
            "z_channels": 4,
            "decoder_norm": NORMS[norm],
            "quantizer": {"name": "vq", "codebook_size": 256, "dim": 4},
        }
    )
    params = jax.tree.map(lambda a: a / 2 if a.ndim > 1 else a, fill(ours, x))
    theirs = diffusers.VQModel(
        block_out_channels=WIDTHS,
        layers_per_block=1,
        down_block_types=["DownEncoderBlock2D", "AttnDownEncoderBlock2D"],
        up_block_types=["AttnUpDecoderBlock2D", "UpDecoderBlock2D"],
        latent_channels=4,
        num_vq_embeddings=256,
        norm_type=norm,
    )
    load(theirs, params, modulated=norm == "spatial")
    out = jax.jit(ours.apply)({"params": params}, x)

    z = theirs.encode(to_torch(x)).latents
    np.testing.assert_allclose(out.z, from_torch(z), atol=1e-5)
    z_q, _, (_, _, ids) = theirs.quantize(z)
    np.testing.assert_array_equal(out.quantized.ids.reshape(-1), ids.numpy())
    assert len(np.unique(ids)) > 10
    np.testing.assert_allclose(out.quantized.z_q, from_torch(z_q), atol=1e-5)
    x_hat = from_torch(theirs(to_torch(x)).sample)
    assert x_hat.std() > 0.1
    np.testing.assert_allclose(out.x_hat, x_hat, atol=1e-5)

    decode_ids = jax.jit(lambda *a: ours.apply(*a, method="decode_ids"))
    from_ids = decode_ids({"params": params}, out.quantized.ids)
    np.testing.assert_allclose(from_ids, x_hat, atol=1e-5)
