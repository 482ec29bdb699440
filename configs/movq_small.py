"""A small MoVQ with a discriminator, of any folder of photographs at 64².

Not a paper's experiment: the one that shows what happens when the discriminator starts,
with everything switched on, in minutes on a CPU. DIR holds a few thousand photographs,
SQUEEZENET is the file with the weights of SqueezeNet v1.0 (see README).

    python -m movq_jax.tools.prepare --dataset=folder --name=pictures --source=DIR
    python -m movq_jax.main --config=configs/movq_small.py \
        --config.loss.perceptual.weights=SQUEEZENET

The schools are two, and what they avoid is the third:

- the papers' (the default): hinge PatchGAN with batch norm, adaptive weight times 0.8,
  Adam (0.5, 0.9); our addition is that the discriminator learns before it pushes, and
  that the adaptive weight is at most 1.
- `stable`: see `schema.stabilise`, with 100 steps of warm-up.
- `unguarded`: the papers' to the letter, without these two additions: it pushes from
  its first, random, step on, and the adaptive weight may grow to 1e4.

Number to reach: 23.5 to 23.7 dB PSNR on 64 held-out photographs of clothes, 23.2 to
23.3 dB with `stable`, 21.4 to 22.4 dB with `unguarded`: see docs/gan_start.md.
Cost: 7 to 10 minutes on a CPU core.
Arguments: `stable` or `unguarded`; `tiny` (seconds, to see that everything runs).
"""

from ml_collections import ConfigDict

from movq_jax.config import choose_one, read_arg, schema

SCHOOLS = ("papers", "stable", "unguarded")
GAN_START = 300
WARMUP = 100


def get_config(arg: str = "") -> ConfigDict:
    """Return the config; `arg` is a school, 'tiny', or both: 'stable,tiny'."""
    words = read_arg(arg, [*SCHOOLS, "tiny"])
    school = choose_one(words, SCHOOLS)
    config = schema.tokenizer_config()

    config.model.update(
        width=16,
        multipliers=(1, 2, 4),
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
    config.loss.quantizer_weight = 0.25
    config.loss.perceptual.update(name="squeezenet", weight=1.0, dtype="float32")
    config.loss.adversarial.weight = 0.8
    config.loss.discriminator.update(width=32, layers=2)

    if school == "stable":
        schema.stabilise(config)
        config.loss.discriminator.update(width=16, max_width=64)
    elif school == "papers":
        config.loss.adversarial.adaptive_max = 1.0
    warmup = 0 if school == "unguarded" else WARMUP
    config.loss.adversarial.update(start=GAN_START, warmup=warmup)

    for adam in (config.optim.gen, config.optim.disc):
        adam.learning_rate = 1e-3
    config.optim.schedule.warmup_steps = 20

    config.data.update(dataset="pictures", image_size=64, num_threads=2)
    config.data.train.resize = {"name": "short_side"}
    config.data.train.crop = {"name": "random"}
    config.train.update(num_steps=600, batch_size=8, ema_decay=0.95)
    config.train.codebook_init = {
        "name": "kmeans",
        "steps": (0, 40, 100),
        "features_per_code": 20,
        "iterations": 10,
    }
    config.eval.update(every=25, num_examples=64, batch_size=32)
    config.log.update(every=10, images_every=150)
    config.checkpoint.every = 300
    return schema.shrink(config) if "tiny" in words else config
