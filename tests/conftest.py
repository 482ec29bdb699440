"""What all tests run under, and the models and samples that several of them share."""

import hashlib
import importlib.util
import os
import zipfile
from pathlib import Path

# Before jax is imported, also by the processes that tests start.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["XLA_FLAGS"] = " ".join(
    [
        os.environ.get("XLA_FLAGS", ""),
        "--xla_force_host_platform_device_count=8",
        # Tests compile for longer than they run: half the time goes into making the
        # programs fast.
        "--xla_backend_optimization_level=0",
        "--xla_llvm_disable_expensive_passes=true",
    ]
).strip()

import flax.traverse_util  # noqa: E402
import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import jaxtyping  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402

jax.config.update("jax_numpy_rank_promotion", "raise")
# Where $JAX_COMPILATION_CACHE_DIR is set. Tests compile many small programs: of the
# default's one second hardly any would be kept.
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)

# Annotations are checked at every call in these modules, from before their import on.
# Those with a `flax.struct` are left out: jax rebuilds one with anything in its fields.
jaxtyping.install_import_hook(
    [
        "movq_jax.data.crops",
        "movq_jax.data.images",
        "movq_jax.data.padding",
        "movq_jax.data.resampling",
        "movq_jax.data.tokens.cache",
        "movq_jax.data.tokens.manifest",
        "movq_jax.data.tokens.plan",
        "movq_jax.data.tokens.shards",
        "movq_jax.data.transforms",
        "movq_jax.evaluation.image_batches",
        "movq_jax.evaluation.inception_features",
        "movq_jax.evaluation.metrics.frechet",
        "movq_jax.evaluation.metrics.intervals",
        "movq_jax.evaluation.metrics.kid",
        "movq_jax.evaluation.metrics.lpips_metric",
        "movq_jax.evaluation.metrics.ms_ssim",
        "movq_jax.evaluation.metrics.pixels",
        "movq_jax.evaluation.metrics.ssim_maps",
        "movq_jax.evaluation.metrics.ssim_variants",
        "movq_jax.evaluation.npz_images",
        "movq_jax.evaluation.pictures",
        "movq_jax.evaluation.protocols",
        "movq_jax.evaluation.reference_files",
        "movq_jax.evaluation.rows",
        "movq_jax.evaluation.sample_sheets",
        "movq_jax.evaluation.squeezenet_fd",
        "movq_jax.models.autoencoder",
        "movq_jax.models.discriminators",
        "movq_jax.models.features.distances",
        "movq_jax.models.features.inception_input",
        "movq_jax.models.features.pooling",
        "movq_jax.models.layers",
        "movq_jax.models.pixels",
        "movq_jax.models.priors.embedding",
        "movq_jax.models.priors.heads",
        "movq_jax.models.quantizers.multichannel",
        "movq_jax.models.quantizers.search",
        "movq_jax.sampling.editing",
        "movq_jax.sampling.windows",
        "movq_jax.tools.edit_masks",
        "movq_jax.tools.edit_sheets",
        "movq_jax.tools.edit_work",
        "movq_jax.training.augmentation",
        "movq_jax.training.losses",
        "movq_jax.training.regularizers",
    ],
    "beartype.beartype",
)

from movq_jax.models.features.squeezenet import SqueezeNet  # noqa: E402
from movq_jax.models.priors import build_prior  # noqa: E402
from movq_jax.models.priors.tokens import Tokens  # noqa: E402
from movq_jax.models.tokenizer import build_tokenizer  # noqa: E402
from movq_jax.pretrained import weights  # noqa: E402
from movq_jax.pretrained.bundle import read_bundle, write_bundle  # noqa: E402
from movq_jax.pretrained.inception import (  # noqa: E402
    abstract_inception,
    published_names,
)
from movq_jax.pretrained.prior_bundle import write_prior_bundle  # noqa: E402
from movq_jax.pretrained.weights import WeightsFile  # noqa: E402

TINY_MOVQ = {
    "width": 8,
    "multipliers": [1, 2, 2],
    "res_blocks": 1,
    "attention_factors": [4],
    "z_channels": 8,
    "dropout": 0.0,
    "dtype": "float32",
    "decoder_norm": {"name": "spatial", "init": "identity"},
    "quantizer": {
        "name": "multichannel",
        "codebook_size": 32,
        "dim": 4,
        "num_channels": 2,
        "beta": 0.25,
        "legacy": False,
    },
}


