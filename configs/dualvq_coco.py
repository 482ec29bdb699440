"""Dual Codebook VQ of COCO 2014 at 256²: 16x16 positions, 18 bits each.

Paper: arXiv 2503.10832, the COCO 2014 column: rFID 4.19 (VQCT 9.82). Two codebooks of
512 codes x 128, one for each half of a latent of 256 channels; the codes of the global
one come out of a transformer of 6 layers. DIR holds the official zip files or the
folders in them, see README.

    python -m movq_jax.tools.prepare --dataset=coco/2014 --source=DIR
    python -m movq_jax.main --config=configs/dualvq_coco.py

As the authors' code has it: backbone of VQGAN f16, L1, 1.25 LPIPS, hinge PatchGAN with
adaptive weight 0.8 from step 10,000, Adam (0.5, 0.9) at 4.5e-6 x batch, batch 16, up to
500 epochs, float32, beta 0.25 on the commitment, no averaged weights. Images: shorter
side to 256, square from the middle, mirrored at random, bilinear. Inferred: that the
discriminator's start counts batches; their trainer counts the steps of both optimizers,
which would make it 5,000.

Number to reach: rFID 4.19 says the paper; none measured here yet.
Cost: 41 million images at 1.36 TFLOP, the same as configs/vqgan_coco.py, which is the
baseline.
Arguments: `depth0` (no transformer: plain product quantisation), `ema` (codes by
running means, not by gradient), `modulated` (under MoVQ's decoder), `stable` (the other
school of GAN terms, see `schema.stabilise`), `tiny` (seconds, to see that everything
runs; on `coco`, of whichever edition is prepared).
"""

from ml_collections import ConfigDict

from movq_jax.config import read_arg, schema


def get_config(arg: str = "") -> ConfigDict:
    """Return the config; `arg` may hold any of the arguments, such as 'depth0,ema'."""
    words = read_arg(arg, [*schema.DUAL_VARIANTS, "stable", "tiny"])
    config = schema.tokenizer_config()  # the backbone of VQGAN f16
    schema.dual_codebook(config)
    config.data.dataset = "coco/2014"
    for view in (config.data.train, config.data.eval):  # as torchvision rounds
        resize = {"name": "short_side", "resample": "bilinear", "rounding": "down"}
        view.resize = resize
        view.crop = {"name": "center", "rounding": "nearest"}
    schema.vqgan_epochs(config, 500, images=82_783, batch_size=16)
    schema.vary_dual(config, words)
    if "stable" in words:
        schema.stabilise(config)
    return schema.shrink(config, dataset="coco") if "tiny" in words else config
