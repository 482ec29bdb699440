"""MoVQ of FFHQ at 256²: 16x16x4 indices from one codebook of 1024 x 64.

Paper: arXiv 2209.09002, the reconstruction table's row "MoVQ, 16x16x4, 1024":
rFID 2.26 on the VQ papers' random split of 60,000 / 10,000 pictures (not NVIDIA's).
78.26 M parameters, as configs/movq_imagenet.py. For DIR
see README.

    python -m movq_jax.tools.prepare --dataset=ffhq/taming --source=DIR
    python -m movq_jax.main --config=configs/movq_ffhq.py

Sizes are the paper's, the losses VQGAN's, on which it builds. How long the paper
trained on faces is not known: 150 epochs are a choice of this project, as are the
batch of 48, bfloat16 and the averaged weights.

Number to reach: none measured yet.
Cost: 9 million images at 1.35 TFLOP, about 11 hours of one H200 if it runs at 40 % of
its matrix rate (an estimate, not a measurement).
Arguments: `stable` (the other school of GAN terms, see `schema.stabilise`), `tiny`
(seconds, to see that everything runs).
"""

from ml_collections import ConfigDict

from movq_jax.config import read_arg, schema

TRAIN_IMAGES = 60_000
EPOCHS = 150
BATCH_SIZE = 48


def get_config(arg: str = "") -> ConfigDict:
    """Return the config; `arg` may be 'stable', 'tiny', or both: 'stable,tiny'."""
    words = read_arg(arg, ["stable", "tiny"])
    config = schema.tokenizer_config()

    config.model.update(
        width=128,
        multipliers=(1, 1, 2, 2, 4),
        res_blocks=2,
        attention_factors=(16,),
        z_channels=256,
        dtype="bfloat16",
    )
    config.model.decoder_norm = {"name": "spatial", "init": "identity"}
    config.model.quantizer = {
        "name": "multichannel",
        "num_channels": 4,
        "codebook_size": 1024,
        "dim": 64,
        "beta": 0.25,
        "legacy": False,
    }
    schema.lpips(config, weight=1.0)
    config.loss.adversarial.update(weight=0.8, start=30_000)

    config.optim.gen.learning_rate = 4.5e-6 * BATCH_SIZE
    config.optim.disc.learning_rate = 4.5e-6 * BATCH_SIZE

    config.data.dataset = "ffhq/taming"
    config.data.train.resize = {"name": "squash"}
    config.data.train.crop = {"name": "none"}
    config.data.eval.resize = {"name": "squash"}
    config.data.eval.crop = {"name": "none"}
    config.train.batch_size = BATCH_SIZE
    config.train.num_steps = EPOCHS * TRAIN_IMAGES // BATCH_SIZE
    if "stable" in words:
        schema.stabilise(config)
    return schema.shrink(config) if "tiny" in words else config