def random_params(module, *inputs, seed=0):
    """Return parameters of a Linen module that is called with `inputs`, from NumPy.

    Without compiling an initialisation, and without its zeros: kernels and codes keep
    the variance, scales are near one and biases near zero.
    """
    rng = np.random.default_rng(seed)

    def draw(path, array):
        noise = rng.standard_normal(array.shape)
        if path[-1].key == "kernel":
            noise /= np.sqrt(np.prod(array.shape[:-1]))
        elif path[-1].key in ("scale", "bias"):
            is_scale = path[-1].key == "scale" or path[-2].key == "conv_y"
            noise = is_scale + 0.1 * noise
        return jnp.asarray(noise, jnp.float32)

    shapes = jax.eval_shape(module.init, jax.random.key(0), *inputs)["params"]
    return jax.tree_util.tree_map_with_path(draw, shapes)


@pytest.fixture
def tiny_movq():
    """The model section of a MoVQ with factor 4, K = 32 and M = 2; to be changed."""
    groups = ("decoder_norm", "quantizer")
    return TINY_MOVQ | {group: dict(TINY_MOVQ[group]) for group in groups}


@pytest.fixture
def fill():
    """The function `random_params`."""
    return random_params


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory):
    """A workdir whose model is an untrained MoVQ with factor 4, K = 32 and M = 2."""
    workdir = tmp_path_factory.mktemp("tiny_movq")
    tokenizer = build_tokenizer(TINY_MOVQ)
    image = np.zeros((1, tokenizer.factor, tokenizer.factor, 3), np.float32)
    write_bundle(
        workdir / "model",
        kind="tokenizer",
        params=random_params(tokenizer, image),
        model=TINY_MOVQ,
        protocol={"weights": "random"},
    )
    return workdir


TINY_MASKED = {
    "name": "masked",
    "width": 16,
    "depth": 2,
    "heads": 2,
    "mlp": 32,
    "dropout": 0.0,
    "channels": {"name": "depth", "depth": 1},
    "num_classes": 3,
    "attention": "xla",
    "dtype": "float32",
}
TINY_AR = {
    key: value for key, value in TINY_MASKED.items() if key not in ("name", "mlp")
} | {"name": "autoregressive"}


@pytest.fixture(scope="session")
def make_prior_bundle(tiny_bundle, tmp_path_factory):
    """A function that writes an untrained prior over the tokenizer of `tiny_bundle`.

    It takes the model section, and returns the workdir. Grid 4 x 4, K = 32, M = 2.
    """

    def make(model, classes=("cat", "dog", "sea horse"), seed=0, **sample):
        tokenizer = read_bundle(tiny_bundle)
        tokens = {
            "fingerprint": tokenizer.fingerprint,
            "grid": (4, 4),
            "codebook_sizes": (32, 32),
            "books": ("shared", "shared"),
        }
        prior = build_prior(model, Tokens.of(tokens))
        ids, labels = jnp.zeros((1, 16, 2), int), jnp.zeros(1, int)
        inputs = (ids, ids == 0, labels, ids)
        if model["name"] == "autoregressive":
            inputs = (ids, labels)
        params = random_params(prior, *inputs, seed=seed)
        # With codes of variance 1 all images would be nearly the same.
        params["embedding"] = jax.tree.map(lambda x: 0.3 * x, params["embedding"])
        workdir = tmp_path_factory.mktemp("tiny_prior")
        write_prior_bundle(
            workdir / "model",
            params=params,
            model=model,
            tokens=tokens,
            protocol={"weights": "random", "sample": sample, "classes": classes},
            tokenizer=tokenizer,
        )
        return workdir

    return make


@pytest.fixture(scope="session")
def tiny_prior_bundle(make_prior_bundle):
    """A workdir whose model is an untrained masked prior of 3 classes, grid 4 x 4."""
    return make_prior_bundle(TINY_MASKED, steps=3)


@pytest.fixture(scope="session")
def tiny_ar_bundle(make_prior_bundle):
    """A workdir with an untrained autoregressive prior of 3 classes, grid 4 x 4."""
    return make_prior_bundle(TINY_AR)


@pytest.fixture
def tiny_masked():
    """The model section of the prior in `tiny_prior_bundle`; to be changed."""
    return dict(TINY_MASKED)


@pytest.fixture(scope="session")
def real_samples():
    """The folder of real photographs and published weights to test with."""
    folder = os.environ.get("MOVQ_JAX_TEST_DATA")
    if not folder:
        pytest.skip("$MOVQ_JAX_TEST_DATA, the folder of real samples, is not set")
    if not Path(folder).is_dir():
        pytest.fail(f"$MOVQ_JAX_TEST_DATA is {folder}, which is no folder")
    return Path(folder)


