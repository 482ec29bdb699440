"""An autoregressive prior over MoVQ of FFHQ at 256²: 16x16 positions of 4 channels.

Paper: arXiv 2209.09002, the unconditional FFHQ table's row of MoVQ with the
autoregressive prior; its number is not at hand. The paper draws its 1,024 indices one
by one, which is `flat`; the default has a step a position, and a depth head over its 4
channels (RQ-Transformer, 2203.01941). DIR is where FFHQ lies, see README.

    python -m movq_jax.tools.prepare --dataset=ffhq --source=DIR
    python -m movq_jax.main --config=configs/movq_ffhq.py --workdir=runs/movq
    python -m movq_jax.main --config=configs/ar_movq_ffhq.py \
        --config.tokenizer=runs/movq

Trunk and optimization are LlamaGen's (2406.06525): RMSNorm, SwiGLU, 2-D rotary
positions, AdamW (0.9, 0.95) at 1e-4 with decay 0.05, clipping at 1. 24 blocks of width
1024, 400,000 steps of 64 images and bfloat16 are choices of this project.

Number to reach: none measured yet.
Cost: 26 million images at about 0.73 TFLOP, more with `flat`, and the tokenizer's
encoder, not measured.
Arguments: `flat`, `tiny` (seconds, to see that everything runs).
"""

from ml_collections import ConfigDict

from movq_jax.config import prior_schema, read_arg


def get_config(arg: str = "") -> ConfigDict:
    """Return the config; `arg` may hold 'flat' and 'tiny'."""
    words = read_arg(arg, ["flat", "tiny"])
    config = prior_schema.autoregressive(prior_schema.prior_config())
    config.tokenizer_config = "movq_ffhq"
    config.model.update(width=1024, depth=24, heads=16, dtype="bfloat16")
    if "flat" in words:
        with config.unlocked():
            config.model.channels = {"name": "flat"}
    config.data.dataset = "ffhq"
    config.train.update(num_steps=400_000, batch_size=64)
    return prior_schema.shrink(config) if "tiny" in words else config
