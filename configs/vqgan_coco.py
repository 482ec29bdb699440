"""Plain VQGAN of COCO 2014 at 256²: 16x16 indices of 1024 codes x 256.

The baseline of configs/dualvq_coco.py: 10 bits a position, against 18 there. Papers
that compare codebooks state rFID 14.45 (PSNR 20.21) for it, with batch 8. DIR holds the
official zip files or the folders in them, see README.

    python -m movq_jax.tools.prepare --dataset=coco/2014 --source=DIR
    python -m movq_jax.main --config=configs/vqgan_coco.py

Backbone, data, batch, epochs and learning rate are those of the dual codebook; LPIPS of
weight 1, beta on the codebook term (legacy), as VQGAN's code (arXiv 2012.09841) has it.

Number to reach: none measured yet.
Cost: 41 million images at 1.35 TFLOP, hours to days of one H200 (an estimate).
Arguments: `stable` (the other school of GAN terms, see `schema.stabilise`), `tiny`
(seconds, to see that everything runs; on `coco`, of whichever edition is prepared).
"""

from ml_collections import ConfigDict

from movq_jax.config import read_arg, schema


def get_config(arg: str = "") -> ConfigDict:
    """Return the config; `arg` may be 'stable', 'tiny', or both: 'stable,tiny'."""
    words = read_arg(arg, ["stable", "tiny"])
    config = schema.tokenizer_config()  # VQGAN f16, 1024 codes x 256
    schema.lpips(config, weight=1.0)
    config.loss.adversarial.update(weight=0.8, start=10_000)

    config.data.dataset = "coco/2014"
    for view in (config.data.train, config.data.eval):  # as torchvision rounds
        resize = {"name": "short_side", "resample": "bilinear", "rounding": "down"}
        view.resize = resize
        view.crop = {"name": "center", "rounding": "nearest"}
    schema.vqgan_epochs(config, 500, images=82_783, batch_size=16)
    if "stable" in words:
        schema.stabilise(config)
    return schema.shrink(config, dataset="coco") if "tiny" in words else config
