"""MaskGIT over MoVQ of FFHQ at 256²: 16x16 positions of 4 channels, without classes.

Paper: arXiv 2209.09002, the unconditional FFHQ table's row of MoVQ with the masked
prior; its number is not at hand. DIR is where FFHQ lies, see README.

    python -m movq_jax.tools.prepare --dataset=ffhq --source=DIR
    python -m movq_jax.main --config=configs/movq_ffhq.py --workdir=runs/movq
    python -m movq_jax.main --config=configs/maskgit_movq_ffhq.py \
        --config.tokenizer=runs/movq

Trunk, masks and optimization are MaskGIT's (2202.04200), as in
configs/maskgit_movq_imagenet.py, with width 768 and a depth head over the channels.
400,000 steps of 64 images (370 epochs), bfloat16 and clipping are choices of this
project.

Number to reach: none measured yet.
Cost: 26 million images at about 0.41 TFLOP (three times 93 + 45 GFLOP of trunk and
head), and the tokenizer's encoder, not measured.
Arguments: `parallel`, `independent` (the other ways to model channels, see
`prior_schema.masked`), `tiny` (seconds, to see that everything runs).
"""

from ml_collections import ConfigDict

from movq_jax.config import choose_one, prior_schema, read_arg


def get_config(arg: str = "") -> ConfigDict:
    """Return the config; `arg` may hold a way to model channels, and 'tiny'."""
    words = read_arg(arg, [*prior_schema.CHANNELS, "tiny"])
    config = prior_schema.prior_config()
    config.tokenizer_config = "movq_ffhq"
    config.model.dtype = "bfloat16"
    config.optim.clip.gen.update(name="global_norm", value=1.0)
    config.data.dataset = "ffhq"
    config.train.update(num_steps=400_000, batch_size=64)
    prior_schema.vary_channels(config, choose_one(words, prior_schema.CHANNELS))
    return prior_schema.shrink(config) if "tiny" in words else config
