"""A tiny config, its batches, and the photographs prepared once for all tests."""

import types

import jax.numpy as jnp
import numpy as np
import pytest

from movq_jax.config import load_config
from movq_jax.tools import prepare
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

    def preview(config):
        return lambda state, batch: {"val/first": np.asarray(batch["image"][0])}

    made = types.SimpleNamespace(
        check=lambda config: None,
        init_state=init_state,
        frozen={"scale": np.float32(1)},
        saved=[],
        phase=lambda config, step: "reconstruction",
        make_train_step=make_train_step,
        make_eval_step=make_eval_step,
        preview=preview,
        fits_to_data=lambda config, step: False,
        BEST_METRIC="val/psnr",
    )
    made.load_frozen = lambda config: made.frozen
    made.save_bundle = lambda c, w, state, v: made.saved.append(int(state.step))
    return made
