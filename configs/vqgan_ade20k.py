"""Plain VQGAN of ADE20K (full, 2021) at 256²: 16x16 indices of 1024 codes x 256.

The baseline of configs/dualvq_ade20k.py: 10 bits a position, against 18 there. DIR
holds ADE20K_2021_17_01, see README.

    python -m movq_jax.tools.prepare --dataset=ade20k/full --source=DIR
    python -m movq_jax.main --config=configs/vqgan_ade20k.py

Backbone, data, batch, epochs and learning rate are those of the dual codebook; LPIPS of
weight 1, beta on the codebook term (legacy), as VQGAN's code (arXiv 2012.09841) has it.

Number to reach: none measured yet.
Cost: 13 million images at 1.35 TFLOP, hours to days of one H200 (an estimate).
Arguments: `stable` (the other school of GAN terms, see `schema.stabilise`), `tiny`
(seconds, to see that everything runs).
"""

from ml_collections import ConfigDict

from movq_jax.config import read_arg, schema


def get_config(arg: str = "") -> ConfigDict:
    """Return the config; `arg` may be 'stable', 'tiny', or both: 'stable,tiny'."""
    words = read_arg(arg, ["stable", "tiny"])
    config = schema.tokenizer_config()  # VQGAN f16, 1024 codes x 256
    schema.lpips(config, weight=1.0)
    config.loss.adversarial.update(weight=0.8, start=10_000)

    config.data.dataset = "ade20k/full"
    config.data.train.resize = {"name": "squash", "resample": "bilinear"}
    config.data.train.crop = {"name": "none"}
    config.data.train.flip = False
    config.data.eval.resize = {"name": "squash", "resample": "bilinear"}
    config.data.eval.crop = {"name": "none"}
    schema.vqgan_epochs(config, 500, images=25_574, batch_size=16)
    if "stable" in words:
        schema.stabilise(config)
    return schema.shrink(config) if "tiny" in words else config
