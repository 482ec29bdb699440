"""Models in and out against diffusers' `VQModel`, in float64, on random weights."""

import dataclasses
import warnings

import jax
import numpy as np
import pytest

import movq_jax
from movq_jax.models.tokenizer import build_tokenizer
from movq_jax.pretrained.bundle import read_bundle, write_bundle
from movq_jax.pretrained.converting import convert, write_converted
from movq_jax.pretrained.formats.diffusers import write_diffusers

pytestmark = pytest.mark.parity

TINY = {
    "block_out_channels": [32, 64],
    "down_block_types": ["DownEncoderBlock2D", "AttnDownEncoderBlock2D"],
    "up_block_types": ["AttnUpDecoderBlock2D", "UpDecoderBlock2D"],
    "layers_per_block": 1,
    "latent_channels": 4,
    "num_vq_embeddings": 128,
}
F8 = {
    "block_out_channels": [128, 256, 256, 512],
    "down_block_types": [*["DownEncoderBlock2D"] * 3, "AttnDownEncoderBlock2D"],
    "up_block_types": ["AttnUpDecoderBlock2D", *["UpDecoderBlock2D"] * 3],
    "layers_per_block": 2,
    "latent_channels": 4,
    "num_vq_embeddings": 16384,
    "norm_type": "spatial",
}


@dataclasses.dataclass
class Outputs:
    z: np.ndarray  # [B, h, w, D]
    ids: np.ndarray  # [B, h, w]
    x_hat: np.ndarray  # [B, H, W, 3]


@pytest.fixture(scope="module")
def diffusers(torch):
    with warnings.catch_warnings(action="ignore"):
        return pytest.importorskip("diffusers")


@pytest.fixture
def their_model(torch, diffusers):
    """A function from diffusers' fields to a model with random weights."""

    def their_model(**fields):
        torch.manual_seed(0)
        model = diffusers.VQModel(**fields).eval().requires_grad_(False)
        for name, tensor in model.named_parameters():
            if "norm" in name and tensor.ndim == 1:  # they all start as 0 and 1
                tensor.add_(0.1 * torch.randn_like(tensor))
        # As far apart as latents are: else all positions get the same code.
        torch.nn.init.normal_(model.quantize.embedding.weight, std=0.3)
        return model

    return their_model


@pytest.fixture
def theirs_on(torch):
    """A function that runs their model on images [B, H, W, 3], in float64."""

    def theirs_on(model, x):
        model = model.double()
        images = torch.tensor(np.moveaxis(x, -1, 1).astype(np.float64))
        z = model.encode(images).latents
        z_q, _, (_, _, ids) = model.quantize(z)
        x_hat = model.decode(z_q, force_not_quantize=True).sample
        z, x_hat = (np.moveaxis(a.numpy(), 1, -1) for a in (z, x_hat))
        return Outputs(z, ids.numpy().reshape(z.shape[:3]), x_hat)

    return theirs_on


def images(side=16):
    return np.random.default_rng(0).uniform(-1, 1, (2, side, side, 3)).astype("f")


def relative(found, expected):
    return np.abs(found - expected).max() / np.abs(expected).max()


def compare(tok, x, theirs, tolerance=1e-4):
    """Our latents and images are theirs; our indices, or as near a code as theirs."""

    def run(module, x, ids):
        z = module.encode_latents(x)
        return z, module.quantize(z).ids, module.decode_ids(ids)

    z, ids, x_hat = map(np.asarray, tok.compiled(run)(x, theirs.ids[..., None]))
    errors = relative(z, theirs.z), relative(x_hat, theirs.x_hat)
    print("largest relative differences (latents, images):", *errors)
    assert max(errors) < tolerance
    assert theirs.x_hat.std() > 0.02 and len(np.unique(theirs.ids)) > 5
    codes = tok.codes_in_effect()["codebook"].astype(np.float64)
    distances = [
        np.square(theirs.z - codes[each]).sum(axis=-1)
        for each in (ids[..., 0], theirs.ids)
    ]
    np.testing.assert_allclose(*distances, rtol=1e-4, atol=1e-6)
    assert np.mean(ids[..., 0] == theirs.ids) > 0.98


