"""The networks are written down in NumPy here, from what was published of them."""

from types import SimpleNamespace

import flax.serialization
import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import movq_jax
from movq_jax.errors import UserError
from movq_jax.models.priors import Tokens, build_prior
from movq_jax.models.tokenizer import build_tokenizer
from movq_jax.pretrained.bundle import read_bundle, write_bundle
from movq_jax.pretrained.formats.checkpoint_files import open_checkpoint
from movq_jax.pretrained.formats.maskgit import (
    prior_from,
    prior_protocol,
    tokenizer_from,
)
from movq_jax.pretrained.prior_bundle import write_prior_bundle
from movq_jax.tools.sampling_flags import check_options

PUBLISHED = SimpleNamespace(
    width=128, multipliers=(1, 1, 2, 2, 4), res_blocks=2, codes=1024, dim=256
)
TINY = SimpleNamespace(width=32, multipliers=(1, 2), res_blocks=2, codes=20, dim=6)
PUBLISHED_PRIOR = SimpleNamespace(
    width=768, depth=24, heads=16, mlp=3072, codes=1024, classes=1000, positions=256
)
TINY_PRIOR = SimpleNamespace(
    width=24, depth=2, heads=3, mlp=40, codes=20, classes=4, positions=16
)


def swish(x):
    return x / (1 + np.exp(-x))


def gelu(x):
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def random_draw(seed):
    """Tensors at which activations keep their size, and no norm is trivial."""
    rng = np.random.default_rng(seed)

    def draw(name, shape):
        noise = rng.standard_normal(shape)
        if name.endswith("kernel"):
            inputs = -2 if "/out/" in name else -1
            axes = shape[:1] if name.split("/")[-2] in ("query", "key", "value") else ()
            return noise / np.sqrt(np.prod(axes or shape[:inputs] or shape[:-1]))
        return noise if "embedding" in name or "codebook" in name else 0.3 * noise

    return draw


def no_draw(name, shape):
    """Zeros that take no memory: for a network's names and shapes."""
    return np.broadcast_to(np.zeros((), np.float32), shape)


class Tree:
    """Parameters by name, which are drawn when they are first asked for."""

    def __init__(self, draw):
        self.arrays, self._draw = {}, draw

    def get(self, name, *shape):
        if name not in self.arrays:
            array = self._draw(name, shape)
            self.arrays[name] = array + 1 if name.endswith("scale") else array
        return self.arrays[name]


class Scope:
    """Numbers modules as Flax does: by kind, in the order in which they are made."""

    def __init__(self, tree, path):
        self._tree, self._path, self._made = tree, path, {}

    def child(self, kind):
        number = self._made.get(kind, 0)
        self._made[kind] = number + 1
        return Scope(self._tree, f"{self._path}/{kind}_{number}")

    def get(self, name, *shape):
        return self._tree.get(f"{self._path}/{name}", *shape)

    def conv(self, x, channels, side, bias):
        conv, pad = self.child("Conv"), side // 2
        kernel = conv.get("kernel", side, side, x.shape[-1], channels)
        x = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
        windows = np.lib.stride_tricks.sliding_window_view(x, (side, side), (1, 2))
        y = np.einsum("bhwcij,ijco->bhwo", windows, kernel, optimize=True)
        return y + conv.get("bias", channels) if bias else y

    def norm(self, x):
        norm, channels = self.child("GroupNorm"), x.shape[-1]
        groups = x.reshape(*x.shape[:3], 32, -1)
        mean = groups.mean((1, 2, 4), keepdims=True)
        std = np.sqrt(groups.var((1, 2, 4), keepdims=True) + 1e-6)
        x = ((groups - mean) / std).reshape(x.shape)
        return x * norm.get("scale", channels) + norm.get("bias", channels)

    def block(self, x, channels):
        scope = self.child("ResBlock")
        h = scope.conv(swish(scope.norm(x)), channels, 3, bias=False)
        h = scope.conv(swish(scope.norm(h)), channels, 3, bias=False)
        changes = x.shape[-1] != channels
        return h + (scope.conv(h, channels, 1, bias=False) if changes else x)


