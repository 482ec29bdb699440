"""A small MoVQ of the photographs in the scikit-image and scikit-learn wheels.

Not a paper's experiment: the demo. It learns on a CPU, from random crops of a handful
of photographs, to rebuild photographs that it never saw, at 4 indices for each 4x4
pixels. The codebook comes from encoder features (k-means), before the first step and
at a few early ones, so that no code is dead. Colour channels are permuted, because so
few photographs do not hold all colours. There is no discriminator: the training is too
short for one.

    python -m movq_jax.tools.prepare --dataset=photos
    python -m movq_jax.main --config=configs/movq_photos.py

Number to reach: 27.4 dB PSNR on the held-out photographs, with at least 80 %
of the codes in use. Cost: 8 minutes with the installation on 2 CPU cores.
Arguments: `tiny` (seconds, to see that everything runs).
"""

from ml_collections import ConfigDict

from movq_jax.config import read_arg, schema


def get_config(arg: str = "") -> ConfigDict:
    """Return the config; `arg` may be 'tiny'."""
    words = read_arg(arg, ["tiny"])
    config = schema.tokenizer_config()

    config.model.update(
        width=32,
        multipliers=(1, 1, 2),
        res_blocks=1,
        attention_factors=(),
        z_channels=64,
    )
    config.model.decoder_norm = {"name": "spatial", "init": "identity"}
    config.model.quantizer = {
        "name": "multichannel",
        "num_channels": 4,
        "codebook_size": 256,
        "dim": 4,
        "beta": 0.25,
        "legacy": False,
    }
    config.loss.reconstruction.update(name="l2", weight=4.0)
    config.loss.quantizer_weight = 0.25
    config.loss.adversarial.name = "none"

    for adam in (config.optim.gen, config.optim.disc):
        adam.update(learning_rate=2e-3, b1=0.9, b2=0.99)
    config.optim.schedule.update(name="cosine", warmup_steps=20, end_factor=0.05)
    config.optim.clip.update(name="global_norm", value=1.0)

    config.data.update(dataset="photos", image_size=64, num_threads=2, decode_once=True)
    config.data.train.resize = {"name": "none"}
    config.data.train.crop = {
        "name": "random_scaled",
        "min_scale": 1.0,
        "max_scale": 2.0,
    }
    config.data.train.permute_channels = True
    config.data.eval.resize = {"name": "short_side"}
    config.data.eval.image_size = 256

    config.train.update(num_steps=800, batch_size=8, ema_decay=0.99, max_bad_steps=10)
    config.train.codebook_init = {
        "name": "kmeans",
        "steps": (0, 40, 100, 200, 300, 400),
        "features_per_code": 20,
        "iterations": 10,
    }
    config.eval.update(every=400, num_examples=0, batch_size=2)
    config.log.update(every=20, images_every=400, num_images=4)
    config.checkpoint.every = 400
    return schema.shrink(config) if "tiny" in words else config