@pytest.mark.parametrize(
    "norm, groups, safe, dim",
    [
        ("spatial", 32, True, 4),
        ("spatial", 8, False, 4),
        ("group", 8, True, 4),
        ("group", 32, False, 6),
    ],
)
def test_their_model_here(tmp_path, their_model, theirs_on, norm, groups, safe, dim):
    own = {"norm_type": norm, "norm_num_groups": groups, "vq_embed_dim": dim}
    model = their_model(**TINY, **own)
    model.save_pretrained(tmp_path / "theirs", safe_serialization=safe)
    assert len(list((tmp_path / "theirs").glob("*.bin"))) == (not safe)
    write_converted(convert(tmp_path / "theirs"), tmp_path / "ours")
    x = images()
    compare(movq_jax.load(tmp_path / "ours"), x, theirs_on(model, x))


@pytest.mark.parametrize("norm", ["group", "spatial"])
def test_our_model_there(tmp_path, torch, diffusers, fill, theirs_on, norm):
    model = {
        "width": 32,
        "multipliers": [1, 2],
        "res_blocks": 1,
        "attention_factors": [1],
        "z_channels": 4,
        "norm_groups": 16,
        "decoder_norm": {"name": "group"},
        "quantizer": {"name": "vq", "codebook_size": 64, "dim": 4},
    }
    if norm == "spatial":
        model["decoder_norm"] = {"name": "spatial", "init": "identity", "groups": 32}
    x = images()
    params = fill(build_tokenizer(model), x)
    params = jax.tree.map(lambda a: a / 3 if a.ndim > 1 else a, params)
    params["quantize"]["codebook"]["rows"] /= 4  # about as far apart as latents are
    about = {"kind": "tokenizer", "model": model, "protocol": {"weights": "random"}}
    write_bundle(tmp_path / "ours", params=params, **about)
    write_diffusers(read_bundle(tmp_path / "ours"), tmp_path / "theirs")
    theirs, report = diffusers.VQModel.from_pretrained(
        tmp_path / "theirs", output_loading_info=True
    )
    assert not any(report.values())
    theirs = theirs.eval().requires_grad_(False)
    compare(movq_jax.load(tmp_path / "ours"), x, theirs_on(theirs, x))
    # And back: another section, of the same network and the same numbers.
    back, before = convert(tmp_path / "theirs"), read_bundle(tmp_path / "ours")
    jax.tree.map(np.testing.assert_array_equal, back.params, before.params)


def test_a_lightning_file(tmp_path, torch, vqgan_shapes, drawn):
    """The averaged weights of a training, among what else it saved."""
    shapes = vqgan_shapes(modulated=True)
    plain, averaged = drawn(shapes, seed=1), drawn(shapes, seed=2)
    state = {name: torch.tensor(array) for name, array in plain.items()}
    for name, array in averaged.items():
        state[f"model_ema.{name.replace('.', '')}"] = torch.tensor(array)
    state |= {
        "model_ema.decay": torch.tensor(0.9999),
        "model_ema.num_updates": torch.tensor(7),
        "loss.perceptual_loss.net.slice1.0.weight": torch.ones(3, 3),
        "loss.discriminator.main.1.num_batches_tracked": torch.tensor(7),
    }
    saved = {"state_dict": state, "epoch": 3, "callbacks": {"a": [1, None]}}
    torch.save(saved, tmp_path / "last.ckpt")
    conversion = convert(tmp_path / "last.ckpt")
    expected = averaged["decoder.norm_out.conv_y.weight"].transpose(2, 3, 1, 0)
    found = conversion.params["decoder"]["norm_out"]["conv_y"]["kernel"]
    np.testing.assert_array_equal(found, expected)
    assert "averaged" in conversion.source["part"]
    assert any("loss" in name for name in conversion.source["skipped"])


@pytest.mark.slow
def test_the_published_size(tmp_path, their_model, theirs_on):
    model = their_model(**F8)
    model.save_pretrained(tmp_path / "theirs")
    conversion = convert(tmp_path / "theirs")
    assert sum(a.size for a in jax.tree.leaves(conversion.params)) == 67_832_495
    write_converted(conversion, tmp_path / "ours")
    x = images(side=64)
    compare(movq_jax.load(tmp_path / "ours"), x, theirs_on(model, x))