def encoder(tree, x, net):
    """Images in [0, 1] -> latents."""
    scope = Scope(tree, "encoder")
    x = scope.conv(x, net.width, 3, bias=False)
    for level, multiplier in enumerate(net.multipliers):
        for _ in range(net.res_blocks):
            x = scope.block(x, net.width * multiplier)
        if level + 1 < len(net.multipliers):
            x = (x[:, ::2] + x[:, 1::2]) / 2
            x = (x[:, :, ::2] + x[:, :, 1::2]) / 2
    for _ in range(net.res_blocks):
        x = scope.block(x, net.width * net.multipliers[-1])
    return scope.conv(swish(scope.norm(x)), net.dim, 1, bias=True)


def decoder(tree, x, net):
    """Quantised latents -> images in [0, 1]."""
    scope = Scope(tree, "decoder")
    x = scope.conv(x, net.width * net.multipliers[-1], 3, bias=True)
    for _ in range(net.res_blocks):
        x = scope.block(x, net.width * net.multipliers[-1])
    for level in reversed(range(len(net.multipliers))):
        for _ in range(net.res_blocks):
            x = scope.block(x, net.width * net.multipliers[level])
        if level > 0:
            x = x.repeat(2, 1).repeat(2, 2)
            x = scope.conv(x, x.shape[-1], 3, bias=True)
    return scope.conv(swish(scope.norm(x)), 3, 3, bias=True)


def reconstruct(tree, x, net):
    """Images in [0, 1] -> latents, indices, images in [0, 1]."""
    z, codes = encoder(tree, x, net), tree.get("quantizer/codebook", net.codes, net.dim)
    ids = np.square(z[..., None, :] - codes).sum(-1).argmin(-1)
    return z, ids, decoder(tree, codes[ids], net)


def prior_logits(tree, ids, labels, net):
    """Indices [B, N], -1 for those that are masked, and classes [B] -> [B, N, K]."""
    words = net.codes + net.classes + 1
    table = tree.get("Embed_0/word_embeddings/embedding", words, net.width)

    def norm(name, x):
        x = x - x.mean(-1, keepdims=True)
        x = x / np.sqrt(np.square(x).mean(-1, keepdims=True) + 1e-12)
        return x * tree.get(f"{name}/scale", net.width) + tree.get(
            f"{name}/bias", net.width
        )

    def dense(name, x, *out, inputs=1):
        kernel = tree.get(f"{name}/kernel", *x.shape[-inputs:], *out)
        y = np.tensordot(x, kernel, inputs)
        return y + tree.get(f"{name}/bias", *out)

    places = "Embed_0/position_embeddings/embedding"
    sequence = np.concatenate([net.codes + labels[:, None], ids], axis=1)
    places = tree.get(places, net.positions + 1, net.width)
    x = table[sequence] + places[: sequence.shape[1]]
    x = norm("Embed_0/embeddings_ln", x)
    for i in range(net.depth):
        layer, d = f"TransformerLayer_{i}", net.width // net.heads
        attention = f"{layer}/Attention_0/self_attention"
        parts = ("query", "key", "value")
        q, k, v = (dense(f"{attention}/{part}", x, net.heads, d) for part in parts)
        scores = np.einsum("bihd,bjhd->bhij", q, k) / np.sqrt(d)
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        weights /= weights.sum(-1, keepdims=True)
        mixed = np.einsum("bhij,bjhd->bihd", weights, v)
        mixed = dense(f"{attention}/out", mixed, net.width, inputs=2)
        x = norm(f"{layer}/Attention_0/attention_output_ln", x + mixed)
        h = gelu(dense(f"{layer}/Mlp_0/intermediate_output", x, net.mlp))
        h = dense(f"{layer}/Mlp_0/layer_output", h, net.width)
        x = norm(f"{layer}/Mlp_0/layer_output_ln", x + h)
    x = gelu(dense("MlmLayer_0/mlm_dense", x, net.width))
    logits = norm("MlmLayer_0/mlm_ln", x) @ table.T
    logits = logits + tree.get("MlmLayer_0/mlm_bias/bias", words)
    return logits[:, 1:, : net.codes]


