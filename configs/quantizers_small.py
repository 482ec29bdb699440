"""Six quantizers beside each other: trained alike, on any folder of photographs at 32².

Not a paper's experiment, but the comparison that both papers leave out: the same
backbone, data, steps and learning rate for every row, and the bits that each one spends
stand beside its number. DIR holds a few thousand photographs.

    python -m movq_jax.tools.prepare --dataset=folder --name=pictures --source=DIR
    python -m movq_jax.main --config=configs/quantizers_small.py:dual

The rows, each 8x8 positions for 32x32 pixels:

- `vq` (the default): 1,024 codes x 16; 10 bits a position.
- `multichannel`: MoVQ's, 4 indices of 1,024 codes x 4; 40 bits.
- `dual`: a global book of 512 x 8 under a transformer and a local one; 18 bits.
- `product`: the same without the transformer, both books trained by gradient.
- `product_ema`: the same, both books running means.
- `dualmovq`: `dual` under MoVQ's modulated decoder.

With `kmeans` the codebooks that can start from encoder features do so; without, all
start as their papers have it. Perceptual loss and discriminator are off.

Number to reach: see docs/quantizers.md, which compares them. Cost: minutes each on a
CPU core; launch/compare_quantizers.py runs all of them, with several seeds.
Arguments: one of the rows; `kmeans`; `tiny` (seconds, to see that everything runs).
There is no `stable`: nothing is adversarial here.
"""

from ml_collections import ConfigDict

from movq_jax.config import choose_one, read_arg, schema

ROWS = ("vq", "multichannel", "dual", "product", "product_ema", "dualmovq")


def get_config(arg: str = "") -> ConfigDict:
    """Return the config; `arg` is a row and more, such as 'dual,kmeans,tiny'."""
    words = read_arg(arg, [*ROWS, "kmeans", "tiny"])
    row = choose_one(words, ROWS)
    config = schema.tokenizer_config()

    config.model.update(
        width=16,
        multipliers=(1, 2, 4),
        res_blocks=1,
        attention_factors=(),
        z_channels=64,
        norm_groups=4,  # of 4 channels and more: 16 would be of one
    )
    config.model.quantizer = quantizer(row)
    if row == "dualmovq":
        config.model.decoder_norm = {"name": "spatial", "init": "identity"}
    config.loss.adversarial.name = "none"

    for adam in (config.optim.gen, config.optim.disc):
        adam.update(learning_rate=1e-3, b1=0.9, b2=0.99)
    config.optim.schedule.update(name="cosine", warmup_steps=50, end_factor=0.05)
    config.optim.clip.gen.update(name="global_norm", value=1.0)

    config.data.update(dataset="pictures", image_size=32, num_threads=2)
    config.data.update(decode_once=True)
    config.data.train.resize = {"name": "short_side"}
    config.data.train.crop = {"name": "center"}
    config.train.update(num_steps=1_000, batch_size=16, ema_decay=0.99)
    if row == "product_ema":
        config.train.codebook_update.name = "ema"
    if "kmeans" in words:
        config.train.codebook_init = {
            "name": "kmeans",
            "steps": (0, 40, 100, 200, 400),
            "features_per_code": 10,
            "iterations": 10,
        }
    config.eval.update(every=500, num_examples=0, batch_size=64)
    config.log.update(every=50, images_every=1_000)
    config.checkpoint.every = 500
    return schema.shrink(config) if "tiny" in words else config


def quantizer(row: str) -> dict:
    """The section `config.model.quantizer` of a row."""
    losses = {"beta": 0.25, "legacy": False}
    if row == "vq":
        return {"name": "vq", "codebook_size": 1024, "dim": 16, **losses}
    if row == "multichannel":
        fields = {"name": "multichannel", "num_channels": 4}
        return {**fields, "codebook_size": 1024, "dim": 4, **losses}
    dual = {"name": "dual", "codebook_size": 512, "dim": 16}
    depth = 0 if row.startswith("product") else 6
    transformer = {"depth": depth, "heads": 2, "ffn": 128, "dropout": 0.1}
    return {**dual, **transformer, **losses}
