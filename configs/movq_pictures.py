"""A small MoVQ of any folder of photographs at 64², for a prior to learn its indices.

Not a paper's experiment. A position stands for 8x8 pixels and has 4 indices, so that a
picture is a grid of 8x8x4: short enough for a prior that learns on a CPU. DIR holds a
few thousand photographs.

    python -m movq_jax.tools.prepare --dataset=folder --name=pictures --source=DIR
    python -m movq_jax.main --config=configs/movq_pictures.py

Pictures are sharper with a perceptual loss, which wants a file of weights (see README):

    --config.loss.perceptual.name=squeezenet --config.loss.perceptual.weights=FILE

Number to reach: 24.4 dB PSNR on 341 held-out photographs of clothes, all codes in use;
with that perceptual loss. Cost: 52 minutes on 2 CPU cores that had other work as well.
Arguments: `dual` (Dual Codebook VQ's two books instead, 2 indices a position); `tiny`
(seconds, to see that everything runs). There is no `stable`: nothing is adversarial.
"""

from ml_collections import ConfigDict

from movq_jax.config import read_arg, schema


def get_config(arg: str = "") -> ConfigDict:
    """Return the config; `arg` may be 'dual', 'tiny', or both."""
    words = read_arg(arg, ["dual", "tiny"])
    config = schema.tokenizer_config()

    config.model.update(
        width=16,
        multipliers=(1, 2, 4, 8),
        res_blocks=1,
        attention_factors=(),
        z_channels=64,
        norm_groups=4,  # of 4 channels and more
    )
    config.model.decoder_norm = {"name": "spatial", "init": "identity"}
    config.model.quantizer = DUAL if "dual" in words else MULTICHANNEL
    config.loss.quantizer_weight = 0.25
    config.loss.adversarial.name = "none"
    config.loss.perceptual.update(weight=0.5, dtype="float32")

    for adam in (config.optim.gen, config.optim.disc):
        adam.update(learning_rate=1e-3, b1=0.9, b2=0.99)
    config.optim.schedule.update(name="cosine", warmup_steps=50, end_factor=0.05)
    config.optim.clip.gen.update(name="global_norm", value=1.0)

    config.data.update(dataset="pictures", image_size=64, num_threads=2)
    config.data.update(decode_once=True)
    config.data.train.crop = {"name": "center"}
    config.train.update(num_steps=2_000, batch_size=16, ema_decay=0.99)
    if "dual" not in words:
        config.train.codebook_init = {
            "name": "kmeans",
            "steps": (0, 40, 100, 200, 400, 800),
            "features_per_code": 40,
            "iterations": 10,
        }
    config.eval.update(every=1_000, num_examples=0, batch_size=16)
    config.log.update(every=50, images_every=1_000)
    config.checkpoint.every = 500
    return schema.shrink(config) if "tiny" in words else config


MULTICHANNEL = {
    "name": "multichannel",
    "num_channels": 4,
    "codebook_size": 256,
    "dim": 4,
    "beta": 0.25,
    "legacy": False,
}
DUAL = {
    "name": "dual",
    "codebook_size": 512,
    "dim": 16,
    "global_half": "first",
    "depth": 6,
    "heads": 2,
    "ffn": 128,
    "dropout": 0.1,
    "beta": 0.25,
    "legacy": False,
}