def pixels(net, *shape, seed=0):
    return np.random.default_rng(seed).uniform(size=(*shape, 3))


@pytest.fixture(scope="module")
def tiny():
    """Published arrays of a tiny tokenizer, and what NumPy makes of two images."""
    tree, x = Tree(random_draw(0)), pixels(TINY, 2, 8, 12)
    z, ids, x_hat = reconstruct(tree, x, TINY)
    found = SimpleNamespace(x=x, z=z, ids=ids, x_hat=x_hat)
    return float32(tree.arrays), found


@pytest.fixture(scope="module")
def tiny_prior():
    """Published arrays of a tiny prior, with inputs and NumPy's logits."""
    rng, net = np.random.default_rng(1), TINY_PRIOR
    ids = rng.integers(0, net.codes, (3, net.positions))
    known, labels = rng.random(ids.shape) < 0.6, np.array([0, 3, 1])
    tree = Tree(random_draw(1))
    logits = prior_logits(tree, np.where(known, ids, -1), labels, net)
    found = SimpleNamespace(ids=ids, known=known, labels=labels, logits=logits)
    return float32(tree.arrays), found


def float32(arrays):
    return {name: np.float32(array) for name, array in arrays.items()}


def converted(function, arrays, *args):
    shapes = {name: array.shape for name, array in arrays.items()}
    return function(shapes, arrays.__getitem__, *args)


def close(actual, expected):
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-4)


def test_the_tokenizer_is_the_published_one(tiny):
    arrays, found = tiny
    model, params = converted(tokenizer_from, arrays)
    assert model == {
        "architecture": "maskgit",
        "width": 32,
        "multipliers": [1, 2],
        "res_blocks": 2,
        "dtype": "float32",
        "quantizer": {
            "name": "vq",
            "codebook_size": 20,
            "dim": 6,
            "beta": 0.25,
            "legacy": False,
        },
    }
    tokenizer = build_tokenizer(model)
    params = jax.tree.map(jnp.asarray, params)
    run = jax.jit(lambda x: tokenizer.apply({"params": params}, x))
    out = run(jnp.asarray(2 * found.x - 1, jnp.float32))
    close(out.z, found.z)
    assert len(np.unique(found.ids)) > 5
    np.testing.assert_array_equal(out.quantized.ids[..., 0], found.ids)
    close((out.x_hat + 1) / 2, found.x_hat)


def test_the_published_tokenizer():
    tree = Tree(no_draw)
    reconstruct(tree, pixels(PUBLISHED, 1, 16, 16), PUBLISHED)
    assert len(tree.arrays) == 168
    assert sum(array.size for array in tree.arrays.values()) == 54_515_587
    shortcuts = [name for name in tree.arrays if "/Conv_2/" in name and "Res" in name]
    assert shortcuts == [
        f"{net}/ResBlock_{i}/Conv_2/kernel"
        for net in ("encoder", "decoder")
        for i in (4, 8)
    ]
    model, params = converted(tokenizer_from, tree.arrays)
    assert (model["width"], model["multipliers"]) == (128, [1, 1, 2, 2, 4])
    quantizer = model["quantizer"]
    assert (quantizer["codebook_size"], quantizer["dim"]) == (1024, 256)
    tokenizer = build_tokenizer(model)
    assert (tokenizer.factor, tokenizer.codebook_sizes) == (16, (1024,))
    x = jax.ShapeDtypeStruct((1, 16, 16, 3), jnp.float32)
    expected = jax.eval_shape(tokenizer.init, jax.random.key(0), x)["params"]
    assert shapes_of(params) == shapes_of(expected)


def shapes_of(tree):
    return jax.tree.map(lambda array: (array.shape, array.dtype), dict(tree))


