"""The f8 MoVQ of SBER-MoVQGAN and Kandinsky: 32x32 indices of 16,384 codes x 4.

The public models of https://github.com/ai-forever/MoVQGAN, whose table gives, for
256² images of ImageNet:

    argument  width, blocks  parameters   FID   SSIM  PSNR   L1
    67m       128, 2          67,832,495  .965  .725  26.45  .0415
    102m      128, 4         101,614,255  .776  .737  26.89  .0398
    270m      256, 2         270,669,103  .686  .741  27.04  .0393

    python -m movq_jax.tools.prepare --dataset=imagenet --source=DIR
    python -m movq_jax.main --config=configs/movq_f8.py:67m

For DIR see README. As its code has it: L2, 0.1 of LPIPS, 0.1
of a hinge PatchGAN of 2 layers from the first step without adaptive weight, beta on
the codebook term (legacy), Adam 1e-4 (0.5, 0.9), gradients clipped by value at 1,
weights averaged with 0.9999, float32, the spatial norms start as torch's would, no
flip, the square in the middle resized by Pillow's bicubic filter with a reducing gap of
1. Batch and length are not known: 32 and 500,000
steps are choices of this project.

Number to reach: none measured yet.
Cost (67m): 16 million images at 2.26 TFLOP, about 32 hours of one H200 if it ran at
40 % of its bfloat16 matrix rate (an estimate); float32 takes several times as long.
Arguments: 67m (the default), 102m, 270m; `stable` (the other school of GAN terms, see
`schema.stabilise`), `tiny` (seconds, to see that everything runs).
"""

from ml_collections import ConfigDict

from movq_jax.config import choose_one, read_arg, schema

SIZES = {  # width, residual blocks a level
    "67m": (128, 2),
    "102m": (128, 4),
    "270m": (256, 2),
}


def get_config(arg: str = "") -> ConfigDict:
    """Return the config; `arg` is a size, 'stable', 'tiny', or several: '270m,tiny'."""
    words = read_arg(arg, [*SIZES, "stable", "tiny"])
    width, res_blocks = SIZES[choose_one(words, list(SIZES))]
    config = schema.tokenizer_config()

    config.model.update(
        width=width,
        multipliers=(1, 2, 2, 4),
        res_blocks=res_blocks,
        attention_factors=(8,),
        z_channels=4,
    )
    config.model.decoder_norm = {"name": "spatial", "init": "torch"}
    config.model.quantizer = {
        "name": "vq",
        "codebook_size": 16_384,
        "dim": 4,
        "beta": 0.25,
        "legacy": True,
    }
    config.loss.reconstruction.name = "l2"
    schema.lpips(config, weight=0.1)
    config.loss.adversarial.update(weight=0.1, start=0, adaptive=False)
    config.loss.discriminator.layers = 2

    for adam in (config.optim.gen, config.optim.disc):
        adam.update(learning_rate=1e-4, b1=0.5, b2=0.9)
    for clip in config.optim.clip.values():
        clip.update(name="value", value=1.0)

    config.data.dataset = "imagenet"
    config.data.train.update(flip=False)
    for view in (config.data.train, config.data.eval):
        view.resize = {"name": "none"}
        view.crop = {"name": "center_square", "reducing_gap": 1.0}
    config.train.update(batch_size=32, num_steps=500_000, ema_decay=0.9999)
    if "stable" in words:
        schema.stabilise(config)
    return schema.shrink(config) if "tiny" in words else config
