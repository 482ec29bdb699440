"""Files of weights as others publish them, of small models, and a server for them."""

import functools
import http.server
import threading

import numpy as np
import pytest

from movq_jax.pretrained.bundle import Bundle
from movq_jax.pretrained.formats.accounting import filled
from movq_jax.pretrained.formats.vqgan_config import infer_model
from movq_jax.pretrained.formats.vqgan_names import vqgan_names


class _Handler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        self.server.asked.append(self.path)


@pytest.fixture
def web(tmp_path):
    """A local server of the folder `served`; `.url` is its address."""
    served = tmp_path / "served"
    served.mkdir()
    handler = functools.partial(_Handler, directory=served)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.asked, server.folder = [], served
        server.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(
            target=server.serve_forever, kwargs={"poll_interval": 0.01}
        )
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An empty home folder, and no proxy."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("MOVQ_JAX_WEIGHTS", raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    return tmp_path / "home"


class _Keys(dict):
    """Name -> shape, as torch's modules would give them to a state dict."""

    def layer(self, name, out, *rest):
        self[f"{name}.weight"], self[f"{name}.bias"] = (out, *rest), (out,)

    def norm(self, name, channels, codes):
        """A group norm, or a spatial one that is modulated by maps of `codes`."""
        if not codes:
            return self.layer(name, channels)
        self.layer(f"{name}.norm_layer", channels)
        self.layer(f"{name}.conv_y", channels, codes, 1, 1)
        self.layer(f"{name}.conv_b", channels, codes, 1, 1)

    def block(self, name, inside, out, codes):
        self.norm(f"{name}.norm1", inside, codes)
        self.layer(f"{name}.conv1", out, inside, 3, 3)
        self.norm(f"{name}.norm2", out, codes)
        self.layer(f"{name}.conv2", out, out, 3, 3)
        if inside != out:
            self.layer(f"{name}.nin_shortcut", out, inside, 1, 1)

    def attention(self, name, channels, codes, linear):
        self.norm(f"{name}.norm", channels, codes)
        for part in ("q", "k", "v", "proj_out"):
            shape = (channels,) if linear else (channels, 1, 1)
            self.layer(f"{name}.{part}", channels, *shape)

    def middle(self, name, channels, codes, linear):
        self.block(f"{name}.block_1", channels, channels, codes)
        self.attention(f"{name}.attn_1", channels, codes, linear)
        self.block(f"{name}.block_2", channels, channels, codes)


@pytest.fixture(scope="session")
def vqgan_shapes():
    """A function that gives name -> shape of a VQGAN-style file, in its order."""

    def vqgan_shapes(
        width=32,
        multipliers=(1, 2),
        blocks=1,
        attention=(1,),  # levels
        z=4,
        codes=64,
        dim=4,
        modulated=False,
        linear=False,
    ):
        keys, levels = _Keys(), range(len(multipliers))
        tops = [width * multiplier for multiplier in multipliers]
        keys.layer("encoder.conv_in", width, 3, 3, 3)
        channels = width
        for level in levels:
            name = f"encoder.down.{level}"
            for i in range(blocks):
                keys.block(f"{name}.block.{i}", channels, tops[level], 0)
                channels = tops[level]
                if level in attention:
                    keys.attention(f"{name}.attn.{i}", channels, 0, linear)
            if level != levels[-1]:
                keys.layer(f"{name}.downsample.conv", channels, channels, 3, 3)
        keys.middle("encoder.mid", channels, 0, linear)
        keys.norm("encoder.norm_out", channels, 0)
        keys.layer("encoder.conv_out", z, channels, 3, 3)
        by = dim if modulated else 0
        keys.layer("decoder.conv_in", channels, z, 3, 3)
        keys.middle("decoder.mid", channels, by, linear)
        for level in reversed(levels):
            name = f"decoder.up.{level}"
            for i in range(blocks + 1):
                keys.block(f"{name}.block.{i}", channels, tops[level], by)
                channels = tops[level]
                if level in attention:
                    keys.attention(f"{name}.attn.{i}", channels, by, linear)
            if level:
                keys.layer(f"{name}.upsample.conv", channels, channels, 3, 3)
        keys.norm("decoder.norm_out", channels, by)
        keys.layer("decoder.conv_out", 3, channels, 3, 3)
        keys["quantize.embedding.weight"] = (codes, dim)
        keys.layer("quant_conv", dim, z, 1, 1)
        keys.layer("post_quant_conv", z, dim, 1, 1)
        return dict(keys)

    return vqgan_shapes


@pytest.fixture(scope="session")
def dual_shapes(vqgan_shapes):
    """The same of Dual Codebook VQ: (depth, ...) -> name -> shape."""

    def dual_shapes(depth=1, codes=32, dim=16, ffn=24, **backbone):
        keys, half = _Keys(vqgan_shapes(dim=dim, **backbone)), dim // 2
        del keys["quantize.embedding.weight"]
        keys["quantize.global_codebook"] = (codes, half)
        keys["quantize.local_codebook.weight"] = (codes, half)
        for i in range(depth):
            name = f"quantize.transformer.layers.{i}"
            keys[f"{name}.self_attn.in_proj_weight"] = (3 * half, half)
            keys[f"{name}.self_attn.in_proj_bias"] = (3 * half,)
            keys.layer(f"{name}.self_attn.out_proj", half, half)
            keys.layer(f"{name}.linear1", ffn, half)
            keys.layer(f"{name}.linear2", half, ffn)
            keys.layer(f"{name}.norm1", half)
            keys.layer(f"{name}.norm2", half)
        return dict(keys)

    return dual_shapes


@pytest.fixture(scope="session")
def drawn():
    """A function from name -> shape to name -> array: numbers of a usable size."""

    def drawn(shapes, seed=0):
        rng = np.random.default_rng(seed)
        arrays = {}
        for name, shape in shapes.items():
            noise = rng.standard_normal(shape, np.float32)
            if name.endswith(("embedding.weight", "codebook", "codebook.weight")):
                arrays[name] = noise
            elif len(shape) > 1:
                arrays[name] = noise / np.sqrt(np.prod(shape[1:]), dtype=np.float32)
            else:
                is_scale = "norm" in name and name.endswith("weight")
                arrays[name] = is_scale + np.float32(0.1) * noise
        return arrays

    return drawn


@pytest.fixture(scope="session")
def tiny_tokenizer(vqgan_shapes, drawn):
    """A bundle's contents: a MoVQ of factor 2 as VQGAN-style files have it."""
    shapes = vqgan_shapes(modulated=True)
    arrays, model = drawn(shapes), infer_model(shapes)
    params = filled(vqgan_names(model), arrays.get)
    return Bundle("tokenizer", "unknown", model, {"weights": "random"}, params)