@pytest.fixture(scope="session")
def inception_npz(tmp_path_factory):
    """The path of random weights for FID's network, under their published names.

    Activations keep their size from layer to layer, and no statistic is trivial.
    """
    rng = np.random.default_rng(0)
    params = abstract_inception()
    flat = flax.traverse_util.flatten_dict(params, sep=".")
    arrays = {}
    for ours, theirs in published_names(params).items():
        shape = flat[ours].shape
        if ours.endswith("kernel"):
            order = (1, 0) if len(shape) == 2 else (3, 2, 0, 1)
            shape = tuple(shape[i] for i in order)
            array = rng.standard_normal(shape, np.float32)
            array *= np.float32((2 / np.prod(shape[1:])) ** 0.5)
        else:
            centre = 1 if ours.endswith((".scale", ".var")) else 0
            array = np.float32(centre + rng.uniform(-0.3, 0.3, shape))
        arrays[theirs] = array
    path = tmp_path_factory.mktemp("inception") / "inception.npz"
    np.savez(path, **arrays)
    return path


@pytest.fixture(scope="session")
def random_squeezenet(tmp_path_factory):
    """The path of a file like `squeezenet_v1.0.npz`, of random numbers."""
    image = jax.ShapeDtypeStruct((1, 227, 227, 3), jnp.float32)
    module, rng, arrays = SqueezeNet(), np.random.default_rng(0), {}
    shapes = jax.eval_shape(
        lambda x: module.init(jax.random.key(0), x, method="classify"), image
    )["params"]
    theirs = {
        "squeeze": "conv1x1_1",
        "expand1x1": "conv1x1_2",
        "expand3x3": "conv3x3_2",
    }
    for path, struct in jax.tree_util.tree_leaves_with_path(shapes):
        *layer, kind = (theirs.get(key.key, key.key) for key in path)
        array = rng.standard_normal(struct.shape, np.float32)
        if kind == "kernel":
            array /= np.sqrt(np.prod(struct.shape[:-1]) / 2)
            array = array.transpose(3, 2, 0, 1)
        name = "weight" if kind == "kernel" else kind
        arrays[".".join([*layer, name])] = array
    path = tmp_path_factory.mktemp("squeezenet") / "random.npz"
    np.savez(path, **arrays)
    return path


@pytest.fixture
def publish_file(monkeypatch):
    """A function that makes a file the published one of its name; no other is."""
    table = {}
    monkeypatch.setattr(weights, "KNOWN_FILES", table)

    def publish_file(path):
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        table[path.name] = WeightsFile("http://127.0.0.1:9/", 1, digest, "none")

    return publish_file


@pytest.fixture(scope="session")
def write_torch():
    """A function that writes tensors as torch does, from a dict of their shapes.

    Each repeats one number, its place in the dict, or has the numbers in `numbers`:
    an array of its shape, or one that it repeats.
    """

    def write_torch(path, shapes, **numbers):
        described = b"\x80\x02}"
        with zipfile.ZipFile(path, "w") as archive:
            for i, (name, shape) in enumerate(shapes.items()):
                array = np.array(numbers.get(name, i), np.float32, order="C")
                steps = [s // 4 for s in np.broadcast_to(array, shape).strides]
                sizes, strides = (
                    b"".join(b"I%d\n" % side for side in row) for row in (shape, steps)
                )
                described += (
                    f"S'{name}'\nctorch._utils\n_rebuild_tensor_v2\n((".encode()
                )
                described += f"S'storage'\nctorch\nFloatStorage\nS'{i}'\n".encode()
                described += b"S'cpu'\nI%d\ntQI0\n(" % array.size + sizes + b"t("
                described += strides + b"tI00\nNtRs"
                archive.writestr(f"x/data/{i}", array.tobytes())
            archive.writestr("x/data.pkl", described + b".")
        return path

    return write_torch


@pytest.fixture(scope="session")
def torch():
    """torch, such that torchvision, lpips and diffusers can be imported after it.

    torchvision's compiled half is missing beside a torch for the CPU alone, and its
    Python half then fails for want of two operators; diffusers imports it, too.
    """
    torch = pytest.importorskip("torch")
    torchvision = importlib.util.find_spec("torchvision")
    if torchvision is not None:
        try:
            torch.ops.load_library(Path(torchvision.origin).parent / "_C.so")
        except OSError:
            for name in ("nms", "qnms"):
                schema = "(Tensor boxes, Tensor scores, float threshold) -> Tensor"
                torch.library.define(f"torchvision::{name}", schema)
    return torch
