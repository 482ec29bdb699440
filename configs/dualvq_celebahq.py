"""Dual Codebook VQ of CelebA-HQ at 256²: 16x16 positions, 18 bits each.

Paper: arXiv 2503.10832, the CelebA-HQ column: its number is not at hand. Two codebooks
of 512 codes x 128, one for each half of a latent of 256 channels; the codes of the
global one come out of a transformer of 6 layers. The split is VQGAN's 25,000 /
5,000, for which the paper's is not known (its code reads folders: celebahq/folders).

    python -m movq_jax.tools.prepare --dataset=celebahq/taming --source=DIR
    python -m movq_jax.main --config=configs/dualvq_celebahq.py

As the authors' code has it: backbone of VQGAN f16, L1, 1.25 LPIPS, hinge PatchGAN with
adaptive weight 0.8 from step 10,000, Adam (0.5, 0.9) at 4.5e-6 x batch, batch 16, up to
500 epochs, float32, beta 0.25 on the commitment, no averaged weights. Images: squashed
to 256x256, mirrored at random in training (the authors' code mirrors in validation,
too), bilinear. Inferred: that the discriminator's start counts batches; their trainer
counts the steps of both optimizers, which would make it 5,000.

Number to reach: none measured yet.
Cost: 12 million images at 1.36 TFLOP, the same as configs/vqgan_celebahq.py, which is
the baseline.
Arguments: `depth0` (no transformer: plain product quantisation), `ema` (codes by
running means, not by gradient), `modulated` (under MoVQ's decoder), `stable` (the other
school of GAN terms, see `schema.stabilise`), `tiny` (seconds, to see that everything
runs).
"""

from ml_collections import ConfigDict

from movq_jax.config import read_arg, schema


def get_config(arg: str = "") -> ConfigDict:
    """Return the config; `arg` may hold any of the arguments, such as 'depth0,ema'."""
    words = read_arg(arg, [*schema.DUAL_VARIANTS, "stable", "tiny"])
    config = schema.tokenizer_config()  # the backbone of VQGAN f16
    schema.dual_codebook(config)
    config.data.dataset = "celebahq/taming"
    config.data.train.resize = {"name": "squash", "resample": "bilinear"}
    config.data.train.crop = {"name": "none"}
    config.data.eval.resize = {"name": "squash", "resample": "bilinear"}
    config.data.eval.crop = {"name": "none"}
    schema.vqgan_epochs(config, 500, images=25_000, batch_size=16)
    schema.vary_dual(config, words)
    if "stable" in words:
        schema.stabilise(config)
    return schema.shrink(config) if "tiny" in words else config