def test_the_prior_is_the_published_one(tiny_prior):
    arrays, found = tiny_prior
    model, tokens, params = converted(prior_from, arrays, 20)
    params = jax.tree.map(jnp.asarray, params)
    assert tokens == {"grid": [4, 4], "codebook_sizes": [20], "books": ["codebook"]}
    sizes = ("width", "depth", "heads", "mlp", "num_classes")
    assert [model[name] for name in sizes] == [24, 2, 3, 40, 4]
    prior = build_prior(model, Tokens.of(tokens))
    ids, known = found.ids[..., None], found.known[..., None]
    run = jax.jit(lambda *inputs: prior.apply({"params": params}, *inputs))
    logits = run(jnp.asarray(ids), jnp.asarray(known), found.labels, jnp.asarray(ids))
    close(logits[:, :, 0], found.logits)
    assert not np.any(params["classes"][-1])  # no class


def test_the_published_prior():
    """All its layers have the names and shapes of the first, which NumPy tells."""
    tree, net = Tree(no_draw), SimpleNamespace(**vars(PUBLISHED_PRIOR) | {"depth": 1})
    prior_logits(tree, np.zeros((1, 1), int), np.zeros(1, int), net)
    shapes = {
        name.replace("r_0/", f"r_{i}/", 1): array.shape
        for name, array in tree.arrays.items()
        for i in range(24 if name.startswith("TransformerLayer") else 1)
    }
    assert len(shapes) == 393
    assert sum(map(np.prod, shapes.values())) == 172_457_193

    def read(name):
        raise InterruptedError  # by now all names and shapes were found to fit

    with pytest.raises(InterruptedError):
        prior_from(shapes, read)
    model, tokens, params = converted(prior_from, tree.arrays)
    assert (model["num_classes"], tokens["grid"]) == (1000, [16, 16])
    assert shapes_of(params) == shapes_of(abstract_prior(model, tokens))
    ours = abstract_prior(model | {"depth": 24}, tokens)
    # No bias for classes and [MASK], and a row for "no class".
    count = sum(array.size for array in jax.tree.leaves(ours))
    assert count == 172_457_193 - 1001 + 768


def abstract_prior(model, tokens):
    """The shapes of the parameters."""
    prior, ids = build_prior(model, Tokens.of(tokens)), jnp.zeros((1, 256, 1), int)
    inputs = (ids, ids == 0, jnp.zeros(1, int), ids)
    return jax.eval_shape(prior.init, jax.random.key(0), *inputs)["params"]


def test_as_many_steps_as_the_paper():
    assert prior_protocol({"grid": [16, 16]})["sample"]["steps"] == 8
    assert prior_protocol({"grid": [32, 32]})["sample"]["steps"] == 12


@pytest.mark.parametrize("inside", [True, False])
def test_from_the_published_kind_of_file(tiny, tmp_path, inside):
    """With or without 'params' on top, and norms as early Flax stored them."""
    arrays, _ = tiny
    stored = {
        name: array.reshape(1, 1, 1, -1) if "GroupNorm" in name else array
        for name, array in arrays.items()
    }
    tree = flax.traverse_util.unflatten_dict(stored, sep="/")
    path = tmp_path / "tokenizer_imagenet256_checkpoint"
    path.write_bytes(flax.serialization.to_bytes({"params": tree} if inside else tree))
    with open_checkpoint(path) as file:
        model, params = tokenizer_from(file.shapes, file.read)
    expected_model, expected = converted(tokenizer_from, arrays)
    assert model == expected_model
    jax.tree.map(np.testing.assert_array_equal, params, expected)


