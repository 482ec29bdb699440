"""Plain VQGAN of ImageNet at 256²: 16x16 indices of 1024 codes x 256.

Paper: arXiv 2012.09841, the f16 model with 1024 codes: rFID 7.94 on ImageNet's
validation set. 72.1 M parameters. The baseline that MoVQ is measured against.
For DIR see README.

    python -m movq_jax.tools.prepare --dataset=imagenet --source=DIR
    python -m movq_jax.main --config=configs/vqgan_imagenet.py

As its code has it: L1, LPIPS, hinge PatchGAN from step 250,000, adaptive weight 0.8,
Adam (0.5, 0.9) at 4.5e-6 x batch, float32, beta on the codebook term (legacy: so the
published models were trained), no averaged weights; images resized without
antialiasing, as OpenCV does. Batch 48 and 40 epochs are those of
configs/movq_imagenet.py, to compare the two.

Number to reach: none measured yet.
Cost: 51 million images at 1.35 TFLOP, about 60 hours of one H200 if it ran at 40 % of
its bfloat16 matrix rate (an estimate); float32 takes several times as long.
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
    config.loss.adversarial.update(weight=0.8, start=250_000)

    config.data.dataset = "imagenet"
    for view in (config.data.train, config.data.eval):
        view.resize = {"name": "short_side", "resample": "linear_no_antialias"}
    schema.vqgan_epochs(config, 40, images=1_281_167, batch_size=48)
    if "stable" in words:
        schema.stabilise(config)
    return schema.shrink(config) if "tiny" in words else config
