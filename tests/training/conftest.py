"""A tiny config, its batches, and the photographs prepared once for all tests."""

import types

import jax.numpy as jnp
import numpy as np
import pytest

from movq_jax.config import load_config
from movq_jax.data.tokens import shards
from movq_jax.data.tokens.plan import Plan
from movq_jax.pretrained.bundle import read_bundle
from movq_jax.tools import prepare
from movq_jax.training import image_inputs
from movq_jax.training.metrics import average
from movq_jax.training.state import TrainState, advance


@pytest.fixture(scope="session")
def photos_dir(tmp_path_factory):
    """A data dir with the prepared `photos`."""
    pytest.importorskip("skimage", reason="the photographs are in its wheel")
    data_dir = tmp_path_factory.mktemp("data")
    prepare.main(["--dataset=photos", f"--data-dir={data_dir}"])
    return data_dir


@pytest.fixture
def tiny_config():
    """Make a config of seconds: `tiny_config("train.num_steps=3", ...)`."""

    def make(*overrides, spec="movq_photos:tiny"):
        small = [
            "model.width=8",
            "model.multipliers=(1,2)",
            "model.z_channels=8",
            "data.image_size=16",
            "data.eval.image_size=16",
            "loss.reconstruction.name=l1",
            "loss.reconstruction.weight=1.0",
            "loss.quantizer_weight=1.0",
            "optim.gen.learning_rate=1e-3",
        ]
        return load_config(spec, [*small, *overrides])

    return make


@pytest.fixture
def adversarial_config(tiny_config):
    """The same with a discriminator."""

    def make(*overrides):
        return tiny_config(
            "loss.adversarial.name=hinge",
            "loss.adversarial.start=0",
            "loss.discriminator.layers=1",
            *overrides,
        )

    return make


@pytest.fixture
def batch():
    """Smooth coloured images, always the same ones: uint8 [8, 16, 16, 3]."""
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 255, (8, 2, 2, 3))
    t = np.linspace(0, 1, 16)
    weights = np.stack([1 - t, t])
    images = np.einsum("brcd,ry,cx->byxd", corners, weights, weights)
    return {"image": images.astype(np.uint8)}


@pytest.fixture
def stage():
    """A stage whose steps compile in no time: one weight, drawn to the mean pixel.

    `stage.frozen` is what `load_frozen` gives; `stage.saved` has the steps at which a
    bundle was written.
    """

    def init_state(config):
        return TrainState(
            step=jnp.int32(0),
            skipped_steps=jnp.int32(0),
            skipped_in_row=jnp.int32(0),
            gen_params={"w": jnp.zeros(())},
            gen_opt=(),
            ema_params={"w": jnp.zeros(())},
            disc_params={},
            disc_opt=(),
            variables={"gen": {}, "disc": {}},
        )

    def make_train_step(config, phase):
        def train_step(state, batch, frozen):
            target = jnp.mean(batch["image"] / 255.0)
            loss = jnp.abs(target - state.gen_params["w"]) * frozen["scale"]
            params = {"w": state.gen_params["w"] + 0.1}
            new = state.replace(gen_params=params, ema_params=params)
            metrics = {"loss_rec": average(loss)}
            return advance(state, new, jnp.isfinite(loss)), metrics

        return train_step

    def make_eval_step(config):
        def eval_step(state, batch, frozen):
            pixels = batch["image"].astype(jnp.float32).mean((1, 2, 3))
            return {"psnr": average(pixels + state.ema_params["w"], batch["mask"])}

        return eval_step

    def make_judged(config):
        return lambda state, batch, frozen: (batch["image"] // 2, batch["image"])

    def preview(config):
        return lambda state, batch, frozen: {"val/first": np.asarray(batch["image"][0])}

    made = types.SimpleNamespace(
        check=lambda config: None,
        init_state=init_state,
        frozen={"scale": np.float32(1)},
        saved=[],
        phase=lambda config, step: "reconstruction",
        make_train_step=make_train_step,
        make_eval_step=make_eval_step,
        make_judged=make_judged,
        preview=preview,
        fits_to_data=lambda config, step: False,
        score=lambda values: values["val/psnr"],
        resolve=lambda config, workdir, train: config,
        train_batches=image_inputs.train_batches,
        batch_at=image_inputs.batch_at,
        eval_batches=image_inputs.eval_batches,
    )
    made.load_frozen = lambda config: made.frozen
    made.save_bundle = lambda c, w, state, v: made.saved.append(int(state.step))
    return made


@pytest.fixture
def token_cache(tiny_bundle, tmp_path):
    """Write a token cache of the tiny MoVQ: `token_cache("name", ids, labels)`.

    ids are int32 [n, h, w, 2] below 32; fields of the plan may be changed.
    """

    def write(name, ids, labels=None, **changes):
        fields = {
            "fingerprint": read_bundle(tiny_bundle).fingerprint,
            "codebook_sizes": (32, 32),
            "channel_books": ("codebook", "codebook"),
            "factor": 4,
            "image_size": 4 * ids.shape[1],
            "preprocessing": {"resize": {"name": "squash"}, "image_size": 8},
            "flip": False,
            "micro_batch": 1,
            "dataset": "small/1.0.0",
            "dataset_fingerprint": None,
            "split": "train",
            "num_examples": len(ids),
            "num_shards": 1,
            "classes": ("cat", "dog", "eel"),
        }
        plan, folder = Plan(**fields | changes), tmp_path / name
        shards.begin(folder, plan)
        labels = [n % 3 for n in range(len(ids))] if labels is None else labels
        records = [plan.pack(*pair) for pair in zip(labels, ids[:, None], strict=True)]
        shards.write_shard(folder, plan, 0, records)
        shards.complete(folder, plan)
        return str(folder)

    return write


@pytest.fixture
def toy_ids():
    """What a prior can learn: one grid of 2 x 2 positions and its mirror, 16 times."""
    grid = np.array([[[3, 7], [11, 7]], [[30, 1], [3, 2]]], np.int32)
    return np.stack([grid, grid[:, ::-1]] * 8)


@pytest.fixture
def prior_config(tiny_bundle, token_cache, toy_ids):
    """Make a config of a tiny prior that learns `toy_ids` from a cache."""

    def make(*overrides, spec="maskgit_photos:tiny", cache=None):
        cache = token_cache("toy", toy_ids) if cache is None else cache
        small = [
            f"tokenizer={tiny_bundle}",
            f"cache.train={cache}",
            f"cache.eval={cache}",
            "model.width=16",
            "model.depth=1",
            "model.dropout=0.0",
            "data.image_size=8",
            "data.eval.image_size=8",
            "train.batch_size=8",
            "optim.gen.learning_rate=1e-2",
            "optim.schedule.name=constant",
        ]
        return load_config(spec, [*small, *overrides])

    return make