def test_bundles_of_both(tiny, tiny_prior, tmp_path):
    arrays, found = tiny
    model, params = converted(tokenizer_from, arrays)
    write_bundle(
        tmp_path / "tok", kind="tokenizer", params=params, model=model, protocol={}
    )
    tok = movq_jax.load(tmp_path / "tok", micro_batch=2)
    assert (tok.factor, tok.num_channels, tok.codebook_size) == (2, 1, 20)
    ids = tok.encode(np.float32(2 * found.x - 1))
    np.testing.assert_array_equal(ids[..., 0], found.ids)
    close(tok.decode(ids, "float32"), np.clip(2 * found.x_hat - 1, -1, 1))

    bundle = read_bundle(tmp_path / "tok")
    model, tokens, params = converted(prior_from, tiny_prior[0], tok.codebook_size)
    write_prior_bundle(
        tmp_path / "prior",
        params=params,
        model=model,
        tokens={**tokens, "fingerprint": bundle.fingerprint},
        protocol=prior_protocol(tokens),
        tokenizer=bundle,
    )
    prior = movq_jax.load(tmp_path / "prior", micro_batch=1)
    assert prior.options.choice_temperature == 4.5 and prior.num_classes == 4
    ids = prior.sample(1, labels=[3], steps=2)
    assert ids.shape == (1, 4, 4, 1)
    check_options(prior, {"steps": 2})
    with pytest.raises(UserError, match="never learned that"):
        check_options(prior, {"guidance": 2.0})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"encoder/Conv_0/kernel": None}, "it has no encoder/Conv_0/kernel, but enco"),
        (
            {"decoder/Conv_2/bias": None},
            r"1 tensor is missing \(decoder/Conv_2/bias\):",
        ),
        ({"ema/x": (3,)}, r"1 tensor is unexpected \(ema/x\):"),
        (
            {"encoder/Conv_1/bias": (7,), "decoder/GroupNorm_0/scale": None},
            r"missing \(dec.*\); 1 .* \(encoder/Conv_1/bias is \[7\] instead of \[6\]",
        ),
        ({"encoder/Conv_0/kernel": (3, 3)}, r"the shape \[3, 3\], not one of 4 axes"),
        ({"encoder/Conv_0/kernel": (3, 3, 3, 0)}, "not one of 4 axes"),
        ({"encoder/Conv_0/kernel": (3, 3, 3, 24)}, "no multiples of .* 24$"),
        ({"encoder/ResBlock_6/Conv_0/kernel": (1,)}, "7 residual blocks .* 2 levels"),
        ({"params/quantizer/codebook": (20, 6)}, r"1 of .* twice, .* \(quantizer/co"),
    ],
)
def test_another_tokenizer_is_refused(tiny, change, message):
    check_refusal(tokenizer_from, tiny[0], change, message)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"MlmLayer_0/mlm_bias/bias": None}, "1 tensor is missing"),
        ({"TransformerLayer_1/Mlp_0/layer_output/bias": None}, "1 tensor is missing"),
        (
            {"TransformerLayer_3/Mlp_0/layer_output/bias": (24,)},
            "16 tensors are missing .* and 6 more.* 1 tensor is unexpected",
        ),
        ({"MlmLayer_0/mlm_bias/bias": (20,)}, r"is \[20\] instead of \[25\]"),
        (
            {"Embed_0/word_embeddings/embedding": (21, 24)},
            "21 rows, too few for the 20",
        ),
        ({"Embed_0/position_embeddings/embedding": (16, 24)}, "16 positions"),
        ({"Embed_0/position_embeddings/embedding": (1, 24)}, "tokens.grid is"),
        (
            {"TransformerLayer_0/Attention_0/self_attention/query/kernel": (24, 5, 5)},
            "heads is 5, which does not cut",
        ),
    ],
)
def test_another_prior_is_refused(tiny_prior, change, message):
    check_refusal(prior_from, tiny_prior[0], change, message, 20)


def test_numbers_that_are_none_are_refused(tiny):
    arrays = dict(tiny[0])
    arrays["decoder/Conv_0/bias"] = np.full_like(arrays["decoder/Conv_0/bias"], np.nan)
    with pytest.raises(UserError, match="not finite in decoder/Conv_0/bias"):
        converted(tokenizer_from, arrays)


def check_refusal(function, arrays, change, message, *args):
    shapes = {name: array.shape for name, array in arrays.items()} | change
    shapes = {name: shape for name, shape in shapes.items() if shape is not None}

    def read(name):
        pytest.fail(f"{name} was read before all names were checked")

    with pytest.raises(UserError, match=message):
        function(shapes, read, *args)
